"""One piece of a plan where it runs: in a thread, a process or a worker of a cluster. All of this can be pickled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from transferkit._version import __version__
from transferkit.cluster.failures import portable
from transferkit.cluster.lines import Line, Teller
from transferkit.errors import CancelledError, TransferKitError
from transferkit.registry.plans import TransferPlan
from transferkit.registry.plans.places import given_by
from transferkit.registry.registry import Registry
from transferkit.report import Report
from transferkit.report.record import Record


class Task(Protocol):
    """What a worker is sent."""

    @property
    def number(self) -> int:
        """Which part of the run it is."""

    @property
    def key(self) -> tuple[str, ...]:
        """What names it: the same for the same work."""

    def run(self) -> Done:
        """Do it, where it was sent, and return what became of it: what the library raises is a part of that.

        KeyboardInterrupt and what is no error of the library come out as they are.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of a plan, and how it is run: the keywords of ``TransferPlan.run``, and those of a ``Registry``,
    ``settings``.

    ``line`` leads back to whoever waits for it. ``events`` are the names of those that somebody hears.
    """

    number: int
    plan: TransferPlan
    line: Line
    to: str | None = None
    cache: str | None = None
    concurrency: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    events: tuple[str, ...] = ()
    attempt: int = 0
    version: str = __version__

    @property
    def key(self) -> tuple[str, ...]:
        return (self.plan.digest, self.to or "", self.cache or "", str(self.attempt))

    def run(self) -> Done:
        began = time.monotonic()
        with self.line.opened(self.number) as end:
            try:
                check_version(self.version, end.worker)
                trace = Teller(end, self.events)
                with client_of(self.plan, self.settings) as registry:
                    try:
                        report = self.plan.run(
                            registry,
                            to=self.to,
                            cache=self.cache,
                            concurrency=self.concurrency,
                            trace=trace,
                            cancel=end.cancellation,
                        )
                    finally:
                        trace.flush()
            except TransferKitError as error:
                return Done(
                    number=self.number, worker=end.worker, seconds=time.monotonic() - began, error=portable(error)
                )
            report = replace(report, record=Record(), paths={} if self.plan.step == "piece" else report.paths)
            return Done(number=self.number, worker=end.worker, seconds=time.monotonic() - began, report=report)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a part of a run, on which worker. ``error`` says why it failed, where it did.

    ``size`` is how many bytes it turned out to have, where nobody knew that before.
    """

    number: int
    worker: str
    seconds: float = 0.0
    report: Report = field(default_factory=Report)
    size: int = 0
    error: TransferKitError | None = None


def run_task(task: Task) -> Done:
    """Run what a worker was sent."""
    return task.run()


def check_version(wanted: str, worker: str) -> None:
    """Raise TransferKitError where this is another version of the library than that of whoever sends a piece."""
    if wanted != __version__:
        raise TransferKitError(
            f"{worker} has transferkit {__version__}, and {wanted} is needed there: install the same version everywhere"
        )


@contextlib.contextmanager
def client_of(plan: TransferPlan, settings: Mapping[str, Any]) -> Iterator[Registry | None]:
    """Return the client for a plan; ``None`` where nobody has said anything of it, and the plan knows what to do."""
    if not settings:
        yield None
        return
    with Registry(**{**settings, **(given_by(plan.credentials) if plan.credentials else {})}) as registry:
        yield registry


def is_final(error: TransferKitError) -> bool:
    """Tell whether an error of a piece would be the same wherever it is tried again.

    >>> from transferkit.errors import BlobNotFoundError, OutOfSpaceError
    >>> full, missing = OutOfSpaceError("full"), BlobNotFoundError("no such blob")
    >>> is_final(full), is_final(missing)
    (False, True)
    """
    from transferkit.errors import IncompleteError, InvalidPlanError, NotFoundError, UnauthorizedError

    if isinstance(error, IncompleteError) and error.failures:
        return all(map(is_final, error.failures.values()))
    return isinstance(error, NotFoundError | InvalidPlanError | UnauthorizedError) and not isinstance(
        error, CancelledError
    )
