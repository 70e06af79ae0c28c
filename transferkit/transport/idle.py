"""Connections that nobody uses at the moment: of one pool, and over all pools of an adapter."""

from __future__ import annotations

import queue
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transferkit.transport.connections import WakeableConnection

IDLE = 90.0  # seconds after which an unused connection is not trusted any more
_SWEEP = 30.0  # seconds between two looks for such connections


class Idle(dict["WakeableConnection", "IdleConnections"]):
    """Where each of an adapter's ``most`` idle connections is kept, the oldest first. Thread-safe."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.due = 0.0
        """When to look for connections that have been idle for too long."""

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long, and the oldest ones where there are too many of them."""
        self.due = now + _SWEEP
        for connection, kept in list(self.items()):
            if len(self) <= self.most and now - connection.idle_since < IDLE:
                break
            try:
                kept.remove(connection)
            except ValueError:
                continue  # another thread has it
            self.pop(connection, None)
            connection.close()

    def close(self) -> None:
        """Close all of them, and whatever is given back later on."""
        self.most = 0
        self.sweep(time.monotonic())


class IdleConnections(deque["WakeableConnection"]):
    """The idle connections of one pool, the last used at the end: its congestion window is the widest. Thread-safe.

    In place of a ``LifoQueue``, whose locks cost more than the rest of a pool does.
    """

    def __init__(self, maxsize: int) -> None:
        super().__init__()
        self.shared = Idle(maxsize)
        self._most = maxsize

    def put(self, item: WakeableConnection | None, block: bool = True, timeout: float | None = None) -> None:
        if item is None:
            return  # urllib3 fills a queue with places for connections
        if len(self) >= self._most:
            raise queue.Full
        shared = self.shared
        item.idle_since = now = time.monotonic()
        shared[item] = self  # first: once it is in here, another thread may take it
        self.append(item)
        if now >= shared.due or len(shared) > shared.most:
            shared.sweep(now)

    def get(self, block: bool = True, timeout: float | None = None) -> WakeableConnection:
        try:
            item = self.pop()
        except IndexError:
            raise queue.Empty from None
        self.shared.pop(item, None)
        return item

    def connections(self) -> list[WakeableConnection]:
        """Return those that are idle at this moment. Who iterates over them fails where one is taken or put."""
        return [connection for connection, kept in list(self.shared.items()) if kept is self]

    qsize = deque.__len__
