"""Two and four processes download into one folder: ``python -m benchmarks.soak --only folder``.

The locks of their file system work; or they are granted to everybody, as some Lustre, GPFS and NFS do it; or they are
refused. Some of the processes are killed, and begin again. Whoever returns with success finds the right bytes, each
process ends in time, and after all of them nothing unfinished is left.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import signal
import tempfile
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import transferkit as tk
from benchmarks.soak_rig import KIB, MIB, PROCESSES, Say, WrongBytes, check_exactly, check_names, make_blobs
from transferkit.testing import running_registry

LOCKS = ("work", "lie", "fail")
REPOSITORY = "library/soak"
LONGEST = 60.0  # seconds that a process may take; most take one
_RATE = 24 * MIB  # bytes/s of each process, so that they meet
_SIZES = [0, 10, 50 * KIB, MIB // 2, MIB + 1, 6 * MIB]
_WRONG = 3  # the exit status of a process that found wrong bytes after its success


def break_locks(how: str) -> None:
    """Have the locks of this process work, lie or fail."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if how != "work":
        fcntl.flock = refuse if how == "fail" else lambda *_: None


def download(locks: str, url: str, blobs: list[tk.Blob], folder: str, delay: float) -> None:
    """What a child does."""
    break_locks(locks)
    time.sleep(delay)
    options = tk.TransferOptions(
        concurrency=4, chunk_threshold=MIB, chunk_size=MIB // 4, resume_threshold=MIB // 4, max_bandwidth=_RATE
    )
    report = tk.download(blobs, folder, base_url=url, repository=REPOSITORY, options=options)
    for digest, path in report.paths.items():
        with open(path, "rb") as file:
            if "sha256:" + hashlib.sha256(file.read()).hexdigest() != digest:
                os._exit(_WRONG)


class Sharing:
    """One folder, and the processes that share it."""

    def __init__(self, folder: Path, url: str, blobs: list[tk.Blob], rng: random.Random) -> None:
        self._folder = folder
        self._url = url
        self._blobs = blobs
        self._rng = rng

    def run(self, locks: str, processes: int) -> None:
        """Have so many processes download at once; kill some of them, and begin those again."""
        children = [self._start(locks) for _ in range(processes)]
        victims = [child for child in children if self._rng.random() < 0.3]
        for victim in victims:
            time.sleep(self._rng.uniform(0, 0.3))
            victim.kill()
            children.append(self._start(locks))
        for child in children:
            child.join(LONGEST)
            if child.exitcode is None:
                child.kill()
                raise WrongBytes(f"a process of {processes} was not done after {LONGEST:.0f} s; locks {locks}")
            if child.exitcode != 0 and not (child in victims and child.exitcode == -signal.SIGKILL):
                what = "found wrong bytes after its success" if child.exitcode == _WRONG else f"ended: {child.exitcode}"
                raise WrongBytes(f"a process of {processes} {what}; locks {locks}")
            check_names(self._folder)
            child.close()
        if victims:
            tk.discard(self._folder, older_than=0)  # what a killed process left behind for itself alone
        check_exactly(self._folder, self._blobs)

    def _start(self, locks: str) -> ForkServerProcess:
        arguments = (locks, self._url, self._blobs, str(self._folder), self._rng.uniform(0, 0.05))
        child = PROCESSES.Process(target=download, args=arguments, daemon=True)
        child.start()
        return child


def soak_folder(runs: int, *, seed: int, say: Say = lambda text: None) -> None:
    """Have two and four processes share a folder, so many times with each kind of lock.

    Raises:
        WrongBytes: what must not be is.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="transferkit-soak-") as name:
        with running_registry(os.path.join(name, "registry"), threads=32) as registry:
            blobs = make_blobs(Path(name, "source"), rng, _SIZES)
            tk.upload(blobs, Path(name, "source"), base_url=registry.url, repository=REPOSITORY)
            for number in range(runs):
                for locks in LOCKS:
                    for processes in (2, 4):
                        folder = Path(name, f"{number}-{locks}-{processes}")
                        Sharing(folder, registry.url, blobs, rng).run(locks, processes)
                say(f"folder: {number + 1} of {runs} runs, with locks that {', '.join(LOCKS)}")
