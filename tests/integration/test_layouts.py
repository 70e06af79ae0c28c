"""Image layouts that skopeo reads and writes, as folders and as tar files."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from transferkit.registry import Registry
from transferkit.storage.cache import DiskCache

pytestmark = pytest.mark.integration

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ARCHITECTURES = ("amd64", "arm64")


def described(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data), **more}


def image(architecture: str) -> tuple[bytes, list[bytes]]:
    """Return the manifest of an image with one layer, and its blobs."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        info = tarfile.TarInfo("model.txt")
        info.size = len(architecture)
        tar.addfile(info, io.BytesIO(architecture.encode()))
    layer = packed.getvalue()
    diff = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = json.dumps(
        {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff]}}
    ).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [described(layer, "application/vnd.oci.image.layer.v1.tar")],
    }
    return json.dumps(document).encode(), [config, layer]


@pytest.fixture(scope="module")
def images() -> dict[str, tuple[bytes, list[bytes]]]:
    return {architecture: image(architecture) for architecture in ARCHITECTURES}


@pytest.fixture(scope="module")
def index(images: dict[str, tuple[bytes, list[bytes]]]) -> bytes:
    entries = [
        described(raw, MANIFEST, platform={"os": "linux", "architecture": architecture})
        for architecture, (raw, _) in images.items()
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def write(path: Path, images: dict[str, tuple[bytes, list[bytes]]], index: bytes) -> None:
    with tk.OCILayout(path) as layout:
        for raw, blobs in images.values():
            for data in (*blobs, raw):
                layout.put(data)
        layout.tag(tk.Manifest(images["amd64"][0]), "one")
        layout.tag(tk.Index(index), "all")


def transport(path: Path) -> str:
    return f"{'oci-archive' if path.suffix else 'oci'}:{path}"


@pytest.mark.parametrize("target", ["theirs", "theirs.tar"])
@pytest.mark.parametrize("source", ["ours", "ours.tar"])
def test_skopeo_reads_what_we_write_and_we_read_what_it_writes(
    images: Any, index: bytes, skopeo: Callable[..., str], tmp_path: Path, source: str, target: str
) -> None:
    write(tmp_path / source, images, index)
    ours, theirs = transport(tmp_path / source), transport(tmp_path / target)
    assert "amd64" == json.loads(skopeo("inspect", "--config", f"{ours}:one"))["architecture"]
    assert index == skopeo("inspect", "--raw", f"{ours}:all").encode()
    skopeo("copy", "--preserve-digests", "--all", f"{ours}:all", f"{theirs}:all")

    layout = tk.OCILayout(tmp_path / target)
    assert ["all"] == layout.tags()
    document = layout.document("all")
    assert index == document.raw
    assert isinstance(document, tk.Index)
    for entry, (raw, blobs) in zip(document.manifests, images.values(), strict=True):
        manifest = layout.load(entry.digest)
        assert raw == manifest.raw
        assert blobs == [layout.read(blob.digest) for blob in manifest.blobs]


@pytest.mark.parametrize("target", ["theirs", "theirs.tar"])
def test_we_add_to_what_skopeo_has_written(
    images: Any, index: bytes, skopeo: Callable[..., str], tmp_path: Path, target: str
) -> None:
    write(tmp_path / "ours", images, index)
    theirs = tmp_path / target
    skopeo("copy", "--preserve-digests", f"oci:{tmp_path / 'ours'}:one", f"{transport(theirs)}:one")
    with tk.OCILayout(theirs) as layout:
        raw, blobs = images["arm64"]
        for data in blobs:
            layout.put(data)
        layout.tag(tk.Manifest(raw), "two")
    for tag, architecture in (("one", "amd64"), ("two", "arm64")):
        found = json.loads(skopeo("inspect", "--config", f"{transport(theirs)}:{tag}"))
        assert architecture == found["architecture"]


@pytest.mark.parametrize("target", ["copy", "copy.tar"])
def test_a_layout_goes_to_a_registry_and_back(
    images: Any, index: bytes, skopeo: Callable[..., str], docker_registry: Any, tmp_path: Path, target: str
) -> None:
    write(tmp_path / "ours", images, index)
    name = f"{docker_registry.authority}/library/model:v1"
    with Registry(cache=DiskCache(tmp_path / "cache")) as registry:
        registry.copy(tk.OCILayout(tmp_path / "ours").at("all"), name)
        with tk.OCILayout(tmp_path / target) as layout:
            assert index == registry.copy(name, layout.at("v1")).raw
    assert index == skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}").encode()
    assert index == skopeo("inspect", "--raw", f"{transport(tmp_path / target)}:v1").encode()
    skopeo("copy", "--preserve-digests", "--all", f"{transport(tmp_path / target)}:v1", f"dir:{tmp_path / 'dir'}")
