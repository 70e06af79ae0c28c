"""Tar files: what counts in them, what they may ask for, and that they are written whole or not at all."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import time
from pathlib import Path

import pytest

import transferkit as tk
from tests.unit.storage.suite import DATA, FailingDisk, descriptor_of
from transferkit.storage import archive as module
from transferkit.storage.archive import Archive, Part, write_archive
from transferkit.storage.disk import Disk
from transferkit.transfer.flow import WorkerFlow

BLOB = descriptor_of(DATA)


def tar_of(path: Path, *members: tuple[str, bytes | str], kind: bytes = tarfile.SYMTYPE, mode: str = "w") -> Archive:
    """Write a tar file; a member whose content is a text is a link there."""
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = kind, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return Archive(str(path), Disk())


def read(archive: Archive, name: str, *, offset: int = 0) -> bytes:
    with archive.fetch(BLOB, name, offset=offset, flow=WorkerFlow()) as body:
        buffer, data = memoryview(bytearray(7_000)), b""
        while count := body.readinto(buffer):
            data += bytes(buffer[:count])
        return data


def test_files_are_read_in_place(tmp_path):
    archive = tar_of(tmp_path / "x.tar", ("./a", b"first"), ("deep/b", DATA), ("c", b""))
    assert (b"first", b"", None) == (archive.read("a", 100), archive.read("c", 0), archive.read("b", 100))
    assert DATA == read(archive, "deep/b")
    assert DATA[12_345:] == read(archive, "deep/b", offset=12_345)


def test_of_several_of_one_name_the_last_counts(tmp_path):
    assert b"new" == tar_of(tmp_path / "x.tar", ("a", b"old"), ("./a", b"new")).read("a", 9)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_nothing(tmp_path, kind):
    (tmp_path / "precious").write_bytes(b"keep me")
    archive = tar_of(tmp_path / "x.tar", ("b", b"there"), ("a", f"{tmp_path}/precious"), ("b", "a"), kind=kind)
    assert {} == archive.parts
    with pytest.raises(tk.SourceError, match="does not have"):
        archive.fetch(BLOB, "a", flow=WorkerFlow())


def test_wrong_content_is_found_out_and_another_size_at_once(tmp_path):
    archive = tar_of(tmp_path / "x.tar", ("wrong", bytes(len(DATA))), ("short", DATA[:-1]))
    with pytest.raises(tk.SourceError, match="does not match its digest"):
        read(archive, "wrong")
    with pytest.raises(tk.SourceError, match="does not match its digest"):
        read(archive, "wrong", offset=len(DATA))
    with pytest.raises(tk.SourceError, match=f"with {len(DATA)} bytes"):
        read(archive, "short")


def test_what_is_too_long_is_not_read(tmp_path):
    with pytest.raises(tk.StorageError, match=r"a in .*x\.tar is longer than 4 bytes"):
        tar_of(tmp_path / "x.tar", ("a", b"first")).read("a", 4)


def test_a_file_that_is_cut_off_is_an_error_when_it_is_read(tmp_path):
    path = tmp_path / "x.tar"
    archive = tar_of(path, ("a", DATA))
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(tk.SourceError, match="became shorter"):
        read(archive, "a")


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"\x1f\x8b\x08" + b"x" * 600], ids=["empty", "x", "gzip"])
def test_what_is_no_tar_file_says_so(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(tk.StorageError, match="cannot be read as a tar file that is not compressed"):
        Archive(str(tmp_path / "x.tar"), Disk())
    with pytest.raises(tk.StorageError, match="No such file") as caught:
        Archive(str(tmp_path / "nothing.tar"), Disk())
    assert errno.ENOENT == caught.value.errno


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_a_compressed_one_is_refused(tmp_path, compression):
    with pytest.raises(tk.StorageError, match="a tar file that is not compressed"):
        tar_of(tmp_path / "x.tar", ("a", DATA), mode=f"w:{compression}")


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        header("a", 2**40, tarfile.XHDTYPE) + b"x" * 1024,
        header("a", 2**40, tarfile.GNUTYPE_LONGNAME) + b"x" * 1024,
        header("a", -1024) + header("b", 0),
        header("a", -512) * 3,
        (header("././@LongLink", 512, tarfile.GNUTYPE_LONGNAME) + b"x" * 512) * 3000,
    ],
    ids=["pax of a terabyte", "name of a terabyte", "back", "back again", "deep"],
)
def test_headers_that_ask_for_anything_are_refused_in_no_time(tmp_path, content):
    """Among them CVE-2025-8194: members of negative sizes, around which ``tarfile`` goes for ever."""
    with (tmp_path / "x.tar").open("wb") as file:
        file.write(content)
        file.truncate(2**41)
    began = time.monotonic()
    with pytest.raises(tk.StorageError):
        Archive(str(tmp_path / "x.tar"), Disk())
    assert time.monotonic() - began < 5


def test_a_header_that_is_read_piece_by_piece_is_refused_as_well(tmp_path):
    (tmp_path / "x.tar").write_bytes(bytes(4 * module._MAX_HEADER))
    with module._Bounded(tmp_path / "x.tar") as file:
        assert module._MAX_HEADER == len(file.read(module._MAX_HEADER))
        with pytest.raises(tarfile.ReadError, match="headers of more than"):
            file.read(1)


def test_there_is_an_end_of_files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_MEMBERS", 10)
    tar_of(tmp_path / "x.tar", *[(f"{number}", b"x") for number in range(10)])
    with pytest.raises(tk.InvalidManifestError, match="more than 10 files"):
        tar_of(tmp_path / "x.tar", *[(f"{number}", "x") for number in range(11)])


# -- writing


def test_what_is_written_is_read_and_the_same_each_time(tmp_path):
    (tmp_path / "data").write_bytes(b"header" + DATA)
    name = f"blobs/sha512/{128 * 'a'}"
    parts = [Part("b", str(tmp_path / "data"), 0, 6), Part(name, str(tmp_path / "data"), 6, len(DATA))]
    for target in ("one.tar", "two.tar"):
        write_archive(str(tmp_path / target), parts, Disk())
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    archive = Archive(str(tmp_path / "one.tar"), Disk())
    assert ["b", name] == list(archive.parts)
    assert (b"header", DATA) == (archive.read("b", 10), read(archive, name))


@pytest.mark.parametrize("call", ["create", "open", "close", "fsync", "rename"])
def test_a_disk_that_refuses_leaves_the_old_file(tmp_path, call):
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "x.tar").write_bytes(b"old")
    disk = FailingDisk(lambda name, _, __: name == call, errno.ENOSPC)
    with pytest.raises(tk.OutOfSpaceError, match=r"writing .*x\.tar"):
        write_archive(str(tmp_path / "x.tar"), [Part("a", str(tmp_path / "data"), 0, 5)], disk, durable=True)
    assert {"data", "x.tar"} == set(os.listdir(tmp_path))
    assert b"old" == (tmp_path / "x.tar").read_bytes()


def test_a_part_that_became_shorter_or_a_link_is_an_error(tmp_path):
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "link").symlink_to("data")
    for part in (Part("a", str(tmp_path / "data"), 0, len(DATA) + 1), Part("a", str(tmp_path / "link"), 0, 5)):
        with pytest.raises(tk.StorageError, match=r"writing .*x\.tar"):
            write_archive(str(tmp_path / "x.tar"), [part], Disk())
    assert {"data", "link"} == set(os.listdir(tmp_path))
