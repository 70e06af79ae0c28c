"""This library, as a user calls it: default options."""

from __future__ import annotations

import transferkit as tk
from benchmarks.contestants.job import parse, run


def main() -> None:
    job = parse()
    blobs = [tk.Blob(f"sha256:{hexdigest}", size) for hexdigest, size in job.blobs]
    call = tk.download if job.action == "download" else tk.upload
    run(lambda: call(blobs, job.folder, base_url=job.url, repository=job.repository))


if __name__ == "__main__":
    main()
