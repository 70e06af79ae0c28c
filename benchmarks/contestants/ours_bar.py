"""This library with its progress bar, on a stream that says it is a terminal and keeps nothing."""

from __future__ import annotations

import io
import os

import tqdm.auto  # noqa: F401  # with the other imports, not within the time of the call

import transferkit as tk
import transferkit.bulk  # as well
from benchmarks.contestants.job import parse, run
from transferkit.render.bars import progress_bar


class Screen(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def main() -> None:
    job = parse()
    blobs = [tk.Blob(f"sha256:{hexdigest}", size) for hexdigest, size in job.blobs]

    def work() -> None:
        with Screen(open(os.devnull, "wb")) as screen:
            with progress_bar("pull", sum(blob.size for blob in blobs), stream=screen) as progress:
                tk.download(blobs, job.folder, base_url=job.url, repository=job.repository, progress=progress)

    run(work)


if __name__ == "__main__":
    main()
