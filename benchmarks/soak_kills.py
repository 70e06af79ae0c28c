"""Downloads and uploads that are killed: ``python -m benchmarks.soak --only kills``.

A download in chunks and an upload run in child processes, which get SIGKILL after a random time. After each kill every
file under a final name has to be right; after one clean run at the end the bytes are right and nothing else is there.
An upload that is killed in its middle has the next process send what is missing, here and to docker-registry.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import tempfile
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import transferkit as tk
from benchmarks import servers
from benchmarks.soak_rig import MIB, PROCESSES, Say, WrongBytes, check_exactly, check_names, make_blobs
from transferkit.content.descriptor import Descriptor
from transferkit.storage.uploads import UploadNotes
from transferkit.testing import FaultProxy, fault_proxy
from transferkit.testing.registry import RunningRegistry, running_registry

REPOSITORY = "library/soak"
RATE = 40 * MIB  # bytes/s: a transfer takes some tenths of a second, so that most kills hit it
EACH = 20  # kills: so often an upload is killed in its middle, to see what the next process sends
MOST = 0.75  # of the blob, which the next process may send where half of it was there


def transfer(
    what: str, url: str, repository: str, blob: tk.Blob, folder: str, part_size: int | None, notes: int = 0
) -> None:
    """What a child does; where it is to write ``notes`` on its upload, that is its end."""
    if notes:
        kill_after(notes)
    options = tk.TransferOptions(
        chunk_threshold=MIB, chunk_size=MIB // 4, resume_threshold=MIB, max_bandwidth=RATE, part_size=part_size
    )
    call = tk.download if what == "download" else tk.upload
    call([blob], folder, base_url=url, repository=repository, options=options)


def kill_after(notes: int) -> None:
    """Have this process killed once it has written so many notes: between two parts, when nothing is on its way."""
    save, left = UploadNotes.save, iter(range(notes - 1))

    def counted(self: UploadNotes, descriptor: Descriptor, note: dict[str, Any]) -> None:
        save(self, descriptor, note)
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    UploadNotes.save = counted  # type: ignore[method-assign]  # in a child of this soak alone


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
        self._numbers = itertools.count()

    def _start(
        self, what: str, repository: str, *, url: str = "", parts: bool = False, notes: int = 0
    ) -> ForkServerProcess:
        folder = self._folder if what == "download" else self._source
        part_size = MIB if parts else None
        arguments = (what, url or self._registry.url, repository, self._blob, str(folder), part_size, notes)
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
            if number % EACH == 0:
                self.continues(self._registry.url, parts=False)
                self.continues(self._registry.url, parts=True)
        self._end(self._start("upload", f"{REPOSITORY}-last"))
        check_names(blobs)
        if not (blobs / self._name).exists():
            raise WrongBytes("after a clean upload the blob is not there")

    def continues(self, url: str, *, parts: bool, between: bool = False) -> int:
        """Kill an upload in its middle, or ``between`` two parts; return how many bytes the next process sends.

        Raises:
            WrongBytes: they are about all of it again.
        """
        repository, size = f"{REPOSITORY}-middle-{next(self._numbers)}", self._blob.size
        notes = size // MIB // 2 + 2 if between else 0  # the first one comes before the first part
        with fault_proxy(url) as proxy:
            child = self._start("upload", repository, url=proxy.url, parts=parts, notes=notes)
            while child.exitcode is None and (between or _up(proxy) < size / 2):
                time.sleep(0.002)
            child.kill()
            child.join()
            if child.exitcode != -signal.SIGKILL:
                raise WrongBytes(f"an upload ended with {child.exitcode} before its kill")
            before = _up(proxy)
            self._end(self._start("upload", repository, url=proxy.url, parts=parts))
            again = _up(proxy) - before
        if again > MOST * size:
            raise WrongBytes(f"{again} bytes of {size} were sent after a kill, though half of them were there")
        return again

    def continues_elsewhere(self, folder: Path, say: Say) -> None:
        """Do that between two parts to docker-registry, which ends a session that has got a part of a part."""
        try:
            with servers.registry(folder) as registry:
                again = self.continues(registry.url, parts=True, between=True)
            say(f"docker-registry: {again / MIB:.0f} MiB of {self._blob.size / MIB:.0f} were sent after a kill")
        except servers.ServerError as error:
            say(f"docker-registry: {error}")

    def _sent(self, finished: int) -> str:
        """Tell how much of what the registry took it would not have needed, had nothing been sent again."""
        received = sum(request.received for request in self._registry.log)
        needed = self._blob.size * finished
        again = max(0, received - needed - self._blob.size)
        return f"{received / MIB:.0f} MiB were sent for {needed / MIB:.0f}, {again / MIB:.0f} of them again"


def _up(proxy: FaultProxy) -> int:
    return sum(connection.up for connection in proxy.connections)


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
            run.continues_elsewhere(Path(name, "docker-registry"), say)
