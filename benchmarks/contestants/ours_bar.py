"""This library with its progress bar, on a stream that says it is a terminal and keeps nothing."""

from __future__ import annotations

import io
import os
import sys

import tqdm.auto  # noqa: F401  # with the other imports, not within the time of the call

import transferkit as tk
import transferkit.bulk  # as well
from benchmarks.contestants.job import parse, run


class Screen(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def main() -> None:
    job = parse()
    blobs = [tk.Blob(f"sha256:{hexdigest}", size) for hexdigest, size in job.blobs]

    def work() -> None:
        with Screen(open(os.devnull, "wb")) as screen:
            sys.stderr = screen
            try:
                tk.download(blobs, job.folder, base_url=job.url, repository=job.repository, progress=True)
            finally:
                sys.stderr = sys.__stderr__

    run(work)


if __name__ == "__main__":
    main()
