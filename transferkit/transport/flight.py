"""The turn to ask a server, for all threads that would ask it the same."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transferkit.content.flow import Flow
from transferkit.errors import TransferKitError


class SingleFlight:
    """One thread asks while the others wait. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failure: TransferKitError | None = None

    @contextmanager
    def turn(self, flow: Flow) -> Iterator[None]:
        """Wait for the turn, and hold it; who gets it looks first whether another thread has found the answer.

        A failure is raised by those who waited for it alone: a server that is silent costs all threads one time limit.
        """
        before = self._failure
        while not self._lock.acquire(blocking=False):
            flow.wait(0.05, "login")
        try:
            if self._failure is not None and self._failure is not before:
                raise copy.copy(self._failure)
            try:
                yield
                self._failure = None
            except TransferKitError as error:
                flow.check()  # a thread that was cut says nothing about the server
                self._failure = copy.copy(error)  # without its frames, and what they hold
                raise
        finally:
            self._lock.release()
