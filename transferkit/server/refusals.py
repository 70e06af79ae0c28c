"""How a request is refused before it reaches an application: in the words of the part that it was meant for.

Knows the paths of the parts, and nothing of why a request is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# The codes of the OCI distribution specification v1.1, and of the local API, for each status.
_OCI = {401: "UNAUTHORIZED", 403: "DENIED", 405: "UNSUPPORTED", 413: "SIZE_INVALID"}
_API = {401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}


def is_registry(path: str) -> bool:
    """Tell whether a path belongs to the OCI registry."""
    return path == "/v2" or path.startswith("/v2/")


def refuse(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: int,
    message: str,
    headers: Iterable[tuple[str, str]] = (),
) -> Iterable[bytes]:
    """Answer with a status, and a message that is safe to show to anybody."""
    path = environ.get("PATH_INFO", "")
    if is_registry(path):
        code = _OCI.get(status, "UNKNOWN")
        document: object = {"errors": [{"code": code, "message": message, "detail": None}]}
    else:
        document = {"code": _API.get(status, "bad_request"), "error": message}
    body = json.dumps(document, separators=(",", ":")).encode()
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    fields += [("X-Content-Type-Options", "nosniff"), *headers]
    start_response(f"{status} {HTTPStatus(status).phrase}", fields)
    return () if environ.get("REQUEST_METHOD") == "HEAD" else (body,)
