"""Several pulls at once in a thread pool of one's own, with one registry client.

A pull keeps its own workers busy, so few threads are enough: two or three fill the line
while another one checks.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import transferkit as tk


def pull_all(
    names: list[str], folder: Path, *, threads: int = 3
) -> dict[str, tk.FolderReport | tk.TransferKitError]:
    """Pull models into folders of their own; return each report, or error."""
    found: dict[str, tk.FolderReport | tk.TransferKitError] = {}
    cancel = tk.Cancellation()
    with tk.Registry() as registry, ThreadPoolExecutor(threads) as pool:
        pulls = {}
        for name in names:
            place = folder / tk.Reference.parse(name).name.repository
            pulls[pool.submit(registry.pull, name, to=place, cancel=cancel)] = name
        try:
            for done in as_completed(pulls):
                try:
                    found[pulls[done]] = done.result()
                except tk.TransferKitError as error:
                    found[pulls[done]] = error
        except BaseException:  # Ctrl-C comes to this thread: it has to tell the others
            cancel.cancel("interrupted")
            pool.shutdown(cancel_futures=True)
            raise
    return found
