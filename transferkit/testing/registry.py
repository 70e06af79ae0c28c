"""A registry that runs while a test does, and remembers what it was asked.

Knows in which order the log, a test's own middleware and the registry are called, and where the files are. It has no
faults of its own: those are middleware, or a proxy in front.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from transferkit.content.digest import Digest
from transferkit.server.oci import OCIRegistry
from transferkit.server.serve import serving

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One request and how it was answered."""

    method: str
    path: str
    """Percent-decoded."""
    query: str
    """As it was sent."""
    headers: dict[str, str]
    """Names in lower case."""
    status: int
    sent: int
    """Bytes of the answer's body that were given to the socket."""
    received: int
    """Bytes of the request's body that were read before the answer."""


class RequestLog(Sequence[LoggedRequest]):
    """Requests in the order in which their answers ended. Thread-safe.

    A request is here before its client has seen the end of the answer: who has an answer finds its request.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[LoggedRequest] = []

    def __len__(self) -> int:
        return len(self._requests)

    @overload
    def __getitem__(self, index: int) -> LoggedRequest: ...
    @overload
    def __getitem__(self, index: slice) -> list[LoggedRequest]: ...
    def __getitem__(self, index: int | slice) -> LoggedRequest | list[LoggedRequest]:
        with self._lock:
            return self._requests[index]

    def __iter__(self) -> Iterator[LoggedRequest]:
        return iter(self[:])

    def __repr__(self) -> str:
        lines = (f"{request.method} {request.path} {request.status}" for request in self)
        return f"<RequestLog: {', '.join(lines)}>"

    def count(self, method: str | None = None, path_contains: str | None = None) -> int:
        """Return how many requests had this method and this text in their path."""
        return sum(
            (method is None or request.method == method) and (path_contains is None or path_contains in request.path)
            for request in self
        )

    def append(self, request: LoggedRequest) -> None:
        with self._lock:
            self._requests.append(request)

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRegistry:
    """A registry that is up. Thread-safe."""

    url: str
    store: Path
    log: RequestLog

    def blob_path(self, digest: str) -> Path:
        """Return where the file of a blob or manifest is, or would be.

        Raises:
            InvalidDigestError: ``digest`` is none.
        """
        return self.store / "blobs" / Digest(digest).file_name


@contextmanager
def running_registry(
    store: str | os.PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    threads: int = 16,
    middleware: Callable[[WSGIApplication], WSGIApplication] | None = None,
    tls: tuple[str, str] | None = None,
) -> Iterator[RunningRegistry]:
    """Run an :class:`~transferkit.server.OCIRegistry` in threads of this process.

    ``store`` is its directory, a temporary one by default. ``port`` 0 takes a free one. ``middleware`` is called with
    the registry and returns the application to serve in its place; the log sees what that one answers. ``tls`` is the
    path of a certificate and of its key. The way out cuts open connections and waits for the threads, so it takes as
    long as a middleware that is asleep.

    Raises:
        OSError: the address is not to be had.

    >>> from http.client import HTTPConnection
    >>> with running_registry() as registry:
    ...     connection = HTTPConnection(registry.url.removeprefix("http://"))
    ...     connection.request("HEAD", "/v2/")
    ...     status = connection.getresponse().status
    ...     connection.close()
    ...     print(status, registry.log.count("HEAD"))
    200 1
    """
    if store is None:
        with tempfile.TemporaryDirectory(prefix="transferkit-registry-") as directory:
            with running_registry(
                directory, host=host, port=port, threads=threads, middleware=middleware, tls=tls
            ) as registry:
                yield registry
        return
    log, app = RequestLog(), OCIRegistry(store, durable=False)
    application = app if middleware is None else middleware(app)
    with serving(_Logged(application, log), host=host, port=port, threads=threads, tls=tls) as url:
        yield RunningRegistry(url=url, store=Path(store), log=log)


class _Logged:
    """The outermost application: it writes the log."""

    def __init__(self, application: WSGIApplication, log: RequestLog) -> None:
        self._application = application
        self._log = log

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        entry = _Entry(environ, self._log)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
            entry.begin(int(status[:3]), headers)
            return start_response(status, headers, exc_info)

        entry.body = self._application(environ, start)
        return entry


class _Entry:
    """A request on its way into the log, and the body of its answer on its way out."""

    body: Iterable[bytes]

    def __init__(self, environ: WSGIEnvironment, log: RequestLog) -> None:
        self._environ = environ
        self._log = log
        self._status = 0
        self._sent = 0
        self._ended = False
        self._length: int | None = None

    def begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        self._status = status
        lengths = [int(value) for name, value in headers if name.lower() == "content-length"]
        self._length = lengths[0] if lengths else None

    def __iter__(self) -> Iterator[bytes]:
        for block in self.body:
            self._sent += len(block)
            # Before the last block is sent: the client may look into the log as soon as it has it.
            if self._sent == self._length:
                self.end()
            yield block

    def close(self) -> None:
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.end()

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        environ = self._environ
        headers = {name[5:].lower().replace("_", "-"): text for name, text in environ.items() if name[:5] == "HTTP_"}
        for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if name in environ:
                headers[name.lower().replace("_", "-")] = environ[name]
        self._log.append(
            LoggedRequest(
                method=environ["REQUEST_METHOD"],
                path=environ["PATH_INFO"],
                query=environ["QUERY_STRING"],
                headers=headers,
                status=self._status,
                sent=self._sent,
                received=environ["wsgi.input"].received,
            )
        )
