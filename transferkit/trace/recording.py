"""What a call did over time, for whoever wants to look at it afterwards, or while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from transferkit.content.descriptor import Descriptor
from transferkit.errors import SlowError, StalledError, TransferKitError
from transferkit.report.record import Event, Record, Recorder, Sample
from transferkit.tables import facts, human_bytes
from transferkit.trace import Status, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Recording(Trace):
    """A trace that keeps how a call went: ``trace=recording``, and then ``recording.plot()``. Thread-safe.

    It takes bounded memory however long the call is. Used for several calls, it goes on: time begins with the first
    event. ``clock`` is a monotonic one, in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.last = Status()
        """How far the call is."""
        self._clock = clock
        self._recorder = Recorder()
        self._began: float | None = None
        self._base = 0  # bytes that earlier calls have moved
        self._ignored = 0  # bytes that were only hashed or copied here

    def _seconds(self) -> float:
        if self._began is None:
            self._began = self._clock()
        return self._clock() - self._began

    def status(self, status: Status) -> None:
        before = self.last
        if status.moved < before.moved:  # another call
            self._base += before.moved
            before = Status()
        if status.doing:
            self._ignored += status.moved - before.moved
        self.last = status
        self._recorder.take(
            Sample(
                self._seconds(),
                self._base + status.moved - self._ignored,
                completed=status.completed,
                workers=status.workers - status.waiting,
                doing=status.doing,
                reason=status.reason,
            )
        )

    def retried(self, descriptor: Descriptor, error: TransferKitError, position: int, wait: float) -> None:
        if not isinstance(error, (StalledError, SlowError)):  # those are healed
            self._recorder.happened(Event(self._seconds(), "retried", f"{descriptor.digest.short}: {error}"))

    def healed(self, descriptor: Descriptor, error: TransferKitError, position: int) -> None:
        self._recorder.happened(Event(self._seconds(), "healed", f"{descriptor.digest.short}: {error}"))

    def failed(self, descriptor: Descriptor, error: TransferKitError) -> None:
        self._recorder.happened(Event(self._seconds(), "failed", f"{descriptor.digest.short}: {error}"))

    @property
    def record(self) -> Record:
        """What there is so far."""
        return self._recorder.record()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw it; see ``Record.plot``."""
        return self.record.plot(ax)

    def _rows(self) -> list[tuple[str, str]]:
        record, last = self.record, self.last
        moved = record.samples[-1].moved if record.samples else 0
        rows = [("moved", human_bytes(moved)), ("time", f"{record.seconds:.2f} s")]
        rows += [("cached", human_bytes(last.cached))] if last.cached else []
        waited = sum(end - begin for begin, end, what in record.waits() if what.startswith("waiting"))
        rows += [("waited", f"{waited:.2f} s")] if waited else []
        return rows + [(name, str(getattr(last, name))) for name in ("retried", "healed") if getattr(last, name)]

    def __repr__(self) -> str:
        return f"<Recording {', '.join(f'{name} {value}' for name, value in self._rows())}>"

    def _repr_html_(self) -> str:
        return facts(self._rows())
