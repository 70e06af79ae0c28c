"""Many calls at once in many threads, each of whose figures is checked: ``python -m benchmarks.threads --rounds 50``.

For any interpreter; one with a lock of its own is made to switch threads as often as it can. Without that lock it also
checks that nothing has switched it on again. Needs ``transferkit[server]`` and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import requests

import transferkit as tk
from transferkit.testing.registry import RunningRegistry, running_registry

CALLERS = 4  # calls at once
WORKERS = 8  # threads of each
SMALL = 60  # blobs of a call, of up to 4 KiB
LARGE = (5, 8)  # blobs of a call, by their number of chunks
CHUNK = 64 * 1024
SWITCH = 1e-6  # seconds
OPTIONS = tk.TransferOptions(
    chunk_threshold=CHUNK, chunk_size=CHUNK, resume_threshold=CHUNK, progress_interval=0.001, stall_timeout=60.0
)


def has_lock() -> bool:
    """Tell whether the interpreter lets one thread run at a time."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


@contextmanager
def switching() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Heard(tk.Trace):
    """What a trace hears, and from how many threads it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []  # appended to by all workers
        self.statuses: list[tk.Status] = []

    def started(self, descriptor: tk.Descriptor) -> None:
        self.events.append(("started", descriptor.digest))

    def done(self, descriptor: tk.Descriptor) -> None:
        self.events.append(("done", descriptor.digest))

    def cached(self, descriptor: tk.Descriptor) -> None:
        self.events.append(("cached", descriptor.digest))

    def status(self, status: tk.Status) -> None:
        self.statuses.append(status)

    def of(self, kind: str) -> list[str]:
        return sorted(digest for what, digest in self.events if what == kind)


class Call:
    """One call of one caller, with what it is told."""

    def __init__(self, folder: Path, repository: str, rng: random.Random) -> None:
        self.folder, self.repository = folder, repository
        sizes = [rng.randrange(1, 4096) for _ in range(SMALL)]
        sizes += [CHUNK * chunks - rng.randrange(CHUNK // 2) for chunks in LARGE]
        self.blobs: list[tk.Blob] = []
        source = folder / "source"
        source.mkdir(parents=True)
        for size in sizes:
            data = rng.randbytes(size)
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            (source / tk.digest_to_path(digest)).write_bytes(data)
            self.blobs.append(tk.Blob(digest, size))
        self.total = sum(sizes)

    def run(self, way: Callable[..., tk.Report], folder: str, url: str, session: requests.Session) -> tk.Report:
        """Make a call, and check what it tells."""
        heard, told = Heard(), []
        report = way(
            self.blobs,
            self.folder / folder,
            base_url=url,
            repository=self.repository,
            concurrency=WORKERS,
            session=session,
            options=OPTIONS,
            trace=heard,
            progress=lambda *pair: told.append(pair),
        )
        digests = sorted(blob.digest for blob in self.blobs)
        check("blobs", len(self.blobs), report.blobs)
        check("the last progress", (self.total, self.total), told[-1])
        if not report.retried:  # what is thrown away is progress no more
            check("the order of the progress", sorted(told), told)
        check("the blobs that were told", digests, sorted(heard.of("done") + heard.of("cached")))
        last = heard.statuses[-1]
        check("the last status", (self.total, self.total), (last.completed, last.total))
        check("what was moved, and what was there", self.total, last.moved + last.cached - excess(report, self.total))
        check("what was moved, twice", report.bytes, last.moved)
        check("no more in place than there is", [], [each for each in heard.statuses if each.completed > each.total])
        wrong = [(blob.size, at) for each in heard.statuses for blob, at in each.blobs if not 0 <= at <= blob.size]
        check("no blob further than its end", [], wrong)
        return report

    def check_content(self, folder: str) -> None:
        for blob in self.blobs:
            data = (self.folder / folder / tk.digest_to_path(blob.digest)).read_bytes()
            check("content", blob.digest, f"sha256:{hashlib.sha256(data).hexdigest()}")


def excess(report: tk.Report, total: int) -> int:
    """Return how many bytes came twice, as some were asked for again."""
    return max(0, report.bytes - total)


def check(what: str, expected: object, actual: object) -> None:
    if expected != actual:
        raise AssertionError(f"{what}: expected {str(expected)[:500]}, and it is {str(actual)[:500]}")


def at_once(work: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do all of it at once, each in a thread of its own, begun together; raise the first error."""
    results: list[Any] = [None] * len(work)
    errors: list[BaseException] = []
    start = threading.Barrier(len(work))

    def run(number: int) -> None:
        try:
            start.wait(60.0)
            results[number] = work[number]()
        except BaseException as error:  # noqa: BLE001 - it is raised where this thread is waited for
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), name=f"caller-{number}") for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


