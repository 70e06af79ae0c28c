"""The registry of this library, with clients that nobody here wrote: skopeo and the Python oras."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.test_registry_client import INTO, OUT_OF, image, layout
from transferkit.server import OCIRegistry, serving

pytestmark = pytest.mark.integration

USER = "alice:s3cret"


@pytest.fixture(params=[False, True], ids=["basic", "tokens"])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The authority of a registry that asks for credentials."""
    with serving(OCIRegistry(tmp_path / "store", auth={"alice": "s3cret"}, tokens=request.param)) as url:
        yield url.removeprefix("http://")


def test_skopeo_passes_the_guard(guarded: str, skopeo: Callable[..., str], tmp_path: Path) -> None:
    made = image(b"hello")
    source = layout(tmp_path / "layout", made)
    where = f"docker://{guarded}/team/image"

    skopeo(*INTO, "--dest-creds", USER, f"oci:{source}:v1", f"{where}:v1")
    skopeo(*OUT_OF, "--src-creds", USER, f"{where}:v1", f"dir:{tmp_path / 'taken'}")

    assert made.manifest == (tmp_path / "taken/manifest.json").read_bytes()
    tags = skopeo("list-tags", "--tls-verify=false", "--creds", USER, where)
    assert ["v1"] == json.loads(tags)["Tags"]
    with pytest.raises(AssertionError, match="skopeo failed"):
        skopeo(*OUT_OF, "--src-creds", "alice:wrong", f"{where}:v1", f"dir:{tmp_path / 'other'}")


def test_skopeo_copies_an_index_in_out_and_away(skopeo: Callable[..., str], tmp_path: Path) -> None:
    images = image(b"one"), image(b"two", "arm64")
    source = layout(tmp_path / "layout", *images, architectures=("amd64", "arm64"))
    with serving(OCIRegistry(tmp_path / "store")) as url:
        where = f"docker://{url.removeprefix('http://')}/team/image:v1"
        skopeo(*INTO, "--all", f"oci:{source}:v1", where)
        skopeo(*OUT_OF, "--all", where, f"oci:{tmp_path / 'taken'}:v1")
        skopeo("delete", "--tls-verify=false", where)
        with pytest.raises(AssertionError, match=r"manifest unknown|no such manifest"):
            skopeo("inspect", "--tls-verify=false", where)
    for path in (source / "blobs/sha256").iterdir():
        assert path.read_bytes() == (tmp_path / "taken/blobs/sha256" / path.name).read_bytes()
