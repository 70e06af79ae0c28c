"""Mirrors with a registry upstream that nobody here wrote, under clients that nobody here wrote, and in a row."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import transferkit as tk
from tests.functional.models import Model, host, links, names_of, stored
from tests.integration.conftest import DockerRegistry
from transferkit.testing import Faults, fault_proxy

pytestmark = pytest.mark.integration

MIB = 1024 * 1024


@contextmanager
def serve(folder: Path, *arguments: str) -> Iterator[str]:
    command = [sys.executable, "-m", "transferkit", "serve", "--port", "0", "--cache", str(folder), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().rpartition(" on ")[2].strip()
            process.terminate()
            assert 0 == process.wait(20)
        finally:
            process.kill()


def test_skopeo_pulls_what_docker_registry_has_through_the_mirror(
    docker_registry: DockerRegistry, skopeo: Callable[..., str], tmp_path: Path
) -> None:
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    layer = random.Random(1).randbytes(3 * MIB)
    image = Model([layer], config=config.encode(), types=["application/vnd.oci.image.layer.v1.tar"])
    upstream = docker_registry
    with serve(tmp_path / "cache", "--upstream", upstream.url) as url:
        image.put(upstream.url, "team/image", "v1")
        skopeo("copy", "--src-tls-verify=false", f"docker://{host(url)}/team/image:v1", f"dir:{tmp_path / 'out'}")
        listed = json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{host(url)}/team/image"))
        assert ["v1"] == listed["Tags"]
        assert image.raw == (tmp_path / "out" / "manifest.json").read_bytes()
        assert layer == (tmp_path / "out" / hashlib.sha256(layer).hexdigest()).read_bytes()
        name = f"{upstream.authority}/team/image/v1"
        deadline = time.monotonic() + 20
        while links(tmp_path / "cache") != [name] and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [name] == links(tmp_path / "cache")
    assert names_of(*image.blobs) <= set(stored(tmp_path / "cache"))
    upstream.kill()
    with serve(tmp_path / "cache", "--upstream", upstream.url) as url:
        out = tmp_path / "again"
        skopeo("copy", "--src-tls-verify=false", f"docker://{host(url)}/team/image:v1", f"dir:{out}")
        assert layer == (out / hashlib.sha256(layer).hexdigest()).read_bytes()


def test_three_servers_in_a_row_pass_a_blob_on_while_it_arrives(
    docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    """The third has the beginning of it before the first has the end."""
    content = random.Random(3).randbytes(40 * MIB)
    (tmp_path / "weights.bin").write_bytes(content)
    name = "sha256-" + hashlib.sha256(content).hexdigest()
    seen = threading.Event()
    with ExitStack() as stack:
        slow = [Faults(bandwidth=10 * MIB)] * 100  # a connection each
        urls = [stack.enter_context(fault_proxy(docker_registry.url, slow)).url]
        for number in range(3):
            urls.append(stack.enter_context(serve(tmp_path / f"cache-{number}", "--upstream", urls[-1])))
        with tk.Registry(cache=tmp_path / "pushed") as registry:
            registry.push(f"{docker_registry.url}/team/model:v1", files=[tmp_path / "weights.bin"])

        def watch() -> None:
            first = tmp_path / "cache-0" / "blobs" / name
            third = tmp_path / "cache-2" / "blobs" / ".partial" / name
            while not first.exists():
                if third.exists() and third.stat().st_blocks:
                    seen.set()
                time.sleep(0.001)

        watching = threading.Thread(target=watch)
        watching.start()
        with tk.Registry(cache=tmp_path / "mine") as registry:
            registry.pull(f"{urls[-1]}/team/model:v1")
        watching.join()
    assert seen.is_set(), "the third began when the first was done"
    for folder in ("cache-0", "cache-1", "cache-2", "mine"):
        assert content == (tmp_path / folder / "blobs" / name).read_bytes()
