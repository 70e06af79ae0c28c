"""pooch: a downloader with known hashes for plain URLs, in the same pool of threads as plain requests."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pooch  # type: ignore[import-untyped]  # has no annotations
import requests  # noqa: F401  # pooch imports it with its first download

from benchmarks.contestants.job import parse, run


def main() -> None:
    job = parse()
    pooch.get_logger().setLevel(logging.ERROR)
    downloader = pooch.HTTPDownloader(chunk_size=65536)  # its own is 1,024 bytes

    def fetch(blob: tuple[str, int]) -> None:
        hexdigest, _ = blob
        pooch.retrieve(
            job.blob_url(hexdigest),
            known_hash=f"sha256:{hexdigest}",
            fname=f"sha256-{hexdigest}",
            path=job.folder,
            downloader=downloader,
        )

    def work() -> None:
        with ThreadPoolExecutor(job.threads) as pool:
            list(pool.map(fetch, job.blobs))

    run(work)


if __name__ == "__main__":
    main()
