"""docker-registry over a network that cuts, slows and silences connections at random, and one that is killed."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from transferkit.testing import Faults, fault_proxy, random_faults
from transferkit.testing.network import Kind

pytestmark = pytest.mark.integration

WHERE = "library/model"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
Kinds = Sequence[Kind]
HASTY = tk.TransferOptions(
    stall_timeout=1,
    resume_threshold=300_000,
    retry=tk.RetryOptions(attempts=20, max_wait=0.1),
    transport=tk.TransportOptions(response_timeout=1, commit_timeout=2),
)

UP: Kinds = ("reset_after_up", "silent_after_up")
DOWN: Kinds = ("reset_after", "close_after", "silent_after")

AssertStored = Callable[[Path, list[tk.Blob]], None]


def bad_network(seed: str, bodies: Kinds, heads: Kinds) -> Callable[[int], Faults]:
    """Most connections break or fall silent, within some bodies or some heads of answers; one of seven is slow.

    The first one always breaks: how many there are is for the library to say, and one is enough for a retry.
    """
    in_body = random_faults(f"body {seed}", share=0.6, within=250_000, kinds=bodies)
    in_head = random_faults(f"head {seed}", share=0.5, within=1500, kinds=heads)

    first = next(kind for kind in bodies if kind != "refuse")

    def faults(number: int) -> Faults:
        if number == 0:
            return replace(Faults(), **{first: 40_000})
        chosen = in_head(number) if number % 3 == 1 else in_body(number)
        return replace(chosen, bandwidth=500_000) if number % 7 == 3 else chosen

    return faults


def image(blobs: list[tk.Blob]) -> bytes:
    layers = [
        {"mediaType": "application/octet-stream", "digest": str(blob.digest), "size": blob.size} for blob in blobs
    ]
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 0}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}).encode()


def stored(registry: Any) -> dict[str, str]:
    """The blobs on the registry's disk by what it calls them, and what hashlib says of them."""
    return {
        digest: f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for digest, path in registry.blobs().items()
    }


def manifest_status(registry: Any) -> int:
    with closing(http.client.HTTPConnection(registry.authority, timeout=10)) as connection:
        connection.request("GET", f"/v2/{WHERE}/manifests/v1", headers={"Accept": OCI_MANIFEST})
        return connection.getresponse().status


# Each seed is another network, and of the same kind.
@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.full] if seed >= 2 else []) for seed in range(12)]
)
def test_the_right_bytes_arrive_over_a_bad_network(
    docker_registry: Any, make_blobs: Any, assert_stored: AssertStored, tmp_path: Path, seed: int
) -> None:
    blobs = make_blobs(tmp_path / "src", [0, 1, *10 * [60_000], *3 * [250_000], 700_000, 900_000], seed=seed)
    figures: list[tuple[int, int]] = []
    where = {"repository": WHERE, "concurrency": 8, "options": HASTY, "progress": lambda *pair: figures.append(pair)}

    with fault_proxy(docker_registry.url, bad_network(f"up {seed}", ("refuse", *UP), DOWN)) as proxy:
        sent = tk.upload(blobs, tmp_path / "src", base_url=proxy.url, **where)
    assert stored(docker_registry) == {blob.digest: blob.digest for blob in blobs}
    assert figures[-1] == (2_950_001, 2_950_001)

    with fault_proxy(docker_registry.url, bad_network(f"down {seed}", ("refuse", *DOWN), DOWN)) as proxy:
        got = tk.download(blobs, tmp_path / "new", base_url=proxy.url, **where)
    assert_stored(tmp_path / "new", blobs)
    assert figures[-1] == (2_950_001, 2_950_001)
    left = [path.name for path in (tmp_path / "new" / ".partial").iterdir() if path.name != "verified"]
    assert left == []
    assert sent.retried >= 1
    assert got.retried >= 1


def test_a_second_run_finishes_the_upload_that_a_killed_registry_ended(
    run_docker_registry: Any, make_blobs: Any, assert_stored: AssertStored, tmp_path: Path
) -> None:
    blobs = make_blobs(tmp_path / "src", [0, *8 * [600_000]])
    manifest = image(blobs)
    giving_up = replace(HASTY, retry=tk.RetryOptions(attempts=2, patience=0.0, max_wait=0.01))
    push = {"repository": WHERE, "concurrency": 2, "manifest": manifest, "manifest_ref": "v1"}

    with run_docker_registry(tmp_path / "server") as registry:
        with fault_proxy(registry.url, Faults(bandwidth=2_000_000)) as proxy:

            def kill_in_the_middle(completed: int, total: int) -> None:
                if completed > 2_000_000 and registry.process.poll() is None:
                    registry.kill()

            with pytest.raises(tk.TransferKitError) as caught:
                tk.upload(
                    blobs, tmp_path / "src", base_url=proxy.url, **push, options=giving_up, progress=kill_in_the_middle
                )
    assert registry.process.returncode == -9
    assert isinstance(caught.value, tk.RetriesExhaustedError | tk.IncompleteError)
    whole = stored(registry)
    assert whole == {digest: digest for digest in whole}
    assert 2 <= len(whole) < len(blobs)

    with run_docker_registry(tmp_path / "server") as again:
        assert manifest_status(again) == 404
        report = tk.upload(blobs, tmp_path / "src", base_url=again.url, **push)
        assert report.skipped >= len(whole) - 2  # a blob is in place a moment before its repository knows
        assert report.bytes == 4_800_000 - 600_000 * (report.skipped - 1)  # the empty one is among them
        assert manifest_status(again) == 200
        assert {digest: digest for digest in stored(again)} == stored(again)
        assert {blob.digest for blob in blobs} < set(stored(again))
        tk.download(blobs, tmp_path / "new", base_url=again.url, repository=WHERE)
    assert_stored(tmp_path / "new", blobs)


def test_an_upload_survives_a_registry_that_is_killed_and_started_again(
    run_docker_registry: Any, make_blobs: Any, tmp_path: Path
) -> None:
    blobs = make_blobs(tmp_path / "src", [0, *8 * [600_000]])
    manifest = image(blobs)
    killed = threading.Event()
    with ExitStack() as stack:
        first = stack.enter_context(run_docker_registry(tmp_path / "server"))
        proxy = stack.enter_context(fault_proxy(first.url, Faults(bandwidth=2_000_000)))
        running = [first]

        def restart_in_the_middle(completed: int, total: int) -> None:
            if completed > 2_000_000 and not killed.is_set():
                killed.set()
                first.kill()
                port = int(first.authority.rpartition(":")[2])
                running.append(stack.enter_context(run_docker_registry(tmp_path / "server", port=port)))

        report = tk.upload(
            blobs,
            tmp_path / "src",
            base_url=proxy.url,
            repository=WHERE,
            concurrency=2,
            manifest=manifest,
            manifest_ref="v1",
            options=HASTY,
            progress=restart_in_the_middle,
        )

        assert len(running) == 2
        assert report.retried >= 1
        assert manifest_status(running[1]) == 200
        found = stored(running[1])
    assert found == {digest: digest for digest in found}
    assert {blob.digest for blob in blobs} < set(found)
