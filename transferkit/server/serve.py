"""Serving a WSGI application: cheroot, held to bounded memory, prompt answers and a prompt end.

Knows connections, threads and TLS. Of cheroot 11 there are its selector, in which idle connections wait and cost no
thread, and its pool of threads; requests and answers are :mod:`transferkit.server.request`. What cheroot does besides,
as its source has it, and what is done about it here:

- A head that comes bit by bit occupies a thread, for as long as it likes. Here it is gathered in the selector, and has
  to be whole within a minute; a body has to keep the pace of :mod:`~transferkit.server.pace`.
- A connection closed with unread data is reset by the kernel, and the answer may be lost on the way. Here the
  sending side is closed first, and what comes is thrown away for a moment.
- A new connection occupies a thread until its first request comes. Here it waits in the selector.
- All connections are looked through for late ones whenever the selector wakes. Here that is once a second.
- The TLS handshake runs in the thread that accepts, where one silent client stops everybody. Here it goes on whenever
  the client has sent a part of it, and nobody waits for the rest.
- A stop takes up to 0.5 s for the selector, and up to the timeout of a connection for a thread that is sending.
  Here it shuts all sockets down first.
- Tracebacks go to stderr, also for clients that went away, and the statistics of a server are kept in ``logging``
  for ever. Here they go to the log, and are forgotten.

What an answer costs or risks is decided in :mod:`~transferkit.server.request`: an answer that comes before the
request's body was read (401, 404, 307) waits for at most 256 KiB of it; for more, it goes out at once and says
``Connection: close``. ``100 Continue`` is sent when the application first reads: an early refusal spares the body. Head
and body of a small answer are one packet, and files are sent by the kernel.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from cheroot import wsgi
from cheroot.connections import ConnectionManager
from cheroot.errors import FatalSSLAlert
from cheroot.server import HTTPConnection
from cheroot.ssl import Adapter
from cheroot.workers.threadpool import ThreadPool, WorkerThread

from transferkit.server.request import Request, environment
from transferkit.server.streams import Reader, Writer, makefile

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_log = logging.getLogger(__name__)

_LINGER = 0.5  # seconds after an early answer in which the client may notice it; Go's net/http has the same
# Seconds from an answer to the whole head of the next request, and for which an answer may find no reader.
_TIMEOUT = 60
# Milliseconds in which a client that is in the middle of something sends its next request: it keeps the thread, and the
# way over the selector, which costs a sixth of a small blob, is saved.
_SOON = 2
# Seconds between two looks at the clock of the thread that waits for connections, and what ending takes at worst: with
# cheroot's 0.5 s, half a second for each server of a test run.
_TICK = 0.02
_THREADS = 16  # that are started at once; hundreds would take a tenth of a second
_LOOK = 1.0  # seconds between two looks at all connections for those that are late
_DISCARD = 256 * 1024  # bytes that are thrown away at once


class Connection(HTTPConnection):
    """One connection. It is one thread's while a request of it is answered, and the selector's in between."""

    RequestHandlerClass = Request

    def __init__(self, server: Server, sock: socket.socket, _makefile_of_cheroot: Any) -> None:
        super().__init__(server, sock, makefile)
        self.unread = False
        """The peer may still be sending a body that nobody wants."""
        self.answered = True
        """Nothing has arrived since the connection came about, or since the last answer."""
        self._since = 0.0
        server.live.add(self)

    @property
    def last_used(self) -> float:
        """When the peer began to have time for its next request; cheroot closes what has waited for too long."""
        return self._since

    @last_used.setter
    def last_used(self, now: float) -> None:
        # Set whenever the connection goes back to the selector. A part of a head does not win time.
        if self.answered:
            self._since, self.answered = now, False

    def communicate(self) -> bool:
        try:
            while self.rfile.has_data():  # or else it is new, or there was but a part of a TLS handshake
                if not super().communicate():  # type: ignore[no-untyped-call]  # cheroot's stubs have no types
                    return False
                if self.server.requests.qsize:
                    break
                poll = select.poll()
                poll.register(self.socket, select.POLLIN)
                poll.poll(_SOON)
        except OSError:  # while it told the peer of another error: there is nobody to tell
            return False
        # cheroot closes what is late when it looks, and who sends a byte every few milliseconds is never there then.
        return self.answered or time.time() - self._since < self.server.timeout

    def close(self) -> None:
        if self.unread:
            self._linger()
        self.server.live.discard(self)
        try:
            super().close()
        except OSError:  # a worker thread would die of it
            pass

    def is_gone(self) -> bool:
        """Tell whether the client has hung up, while its request is still being answered."""
        poll = select.poll()
        poll.register(self.socket, select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0))
        return bool(poll.poll(0))

    def abort(self) -> None:
        """Wake whoever is blocked on this connection, from any thread."""
        try:
            # The method of the base class: the one of a TLS socket takes its layer away under the reader's feet.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
        except OSError:  # not connected any more
            pass

    def _linger(self) -> None:
        deadline = time.monotonic() + _LINGER
        try:
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not socket.socket.recv(self.socket, _DISCARD):  # ciphertext is as good to throw away
                    return
        except OSError:  # the time is over, or the peer is gone
            pass


class _Connections(ConnectionManager):
    """The connections that wait for their next request."""

    _looked = 0.0

    def _expire(self, threshold: float) -> None:
        self.server.requests.grow_if_all_are_busy()
        if time.monotonic() - self._looked >= _LOOK:
            super()._expire(threshold)  # type: ignore[misc]  # cheroot's stubs have it not
            self._looked = time.monotonic()


class _Threads(ThreadPool):
    """The threads that answer: few at first, and more whenever requests wait because none of them is free."""

    server: Server
    # Cheroot's stubs have neither.
    _threads: list[WorkerThread]
    _spawn_worker: Callable[[], WorkerThread]

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, or waits for that."""
        return bool(self.qsize) or self.idle < len(self._threads)

    def grow_if_all_are_busy(self) -> None:
        """Start a thread for each request that waits, at most up to the limit; called by the thread that accepts.

        Of a burst of short requests nothing is left in the queue by then, and it does with the threads that there are.
        """
        wanted = min(self.qsize, self.max - len(self._threads)) if self.idle == 0 else 0
        # Cheroot's own grow waits for each of them, 0.1 s where it is not running at once.
        self._threads.extend([self._spawn_worker() for _ in range(wanted)])

    def stop(self, timeout: int = 5) -> None:
        for connection in list(self.server.live):
            connection.abort()
        super().stop(timeout)


