"""A floor: SHA-256 over the same bytes, from files in memory, spread over the cores. Nothing is moved."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

from benchmarks.contestants.job import parse, run

BUFFER = 256 * 1024


def main() -> None:
    job = parse()
    blobs = job.blobs
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def digest(share: list[tuple[str, int]]) -> None:
        buffer = memoryview(bytearray(BUFFER))
        for hexdigest, _ in share:
            sha256 = hashlib.sha256()
            with open(job.source / f"sha256-{hexdigest}", "rb", buffering=0) as file:
                while got := file.readinto(buffer):
                    sha256.update(buffer[:got])
            if sha256.hexdigest() != hexdigest:
                raise ValueError(f"{hexdigest}: other bytes")

    def work() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(digest, [blobs[number::cores] for number in range(cores)]))

    run(work)


if __name__ == "__main__":
    main()
