"""``requests`` and a pool of threads, as a user would write it: a session a thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import requests

from benchmarks.contestants.job import parse, run
from benchmarks.contestants.plain import move


def main() -> None:
    job = parse()
    local = threading.local()

    def one(blob: tuple[str, int]) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        move(local.session, job, blob[0])

    def work() -> None:
        with ThreadPoolExecutor(job.threads) as pool:
            list(pool.map(one, job.blobs))

    run(work)


if __name__ == "__main__":
    main()
