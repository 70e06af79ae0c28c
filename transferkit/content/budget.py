"""How much of what a peer says is taken in: budgets that are shared, and what JSON becomes, before it is parsed."""

from __future__ import annotations

import threading


class Budget:
    """How much of something there may be in all. Thread-safe.

    >>> budget = Budget(10)
    >>> budget.take(8), budget.take(3), budget.take(-1), budget.take(3)
    (True, False, True, True)
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._left = most
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Take so much of it and return ``True``; where less is left, take nothing. Less than 0 is given back."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True


def values_in(raw: bytes) -> int:
    """Return how many values some JSON has at most: a comma or a bracket within a text counts as well.

    Python takes up to some 300 bytes for each, whatever few bytes of JSON it has (CPython 3.13, 64 bits).

    >>> values_in(b'[1, {"a": "b"}]')
    4
    """
    return 1 + raw.count(b",") + raw.count(b"{") + raw.count(b"[")
