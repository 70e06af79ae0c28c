"""Threads that end by themselves, and one that waits for the last of them."""

from __future__ import annotations

import threading
from collections.abc import Callable


class ThreadGroup:
    """Threads with one ``name``, which do not keep a program from its end. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, target: Callable[..., object], *args: object) -> None:
        """Call ``target`` in a thread of its own. Raises RuntimeError: the system has no thread left."""
        thread = threading.Thread(target=target, args=args, name=self._name, daemon=True)
        with self._lock:
            thread.start()
            # A thread that took itself out of the list would still be at its last steps when ``join`` returns.
            self._threads = [each for each in self._threads if each.is_alive()]
            self._threads.append(thread)

    def join(self, timeout: float | None = None) -> None:
        """Wait until all that have begun before this call are gone; at most ``timeout`` seconds for each."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(timeout)
