"""``transferkit serve`` as a registry under clients that nobody here wrote: skopeo, the Python oras, and python-dxf.

What is expected is computed here with hashlib, or said by one of them: nothing of the library judges itself.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dxf
import oras.client
import pytest
import requests
from dxf.exceptions import DXFUnauthorizedError

from tests.integration.served import PASSWORD, USER, Served
from tests.integration.test_registry_client import INTO, OUT_OF, Image, digest_of, image, layout

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("served")]

Skopeo = Callable[..., str]
CONTENTS = {"a.bin": bytes(range(256)) * 2000, "b.json": b"{}", "empty": b""}


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """One of the test's own: the servers are for all of them."""
    return f"{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}/image"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with some files."""
    for title, content in CONTENTS.items():
        (tmp_path / title).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- skopeo


def assert_has(folder: Path, *images: Image) -> None:
    """Assert that a layout has images with every byte."""
    for each in images:
        for content in (each.config, each.layer, each.manifest):
            assert content == (folder / "blobs/sha256" / digest_of(content)[7:]).read_bytes()


def test_skopeo_copies_an_index_in_out_and_away(plain: Served, repository: str, skopeo: Skopeo, tmp_path: Path) -> None:
    images = image(b"one" * 100_000), image(b"two", "arm64")
    made = layout(tmp_path / "made", *images, architectures=("amd64", "arm64"))
    where = f"docker://{plain.authority}/{repository}"
    index = next(path.read_bytes() for path in (made / "blobs/sha256").iterdir() if b'"manifests"' in path.read_bytes())

    skopeo(*INTO, "--all", f"oci:{made}:v1", f"{where}:v1")
    assert index == skopeo("inspect", "--raw", "--tls-verify=false", f"{where}:v1").encode()
    said = json.loads(skopeo("inspect", "--tls-verify=false", "--override-arch=arm64", f"{where}:v1"))
    assert (digest_of(index), ["v1"], "arm64") == (said["Digest"], said["RepoTags"], said["Architecture"])
    assert [digest_of(images[1].layer)] == said["Layers"]

    skopeo(*OUT_OF, "--all", f"{where}:v1", f"oci:{tmp_path / 'taken'}:v1")
    assert_has(tmp_path / "taken", *images)
    skopeo("delete", "--tls-verify=false", f"{where}:v1")
    assert [] == json.loads(skopeo("list-tags", "--tls-verify=false", where))["Tags"]
    with pytest.raises(AssertionError, match="manifest unknown"):
        skopeo("inspect", "--tls-verify=false", f"{where}:v1")


def test_skopeo_copies_between_two_registries_and_within_one(
    plain: Served, secure: Served, repository: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    made = image(b"content" * 100_000)
    first, second = f"docker://{plain.authority}/{repository}", f"docker://{secure.authority}/{repository}"
    login = ["--authfile", tmp_path / "auth.json", "--cert-dir", secure.ca.parent]
    skopeo(*INTO, f"oci:{layout(tmp_path / 'made', made)}:v1", f"{first}:v1")
    with pytest.raises(AssertionError, match="invalid username/password"):
        skopeo("login", *login, "-u", USER, "-p", "wrong", secure.authority)
    skopeo("login", *login, "-u", USER, "-p", PASSWORD, secure.authority)
    there = ["--authfile", tmp_path / "auth.json", "--dest-cert-dir", secure.ca.parent]

    skopeo("copy", "-q", "--src-tls-verify=false", *there, f"{first}:v1", f"{second}:v2")
    skopeo("copy", "-q", *there, "--src-cert-dir", secure.ca.parent, f"{second}:v2", f"{second}/mounted:v3")
    assert ["v2"] == json.loads(skopeo("list-tags", *login, second))["Tags"]
    skopeo(
        "sync",
        "--src=docker",
        "--dest=dir",
        *login[:2],
        "--src-cert-dir",
        login[3],
        "--scoped",
        f"{second}/mounted"[9:],
        tmp_path,
    )
    (taken,) = tmp_path.glob("**/mounted:v3")
    assert made.manifest == (taken / "manifest.json").read_bytes()
    assert made.layer == (taken / digest_of(made.layer)[7:]).read_bytes()
    with pytest.raises(AssertionError, match=r"unauthorized|authentication required"):
        skopeo("inspect", "--no-creds", "--cert-dir", secure.ca.parent, f"{second}:v2")


def test_skopeo_copies_a_layer_of_64_mib(
    plain: Served, large: tuple[Path, str], repository: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    path, digest = large
    made = image(b"")
    folder = layout(tmp_path / "made", made)
    document = json.loads(made.manifest)
    document["layers"][0] |= {"digest": digest, "size": path.stat().st_size}
    raw = json.dumps(document).encode()
    shutil.copyfile(path, folder / "blobs/sha256" / digest[7:])
    (folder / "blobs/sha256" / digest_of(raw)[7:]).write_bytes(raw)
    index = (folder / "index.json").read_text().replace(digest_of(made.manifest), digest_of(raw))
    (folder / "index.json").write_text(index.replace(f'"size": {len(made.manifest)}', f'"size": {len(raw)}'))

    where = f"docker://{plain.authority}/{repository}:v1"
    skopeo(*INTO, "--preserve-digests", f"oci:{folder}:v1", where)
    skopeo(*OUT_OF, where, f"dir:{tmp_path / 'taken'}")
    with (tmp_path / "taken" / digest[7:]).open("rb") as file:
        assert digest[7:] == hashlib.file_digest(file, "sha256").hexdigest()


# -- the Python oras


@pytest.fixture(params=["plain", "secure"])
def orasclient(request: pytest.FixtureRequest) -> tuple[oras.client.OrasClient, str]:
    """A client, and the authority of the registry that it is for."""
    server: Served = request.getfixturevalue(request.param)
    if request.param == "plain":
        return oras.client.OrasClient(insecure=True), server.authority
    client = oras.client.OrasClient(tls_verify=str(server.ca), auth_backend="basic")
    client.auth.set_basic_auth(USER, PASSWORD)
    return client, server.authority


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
def test_oras_pushes_pulls_lists_and_deletes(
    orasclient: tuple[oras.client.OrasClient, str], repository: str, here: Path, chunked: bool
) -> None:
    client, authority = orasclient
    names = [f"{authority}/{repository}:v{number}" for number in (1, 2)]
    files = [title for title in CONTENTS if CONTENTS[title]]  # it has no chunk for an empty one
    for name in names:
        client.push(target=name, files=files, annotation_file=None, do_chunked=chunked, chunk_size=100_000, quiet=True)
    pulled = client.pull(target=names[0], outdir=str(here / "out"))
    assert {title: CONTENTS[title] for title in files} == {Path(path).name: Path(path).read_bytes() for path in pulled}
    assert ["v1", "v2"] == client.get_tags(names[0])
    assert [["v1"], []] == [client.delete_tags(names[0], "v1"), client.delete_tags(names[0], "v9")]


def test_oras_is_told_that_its_password_is_wrong(secure: Served, repository: str, here: Path) -> None:
    client = oras.client.OrasClient(tls_verify=str(secure.ca), auth_backend="basic")
    client.auth.set_basic_auth(USER, "wrong")
    with pytest.raises(ValueError, match="the password is wrong"):
        client.push(target=f"{secure.authority}/{repository}:v1", files=["a.bin"], quiet=True)


# -- python-dxf


@pytest.fixture(params=["plain", "secure"])
def dxfclient(request: pytest.FixtureRequest, repository: str) -> Iterator[dxf.DXF]:
    server: Served = request.getfixturevalue(request.param)
    if request.param == "plain":
        client = dxf.DXF(server.authority, repository, insecure=True)
    else:

        def authenticate(client: Any, response: requests.Response) -> None:
            client.authenticate(USER, PASSWORD, response=response)

        client = dxf.DXF(server.authority, repository, auth=authenticate, tlsverify=str(server.ca))
    with client:
        yield client


def test_dxf_pushes_pulls_lists_and_deletes(dxfclient: dxf.DXF, here: Path) -> None:
    digests = [dxfclient.push_blob(title) for title in CONTENTS]
    assert [digest_of(content) for content in CONTENTS.values()] == digests
    parts = [bytes([number]) * 70_000 for number in range(5)]
    digests.append(dxfclient.push_blob(data=iter(parts), digest=digest_of(b"".join(parts))))  # chunked

    assert [*CONTENTS.values(), b"".join(parts)] == [b"".join(dxfclient.pull_blob(digest)) for digest in digests]
    assert len(CONTENTS["a.bin"]) == dxfclient.blob_size(digests[0])
    for alias in ("v1", "v2", "v3"):
        raw = dxfclient.set_alias(alias, *digests)
    assert ["v1", "v2", "v3"] == dxfclient.list_aliases(batch_size=2)
    assert (digests, raw) == (dxfclient.get_alias("v2"), dxfclient.get_manifest("v2"))
    with dxf.DXF.from_base(dxfclient, f"{dxfclient._repo}/mounted") as other:
        assert digests[0] == other.mount_blob(dxfclient._repo, digests[0])

    assert digests == dxfclient.del_alias("v1")  # the manifest, and so all of its names
    assert [] == dxfclient.list_aliases()
    dxfclient.del_blob(digests[0])
    with pytest.raises(requests.HTTPError) as caught:
        dxfclient.blob_size(digests[0])
    assert 404 == caught.value.response.status_code


def test_dxf_is_told_that_its_password_is_wrong(secure: Served, repository: str) -> None:
    def authenticate(client: Any, response: requests.Response) -> None:
        client.authenticate(USER, "wrong", response=response)

    with dxf.DXF(secure.authority, repository, auth=authenticate, tlsverify=str(secure.ca)) as client:
        with pytest.raises(DXFUnauthorizedError):
            client.list_aliases()
