"""The models of a cache as a read-only OCI registry: a mirror for other machines.

Knows the names and blobs of a ``DiskCache``, and how a mirror is asked: ``ns=`` in the query, as containerd sends it,
or ``OCI-Namespace``, of the main branch of the OCI distribution specification, name the registry that is mirrored.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Request

from transferkit.content.digest import Digest
from transferkit.content.manifest import MAX_MANIFEST, parse
from transferkit.errors import InvalidDigestError, InvalidNameError, NotFoundError, TransferKitError
from transferkit.names import DEFAULT_MASK, Name, check_reference, check_repository
from transferkit.server.answers import Answer, Refusal, json_answer, read_only_refusal, refusal_of
from transferkit.server.blobs import content_of
from transferkit.server.file_part import FilePart
from transferkit.storage.cache import DiskCache

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger("transferkit.server")

_ROUTE = re.compile(r"/v2/(.+)/(blobs|manifests|tags)/([^/]+)\Z", re.DOTALL)


class Mirror:
    """A WSGI application over a cache: manifests by tag and digest, blobs, and lists of tags. Thread-safe.

    A repository is one of the host that the request names; where it names none, of Ollama's own registry, else of the
    one host that has a model in such a repository. Every blob of the cache is there for whoever knows its digest.

    >>> import tempfile
    >>> from werkzeug.test import Client
    >>> Client(Mirror(DiskCache(tempfile.mkdtemp()))).get("/v2/").status
    '200 OK'
    """

    def __init__(self, cache: DiskCache) -> None:
        self._cache = cache

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> WSGIApplication:
        try:
            return self._dispatch(request)
        except (Refusal, InvalidDigestError, InvalidNameError) as error:
            return refusal_of(error).answer()
        except (TransferKitError, OSError) as error:
            _log.error("%s %r failed: %s", request.method, request.path, error)
            return refusal_of(error).answer()

    def _dispatch(self, request: Request) -> WSGIApplication:
        if request.method not in ("GET", "HEAD"):
            raise read_only_refusal()
        if request.path in ("/v2/", "/v2"):
            return json_answer({})
        match = _ROUTE.match(request.path)
        if match is None or (match[2] == "tags" and match[3] != "list"):
            raise Refusal(404, "UNSUPPORTED", "there is nothing at this path")
        repository, kind, reference = check_repository(match[1]), match[2], match[3]
        host = request.args.get("ns") or request.headers.get("OCI-Namespace") or ""
        if kind == "tags":
            return self._tags(repository, host)
        if kind == "blobs":
            return self._blob(request, Digest(reference))
        return self._manifest(request, repository, host, reference)

    def _tags(self, repository: str, host: str) -> Answer:
        found = self._names(repository, host)
        if not found:
            raise Refusal(404, "NAME_UNKNOWN", "there is no such repository", detail={"name": repository})
        return json_answer({"name": repository, "tags": sorted(name.tag for name in found)})

    def _names(self, repository: str, host: str) -> list[Name]:
        """Return the names in a repository of one host: the one that was asked for, else the one that is meant."""
        same = [name for name in self._cache.links() if name.repository.lower() == repository.lower()]
        hosts = {name.host.lower() for name in same}
        if not host:
            default = DEFAULT_MASK.host
            if default not in hosts and len(hosts) > 1:
                text = f"several registries have this repository: choose one with ?ns={min(hosts)}, or another"
                raise Refusal(404, "NAME_UNKNOWN", text, detail={"hosts": sorted(hosts)})
            host = default if default in hosts else next(iter(hosts), "")
        return [name for name in same if name.host.lower() == host.lower()]

    def _manifest(self, request: Request, repository: str, host: str, text: str) -> WSGIApplication:
        reference = check_reference(text)
        try:
            raw = self._raw(repository, host, reference)
            document = parse(raw)
        except (NotFoundError, ValueError) as error:
            raise Refusal(404, "MANIFEST_UNKNOWN", "there is no such manifest", detail={"reference": text}) from error
        digest = reference if isinstance(reference, Digest) else document.digest
        headers = {"ETag": f'"{digest}"', "Docker-Content-Digest": digest}
        if request.if_none_match.contains_weak(digest):
            return Answer(304, headers)
        return Answer(200, {**headers, "Content-Type": document.media_type}, raw)

    def _raw(self, repository: str, host: str, reference: Digest | str) -> bytes:
        if isinstance(reference, Digest):
            if self._cache.get(reference).size > MAX_MANIFEST:
                raise NotFoundError(f"{reference.short} is no manifest")
            return self._cache.read(reference)
        if host:  # without a look at every name there is
            return self._cache.manifest(Name.from_path(f"{host}/{repository}/{reference}"))
        named = [name for name in self._names(repository, host) if name.tag.lower() == reference.lower()]
        return self._cache.manifest(named[0]) if named else b""

    def _blob(self, request: Request, digest: Digest) -> WSGIApplication:
        """Answer with a blob, or one range of it."""
        disk = self._cache.disk
        try:
            fd = disk.open(self._cache.get(digest).path, follow=False)
        except (NotFoundError, FileNotFoundError) as error:
            raise Refusal(404, "BLOB_UNKNOWN", "there is no such blob", detail={"digest": digest}) from error
        return content_of(FilePart(fd), request, digest)
