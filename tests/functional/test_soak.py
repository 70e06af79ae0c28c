"""Short versions of ``make soak``, another seed each time; TRANSFERKIT_SOAK_SEED takes one again."""

from __future__ import annotations

import os
import random
import shutil
import threading

import pytest

import transferkit as tk
from benchmarks.soak_folder import Sharing, soak_folder
from benchmarks.soak_kills import Soak, soak_kills
from benchmarks.soak_network import has_struck, insist, soak_network
from benchmarks.soak_rig import MIB, Resources, WrongBytes, check_exactly, check_names, make_blobs
from transferkit.testing import ConnectionRecord, Faults, running_registry


@pytest.fixture
def seed():
    chosen = int(os.environ.get("TRANSFERKIT_SOAK_SEED", random.randrange(10**6)))
    print(f"TRANSFERKIT_SOAK_SEED={chosen}")
    return chosen


def test_transfers_that_are_killed_at_random_moments_end_right(seed):
    told: list[str] = []

    soak_kills(6, seed=seed, size=8 * MIB, say=told.append)

    assert 13 == len(told)
    assert told[-1].startswith("docker-registry: ")


@pytest.mark.parametrize(("parts", "between"), [(False, False), (True, False), (True, True)])
def test_after_a_kill_the_next_process_sends_what_is_missing(tmp_path, seed, parts, between):
    with running_registry(tmp_path / "registry") as registry:
        soak = Soak(tmp_path, registry, seed=seed, size=8 * MIB)
        assert soak.continues(registry.url, parts=parts, between=between) < 6 * MIB


def test_an_upload_that_begins_anew_is_found(tmp_path, seed, monkeypatch):
    """Each process forgets what the one before has noted."""
    with running_registry(tmp_path / "registry") as registry:
        soak = Soak(tmp_path, registry, seed=seed, size=8 * MIB)
        start = soak._start

        def forgetting(*arguments, **keywords):
            shutil.rmtree(tmp_path / "source" / ".partial", ignore_errors=True)
            return start(*arguments, **keywords)

        monkeypatch.setattr(soak, "_start", forgetting)
        with pytest.raises(WrongBytes, match="though half of them were there"):
            soak.continues(registry.url, parts=True)


def test_models_come_through_a_network_that_breaks_at_random(seed):
    told: list[str] = []

    soak_network(8, seed=seed, say=told.append)

    assert int(told[-1].split()[1]) >= 8


def test_processes_share_a_folder_whatever_its_locks_are_worth(seed):
    told: list[str] = []

    soak_folder(1, seed=seed, say=told.append)

    assert ["folder: 1 of 1 runs, with locks that work, lie, fail"] == told


# -- the soaks find what is wrong


def test_wrong_bytes_are_found(tmp_path):
    check_names(tmp_path / "nothing")
    check_names(tmp_path)
    (tmp_path / ("sha256-" + 64 * "0")).write_bytes(b"wrong")

    with pytest.raises(WrongBytes, match="sha256-0000"):
        check_names(tmp_path)


@pytest.mark.parametrize("left", ["sha256-" + 64 * "0" + ".0123456789abcdef", ".partial/sha256-1", "other"])
def test_what_is_left_behind_is_found(tmp_path, left):
    blobs = make_blobs(tmp_path, random.Random(1), [5])
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "verified").touch()
    check_exactly(tmp_path, blobs)
    (tmp_path / left).touch()

    with pytest.raises(WrongBytes, match="after a clean download there is"):
        check_exactly(tmp_path, blobs)


def test_threads_and_descriptors_that_stay_are_found(tmp_path):
    resources, over = Resources(), threading.Event()
    resources.check()
    with open(tmp_path / "file", "wb"), pytest.raises(WrongBytes, match="1 more descriptors"):
        resources.check(patience=0.05)
    thread = threading.Thread(target=over.wait, name="forgotten")
    thread.start()
    with pytest.raises(WrongBytes, match="forgotten"):
        resources.check(patience=0.05)
    over.set()
    thread.join()
    resources.check()


def test_a_call_that_never_succeeds_or_never_ends_is_found(monkeypatch):
    def fail(cancel):
        raise tk.ReadError("cut off")

    def hang(cancel):
        with cancel.watch(over.set):
            assert over.wait(10)
        raise tk.CancelledError("told to")

    over = threading.Event()
    monkeypatch.setattr("benchmarks.soak_network.LONGEST", 0.05)
    with pytest.raises(WrongBytes, match="the last one with: cut off"):
        insist(fail)
    with pytest.raises(WrongBytes, match="took more than"):
        insist(hang)
    assert 5 == insist(lambda cancel: 5)


def test_a_process_that_fails_is_found(registry, tmp_path):
    absent = [tk.Blob("sha256:" + 64 * "a", 5)]
    with pytest.raises(WrongBytes, match="a process of 1 ended: 1; locks work"):
        Sharing(tmp_path, registry.url, absent, random.Random(1)).run("work", 1)


@pytest.mark.parametrize(
    ("faults", "down", "up", "ended", "struck"),
    [
        (Faults(), 100, 100, "client closed", False),
        (Faults(reset_after=50), 50, 100, "reset", True),
        (Faults(reset_after=50), 40, 100, "client closed", False),
        (Faults(refuse=True), 0, 0, "refused", True),
        (Faults(silent_after=50), 50, 100, "client closed", True),
        (Faults(silent_after=50), 49, 100, "client closed", False),
        (Faults(silent_after_up=50), 100, 50, None, True),
        (Faults(corrupt_at=50), 51, 0, None, True),
        (Faults(corrupt_at=50), 50, 0, None, False),
    ],
)
def test_a_fault_counts_when_it_has_struck(faults, down, up, ended, struck):
    record = ConnectionRecord(number=0, up=up, down=down, ended=ended, faults=faults)
    assert struck is has_struck(record)
