"""The thread that looks after the workers of one operation, and what makes it come to life and end.

An interrupt (Ctrl-C) may come between any two byte codes of the calling thread, and leave a lock of the standard
library locked, or a step undone that would have ended this thread. So the calling thread only tells it what to do, by
steps that cannot be cut in two, and it ends by itself where nobody tells it anything.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from queue import Empty, SimpleQueue

from transferkit.transfer.pool import Bell, Pool, wait_for

LINGER = 0.25  # seconds to wait for the next run: far more than lies between two of one operation
Orders = SimpleQueue["Pool | None"]  # runs to be driven; ``None``: there will be no more


class Driver:
    """One thread that drives the runs which come by ``orders``, one after the other, with the workers of ``executor``.

    It ends where it has had no order for ``LINGER`` seconds. ``has_left`` says so: an order that was put before may
    still be taken, one that is put after needs another driver.
    """

    def __init__(self, orders: Orders, executor: Callable[[], Executor]) -> None:
        self.has_left = False
        self._orders = orders
        self._executor = executor
        self._thread = threading.Thread(target=self._drive, name="transferkit-driver", daemon=True)
        # Who enters itself first decides whether it comes to life: one step, which an interrupt cannot cut.
        self._claim: dict[str, str] = {}
        self._gone: Bell = SimpleQueue()
        self._is_gone = False

    def start(self) -> None:
        """Begin. Raises RuntimeError: the system has no thread left, or the interpreter ends."""
        # Thread.start waits at a condition: where an interrupt comes to it, nobody could be waited for.
        _thread.start_new_thread(self._launch, ())

    def _launch(self) -> None:
        if self._claim.setdefault("by", "driver") == "driver":
            try:
                self._thread.start()
            except RuntimeError:
                self._drive()  # the system has no more threads

    def _drive(self) -> None:
        try:
            with self._executor() as executor:
                while (pool := self._next()) is not None:
                    pool.drive(executor)
        finally:
            self.has_left = self._is_gone = True
            self._gone.put(None)

    def _next(self) -> Pool | None:
        try:
            return self._orders.get(timeout=LINGER)
        except Empty:
            self.has_left = True
        try:
            return self._orders.get_nowait()  # it was put before that was said
        except Empty:
            return None

    def dismiss(self) -> None:
        """Have it end, and wait for that. A second call goes on where an interrupt has cut the first off."""
        if self._claim.setdefault("by", "caller") == "caller":
            return
        self._orders.put(None)
        while not self._is_gone:
            wait_for(self._gone, 0.1)  # an interrupt may have swallowed the ring
        if self._thread.is_alive():
            self._thread.join()
