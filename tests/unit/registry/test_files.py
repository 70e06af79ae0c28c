"""Files that are pushed: hashed once, remembered, read as they were, and given up where they change."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.remote.rig import Flow
from tests.unit.transport.rig import everything
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Local
from transferkit.errors import BlobNotFoundError, CancelledError, InvalidNameError, ReadError, SourceError
from transferkit.options import TransferOptions
from transferkit.registry.files import FileSet, look, readers, titled
from transferkit.storage.disk import Disk
from transferkit.storage.hashes import HashIndex
from transferkit.transfer.operation import Operation

HELLO = Digest("sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")  # printf hello | sha256sum
BLOB = Descriptor(HELLO, 5)


class Counting(Disk):
    """Counts the bytes that are read, and may meddle before the first of them."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self.read = 0
        self._before = before

    def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
        before, self._before = self._before, lambda: None
        before()
        count = super().preadv(fd, buffer, offset)
        self.read += count
        return count


def take(
    tmp_path: Path,
    *paths: Path,
    disk: Disk | None = None,
    operation: Operation | None = None,
    rehash: bool = False,
    then: int | None = None,
) -> FileSet:
    """Take in files under their names; what was hashed before is remembered, however young it is."""
    disk = disk or Disk()
    index = HashIndex(str(tmp_path / "cache"), disk, rehash=rehash, clock=lambda: time.time() + 60)
    files = FileSet(disk, index)
    with operation or Operation(concurrency=4) as opened:
        files.take([look(path.name, str(path), disk) for path in paths], opened, then=then)
    return files


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    (tmp_path / "hello").write_bytes(b"hello")
    return tmp_path / "hello"


def test_files_are_hashed(tmp_path: Path, hello: Path) -> None:
    data = bytes(range(256)) * 8000
    (tmp_path / "large").write_bytes(data)
    (tmp_path / "empty").write_bytes(b"")
    files = take(tmp_path, hello, tmp_path / "large", tmp_path / "empty").files
    assert [("hello", HELLO, 5), ("large", f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))] == [
        (file.path, file.digest, file.size) for file in files[:2]
    ]
    empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # sha256sum /dev/null
    assert ("empty", empty, 0) == (files[2].path, files[2].digest, files[2].size)


def test_several_are_hashed_at_once(tmp_path: Path) -> None:
    """Each of two waits until the other one is read as well."""
    barrier = threading.Barrier(2, timeout=10)

    class Meeting(Disk):
        def preadv(self, fd: int, buffer: memoryview, offset: int) -> int:
            if not offset:
                barrier.wait()
            return super().preadv(fd, buffer, offset)

    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    assert 2 == len(take(tmp_path, tmp_path / "a", tmp_path / "b", disk=Meeting()).files)


def test_a_second_run_reads_nothing(tmp_path: Path, hello: Path) -> None:
    first, second, again = Counting(), Counting(), Counting()
    take(tmp_path, hello, disk=first)
    files = take(tmp_path, hello, disk=second)
    take(tmp_path, hello, disk=again, rehash=True)
    assert ([5, 0, 5], HELLO) == ([first.read, second.read, again.read], files.files[0].digest)


def test_a_file_that_is_there_twice_is_hashed_once(tmp_path: Path, hello: Path) -> None:
    (tmp_path / "link").symlink_to("hello")
    disk = Counting()
    files = take(tmp_path, hello, tmp_path / "link", disk=disk).files
    assert (5, [("hello", HELLO), ("link", HELLO)]) == (disk.read, [(file.path, file.digest) for file in files])


def test_progress_counts_what_is_hashed_where_somebody_says_what_follows(tmp_path: Path, hello: Path) -> None:
    (tmp_path / "more").write_bytes(bytes(1000))
    paths = [hello, tmp_path / "more"]
    told: list[tuple[int, int]] = []
    for then, expected in ((None, []), (0, [(0, 1005), (1005, 1005)]), (500, [(0, 1505), (1005, 1505)])):
        told.clear()
        operation = Operation(progress=lambda *figures: told.append(figures))
        take(tmp_path / str(then), *paths, operation=operation, then=then)
        assert expected == [told[0], told[-1]] if expected else not told
    told.clear()
    take(tmp_path / "500", *paths, operation=Operation(progress=lambda *figures: told.append(figures)), then=500)
    assert [] == told  # all of it is known


