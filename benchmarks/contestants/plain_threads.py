"""``requests`` and a pool of threads, as a user would write it: a session a thread, blocks of 64 KiB."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import requests

from benchmarks.contestants.job import parse, run


def main() -> None:
    job = parse()
    local = threading.local()

    def fetch(blob: tuple[str, int]) -> None:
        hexdigest, _ = blob
        if not hasattr(local, "session"):
            local.session = requests.Session()
        sha256 = hashlib.sha256()
        with local.session.get(job.blob_url(hexdigest), stream=True, timeout=60) as response:
            response.raise_for_status()
            with open(job.path(hexdigest), "wb") as out:
                for block in response.iter_content(65536):
                    sha256.update(block)
                    out.write(block)
        if sha256.hexdigest() != hexdigest:
            raise ValueError(f"{hexdigest}: other bytes")

    def work() -> None:
        with ThreadPoolExecutor(job.threads) as pool:
            list(pool.map(fetch, job.blobs))

    run(work)


if __name__ == "__main__":
    main()
