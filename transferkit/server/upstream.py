"""What a mirror does not have, it gets from the registries that stand behind it: one transfer, however many ask.

Knows registries by what clients call them, which documents were given to clients not long ago, and the running pulls.
A blob that is asked for begins the pull of the model that it belongs to; where nobody knows to which, it comes alone.
"""

from __future__ import annotations

import errno
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from transferkit.cancellation import Cancellation
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document
from transferkit.content.manifest import Index, Manifest
from transferkit.errors import InvalidNameError, NotFoundError, TransferKitError
from transferkit.names import DEFAULT_MASK, Name, Reference
from transferkit.registry.registry import Registry
from transferkit.server.pulls import Pull, Pulls
from transferkit.thread_group import ThreadGroup

T = TypeVar("T")

# [NAME=][SCHEME://]HOST[:PORT]
_UPSTREAM = re.compile(r"(?:([^=/@\s]+)=)?((?:https?(?:\+insecure)?://)?)([^=/@?#\s]+)/?\Z")
_LOOK = 0.5  # seconds between two looks whether who waits is still there
_PORTS = {"http://": 80}
_REMEMBERED = 64  # documents that clients were given, of at most 4 MiB each


@dataclass(frozen=True, slots=True)
class Upstream:
    """A registry behind a mirror: what clients call it (``ns=``), and where it is."""

    name: str
    scheme: str
    """With ``://``; empty where nobody has said it."""
    host: str

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """Read ``[NAME=]URL``, such as ``https://registry.example.com``. ValueError: it is none."""
        match = _UPSTREAM.match(text)
        if match is None:
            raise ValueError(f"an upstream is [NAME=]URL, such as https://registry.example.com, not {text[:200]!r}")
        name, scheme, host = match.groups()
        return cls(name or host, scheme, host)

    def host_for(self, repository: str) -> str:
        """Return its host as it stands in names of this repository: with a port where it would be taken for a part of
        the repository otherwise."""
        return self.host if self._reads_as(self.host, repository) else f"{self.host}:{_PORTS.get(self.scheme, 443)}"

    def _reads_as(self, host: str, repository: str) -> bool:
        try:
            name = Reference.parse(f"{self.scheme}{host}/{repository}:latest", DEFAULT_MASK).name
        except InvalidNameError:
            return False
        return (name.host, name.repository) == (host, repository)

    def model(self, repository: str, reference: str) -> str:
        """Return the name of a tag or digest in a repository of this registry.

        NotFoundError: it cannot have such a repository.
        """
        host = self.host_for(repository)
        if not self._reads_as(host, repository):  # nobody else is asked in its place
            raise NotFoundError(f"{self.host} has no repository {repository}")
        return f"{self.scheme}{host}/{repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"


@dataclass(frozen=True, slots=True)
class _Given:
    """A manifest that clients were given, what it brings, and what gets its name when that is in place."""

    model: str
    title: str
    blobs: dict[Digest, Descriptor]
    tag: tuple[Name, Document] | None
    """A tag, and the manifest, or the index that has this one, that it stood for."""