def test_a_limit_of_bandwidth_does_not_hold_for_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1_000_000))
    began = time.monotonic()
    take(tmp_path, tmp_path / "file", operation=Operation(options=TransferOptions(max_bandwidth=100_000)))
    assert time.monotonic() - began < 5


def test_what_was_hashed_before_an_error_is_remembered(tmp_path: Path, hello: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"bad")

    class Failing(Disk):
        def open(self, path: str, *arguments: object, follow: bool = True) -> int:
            if path.endswith("bad"):
                raise OSError(5, "Input/output error")
            return super().open(path, *arguments, follow=follow)  # type: ignore[arg-type]

    with pytest.raises(SourceError, match=f"{bad} cannot be read: Input/output error"):
        take(tmp_path, hello, bad, disk=Failing(), operation=Operation(concurrency=1))
    disk = Counting()
    take(tmp_path, hello, disk=disk)
    assert 0 == disk.read


@pytest.mark.parametrize("change", ["grows", "shrinks", "is written to", "is replaced"])
def test_a_file_that_changes_while_it_is_hashed_is_named(tmp_path: Path, hello: Path, change: str) -> None:
    def meddle() -> None:
        if change == "is replaced":
            (tmp_path / "new").write_bytes(b"hello")
            (tmp_path / "new").replace(hello)
        elif change == "is written to":
            hello.write_bytes(b"HELLO")
        else:
            hello.write_bytes(b"hello, world" if change == "grows" else b"he")
        os.utime(hello, (1, 1))

    disk = Counting(meddle)
    if change == "is replaced":  # what is open is what it was; who opens it next has another one
        files = take(tmp_path, hello, disk=disk)
        with pytest.raises(SourceError, match=f"{hello} was replaced by another file"):
            files.fetch(BLOB, flow=Flow())
    else:
        with pytest.raises(SourceError, match=f"{hello} changed while it was hashed"):
            take(tmp_path, hello, disk=disk)


def test_a_file_that_changes_before_it_is_hashed_is_named(tmp_path: Path, hello: Path) -> None:
    files = FileSet(Disk(), HashIndex(str(tmp_path / "cache"), Disk()))
    found = look("hello", str(hello), Disk())
    hello.write_bytes(b"hello, world")
    with Operation() as operation, pytest.raises(SourceError, match=f"{hello} changed after it was found"):
        files.take([found], operation)


def test_hashing_ends_in_the_middle_of_a_file_that_is_cancelled(tmp_path: Path) -> None:
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 32 * 2**20)
    cancellation = tk.Cancellation()
    disk = Counting(cancellation.cancel)
    with pytest.raises(CancelledError):
        take(tmp_path, tmp_path / "large", disk=disk, operation=Operation(cancellation=cancellation))
    assert disk.read < 2**20


# -- a source


@pytest.mark.parametrize("offset", [0, 2, 5])
def test_its_content_can_be_read_from_anywhere(tmp_path: Path, hello: Path, offset: int) -> None:
    with take(tmp_path, hello).fetch(BLOB, offset=offset, flow=Flow()) as body:
        assert (body.offset, everything(body)) == (offset, b"hello"[offset:])  # type: ignore[arg-type]


def test_a_file_that_was_hashed_is_not_hashed_again_on_its_way_out(tmp_path: Path, hello: Path) -> None:
    """Its descriptor can be handed to the kernel."""
    with take(tmp_path, hello).fetch(BLOB, flow=Flow()) as body:
        assert isinstance(body, Local)
        assert b"hello" == os.pread(body.fileno(), 10, 0)


