"""Attempts at one unit of work: the retry loop, and everybody who has to hear of what became of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Outcome
from transferkit.errors import (
    CertificateError,
    ConnectError,
    DigestMismatchError,
    RateLimitedError,
    RetriesExhaustedError,
    SlowError,
    StalledError,
    StorageError,
    TransferKitError,
    UnauthorizedError,
)
from transferkit.retry import Retry
from transferkit.trace import Trace
from transferkit.transfer.flow import WorkerFlow
from transferkit.transfer.throttle import Throttle

T = TypeVar("T")

# The same for every blob: the disk, the credentials and the certificate will not get better for the next one.
_FATAL = (StorageError, UnauthorizedError, CertificateError)


def is_fatal(error: TransferKitError) -> bool:
    """Tell whether an error ends the whole copy: it would be the same for every other blob."""
    if isinstance(error, RetriesExhaustedError):
        return isinstance(error.__cause__, ConnectError)
    if isinstance(error, RateLimitedError):
        return not error.retryable  # it asks for a longer wait than the user allows
    return isinstance(error, _FATAL) or (isinstance(error, ConnectError) and not error.retryable)


class Outcomes:
    """What became of the blobs of one run. Thread-safe."""

    def __init__(self, trace: Trace, logger: logging.Logger, *, skipped: int = 0) -> None:
        self.skipped = skipped
        self.mounted = 0
        self.retried = 0
        self.healed = 0
        self.taken_back = 0
        """Bytes that were counted by other workers, and are not in place after all."""
        self.failures: dict[str, TransferKitError] = {}
        self._trace = trace
        self._logger = logger
        self._lock = threading.Lock()

    def _tell(self, event: Callable[..., object], *arguments: object) -> None:
        try:
            event(*arguments)
        except Exception:
            self._logger.warning("the trace raised; the transfer goes on", exc_info=True)

    def started(self, descriptor: Descriptor) -> None:
        if type(self._trace) is not Trace:
            self._tell(self._trace.started, descriptor)

    def ended(self, descriptor: Descriptor, outcome: Outcome) -> None:
        """Take in that a blob is in place."""
        if outcome is not Outcome.MOVED:
            with self._lock:  # "+=" on an attribute is not atomic
                if outcome is Outcome.PRESENT:
                    self.skipped += 1
                else:
                    self.mounted += 1
        if type(self._trace) is not Trace:
            self._tell(self._trace.done if outcome is Outcome.MOVED else self._trace.cached, descriptor)

    def failed(self, descriptor: Descriptor, error: TransferKitError) -> None:
        """Take in that a blob was given up."""
        self.failures[descriptor.digest] = error
        self._tell(self._trace.failed, descriptor, error)

    def again(self, descriptor: Descriptor, error: TransferKitError, position: int) -> None:
        """Take in that an attempt failed and will be followed by another one, from ``position`` on."""
        healed = isinstance(error, (StalledError, SlowError))
        with self._lock:
            self.retried += 1
            self.healed += healed
        if healed:
            self._tell(self._trace.healed, descriptor, error, position)

    def take_back(self, count: int) -> None:
        """Take back bytes that were counted as progress."""
        with self._lock:
            self.taken_back += count


class Attempts:
    """Runs the attempts of units of work. Thread-safe."""

    def __init__(
        self,
        retry: Retry,
        throttle: Throttle,
        outcomes: Outcomes,
        *,
        sleep: Callable[[float], None],
        logger: logging.Logger,
    ) -> None:
        self._retry = retry
        self._throttle = throttle
        self._outcomes = outcomes
        self._sleep = sleep
        self._logger = logger

    def run(
        self,
        descriptor: Descriptor,
        attempt: Callable[[], T],
        flow: WorkerFlow,
        *,
        position: Callable[[], int] | None = None,
    ) -> T:
        """Run ``attempt`` until it succeeds or is given up.

        Content with a wrong digest is fetched once more; twice the same is the source's own. ``position`` is where the
        unit goes on after a failure, for the trace.

        Raises:
            TransferKitError: as ``Retry.call`` does.
        """
        mismatches = slow = 0
        flow.watch.spared = False

        def one() -> T:
            nonlocal mismatches
            flow.begin_attempt()
            self._throttle.enter(flow)
            flow.check()
            try:
                return attempt()
            except DigestMismatchError as error:
                mismatches += 1
                error.retryable = mismatches == 1
                raise

        def again(error: TransferKitError, wait: float) -> None:
            nonlocal slow
            slow += isinstance(error, SlowError)
            # It is not the connection that is slow. To be cut once more might mean never to arrive.
            flow.watch.spared = slow >= self._retry.options.free_restarts
            self._throttle.note(error, flow, wait)
            self._outcomes.again(descriptor, error, position() if position else 0)
            self._logger.debug("%s: trying again in %.2f s: %s", descriptor.digest.short, wait, error)

        try:
            return self._retry.call(one, position=lambda: flow.counter.peak, sleep=self._sleep, on_retry=again)
        finally:
            flow.busy = False

    def wait(self, error: TransferKitError, flow: WorkerFlow, tries: int) -> None:
        """Wait for another try at what is no unit of work, after ``tries`` have failed, the last with ``error``.

        Raises:
            TransferKitError: what the flow was cut with, if that is final.
        """
        wait = self._retry.wait(error, tries)
        self._throttle.note(error, flow, wait)
        self._sleep(wait)
        flow.begin_attempt()
        self._throttle.enter(flow)
        flow.busy = False  # what follows is no attempt, that the others would have to wait for
        flow.check()