class Ports:
    """Counts the connections that an application was spoken to on. It has no lists of chunks: they would all be one."""

    def __init__(self, application: Any) -> None:
        self.seen: set[str] = set()
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.seen.add(environ["REMOTE_PORT"])
        if "/chunksums/" in environ["PATH_INFO"]:
            start_response("404 Not Found", [("Content-Length", "0")])
            return [b""]
        return self._application(environ, start_response)


def one_round(folder: Path, registry: RunningRegistry, ports: Ports, seed: int) -> int:
    """Push and pull what several callers have, all at once; return the number of requests."""
    rng, log = random.Random(seed), registry.log
    calls = [Call(folder / str(number), f"library/caller{number}", rng) for number in range(CALLERS)]
    every = sum(len(call.blobs) for call in calls)
    total = 0
    with requests.Session() as session:
        session.mount("http://", tk.PooledAdapter(connections=CALLERS * WORKERS))
        for way, source, asked in (
            (tk.upload, "source", ("POST", "PUT")),  # a blob is stored once
            (tk.download, "pulled", ("GET",)),  # it comes by one request, or by one a chunk
            (tk.download, "pulled", ()),  # it is there
        ):
            log.clear()
            ports.seen.clear()
            reports = at_once([partial(call.run, way, source, registry.url, session) for call in calls])
            retried = sum(report.retried for report in reports)
            wanted = (every + CALLERS * (sum(LARGE) - len(LARGE)) * ("GET" in asked)) if asked else 0
            done = [each.path for each in log if each.method in asked and each.status in (200, 201, 206)]
            found = len(done) if asked else len(log)
            # What was cut is asked for again: on a machine that stands still for a second. Else the figure is exact.
            check(f"requests of {way.__name__}", True, wanted <= found <= wanted + retried)
            check(f"connections of {way.__name__}", True, len(ports.seen) <= CALLERS * WORKERS + retried)
            check("skipped", [0 if asked else len(call.blobs) for call in calls], [each.skipped for each in reports])
            moved = [call.total if asked else 0 for call in calls]
            check("moved", True, all(each.bytes >= size for each, size in zip(reports, moved, strict=True)))
            if not retried:
                check("moved", moved, [each.bytes for each in reports])
            total += len(log)
        for call in calls:
            call.check_content("pulled")
    return total


def run(folder: Path, rounds: int, seed: int) -> int:
    """Do so many rounds, and return the number of requests. AssertionError: a figure is wrong."""
    before, threads, total = has_lock(), threading.active_count(), 0
    made: list[Ports] = []

    def counted(application: Any) -> Ports:
        made.append(Ports(application))
        return made[0]

    with switching(), running_registry(folder / "registry", middleware=counted, threads=CALLERS * WORKERS) as registry:
        for number in range(rounds):
            total += one_round(folder / f"round{number}", registry, made[0], seed + number)
    check("threads that are left", True, threading.active_count() <= threads)
    check("the lock of the interpreter", before, has_lock())
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    kind = "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "ordinary"
    lock = "with" if has_lock() else "without"
    print(f"Python {sys.version.split()[0]}, {kind}, {lock} its lock; seed {given.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="transferkit-threads-") as folder:
        total = run(Path(folder), given.rounds, given.seed)
    print(f"{given.rounds} rounds, {total} requests in {time.monotonic() - began:.1f} s: every figure is right")


if __name__ == "__main__":
    main()
