"""Hashing what a store has: what is found, what is remembered, and every way out."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.models import add, digest_of
from tests.unit.storage.suite import descriptor_of
from transferkit.storage import verifying
from transferkit.storage.cache import DiskCache
from transferkit.storage.disk import Disk

BIG = bytes(3 * 1024 * 1024)


@pytest.fixture
def cache(tmp_path: Path) -> DiskCache:
    cache = DiskCache(tmp_path)
    add(cache, "one", b"{}", b"weights", BIG)
    add(cache, "other", b"{}", b"other weights")
    return cache


def break_file(cache: DiskCache, data: bytes) -> None:
    """Change a byte as a disk does it, that loses it: the times stay."""
    path = cache.path(digest_of(data))
    status = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def wrong(entries) -> set[str]:
    return {entry.digest for entry in entries}


def test_what_is_wrong_is_found_and_nothing_else(cache):
    assert [] == cache.verify()
    for data in (b"weights", BIG):
        break_file(cache, data)
    assert {digest_of(b"weights"), digest_of(BIG)} == wrong(cache.verify())


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b""), lambda path: path.write_bytes(bytes(99))])
def test_another_length_is_wrong(cache, change):
    change(Path(cache.path(digest_of(b"weights"))))
    assert {digest_of(b"weights")} == wrong(cache.verify())


def test_only_the_blobs_of_some_names_are_hashed_if_asked_for(cache):
    for data in (b"weights", b"other weights"):
        break_file(cache, data)
    assert {digest_of(b"weights")} == wrong(cache.verify(["one"]))
    assert {digest_of(b"other weights")} == wrong(cache.verify(["other:latest"]))
    with pytest.raises(tk.ManifestNotFoundError):
        cache.verify(["third"])


def test_what_is_right_is_remembered(cache):
    path = Path(cache.path(digest_of(b"new")))
    path.write_bytes(b"new")  # somebody else put it there
    assert not cache.knows(descriptor_of(b"new"))
    cache.verify()
    assert cache.knows(descriptor_of(b"new"))
    assert DiskCache(cache.root).knows(descriptor_of(b"new"))


def test_what_is_wrong_is_not_taken_for_right_any_more(cache, monkeypatch):
    """Not even where the index cannot see the change."""
    data = b"weights"
    before = os.lstat(cache.path(digest_of(data)))
    break_file(cache, data)
    monkeypatch.setattr(Disk, "lstat", staticmethod(lambda *_, **__: before))  # a disk that lost it by itself
    assert cache.knows(descriptor_of(data))
    monkeypatch.setattr(Disk, "fstat", staticmethod(lambda _: before))
    assert {digest_of(data)} == wrong(cache.verify())
    assert not cache.knows(descriptor_of(data))
    cache.close()
    assert not DiskCache(cache.root).knows(descriptor_of(data))


def test_progress_begins_with_nothing_ends_with_all_and_comes_from_this_thread(cache):
    told: list[tuple[int, int, int]] = []
    cache.verify(progress=lambda completed, total: told.append((completed, total, threading.get_ident())))
    total = cache.size()
    assert (0, total) == told[0][:2]
    assert (total, total) == told[-1][:2]
    assert [completed for completed, *_ in told] == sorted(completed for completed, *_ in told)
    assert {(total, threading.get_ident())} == {(all_of_it, thread) for _, all_of_it, thread in told}


def test_progress_that_raises_is_logged_once_and_harms_nothing(cache, caplog):
    def fail(*_: int) -> None:
        raise ValueError("mine")

    break_file(cache, b"weights")
    assert 1 == len(cache.verify(progress=fail))
    assert ["the progress callback raised; verifying goes on"] == [record.message for record in caplog.records]


def test_progress_that_is_no_function_is_a_type_error(cache):
    with pytest.raises(TypeError, match="progress is a function of two numbers of bytes, not int"):
        cache.verify(progress=5)


def test_true_draws_a_bar(cache, capsys):
    assert [] == cache.verify(progress=True)
    assert capsys.readouterr().err.startswith("verify: ")


class Endless(Disk):
    """A disk whose files never end."""

    def preadv(self, fd, buffer, offset):
        time.sleep(0.001)
        return len(buffer)


def test_a_cancel_ends_it_at_once_and_leaves_no_thread(cache):
    cancel = tk.Cancellation()
    timer = threading.Timer(0.05, cancel.cancel, ["enough"])
    timer.start()
    began = time.monotonic()
    with pytest.raises(tk.CancelledError, match="enough"):
        DiskCache(cache.root, disk=Endless()).verify(cancel=cancel)
    timer.join()
    assert time.monotonic() - began < 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("transferkit")]
    with pytest.raises(tk.CancelledError):
        DiskCache(cache.root, disk=Endless()).verify(cancel=cancel)


INTERRUPTED = """
import sys, time, transferkit as tk
from transferkit.storage.disk import Disk
class Endless(Disk):
    def preadv(self, fd, buffer, offset):
        time.sleep(0.001)
        return len(buffer)
