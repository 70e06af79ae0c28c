"""Interrupts transfers at random moments: ``python -m benchmarks.interrupts --single 2000 --double 500 --seed 1``.

One child process downloads and uploads again and again, and gets SIGINT after a random time, also two of them within a
millisecond. After each the call has to be over within a second and to have left no thread; at the end what is there
has to be right, and no more than a few descriptors may be left open: nobody can give back one that the system has
just opened when the interrupt comes, before its number is stored.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import transferkit as tk
from transferkit.testing.registry import running_registry

REPOSITORY = "library/interrupted"
SMALL = 20  # blobs, of some KiB, and one large one
MIB = 1024 * 1024
LARGE = 8 * MIB
KINDS = ("download-short", "upload-short", "download-long", "upload-long")
SPAN = 0.3  # seconds in which most interrupts come
START = 0.005  # those of the others: a call begins in it
LIMIT = 1.0  # seconds from the first interrupt to the end of the call
FEW = 4  # descriptors; so many more are no leak of every call
STUCK = 15.0  # seconds after which the child is asked where it is, and killed

CHILD = """
import faulthandler, gc, json, os, signal, sys, threading, time
import transferkit as tk
faulthandler.register(signal.SIGUSR1, all_threads=True)
given = json.loads(sys.argv[1])
blobs = [tk.Blob(digest, size) for digest, size in given["blobs"]]
armed, struck = False, []

def strike(number, frame):
    if armed:
        struck.append(time.monotonic())
        raise KeyboardInterrupt

def swallowed(what):
    # What comes while a destructor runs, Python does not pass on: then it comes again, and not within this function.
    if what.exc_type is KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
    else:
        sys.__unraisablehook__(what)

def call(kind, number):
    way, length = kind.split("-")
    options = tk.TransferOptions(chunk_threshold=1 << 20, chunk_size=1 << 18, resume_threshold=1 << 20,
                                 max_bandwidth=1_000_000 if length == "long" else None)
    some = blobs if length == "long" else blobs[:-1]
    where = dict(base_url=given["url"], options=options)
    if way == "download":
        tk.download(some, f"{given['folder']}/{length}-{number % 5}", repository="library/interrupted", **where)
    else:
        tk.upload(some, given["folder"] + "/source", repository=f"library/{length}{number}", **where)

def once(kind, number):
    global armed
    struck.clear()
    error = None
    try:
        try:
            armed = True
            call(kind, number)
        finally:
            armed = False
    except KeyboardInterrupt:
        pass
    except tk.TransferKitError as other:
        error = repr(other)
    armed = False
    ended = time.monotonic()
    took = ended - struck[0] if struck else None
    while ours() and time.monotonic() - ended < 1.0:
        time.sleep(0.001)  # a driver that has said its last word is alive for a moment still
    return dict(took=took, threads=ours(), error=error)

def ours():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("transferkit")]

def descriptors():
    gc.collect()
    return len(os.listdir("/dev/fd"))

sys.unraisablehook = swallowed
signal.signal(signal.SIGINT, strike)
signal.signal(signal.SIGALRM, strike)
for kind in ("download-short", "upload-short"):
    once(kind, 0)
print(json.dumps(descriptors()), flush=True)
gc.disable()
for line in sys.stdin:
    kind, number = json.loads(line)
    print(json.dumps("begun"), flush=True)
    print(json.dumps(once(kind, number)), flush=True)
    if number % 50 == 49:
        gc.collect()
print(json.dumps(descriptors()), flush=True)
"""


class Unstoppable(AssertionError):
    """A call that was interrupted went on, or left something behind."""


class Target:
    """The child that is interrupted. A context manager."""

    def __init__(self, url: str, folder: Path, blobs: Sequence[tk.Blob]) -> None:
        given = {"url": url, "folder": str(folder), "blobs": [(blob.digest, blob.size) for blob in blobs]}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed on the way out
        self._child = subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
        )
        self._said = b""
        self.descriptors: int = self.hear(60.0)

    def hear(self, seconds: float = STUCK) -> Any:
        """Return what the child says next; Unstoppable: it says nothing for so long, or something on its stderr."""
        assert self._child.stdout is not None
        said = self._child.stdout.fileno()
        while b"\n" not in self._said:
            block = os.read(said, 65536) if select.select([said], [], [], seconds)[0] else b""
            if not block:
                self._child.send_signal(signal.SIGUSR1)  # it writes where each of its threads is
                time.sleep(0.5)
                raise Unstoppable(f"the child says nothing more:\n{self.errors()}")
            self._said += block
        line, _, self._said = self._said.partition(b"\n")
        return json.loads(line)

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def begin(self, kind: str, number: int) -> None:
        """Have a call begin, and return once it is about to."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps([kind, number]) + "\n")
        if self.hear() != "begun":
            raise Unstoppable("the child is out of step")

    def interrupt(self) -> None:
        self._child.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Let the child end, and return how many descriptors it had open."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        return int(self.hear())

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout, self._errors):
            assert stream is not None
            stream.close()


