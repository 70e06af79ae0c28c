"""An OCI registry as a WSGI application: which request goes to which function, and how a failure is told.

OCI distribution specification v1.1 and, of what comes after it, tags in the query of a manifest, ``digest-algorithm``
and sparse manifests; and what Ollama's clients do otherwise. Without ``auth``, whoever reaches it may do everything.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Request

from transferkit.content.digest import Digest
from transferkit.errors import InvalidDigestError, InvalidNameError, StorageError
from transferkit.server import blobs, chunksums, manifests, uploads
from transferkit.server.answers import Answer, Refusal, json_answer, read_only_refusal, refusal_of
from transferkit.server.authentication import TOKENS, Auth, Authentication
from transferkit.server.limits import Limits
from transferkit.server.sessions import Sessions
from transferkit.server.store import Repository, Store

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_log = logging.getLogger(__name__)

# One expression and no table of routes: werkzeug's routing alone took longer than everything else a small blob needs.
# The name is held against its grammar later, so that a bad one is told so; DOTALL: a newline makes a bad name.
_ROUTE = re.compile(r"/v2/(.+)/(blobs/uploads|blobs|manifests|tags|referrers|chunksums)/([^/]*)\Z", re.DOTALL)


class OCIRegistry:
    """A registry over the directory ``store``, which is made if need be. Thread-safe; one process a directory.

    Contents are stored once and linked per repository, so one repository does not see what only another one has.
    Digests are verified before a content gets its name. What was answered with 201 survives ``kill -9`` and, unless
    ``durable`` is false, a power cut; uploads under way survive ``kill -9``, and are gone on with. ``patience`` is how
    many seconds a request waits for another one that is writing to the same upload.

    ``auth`` asks for credentials: a mapping from users to their passwords, or a function that judges both. With
    ``tokens`` clients are sent for a token first, which this application hands out as well. ``read_only`` refuses what
    is no ``GET`` or ``HEAD``. ``sparse`` takes manifests that name what is not here. ``limits`` are its bounds, and
    ``clock`` (Unix time) tells which uploads are idle.

    Besides, it lists the digests of a blob's parts, as Ollama's registry does, unless ``chunksums`` is false;
    ``chunk_size`` is how many bytes each part has, by default 8 to 64 MiB, by the size of the blob.

    >>> import tempfile
    >>> from werkzeug.test import Client
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     Client(OCIRegistry(directory)).get("/v2/").status
    '200 OK'
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | Store,
        *,
        durable: bool = True,
        read_only: bool = False,
        sparse: bool = False,
        auth: Auth | None = None,
        tokens: bool = False,
        limits: Limits | None = None,
        patience: float = 2.0,
        chunksums: bool = True,
        chunk_size: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size is a number of bytes, not {chunk_size}")
        self._store = store if isinstance(store, Store) else Store(store, durable=durable, read_only=read_only)
        self._read_only = read_only or self._store.read_only
        self._sparse = sparse
        self._authentication = None if auth is None else Authentication(auth, tokens=tokens, clock=clock)
        self._limits = limits or Limits()
        self._chunksums = chunksums
        self._chunk_size = chunk_size
        self._sessions = Sessions(self._store, self._limits, patience=patience, clock=clock)

    def __repr__(self) -> str:
        return f"OCIRegistry({str(self._store.root)!r})"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Answer:
        try:
            return self._dispatch(request)
        except (Refusal, InvalidDigestError, InvalidNameError) as error:
            return refusal_of(error).answer()
        except OSError as error:
            # One of ours says itself what it is about; on a full disk there is one for each request.
            is_told = isinstance(error, StorageError)
            _log.error("%s %r failed: %s", request.method, request.path, error, exc_info=not is_told)
            return refusal_of(error).answer()

    def _dispatch(self, request: Request) -> Answer:
        path = request.path
        if self._authentication is not None:
            if path == TOKENS:
                return self._authentication.hand_out(request)
            self._authentication.check(request)
        if self._read_only and request.method not in ("GET", "HEAD"):
            raise read_only_refusal()
        if path in ("/v2/", "/v2"):
            _allow(request, "GET", "HEAD")
            return json_answer({})
        match = _ROUTE.match(path)
        if match is None:
            raise Refusal(404, "UNSUPPORTED", "there is nothing at this path")
        name, kind, reference = match.groups()
        repository = self._store.repository(name)
        if kind == "blobs/uploads" or (kind, reference) == ("blobs", "uploads"):
            return self._upload(request, repository, "" if kind == "blobs" else reference)
        if kind == "blobs":
            method = _allow(request, "GET", "HEAD", "DELETE")
            digest = Digest(reference)
            return blobs.unlink(repository, digest) if method == "DELETE" else blobs.read(repository, request, digest)
        if kind == "manifests":
            method = _allow(request, "GET", "HEAD", "PUT", "DELETE")
            if method == "PUT":
                return manifests.put(repository, request, reference, limits=self._limits, sparse=self._sparse)
            if method == "DELETE":
                return manifests.delete(repository, reference)
            return manifests.read(repository, request, reference)
        _allow(request, "GET", "HEAD")
        if kind == "chunksums" and self._chunksums:
            return chunksums.read(repository, request, Digest(reference), self._chunk_size)
        if kind == "referrers":
            return manifests.referrers(repository, request, Digest(reference))
        if kind == "chunksums" or reference != "list":
            raise Refusal(404, "UNSUPPORTED", "there is nothing at this path")
        return manifests.tags(repository, request, page=self._limits.page)

    def _upload(self, request: Request, repository: Repository, identifier: str) -> Answer:
        if not identifier:
            _allow(request, "POST")
            return uploads.begin(self._sessions, repository, request)
        method = _allow(request, "GET", "HEAD", "PATCH", "PUT", "DELETE")
        if method == "PATCH":
            return uploads.append(self._sessions, repository, request, identifier)
        if method == "PUT":
            return uploads.finish(self._sessions, repository, request, identifier)
        if method == "DELETE":
            return uploads.cancel(self._sessions, repository, request, identifier)
        return uploads.status(self._sessions, repository, request, identifier)


def _allow(request: Request, *methods: str) -> str:
    if request.method not in methods:
        raise Refusal(
            405, "UNSUPPORTED", "this method does not go with this path", headers={"Allow": ", ".join(methods)}
        )
    return request.method
