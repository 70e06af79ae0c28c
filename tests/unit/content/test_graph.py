"""What a manifest leads to: platforms, nested indexes, and no end."""

from __future__ import annotations

import json

import pytest

from transferkit.content.descriptor import Descriptor
from transferkit.content.graph import ALL, Document, choose, collect, local_platform
from transferkit.content.manifest import Index, Manifest, parse
from transferkit.errors import InvalidManifestError

A, B, C = (f"sha256:{64 * digit}" for digit in "abc")
ATTESTATION = "unknown/unknown"


class Store:
    """Documents by their digests."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.loaded: list[str] = []

    def add(self, **content: object) -> Document:
        document = parse(json.dumps(content).encode())
        self.documents[document.digest] = document
        return document

    def manifest(self, config: str, *layers: str) -> Document:
        return self.add(config=blob(config), layers=[blob(layer) for layer in layers])

    def index(self, *entries: tuple[Document, str | None]) -> Document:
        return self.add(manifests=[entry(document, platform) for document, platform in entries])

    def load(self, descriptor: Descriptor) -> Document:
        self.loaded.append(descriptor.digest)
        return self.documents[descriptor.digest]


def blob(digest: str) -> dict[str, object]:
    return {"digest": digest, "size": 1}


def entry(document: Document, platform: str | None) -> dict[str, object]:
    described = {"digest": document.digest, "size": len(document.raw), "mediaType": document.media_type}
    if platform is None:
        return described
    system, architecture, *variant = platform.split("/")
    return {**described, "platform": {"os": system, "architecture": architecture, "variant": "".join(variant)}}


@pytest.fixture
def store() -> Store:
    return Store()


def test_a_manifest_is_alone(store: Store) -> None:
    root = store.manifest(A, B, C, B)
    graph = collect(root, store.load)
    assert (graph.root, graph.documents, store.loaded) == (root, (root,), [])
    assert [blob.digest for blob in graph.blobs] == [A, B, C]


def test_configs_come_first_and_children_before_their_parents(store: Store) -> None:
    one, two = store.manifest(A, C), store.manifest(B, C)
    inner = store.index((two, None))
    root = store.index((one, None), (inner, None), (one, None))
    graph = collect(root, store.load)
    assert graph.documents == (one, two, inner, root)
    assert [blob.digest for blob in graph.blobs] == [A, B, C]
    assert store.loaded == [one.digest, inner.digest, two.digest]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("linux/amd64", ["linux/amd64"]),
        ("linux/arm64", ["linux/arm64/v8"]),
        ("linux/arm64/v8", ["linux/arm64/v8"]),
        ("linux/arm/v7", ["linux/arm/v7"]),
        ("linux/arm", ["linux/arm/v6"]),
        (ALL, ["linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", ATTESTATION]),
    ],
)
def test_a_platform_is_chosen(store: Store, wanted: str, expected: list[str]) -> None:
    platforms = ["linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", ATTESTATION]
    index = store.index(*((store.manifest(A, f"sha256:{n}{63 * 'd'}"), p) for n, p in enumerate(platforms)))
    assert isinstance(index, Index)
    assert [entry.platform for entry in choose(index, wanted)] == expected


def test_what_an_index_does_not_have_is_said(store: Store) -> None:
    index = store.index((store.manifest(A), "linux/s390x"), (store.manifest(B), ATTESTATION))
    with pytest.raises(InvalidManifestError, match=r"nothing for linux/amd64; it has linux/s390x, unknown/unknown"):
        collect(index, store.load, "linux/amd64")


def test_what_says_nothing_of_a_platform_is_for_all(store: Store) -> None:
    one = store.manifest(A)
    assert collect(store.index((one, None)), store.load, "linux/amd64").manifests == [one]


def test_there_is_an_end(store: Store) -> None:
    root = store.manifest(A)
    for _ in range(9):
        root = store.index((root, None))
    with pytest.raises(InvalidManifestError, match="more than anybody"):
        collect(root, store.load)


def test_this_machine_has_a_platform() -> None:
    system, architecture = local_platform().split("/", 1)
    assert system
    assert architecture
    assert Manifest(b'{"layers": []}').blobs == ()
