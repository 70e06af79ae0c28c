"""A TCP proxy that breaks connections on demand, before any server.

Knows listening, numbering and logging connections. It passes bytes and understands none of them: TLS, HTTP and what
is no protocol at all go through alike. What happens to a connection is :class:`~transferkit.testing.network.Faults`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

from transferkit.testing.loop import READ, Loop
from transferkit.testing.network import Choose, FaultChoice, Faults, chooser
from transferkit.testing.pipe import BUFFER
from transferkit.testing.tunnel import Ended, Tunnel

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRecord:
    """One connection through the proxy, as it was when the log was asked for."""

    number: int
    """The first is 0."""
    up: int
    """Bytes given to the server."""
    down: int
    """Bytes given to the client."""
    ended: Ended | None
    """Who or what ended it first, ``None`` while nothing has."""
    faults: Faults


class FaultProxy:
    """A proxy that runs from ``with`` to its end. Thread-safe. A ``with`` around one that runs already ends it, too.

    All connections share one thread. Without faults it passes more than 500 MB/s.
    """

    def __init__(self, target: str, faults: FaultChoice = (), *, host: str = "127.0.0.1", port: int = 0) -> None:
        """See :func:`fault_proxy`."""
        scheme, separator, rest = target.rpartition("://")
        parts = urlsplit(f"//{rest}")
        server_port = parts.port or _PORTS.get(scheme)
        if not parts.hostname or server_port is None:
            raise ValueError(f"the target is a URL or host:port, not {target!r}")
        self._prefix, self._path = scheme + separator, parts.path
        found = socket.getaddrinfo(parts.hostname, server_port, type=socket.SOCK_STREAM)[0]
        self._family, self._address = int(found[0]), found[4]
        self.host = host
        self.port = port
        self._choose: Choose = chooser(faults)
        self._tunnels: list[Tunnel] = []
        self._live: set[Tunnel] = set()
        self._buffer = memoryview(bytearray(BUFFER))
        self._errors: list[Exception] = []
        self._running = False

    def __enter__(self) -> FaultProxy:
        if self._running:  # the fixture has started it
            return self
        self._loop = Loop("transferkit-proxy")
        try:
            self._listen()
        except BaseException:
            self._loop.stop()
            raise
        self._loop.start()
        self._running = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._running:
            return
        self._running = False
        self._loop.call(self._close)
        self._loop.stop()
        if self._errors and error is None:
            raise self._errors[0]

    @property
    def url(self) -> str:
        """The target's URL with the proxy's host and port; ``host:port`` where the target was one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self._prefix}{host}:{self.port}{self._path}"

    @property
    def connections(self) -> list[ConnectionRecord]:
        """Every connection so far, in the order of their numbers. What came before the look is in it."""
        return self._loop.call(
            lambda: [
                ConnectionRecord(
                    number=tunnel.number,
                    up=tunnel.up.count,
                    down=tunnel.down.count,
                    ended=tunnel.ended,
                    faults=tunnel.faults,
                )
                for tunnel in self._tunnels
            ]
        )

    def set(self, faults: FaultChoice) -> None:
        """Take other faults, from the next connection on.

        A single ``Faults`` holds for the connections that are open as well; their bytes count from here:
        ``set(Faults(reset_after=0))`` breaks them all. A sequence or a function is for numbers that are still to come,
        and a sequence starts with the next one.
        """
        self._loop.call(lambda: self._set(faults))

    def cut(self) -> None:
        """Reset every open connection now; new ones are as before."""
        self._loop.call(self._cut)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Refuse connections, as a host does that has nobody on the port. Open ones stay."""
        with socket.socket(self._listener.family) as held:
            # Bound, so that nobody takes the port meanwhile; not listening, so that it refuses.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._loop.call(lambda: self._loop.close(self._listener))
            held.bind((self.host, self.port))
            try:
                yield
            finally:
                self._loop.call(self._listen)

    def __repr__(self) -> str:
        return f"<FaultProxy {self.url}: {len(self._tunnels)} connections, {len(self._live)} open>"

    def _listen(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.port), family=family, backlog=1024)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._loop.watch(self._listener, READ, self._accept)

    def _close(self) -> None:
        self._loop.close(self._listener)
        for tunnel in list(self._live):
            tunnel.close()

    def _cut(self) -> None:
        for tunnel in list(self._live):
            tunnel.cut()

    def _set(self, faults: FaultChoice) -> None:
        choose, first = chooser(faults), len(self._tunnels)
        is_plan = not isinstance(faults, Faults) and not callable(faults)
        self._choose = (lambda number: choose(number - first)) if is_plan else choose
        if isinstance(faults, Faults):
            for tunnel in list(self._live):
                tunnel.follow(faults)

    def _accept(self, _events: int) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # it changed its mind, or there is no descriptor left until another one closes
            return
        number = len(self._tunnels)
        try:
            faults = self._choose(number)
        except Exception as error:  # noqa: BLE001 - the user's code; raised on the way out, in his thread
            self._errors.append(error)
            faults = Faults(refuse=True)
        tunnel = Tunnel(self._loop, self._buffer, number, client, self._family, self._live.discard)
        self._tunnels.append(tunnel)
        self._live.add(tunnel)
        tunnel.open(self._address, faults)


def fault_proxy(target: str, faults: FaultChoice = (), *, host: str = "127.0.0.1", port: int = 0) -> FaultProxy:
    """Return a proxy before ``target`` (a URL or ``host:port``), for a ``with``.

    ``faults`` is one :class:`Faults` for all connections; or a sequence, whose n-th is for the n-th connection, later
    ones being clean; or a function from the number of a connection, the first being 0, to its faults. That function
    runs in the proxy's thread; what it raises comes out of the ``with``. ``host`` is where the proxy listens and what
    its URL says: ``"localhost"`` where a certificate wants it. The name of the target is resolved once, here. The way
    out cuts what is open, and leaves neither thread nor descriptor.

    Raises:
        ValueError: ``target`` is neither a URL nor ``host:port``.
        OSError: the name does not resolve, or, from ``with``, the address is not to be had.

    >>> import http.client
    >>> from transferkit.testing import running_registry
    >>> from contextlib import ExitStack
    >>> with ExitStack() as stack:
    ...     registry = stack.enter_context(running_registry())
    ...     faults = [Faults(reset_after=20)]
    ...     proxy = stack.enter_context(fault_proxy(registry.url, faults))
    ...     connection = http.client.HTTPConnection(proxy.host, proxy.port)
    ...     try:
    ...         connection.request("GET", "/v2/")
    ...         connection.getresponse()
    ...     except ConnectionResetError:
    ...         print("reset")
    ...     finally:
    ...         connection.close()
    ...     print(proxy.connections[0].down, proxy.connections[0].ended)
    reset
    20 reset
    """
    return FaultProxy(target, faults, host=host, port=port)