class _TLS(Adapter):
    """Python's own TLS, with the handshake left to the reader."""

    def __init__(self, certificate: str, private_key: str) -> None:
        super().__init__(certificate, private_key)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(certificate, private_key)

    def bind(self, sock: socket.socket) -> socket.socket:
        return sock

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        try:
            # Of a client that has reset it already, Python makes an object that fails, and that nobody can close.
            sock.getpeername()
        except OSError as error:
            sock.close()
            raise FatalSSLAlert(*error.args) from error
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, self.get_environ()

    def get_environ(self) -> dict[str, str]:
        return {"wsgi.url_scheme": "https", "HTTPS": "on"}

    def makefile(self, sock: socket.socket, mode: str = "r", bufsize: int = -1) -> Reader | Writer:
        return makefile(sock, mode, bufsize)


class Server(wsgi.Server):
    """Cheroot's server with the connections, the threads and the log that the head of this module tells of."""

    ConnectionClass = Connection
    max_request_body_size = 0  # unlimited; the application knows better
    keep_alive_conn_limit = 4096  # cheroot's 10 would close most connections of a client that uses 64
    expiration_interval = _TICK

    def __init__(self, address: tuple[str, int], application: WSGIApplication, threads: int) -> None:
        super().__init__(address, application, request_queue_size=1024, timeout=_TIMEOUT)
        self.requests = _Threads(self, min=min(threads, _THREADS), max=threads)
        self.live: set[Connection] = set()
        self.environ: dict[str, Any] = {}
        """What is the same in the environment of each request."""
        self._date = (0, "")

    def prepare(self) -> None:
        super().prepare()
        self._connections.close()  # type: ignore[has-type]  # cheroot's stubs have it not
        self._connections = _Connections(self)
        scheme, port = "http" if self.ssl_adapter is None else "https", self.bind_addr[1]
        self.environ = environment(scheme=scheme, name=self.server_name, port=port, software=self.software)

    def date(self) -> str:
        """Return the time of day as HTTP has it; a second has many answers."""
        second, text = self._date
        now = int(time.time())
        if second != now:
            text = formatdate(now, usegmt=True)
            self._date = now, text
        return text

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        # ERROR is what the application raised. All below is a client that went away.
        _log.log(logging.ERROR if level >= logging.ERROR else logging.DEBUG, "%s", msg, exc_info=traceback)

    @staticmethod
    def bind_socket(socket_: socket.socket, bind_addr: tuple[str, int]) -> socket.socket:
        try:
            socket_.bind(bind_addr)
        except OSError:
            socket_.close()  # cheroot leaves it to the garbage collector, and Python warns of that
            raise
        return socket_

    def _serve_unservicable(self) -> None:
        # A thread that cheroot starts and never joins. It is for what does not fit into the queue of requests, and ours
        # has no limit: let it end at once.
        return


@contextlib.contextmanager
def serving(
    application: WSGIApplication,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    threads: int = 64,
    tls: tuple[str, str] | None = None,
    grace: float = 0.0,
) -> Iterator[str]:
    """Serve ``application`` from threads of this process, and give its URL.

    ``port`` 0 takes a free one. At most ``threads`` requests run at the same time; idle connections take none. ``tls``
    is the path of a certificate and of its key. On the way out every thread ends, and open connections are cut, as
    soon as nothing is being answered, or after ``grace`` seconds. OSError: the address is not to be had.
    """
    server = Server((host, port), application, threads)
    try:
        if tls is not None:
            server.ssl_adapter = _TLS(*tls)
        server.prepare()
        thread = threading.Thread(target=server.serve, name="transferkit-server")
        thread.start()
        try:
            bound, port = server.bind_addr
            yield f"{'http' if tls is None else 'https'}://{f'[{bound}]' if ':' in bound else bound}:{port}"
        finally:
            deadline = time.monotonic() + grace
            while server.requests.busy and time.monotonic() < deadline:
                time.sleep(_TICK)
            server.stop()
            thread.join()
    finally:
        statistics: dict[str, Any] = getattr(logging, "statistics", {})
        statistics.pop(f"Cheroot HTTPServer {id(server)}", None)
