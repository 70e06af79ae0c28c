"""The models of a cache as a read-only OCI registry: a mirror for other machines.

Knows the names and blobs of a ``DiskCache``, and how a mirror is asked: ``ns=`` in the query, as containerd sends it,
or ``OCI-Namespace``, of the main branch of the OCI distribution specification, name the registry that is mirrored.
Where there are registries upstream, they say what a tag stands for, and what is not in the cache comes from them.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from werkzeug.wrappers import Request

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document
from transferkit.content.manifest import MAX_MANIFEST, Manifest, parse
from transferkit.errors import (
    InvalidDigestError,
    InvalidManifestError,
    InvalidNameError,
    NotFoundError,
    ProtocolError,
    TransferKitError,
)
from transferkit.grammar import check_reference, check_repository
from transferkit.names import DEFAULT_MASK, Name
from transferkit.server.answers import Answer, Refusal, json_answer, read_only_refusal, refusal_of
from transferkit.server.arriving import ArrivingBlocks, Described
from transferkit.server.blobs import content_of
from transferkit.server.file_part import FilePart
from transferkit.server.limits import Limits
from transferkit.server.manifests import tag_page
from transferkit.server.request import IS_GONE
from transferkit.server.upstream import Upstream, Upstreams
from transferkit.storage.cache import DiskCache
from transferkit.transfer.flow import WorkerFlow

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

T = TypeVar("T")

_log = logging.getLogger("transferkit.server")

# What may make an answer one without the blob, so that nothing needs to be fetched.
_CONDITIONS = ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH", "HTTP_RANGE")
_ROUTE = re.compile(r"/v2/(.+)/(blobs|manifests|tags)/([^/]+)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, what it is about, and of which host: empty where it names none."""

    request: Request
    repository: str
    host: str

    def is_gone(self) -> bool:
        """Tell whether the client has hung up; other servers than ours do not know."""
        ask = self.request.environ.get(IS_GONE)
        return ask is not None and bool(ask())


