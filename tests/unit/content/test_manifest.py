"""Manifests: raw bytes as received, and a strict reading of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.manifest import Index, Manifest, parse
from transferkit.content.title import TITLE
from transferkit.errors import InvalidManifestError

A = "sha256:" + 64 * "a"
B = "sha256:" + 64 * "b"
C = "sha256:" + 64 * "c"

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"


def manifest(media_type: str = "", **fields: Any) -> Manifest:
    return Manifest(json.dumps({"schemaVersion": 2, "layers": [], **fields}).encode(), media_type=media_type)


def index(media_type: str = "", **fields: Any) -> Index:
    return Index(json.dumps({"schemaVersion": 2, "manifests": [], **fields}).encode(), media_type=media_type)


def refusal(raw: bytes, media_type: str = "") -> str:
    with pytest.raises(InvalidManifestError) as caught:
        Manifest(raw, media_type=media_type)
    return str(caught.value)


def test_a_manifest_has_its_descriptors() -> None:
    result = manifest(
        config={"mediaType": "application/vnd.oci.image.config.v1+json", "digest": A, "size": 7},
        layers=[
            {
                "mediaType": "application/vnd.ollama.image.model",
                "digest": B,
                "size": 5,
                "annotations": {"t": "x", "a": "y"},
            },
            {"digest": C, "size": 0},
        ],
        annotations={"org.opencontainers.image.title": "a model", "number": 5},
    )
    assert result.config == Descriptor(Digest(A), 7, media_type="application/vnd.oci.image.config.v1+json")
    assert result.layers == (
        Descriptor(Digest(B), 5, media_type="application/vnd.ollama.image.model"),
        Descriptor(Digest(C), 0),
    )
    assert result.layers[0].annotations == (("a", "y"), ("t", "x"))
    assert result.annotations == {"org.opencontainers.image.title": "a model"}
    assert result.size == 12


def test_the_raw_bytes_and_their_digest_are_as_received() -> None:
    raw = b'{"schemaVersion": 2, "layers": []}'
    result = Manifest(raw)
    assert result.raw is raw
    assert result.digest == "sha256:398978c14b2f065541bf5c6130ec60d229636193b0779712e008b80b26db4813"
    assert Manifest(raw + b"\n").digest != result.digest


def test_json_is_anew_each_time() -> None:
    result = manifest(layers=[])
    result.json()["layers"].append("mine")
    assert result.json() == {"schemaVersion": 2, "layers": []}


def test_a_manifest_without_anything_is_empty() -> None:
    result = Manifest(b'{"layers": []}')
    assert (result.config, result.layers, result.annotations, result.size) == (None, (), {}, 0)
    assert result.media_type == OCI_MANIFEST


def test_null_is_as_good_as_absent() -> None:
    result = manifest(config=None, annotations=None, mediaType=None)
    assert (result.config, result.annotations) == (None, {})


@pytest.mark.parametrize("raw", [b'{"layers": null}', b'{"manifests": null}'])
def test_layers_that_are_null_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidManifestError, match="are null"):
        parse(raw)


def test_one_digest_with_two_sizes_is_refused() -> None:
    with pytest.raises(InvalidManifestError, match="two sizes"):
        manifest(config={"digest": A, "size": 1}, layers=[{"digest": A, "size": 2}])


def test_the_empty_config_of_ollama_is_none() -> None:
    config = {"digest": f"sha256:{64 * '0'}", "mediaType": "", "size": 0}
    result = manifest(config=config, layers=[{"digest": A, "size": 1}])
    assert (result.config, [blob.digest for blob in result.blobs], result.size) == (None, [A], 1)


@pytest.mark.parametrize("annotations", [[], "text", 5, True])
def test_annotations_of_another_kind_are_ignored(annotations: object) -> None:
    assert manifest(annotations=annotations).annotations == {}
    assert manifest(layers=[{"digest": A, "size": 1, "annotations": annotations}]).layers[0].annotations == ()


def test_a_blob_that_is_config_and_layer_counts_once() -> None:
    blob = {"digest": A, "size": 7}
    assert manifest(config=blob, layers=[blob, blob, {"digest": B, "size": 5}]).size == 12


def test_manifests_are_compared_and_hashed_by_what_was_received() -> None:
    assert manifest(layers=[]) == manifest(layers=[])
    assert hash(manifest(layers=[])) == hash(manifest(layers=[]))
    assert manifest(layers=[]) != manifest(DOCKER_MANIFEST)


@pytest.mark.parametrize(
    ("said", "own", "expected"),
    [
        (OCI_MANIFEST, None, OCI_MANIFEST),
        (DOCKER_MANIFEST, DOCKER_MANIFEST, DOCKER_MANIFEST),
        ("", OCI_MANIFEST, OCI_MANIFEST),
        ("text/plain", DOCKER_MANIFEST, DOCKER_MANIFEST),
        ("application/json", None, "application/json"),
        ("", None, OCI_MANIFEST),
        ("", "", OCI_MANIFEST),
        ("", "application/vnd.example; v=1", "application/vnd.example; v=1"),
    ],
)
def test_the_media_type_is_the_known_one_of_the_two(said: str, own: str | None, expected: str) -> None:
    fields = {} if own is None else {"mediaType": own}
    assert manifest(said, **fields).media_type == expected


def test_a_media_type_that_contradicts_the_server_is_refused() -> None:
    raw = json.dumps({"mediaType": OCI_INDEX, "manifests": []}).encode()
    assert refusal(raw, OCI_MANIFEST) == f"the server calls the manifest {OCI_MANIFEST}, it calls itself {OCI_INDEX}"


@pytest.mark.parametrize(
    "media_type", ["a/b\r\nX-Evil: 1", "a/b\n", "\ta/b", " a/b", "a/\u00fc", "a/\ud800", "a/b\x00", "a/" + 254 * "b"]
)
def test_a_media_type_that_no_header_can_hold_is_refused(media_type: str) -> None:
    raw = json.dumps({"mediaType": media_type}).encode()
    assert refusal(raw).startswith("the manifest's media type ")
    assert refusal(b'{"layers": []}', media_type).startswith("the manifest's media type ")


@pytest.mark.parametrize("media_type", [5, [], {}, True])
def test_a_media_type_that_is_no_text_is_refused(media_type: object) -> None:
    raw = json.dumps({"mediaType": media_type}).encode()
    assert refusal(raw) == "the manifest's mediaType is not a text"


@pytest.mark.parametrize("layers", [[], None])
def test_layers_and_manifests_together_are_refused(layers: object) -> None:
    raw = json.dumps({"layers": layers, "manifests": []}).encode()
    assert refusal(raw) == "the manifest has both layers and manifests; it may mean two things, and is refused"


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", "JSONDecodeError"),
        (b"<html>", "JSONDecodeError"),
        (b"{", "JSONDecodeError"),
        (b"{} {}", "JSONDecodeError"),
        (b'{"a": "\xff"}', "UnicodeDecodeError"),
        (b'{"size": NaN}', "ValueError"),
        (b'{"size": -Infinity}', "ValueError"),
        (b'{"size": ' + 5000 * b"9" + b"}", "ValueError"),
        (100_000 * b"[", "RecursionError"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_is_not_json_is_refused(raw: bytes, kind: str) -> None:
    assert refusal(raw) == f"the manifest is not JSON: {kind}"


@pytest.mark.parametrize(("raw", "kind"), [(b"null", "NoneType"), (b"[]", "list"), (b'"text"', "str"), (b"1", "int")])
def test_what_is_not_an_object_is_refused(raw: bytes, kind: str) -> None:
    assert refusal(raw) == f"the manifest is not a JSON object but {kind}"


@pytest.mark.parametrize("layers", [{}, "text", 5, True])
def test_layers_that_are_not_a_list_are_refused(layers: object) -> None:
    assert refusal(json.dumps({"layers": layers}).encode()) == "the manifest's layers are not a list"


@pytest.mark.parametrize(
    ("descriptor", "message"),
    [
        (None, "a descriptor in the manifest is not a JSON object"),
        (A, "a descriptor in the manifest is not a JSON object"),
        ({"mediaType": 5}, "a descriptor in the manifest has a mediaType that is not a text"),
        (
            {"digest": A, "size": 1, "mediaType": None},
            "a descriptor in the manifest has a mediaType that is not a text",
        ),
        ({"size": 1}, "a descriptor in the manifest is malformed: a digest is a text such as "),
        ({"digest": "sha256:../x", "size": 1}, "a descriptor in the manifest is malformed: 'sha256:../x' is not a "),
        ({"digest": A}, "a descriptor in the manifest is malformed: the size of sha256:aaaaaaaaaaaa is a number of "),
        (
            {"digest": A, "size": -1},
            "a descriptor in the manifest is malformed: the size of sha256:aaaaaaaaaaaa is -1;",
        ),
        (
            {"digest": A, "size": 1e9},
            "a descriptor in the manifest is malformed: the size of sha256:aaaaaaaaaaaa is a ",
        ),
        (
            {"digest": A, "size": True},
            "a descriptor in the manifest is malformed: the size of sha256:aaaaaaaaaaaa is a ",
        ),
    ],
    ids=str,
)
def test_a_malformed_layer_is_refused(descriptor: object, message: str) -> None:
    assert refusal(json.dumps({"layers": [{"digest": B, "size": 1}, descriptor]}).encode()).startswith(message)


@pytest.mark.parametrize("config", [[], "text", {}, {"digest": A}, False])
def test_a_malformed_config_is_refused(config: object) -> None:
    assert refusal(json.dumps({"config": config}).encode()).startswith("a descriptor in the manifest ")


# -- indexes


def test_an_index_has_its_manifests_with_their_platforms() -> None:
    result = index(
        manifests=[
            {"mediaType": OCI_MANIFEST, "digest": A, "size": 7, "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": B, "size": 8, "platform": {"architecture": "arm", "os": "linux", "variant": "v7", "x": "y"}},
            {"digest": C, "size": 9, "platform": {"os": 5}, "annotations": {"a": "b"}},
        ],
        annotations={"org.opencontainers.image.title": "a model"},
    )
    assert result.manifests == (
        Descriptor(Digest(A), 7, media_type=OCI_MANIFEST),
        Descriptor(Digest(B), 8),
        Descriptor(Digest(C), 9),
    )
    assert [entry.platform for entry in result.manifests] == ["linux/amd64", "linux/arm/v7", None]
    assert result.manifests[2].annotations == (("a", "b"),)
    assert result.annotations == {"org.opencontainers.image.title": "a model"}
    assert result.media_type == OCI_INDEX


def test_the_raw_bytes_of_an_index_and_their_digest_are_as_received() -> None:
    raw = b'{"manifests": []}'
    result = Index(raw, media_type=DOCKER_INDEX)
    assert (result.raw, result.media_type, result.json()) == (raw, DOCKER_INDEX, {"manifests": []})
    assert result.digest == "sha256:fdbdcd12a9687e09000b694f75c25de04be151d880560d5a88d62b5f39b2f0e7"


@pytest.mark.parametrize("name", ["layers", "config", "size"])
def test_an_index_says_that_it_has_no_layers_when_it_is_asked_for_them(name: str) -> None:
    result = index(manifests=[{"digest": A, "size": 7, "platform": {"os": "linux", "architecture": "amd64"}}])
    with pytest.raises(InvalidManifestError) as caught:
        getattr(result, name)
    assert str(caught.value) == ("an index has no layers; fetch one of its 1 .manifests by digest (linux/amd64)")


@pytest.mark.parametrize(
    ("said", "fields", "kind"),
    [
        ("", {"layers": []}, Manifest),
        ("", {"config": {"digest": A, "size": 1}}, Manifest),
        (OCI_MANIFEST, {"layers": []}, Manifest),
        ("", {"manifests": []}, Index),
        (OCI_INDEX, {"manifests": []}, Index),
        ("text/plain", {"mediaType": DOCKER_INDEX, "manifests": []}, Index),
    ],
)
def test_what_is_received_is_a_manifest_or_an_index(said: str, fields: dict[str, Any], kind: type) -> None:
    assert type(parse(json.dumps(fields).encode(), media_type=said)) is kind


@pytest.mark.parametrize(
    ("raw", "said", "message"),
    [
        (b"{}", "", "it is no manifest of the kind that was expected: it has no layers and no config"),
        (b"{}", OCI_INDEX, "it is no manifest of the kind that was expected: it has no manifests"),
        (
            b'{"errors": [{"code": "DENIED"}]}',
            "",
            'it is an error and no manifest, though sent as one: [{"code": "DENIED"}]',
        ),
        (b'{"error": "no such model"}', "", 'it is an error and no manifest, though sent as one: "no such model"'),
        (
            b'{"schemaVersion": 1, "fsLayers": []}',
            "",
            "it is a manifest of Docker's schema 1, which tells no sizes: push it again with a newer tool",
        ),
        (b'{"layers": []}', OCI_INDEX, f"the manifest is called {OCI_INDEX}, and has layers or config"),
        (b'{"manifests": []}', OCI_MANIFEST, f"the manifest is called {OCI_MANIFEST}, and has manifests"),
    ],
)
def test_what_is_neither_is_refused_in_words(raw: bytes, said: str, message: str) -> None:
    with pytest.raises(InvalidManifestError) as caught:
        parse(raw, media_type=said)
    assert str(caught.value) == message


def test_an_index_is_no_manifest() -> None:
    assert refusal(b'{"manifests": []}').startswith("it is no manifest of the kind that was expected")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([A, OCI_MANIFEST]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["config", "layers", "manifests", "digest", "size", "mediaType", "annotations"])
            | st.text(),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(
    raw=st.binary() | JSON.map(lambda value: json.dumps(value).encode()), media_type=st.sampled_from(["", OCI_INDEX])
)
@settings(deadline=None, max_examples=100)
def test_whatever_is_received_is_a_manifest_or_refused(raw: bytes, media_type: str) -> None:
    try:
        result = parse(raw, media_type=media_type)
    except InvalidManifestError:
        return
    assert result.raw == raw
    entries = result.manifests if isinstance(result, Index) else result.layers
    assert all(0 <= entry.size < 2**63 for entry in entries)


@pytest.mark.parametrize(
    ("urls", "kept"),
    [
        (["https://a.example/x", 1, "", None, "https://b.example/y"], ("https://a.example/x", "https://b.example/y")),
        ("https://a.example/x", ()),
        (None, ()),
        (["https://a.example/" + 10_000 * "x"], ()),
    ],
)
def test_the_urls_of_a_foreign_layer_are_texts_that_somebody_would_try(urls: object, kept: tuple[str, ...]) -> None:
    layer = {"mediaType": "a/b", "digest": A, "size": 1, "urls": urls}
    assert manifest(layers=[layer]).layers[0].urls == kept


@pytest.mark.parametrize("number", ["1e400", "-1e400"])
def test_a_number_that_no_float_holds_is_refused(number: str) -> None:
    raw = f'{{"layers": [], "org": {number}}}'.encode()
    assert refusal(raw).startswith("the manifest is not JSON")


def test_a_notebook_shows_what_a_manifest_has() -> None:
    digest = "sha256:" + 64 * "a"
    layer = {"mediaType": "text/plain", "digest": digest, "size": 2048, "annotations": {TITLE: "a.bin"}}
    html = manifest(layers=[layer])._repr_html_()
    assert "1 layer, 2.0 KiB" in html
    assert "a.bin" in html


def test_a_notebook_shows_which_manifests_an_index_has() -> None:
    digest = "sha256:" + 64 * "b"
    entries = [{"digest": digest, "size": 5, "platform": {"os": "linux", "architecture": system}} for system in "xy"]
    html = index(manifests=entries)._repr_html_()
    assert "2 manifests" in html
    assert ["linux/x", "linux/y"] == [name for name in ("linux/x", "linux/y") if name in html]
