"""Uploads in parts to Debian's docker-registry, and what a broken connection costs there.

What is expected is computed here with hashlib over the registry's own files.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from benchmarks.soak_kills import Soak
from transferkit.testing import Faults, fault_proxy

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
WHERE = "library/model"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(MIB):
            digest.update(block)
        return f"sha256:{digest.hexdigest()}"


def large_file(folder: Path, size: int) -> tk.Blob:
    folder.mkdir()
    hexadecimal = hashlib.sha256()
    with (folder / "new").open("wb") as file:
        for start in range(0, size, MIB):
            block = os.urandom(min(MIB, size - start))
            hexadecimal.update(block)
            file.write(block)
    (folder / "new").rename(folder / f"sha256-{hexadecimal.hexdigest()}")
    return tk.Blob(f"sha256:{hexadecimal.hexdigest()}", size)


def test_a_large_blob_goes_up_in_parts(docker_registry: Any, tmp_path: Path) -> None:
    blob = large_file(tmp_path / "src", 50 * MIB + 13)
    figures: list[tuple[int, int]] = []

    with fault_proxy(docker_registry.url) as proxy:
        report = tk.upload(
            [blob],
            tmp_path / "src",
            base_url=proxy.url,
            repository=WHERE,
            progress=lambda *figure: figures.append(figure),
            options=tk.TransferOptions(part_size=4 * MIB),
        )
        sent = sum(connection.up for connection in proxy.connections)

    assert (report.bytes, report.retried) == (50 * MIB + 13, 0)
    assert sent - blob.size < 100_000  # heads of requests
    assert figures[-1] == (blob.size, blob.size)
    assert figures == sorted(figures)
    assert {digest: sha256_of(path) for digest, path in docker_registry.blobs().items()} == {blob.digest: blob.digest}
    assert docker_registry.links(WHERE) == {blob.digest}


@pytest.mark.parametrize("part_size", [4 * MIB, None])
def test_a_broken_connection_ends_in_the_right_bytes(
    docker_registry: Any, tmp_path: Path, part_size: int | None
) -> None:
    """This registry ends a session whose size is not the one that its URL was signed for: it is begun anew."""
    blob = large_file(tmp_path / "src", 25 * MIB)

    with fault_proxy(docker_registry.url, [Faults(reset_after_up=15 * MIB)]) as proxy:
        report = tk.upload(
            [blob],
            tmp_path / "src",
            base_url=proxy.url,
            repository=WHERE,
            options=tk.TransferOptions(part_size=part_size),
        )
        sent = sum(connection.up for connection in proxy.connections)

    assert report.retried == 1
    assert sent < 15 * MIB + blob.size + 100_000
    assert {digest: sha256_of(path) for digest, path in docker_registry.blobs().items()} == {blob.digest: blob.digest}


def test_the_next_process_sends_what_kill_9_has_left(docker_registry: Any, registry: Any, tmp_path: Path) -> None:
    """Between two parts: in the middle of one, this registry ends the session."""
    soak = Soak(tmp_path, registry, seed=1, size=8 * MIB)
    assert soak.continues(docker_registry.url, parts=True, between=True) < 4 * MIB
    (blob,) = docker_registry.blobs().items()
    assert sha256_of(blob[1]) == blob[0]
