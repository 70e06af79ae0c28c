"""This library, as a user calls it: default options."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

import transferkit as tk
import transferkit.bulk  # with what it needs, before the time runs
from benchmarks.contestants.job import TENSOR, Job, parse, run


def main(**keywords: Any) -> None:
    """Do the job; ``keywords`` are what a variant of this contestant adds to the call."""
    job = parse()
    if job.action not in ("download", "download-again", "upload"):
        run((_of_a_folder if "folder" in job.action else _by_name)(job))
        return
    blobs = [tk.Blob(f"sha256:{hexdigest}", size) for hexdigest, size in job.blobs]
    call = tk.upload if job.action == "upload" else tk.download
    run(lambda: call(blobs, job.folder, base_url=job.url, repository=job.repository, **keywords))


def _by_name(job: Job) -> Callable[[], object]:
    """Return what does a job of the registry client, with what it needs."""
    from transferkit.registry import Registry

    registry = Registry(cache=job.folder)
    name = f"{job.url}/{job.repository}:v1"
    if job.action == "pull":
        return lambda: registry.pull(name)
    if job.action == "tensor":
        return lambda: _read_tensor(registry, name)
    if job.action == "copy":
        return lambda: registry.copy(name, f"{job.target}/{job.repository}:v1")
    os.mkdir(job.folder / "blobs")
    for hexdigest, _ in job.blobs:
        os.link(job.source / f"sha256-{hexdigest}", job.folder / "blobs" / f"sha256-{hexdigest}")
    return lambda: _verify(registry)


def _of_a_folder(job: Job) -> Callable[[], object]:
    """Return what pushes or pulls a folder, for the second time where the first one does not count."""
    from transferkit.registry import Registry

    name = f"{job.url}/{job.repository}:v1"
    if job.action.startswith("push"):
        registry = Registry(cache=tempfile.mkdtemp())  # what it remembers of the files is in there
        work: Callable[[], object] = lambda: registry.push(name, folder=job.folder)  # noqa: E731 - one of two
    else:
        registry = Registry(cache=tempfile.mkdtemp())
        work = lambda: registry.pull(name, to=job.folder, cache=None)  # noqa: E731 - one of two
    if job.action.endswith("-again"):
        work()
    return work


def _read_tensor(registry: Any, name: str) -> None:
    with registry.open_tensors(name) as tensors:
        if tensors[TENSOR].nbytes != 16 * 1024 * 1024:
            raise ValueError("it has another size")


def _verify(registry: Any) -> None:
    wrong = registry.cache.verify()
    if wrong:
        raise ValueError(f"{len(wrong)} blobs are wrong")


if __name__ == "__main__":
    main()
