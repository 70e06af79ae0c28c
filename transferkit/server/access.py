"""Who may use a server, and for what: Basic authorization, and a mode in which nothing is changed.

Knows passwords and methods; knows nothing of what is served behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from transferkit.server.authentication import authorization_of
from transferkit.server.passwords import Passwords
from transferkit.server.refusals import is_registry, refuse

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_READS = ("GET", "HEAD", "OPTIONS")
_READING_POST = "/api/show"  # asks for a document, with the name in the body
_CHALLENGE = ("WWW-Authenticate", 'Basic realm="transferkit", charset="UTF-8"')


class Access:
    """A WSGI application in front of another one: it asks for a password, and refuses changes where there are none.

    ``passwords`` is ``None`` where everybody may come in. With ``read_only``, what would change something is refused:
    403 by the local API, 405 by the registry, as docker-registry does it.
    """

    def __init__(
        self, application: WSGIApplication, *, passwords: Passwords | None = None, read_only: bool = False
    ) -> None:
        self._application = application
        self._passwords = passwords
        self._read_only = read_only

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._passwords is not None:
            given = authorization_of(environ.get("HTTP_AUTHORIZATION"))
            if given is None or given.type != "basic":
                return refuse(environ, start_response, 401, "a user and a password are needed", [_CHALLENGE])
            if not self._passwords.are_right(given.username or "", given.password or ""):
                return refuse(environ, start_response, 401, "the user or the password is wrong", [_CHALLENGE])
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if self._read_only and method not in _READS and path != _READING_POST:
            if is_registry(path):
                return refuse(environ, start_response, 405, "this registry is read-only", [("Allow", "GET, HEAD")])
            return refuse(environ, start_response, 403, "this server is read-only")
        return self._application(environ, start_response)