def make_blobs(folder: Path, rng: random.Random) -> list[tk.Blob]:
    folder.mkdir()
    blobs = []
    for size in [*(rng.randrange(1, 8192) for _ in range(SMALL)), LARGE]:
        data = rng.randbytes(size)
        blobs.append(tk.Blob("sha256:" + hashlib.sha256(data).hexdigest(), size))
        (folder / tk.digest_to_path(blobs[-1].digest)).write_bytes(data)
    return blobs


def shoot(target: Target, number: int, rng: random.Random, *, twice: bool) -> float:
    """Interrupt one call, and return how long it went on after that."""
    kind = KINDS[number % len(KINDS)]
    target.begin(kind, number)
    time.sleep(rng.uniform(0, START if rng.random() < 0.4 else SPAN))
    target.interrupt()
    if twice:
        time.sleep(rng.uniform(0, 0.001))
        target.interrupt()
    said = target.hear()
    if said["error"]:
        raise Unstoppable(f"{kind} {number} ended with {said['error']}")
    if said["threads"] or (said["took"] or 0.0) > LIMIT:
        raise Unstoppable(f"{kind} {number}: {said['took']} s after its interrupt, with the threads {said['threads']}")
    return said["took"] or 0.0


def interrupts(single: int, double: int, *, seed: int, say: Callable[[str], None] = lambda text: None) -> None:
    """Interrupt ``single`` calls once and ``double`` ones twice within a millisecond.

    Raises:
        Unstoppable: one lived longer than a second, or left a thread, a descriptor or wrong bytes.
    """
    rng = random.Random(seed)
    turns = [False] * single + [True] * double
    rng.shuffle(turns)
    with tempfile.TemporaryDirectory(prefix="transferkit-interrupts-") as name:
        folder = Path(name)
        blobs = make_blobs(folder / "source", rng)
        with running_registry(folder / "registry", threads=80) as registry:
            tk.upload(blobs, folder / "source", base_url=registry.url, repository=REPOSITORY)
            with Target(registry.url, folder, blobs) as target:
                longest = 0.0
                for number, twice in enumerate(turns):
                    longest = max(longest, shoot(target, number, rng, twice=twice))
                    registry.log.clear()
                    if number % 100 == 99:
                        say(f"{number + 1} of {len(turns)} calls interrupted; the longest went on for {longest:.3f} s")
                more = target.end() - target.descriptors
                if more > FEW + len(turns) // 50 or target.errors():
                    raise Unstoppable(f"{more} descriptors more than at the beginning; {target.errors()}")
            _check(folder, blobs, registry.url)


def _check(folder: Path, blobs: Sequence[tk.Blob], url: str) -> None:
    for copy in [path for path in folder.glob("*-*") if path.is_dir()]:
        options = tk.TransferOptions(chunk_threshold=MIB, chunk_size=MIB // 4, resume_threshold=MIB)
        tk.download(blobs, copy, base_url=url, repository=REPOSITORY, options=options)
        for blob in blobs:
            path = copy / tk.digest_to_path(blob.digest)
            if "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() != blob.digest:
                raise Unstoppable(f"{path} is not what its name says")
        left = sorted(os.listdir(copy / ".partial"))
        if left != ["verified"]:
            raise Unstoppable(f"after a clean download there is {left}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interrupts", description="Interrupt transfers.")
    parser.add_argument("--single", type=int, default=2000, help="calls that are interrupted once (default: 2000)")
    parser.add_argument("--double", type=int, default=500, help="calls that are interrupted twice (default: 500)")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments (default: 1)")
    args = parser.parse_args(arguments)
    print(f"seed {args.seed}")
    interrupts(args.single, args.double, seed=args.seed, say=lambda text: print(text, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
