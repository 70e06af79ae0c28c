"""What is collected: nothing that any manifest names, that is young, or that a running pull needs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.models import HOUR, add, digest_of, index_of, manifest_of
from transferkit.storage import garbage as module
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import Disk
from transferkit.storage.garbage import reachable

NAME = "smollm:135m"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path: Path, clock: Clock) -> DiskCache:
    return DiskCache(tmp_path, clock=clock)


def stored(cache: DiskCache) -> set[str]:
    return {entry.digest for entry in cache.entries()}


def test_what_no_manifest_names_goes_and_the_rest_stays(cache, clock):
    raw = add(cache, NAME, b"{}", b"weights")
    cache.put(b"orphan")
    clock.now += HOUR + 60
    expected = [digest_of(b"orphan")]
    assert expected == [entry.digest for entry in cache.gc(dry_run=True)]
    assert 4 == len(cache.entries())
    assert expected == [entry.digest for entry in cache.gc()]
    assert {digest_of(raw), digest_of(b"{}"), digest_of(b"weights")} == stored(cache)
    assert [] == cache.gc()


def test_what_is_young_stays_for_an_hour(cache, clock):
    cache.put(b"orphan")
    clock.now += HOUR - 60
    assert [] == cache.gc()
    assert 1 == len(cache.gc(grace=HOUR - 120))


def test_after_an_unlink_only_what_nobody_else_needs_goes(cache, clock):
    one, other = add(cache, "one", b"{}", b"shared", b"ours"), add(cache, "other", b"{}", b"shared")
    cache.unlink("one")
    clock.now += 2 * HOUR
    assert {digest_of(one), digest_of(b"ours")} == {entry.digest for entry in cache.gc()}
    assert [] == cache.missing(cache.document("other").blobs)
    assert other == cache.manifest("other")


def test_many_are_collected_in_one_call_which_lets_others_have_their_turn(cache, clock, monkeypatch):
    monkeypatch.setattr(module, "_MOMENT", -1.0)
    for number in range(20):
        cache.put(b"%d" % number)
    clock.now += 2 * HOUR
    turns: list[int] = []

    class Turn(Disk):
        def lock(self, fd, operation):
            turns.append(operation)
            super().lock(fd, operation)

    assert 20 == len(DiskCache(cache.root, disk=Turn(), clock=clock).gc())
    assert 20 <= turns.count(2)
    assert [] == cache.entries()


def test_of_an_index_all_manifests_and_their_blobs_stay(cache, clock):
    manifests = [manifest_of(b"{%d}" % number, b"layer %d" % number) for number in range(3)]
    inner = index_of(*manifests[1:])
    for raw in (*manifests, inner):
        cache.put(raw)
    for number in range(2):  # those of the third are another platform's, and were not pulled
        cache.put(b"{%d}" % number)
        cache.put(b"layer %d" % number)
    cache.link(NAME, index_of(manifests[0], inner))
    cache.put(b"orphan")
    clock.now += 2 * HOUR
    assert [digest_of(b"orphan")] == [entry.digest for entry in cache.gc()]


@pytest.mark.parametrize(
    "text",
    [
        b'{"schemaVersion": 2, "layers": null, "config": {"digest": "%s"}}',
        b'{"layers": [{"digest": "%s", "size": 1}, {"digest": "%s", "size": 2}]}',
        b'{"a later kind of manifest": ["%s"]}',
        b'{"cut off": "%s',
        b"%s" + b" " * 5 * 1024 * 1024,
    ],
    ids=["null", "two sizes", "unknown", "cut", "long"],
)
@pytest.mark.parametrize("file", ["m/t", "m/bad name", "a/b/c/d/e", "..t"])
def test_of_a_manifest_that_we_would_refuse_the_blobs_stay(cache, clock, text, file):
    """Another program may understand it: whatever it says, what it names is not ours to remove."""
    cache.put(b"weights")
    path = Path(cache.root, "manifests/h.example/n", file)
    path.parent.mkdir(parents=True)
    path.write_bytes(text.replace(b"%s", digest_of(b"weights").encode()))
    clock.now += 2 * HOUR
    assert [] == cache.gc()


def test_of_every_spelling_of_a_name_the_blobs_stay(cache, clock):
    """Ollama asks for the very spelling, so a manifest that another one hides from us is not dead."""
    for model in ("MODEL", "model"):
        cache.put(model.encode())
        path = Path(cache.root, "manifests/h.example/n", model, "t")
        path.parent.mkdir(parents=True)
        path.write_bytes(manifest_of(model.encode()))
    clock.now += 2 * HOUR
    assert [] == cache.gc()


@pytest.mark.parametrize("call", ["read_file", "lstat"])
def test_where_a_manifest_cannot_be_read_nothing_is_removed(tmp_path, clock, call):
    add(DiskCache(tmp_path), NAME, b"{}", b"weights")

    class Broken(Disk):
        pass

    def fail(*_):
        raise OSError(5, "Input/output error")

    disk = Broken()
    inner = manifest_of(b"{}")
    DiskCache(tmp_path).put(inner)
    DiskCache(tmp_path).link("index", index_of(inner))
    setattr(disk, call, fail)
    clock.now += 2 * HOUR
    with pytest.raises(tk.StorageError):
        DiskCache(tmp_path, disk=disk, clock=clock).gc()
    assert 5 == len(DiskCache(tmp_path).entries())


def test_what_a_running_pull_needs_stays(cache, clock):
    cache.put(b"old")
    clock.now += 2 * HOUR
    other = DiskCache(cache.root, clock=clock)
    with cache.pinned([digest_of(b"old"), digest_of(b"to come")]):
        assert [] == other.gc() == other.gc(dry_run=True) == cache.gc()
    assert [digest_of(b"old")] == [entry.digest for entry in other.gc()]


PULL = """
import sys, transferkit as tk
cache = tk.DiskCache(sys.argv[1])
with cache.pinned([tk.Digest(sys.argv[2])]):
    print("pinned", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["kill", "leave"])
