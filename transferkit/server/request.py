"""One request on a connection and its answer: WSGI (PEP 3333) over HTTP/1.1 framing (RFC 9112).

Knows heads, bodies and the environment of an application. The connection is somebody else's, and so is the judgement of
heads. Cheroot's own request and gateway did the same in twice the time: half of what a small blob costs is in here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from transferkit.server import heads
from transferkit.server.body import Body
from transferkit.server.file_part import FilePart
from transferkit.server.pace import Pace

if TYPE_CHECKING:
    from transferkit.server.serve import Connection, Server

IS_GONE = "transferkit.is_gone"
"""In the environment of a request: a function that tells whether its client has hung up."""
_REST_LIMIT = 256 * 1024  # bytes of an unread body worth reading to keep the connection; Go's net/http has the same
_SLASH = re.compile("%2[Ff]")
_TOO_LONG = "the body of the answer is longer than its Content-Length"
_NO_BODY = ("1", "204", "304")  # RFC 9112, section 6.3; 1xx by its first digit


class Request:
    """A request, as ``HTTPConnection.communicate`` of cheroot takes it.

    ``parse_request`` makes it ``ready``, or refuses it; ``respond`` answers. What then becomes of the connection says
    ``close_connection``.
    """

    def __init__(self, server: Server, conn: Connection) -> None:
        self.server = server
        self.conn = conn
        self.ready = self.started_request = self.sent_headers = False
        self.close_connection = False
        self._is_chunked = False
        """Whether the answer is: nobody knows its length."""
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._left: int | None = None
        """Bytes of the answer's body that were announced and are still to come."""

    # The request

    def parse_request(self) -> None:
        head = self.conn.rfile.take_head()
        if not head:  # the peer is gone
            return
        self.started_request = True
        refusal = heads.refusal(head)
        if refusal is None:
            line, *fields = head.decode("latin-1").removeprefix("\r\n").split("\r\n")
            self._method, target, self._version = line.split(" ")
            refusal = _misdirected(self._method, target)
        if refusal is not None:
            self.simple_response(*refusal)
            return
        path, _, query = target.partition("?")
        self._environ: dict[str, Any] = {
            **self.server.environ,
            "PATH_INFO": _decoded(path),
            "QUERY_STRING": query,
            "REMOTE_ADDR": self.conn.remote_addr or "",
            "REMOTE_PORT": str(self.conn.remote_port or ""),
            "REQUEST_METHOD": self._method,
            "REQUEST_URI": target,
            "SERVER_PROTOCOL": self._version,
        }
        self._take_fields(fields)
        self.ready = True

    def _take_fields(self, fields: list[str]) -> None:
        environ = self._environ
        for field in fields:
            name, _, value = field.partition(":")
            # WSGI makes Content_Length of Content-Length and of Content_Length. nginx leaves the latter out, too.
            if not name or "_" in name:
                continue
            name, value = "HTTP_" + name.upper().replace("-", "_"), value.strip(" \t")
            environ[name] = f"{environ[name]}, {value}" if name in environ else value
        for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if f"HTTP_{name}" in environ:
                environ[name] = environ.pop(f"HTTP_{name}")
        environ["wsgi.input_terminated"] = "HTTP_TRANSFER_ENCODING" in environ
        words = [word.strip() for word in environ.get("HTTP_CONNECTION", "").lower().split(",")]
        self.close_connection = "close" in words or (self._version == "HTTP/1.0" and "keep-alive" not in words)

    # The answer

    def respond(self) -> None:
        """Call the application and send what it returns; whatever that raises."""
        environ = self._environ
        length = None if environ["wsgi.input_terminated"] else int(environ.get("CONTENT_LENGTH", 0))
        expects = self._version != "HTTP/1.0" and environ.get("HTTP_EXPECT", "").lower() == "100-continue"
        self.conn.rfile.limit(None if length == 0 else Pace())
        self._body = Body(self.conn.rfile, length, invite=self._invite if expects else None)
        environ["wsgi.input"] = self._body
        environ[IS_GONE] = self.conn.is_gone
        answer = self.server.wsgi_app(environ, self._start)
        try:
            self._send(answer)
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()
        self.conn.rfile.limit(None)
        self.conn.answered = True
        if self._is_chunked:
            self.conn.wfile.write(b"0\r\n\r\n")
        self.conn.wfile.flush()

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """The ``start_response`` of PEP 3333."""
        if exc_info is not None:
            try:
                if self.sent_headers:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a cycle else
        elif self._status:
            raise AssertionError("start_response was called a second time, without an exception")
        self._status, self._headers, self._left = status, headers, None
        return self._write

    def _send(self, answer: Iterable[bytes]) -> None:
        if isinstance(answer, FilePart):
            self._send_head(answer.left)
            if self._has_body and self._left is not None:  # chunks are made here
                self._left -= self.conn.wfile.send_file(answer)
        for block in answer:
            if block:
                self._write(block)
            elif not self.sent_headers:  # the body is late, and the head is not to be
                self._send_head(0)
                self.conn.wfile.flush()
            if self.sent_headers and not self._has_body:
                break
        if not self.sent_headers:
            self._send_head(0)
        if self._left and self._has_body:
            self.close_connection = True  # the client waits for more

    def _write(self, block: bytes) -> None:
        if not self.sent_headers:
            self._send_head(len(block))
        if self._left is not None:
            if len(block) > self._left:
                raise ValueError(_TOO_LONG)
            self._left -= len(block)
        if self._has_body:
            self.conn.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if self._is_chunked else block)

    def _send_head(self, first: int) -> None:
        """Send the head; the next bytes of the body will be ``first`` many."""
        if not self._status:
            raise AssertionError("the application did not call start_response")
        status, headers = self._status, list(self._headers)
        self._has_body = self._method != "HEAD" and not status.startswith(_NO_BODY)
        names = {name.lower(): value for name, value in headers}
        if "content-length" in names:
            self._left = int(names["content-length"])
            if first > self._left:
                raise ValueError(_TOO_LONG)
        elif self._has_body:
            self._is_chunked = self._version == "HTTP/1.1"
            self.close_connection = self.close_connection or not self._is_chunked
            if self._is_chunked:
                headers.append(("Transfer-Encoding", "chunked"))
        self.sent_headers = True
        self._decide_on_connection()
        if "connection" not in names:
            if self.close_connection:
                headers.append(("Connection", "close"))
            elif self._version == "HTTP/1.0":
                headers.append(("Connection", "Keep-Alive"))
        if "date" not in names:
            headers.append(("Date", self.server.date()))
        if "server" not in names:
            headers.append(("Server", self.server.server_name))
        lines = [f"{name}: {value}\r\n" for name, value in headers]
        text = f"HTTP/1.1 {status}\r\n{''.join(lines)}\r\n"
        if text.count("\n") != len(lines) + 2 or text.count("\r") != len(lines) + 2:
            self.sent_headers = False
            raise ValueError("a header of the answer has a line feed or a carriage return")
        self.conn.wfile.holding = True
        self.conn.wfile.write(text.encode("latin-1"))

    def _decide_on_connection(self) -> None:
        if self._status.startswith("413") or not self.server.can_add_keepalive_connection:
            self.close_connection = True
        if not self.close_connection and not self._body.discard(_REST_LIMIT):
            self.close_connection = True
        self.conn.unread = not self._body.finished

    def _invite(self) -> None:
        self.conn.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def simple_response(self, status: str, msg: str = "") -> None:
        """Refuse the request, and close the connection: nobody knows what comes next on it."""
        self.close_connection = self.conn.unread = True
        text = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(msg)}\r\n"
        self.conn.wfile.write(f"{text}Connection: close\r\n\r\n{msg}".encode("ascii"))


