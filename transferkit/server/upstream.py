"""What a mirror does not have, it gets from the registries that stand behind it: one transfer, however many ask.

Knows registries by what clients call them, which documents were given to clients not long ago, and the running pulls.
A blob that is asked for begins the pull of the model that it belongs to; where nobody knows to which, it comes alone.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.graph import Document
from transferkit.content.manifest import Index, Manifest
from transferkit.registry.registry import Registry
from transferkit.server.pulls import Pull, Pulls

T = TypeVar("T")

# [NAME=][SCHEME://]HOST[:PORT]
_UPSTREAM = re.compile(r"(?:([^=/@\s]+)=)?((?:https?(?:\+insecure)?://)?)([^=/@?#\s]+)/?\Z")
_REMEMBERED = 64  # documents that clients were given, of at most 4 MiB each


@dataclass(frozen=True, slots=True)
class Upstream:
    """A registry behind a mirror: what clients call it (``ns=``), and where it is."""

    name: str
    scheme: str
    host: str

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """Read ``[NAME=]URL``, such as ``https://registry.example.com``. ValueError: it is none."""
        match = _UPSTREAM.match(text)
        if match is None:
            raise ValueError(f"an upstream is [NAME=]URL, such as https://registry.example.com, not {text[:200]!r}")
        name, scheme, host = match.groups()
        return cls(name or host, scheme, host)

    def model(self, repository: str, reference: str) -> str:
        """Return the name of a tag or digest in a repository of this registry."""
        return f"{self.scheme}{self.host}/{repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"


@dataclass(frozen=True, slots=True)
class _Given:
    """A manifest that clients were given: how it is pulled, and what it brings."""

    model: str
    platform: str | None
    blobs: dict[Digest, Descriptor]


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
        self._asking = asking or registry
        self._upstreams = [Upstream.parse(url) for url in urls]
        if not self._upstreams:
            raise ValueError("there is no upstream")
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, str], Future[Any]] = {}
        self._given: OrderedDict[tuple[str, Digest], _Given] = OrderedDict()
        self._children: OrderedDict[tuple[str, Digest], tuple[str, str]] = OrderedDict()

    def find(self, namespace: str) -> Upstream | None:
        """Return the registry that clients call so; the first one where they name none."""
        if not namespace:
            return self._upstreams[0]
        wanted = namespace.lower()
        return next((each for each in self._upstreams if wanted in (each.name.lower(), each.host.lower())), None)

    # -- questions

    def resolve(self, upstream: Upstream, repository: str, reference: str) -> Document:
        """Ask what a tag or digest stands for; who asks the same at the same time gets the same answer.

        Raises as ``Registry.resolve`` does.
        """
        model = upstream.model(repository, reference)
        return self._together("resolve", model, lambda: self._asking.resolve(model))

    def describe(self, upstream: Upstream, repository: str, digest: Digest) -> Descriptor:
        """Ask how large a blob is. Raises as ``Registry.resolve_blob`` does."""
        given = self._find(upstream, repository, digest)
        if given is not None:
            return given.blobs[digest]
        name = upstream.model(repository, digest)
        return self._together("describe", name, lambda: self._asking.resolve_blob(name))

    def tags(self, upstream: Upstream, repository: str) -> list[str]:
        """Ask for the tags of a repository. Raises as ``Registry.tags`` does."""
        model = upstream.model(repository, "latest")
        return self._together("tags", model, lambda: self._asking.tags(model))

    def _together(self, what: str, name: str, ask: Callable[[], T]) -> T:
        """Ask, or wait for somebody who asks the same; both get the one answer, or the one error."""
        future: Future[T] = Future()
        with self._lock:
            first: Future[T] = self._asked.setdefault((what, name), future)
        if first is not future:
            return first.result()
        try:
            future.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - who waits hears of each
            future.set_exception(error)
        with self._lock:
            del self._asked[what, name]
        return future.result()

    # -- transfers

    def give(self, upstream: Upstream, repository: str, reference: str, document: Document) -> None:
        """Take in that a client gets a document, so that what it asks for next is known to belong to it."""
        where = f"{upstream.host}/{repository}".lower()
        digest, platform = document.digest, None
        model = upstream.model(repository, reference)
        if not isinstance(reference, Digest):
            model = f"{model}@{digest}"
        elif child := self._children.get((where, digest)):
            model, platform = child
        with self._lock:
            if isinstance(document, Index):
                for entry in document.manifests:
                    if entry.platform is not None:
                        _keep(self._children, (where, entry.digest), (model, entry.platform), most=16 * _REMEMBERED)
            elif document.layers:
                blobs = {blob.digest: blob for blob in document.blobs}
                _keep(self._given, (where, digest), _Given(model, platform, blobs), most=_REMEMBERED)

    def begin(self, upstream: Upstream, repository: str, document: Manifest) -> None:
        """Begin the pull of a model that a client was given, if nobody has."""
        given = self._given.get((f"{upstream.host}/{repository}".lower(), document.digest))
        if given is not None:
            self.pulls.begin(given.model, platform=given.platform)

    def fetch(self, upstream: Upstream, repository: str, digest: Digest) -> tuple[Descriptor, Pull]:
        """Begin the pull that brings a blob, or find it; return what the blob is, and that pull.

        Raises as ``Registry.resolve_blob`` does.
        """
        given = self._find(upstream, repository, digest)
        if given is not None:
            return given.blobs[digest], self.pulls.begin(given.model, platform=given.platform)
        pull = self.pulls.begin_blob(upstream.model(repository, digest))
        return pull.wait_for_layers()[0], pull

    def _find(self, upstream: Upstream, repository: str, digest: Digest) -> _Given | None:
        where = f"{upstream.host}/{repository}".lower()
        with self._lock:
            return next((g for (at, _), g in reversed(self._given.items()) if at == where and digest in g.blobs), None)

    def close(self) -> None:
        """Cancel the running pulls, which keep what has come, and wait for them."""
        self.pulls.close()


def _keep(remembered: OrderedDict[Any, Any], key: Any, value: Any, *, most: int) -> None:
    """Remember something, in the place of what was remembered first."""
    remembered[key] = value
    remembered.move_to_end(key)
    while len(remembered) > most:
        remembered.popitem(last=False)
