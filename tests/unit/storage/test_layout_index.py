"""``index.json``: what is found in it, what is refused, and what others have written into it."""

from __future__ import annotations

import json

import pytest

import transferkit as tk
from tests.unit.storage.models import MANIFEST, digest_of, index_of, manifest_of
from transferkit.content.manifest import Index, Manifest
from transferkit.storage.layout_index import check_version, choose, entries_of, name_of, text_of, with_document

ONE, TWO = Manifest(manifest_of(b"{1}")), Manifest(manifest_of(b"{2}"))


def test_a_document_gets_a_name_and_takes_it_from_another():
    entries = with_document([], ONE, "v1")
    assert [
        {
            "mediaType": MANIFEST,
            "digest": digest_of(ONE.raw),
            "size": len(ONE.raw),
            "annotations": {"org.opencontainers.image.ref.name": "v1"},
        }
    ] == entries
    entries = with_document(entries, TWO, "v2")
    assert ["v1", "v2"] == [name_of(entry) for entry in entries]
    assert [(digest_of(TWO.raw), "v2"), (digest_of(TWO.raw), "v1")] == [
        (entry["digest"], name_of(entry)) for entry in with_document(entries, TWO, "v1")
    ]


def test_a_document_without_a_name_is_entered_once():
    entries = with_document(with_document([], ONE, "v1"), ONE, None)
    assert entries == with_document(entries, ONE, None)
    assert ["v1", None] == [name_of(entry) for entry in entries]


def test_what_others_have_written_stays():
    raw = json.loads(index_of(ONE.raw))
    raw["manifests"][0].update(platform={"os": "linux", "architecture": "arm64"}, odd=[1, 2])
    entries = with_document(entries_of(json.dumps(raw).encode()), TWO, "v2")
    assert raw["manifests"][0] == entries[0]
    assert 2 == len(Index(text_of(entries)).manifests)


def test_a_manifest_is_chosen_by_its_name_or_digest_or_as_the_only_one():
    entries = with_document([], ONE, "v1")
    for tag in (None, "v1", digest_of(ONE.raw)):
        assert (digest_of(ONE.raw), MANIFEST) == choose(entries, tag, "here")
    twice = with_document(entries, ONE, "v2")  # one manifest with two names is one manifest
    assert digest_of(ONE.raw) == choose(twice, None, "here")[0]
    both = with_document(entries, TWO, "v2")
    with pytest.raises(tk.ManifestNotFoundError, match="here has 2 manifests; it has v1, v2"):
        choose(both, None, "here")
    with pytest.raises(tk.ManifestNotFoundError, match="here has no manifest called v3; it has v1, v2"):
        choose(both, "v3", "here")
    with pytest.raises(tk.ManifestNotFoundError, match="here has no manifest; it has 0 manifests without names"):
        choose([], None, "here")


def test_of_one_name_for_several_the_user_is_told():
    entries = [*with_document([], ONE, "v1"), *with_document([], TWO, "v1")]
    with pytest.raises(tk.ManifestNotFoundError, match="here has 2 manifests called v1"):
        choose(entries, "v1", "here")


@pytest.mark.parametrize("annotations", [None, [], "v1", {"org.opencontainers.image.ref.name": 7}])
def test_annotations_promise_nothing(annotations):
    assert name_of({"digest": "x", "annotations": annotations}) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"manifests": null}',
        b'{"manifests": [7]}',
        b'{"manifests": [{"digest": "sha256:../../x", "size": 1}]}',
        b'{"manifests": [{"digest": "%s", "size": -1}]}' % digest_of(b"").encode(),
        b'{"manifests": [{"digest": "%s", "size": NaN}]}' % digest_of(b"").encode(),
        b'{"manifests": [], "layers": []}',
    ],
)
def test_what_is_malformed_is_refused(raw):
    with pytest.raises(tk.InvalidManifestError):
        entries_of(raw)


def test_without_a_file_there_is_nothing():
    assert [] == entries_of(None)


def test_layouts_of_another_version_are_refused():
    for raw in (None, b'{"imageLayoutVersion": "1.0.0"}', b'{"imageLayoutVersion": "1.1.0", "more": 1}'):
        check_version(raw, "here")
    for raw in (b"", b"null", b"{}", b"[" * 100_000, b'{"imageLayoutVersion": 1}', b'{"imageLayoutVersion": "2.0.0"}'):
        with pytest.raises(tk.InvalidManifestError, match="here is no image layout of version 1"):
            check_version(raw, "here")
