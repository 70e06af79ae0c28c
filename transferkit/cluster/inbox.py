"""What happens elsewhere, for the thread that waits for it."""

from __future__ import annotations

import queue
from collections.abc import Iterator

from transferkit.cluster.lines import Message


class Inbox:
    """Messages in the order in which they came. Any thread may put, and one reads."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def put(self, message: Message) -> None:
        self._queue.put(message)

    def read(self, seconds: float) -> Iterator[Message]:
        """Yield what there is; where there is nothing, wait for it, so many seconds at most."""
        try:
            yield self._queue.get(timeout=max(0.0, seconds))
            while True:
                yield self._queue.get_nowait()
        except queue.Empty:
            return
