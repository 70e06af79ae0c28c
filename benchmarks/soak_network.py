"""Uploads and downloads over a network that breaks at random: ``python -m benchmarks.soak --only network``.

Registry and proxy run in a process of their own. Nine connections of ten are reset, ended, silenced, refused
or changed by a bit, at a random byte of one of the two directions. A call may fail with an error of the library's; the
next one goes on. Each call ends in time; what is there in the end is right; threads and descriptors come back.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import transferkit as tk
from benchmarks.soak_rig import KIB, MIB, PROCESSES, Resources, Say, WrongBytes, check_exactly, check_names, make_blobs
from transferkit.testing import ConnectionRecord, fault_proxy, random_faults, running_registry

T = TypeVar("T")

LONGEST = 60.0  # seconds that a call may take; most take one
TRIES = 40  # of a call until it succeeds
_AT_ONCE = 4  # models, each in a thread
_AGAIN = 1000  # faults after which registry and proxy are started again: they remember every connection
_KINDS = ("reset_after", "reset_after_up", "close_after", "silent_after", "silent_after_up", "corrupt_at", "refuse")
_SIZES = [1, 100, *range(KIB, 24 * KIB, KIB), 300 * KIB, 2 * MIB]
OPTIONS = tk.TransferOptions(
    concurrency=16,
    chunk_threshold=MIB,
    chunk_size=256 * KIB,
    resume_threshold=256 * KIB,
    stall_timeout=0.3,
    retry=tk.RetryOptions(attempts=8, patience=1.0, max_wait=0.05),
    transport=tk.TransportOptions(connect_timeout=1.0, response_timeout=0.4, commit_timeout=0.4),
)


def has_struck(record: ConnectionRecord) -> bool:
    """Tell whether the fault that a connection was given has come about."""
    faults = record.faults
    positions = ((faults.silent_after, record.down), (faults.silent_after_up, record.up))
    is_silent = any(after is not None and passed >= after for after, passed in positions)
    is_corrupt = faults.corrupt_at is not None and record.down > faults.corrupt_at
    return record.ended in ("reset", "closed", "refused") or is_silent or is_corrupt


def serve(store: str, seed: str, pipe: Connection) -> None:
    """What the other process does: it says its URL, and then, as often as it is asked, how many faults have struck."""
    faults = random_faults(seed, share=0.9, within=48 * KIB, kinds=_KINDS)
    with running_registry(store, threads=128) as registry, fault_proxy(registry.url, faults) as proxy:
        pipe.send(proxy.url)
        while pipe.recv():
            pipe.send(sum(map(has_struck, proxy.connections)))


@contextmanager
def network(store: Path, seed: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """Run a registry behind a proxy, and give its URL, and what asks for the number of faults so far."""
    ours, theirs = PROCESSES.Pipe()
    child = PROCESSES.Process(target=serve, args=(str(store), seed, theirs), daemon=True)
    child.start()
    theirs.close()

    def count() -> int:
        ours.send(True)
        return int(ours.recv())

    try:
        yield ours.recv(), count
    finally:
        ours.send(False)
        child.join(10)
        child.kill()
        child.join()
        child.close()
        ours.close()


def insist(call: Callable[[tk.Cancellation], T]) -> T:
    """Call until it succeeds, each time for so long at most.

    Raises:
        WrongBytes: it took too long, or never succeeded.
    """
    for _ in range(TRIES):
        cancel = tk.Cancellation()
        timer = threading.Timer(LONGEST, cancel.cancel)
        timer.start()
        try:
            return call(cancel)
        except tk.CancelledError as error:
            raise WrongBytes(f"a call took more than {LONGEST:.0f} s") from error
        except tk.TransferKitError as error:
            last = error
        finally:
            timer.cancel()
            timer.join()
    raise WrongBytes(f"{TRIES} calls have failed, the last one with: {last}") from last


def move(folder: Path, url: str, seed: int) -> None:
    """Upload a model, and download it."""
    rng = random.Random(seed)
    sizes = [*rng.sample(_SIZES, 20), 4 * MIB]
    blobs = make_blobs(folder / "source", rng, sizes)
    layers = [{"mediaType": "application/x", "digest": blob.digest, "size": blob.size} for blob in blobs]
    raw = json.dumps({"schemaVersion": 2, "config": layers[0], "layers": layers[1:]}).encode()
    where = {"base_url": url, "repository": f"library/{folder.name}"}
    source, target = folder / "source", folder / "target"

    insist(
        lambda cancel: tk.upload(
            blobs, source, **where, manifest=raw, manifest_ref="v1", options=OPTIONS, cancel=cancel
        )
    )
    manifest = insist(lambda cancel: tk.fetch_manifest("v1", **where, options=OPTIONS, cancel=cancel))
    if manifest.raw != raw:
        raise WrongBytes("another manifest came back")
    insist(lambda cancel: tk.download(manifest, target, **where, options=OPTIONS, cancel=cancel))
    check_exactly(target, blobs)
    shutil.rmtree(folder)


def soak_network(faults: int, *, seed: int, say: Say = lambda text: None) -> None:
    """Move models until so many faults have struck.

    Raises:
        WrongBytes: what must not be is.
    """
    rng = random.Random(seed)
    struck = models = 0
    resources = None
    while struck < faults:
        with tempfile.TemporaryDirectory(prefix="transferkit-soak-") as name, ThreadPoolExecutor(_AT_ONCE) as threads:
            with network(Path(name, "registry"), f"{seed}:{models}") as (url, count):
                before = struck
                while struck < min(faults, before + _AGAIN):
                    moves = [
                        threads.submit(move, Path(name, f"model-{number}"), url, rng.randrange(2**32))
                        for number in range(models, models + _AT_ONCE)
                    ]
                    for moved in moves:
                        moved.result()
                    models += _AT_ONCE
                    struck = before + count()
                    say(f"network: {struck} of {faults} faults, {models} models went up and down")
                check_names(Path(name, "registry", "blobs"))
        if resources is None:
            resources = Resources()  # the first time, things are imported and kept
        resources.check()
