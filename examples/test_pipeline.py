"""How to test a download pipeline of one's own: a real registry, a network that breaks.

Run it with ``python -m pytest examples/test_pipeline.py``.
"""

import hashlib
import os
from pathlib import Path

import transferkit as tk
from transferkit.testing import FaultRule, Faults, HTTPFaults, respond, running_registry

pytest_plugins = ["transferkit.testing.plugin"]

WHERE = "team/model"


def pipeline(base_url: str, blobs: list[tk.Blob], folder: Path) -> int:
    """What is tested: fetch the blobs, join them, and return the size of the result."""
    report = tk.download(blobs, folder / "blobs", base_url=base_url, repository=WHERE)
    with (folder / "model.bin").open("wb") as model:
        for blob in blobs:
            model.write(Path(report.paths[blob.digest]).read_bytes())
    return (folder / "model.bin").stat().st_size


def publish(base_url: str, folder: Path, sizes: list[int]) -> list[tk.Blob]:
    """Put blobs of random content into the registry."""
    blobs = []
    folder.mkdir()
    for size in sizes:
        data = os.urandom(size)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        (folder / tk.digest_to_path(digest)).write_bytes(data)
        blobs.append(tk.Blob(digest, size))
    tk.upload(blobs, folder, base_url=base_url, repository=WHERE)
    return blobs


def test_it_survives_a_connection_that_breaks(registry, fault_proxy, tmp_path):
    (blob,) = publish(registry.url, tmp_path / "source", [2_000_000])
    # The first connection carries a million bytes, heads included, and breaks;
    # all later ones are clean.
    proxy = fault_proxy(registry.url, [Faults(reset_after=1_000_000)])
    registry.log.clear()

    assert pipeline(proxy.url, [blob], tmp_path) == 2_000_000

    source = tmp_path / "source" / tk.digest_to_path(blob.digest)
    assert (tmp_path / "model.bin").read_bytes() == source.read_bytes()
    broken = proxy.connections[0]
    assert (broken.ended, broken.down) == ("reset", 1_000_000)
    # It asked twice, and not for the manifest, the tags or anything else.
    assert registry.log.count("GET", f"/blobs/{blob.digest}") == len(registry.log) == 2


def test_it_waits_when_the_registry_says_so(tmp_path):
    faults = HTTPFaults()
    with running_registry(middleware=faults) as registry:
        blobs = publish(registry.url, tmp_path / "source", [1000, 2000, 3000])
        refused = respond(503, "busy", retry_after=1)
        busy = FaultRule(refused, method="GET", path="/blobs/", times=1)
        faults.set(busy)

        assert pipeline(registry.url, blobs, tmp_path) == 6000

    assert busy.hits == 1
    assert [request.status for request in registry.log].count(503) == 1
