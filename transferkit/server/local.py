"""Ollama's API of models as a WSGI application over a registry client: pull, delete, and what the cache has.

Which request goes where, what a stream says, and one record in the log for each request. Source: Ollama's
``server/internal/registry/server.go`` and its API documentation, as ``docs/server.rst`` lists it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from transferkit._version import __version__
from transferkit.names import Reference, short
from transferkit.registry.registry import Registry
from transferkit.server import catalogue
from transferkit.server.api_errors import Failure, bad_request, failure_of, model_not_found, told
from transferkit.server.json_body import Asked, read_json
from transferkit.server.pulls import Pull, Pulls
from transferkit.server.request import IS_GONE

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("transferkit.server")

TICK = 0.1  # seconds between two sets of lines while bytes move, as the original has it
_LOOK = 0.5  # seconds between two looks whether a client is still there
_GONE = 499  # as nginx logs it; nobody reads the answer
_NDJSON = "application/x-ndjson"
_JSON = "application/json; charset=utf-8"


class LocalAPI:
    """Ollama's API of models over a :class:`~transferkit.Registry`. Thread-safe; a context manager that ends its pulls.

    ``/api/pull`` and ``/api/delete``, streaming and not; ``/api/tags``, ``/api/show``, ``/api/ps`` and ``/api/version``
    from the cache. Any other path goes to ``fallback``, a WSGI application, if there is one. ``prune`` is called after
    a model was deleted. Several clients that pull one model share one transfer; it is cancelled when the last one hangs
    up. A line comes every ``heartbeat`` seconds at least. ``pulls`` are those of a mirror over the same registry, which
    are shared and listed then.

    There is no authorization: whoever reaches it may pull and delete.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        fallback: WSGIApplication | None = None,
        prune: Callable[[], object] | None = None,
        heartbeat: float = 5.0,
        tick: float = TICK,
        pulls: Pulls | None = None,
    ) -> None:
        self._registry = registry
        self._fallback = fallback
        self._prune = prune
        self._heartbeat = heartbeat
        self._tick = tick
        self.pulls = pulls or Pulls(registry)
        self._routes: dict[str, tuple[tuple[str, ...], Callable[[_Call], Iterable[bytes]]]] = {
            "/api/pull": (("POST",), self._pull),
            "/api/delete": (("DELETE",), self._delete),
            "/api/show": (("POST",), self._show),
            "/api/tags": (("GET", "HEAD"), lambda call: call.json(catalogue.tags(self._registry.cache))),
            "/api/ps": (("GET", "HEAD"), lambda call: call.json(self._transfers())),
            "/api/version": (("GET", "HEAD"), lambda call: call.json({"version": __version__})),
        }

    def close(self) -> None:
        """Cancel the running pulls, which keep what has come, and wait for them."""
        self.pulls.close()

    def __enter__(self) -> LocalAPI:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        route = self._routes.get(environ.get("PATH_INFO", ""))
        if route is None and self._fallback is not None:
            return self._fallback(environ, start_response)
        call = _Call(environ, start_response)
        try:
            if route is None:
                raise Failure(404, "not_found", "not found")
            methods, handle = route
            if environ["REQUEST_METHOD"] not in methods:
                raise Failure(405, "method_not_allowed", "method not allowed")
            return handle(call)
        except Exception as error:  # noqa: BLE001 - a client is told of each, in its own words
            return call.fail(failure_of(error))

    # -- what it does

    def _pull(self, call: _Call) -> Iterable[bytes]:
        asked = read_json(call.environ["wsgi.input"])
        name = asked.model
        if asked.stream:
            return call.stream(self._lines(name, call))
        with self.pulls.join(name) as pull:
            while not pull.ended(_LOOK):
                if call.is_gone():
                    raise Failure(_GONE, "client_closed_request", "the client has hung up")
        if pull.error is not None:
            raise pull.error
        return call.json({"status": "success"})

    def _lines(self, name: str, call: _Call) -> Iterator[bytes]:
        """Yield what a client sees of a pull, until it ends."""
        yield _line(status="pulling manifest")
        error: Exception | None = None
        try:
            with self.pulls.join(name) as pull:
                yield from self._progress(pull, call)
                error = pull.error
        except Exception as caught:  # noqa: BLE001 - the client is told, in the stream
            error = caught
        if error is not None:
            call.error = str(error)
            said = told(error, name)
            yield _line(status=f"error: {said}") + _line(error=said)
            return
        for status in ("verifying sha256 digest", "writing manifest", "success"):
            yield _line(status=status)

    def _progress(self, pull: Pull, call: _Call) -> Iterator[bytes]:
        is_begun, seen, silent = False, -1, time.monotonic()
        while True:
            now = pull.wait(seen, min(_LOOK, self._heartbeat))
            is_over = pull.is_over
            if pull.layers and not is_begun:
                is_begun = True
                yield b"".join(_line(digest=layer.digest, total=layer.size) for layer in pull.layers)
            is_silent = time.monotonic() - silent >= self._heartbeat
            if is_begun and (now != seen or is_silent):
                yield b"".join(_layer(pull, layer) for layer in pull.layers)
                silent = time.monotonic()
            elif is_silent:
                yield _line(status="pulling manifest")
                silent = time.monotonic()
            if is_over or call.is_gone():
                return
            if now != seen and self._tick:
                seen = now
                time.sleep(self._tick)

    def _delete(self, call: _Call) -> Iterable[bytes]:
        asked = read_json(call.environ["wsgi.input"])
        reference = Reference.parse(asked.model, self._registry.mask)
        if reference.has_scheme or reference.digest is not None:
            raise bad_request(f'invalid or missing name: "{asked.model[:200]}"')
        if not self._registry.unlink(asked.model):
            raise model_not_found()
        if self._prune is not None:
            self._prune()
        return call.empty()

    def _show(self, call: _Call) -> Iterable[bytes]:
        asked: Asked = read_json(call.environ["wsgi.input"])
        name = Reference.parse(asked.model, self._registry.mask).name
        return call.json(catalogue.show(self._registry.cache, name))

    def _transfers(self) -> dict[str, Any]:
        """Return the running pulls, in the form in which Ollama tells of models that are loaded."""
        running: dict[str, dict[str, Any]] = {}
        for pull in self.pulls.running():
            name = short(Reference.parse(pull.title, self._registry.mask).name)
            told = {"name": name, "model": name, "size": pull.total, "completed": pull.in_place}
            # A client of the API and one of the mirror may ask for one model: who waits for the other has no size.
            running[name] = max(running.get(name, told), told, key=lambda each: each["size"])
        return {"models": list(running.values())}