def environment(*, scheme: str, name: str, port: int, software: str) -> dict[str, Any]:
    """Return what is the same in the environment of each request to a server."""
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": name,
        "SERVER_PORT": str(port),
        "SERVER_SOFTWARE": software,
        "wsgi.errors": sys.stderr,
        "wsgi.multiprocess": False,
        "wsgi.multithread": True,
        "wsgi.run_once": False,
        "wsgi.url_scheme": scheme,
        "wsgi.version": (1, 0),
        **({"HTTPS": "on"} if scheme == "https" else {}),
    }


def _misdirected(method: str, target: str) -> tuple[str, str] | None:
    """Judge method and target: names of methods in capitals, and paths of this server (RFC 9112, section 3.2.1)."""
    if method != method.upper():
        return "400 Bad Request", "The name of a method is in capitals."
    if method == "CONNECT":
        return "405 Method Not Allowed", "This server is no proxy."
    if target == "*" and method == "OPTIONS":
        return None
    if not target.startswith("/") or target.startswith("//"):  # who reads // as a host, and who as a path?
        return "400 Bad Request", "A target begins with one slash."
    return ("400 Bad Request", "A target has no fragment.") if "#" in target else None


def _decoded(path: str) -> str:
    """Decode a path as WSGI has it: a text whose characters are bytes. A slash that was encoded parts nothing."""
    if "%" not in path:
        return path
    return "%2F".join(unquote_to_bytes(part).decode("latin-1") for part in _SLASH.split(path))
