"""The mirror of a cache under clients that nobody here wrote: skopeo, told of it as of any mirror."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import transferkit as tk
from tests.functional.models import OCI_MANIFEST, described, digest_of, host
from transferkit.server import Application, serving

pytestmark = pytest.mark.integration

LAYER = b"a layer " * 100_000
CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
CONF = """
[[registry]]
location = "registry.invalid"
[[registry.mirror]]
location = "{mirror}"
insecure = true
"""


@pytest.fixture
def raw(tmp_path: Path) -> bytes:
    """The manifest of an image of registry.invalid, which is in the cache, and nowhere else."""
    cache = tk.DiskCache(tmp_path / "cache")
    for content in (LAYER, CONFIG):
        cache.put(content)
    layers = [described(LAYER, "application/vnd.oci.image.layer.v1.tar")]
    config = described(CONFIG, "application/vnd.oci.image.config.v1+json")
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}).encode()
    cache.link("registry.invalid/team/image:v1", raw)
    return raw


def test_skopeo_pulls_through_the_mirror_that_its_configuration_names(
    skopeo: Callable[..., str], raw: bytes, tmp_path: Path
) -> None:
    with Application(mirror=tk.DiskCache(tmp_path / "cache")) as application, serving(application) as url:
        (tmp_path / "registries.conf").write_text(CONF.format(mirror=host(url)))
        image = ["--registries-conf", tmp_path / "registries.conf"]
        skopeo(*image, "copy", "docker://registry.invalid/team/image:v1", f"dir:{tmp_path / 'out'}")
    assert raw == (tmp_path / "out" / "manifest.json").read_bytes()
    for content in (LAYER, CONFIG):
        assert content == (tmp_path / "out" / digest_of(content).removeprefix("sha256:")).read_bytes()


def test_skopeo_lists_and_inspects_what_the_mirror_has(skopeo: Callable[..., str], raw: bytes, tmp_path: Path) -> None:
    with Application(mirror=tk.DiskCache(tmp_path / "cache")) as application, serving(application) as url:
        listed = json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{host(url)}/team/image"))
        found = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{host(url)}/team/image@{digest_of(raw)}")
    assert (["v1"], raw) == (listed["Tags"], found.encode())
