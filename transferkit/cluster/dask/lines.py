"""Lines over the scheduler: what a piece tells is an event of a topic, and it ends when Dask lets go of its task.

So it ends whoever lets go: the caller that cancels, the scheduler that has lost the caller, the worker that closes.
"""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from transferkit.cancellation import Cancellation
from transferkit.cluster.lines import End, Message
from transferkit.trace import Status

_LOOK = 0.25  # seconds between two looks whether the task is still wanted
_EVERY = 0.5  # seconds between two messages of one piece
_MOST = 400.0  # messages a second that a scheduler gets of all pieces together


class DaskLine:
    """What is sent along with a piece: ``topic`` is where it tells, ``workers`` how many do so at the same time."""

    def __init__(self, topic: str, workers: int) -> None:
        self.topic = topic
        self.every = max(_EVERY, workers / _MOST)

    @contextlib.contextmanager
    def opened(self, number: int) -> Iterator[End]:
        end = DaskEnd(number, self)
        try:
            yield end
        finally:
            end.close()


class DaskEnd:
    """The end of a line in a task of Dask's."""

    def __init__(self, number: int, line: DaskLine) -> None:
        from distributed import get_worker

        self.every = line.every
        self.cancellation = Cancellation()
        self._worker: Any = get_worker()
        self.worker = str(self._worker.address)
        self._key = self._worker.get_current_task()
        self._number, self._topic = number, line.topic
        self._over = threading.Event()
        self.say("begun", self.worker)
        self._thread = threading.Thread(target=self._watch, name="transferkit-line", daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """The address of this machine, as the other ones reach it."""
        return str(self._worker.address).rpartition("://")[2].rpartition(":")[0].strip("[]")

    def tell(self, status: Status, events: Sequence[Message]) -> None:
        self.say("told", status, list(events))

    def say(self, kind: str, *arguments: object) -> None:
        """Send a message of this piece."""
        with contextlib.suppress(Exception):  # a connection that is gone: the watch sees that
            self._worker.log_event(self._topic, pickle.dumps((kind, self._number, *arguments)))

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            if not self._is_wanted():
                self.cancellation.cancel("the cluster has let go of this piece")
                return

    def _is_wanted(self) -> bool:
        task = self._worker.state.tasks.get(self._key)
        is_closing = self._worker.status.name in ("closing", "closed", "failed")
        return task is not None and task.state not in ("cancelled", "released", "forgotten") and not is_closing

    def close(self) -> None:
        """Say that this was all."""
        self._over.set()
        self._thread.join()
        self.say("over")
