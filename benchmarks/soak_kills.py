"""Downloads and uploads that are killed: ``python -m benchmarks.soak --only kills``.

A download in chunks and an upload run in child processes, which get SIGKILL after a random time. After each kill every
file under a final name has to be right; after one clean run at the end the bytes are right and nothing else is there.
What the killed uploads have sent is compared with what was needed.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import transferkit as tk
from benchmarks.soak_rig import MIB, PROCESSES, Say, WrongBytes, check_exactly, check_names, make_blobs
from transferkit.testing.registry import RunningRegistry, running_registry

REPOSITORY = "library/soak"
RATE = 40 * MIB  # bytes/s: a transfer takes some tenths of a second, so that most kills hit it


def transfer(what: str, url: str, repository: str, blob: tk.Blob, folder: str, part_size: int | None) -> None:
    """What a child does."""
    options = tk.TransferOptions(
        chunk_threshold=MIB, chunk_size=MIB // 4, resume_threshold=MIB, max_bandwidth=RATE, part_size=part_size
    )
    call = tk.download if what == "download" else tk.upload
    call([blob], folder, base_url=url, repository=repository, options=options)


class Soak:
    """One blob, moved again and again. ``say`` is told how far it is."""

    def __init__(self, folder: Path, registry: RunningRegistry, *, seed: int, size: int) -> None:
        self._rng = random.Random(seed)
        self._registry = registry
        self._span = size / RATE * 1.5 + 0.1  # seconds in which the kill comes
        self._source = folder / "source"
        self._folder = folder / "downloaded"
        (self._blob,) = make_blobs(self._source, self._rng, [size])
        self._name = tk.digest_to_path(self._blob.digest)

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

    def downloads(self, kills: int, say: Say) -> None:
        """Kill downloads; each goes on where the one before was killed."""
        self._end(self._start("upload", REPOSITORY))
        finished = 0
        for number in range(kills):
            ended = self._kill(self._start("download", REPOSITORY))
            check_names(self._folder)
            if ended:
                finished += 1
            if (self._folder / self._name).exists():
                (self._folder / self._name).unlink()
            say(f"download {number + 1} of {kills}: {finished} ended before their kill")
        self._end(self._start("download", REPOSITORY))
        check_exactly(self._folder, [self._blob])

    def uploads(self, kills: int, say: Say) -> None:
        """Kill uploads, streamed ones and ones in parts by turns; each goes on where the one before was killed."""
        blobs = self._registry.store / "blobs"
        finished = 0
        self._registry.log.clear()
        for number in range(kills):
            # Another repository does not see the blob, so that it is sent again.
            finished += self._kill(self._start("upload", f"{REPOSITORY}{finished}", parts=number % 2 == 1))
            check_names(blobs)
            say(f"upload {number + 1} of {kills}: {finished} ended before their kill; {self._sent(finished)}")
        self._end(self._start("upload", f"{REPOSITORY}-last"))
        check_names(blobs)
        if not (blobs / self._name).exists():
            raise WrongBytes("after a clean upload the blob is not there")

    def _sent(self, finished: int) -> str:
        """Tell how much of what the registry took it would not have needed, had nothing been sent again."""
        received = sum(request.received for request in self._registry.log)
        needed = self._blob.size * finished
        again = max(0, received - needed - self._blob.size)
        return f"{received / MIB:.0f} MiB were sent for {needed / MIB:.0f}, {again / MIB:.0f} of them again"


def soak_kills(kills: int, *, seed: int, size: int, say: Say = lambda text: None) -> None:
    """Kill ``kills`` downloads and as many uploads of a blob of ``size`` bytes.

    Raises:
        WrongBytes: what must not be is.
    """
    with tempfile.TemporaryDirectory(prefix="transferkit-soak-") as name:
        with running_registry(os.path.join(name, "registry")) as registry:
            run = Soak(Path(name), registry, seed=seed, size=size)
            run.downloads(kills, say)
            run.uploads(kills, say)