def test_a_file_that_changes_after_that_is_hashed_again(tmp_path: Path, hello: Path) -> None:
    files = take(tmp_path, hello)
    os.utime(hello, (1, 1))  # another time alone harms nobody
    with files.fetch(BLOB, flow=Flow()) as body:
        assert not isinstance(body, Local)
        assert b"hello" == everything(body)  # type: ignore[arg-type]
    hello.write_bytes(b"HELLO")
    with files.fetch(BLOB, flow=Flow()) as body, pytest.raises(SourceError, match=f"{hello} does not match its digest"):
        everything(body)  # type: ignore[arg-type]
    hello.write_bytes(b"hello, world")
    with pytest.raises(SourceError, match=f"{hello} has 12 bytes, expected 5"):
        files.fetch(BLOB, flow=Flow())


def test_a_file_that_changes_while_it_is_sent_is_found_out_at_its_end(tmp_path: Path, hello: Path) -> None:
    with take(tmp_path, hello).fetch(BLOB, flow=Flow()) as body:
        assert 2 == body.readinto(memoryview(bytearray(2)))
        hello.write_bytes(b"HELLO")
        os.utime(hello, (1, 1))
        with pytest.raises(SourceError, match=f"{hello} changed while it was read"):
            everything(body)  # type: ignore[arg-type]


def test_nothing_of_another_file_in_its_place_is_sent(tmp_path: Path, hello: Path) -> None:
    files = take(tmp_path, hello)
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "other").replace(hello)
    with pytest.raises(SourceError, match=f"{hello} was replaced by another file after it was hashed"):
        files.fetch(BLOB, flow=Flow())
    hello.unlink()
    hello.symlink_to("elsewhere")
    with pytest.raises(SourceError, match=f"{hello} cannot be read"):
        files.fetch(BLOB, flow=Flow())


def test_a_path_leads_where_the_system_leads_it(tmp_path: Path, hello: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing/../hello cannot be read: No such file or directory"):
        take(tmp_path, tmp_path / "nothing" / ".." / hello.name)


def test_what_is_none_of_the_files_is_not_there(tmp_path: Path, hello: Path) -> None:
    with pytest.raises(BlobNotFoundError, match="is none of the files"):
        take(tmp_path, hello).fetch(Descriptor(Digest(f"sha256:{64 * 'a'}"), 1), flow=Flow())


def test_a_missing_file_ends_all_and_a_broken_network_does_not(tmp_path: Path) -> None:
    assert take(tmp_path).concerns_all(SourceError("changed"))
    assert not take(tmp_path).concerns_all(ReadError("broken"))


def test_parts_of_files_can_be_read(tmp_path: Path, hello: Path) -> None:
    read, size = readers([look("hello", str(hello), Disk())], Disk())["hello"]
    assert (5, b"ell", b"lo", b"", b"") == (size, read(1, 3), read(3, 100), read(5, 1), read(50, 1))
    hello.write_bytes(b"HELLO, WORLD")
    with pytest.raises(SourceError, match=f"{hello} changed"):
        read(0, 1)


# -- what a user names


def test_a_file_that_is_missing_or_none_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe"):
        with pytest.raises(SourceError, match=str(path)):
            look("x", str(path), Disk())
    for name in ("a\0b", "a\ud800"):
        with pytest.raises(SourceError, match="is no path"):
            look("x", name, Disk())


@pytest.mark.parametrize("title", ["", "../x", "/x", "C:x"])
def test_a_title_that_is_no_path_of_a_file_is_refused(hello: Path, title: str) -> None:
    with pytest.raises(InvalidNameError):
        look(title, str(hello), Disk())


def test_a_files_title_is_its_name_unless_another_is_given() -> None:
    assert titled(["a/b.bin", Path("c") / "d"]) == [("b.bin", "a/b.bin"), ("d", "c/d")]
    assert titled({"x/y": Path("z")}) == [("x/y", "z")]
    assert titled([]) == []
