"""Folders from real registries: what other programs have pushed becomes files, by their names."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import oras.client
import pytest

import transferkit as tk
from transferkit.registry import Registry

pytestmark = pytest.mark.integration

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
FILES = {"config.json": b"{}", "model.bin": bytes(range(256)) * 10_000}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".transferkit" not in path.parts
    }


@pytest.mark.parametrize("cache", ["cache", None], ids=["cache", "straight"])
def test_files_and_a_folder_that_oras_pushes(
    docker_registry: Any, tmp_path: Path, monkeypatch: Any, cache: Any
) -> None:
    client = oras.client.OrasClient(insecure=True)
    (tmp_path / "source" / "tokenizer" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "source")
    for title, content in FILES.items():
        Path(title).write_bytes(content)
    Path("tokenizer/vocab.txt").write_bytes(b"a\nb\n")
    Path("tokenizer/sub/merges.txt").write_bytes(b"m")
    name = f"{docker_registry.authority}/library/files:v1"
    client.push(target=name, files=[*FILES, "tokenizer"], quiet=True)
    keywords: dict[str, Any] = {} if cache else {"cache": None}
    with Registry(cache=tmp_path / "cache") as registry:
        report = registry.pull(name, to=tmp_path / "out", **keywords)
        assert files(tmp_path / "out") == {
            **FILES,
            "tokenizer/vocab.txt": b"a\nb\n",
            "tokenizer/sub/merges.txt": b"m",
        }
        assert report.linked["tokenizer/vocab.txt"] == "unpacked"
        assert registry.pull(name, to=tmp_path / "out", **keywords).written == ()


def layout(folder: Path, files: dict[str, bytes]) -> Path:
    """Write an image layout by hand, with one layer that has the files, and the tag ``v1``."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    diff = hashlib.sha256(raw.getvalue()).hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]}}
    ).encode()
    layer = gzip.compress(raw.getvalue())
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": put(config, CONFIG), "layers": [put(layer, LAYER)]}
    ).encode()
    entry = {**put(manifest, MANIFEST), "annotations": {"org.opencontainers.image.ref.name": "v1"}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_files_under_models_of_an_image_that_skopeo_copies(
    docker_registry: Any, skopeo: Any, tmp_path: Path, form: str
) -> None:
    there = {"etc/hostname": b"x", **{f"models/{name}": content for name, content in FILES.items()}}
    source = layout(tmp_path / "layout", there)
    name = f"{docker_registry.authority}/library/image:v1"
    skopeo("copy", "--format", form, "--dest-tls-verify=false", f"oci:{source}:v1", f"docker://{name}")
    with Registry(cache=tmp_path / "cache") as registry:
        assert registry.pull(name, to=tmp_path / "out", cache=None).format == "image"
        path = registry.snapshot(name)
    assert files(tmp_path / "out") == files(path) == FILES


def test_a_snapshot_of_what_was_pushed_is_one_folder(docker_registry: Any, tmp_path: Path) -> None:
    for title, content in FILES.items():
        (tmp_path / title).write_bytes(content)
    name = f"{docker_registry.authority}/library/files:v1"
    with Registry(cache=tmp_path / "cache") as registry:
        manifest = registry.push(name, files=[tmp_path / title for title in FILES])
        path = registry.snapshot(name)
        assert path.name == manifest.digest.replace(":", "-")
        assert files(path) == FILES
        assert registry.snapshot(name) == path
    with Registry(cache=tmp_path / "cache", offline=True) as registry:
        assert registry.snapshot(name) == path


def test_large_files_of_a_model_go_straight_and_go_on(docker_registry: Any, minilm: Path, tmp_path: Path) -> None:
    """The weights of all-MiniLM-L6-v2, 90 MB; a pull that is cancelled half-way, and another one."""
    name = f"{docker_registry.authority}/library/minilm:v1"
    cancel = tk.Cancellation()

    def stop(completed: int, total: int) -> None:
        if completed > total // 3:
            cancel.cancel()

    slow = tk.TransferOptions(max_bandwidth=100e6, progress_interval=0.01)
    with Registry(cache=tmp_path / "cache", options=slow) as registry:
        registry.push(name, files=[minilm])
        with pytest.raises(tk.CancelledError):
            registry.pull(name, to=tmp_path / "out", cache=None, cancel=cancel, progress=stop)
    assert files(tmp_path / "out") == {}
    with Registry(cache=tmp_path / "cache") as registry:
        report = registry.pull(name, to=tmp_path / "out", cache=None)
    assert 0 < report.bytes < os.path.getsize(minilm)
    with open(tmp_path / "out" / minilm.name, "rb") as one, open(minilm, "rb") as two:
        assert hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(two, "sha256").digest()


@pytest.mark.xdist_group("s3")
def test_layers_and_files_come_straight_over_redirects_to_a_storage(
    s3_store: Any, run_docker_registry: Any, skopeo: Any, tmp_path: Path
) -> None:
    """docker-registry on an S3 store: a large file in chunks, and a layer that is unpacked as it comes."""
    big = {"big.bin": os.urandom(1024) * 3 * 1024}
    source = layout(tmp_path / "layout", {f"models/{name}": content for name, content in FILES.items()})
    options = tk.TransferOptions(chunk_threshold=2**20, chunk_size=2**20, resume_threshold=2**20)
    (tmp_path / "big.bin").write_bytes(big["big.bin"])
    with (
        run_docker_registry(tmp_path / "server", storage=s3_store.storage("folders")) as server,
        Registry(cache=tmp_path / "cache", options=options) as registry,
    ):
        name = f"{server.authority}/library/model"
        skopeo("copy", "--dest-tls-verify=false", f"oci:{source}:v1", f"docker://{name}:image")
        registry.push(f"{name}:files", files=[tmp_path / "big.bin"])
        registry.pull(f"{name}:image", to=tmp_path / "image", cache=None)
        registry.pull(f"{name}:files", to=tmp_path / "files", cache=None)
        assert server.blobs() == {}  # all of it is in the storage
    assert (files(tmp_path / "image"), files(tmp_path / "files")) == (FILES, big)
