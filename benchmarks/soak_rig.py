"""What the soaks have in common: processes, blobs of random content, and what must never be found."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import transferkit as tk

KIB, MIB = 1024, 1024 * 1024
Say = Callable[[str], None]

# Forked from a process that has imported everything: a new interpreter for each kill took most of the time.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        *(f"benchmarks.soak_{part}" for part in ("kills", "network", "folder", "own", "server_gc")),
        "transferkit.bulk",
        "transferkit.registry",
    ]
)


class WrongBytes(AssertionError):
    """Something is not as it has to be: bytes under a final name, what is left behind, how something ended."""


def make_blobs(folder: Path, rng: random.Random, sizes: Iterable[int]) -> list[tk.Blob]:
    """Write files of random content, named after their digests, and return their blobs."""
    folder.mkdir(parents=True, exist_ok=True)
    blobs = []
    for size in sizes:
        data = rng.randbytes(size)
        blob = tk.Blob("sha256:" + hashlib.sha256(data).hexdigest(), size)
        (folder / tk.digest_to_path(blob.digest)).write_bytes(data)
        blobs.append(blob)
    return blobs


def check_names(folder: Path) -> None:
    """Hold every file under a final name to that name.

    Raises:
        WrongBytes: it is another content.
    """
    if not folder.exists():
        return
    for path in folder.iterdir():
        if path.name.startswith("sha256-") and "." not in path.name:
            found = "sha256-" + hashlib.sha256(path.read_bytes()).hexdigest()
            if found != path.name:
                raise WrongBytes(f"{path} has the digest {found}")


def check_exactly(folder: Path, blobs: Iterable[tk.Blob]) -> None:
    """Hold a folder after a clean download to what was asked for: those blobs, right, and nothing unfinished.

    Raises:
        WrongBytes: there is more or less, or it is another content.
    """
    check_names(folder)
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    expected = sorted([".partial/verified", *(tk.digest_to_path(blob.digest) for blob in blobs)])
    if found != expected:
        raise WrongBytes(f"after a clean download there is {found}, and not {expected}")


def at_work(threads: Iterable[threading.Thread], over: threading.Event, seconds: float) -> None:
    """Have threads at work until that is ``over``, which is after so many seconds at the latest.

    Raises:
        WrongBytes: one of them does not end.
    """
    threads = list(threads)
    for thread in threads:
        thread.start()
    over.wait(seconds)
    over.set()
    for thread in threads:
        thread.join(60)
        if thread.is_alive():
            raise WrongBytes("a client has not come to an end")


class Resources:
    """Threads and descriptors of this process, and whether they came back."""

    def __init__(self) -> None:
        self._threads = threading.active_count()
        self._descriptors = self._count()

    @staticmethod
    def _count() -> int:
        return len(os.listdir("/dev/fd"))  # on Linux and macOS

    def check(self, patience: float = 5.0) -> None:
        """Wait a moment (seconds) for what is about to end.

        Raises:
            WrongBytes: there are more than at the beginning.
        """
        deadline = time.monotonic() + patience
        while threading.active_count() > self._threads or self._count() > self._descriptors:
            if time.monotonic() > deadline:
                threads = [thread.name for thread in threading.enumerate()]
                text = f"{self._count() - self._descriptors} more descriptors; threads: {threads}"
                raise WrongBytes(f"something was left behind: {text}")
            time.sleep(0.01)
