"""The blobs of a model split over processes that fill one folder.

Run it with ``python split_blobs.py URL REPOSITORY TAG``. One process fills a fast line;
several are for where a processor is the bound, or where each is on a machine of its
own with a shared file system. A blob that two of them want is fetched by one, and the
other waits for it.
"""

from __future__ import annotations

import multiprocessing
import sys
from dataclasses import dataclass
from pathlib import Path

import transferkit as tk


@dataclass(frozen=True)
class Share:
    """What one process fetches. It pickles, as all has to that goes to a process."""

    base_url: str
    repository: str
    folder: Path
    blobs: list[tk.Descriptor]


def split(blobs: list[tk.Descriptor], count: int) -> list[list[tk.Descriptor]]:
    """Split blobs into shares of one size, about: the largest first."""
    shares: list[list[tk.Descriptor]] = [[] for _ in range(count)]
    for blob in sorted(blobs, key=lambda blob: blob.size, reverse=True):
        min(shares, key=lambda share: sum(each.size for each in share)).append(blob)
    return [share for share in shares if share]


def fetch(share: Share) -> tk.Report:
    """Fetch a share; an error pickles, and comes to who asked."""
    return tk.download(
        share.blobs, share.folder, base_url=share.base_url, repository=share.repository
    )


def fetch_all(
    base_url: str,
    repository: str,
    tag: str,
    folder: Path,
    *,
    processes: int = 2,
    method: str = "spawn",
) -> list[tk.Report]:
    """Fetch all blobs of a model in processes that begin by ``spawn`` or ``fork``."""
    manifest = tk.fetch_manifest(tag, base_url=base_url, repository=repository)
    shares = [
        Share(base_url, repository, folder, blobs)
        for blobs in split(list(manifest.blobs), processes)
    ]
    with multiprocessing.get_context(method).Pool(len(shares)) as pool:
        return pool.map(fetch, shares, chunksize=1)


if __name__ == "__main__":
    for report in fetch_all(*sys.argv[1:4], Path("blobs")):
        print(report)
