"""The registry of this library, asking for credentials in both ways, under skopeo."""

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
