"""What can go wrong in place of an answer: actions for :class:`~transferkit.testing.faults.FaultRule`.

Knows WSGI and HTTP. An action is middleware: a function from an application to an application. It says what happens to
one request; which requests it is for, and how often, is the rule's. Actions that alter the application's own answer are
in :mod:`transferkit.testing.alterations`.

The body of a request may stay unread: the server of :func:`~transferkit.testing.running_registry` reads up to 256 KiB
of it, and for more answers with ``Connection: close``.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from transferkit.testing.faults import Action

Headers: TypeAlias = list[tuple[str, str]]

_BLOCK = 64 * 1024  # bytes a read of a request's body that nobody wants
_UNAUTHORIZED = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}'


def respond(
    status: int,
    body: bytes | str = b"",
    *,
    content_type: str = "text/plain",
    headers: Mapping[str, str] | None = None,
    retry_after: int | str | None = None,
    read_body: bool = False,
    after_app: bool = False,
) -> Action:
    """Answer in place of the application.

    ``retry_after`` is the header's value, seconds or a date. With ``read_body`` the whole body of the request is read
    before, with ``after_app`` the application deals with the request and its own answer is lost.

    >>> action = respond(429, "slow down", retry_after=2)
    """
    content = body.encode() if isinstance(body, str) else body
    head = [("Content-Type", content_type), *(headers or {}).items()]
    if retry_after is not None:
        head.append(("Retry-After", str(retry_after)))
    if status not in (204, 304):  # they have no length (RFC 9110, section 8.6)
        head.append(("Content-Length", str(len(content))))

    def action(app: WSGIApplication) -> WSGIApplication:
        def answering(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if after_app:
                _let(app, environ)
            if read_body:
                while environ["wsgi.input"].read(_BLOCK):
                    pass
            start_response(_status_line(status), list(head))
            return () if environ["REQUEST_METHOD"] == "HEAD" or not content else (content,)

        return answering

    return action


def html_page(status: int = 502) -> Action:
    """Answer with the HTML page of a gateway that knows nothing of registries.

    >>> action = html_page(504)
    """
    line = _status_line(status)
    page = f"<html><head><title>{line}</title></head><body><h1>{line}</h1></body></html>\n"
    return respond(status, page, content_type="text/html; charset=utf-8")


def redirect(location: str | Callable[[WSGIEnvironment], str], *, status: int = 307) -> Action:
    """Answer with a redirect, to an absolute or relative URL or to what a function makes of the WSGI environment.

    >>> storage = "http://127.0.0.1:9/storage"
    >>> action = redirect(lambda environ: storage + environ["PATH_INFO"])
    """

    def action(app: WSGIApplication) -> WSGIApplication:
        def redirecting(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            target = location if isinstance(location, str) else location(environ)
            return respond(status, headers={"Location": target})(app)(environ, start_response)

        return redirecting

    return action


def challenge(www_authenticate: str, *, accept: str | Callable[[str], bool] | None = None, status: int = 401) -> Action:
    """Ask for credentials.

    Requests with the ``Authorization`` of ``accept`` (its exact value, or a function that judges it) pass.

    >>> asked = 'Bearer realm="http://127.0.0.1:9/token",service="test"'
    >>> action = challenge(asked, accept="Bearer secret")
    """
    refuse = respond(
        status, _UNAUTHORIZED, content_type="application/json", headers={"WWW-Authenticate": www_authenticate}
    )

    def action(app: WSGIApplication) -> WSGIApplication:
        refusing = refuse(app)

        def guarding(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            given = environ.get("HTTP_AUTHORIZATION")
            passes = given is not None and (accept(given) if callable(accept) else given == accept)
            return (app if passes else refusing)(environ, start_response)

        return guarding

    return action


def delay(seconds: float, *, sleep: Callable[[float], object] = time.sleep) -> Action:
    """Wait before the application is asked. ``sleep`` may be the ``wait`` of an event that ends it.

    >>> action = delay(0.2)
    """

    def action(app: WSGIApplication) -> WSGIApplication:
        def waiting(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            sleep(seconds)
            return app(environ, start_response)

        return waiting

    return action


def hang_up(*, after_app: bool = False) -> Action:
    """Close the connection in place of an answer; with ``after_app`` when the application has done its work.

    Such a request is not in the log of a running registry: it was never answered.

    >>> action = hang_up(after_app=True)
    """

    def action(app: WSGIApplication) -> WSGIApplication:
        def hanging_up(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if after_app:
                _let(app, environ)
            raise hung_up()

        return hanging_up

    return action


def hung_up() -> ConnectionAbortedError:
    """Return what is raised to close the connection at this point."""
    # cheroot takes this for a client that went away: it closes the connection, and neither answers nor logs an error.
    return ConnectionAbortedError(errno.ECONNABORTED, "a fault of the test hangs up here")


def _let(app: WSGIApplication, environ: WSGIEnvironment) -> None:
    """Let the application deal with the request, and throw its answer away."""

    def start_response(status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        return lambda block: None

    blocks = app(environ, start_response)
    try:
        for _ in blocks:
            pass
    finally:
        close = getattr(blocks, "close", None)
        if close is not None:
            close()


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:  # 499, 520 and other inventions
        return f"{status} Unofficial"
