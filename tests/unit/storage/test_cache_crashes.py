"""A store after a crash at every single system call, after a power cut, and beside an Ollama that prunes it.

A disk that does nothing any more leaves what a process leaves that is killed.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.models import HOUR, add, digest_of, manifest_of
from tests.unit.storage.suite import CALLS, DATA, FailingDisk, descriptor_of, store
from tests.unit.storage.volatile import VolatileDisk
from transferkit.names import Name
from transferkit.storage import pace
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import Disk
from transferkit.transfer.flow import WorkerFlow

OLD, NEW = (b"{old}", b"old weights"), (b"{new}", b"new weights", DATA)
BLOB = re.compile(r"sha256-[0-9a-f]{64}\Z")
RAW = manifest_of(*NEW)


class QuickDisk(FailingDisk):
    """What is synced counts as a call, and takes no time."""

    fsync = sync_folder = staticmethod(lambda _: None)


def opened(root: Path, disk: Disk | None = None) -> DiskCache:
    return DiskCache(root, resume_threshold=len(DATA), disk=disk, durable=disk is not None)


def pull(cache: DiskCache) -> None:
    """Bring a model here as ``Registry.pull`` does it, from memory."""
    contents = {descriptor_of(data): data for data in NEW}
    flow = WorkerFlow()
    with cache.lock(Name.from_path("h.example/n/new/t"), flow):
        with cache.pinned([*(blob.digest for blob in contents), digest_of(RAW)]):
            for _ in range(3):
                cache.prepare(contents)
                for blob in contents:
                    if not cache.knows(blob):
                        attempt(lambda blob=blob: store(cache, contents[blob]))
                if not cache.missing(contents):
                    break
            cache.put(RAW)
            cache.link("h.example/n/new:t", RAW)
        cache.blobs.flush()


def attempt(call: Callable[[], object]) -> None:
    for number in range(3):
        try:
            call()
            return
        except tk.TransferKitError as error:
            if not error.retryable or number == 2:
                raise


def link(cache: DiskCache) -> None:
    for data in NEW:
        cache.put(data)
    cache.link("h.example/n/new:t", RAW)


def relink(cache: DiskCache) -> None:
    """Another model gets the name of the old one."""
    for data in NEW:
        cache.put(data)
    cache.link("h.example/n/old:t", RAW)


def edit(cache: DiskCache) -> None:
    """Somebody has edited a manifest by hand."""
    Path(cache.root, "manifests/h.example/n/old/t").write_bytes(manifest_of(*OLD, b"orphan"))
    digest = cache.resolve("h.example/n/old:t")
    if digest not in {entry.digest for entry in cache.entries()}:
        raise tk.StorageError("it could not be stored, which resolve does not tell")


def break_blob(cache: DiskCache) -> None:
    Path(cache.path(digest_of(DATA))).write_bytes(bytes(len(DATA)))


def repair(cache: DiskCache) -> None:
    """As ``Registry.repair`` does it."""
    blob = descriptor_of(DATA)
    if blob.digest in [entry.digest for entry in cache.verify()]:
        cache.take_away(blob)
    cache.prepare([blob])
    attempt(lambda: store(cache, DATA))


def import_file(cache: DiskCache) -> None:
    source = Path(cache.root).with_name("source")
    source.write_bytes(DATA)
    cache.import_file(source)


def unlink(cache: DiskCache) -> None:
    cache.unlink("h.example/n/old:t")


@dataclass(frozen=True)
class Scenario:
    """What is done to a store in which the old model is, and an orphan; and which names and blobs there are then."""

    act: Callable[[DiskCache], object]
    names: tuple[str, ...] = ("old",)
    contents: tuple[bytes, ...] = OLD
    before: Callable[[DiskCache], object] = lambda cache: None
    wrong: bytes = b""
    """Content whose file is wrong at first."""


SCENARIOS = {
    "put": Scenario(lambda cache: cache.put(DATA), contents=(*OLD, DATA)),
    "import": Scenario(import_file, contents=(*OLD, DATA)),
    "link": Scenario(link, ("new", "old"), (*OLD, *NEW)),
    "relink": Scenario(relink, contents=NEW),
    "unlink": Scenario(unlink, ()),
    "gc": Scenario(lambda cache: cache.gc(grace=-HOUR)),
    "resolve": Scenario(edit, contents=(*OLD, b"orphan")),
    "repair": Scenario(repair, ("new", "old"), (*OLD, *NEW), lambda c: (link(c), c.close(), break_blob(c)), DATA),
    "pull": Scenario(pull, ("new", "old"), (*OLD, *NEW)),
}


def prepared(root: Path, scenario: Scenario) -> None:
    with opened(root) as cache:
        add(cache, "h.example/n/old:t", *OLD)
        cache.put(b"orphan")
        scenario.before(cache)


def assert_sound(root: Path, wrong: bytes = b"") -> None:
    """See that whatever has a name is whole, whoever looks."""
    for path in (root / "blobs").iterdir():
        assert path.name == ".partial" or BLOB.match(path.name), path
        if path.is_file() and path.name != digest_of(wrong).file_name:
            assert digest_of(path.read_bytes()).file_name == path.name
    for path in (root / "manifests").rglob("*"):
        if path.is_file():
            for blob in re.findall(r"sha256:[0-9a-f]{64}", json.dumps(json.loads(path.read_bytes()))):
                if blob != digest_of(wrong):
                    assert (root / "blobs" / blob.replace(":", "-")).is_file(), (path, blob)
            assert path.parent.parent.name == "n", path
    with opened(root) as cache:
        for name in cache.links():
            cache.document(name)


def assert_done(root: Path, scenario: Scenario) -> None:
    assert_sound(root)
    with opened(root) as cache:
        assert list(scenario.names) == [name.model for name in cache.links()]
        assert [] == cache.missing(map(descriptor_of, scenario.contents)) == cache.verify()
    left = {name for name in os.listdir(root / "blobs/.partial") if not re.match(r"sha256-|name\.|pin\.", name)}
    assert left <= {"verified", "verified.new", "gc.lock"}


def calls_of(root: Path, scenario: Scenario) -> list[str]:
    """Return the system calls that it makes, in order."""
    made: list[str] = []
    prepared(root, scenario)
    with opened(root, QuickDisk(lambda name, _, __: made.append(name) is not None)) as cache:
        scenario.act(cache)
    assert_done(root, scenario)
    shutil.rmtree(root)
    return made


def moments(calls: list[str]) -> list[int]:
    """Return the numbers of all calls with TRANSFERKIT_TEST_FULL=1, else of an eighth of them, other ones each time."""
    step = 1 if os.environ.get("TRANSFERKIT_TEST_FULL") == "1" else 8
    return list(range(random.randint(1, step), len(calls) + 1, step))


@pytest.mark.parametrize("name", SCENARIOS)
def test_after_a_crash_at_any_call_a_store_is_sound_and_the_next_run_completes(tmp_path, monkeypatch, name):
    monkeypatch.setattr(pace, "SYNC_EVERY", 10_000)
    scenario, root = SCENARIOS[name], tmp_path / "models"
    for crash in moments(calls_of(root, scenario)):
        prepared(root, scenario)
        disk = QuickDisk(lambda _, __, count, crash=crash: count >= crash)
        try:
            with opened(root, disk) as cache:
                scenario.act(cache)
        except tk.StorageError:
            pass
        assert disk.failed
        assert_sound(root, scenario.wrong)
        with opened(root) as cache:
            scenario.act(cache)
            cache.gc(grace=-HOUR, dry_run=True)
        assert_done(root, scenario)
        shutil.rmtree(root)


@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_single_call_fails_a_store_is_sound_and_the_next_run_completes(tmp_path, name):
    scenario, root = SCENARIOS[name], tmp_path / "models"
    for call in sorted(set(calls_of(root, scenario)) & set(CALLS)):
        prepared(root, scenario)
        disk = QuickDisk(lambda made, _, __, call=call: made == call)
        try:
            with opened(root, disk) as cache:
                scenario.act(cache)
        except tk.StorageError:
            pass
        assert_sound(root, scenario.wrong)
        with opened(root) as cache:
            scenario.act(cache)
        assert_done(root, scenario)
        shutil.rmtree(root)


class PrunedDisk(Disk):
    """A disk beside an Ollama that starts before the n-th call: what is no blob among the blobs goes."""

    fsync = sync_folder = staticmethod(lambda _: None)

    def __init__(self, root: Path, when: int) -> None:
        self._left = when
        for name in CALLS:
            setattr(self, name, self._counted(root, getattr(self, name)))

    def _counted(self, root: Path, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **keywords: object) -> object:
            self._left -= 1
            if not self._left:
                for path in (root / "blobs").iterdir():
                    if not BLOB.match(path.name):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
            return real(*arguments, **keywords)

        return call


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_ollama_that_prunes_at_any_moment_breaks_nothing(tmp_path, name):
    scenario, root = SCENARIOS[name], tmp_path / "models"
    for when in moments(calls_of(root, scenario)):
        prepared(root, scenario)
        (root / "blobs/foreign").write_bytes(b"x")
        with opened(root, PrunedDisk(root, when)) as cache:
            attempt(lambda cache=cache: scenario.act(cache))
        assert not (root / "blobs/foreign").exists()
        assert_sound(root)
        with opened(root) as cache:
            assert list(scenario.names) == [link.model for link in cache.links()]
            assert [] == cache.missing(map(descriptor_of, scenario.contents)) == cache.verify()
        shutil.rmtree(root)


# -- power cuts


@pytest.mark.parametrize("loss", ["names", "data", "order"])
@pytest.mark.parametrize("act", [pull, link], ids=["pull", "link"])
def test_what_was_linked_survives_a_power_cut(tmp_path, loss, act):
    root, disk = tmp_path / "models", VolatileDisk()
    with opened(root, disk) as cache:
        act(cache)
    disk.cut(tmp_path, loss)
    assert_sound(root)
    with opened(root) as cache:
        assert ["new"] == [name.model for name in cache.links()]
        assert [] == cache.verify() == cache.missing(map(descriptor_of, NEW))


def test_a_name_that_was_removed_does_not_come_back_after_a_power_cut(tmp_path):
    """Its blobs may have been collected since."""
    root, disk = tmp_path / "models", VolatileDisk()
    with opened(root, disk) as cache:
        link(cache)
        cache.unlink("h.example/n/new:t")
    disk.cut(tmp_path, "names")
    assert [] == opened(root).links()
