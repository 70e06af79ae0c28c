"""python-dxf: one blob after the other, in both directions; it checks what it downloads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from dxf import DXF

from benchmarks.contestants.job import parse, run


def main() -> None:
    job = parse()

    def download() -> None:
        with DXF(job.host, job.repository, insecure=True) as client:
            for hexdigest, _ in job.blobs:
                with open(job.path(hexdigest), "wb") as out:
                    # The other kind of answer is for who asks for the size too.
                    for block in cast("Iterable[bytes]", client.pull_blob(f"sha256:{hexdigest}", chunk_size=65536)):
                        out.write(block)

    def upload() -> None:
        with DXF(job.host, job.repository, insecure=True) as client:
            for hexdigest, _ in job.blobs:
                client.push_blob(str(job.path(hexdigest)))

    run(download if job.action == "download" else upload)


if __name__ == "__main__":
    main()
