"""Serving a WSGI application: cheroot, held to bounded memory, prompt answers and a prompt end.

Knows sockets and HTTP/1.1 framing, not what is served. What is good about cheroot 11 as it is: request bodies are
not buffered, idle connections wait in a selector and cost no thread. What else it does, as its source has it, and
what is done about it here:

- A chunk of a chunked body is read whole into memory, whatever its announced size, and cut up in quadratic time;
  the line after the last chunk is left unread, so that the wait for the next request occupies a thread; and of a
  chunked body that the application did not read, the rest is parsed as the next request.
  :class:`~transferkit.server.body.Body` reads what has arrived, to the very end, and where the end was not reached
  the connection is closed.
- Two lengths, a length beside a transfer coding, ``TE :``, folded lines, ``Content-Length: -1``, control characters and
  requests without a host are taken. :mod:`~transferkit.server.heads` judges every head first, and refuses them.
- A head that comes bit by bit occupies a thread, for as long as it likes. Here it is gathered in the selector, and has
  to be whole within a minute; a body has to keep the pace of :mod:`~transferkit.server.pace`.
- An answer that comes before the request's body was read (401, 404, 307) waits until the rest has been read, in one
  piece. Here at most 256 KiB are read; for more, the answer goes out at once and says ``Connection: close``. (A
  ``Connection`` header of the application's own closes nothing.)
- A connection closed with unread data is reset by the kernel, and the answer may be lost on the way. Here the
  sending side is closed first, and what comes is thrown away for a moment.
- ``100 Continue`` is sent before the application is asked. Here, when it first reads: an early refusal spares the
  body.
- A new connection occupies a thread until its first request comes. Here it waits in the selector.
- The TLS handshake runs in the thread that accepts, where one silent client stops everybody. Here it goes on whenever
  the client has sent a part of it, and nobody waits for the rest.
- Head and body of an answer are two packets. Here a small answer is one.
- A body that the application yields for ``HEAD`` is sent; that is left to the application.
- A stop takes up to 0.5 s for the selector, and up to the timeout of a connection for a thread that is sending.
  Here it shuts all sockets down first.
- Tracebacks go to stderr, also for clients that went away, and the statistics of a server are kept in ``logging``
  for ever. Here they go to the log, and are forgotten.
"""

from __future__ import annotations

import contextlib
import io
import logging
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cheroot import wsgi
from cheroot.errors import FatalSSLAlert
from cheroot.server import HeaderReader, HTTPConnection, HTTPRequest
from cheroot.ssl import Adapter
from cheroot.workers.threadpool import ThreadPool

from transferkit.server import heads
from transferkit.server.body import Body
from transferkit.server.pace import Pace
from transferkit.server.streams import Reader, Writer, makefile

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_log = logging.getLogger(__name__)

IS_GONE = "transferkit.is_gone"
"""In the environment of a request: a function that tells whether its client has hung up."""
_REST_LIMIT = 256 * 1024  # bytes of an unread body worth reading to keep the connection; Go's net/http has the same
_LINGER = 0.5  # seconds after an early answer in which the client may notice it; Go's net/http has the same
# Seconds from an answer to the whole head of the next request, and for which an answer may find no reader.
_TIMEOUT = 60
# Milliseconds in which a client that is in the middle of something sends its next request: it keeps the thread, and the
# way over the selector, which costs a sixth of a small blob, is saved.
_SOON = 2
# Seconds between two looks at the clock of the thread that waits for connections, and what ending takes at worst: with
# cheroot's 0.5 s, half a second for each server of a test run.
_TICK = 0.02


