"""Kills transfers at random moments, many times: ``python -m benchmarks.soak --kills 200 --seed 1``.

A download in chunks and an upload run in child processes, which get SIGKILL after a random time. After each kill every
file under a final name has to be right; after one clean run at the end the bytes are right and nothing else is there.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import transferkit as tk
from transferkit.testing.registry import RunningRegistry, running_registry

MIB = 1024 * 1024
REPOSITORY = "library/soak"
RATE = 40 * MIB  # bytes/s: a transfer takes some tenths of a second, so that most kills hit it
# Forked from a process that has imported everything: a new interpreter for each kill took most of the time.
PROCESSES = multiprocessing.get_context("forkserver")
PRELOADED = ["benchmarks.soak", "transferkit.bulk"]


def transfer(what: str, url: str, repository: str, blob: tk.Blob, folder: str, part_size: int | None) -> None:
    """What a child does."""
    options = tk.TransferOptions(
        chunk_threshold=MIB, chunk_size=MIB // 4, resume_threshold=MIB, max_bandwidth=RATE, part_size=part_size
    )
    call = tk.download if what == "download" else tk.upload
    call([blob], folder, base_url=url, repository=repository, options=options)


class WrongBytes(AssertionError):
    """Something stands under a final name that is not what the name says, or that should not be there."""


class Soak:
    """One blob, moved again and again. ``say`` is told how far it is."""

    def __init__(self, folder: Path, registry: RunningRegistry, *, seed: int, size: int) -> None:
        self._rng = random.Random(seed)
        self._registry = registry
        self._span = size / RATE * 1.5 + 0.1  # seconds in which the kill comes
        self._source = folder / "source"
        self._folder = folder / "downloaded"
        self._source.mkdir()
        data = self._rng.randbytes(size)
        self._blob = tk.Blob("sha256:" + hashlib.sha256(data).hexdigest(), size)
        self._name = tk.digest_to_path(self._blob.digest)
        (self._source / self._name).write_bytes(data)

    def _start(self, what: str, repository: str, *, parts: bool = False) -> ForkServerProcess:
        folder = self._folder if what == "download" else self._source
        part_size = MIB if parts else None
        arguments = (what, self._registry.url, repository, self._blob, str(folder), part_size)
        child = PROCESSES.Process(target=transfer, args=arguments, daemon=True)
        child.start()
        return child

    def _kill(self, child: ForkServerProcess) -> bool:
        """Kill a child at a random moment; tell whether it had ended by itself."""
        child.join(self._rng.uniform(0, self._span))
        if child.exitcode is None:
            child.kill()
            child.join()
        if child.exitcode not in (0, -signal.SIGKILL):
            raise WrongBytes(f"a child ended with {child.exitcode}")
        return child.exitcode == 0

    def _end(self, child: ForkServerProcess) -> None:
        child.join()
        if child.exitcode:
            raise WrongBytes(f"a transfer that nobody killed ended with {child.exitcode}")

    def downloads(self, kills: int, say: Callable[[str], None]) -> None:
        """Kill downloads; each goes on where the one before was killed."""
        self._end(self._start("upload", REPOSITORY))
        finished = 0
        for number in range(kills):
            ended = self._kill(self._start("download", REPOSITORY))
            self._check(self._folder)
            if ended:
                finished += 1
            if (self._folder / self._name).exists():
                (self._folder / self._name).unlink()
            say(f"download {number + 1} of {kills}: {finished} ended before their kill")
        self._end(self._start("download", REPOSITORY))
        self._check(self._folder)
        found = sorted(str(path.relative_to(self._folder)) for path in self._folder.rglob("*") if path.is_file())
        if found != [".partial/verified", self._name]:
            raise WrongBytes(f"after a clean download there is {found}")

    def uploads(self, kills: int, say: Callable[[str], None]) -> None:
        """Kill uploads, streamed ones and ones in parts by turns."""
        blobs = self._registry.store / "blobs"
        finished = 0
        for number in range(kills):
            # Another repository does not see the blob, so that it is sent again.
            finished += self._kill(self._start("upload", f"{REPOSITORY}{finished}", parts=number % 2 == 1))
            self._check(blobs)
            say(f"upload {number + 1} of {kills}: {finished} ended before their kill")
        self._end(self._start("upload", f"{REPOSITORY}-last"))
        self._check(blobs)
        if not (blobs / self._name).exists():
            raise WrongBytes("after a clean upload the blob is not there")

    @staticmethod
    def _check(folder: Path) -> None:
        if not folder.exists():
            return
        for path in folder.iterdir():
            if path.name.startswith("sha256-") and "." not in path.name:
                found = "sha256-" + hashlib.sha256(path.read_bytes()).hexdigest()
                if found != path.name:
                    raise WrongBytes(f"{path} has the digest {found}")


def soak(kills: int, *, seed: int, size: int, say: Callable[[str], None] = lambda text: None) -> None:
    """Kill ``kills`` downloads and as many uploads of a blob of ``size`` bytes.

    Raises:
        WrongBytes: what must not be is.
    """
    PROCESSES.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory(prefix="transferkit-soak-") as name:
        with running_registry(os.path.join(name, "registry")) as registry:
            run = Soak(Path(name), registry, seed=seed, size=size)
            run.downloads(kills, say)
            run.uploads(kills, say)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Kill transfers at random moments.")
    parser.add_argument("--kills", type=int, default=200, help="of downloads, and of uploads (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments (default: 1)")
    parser.add_argument("--size", type=int, default=16, help="of the blob, in MiB (default: 16)")
    args = parser.parse_args(arguments)
    if args.kills < 1 or args.size < 2:
        parser.error("--kills is at least 1, --size at least 2")
    soak(args.kills, seed=args.seed, size=args.size * MIB, say=lambda text: print(text, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