def test_what_another_process_needs_stays_until_it_ends_however_it_does(cache, clock, end):
    cache.put(b"old")
    clock.now += 2 * HOUR
    command = [sys.executable, "-c", PULL, cache.root, digest_of(b"old")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert b"pinned\n" == process.stdout.readline()
        assert [] == cache.gc()
        process.kill() if end == "kill" else process.stdin.close()
        process.wait()
    assert 1 == len(cache.gc())
    assert {"verified"} >= set(os.listdir(cache.blobs.unfinished))


def collect_beside(root: Path, clock: Clock, other: threading.Thread) -> int:
    """Collect, have a thread begin while the first blob is being removed, and return how many were removed."""

    class Slow(Disk):
        def unlink(self, path, folder=None):
            if os.path.basename(path).startswith("sha256-") and other.ident is None:
                other.start()
                other.join(0.1)
                assert other.is_alive()
            super().unlink(path, folder)

    removed = len(DiskCache(root, disk=Slow(), clock=clock).gc())
    other.join()
    return removed


def test_a_pull_that_begins_while_something_is_collected_waits_and_then_sees_what_is_there(cache, clock):
    """Between the look for pins and the removal no pin is made: a blob is there for the whole pull, or is fetched."""
    cache.put(b"old")
    clock.now += 2 * HOUR
    seen: list[bool] = []

    def pull() -> None:
        with cache.pinned([digest_of(b"old")]):
            seen.append(os.path.exists(cache.path(digest_of(b"old"))))

    assert 1 == collect_beside(Path(cache.root), clock, threading.Thread(target=pull))
    assert [False] == seen


def test_what_is_put_while_it_is_collected_is_there_afterwards(cache, clock):
    cache.put(b"old")
    clock.now += 2 * HOUR
    assert 1 == collect_beside(Path(cache.root), clock, threading.Thread(target=cache.put, args=[b"old"]))
    assert b"old" == cache.read(digest_of(b"old"))


def test_what_is_put_again_is_young_again(cache, clock):
    """Or ``gc`` of another process takes it away between a ``put`` and the ``link`` that names it."""
    cache.put(b"old")
    os.utime(cache.path(digest_of(b"old")), (1000, 1000))
    cache.blobs.remember(digest_of(b"old"), os.lstat(cache.path(digest_of(b"old"))))
    cache.put(b"old")
    assert [] == cache.gc()


def test_what_is_put_again_at_once_is_left_alone(cache):
    cache.put(b"young")
    before = os.lstat(cache.path(digest_of(b"young")))
    cache.put(b"young")
    assert before.st_ino == os.lstat(cache.path(digest_of(b"young"))).st_ino


def test_strange_files_among_the_blobs_are_not_ours(cache, clock):
    cache.put(b"orphan")
    for name in ("sha256-short", "README", "sha256-" + 64 * "g"):
        Path(cache.blobs.path, name).write_bytes(b"x")
    Path(cache.blobs.path, "sha256-" + 64 * "a").mkdir()
    Path(cache.blobs.path, "sha256-" + 64 * "b").symlink_to("README")
    clock.now += 2 * HOUR
    assert [digest_of(b"orphan")] == [entry.digest for entry in cache.gc()]
    assert 6 == len(os.listdir(cache.blobs.path))


def test_an_index_that_leads_to_itself_or_deep_down_ends():
    deepest = manifest_of(b"weights")
    known = {digest_of(deepest): deepest}
    last = deepest
    for _ in range(3000):
        last = index_of(last)
        known[digest_of(last)] = last
    circle = index_of(last)
    found = reachable([circle], lambda digest: known.get(digest, circle))
    assert {digest_of(b"weights"), digest_of(circle), *known} <= found
