"""Mirrors in a row: how much later than one before it the last of three has a blob whole, in one transfer.

``python -m benchmarks.chain`` starts a registry and two mirrors, each upstream of the next, pulls one blob of 1 GiB
through all of them, and prints when each of them had it whole. It ends with 1 where the third was more than a tenth
later than the second.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import transferkit as tk
from benchmarks.soak_serve import serve

LATER = 0.10
_LOOK = 0.002  # seconds between two looks for the blob
_PATIENCE = 600.0  # seconds for one transfer


def once(folder: Path, source: Path, digest: str) -> tuple[float, float]:
    """Return how many seconds after the beginning the second server and the third had the blob whole."""
    with ExitStack() as stack:
        log = folder / "log"
        first = stack.enter_context(serve(log, "--registry", folder / "registry"))
        second = stack.enter_context(serve(log, "--upstream", first.url, "--cache", folder / "second"))
        third = stack.enter_context(serve(log, "--upstream", second.url, "--cache", folder / "third"))
        with tk.Registry(cache=folder / "pushed") as registry:
            registry.push(f"{first.url}/team/model:v1", files=[source])
        seen: dict[str, float] = {}
        began = time.monotonic()

        def watch() -> None:
            left = {"second", "third"}
            while left and time.monotonic() - began < _PATIENCE:
                for name in tuple(left):
                    if (folder / name / "blobs" / digest.replace(":", "-")).exists():
                        seen[name] = time.monotonic() - began
                        left.discard(name)
                time.sleep(_LOOK)

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        with tk.Registry(cache=folder / "client") as registry:
            registry.pull(f"{third.url}/team/model:v1")
            assert not registry.cache.verify(), "what came is wrong"
        watching.join()
    return seen["second"], seen["third"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024, help="the size of the blob (default: 1024)")
    parser.add_argument("--runs", type=int, default=3, help="(default: 3)")
    parser.add_argument("--folder", help="where the servers keep their files (default: a temporary one)")
    asked = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory(dir=asked.folder) as made:
        source = Path(made, "weights.bin")
        hasher = hashlib.sha256()
        with source.open("wb") as file:
            for _ in range(asked.mib):
                file.write(block := os.urandom(1024 * 1024))
                hasher.update(block)
        digest = f"sha256:{hasher.hexdigest()}"
        for number in range(asked.runs):
            with tempfile.TemporaryDirectory(dir=made) as folder:
                second, third = once(Path(folder), source, digest)
            ratios.append(third / second)
            print(f"run {number + 1}: the second server {second:.2f} s, the third {third:.2f} s", flush=True)
    later = statistics.median(ratios) - 1
    print(f"the third is {later:.1%} later than the second, by the median of {asked.runs} runs")
    return int(later > LATER)


if __name__ == "__main__":
    raise SystemExit(main())