class Mirror:
    """A WSGI application over a cache: manifests by tag and digest, blobs, and lists of tags. Thread-safe.

    A repository is one of the host that the request names; where it names none, of Ollama's own registry, else of the
    one host that has a model in such a repository. Every blob of the cache is there for whoever knows its digest.

    With ``upstreams``, whose registry has this cache, models are pulled when they are asked for, and served while they
    arrive. A name is asked for upstream each time; where that fails, the cache says what it stood for.

    >>> import tempfile
    >>> from werkzeug.test import Client
    >>> Client(Mirror(DiskCache(tempfile.mkdtemp()))).get("/v2/").status
    '200 OK'
    """

    def __init__(self, cache: DiskCache, upstreams: Upstreams | None = None) -> None:
        self._cache = cache
        self._upstreams = upstreams
        self._hashing = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> WSGIApplication:
        try:
            return self._dispatch(request)
        except (Refusal, InvalidDigestError, InvalidNameError) as error:
            return refusal_of(error).answer()
        except ConnectionResetError:  # there is nobody to answer
            raise
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
        upstream = None if self._upstreams is None else self._upstreams.find(host)
        if upstream is not None:
            host = upstream.host_for(repository) if host else ""
        asked = _Asked(request, repository, host)
        if kind == "tags":
            return tag_page(repository, self._tags(asked, upstream), request, page=Limits().page)
        if kind == "blobs":
            return self._blob(asked, upstream, Digest(reference))
        return self._manifest(asked, upstream, check_reference(reference))

    # -- names

    def _tags(self, asked: _Asked, upstream: Upstream | None) -> list[str]:
        repository, upstreams = asked.repository, self._upstreams
        if upstreams is not None and upstream is not None:
            try:
                return sorted(upstreams.tags(upstream, repository, asked.is_gone))
            except NotFoundError:
                found = self._elsewhere(upstreams, asked)
            except TransferKitError as error:
                kept = self._names(repository, upstream.host_for(repository))
                found = self._kept(f"the tags of {repository}", error, kept)
        else:
            found = self._names(repository, asked.host)
        if not found:
            raise Refusal(404, "NAME_UNKNOWN", "there is no such repository", detail={"name": repository})
        return sorted(name.tag for name in found)

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

    def _elsewhere(self, upstreams: Upstreams, asked: _Asked) -> list[Name]:
        """Return the names of hosts that are not upstream, where no host was asked for."""
        names = [] if asked.host else self._names(asked.repository, "")
        return [name for name in names if name.host.lower() not in upstreams.hosts(asked.repository)]

    def _kept(self, what: str, error: TransferKitError, kept: T) -> T:
        """Return what is kept of an upstream that cannot be asked, if anything is."""
        if not kept:
            raise error
        _log.warning("%s: answered from the cache, as upstream said: %s", what, error)
        return kept

    # -- manifests

    def _manifest(self, asked: _Asked, upstream: Upstream | None, reference: Digest | str) -> WSGIApplication:
        try:
            if self._upstreams is not None and upstream is not None:
                document = self._from_upstream(self._upstreams, upstream, asked, reference)
            else:
                document = parse(self._raw(asked.repository, asked.host, reference))
        except (NotFoundError, InvalidManifestError, InvalidNameError) as error:
            text, detail = "there is no such manifest", {"reference": reference}
            raise Refusal(404, "MANIFEST_UNKNOWN", text, detail=detail) from error
        digest = reference if isinstance(reference, Digest) else document.digest
        headers = {"ETag": f'"{digest}"', "Docker-Content-Digest": digest}
        if asked.request.if_none_match.contains_weak(digest):
            return Answer(304, headers)
        return Answer(200, {**headers, "Content-Type": document.media_type}, document.raw)

    def _raw(self, repository: str, host: str, reference: Digest | str) -> bytes:
        if isinstance(reference, Digest):
            if self._cache.get(reference).size > MAX_MANIFEST:
                raise NotFoundError(f"{reference.short} is no manifest")
            raw = self._cache.read(reference)
            if Digest.of(raw, reference.algorithm) != reference:
                raise NotFoundError(f"{reference.short} is not what its name says")
            return raw
        if host:  # without a look at every name there is
            return self._cache.manifest(Name.from_path(f"{host}/{repository}/{reference}"))
        named = [name for name in self._names(repository, host) if name.tag.lower() == reference.lower()]
        return self._cache.manifest(named[0]) if named else b""

    def _from_upstream(
        self, upstreams: Upstreams, upstream: Upstream, asked: _Asked, reference: Digest | str
    ) -> Document:
        """Return what a tag stands for upstream, or, where nobody can be asked, what it stood for."""
        repository, kept = asked.repository, b""
        with suppress(NotFoundError):
            kept = self._raw(repository, upstream.host_for(repository), reference)
        if kept and isinstance(reference, Digest):
            document = parse(kept)
        else:
            try:
                document = upstreams.resolve(upstream, repository, reference, asked.is_gone)
            except NotFoundError:
                named = [name for name in self._elsewhere(upstreams, asked) if name.tag.lower() == reference.lower()]
                if not named:
                    raise
                return parse(self._cache.manifest(named[0]))
            except TransferKitError as error:
                if isinstance(error, InvalidManifestError):  # a page of a proxy, say: that does not mean there is none
                    error = ProtocolError(f"{upstream.host} sent no manifest: {error}")
                return parse(self._kept(f"{repository}:{reference}", error, kept))
        upstreams.give(upstream, repository, reference, document)
        if isinstance(document, Manifest) and document.raw != kept and not self._cache.missing(document.blobs):
            upstreams.begin(upstream, repository, document)  # nobody will ask for a blob, and the name is to be linked
        return document

    # -- blobs

    def _blob(self, asked: _Asked, upstream: Upstream | None, digest: Digest) -> WSGIApplication:
        """Answer with a blob, or one range of it."""
        request, upstreams = asked.request, self._upstreams
        try:
            return self._stored(request, digest)
        except (NotFoundError, FileNotFoundError) as error:
            if upstreams is None or upstream is None:
                raise _unknown(digest) from error
        try:
            if request.method == "HEAD" or any(name in request.environ for name in _CONDITIONS):
                described = Described(upstreams.describe(upstream, asked.repository, digest, asked.is_gone))
                answer = content_of(described, request, digest)
                if request.method == "HEAD" or answer.status == 304:
                    return answer
            descriptor, pull = upstreams.fetch(upstream, asked.repository, digest, asked.is_gone)
            blocks = ArrivingBlocks(self._cache, descriptor, pull, asked.is_gone)
            answer = content_of(blocks, request, digest)
            if answer.body is blocks:
                blocks.prepare()
            return answer
        except NotFoundError as error:
            raise _unknown(digest) from error

    def _stored(self, request: Request, digest: Digest) -> Answer:
        """Answer with a blob of the cache; one that nobody has verified is hashed first, once.

        NotFoundError: it is not there, or is not what its name says.
        """
        entry = self._cache.get(digest)
        descriptor = Descriptor(digest, entry.size)
        if not self._cache.knows(descriptor):
            with self._hashing:
                if not self._cache.exists(descriptor, flow=WorkerFlow()):
                    raise NotFoundError(f"{entry.path} is not what its name says")
        return content_of(FilePart(self._cache.disk.open(entry.path, follow=False)), request, digest)


def _unknown(digest: Digest) -> Refusal:
    return Refusal(404, "BLOB_UNKNOWN", "there is no such blob", detail={"digest": digest})
