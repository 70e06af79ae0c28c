"""The page of a server: its files, and what it asks besides Ollama's API: room on the disk, and what a check has found.

::

    GET  /                           the page; /page.css, /page.js and /icon.svg belong to it
    GET  /api/transferkit/store      the store, and what the last check of it has found
    POST /api/transferkit/verify     begins a check

Other paths go to the application behind. The page loads nothing from elsewhere, and its policy says so.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from transferkit.errors import TransferKitError
from transferkit.server.checking import Checking, Found
from transferkit.server.refusals import refuse
from transferkit.storage.cache import DiskCache

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_OWN = "'self'"
_POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src {_OWN}" for kind in ("script", "style", "img", "connect")),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",  # nobody lays our buttons under his own
    ]
)
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", _POLICY),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
_MOST_WRONG = 100  # blobs that are named; of a disk that is broken there may be thousands


class Site:
    """A WSGI application in front of another one, over a cache. ``read_only`` is told to the page, not held here."""

    def __init__(self, application: WSGIApplication, cache: DiskCache, *, read_only: bool = False) -> None:
        self._application = application
        self._cache = cache
        self._read_only = read_only
        self.checking = Checking(cache)
        folder = files("transferkit.server") / "page"
        self._files = {path: (folder / name).read_bytes() for path, (name, _) in _FILES.items()}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        allowed = ("POST",) if path == "/api/transferkit/verify" else ("GET", "HEAD")
        if path not in _FILES and path not in ("/api/transferkit/store", "/api/transferkit/verify"):
            return self._application(environ, start_response)
        if method not in allowed:
            return refuse(environ, start_response, 405, "method not allowed", [("Allow", ", ".join(allowed))])
        if path in _FILES:
            return self._file(environ, start_response, path)
        if method == "POST":
            self.checking.start()
        try:
            body = json.dumps(self._store()).encode()
        except (TransferKitError, OSError) as error:
            body = json.dumps({"error": str(error), "read_only": self._read_only}).encode()
        return _answer(environ, start_response, "200 OK", body, "application/json", "no-store")

    def _file(self, environ: WSGIEnvironment, start_response: StartResponse, path: str) -> Iterable[bytes]:
        body = self._files[path]
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if environ.get("HTTP_IF_NONE_MATCH") == tag:
            start_response("304 Not Modified", [("ETag", tag), *_HEADERS])
            return ()
        return _answer(environ, start_response, "200 OK", body, _FILES[path][1], "no-cache", ("ETag", tag))

    def _store(self) -> dict[str, Any]:
        entries = self._cache.entries()
        free = self._cache.disk.free(_existing(self._cache.root))
        return {
            "path": self._cache.root,
            "read_only": self._read_only,
            "free": free,
            "blobs": len(entries),
            "size": sum(entry.size for entry in entries),
            "verify": _told(self.checking.found()),
        }


def _told(found: Found | None) -> dict[str, Any] | None:
    if found is None:
        return None
    ended = None if found.ended is None else datetime.fromtimestamp(found.ended, timezone.utc)
    return {
        "completed": found.completed,
        "total": found.total,
        "ended_at": None if ended is None else ended.isoformat().replace("+00:00", "Z"),
        "error": found.error,
        "count": len(found.wrong),
        "wrong": [{"digest": entry.digest, "size": entry.size} for entry in found.wrong[:_MOST_WRONG]],
    }


def _existing(path: str) -> str:
    """Return the folder, or the nearest one above it that is there: a cache is made when something comes into it."""
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def _answer(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status: str,
    body: bytes,
    content_type: str,
    caching: str,
    *more: tuple[str, str],
) -> Iterable[bytes]:
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Cache-Control", caching)]
    start_response(status, [*headers, *more, *_HEADERS])
    return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)
