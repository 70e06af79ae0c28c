"""This library with ``durable=True``: each blob is on the disk before it has its name."""

from __future__ import annotations

import transferkit as tk
from benchmarks.contestants.job import parse, run


def main() -> None:
    job = parse()
    blobs = [tk.Blob(f"sha256:{hexdigest}", size) for hexdigest, size in job.blobs]
    options = tk.TransferOptions(durable=True)
    download = tk.download
    run(lambda: download(blobs, job.folder, base_url=job.url, repository=job.repository, options=options))


if __name__ == "__main__":
    main()
