"""Answers of the direct way, straight from the socket; what is not of the common kind is in ``replayed``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transferkit.content.interfaces import Flow
from transferkit.errors import ReadError
from transferkit.protocol.head import Head
from transferkit.transport.dial import Connection, Endpoint
from transferkit.transport.failures import convert
from transferkit.transport.response import NO_BODY, Response

if TYPE_CHECKING:
    from transferkit.transport.direct import Direct


class DirectResponse(Response):
    """An answer with an announced length, or with no body: the common kind."""

    __slots__ = ("_connection", "_direct", "_endpoint", "_flow", "_left", "_rest", "_reusable", "_sock")

    def __init__(
        self,
        direct: Direct,
        endpoint: Endpoint,
        connection: Connection,
        head: Head,
        length: int,
        rest: bytes,
        place: str,
        flow: Flow,
        reusable: bool,
    ) -> None:
        self.status = head.status
        self.headers = head.fields
        self.length = length
        self.origin = place
        self._direct = direct
        self._endpoint = endpoint
        self._connection: Connection | None = connection
        self._sock = connection.sock
        self._flow = flow
        self._left = length
        # Bytes behind the body belong to nobody: the content stands, the connection goes.
        self._reusable = reusable and len(rest) <= length
        self._rest: memoryview | None = memoryview(rest)[:length] if rest else None
        if not length:
            self._release()

    def readinto(self, buffer: memoryview, /) -> int:
        left = self._left
        if not left:
            return 0
        size = min(len(buffer), left)
        rest = self._rest
        if rest is not None:
            count = min(size, len(rest))
            buffer[:count] = rest[:count]
            self._rest = rest[count:] if count < len(rest) else None
        else:
            try:
                count = self._sock.recv_into(buffer, size)
            except OSError as error:
                self._flow.check()
                raise convert(error, self.origin, None, sending=False) from error
            # Before anything is counted or written: a woken read looks like a clean end, or worse.
            self._flow.check()
            if not count:
                raise ReadError(f"{self.origin} closed the connection {left} bytes before the end")
        self._left = left = left - count
        if not left:
            self._release()
        return count

    def _release(self) -> None:
        """Part with the connection: everything that was announced has been read."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._flow.detach(connection.abort)
            if self._reusable:
                self._direct.give_back(self._endpoint, connection)
            else:
                connection.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._flow.detach(connection.abort)
            connection.close()


def answer_for(
    direct: Direct,
    endpoint: Endpoint,
    connection: Connection,
    method: str,
    head: Head,
    rest: bytes,
    place: str,
    flow: Flow,
    *,
    reusable: bool,
) -> Response:
    chunked = head.chunked
    length = head.length
    if method == "HEAD" or head.status in NO_BODY:
        chunked, length = False, 0
    if chunked or length is None:
        # Here: http.client takes longer to import than most such answers to read, and few processes meet one.
        from transferkit.transport.replayed import ReplayedResponse

        return ReplayedResponse(connection, method, head, rest, place, flow)
    reusable = reusable and head.keeps_alive
    return DirectResponse(direct, endpoint, connection, head, length, rest, place, flow, reusable)
