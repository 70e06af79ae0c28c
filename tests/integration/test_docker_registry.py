"""Uploads to and downloads from Debian's docker-registry, with its own disk and skopeo as witnesses.

What is expected is computed here with hashlib and read with http.client: nothing of the library judges itself.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import transferkit as tk
from tests.integration.conftest import in_vain

pytestmark = pytest.mark.integration

MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
WHERE = "library/model"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1024 * 1024):
            digest.update(block)
        return f"sha256:{digest.hexdigest()}"


def blob_files(folder: Path, contents: Iterable[bytes]) -> list[tk.Blob]:
    """Write contents as blob files, with nothing of the library."""
    folder.mkdir(exist_ok=True)
    blobs = []
    for content in contents:
        hexadecimal = hashlib.sha256(content).hexdigest()
        (folder / f"sha256-{hexadecimal}").write_bytes(content)
        blobs.append(tk.Blob(f"sha256:{hexadecimal}", len(content)))
    return blobs


def image(blobs: list[tk.Blob]) -> bytes:
    """An image manifest in a spelling of its own: who parses it and writes it again changes its digest."""
    layers = [
        {"size": blob.size, "mediaType": "application/octet-stream", "digest": str(blob.digest)} for blob in blobs
    ]
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 0}
    document = {"layers": layers, "config": config, "mediaType": OCI_MANIFEST, "schemaVersion": 2}
    return json.dumps(document, indent=3).encode() + b"\n\n"


def raw_manifest(authority: str, repository: str, tag: str) -> tuple[int, bytes, str | None]:
    with closing(http.client.HTTPConnection(authority, timeout=10)) as connection:
        connection.request("GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": OCI_MANIFEST})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers["Docker-Content-Digest"]


def sha256_files(folder: Path) -> dict[str, str]:
    """The files of a folder (without the hidden ones) and what hashlib says of their content."""
    return {path.name: sha256_of(path) for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.timeout(600)  # the model may have to be fetched first
def test_a_real_model_makes_the_round_trip(
    tensors: ModuleType, docker_registry: Any, minilm: Path, tmp_path: Path
) -> None:
    figures: list[tuple[int, int]] = []
    pushed = tensors.push(minilm, docker_registry.url, WHERE, tag="v1")
    path, printed, pulled = tensors.pull(
        docker_registry.url, WHERE, tmp_path / "new", tag="v1", progress=lambda *figure: figures.append(figure)
    )

    assert sha256_of(minilm) == f"sha256:{MODEL_SHA256}"
    assert sha256_of(path) == f"sha256:{MODEL_SHA256}"
    assert printed == MODEL_SHA256
    # 104 tensors, no two alike, and the header; on the way no byte more than those of the file.
    assert (pushed.blobs, in_vain(pushed.bytes - 90_868_376), pushed.skipped) == (105, True, 0)
    assert (pulled.blobs, pulled.bytes, pulled.skipped) == (105, 90_868_376, 0)
    assert figures[0] == (0, 90_868_376)
    assert figures[-1] == (90_868_376, 90_868_376)

    ours = sha256_files(tmp_path / "new" / "blobs")
    assert len(ours) == 105
    assert {name: digest.replace(":", "-") for name, digest in ours.items()} == {name: name for name in ours}
    theirs = {digest: sha256_of(path) for digest, path in docker_registry.blobs().items()}
    assert len(theirs) == 106  # the manifest too
    assert theirs == {digest: digest for digest in theirs}
    assert set(ours.values()) < set(theirs)


@pytest.mark.timeout(600)
def test_pushing_a_model_again_sends_nothing(tensors: ModuleType, docker_registry: Any, minilm: Path) -> None:
    tensors.push(minilm, docker_registry.url, WHERE, tag="v1")
    again = tensors.push(minilm, docker_registry.url, WHERE, tag="v2")
    assert (again.blobs, again.bytes, again.skipped) == (105, 0, 105)
    first, second = (raw_manifest(docker_registry.authority, WHERE, tag) for tag in ("v1", "v2"))
    assert first == second
    assert first[0] == 200


@pytest.mark.timeout(600)
def test_skopeo_copies_out_what_was_pushed(
    tensors: ModuleType, docker_registry: Any, skopeo: Callable[..., str], minilm: Path, tmp_path: Path
) -> None:
    tensors.push(minilm, docker_registry.url, WHERE, tag="v1")
    _, manifest, _ = raw_manifest(docker_registry.authority, WHERE, "v1")
    source = f"docker://{docker_registry.authority}/{WHERE}:v1"

    skopeo("copy", "--src-tls-verify=false", source, f"dir:{tmp_path / 'dir'}")
    copied = sha256_files(tmp_path / "dir")
    assert (tmp_path / "dir" / "manifest.json").read_bytes() == manifest
    del copied["manifest.json"], copied["version"]
    assert len(copied) == 105
    assert copied == {name: f"sha256:{name}" for name in copied}

    skopeo("copy", "--src-tls-verify=false", source, f"oci:{tmp_path / 'oci'}:v1")
    copied = sha256_files(tmp_path / "oci" / "blobs" / "sha256")
    assert len(copied) == 106
    assert copied == {name: f"sha256:{name}" for name in copied}
    assert hashlib.sha256(manifest).hexdigest() in copied


def test_empty_and_repeated_tensors_make_the_round_trip(
    tensors: ModuleType, docker_registry: Any, tmp_path: Path
) -> None:
    offsets = {"a": [0, 0], "b": [0, 9], "c": [9, 18], "d": [18, 18], "e": [18, 20]}
    header = {name: {"dtype": "U8", "shape": [b - a], "data_offsets": [a, b]} for name, (a, b) in offsets.items()}
    raw = json.dumps(header).encode()
    original = tmp_path / "small.safetensors"
    original.write_bytes(len(raw).to_bytes(8, "little") + raw + b"same here" + b"same here" + b"??")

    pushed = tensors.push(original, docker_registry.url, WHERE, tag="v1")
    path, _, pulled = tensors.pull(docker_registry.url, WHERE, tmp_path / "new", tag="v1")

    assert path.read_bytes() == original.read_bytes()
    assert (pushed.blobs, pulled.blobs) == (4, 4)
    assert EMPTY in docker_registry.blobs()


def test_the_manifest_is_served_byte_for_byte(docker_registry: Any, tmp_path: Path) -> None:
    blobs = blob_files(tmp_path / "src", [b"", b"hello"])
    manifest = image(blobs)
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    where = {"base_url": docker_registry.url, "repository": WHERE}

    tk.upload(blobs, tmp_path / "src", **where, manifest=manifest, manifest_ref="v1")

    assert raw_manifest(docker_registry.authority, WHERE, "v1") == (200, manifest, digest)
    by_tag = tk.fetch_manifest("v1", **where)
    by_digest = tk.fetch_manifest(digest, **where)
    assert (by_tag.raw, by_tag.digest, by_tag.media_type) == (manifest, digest, OCI_MANIFEST)
    assert by_digest == by_tag


def test_a_manifest_without_a_tag_is_there_by_its_digest(docker_registry: Any, tmp_path: Path) -> None:
    blobs = blob_files(tmp_path / "src", [b"", b"hello"])
    manifest = image(blobs)
    where = {"base_url": docker_registry.url, "repository": WHERE}
    tk.upload(blobs, tmp_path / "src", **where, manifest=manifest)
    assert tk.fetch_manifest(f"sha256:{hashlib.sha256(manifest).hexdigest()}", **where).raw == manifest


def test_a_mount_from_another_repository_sends_no_body(docker_registry: Any, tmp_path: Path) -> None:
    (blob,) = blob_files(tmp_path / "src", [os.urandom(300_000)])
    tk.upload([blob], tmp_path / "src", base_url=docker_registry.url, repository="library/first")
    assert docker_registry.links("library/second") == set()

    known = tk.Blob(blob.digest, blob.size, source="library/first")
    report = tk.upload([known], tmp_path / "src", base_url=docker_registry.url, repository="library/second")

    assert (report.mounted, report.bytes, report.skipped) == (1, 0, 0)
    assert docker_registry.links("library/second") == {blob.digest}
    tk.download([blob], tmp_path / "new", base_url=docker_registry.url, repository="library/second")
    assert sha256_files(tmp_path / "new") == {f"sha256-{blob.digest[7:]}": blob.digest}


def test_a_mount_from_a_repository_that_lacks_the_blob_becomes_an_upload(docker_registry: Any, tmp_path: Path) -> None:
    (blob,) = blob_files(tmp_path / "src", [os.urandom(300_000)])
    hopeful = tk.Blob(blob.digest, blob.size, source="library/nobody")
    report = tk.upload([hopeful], tmp_path / "src", base_url=docker_registry.url, repository=WHERE)
    assert (report.mounted, report.bytes) == (0, 300_000)
    assert sha256_of(docker_registry.blobs()[blob.digest]) == blob.digest


def test_an_unknown_tag_is_a_manifest_that_is_not_there(docker_registry: Any, tmp_path: Path) -> None:
    with pytest.raises(tk.ManifestNotFoundError, match="library/model"):
        tk.fetch_manifest("v1", base_url=docker_registry.url, repository=WHERE)
    blobs = blob_files(tmp_path / "src", [b"", b"hello"])
    where = {"base_url": docker_registry.url, "repository": WHERE}
    tk.upload(blobs, tmp_path / "src", **where, manifest=image(blobs), manifest_ref="v1")
    with pytest.raises(tk.ManifestNotFoundError, match="v2"):
        tk.fetch_manifest("v2", **where)


def test_a_manifest_of_blobs_that_are_not_there_says_so(docker_registry: Any, tmp_path: Path) -> None:
    here, missing = blob_files(tmp_path / "src", [b"", b"hello"])
    where = {"base_url": docker_registry.url, "repository": WHERE}
    with pytest.raises(tk.BlobNotFoundError, match=r"MANIFEST_BLOB_UNKNOWN.*in the repository first") as caught:
        tk.upload([here], tmp_path / "src", **where, manifest=image([here, missing]), manifest_ref="v1")
    assert missing.digest in str(caught.value)
    assert raw_manifest(docker_registry.authority, WHERE, "v1")[0] == 404


def test_an_unknown_digest_does_not_hide_the_blobs_that_are_there(docker_registry: Any, tmp_path: Path) -> None:
    blobs = blob_files(tmp_path / "src", [b"hello", b"world"])
    tk.upload(blobs, tmp_path / "src", base_url=docker_registry.url, repository=WHERE)
    unknown = "sha256:" + 64 * "0"

    with pytest.raises(tk.IncompleteError) as caught:
        tk.download([tk.Blob(unknown, 5), *blobs], tmp_path / "new", base_url=docker_registry.url, repository=WHERE)

    assert {digest: type(error) for digest, error in caught.value.failures.items()} == {unknown: tk.BlobNotFoundError}
    assert sha256_files(tmp_path / "new") == {f"sha256-{blob.digest[7:]}": blob.digest for blob in blobs}


def test_a_file_that_is_not_what_its_digest_says_publishes_nothing(docker_registry: Any, tmp_path: Path) -> None:
    good, bad = blobs = blob_files(tmp_path / "src", [b"", os.urandom(200_000)])
    spoiled = tmp_path / "src" / f"sha256-{bad.digest[7:]}"
    content = bytearray(spoiled.read_bytes())
    content[100_000] ^= 1
    spoiled.write_bytes(content)

    with pytest.raises(tk.SourceError) as caught:
        tk.upload(
            blobs,
            tmp_path / "src",
            base_url=docker_registry.url,
            repository=WHERE,
            manifest=image(blobs),
            manifest_ref="v1",
        )

    assert str(spoiled) in str(caught.value)
    assert raw_manifest(docker_registry.authority, WHERE, "v1")[0] == 404
    assert set(docker_registry.blobs()) <= {good.digest}


def test_a_wrong_size_is_told_apart_from_a_missing_blob(docker_registry: Any, tmp_path: Path) -> None:
    (blob,) = blob_files(tmp_path / "src", [b"hello"])
    tk.upload([blob], tmp_path / "src", base_url=docker_registry.url, repository=WHERE)
    with pytest.raises(tk.IncompleteError) as caught:
        tk.download([tk.Blob(blob.digest, 6)], tmp_path / "new", base_url=docker_registry.url, repository=WHERE)
    assert type(caught.value.failures[blob.digest]) is tk.SizeMismatchError
    assert sha256_files(tmp_path / "new") == {}


@pytest.mark.timeout(300)  # docker-registry syncs each blob to disk: 10 s of a quiet machine, more of a busy one
@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.full)])
def test_many_small_blobs_make_the_round_trip(docker_registry: Any, tmp_path: Path, count: int) -> None:
    blobs = blob_files(tmp_path / "src", (os.urandom(4096) for _ in range(count)))

    pushed = tk.upload(blobs, tmp_path / "src", base_url=docker_registry.url, repository=WHERE)
    pulled = tk.download(blobs, tmp_path / "new", base_url=docker_registry.url, repository=WHERE)

    assert (pushed.blobs, in_vain(pushed.bytes - 4096 * count), pushed.retried) == (count, True, 0)
    assert (pulled.blobs, pulled.bytes, pulled.retried) == (count, 4096 * count, 0)
    assert sha256_files(tmp_path / "new") == {f"sha256-{blob.digest[7:]}": blob.digest for blob in blobs}
    assert {digest: sha256_of(path) for digest, path in docker_registry.blobs().items()} == {
        blob.digest: blob.digest for blob in blobs
    }