class Upstreams:
    """The registries behind a mirror, which pulls from them with ``registry`` into its cache. Thread-safe.

    ``urls`` are ``[NAME=]URL``, each with the name by which clients call that registry, its host by default; the first
    one is meant where a client names none. ``asking`` asks what tags stand for, and by default is ``registry``: one
    with little patience lets a mirror answer soon from its cache, where an upstream is down.

    Raises:
        ValueError: one of ``urls`` is none, or there are none.
    """

    def __init__(self, registry: Registry, urls: Sequence[str], *, asking: Registry | None = None) -> None:
        self.pulls = Pulls(registry)
        self._cache = registry.cache
        self._cache.blobs.share()
        self._asking = asking or registry
        self._cancellation = Cancellation()
        self._upstreams = [Upstream.parse(url) for url in urls]
        if not self._upstreams:
            raise ValueError("there is no upstream")
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, str], Future[Any]] = {}
        self._threads = ThreadGroup("transferkit-question")
        self._given: OrderedDict[tuple[str, Digest], _Given] = OrderedDict()
        self._children: OrderedDict[tuple[str, Digest], tuple[Name, Document]] = OrderedDict()
        self._tags: OrderedDict[str, Digest] = OrderedDict()

    def find(self, namespace: str) -> Upstream | None:
        """Return the registry that clients call so; the first one where they name none."""
        if not namespace:
            return self._upstreams[0]
        wanted = namespace.lower()
        return next((each for each in self._upstreams if wanted in (each.name.lower(), each.host.lower())), None)

    def hosts(self, repository: str) -> set[str]:
        """Return the hosts of all of them, in lower case, as they stand in names of a repository."""
        return {each.host_for(repository).lower() for each in self._upstreams}

    # -- questions

    # Who asks the same at the same time gets the same answer. ConnectionResetError: ``is_gone``, so who asks is gone.

    def resolve(self, upstream: Upstream, repository: str, reference: str, is_gone: Callable[[], bool]) -> Document:
        """Ask what a tag or digest stands for. Raises as ``Registry.resolve`` does."""
        model = upstream.model(repository, reference)
        return self._together("resolve", model, partial(self._asking.resolve, model), is_gone)

    def describe(self, upstream: Upstream, repository: str, digest: Digest, is_gone: Callable[[], bool]) -> Descriptor:
        """Ask how large a blob is. Raises as ``Registry.resolve_blob`` does."""
        given = self._find(upstream, repository, digest)
        if given is not None:
            return given.blobs[digest]
        name = upstream.model(repository, digest)
        return self._together("describe", name, partial(self._asking.resolve_blob, name), is_gone)

    def tags(self, upstream: Upstream, repository: str, is_gone: Callable[[], bool]) -> list[str]:
        """Ask for the tags of a repository. Raises as ``Registry.tags`` does."""
        model = upstream.model(repository, "latest")
        return self._together("tags", model, partial(self._asking.tags, model), is_gone)

    def _together(self, what: str, name: str, ask: Callable[..., T], is_gone: Callable[[], bool]) -> T:
        """Ask in a thread of its own, or find who asks the same, and wait for the one answer, or the one error."""
        with self._lock:
            future: Future[T] | None = self._asked.get((what, name))
            if future is None:
                future = Future()
                try:
                    self._threads.start(self._ask, what, name, ask, future)
                except RuntimeError as error:
                    raise TransferKitError(f"{name} is not asked for: {error}") from error
                self._asked[what, name] = future
        while not wait([future], timeout=_LOOK).done:
            if is_gone():
                raise ConnectionResetError(errno.ECONNRESET, "the client has hung up")
        return future.result()

    def _ask(self, what: str, name: str, ask: Callable[..., T], future: Future[T]) -> None:
        try:
            future.set_result(ask(cancel=self._cancellation))
        except BaseException as error:  # noqa: BLE001 - who waits hears of each
            future.set_exception(error)
        with self._lock:
            del self._asked[what, name]

    # -- transfers

    def give(self, upstream: Upstream, repository: str, reference: str, document: Document) -> None:
        """Take in that a client gets a document, so that what it asks for next is known to belong to it."""
        digest, where = document.digest, _where(upstream, repository)
        name = Name.from_path(f"{upstream.host_for(repository)}/{repository}/latest")
        with self._lock:
            tag = self._children.get((where, digest))
            if not isinstance(reference, Digest):
                tag = Name.from_path(f"{upstream.host_for(repository)}/{repository}/{reference}"), document
                _keep(self._tags, tag[0].path.lower(), digest, most=16 * _REMEMBERED)
            if isinstance(document, Index):
                for entry in document.manifests if tag is not None else ():
                    _keep(self._children, (where, entry.digest), tag, most=16 * _REMEMBERED)
            elif document.layers:
                blobs = {blob.digest: blob for blob in document.blobs}
                title = str(tag[0] if tag is not None else name)
                given = _Given(upstream.model(repository, digest), title, blobs, tag)
                _keep(self._given, (where, digest), given, most=_REMEMBERED)

    def begin(self, upstream: Upstream, repository: str, document: Manifest) -> None:
        """Begin the pull of a model that a client was given, if nobody has."""
        with self._lock:
            given = self._given.get((_where(upstream, repository), document.digest))
        if given is not None:
            self._pull(given)

    def fetch(
        self, upstream: Upstream, repository: str, digest: Digest, is_gone: Callable[[], bool]
    ) -> tuple[Descriptor, Pull]:
        """Begin the pull that brings a blob, or find it; return what the blob is, and that pull.

        Raises as ``Registry.resolve_blob`` does, and ConnectionResetError where who asks is gone.
        """
        given = self._find(upstream, repository, digest)
        if given is not None:
            return given.blobs[digest], self._pull(given)
        pull = self.pulls.begin_blob(upstream.model(repository, digest))
        return pull.wait_for_layers(is_gone)[0], pull

    def _pull(self, given: _Given) -> Pull:
        return self.pulls.begin(given.model, given.title, lambda: self._link(given))

    def _link(self, given: _Given) -> None:
        """Give a manifest its tag, now that everything is in place, if that is still what the tag stands for."""
        if given.tag is None:
            return
        name, root = given.tag
        with self._lock:
            is_current = self._tags.get(name.path.lower()) == root.digest
        with self._cache.pinned([*given.blobs, root.digest]):
            if is_current and not self._cache.missing(given.blobs.values()):
                self._cache.link(name, root.raw)

    def _find(self, upstream: Upstream, repository: str, digest: Digest) -> _Given | None:
        where = _where(upstream, repository)
        with self._lock:
            return next((g for (at, _), g in reversed(self._given.items()) if at == where and digest in g.blobs), None)

    def close(self) -> None:
        """Cancel what is asked and pulled, which keeps what has come, and wait for the end of that."""
        self._cancellation.cancel("the server ends")
        self.pulls.close()
        self._threads.join()


def _where(upstream: Upstream, repository: str) -> str:
    return f"{upstream.host}/{repository}".lower()


def _keep(remembered: OrderedDict[Any, Any], key: Any, value: Any, *, most: int) -> None:
    """Remember something, in the place of what was remembered first."""
    remembered[key] = value
    remembered.move_to_end(key)
    while len(remembered) > most:
        remembered.popitem(last=False)
