"""Plans between docker-registry and a shared folder, each piece in another process, one of them killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import transferkit as tk
from tests.functional.models import Model, digest_of
from tests.integration.conftest import DockerRegistry
from transferkit.registry import Registry

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
SLOWLY = """
import sys
import transferkit as tk

options = tk.TransferOptions(max_bandwidth=5e6)
tk.TransferPlan.from_json(sys.stdin.read()).run(tk.Registry(options=options), cache=sys.argv[1])
"""


def test_five_pieces_run_twice_in_other_processes_and_only_the_last_step_links(
    docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    rng = random.Random(17)
    huge = rng.randbytes(24 * MIB + 3)
    layers = [huge, *(rng.randbytes(rng.randrange(40_000)) for _ in range(40))]
    model = Model(layers, types=["application/octet-stream"] * len(layers)).put(docker_registry.url, "team/model", "v1")
    name, cache = f"{docker_registry.authority}/team/model:v1", tmp_path / "cache"
    with Registry(cache=tmp_path / "planner") as client:
        plan = client.plan_pull(name)
    assert not (tmp_path / "planner").exists()
    pieces = plan.split(5, ranges=True)
    assert 5 == len(pieces)

    # One is killed in the middle of a range: what it had brought stays, and another process goes on.
    partials = cache / "blobs" / ".partial"
    slow = next(piece for piece in pieces if piece.ranges)
    killed = subprocess.Popen([sys.executable, "-c", SLOWLY, cache], stdin=subprocess.PIPE)
    assert killed.stdin is not None
    killed.stdin.write(slow.to_json().encode())
    killed.stdin.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not any(
        path.stat().st_blocks * 512 > MIB for path in partials.glob("*.part")
    ):
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert slow.run(cache=cache).bytes < slow.size

    order = [*pieces, *pieces]
    rng.shuffle(order)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(piece.run, cache=str(cache)) for piece in order]
        for future in futures:
            future.result()
        assert not (cache / "blobs" / digest_of(huge).replace(":", "-")).exists()
        assert [] == [path for path in cache.glob("manifests/**/*") if path.is_file()]
        pool.submit(plan.last().run, cache=str(cache)).result()

    with Registry(cache=cache) as client:
        found = client.resolve_local(name)
        assert model.digest == found.digest
        assert layers == [Path(client.cache.path(layer.digest)).read_bytes() for layer in found.layers]
        assert [] == client.cache.verify()
    assert [] == [name for name in os.listdir(partials) if ".at." in name]


def test_pieces_copy_between_two_registries_in_other_processes(
    docker_registry: DockerRegistry, registry: object, tmp_path: Path
) -> None:
    rng = random.Random(18)
    layers = [rng.randbytes(200_000) for _ in range(12)]
    model = Model(layers, types=["application/octet-stream"] * 12).put(registry.url, "team/model", "v1")  # type: ignore[attr-defined]
    with Registry(cache=tmp_path / "cache") as client:
        plan = client.plan_copy(f"{registry.url}/team/model:v1", f"{docker_registry.url}/team/copy:v2")  # type: ignore[attr-defined]
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            for future in [pool.submit(piece.run) for piece in plan.split(5)]:
                future.result()
            with pytest.raises(tk.ManifestNotFoundError):
                client.resolve(f"{docker_registry.url}/team/copy:v2")
            pool.submit(plan.last().run).result()
        assert model.raw == client.resolve(f"{docker_registry.url}/team/copy:v2").raw
    assert {digest_of(layer) for layer in layers} <= docker_registry.links("team/copy")
