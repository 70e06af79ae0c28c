"""What a manifest leads to: platforms, nested indexes, and no end."""

from __future__ import annotations

import json

import pytest

from transferkit.content.descriptor import Descriptor
from transferkit.content.graph import ALL, Document, choose, collect
from transferkit.content.machine import local_platform
from transferkit.content.manifest import DOCKER_INDEX, OCI_INDEX, OCI_MANIFEST, Index, Manifest, parse
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


def test_what_is_left_out_is_not_there(store: Store) -> None:
    one, two = store.manifest(A), store.manifest(B)
    index = store.index((one, None), (two, None))
    graph = collect(index, lambda entry: store.load(entry) if entry.digest == two.digest else None)
    assert graph.documents == (two, index)


@pytest.mark.parametrize("change", [{"size": 1}, {"size": 10**6}])
def test_a_manifest_of_another_size_than_the_index_says_is_refused(store: Store, change: dict[str, object]) -> None:
    index = store.add(manifests=[{**entry(store.manifest(A), None), **change}])
    with pytest.raises(InvalidManifestError, match="bytes, and the index says"):
        collect(index, store.load)


@pytest.mark.parametrize("said", [OCI_INDEX, DOCKER_INDEX])
def test_a_manifest_that_the_index_calls_an_index_is_refused(store: Store, said: str) -> None:
    index = store.add(manifests=[{**entry(store.manifest(A), None), "mediaType": said}])
    with pytest.raises(InvalidManifestError, match="is a manifest, and its index calls it"):
        collect(index, store.load)


def test_an_index_that_the_index_calls_a_manifest_is_refused(store: Store) -> None:
    index = store.add(manifests=[{**entry(store.index(), None), "mediaType": OCI_MANIFEST}])
    with pytest.raises(InvalidManifestError, match="is an index, and its index calls it"):
        collect(index, store.load)


def test_two_manifests_that_contradict_each_other_are_refused(store: Store) -> None:
    one = store.manifest(A, C)
    two = store.add(layers=[{"digest": C, "size": 2}])
    with pytest.raises(InvalidManifestError, match=r"contradict each other: .* with 1 and with 2 bytes"):
        collect(store.index((one, None), (two, None)), store.load)


def test_documents_are_bounded_in_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (store.add(layers=[], annotations={"x": 4000 * letter}) for letter in "ab")
    index = store.index((one, None), (two, None))
    assert len(collect(index, store.load).documents) == 3
    monkeypatch.setattr("transferkit.content.graph.MOST_BYTES", 8000)
    with pytest.raises(InvalidManifestError, match="more than anybody"):
        collect(index, store.load)


def test_what_refers_to_it_comes_after_it(store: Store) -> None:
    model, signature = store.manifest(A, B), store.manifest(C)
    other = store.index((signature, None), (model, None))
    graph = collect(model, store.load)
    joined = graph.with_referrers([collect(signature, store.load), collect(other, store.load)])
    assert (joined.root, joined.documents) == (model, (model, signature, other))
    assert [blob.digest for blob in joined.blobs] == [A, C, B]
    assert joined.digests == [A, C, B, model.digest, signature.digest, other.digest]
    assert ([layer.digest for layer in joined.layers], [blob.digest for blob in joined.configs]) == ([B], [A, C])


def test_what_was_chosen_is_the_manifest_or_the_index(store: Store) -> None:
    one = store.manifest(A)
    index = store.index((one, "linux/amd64"))
    assert collect(index, store.load, "linux/amd64").chosen("linux/amd64") is one
    assert collect(index, store.load, ALL).chosen(ALL) is index
    assert collect(one, store.load, "linux/amd64").chosen("linux/amd64") is one