class _Headers(HeaderReader):
    """Reads the fields of a head that :mod:`~transferkit.server.heads` has judged; what came twice is joined."""

    def __call__(self, rfile: io.BytesIO, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        headers = {} if hdict is None else hdict
        for line in rfile.read()[:-4].split(b"\r\n"):
            name, _, value = line.partition(b":")
            # WSGI makes Content_Length of Content-Length and of Content_Length. nginx leaves the latter out, too.
            if not name or b"_" in name:
                continue
            name, value = name.title(), value.strip(b" \t")
            headers[name] = headers[name] + b", " + value if name in headers else value
        if headers.get(b"Expect", b"").lower() == b"100-continue":
            # The same to everybody (RFC 9110, section 10.1.1) but to cheroot, which would invite the body at once.
            headers[b"Expect"] = b"100-Continue"
        return headers


class _Request(HTTPRequest):
    """One request: its body is bounded, and comes when the application reads."""

    header_reader = _Headers()
    conn: _Connection

    def parse_request(self) -> None:
        head = self.conn.rfile.take_head()
        if not head:  # the peer is gone
            return
        self.started_request = True
        refusal = heads.refusal(head)
        if refusal is not None:
            self.simple_response(*refusal)
            return
        self.rfile: io.BufferedIOBase = io.BytesIO(head)
        try:
            self.ready = self.read_request_line() and self.read_request_headers()  # type: ignore[no-untyped-call]  # cheroot
        except ValueError:  # urllib's, of a target such as "//[": cheroot expects a UnicodeError alone
            self.simple_response("400 Bad Request", "The target of the request is malformed.")

    def simple_response(self, status: str, msg: str = "") -> None:
        """Refuse the request, and close the connection: nobody knows what comes next on it."""
        self.close_connection = self.conn.unread = True
        text = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(msg)}\r\n"
        self.conn.wfile.write(f"{text}Connection: close\r\n\r\n{msg}".encode("ascii"))

    def respond(self) -> None:
        length = None if self.chunked_read else int(self.inheaders.get(b"Content-Length", 0))
        expects = self.inheaders.get(b"Expect") == b"100-Continue"
        self.conn.rfile.limit(None if length == 0 else Pace())
        self.rfile = self._body = Body(self.conn.rfile, length, invite=self._invite if expects else None)
        gateway = self.server.gateway(self)
        gateway.env[IS_GONE] = self.conn.is_gone
        gateway.respond()
        self.ensure_headers_sent()
        self.conn.rfile.limit(None)
        self.conn.answered = True
        if self.chunked_write:
            self.conn.wfile.write(b"0\r\n\r\n")
        self.conn.wfile.flush()

    def send_headers(self) -> None:
        if not self.close_connection and not self._body.discard(_REST_LIMIT):
            self.close_connection = True
        self.conn.unread = not self._body.finished
        self.conn.wfile.holding = True
        super().send_headers()

    def _invite(self) -> None:
        self.conn.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class _Connection(HTTPConnection):
    RequestHandlerClass = _Request

    def __init__(self, server: _Server, sock: socket.socket, _makefile_of_cheroot: Any) -> None:
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
                if not socket.socket.recv(self.socket, _REST_LIMIT):  # ciphertext is as good to throw away
                    return
        except OSError:  # the time is over, or the peer is gone
            pass


class _Threads(ThreadPool):
    server: _Server

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


class _Server(wsgi.Server):
    ConnectionClass = _Connection
    max_request_body_size = 0  # unlimited; the application knows better
    keep_alive_conn_limit = 4096  # cheroot's 10 would close most connections of a client that uses 64
    expiration_interval = _TICK

    def __init__(self, address: tuple[str, int], application: WSGIApplication, threads: int) -> None:
        super().__init__(address, application, request_queue_size=1024, timeout=_TIMEOUT)
        self.requests = _Threads(self, min=threads, max=threads)
        self.live: set[_Connection] = set()

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
    threads: int = 16,
    tls: tuple[str, str] | None = None,
    grace: float = 0.0,
) -> Iterator[str]:
    """Serve ``application`` from threads of this process, and give its URL.

    ``port`` 0 takes a free one. ``threads`` requests run at the same time; idle connections take none. ``tls`` is the
    path of a certificate and of its key. On the way out every thread ends, and open connections are cut, as soon as
    nothing is being answered, or after ``grace`` seconds. OSError: the address is not to be had.
    """
    server = _Server((host, port), application, threads)
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
            while server.requests.idle < threads and time.monotonic() < deadline:
                time.sleep(_TICK)
            server.stop()
            thread.join()
    finally:
        statistics: dict[str, Any] = getattr(logging, "statistics", {})
        statistics.pop(f"Cheroot HTTPServer {id(server)}", None)
