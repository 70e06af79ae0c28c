"""What the registry says: answers and refusals in the words of the OCI distribution specification v1.1.

Knows status codes and error codes; knows nothing of the store.
"""

from __future__ import annotations

import copyreg
import errno
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from transferkit.errors import (
    DeniedError,
    InvalidDigestError,
    InvalidNameError,
    RateLimitedError,
    StorageError,
    TransferKitError,
    UnauthorizedError,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from werkzeug.wrappers import Request

# A browser must not guess that a stranger's blob is a page.
_ALWAYS = [("Docker-Distribution-Api-Version", "registry/2.0"), ("X-Content-Type-Options", "nosniff")]


@dataclass(slots=True)
class Answer:
    """One answer, a WSGI application of its own. werkzeug's ``Response`` takes half as long as reading a small blob.

    ``body`` is ``bytes``, or an iterable of them with a ``close`` for which ``headers`` have a ``Content-Length``. An
    answer to ``HEAD`` has the headers of the one to ``GET``, and the body is left out here.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""
    more: Sequence[tuple[str, str]] = ()
    """Headers of which there are several."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        headers = [*self.headers.items(), *self.more, *_ALWAYS]
        body = self.body
        # 204 and 304 have no length (RFC 9110, section 8.6).
        if isinstance(body, bytes) and "Content-Length" not in self.headers and self.status not in (204, 304):
            headers.append(("Content-Length", str(len(body))))
        start_response(f"{self.status} {HTTPStatus(self.status).phrase}", headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            return ()
        return (body,) if isinstance(body, bytes) else body


class Refusal(Exception):
    """The request is refused, with this status and this code of the specification."""

    def __init__(
        self, status: int, code: str, message: str, *, detail: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.headers = dict(headers or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]  # typeshed has it not

    def answer(self) -> Answer:
        error = {"code": self.code, "message": self.message, "detail": self.detail}
        return json_answer({"errors": [error]}, status=self.status, headers=self.headers)


def refusal_of(error: Exception) -> Refusal:
    """Return the refusal for an error of what was asked; what goes wrong in the store or behind it is not shown."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, InvalidDigestError):
        return Refusal(400, "DIGEST_INVALID", str(error))
    if isinstance(error, InvalidNameError):
        return Refusal(400, "NAME_INVALID", str(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refusal(507, "UNKNOWN", "the store has no space left")  # RFC 4918, section 11.5
    if isinstance(error, StorageError) or not isinstance(error, TransferKitError):
        return Refusal(500, "UNKNOWN", "the store cannot be read or written")
    if isinstance(error, RateLimitedError):
        wait = {} if error.retry_after is None else {"Retry-After": str(math.ceil(error.retry_after))}
        return Refusal(429, "TOOMANYREQUESTS", "the registry behind this mirror asks for a pause", headers=wait)
    if isinstance(error, (DeniedError, UnauthorizedError)):
        return Refusal(403, "DENIED", "the registry behind this mirror does not let it in")
    return Refusal(502, "UNAVAILABLE", "the registry behind this mirror cannot be asked, or sends what is wrong")


def read_only_refusal() -> Refusal:
    """Return the refusal of what would change a registry that can only be read: as docker-registry has it."""
    return Refusal(405, "UNSUPPORTED", "this registry is read-only", headers={"Allow": "GET, HEAD"})


def origin_for(request: Request) -> str:
    """Return what a location in the answer begins with: ``""``, but for Ollama's clients scheme, host and port.

    Those do not resolve a relative location, they ask for it as it stands. And they look for a ``Location`` in a 200 to
    the ``GET`` of a blob (ollama, ``server/download.go``): without one, most releases end the pull.
    """
    is_ollama = request.environ.get("HTTP_USER_AGENT", "").startswith("ollama/")
    return request.host_url.rstrip("/") if is_ollama else ""


def json_answer(
    document: Any, *, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = "application/json"
) -> Answer:
    """Return an answer that is a JSON document."""
    body = json.dumps(document, separators=(",", ":")).encode()
    return Answer(status, {**(headers or {}), "Content-Type": media_type}, body)
