"""What a worker has other workers do beside it: the parts of one blob that may be on their way at once.

A job waits among the units of the run until a worker takes it. The worker that it is of may take it back, and do the
work itself: where all are busy, or there is nobody else, nothing waits for anybody. A job is one attempt; what it fails
with is raised where it is waited for, so that one retry loop looks after the whole blob.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from transferkit.content.flow import Flow
from transferkit.errors import CancelledError, TransferKitError

if TYPE_CHECKING:
    from transferkit.transfer.flow import WorkerFlow


class Board(Protocol):
    """Where jobs wait for a worker. Thread-safe."""

    def offer(self, job: Job) -> None:
        """Let a worker take it."""

    def withdraw(self, job: Job) -> None:
        """Let nobody take it any more, whether it is there or not."""


class Job:
    """Work that somebody else may do, once. ``subject`` is what it is about, for whoever gets it back."""

    __slots__ = ("_crew", "_work", "subject")

    def __init__(self, crew: Crew, work: Callable[[Flow], None], subject: Any) -> None:
        self.subject = subject
        self._crew = crew
        self._work = work

    def run(self, flow: WorkerFlow) -> None:
        """Do it, unless it was taken back. It never raises: whoever waits for it does."""
        if not self._crew.begin(self, flow):
            return
        error: BaseException | None = None
        try:
            self._work(flow)
        except BaseException as caught:  # noqa: BLE001 - whatever it is, it is raised in the thread that waits
            flow.counter.set_position(0)
            error = caught
        self._crew.end(self, flow, error)


class Crew:
    """The jobs of one worker, whose flow this is, as a context manager: on the way out nobody is at them any more.

    For the thread of that worker alone, but for ``begin`` and ``end``. What others have moved is counted as this
    worker's once it has heard of it.
    """

    def __init__(self, flow: WorkerFlow, board: Board | None) -> None:
        self._flow = flow
        self._board = board
        self._lock = threading.Lock()
        self._waiting: list[Job] = []
        self._running: dict[Job, WorkerFlow] = {}
        self._counted = 0
        self._errors: list[BaseException] = []
        self._ended: SimpleQueue[None] = SimpleQueue()

    @property
    def size(self) -> int:
        """How many jobs have not ended, so far as this worker has heard."""
        with self._lock:  # one that is just taken is in neither for a moment
            return len(self._waiting) + len(self._running)

    def offer(self, work: Callable[[Flow], None], subject: Any) -> None:
        """Let another worker do something; its flow is what ``work`` is given."""
        job = Job(self, work, subject)
        self._waiting.append(job)
        if self._board is not None:
            self._board.offer(job)

    def take_back(self) -> Any:
        """Return the subject of a job that nobody has begun, which is forgotten; ``None``: there is none."""
        with self._lock:
            job = self._waiting.pop(0) if self._waiting else None
        if job is not None and self._board is not None:
            self._board.withdraw(job)
        return job.subject if job is not None else None

    def wait(self) -> None:
        """Wait until a job has ended; raise what one has failed with."""
        flow, attempt = self._flow, self._flow.attempt
        flow.attempt = 0  # they may take its place at the host
        ring = self._ring
        flow.attach(ring)
        try:
            if self._running:
                self._ended.get()
        finally:
            flow.detach(ring)
            flow.attempt = attempt
        flow.check()
        self.look()

    def look(self) -> None:
        """Take in what has ended; raise what one has failed with."""
        with self._lock:
            counted, self._counted = self._counted, 0
            errors, self._errors = self._errors, []
        counter = self._flow.counter
        if counted:
            counter.take_over(counted, counter.position + counted)
        if errors:
            # What is final counts: the same attempt again would come to it.
            raise min(errors, key=lambda error: isinstance(error, TransferKitError) and error.retryable)

    def begin(self, job: Job, flow: WorkerFlow) -> bool:
        """Take in that another worker takes a job; ``False``: it was taken back."""
        with self._lock:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
            self._running[job] = flow
            flow.watch.spared = self._flow.watch.spared
            return True

    def end(self, job: Job, flow: WorkerFlow, error: BaseException | None) -> None:
        """Take in that the worker has ended its job."""
        with self._lock:
            del self._running[job]
            if error is None:
                self._counted += flow.counter.position
            else:
                self._errors.append(error)
        self._ring()

    def _ring(self) -> None:
        self._ended.put(None)

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Where the blob is tried again the others end what they are at, which is not sent again; else all stop."""
        while self.take_back() is not None:
            pass
        is_tried_again = isinstance(error, TransferKitError) and error.retryable
        with self._lock:
            for flow in () if is_tried_again else tuple(self._running.values()):
                flow.cut(CancelledError("stopped: another part failed"), final=False)
        while self._running:
            self._ended.get()
        try:
            self.look()
        except BaseException:
            if error is None:
                raise