cache = tk.DiskCache(sys.argv[1], disk=Endless())
print("begins", flush=True)
cache.verify()
"""


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1])
def test_ctrl_c_ends_it_within_a_second(cache, seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, cache.root], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()  # where it did not end
    assert time.monotonic() - began < 2.5
    assert said.rstrip().endswith(b"KeyboardInterrupt")


def test_what_cannot_be_looked_at_is_an_error_and_not_wrong(cache):
    """Or ``repair`` would fetch everything again where a process has too many files open."""

    class Full(Disk):
        def open(self, path, *, follow=True):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.raises(tk.StorageError, match=r"verifying .*sha256-.*too many open files"):
        DiskCache(cache.root, disk=Full()).verify()


def test_a_sector_that_cannot_be_read_is_wrong(cache):
    class Broken(Disk):
        def preadv(self, fd, buffer, offset):
            if offset:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().preadv(fd, buffer, offset)

    assert digest_of(BIG) in wrong(DiskCache(cache.root, disk=Broken()).verify())


def test_what_disappears_or_is_replaced_meanwhile_is_nobodys_fault(cache):
    break_file(cache, b"weights")

    class Moving(Disk):
        def open(self, path, *, follow=True):
            if path.endswith(digest_of(b"other weights").hex):
                os.unlink(path)
            return super().open(path, follow=follow)

        def preadv(self, fd, buffer, offset):
            path = os.readlink(f"/proc/self/fd/{fd}")
            if path.endswith(digest_of(b"weights").hex) and offset:
                os.replace(Path(path).with_name("right"), path)
            return super().preadv(fd, buffer, offset)

    Path(cache.path(digest_of(b"weights"))).with_name("right").write_bytes(b"weights")
    assert [] == DiskCache(cache.root, disk=Moving()).verify()


def test_without_a_thread_to_be_had_it_does_the_work_itself(cache, monkeypatch):
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    break_file(cache, b"weights")
    monkeypatch.setattr(threading.Thread, "start", fail)
    assert {digest_of(b"weights")} == wrong(cache.verify())


def test_an_error_of_our_own_is_raised_and_no_file_is_called_wrong(cache, monkeypatch):
    class Odd(Disk):
        def fstat(self, fd):  # type: ignore[override]
            raise MemoryError

    with pytest.raises(MemoryError):
        DiskCache(cache.root, disk=Odd()).verify()


def test_it_works_on_all_processors_of_this_process(cache, monkeypatch):
    """Each of two files is only read to its end while the other one is being read."""
    monkeypatch.setattr(verifying, "processors", lambda: 2)
    both = threading.Barrier(2)

    class Meeting(Disk):
        def preadv(self, fd, buffer, offset):
            if not offset:
                both.wait(10)
            return super().preadv(fd, buffer, offset)

    listed = [entry for entry in cache.entries() if entry.size in (len(BIG), 13)]
    directory = DiskCache(cache.root, disk=Meeting()).blobs
    assert [] == verifying.verify(directory, listed)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_processors_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 7})
    assert 3 == verifying.processors()
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert 1 == verifying.processors()


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "blobs").write_bytes(b"a file")
    with pytest.raises(tk.StorageError, match=r"reading .*blobs failed"):
        DiskCache(tmp_path).verify()
