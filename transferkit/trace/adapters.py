"""Traces that write down what they hear: lines in a log, and JSON lines."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from transferkit.content.descriptor import Descriptor
from transferkit.errors import TransferKitError
from transferkit.tables import human_bytes
from transferkit.trace import Status, Trace

VERSION = 1
"""Of the JSON lines: another one where a reader has to know. New events and new keys may come without."""
_STATUS_EVERY = 1.0  # seconds between two lines about how far a call is


class LoggingTrace(Trace):
    """Logs what becomes of each blob at ``level``; what is tried again or fails as a warning. Thread-safe.

    ``logger`` is by default ``transferkit.trace``.
    """

    def __init__(self, logger: logging.Logger | None = None, level: int = logging.INFO) -> None:
        self._logger = logger or logging.getLogger("transferkit.trace")
        self._level = level

    def announced(self, descriptors: Sequence[Descriptor]) -> None:
        size = human_bytes(sum(descriptor.size for descriptor in descriptors))
        self._logger.log(self._level, "%d blobs, %s", len(descriptors), size)

    def cached(self, descriptor: Descriptor) -> None:
        self._logger.log(self._level, "%s: there already", descriptor.digest.short)

    def done(self, descriptor: Descriptor) -> None:
        self._logger.log(self._level, "%s: done, %s", descriptor.digest.short, human_bytes(descriptor.size))

    def retried(self, descriptor: Descriptor, error: TransferKitError, position: int, wait: float) -> None:
        text = "%s: again in %.2f s, from byte %d on: %s"
        self._logger.warning(text, descriptor.digest.short, wait, position, error)

    def waiting(self, reason: str, pause: float) -> None:
        self._logger.log(self._level, "waiting: %s", reason)

    def waited(self, reason: str, seconds: float) -> None:
        self._logger.log(self._level, "no longer waiting: %s, after %.1f s", reason, seconds)

    def failed(self, descriptor: Descriptor, error: TransferKitError) -> None:
        self._logger.warning("%s: failed: %s", descriptor.digest.short, error)


class JSONTrace(Trace):
    """Writes one JSON object a line to ``stream``, as ``docs/progress.rst`` describes them. Thread-safe.

    How far the call is comes once a second, and at the end of each step. A stream that fails is not written to any
    more: the transfer goes on.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream: TextIO | None = stream
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._told_at = float("-inf")

    def _write(self, event: str, **values: Any) -> None:
        document = {"version": VERSION, "time": round(self._clock(), 3), "event": event, **values}
        text = json.dumps(document, separators=(",", ":"))
        with self._lock:
            if self._stream is None:
                return
            try:
                self._stream.write(f"{text}\n")
                self._stream.flush()
            except (OSError, ValueError):  # it is closed, or nobody reads it any more
                self._stream = None

    def announced(self, descriptors: Sequence[Descriptor]) -> None:
        self._write("announced", blobs=len(descriptors), bytes=sum(descriptor.size for descriptor in descriptors))

    def started(self, descriptor: Descriptor) -> None:
        self._write("started", **_of(descriptor))

    def cached(self, descriptor: Descriptor) -> None:
        self._write("cached", **_of(descriptor))

    def done(self, descriptor: Descriptor) -> None:
        self._write("done", **_of(descriptor))

    def retried(self, descriptor: Descriptor, error: TransferKitError, position: int, wait: float) -> None:
        self._write("retried", **_of(descriptor), **_why(error), position=position, wait=round(wait, 3))

    def healed(self, descriptor: Descriptor, error: TransferKitError, position: int) -> None:
        self._write("healed", **_of(descriptor), **_why(error), position=position)

    def failed(self, descriptor: Descriptor, error: TransferKitError) -> None:
        self._write("failed", **_of(descriptor), **_why(error))

    def waiting(self, reason: str, pause: float) -> None:
        self._write("waiting", reason=reason, pause=round(pause, 3))

    def waited(self, reason: str, seconds: float) -> None:
        self._write("waited", reason=reason, seconds=round(seconds, 3))

    def status(self, status: Status) -> None:
        now = self._monotonic()
        if now - self._told_at < _STATUS_EVERY and status.completed < status.total:
            return
        self._told_at = now
        names = ("completed", "total", "cached", "moved", "workers", "verifying", "waiting", "retried", "healed")
        counts = {name: getattr(status, name) for name in names}
        self._write("status", **counts, doing=status.doing, reason=status.reason)


def _of(descriptor: Descriptor) -> dict[str, Any]:
    return {"digest": str(descriptor.digest), "size": descriptor.size}


def _why(error: TransferKitError) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}
