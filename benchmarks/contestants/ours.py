"""This library, as a user calls it: default options."""

from __future__ import annotations

from typing import Any

import transferkit as tk
import transferkit.bulk  # with what it needs, before the time runs
from benchmarks.contestants.job import parse, run


def main(**keywords: Any) -> None:
    """Do the job; ``keywords`` are what a variant of this contestant adds to the call."""
    job = parse()
    blobs = [tk.Blob(f"sha256:{hexdigest}", size) for hexdigest, size in job.blobs]
    call = tk.download if job.action == "download" else tk.upload
    run(lambda: call(blobs, job.folder, base_url=job.url, repository=job.repository, **keywords))


if __name__ == "__main__":
    main()
