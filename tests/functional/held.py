"""A registry that sends a part of a blob, and waits: what arrives until then is what a stop has to keep."""

from __future__ import annotations

import threading
from typing import Any


class Held:
    """Middleware: of what is read of the blob ``digest``, ``after`` bytes are sent, and more once it is released."""

    def __init__(self, digest: str, after: int) -> None:
        self._sizes: list[int] = []  # an append is atomic
        self._digest = digest
        self._after = after
        self._released = threading.Event()

    @property
    def sent(self) -> int:
        """How many bytes of the blob were sent."""
        return sum(self._sizes)

    def release(self) -> None:
        """Send all from now on, and count from 0."""
        self._released.set()
        self._sizes.clear()

    def __call__(self, app: Any) -> Any:
        def middle(environ: dict[str, Any], start_response: Any) -> Any:
            body = app(environ, start_response)
            is_held = environ["REQUEST_METHOD"] == "GET" and self._digest in environ["PATH_INFO"]
            return self._blocks(body) if is_held else body

        return middle

    def _blocks(self, body: Any) -> Any:
        try:
            for block in body:
                self._sizes.append(len(block))
                yield block
                if self.sent >= self._after:
                    self._released.wait(60)
        finally:
            getattr(body, "close", int)()
