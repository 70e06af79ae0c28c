"""Artifacts without a config of their own, and contents that are in memory."""

from __future__ import annotations

import json

import pytest

from tests.unit.remote.rig import Flow
from tests.unit.transport.rig import everything
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.manifest import OCI_MANIFEST, Manifest
from transferkit.errors import BlobNotFoundError, SourceError
from transferkit.registry.artifacts import EMPTY, InMemory, artifact

HELLO = Digest("sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")  # printf hello | sha256sum
EMPTY_JSON = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # printf '{}' | sha256sum
LAYER = Descriptor(HELLO, 5, media_type="text/plain", annotations=(("org.opencontainers.image.title", "a"),))


class Nothing:
    """A source that has nothing, and says of each error that it concerns all."""

    def fetch(self, descriptor, *, offset=0, flow):  # type: ignore[no-untyped-def]
        raise BlobNotFoundError(f"{descriptor.digest} at {offset}")

    def concerns_all(self, error: Exception) -> bool:
        return isinstance(error, SourceError)


def test_an_artifact_says_what_it_has() -> None:
    manifest = artifact("application/vnd.example", [LAYER], {"a": "b"})
    assert {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY_JSON, "size": 2},
        "layers": [
            {
                "mediaType": "text/plain",
                "digest": str(HELLO),
                "size": 5,
                "annotations": {"org.opencontainers.image.title": "a"},
            }
        ],
        "annotations": {"a": "b"},
    } == json.loads(manifest.raw)


def test_an_artifact_refers_to_its_subject() -> None:
    subject = Manifest(b'{"schemaVersion":2,"layers":[]}', media_type=OCI_MANIFEST)
    document = json.loads(artifact("application/vnd.example", [Descriptor(HELLO, 5)], {}, subject).raw)
    # printf '{"schemaVersion":2,"layers":[]}' | sha256sum
    digest = "sha256:6ece6defe7067e1c5455a7720c1189ad30f7f8efe78587bd7c06e64a80fe7770"
    assert {"mediaType": OCI_MANIFEST, "size": 31, "digest": digest} == document["subject"]
    assert "annotations" not in document
    assert "annotations" not in document["layers"][0]


def test_what_is_in_memory_comes_from_there_and_all_else_from_the_source() -> None:
    source = InMemory({**EMPTY, HELLO: b"hello"}, Nothing())
    with source.fetch(LAYER, flow=Flow()) as body:
        assert b"hello" == everything(body)  # type: ignore[arg-type]
    with source.fetch(Descriptor(Digest(EMPTY_JSON), 2), offset=1, flow=Flow()) as body:
        assert (0, b"{}") == (body.offset, everything(body))  # type: ignore[arg-type]
    with pytest.raises(BlobNotFoundError, match="at 3"):
        source.fetch(Descriptor(Digest(f"sha256:{64 * 'a'}"), 9), offset=3, flow=Flow())


def test_which_errors_concern_all_its_source_says() -> None:
    source = InMemory({}, Nothing())
    assert (True, False) == (source.concerns_all(SourceError("x")), source.concerns_all(BlobNotFoundError("x")))
    assert not InMemory({}, object()).concerns_all(SourceError("x"))  # type: ignore[arg-type]
