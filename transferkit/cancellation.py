"""Cancellation: an event with a reason that wakes whoever is blocked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from transferkit.errors import CancelledError


class Cancellation:
    """Ends the calls that it was given to, from any thread or from a signal handler.

    One object may serve several calls, one after the other or at once; once triggered it stays triggered. Thread-safe.

    >>> cancellation = Cancellation()
    >>> cancellation.cancel("the window was closed")
    >>> cancellation.cancelled, cancellation.reason
    (True, 'the window was closed')
    """

    def __init__(self) -> None:
        self._reason: str | None = None
        # Reentrant: a signal handler runs in a thread that may hold it already.
        self._lock = threading.RLock()
        self._watchers: dict[object, Callable[[], None]] = {}

    def cancel(self, reason: str = "cancelled by the caller") -> None:
        """End every call that uses this object; the first reason stands. Returns at once."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            keys = list(self._watchers)
        for key in keys:
            self._wake(key)

    @property
    def cancelled(self) -> bool:
        return self._reason is not None

    @property
    def reason(self) -> str | None:
        return self._reason

    def error(self) -> CancelledError:
        """Return the exception that a cancelled call raises."""
        return CancelledError(self._reason or "cancelled")

    @contextmanager
    def watch(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have ``wake`` called once when this is triggered, at once if it was already, until the block ends."""
        key = object()
        try:
            with self._lock:
                self._watchers[key] = wake
            if self._reason is not None:
                self._wake(key)
            yield
        finally:
            with self._lock:
                self._watchers.pop(key, None)

    def _wake(self, key: object) -> None:
        # Whoever takes it out calls it: a signal handler may cancel between any two lines of ``watch``.
        wake = self._watchers.pop(key, None)
        if wake is not None:
            wake()

    def __repr__(self) -> str:
        return f"<Cancellation {'open' if self._reason is None else f'cancelled: {self._reason}'}>"
