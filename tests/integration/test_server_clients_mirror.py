"""``transferkit serve`` as a mirror, and behind one: containerd, skopeo and docker-registry between it and who asks."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from tests.functional.models import ask
from tests.integration.conftest import UP_WITHIN, end, program
from tests.integration.served import MIB, PASSWORD, USER, Served
from tests.integration.test_registry_client import INTO, OUT_OF, Image, digest_of, image, layout
from transferkit.server import OCIRegistry, serving

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("served")]

Skopeo = Callable[..., str]


def put(server: Served, name: str, made: Image) -> None:
    """Put an image into the cache of a mirror."""
    cache = tk.DiskCache(server.folder)
    for content in (made.config, made.layer):
        cache.put(content)
    cache.link(name, made.manifest)


# -- skopeo, told of a mirror by its configuration

CONF = """
[[registry]]
location = "{location}"
insecure = true
[[registry.mirror]]
location = "{mirror}"
insecure = true
"""


def test_skopeo_takes_what_the_mirror_has_and_the_rest_from_the_registry(
    plain: Served, mirror: Served, skopeo: Skopeo, tmp_path: Path
) -> None:
    here, there = image(b"in the mirror " * 50_000), image(b"in the registry " * 50_000)
    put(mirror, f"{plain.authority}/mirrored/image:v1", here)
    skopeo(*INTO, f"oci:{layout(tmp_path / 'made', there)}:v1", f"docker://{plain.authority}/mirrored/image:v2")
    (tmp_path / "registries.conf").write_text(CONF.format(location=plain.authority, mirror=mirror.authority))
    told = ["--registries-conf", tmp_path / "registries.conf"]
    for tag, made in (("v1", here), ("v2", there)):  # the registry has no v1, the mirror no v2
        skopeo(*told, "copy", "-q", f"docker://{plain.authority}/mirrored/image:{tag}", f"dir:{tmp_path / tag}")
        assert made.manifest == (tmp_path / tag / "manifest.json").read_bytes()
        assert made.layer == (tmp_path / tag / digest_of(made.layer)[7:]).read_bytes()


# -- containerd

CONTAINERD = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{folder}/sock"
  uid = {uid}
  gid = {gid}
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
"""
HOSTS = """
server = "https://{host}"
[host."{mirror}"]
  capabilities = ["pull", "resolve"]
"""
SECURE = """
[host."{url}"]
  capabilities = ["pull", "resolve", "push"]
  ca = "{ca}"
"""


