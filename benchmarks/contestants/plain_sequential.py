"""``requests``, one blob after the other, on one session."""

from __future__ import annotations

import hashlib
from urllib.parse import urljoin

import requests

from benchmarks.contestants.job import parse, run


def main() -> None:
    job = parse()
    session = requests.Session()

    def fetch(hexdigest: str) -> None:
        sha256 = hashlib.sha256()
        with session.get(job.blob_url(hexdigest), stream=True, timeout=60) as response:
            response.raise_for_status()
            with open(job.path(hexdigest), "wb") as out:
                for block in response.iter_content(65536):
                    sha256.update(block)
                    out.write(block)
        if sha256.hexdigest() != hexdigest:
            raise ValueError(f"{hexdigest}: other bytes")

    def send(hexdigest: str) -> None:
        content = job.path(hexdigest).read_bytes()
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        begun = session.post(f"{job.url}/v2/{job.repository}/blobs/uploads/", timeout=60)
        begun.raise_for_status()
        location = urljoin(job.url, begun.headers["Location"])
        session.put(location, params={"digest": digest}, data=content, timeout=60).raise_for_status()

    def work() -> None:
        each = fetch if job.action == "download" else send
        for hexdigest, _ in job.blobs:
            each(hexdigest)

    run(work)


if __name__ == "__main__":
    main()