def _line(**fields: object) -> bytes:
    """Return one line of a stream: compact, its keys in this order."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _layer(pull: Pull, layer: Any) -> bytes:
    completed = pull.position(layer)
    return _line(digest=layer.digest, total=layer.size, **({"completed": completed} if completed else {}))


@dataclass(slots=True)
class _Call:
    """One request: how it is answered, and its record in the log."""

    environ: WSGIEnvironment
    start_response: StartResponse
    error: str = field(default="", init=False)

    def is_gone(self) -> bool:
        """Tell whether the client has hung up; False where nobody knows."""
        ask = self.environ.get(IS_GONE)  # other servers have no such thing
        return ask is not None and bool(ask())

    def json(self, document: Any, status: int = 200) -> Iterable[bytes]:
        body = json.dumps(document, separators=(",", ":")).encode()
        headers = [("Content-Type", _JSON), ("Content-Length", str(len(body))), ("X-Content-Type-Options", "nosniff")]
        self.start_response(_status_line(status), headers)
        self.record(status)
        return () if self.environ["REQUEST_METHOD"] == "HEAD" else (body,)

    def empty(self) -> Iterable[bytes]:
        self.start_response(_status_line(200), [("Content-Length", "0")])
        self.record(200)
        return ()

    def fail(self, failure: Failure) -> Iterable[bytes]:
        self.error = failure.cause
        return self.json({"code": failure.code, "error": failure.message}, failure.status)

    def stream(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """Answer with lines as they come; the record is written when the stream ends."""
        self.start_response(_status_line(200), [("Content-Type", _NDJSON), ("X-Content-Type-Options", "nosniff")])
        return self._recorded(lines)

    def _recorded(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from lines
        except GeneratorExit:
            self.error = "the client has hung up"
            raise
        finally:
            self.record(200)

    def record(self, status: int) -> None:
        environ = self.environ
        values = (self.error, environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", ""))
        error, path, query = (_one_line(value) for value in values)
        level = logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO
        logger.log(
            level,
            'http error="%s" status=%d method=%s path=%s content-length=%s remote=%s proto=%s query=%s',
            error.replace('"', "'"),
            status,
            environ.get("REQUEST_METHOD", ""),
            path,
            environ.get("CONTENT_LENGTH") or 0,
            environ.get("REMOTE_ADDR", ""),
            environ.get("SERVER_PROTOCOL", ""),
            query,
        )


def _one_line(text: str) -> str:
    """Return a text without what would begin another line in a log, or colour it: clients choose their paths."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _status_line(status: int) -> str:
    return f"{status} Client Closed Request" if status == _GONE else f"{status} {HTTPStatus(status).phrase}"
