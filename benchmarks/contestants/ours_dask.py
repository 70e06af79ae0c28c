"""This library on a cluster of Dask's with four workers on this machine, which is there before the time runs."""

from __future__ import annotations

import logging

import transferkit as tk
from benchmarks.contestants.job import parse, run
from transferkit.cluster.dask import spread

WORKERS = 4


def main() -> None:
    """Plan the download, and spread it."""
    from distributed import Client, LocalCluster

    job = parse()
    blobs = [tk.Blob(f"sha256:{hexdigest}", size) for hexdigest, size in job.blobs]
    cluster = LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
    )
    with cluster, Client(cluster) as client:
        client.run(_import)
        run(lambda: _spread(client, blobs, job))


def _import() -> None:
    import transferkit.bulk  # noqa: F401 - the others have their imports before their time runs, too


def _spread(client, blobs, job) -> None:  # type: ignore[no-untyped-def]  # distributed has no types everywhere
    plan = tk.plan_download(blobs, base_url=job.url, repository=job.repository)
    spread(client, plan, to=job.folder)


if __name__ == "__main__":
    main()