@pytest.fixture(scope="module")
def ctr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., bytes]]:
    """``ctr(*arguments)`` runs it with a containerd that keeps all it has in a folder, and returns what it prints."""
    folder = tmp_path_factory.mktemp("ctr")
    executable, asking = program("containerd", package="containerd"), program("ctr", package="containerd")
    text = CONTAINERD.format(folder=folder, uid=os.getuid(), gid=os.getgid())
    (folder / "config.toml").write_text(text)
    address = folder / "sock"

    def run(*arguments: str | Path) -> bytes:
        command = [asking, "--address", address, "--timeout", "30s", *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, f"ctr failed: {done.stderr.decode()}"
        return done.stdout

    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [executable, "--config", folder / "config.toml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + UP_WITHIN
        while not address.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if not address.exists():
            pytest.fail(f"containerd did not start: {(folder / 'log').read_text()[-2000:]}")
        yield run
    finally:
        end(process)


def test_containerd_names_the_registry_whose_mirror_it_asks(
    mirror: Served, ctr: Callable[..., bytes], tmp_path: Path
) -> None:
    wanted, other = image(b"the one " * 50_000), image(b"another one")
    # Without ns= nobody could tell which of the two is meant.
    put(mirror, "registry.invalid/team/image:v1", wanted)
    put(mirror, "elsewhere.invalid/team/image:v1", other)
    (tmp_path / "registry.invalid").mkdir()
    hosts = HOSTS.format(host="registry.invalid", mirror=mirror.url)
    (tmp_path / "registry.invalid" / "hosts.toml").write_text(hosts)
    assert 404 == ask(mirror.url, "GET", "/v2/team/image/manifests/v1")[0]

    ctr("content", "fetch", "--hosts-dir", tmp_path, "registry.invalid/team/image:v1")
    for content in (wanted.manifest, wanted.config, wanted.layer):
        assert content == ctr("content", "get", digest_of(content))


def test_containerd_pulls_from_a_registry_and_pushes_to_another_one(
    plain: Served, secure: Served, skopeo: Skopeo, ctr: Callable[..., bytes], tmp_path: Path
) -> None:
    images = image(b"for amd64" * 50_000), image(b"for arm64", "arm64")
    made = layout(tmp_path / "made", *images, architectures=("amd64", "arm64"))
    source, target = f"{plain.authority}/containerd/image:v1", f"{secure.authority}/containerd/image:v2"
    skopeo(*INTO, "--all", f"oci:{made}:v1", f"docker://{source}")
    # What is on this machine it asks without TLS, unless a file says otherwise.
    (tmp_path / secure.authority).mkdir()
    (tmp_path / secure.authority / "hosts.toml").write_text(SECURE.format(url=secure.url, ca=secure.ca))
    push = ["images", "push", "--hosts-dir", tmp_path]

    ctr("content", "fetch", "--plain-http", "--all-platforms", source)
    ctr("images", "tag", source, target)
    ctr(*push, "--user", f"{USER}:{PASSWORD}", target)
    found = ctr("images", "list", "--quiet").decode().split()
    assert {source, target} <= set(found)
    there = ["--src-cert-dir", secure.ca.parent, "--src-creds", f"{USER}:{PASSWORD}"]
    skopeo("copy", "-q", "--all", *there, f"docker://{target}", f"oci:{tmp_path / 'taken'}:v1")
    for each in images:
        for content in (each.config, each.layer, each.manifest):
            assert content == (tmp_path / "taken/blobs/sha256" / digest_of(content)[7:]).read_bytes()
    with pytest.raises(AssertionError, match="401 Unauthorized"):
        ctr(*push, "--user", f"{USER}:wrong", target)


# -- docker-registry in front, which stores what it is asked for


def test_skopeo_pulls_through_docker_registry(
    plain: Served, run_docker_registry: Any, skopeo: Skopeo, tmp_path: Path
) -> None:
    images = image(b"one " * 50_000), image(b"two", "arm64")
    made = layout(tmp_path / "made", *images, architectures=("amd64", "arm64"))
    skopeo(*INTO, "--all", f"oci:{made}:v1", f"docker://{plain.authority}/behind/image:v1")
    with run_docker_registry(tmp_path / "proxy", proxy={"remoteurl": plain.url}) as proxy:
        where = f"docker://{proxy.authority}/behind/image"
        skopeo(*OUT_OF, "--all", f"{where}:v1", f"oci:{tmp_path / 'taken'}:v1")
        assert ["v1"] == json.loads(skopeo("list-tags", "--tls-verify=false", where))["Tags"]
    for each in images:
        for content in (each.config, each.layer, each.manifest):
            assert content == (tmp_path / "taken/blobs/sha256" / digest_of(content)[7:]).read_bytes()


def test_our_client_pulls_through_docker_registry_whole_and_by_ranges(
    plain: Served, run_docker_registry: Any, make_blobs: Any, assert_stored: Any, tmp_path: Path
) -> None:
    blobs = make_blobs(tmp_path / "source", [1000, 17 * MIB])  # the second one in chunks, where it gets them
    (_, name) = (blob.digest.replace(":", "-") for blob in blobs)
    data = (tmp_path / "source" / name).read_bytes()
    tk.upload(blobs, tmp_path / "source", base_url=plain.url, repository="behind/model")
    with run_docker_registry(tmp_path / "proxy", proxy={"remoteurl": plain.url}) as proxy:
        to = {"base_url": proxy.url, "repository": "behind/model"}
        tk.download(blobs, tmp_path / "first", **to)
        # Once it has its own copy, it answers a range with the range.
        path, deadline = f"/v2/behind/model/blobs/{blobs[1].digest}", time.monotonic() + 60
        while (told := ask(proxy.url, "GET", path, Range="bytes=1000-1999"))[0] == 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        status, headers, content = told
        tk.download(blobs, tmp_path / "second", **to)
    assert (206, f"bytes 1000-1999/{len(data)}", data[1000:2000]) == (status, headers["content-range"], content)
    for folder in ("first", "second"):
        assert_stored(tmp_path / folder, blobs)


def test_docker_registry_in_front_gets_its_tokens(run_docker_registry: Any, skopeo: Skopeo, tmp_path: Path) -> None:
    made = image(b"content " * 50_000)
    guarded = OCIRegistry(tmp_path / "store", auth={USER: PASSWORD}, tokens=True)
    with serving(guarded) as url:
        name = f"docker://{url.removeprefix('http://')}/behind/image:v1"
        skopeo(*INTO, "--dest-creds", f"{USER}:{PASSWORD}", f"oci:{layout(tmp_path / 'made', made)}:v1", name)
        keys = {"remoteurl": url, "username": USER, "password": PASSWORD}
        with run_docker_registry(tmp_path / "proxy", proxy=keys) as proxy:
            skopeo(*OUT_OF, f"docker://{proxy.authority}/behind/image:v1", f"dir:{tmp_path / 'taken'}")
    assert made.manifest == (tmp_path / "taken/manifest.json").read_bytes()
    assert made.layer == (tmp_path / "taken" / digest_of(made.layer)[7:]).read_bytes()
