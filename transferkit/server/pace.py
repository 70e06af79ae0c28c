"""How slowly the body of a request may come. Knows a clock and counts; no sockets.

A request whose body is being read occupies a thread of the server. Without a least rate, as many clients as there are
threads stop everybody else with a byte now and then. What counts is the time in which the server waited for the client,
not the time that the application took in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable

RATE = 240  # bytes/s on the average; this and the grace are the defaults of ASP.NET's Kestrel
GRACE = 5.0  # seconds of waiting that every body is allowed besides


class Pace:
    """The pace of one body. One reader."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waited = 0.0
        self._received = 0
        self._since = 0.0

    def begin(self) -> float:
        """Begin to wait, and return for how long (seconds).

        Raises:
            TimeoutError: there is no time left.
        """
        left = GRACE + self._received / RATE - self._waited
        if left <= 0:
            raise TimeoutError("the body comes too slowly")
        self._since = self._clock()
        return left

    def end(self, count: int) -> None:
        """Take in that the wait is over, and brought ``count`` bytes."""
        self._waited += self._clock() - self._since
        self._received += count
