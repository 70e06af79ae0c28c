"""What became of the blobs of one copy, for its report and for the trace."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Outcome
from transferkit.errors import IncompleteError, SlowError, StalledError, TransferKitError
from transferkit.trace import Trace


class Outcomes:
    """What became of the blobs of one copy. Thread-safe."""

    def __init__(self, trace: Trace, logger: logging.Logger, *, skipped: int = 0) -> None:
        self.logger = logger
        self.skipped = skipped
        self.mounted = 0
        self.retried = 0
        self.healed = 0
        self.taken_back = 0
        """Bytes that were counted by other workers, and are not in place after all."""
        self.failures: dict[str, TransferKitError] = {}
        self._trace = trace
        self._lock = threading.Lock()

    def _tell(self, event: Callable[..., object], *arguments: object) -> None:
        try:
            event(*arguments)
        except Exception:
            self.logger.warning("the trace raised; the transfer goes on", exc_info=True)

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

    def again(self, descriptor: Descriptor, error: TransferKitError, position: int, wait: float = 0.0) -> None:
        """Take in that an attempt failed; after ``wait`` seconds another one follows, from ``position`` on."""
        self.logger.debug("%s: again in %.2f s, from byte %d on: %s", descriptor.digest.short, wait, position, error)
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

    def check(self, blobs: int) -> None:
        """See that none of so many blobs failed.

        Raises:
            IncompleteError: some did.
        """
        if not self.failures:
            return
        digest, first = next(iter(self.failures.items()))
        rest = f" (and {len(self.failures) - 1} more in .failures)" if len(self.failures) > 1 else ""
        raise IncompleteError(
            f"{len(self.failures)} of {blobs} blobs failed, the others are in place: {digest[:19]}: {first}{rest}",
            failures=self.failures,
        )
