"""What it costs to have the pieces of a plan run by a cluster, beside what it takes to move them.

``python -m benchmarks.scheduling`` makes a cluster of Dask with four workers on this machine and a plan of many tiny
blobs, sends each piece, in the bytes that it travels in, to a worker that does nothing with them, and then has the plan
run. It tells both times, and the first as a part of the second. Bundles of some hundred blobs are the case that costs
most.
"""

from __future__ import annotations

import argparse
import logging
import math
import pickle
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from benchmarks import data, servers
from benchmarks.data import Workload

WORKERS = 4
BUNDLE = 300  # blobs of a piece, where pieces are small


@dataclass(frozen=True, slots=True)
class Cost:
    """``scheduling`` and ``moving`` are seconds, for so many ``pieces``."""

    pieces: int
    scheduling: float
    moving: float

    @property
    def share(self) -> float:
        """The part of the time of a run that goes into scheduling."""
        return self.scheduling / self.moving


def measure(blobs: int, pieces: Sequence[int], folder: Path) -> list[Cost]:
    """Return the costs of a plan of so many blobs of 64 bytes, cut into each of these numbers of pieces."""
    from distributed import Client, LocalCluster

    import transferkit as tk
    from transferkit.cluster.dask import spread
    from transferkit.cluster.dask.pool import DaskPool

    found = []
    dataset = data.prepare(Workload("scheduled", blobs, 64), folder / "blobs", scale=1)
    with ExitStack() as stack:
        server = stack.enter_context(servers.file_server("loopback", folder / "blobs", folder / "server"))
        cluster = LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        )
        client = stack.enter_context(Client(stack.enter_context(cluster)))
        wanted = [tk.Blob(f"sha256:{blob.hexdigest}", blob.size) for blob in dataset.blobs]
        plan = tk.plan_download(wanted, base_url=server.url, repository=f"bench/{dataset.folder.name}")
        spread(
            client, tk.plan_download(wanted[:1000], base_url=server.url, repository=plan.repository), to=folder / "warm"
        )
        for number, count in enumerate(pieces):
            parts = [pickle.dumps(part) for part in plan.split(pieces=count)]
            began = time.perf_counter()
            ended = SimpleQueue[Any]()
            pool = DaskPool(client, ended.put)
            for part, piece in enumerate(parts):
                pool.call(_nothing, piece, part, key=f"nothing-{number}-{part}")
            assert sum(map(len, parts)) == sum(ended.get(timeout=60)[2].result() for _ in parts)
            scheduling = time.perf_counter() - began
            began = time.perf_counter()
            spread(client, plan, to=folder / f"to{number}", pieces=count)
            found.append(Cost(len(parts), scheduling, time.perf_counter() - began))
    return found


def _nothing(piece: bytes) -> int:
    return len(piece)


def main() -> None:
    parser = argparse.ArgumentParser(description="What scheduling costs.")
    parser.add_argument("--blobs", type=int, default=100_000)
    parser.add_argument("--work", type=Path, help="a folder in memory")
    asked = parser.parse_args()
    pieces = (4 * WORKERS, math.ceil(asked.blobs / BUNDLE))
    with tempfile.TemporaryDirectory(dir=asked.work) as folder:
        costs = measure(asked.blobs, pieces, Path(folder))
    print("pieces  scheduling  moving  share")
    for cost in costs:
        print(f"{cost.pieces:6}  {cost.scheduling:8.2f} s  {cost.moving:4.1f} s  {cost.share:5.1%}")


if __name__ == "__main__":
    main()
