"""Files of a tar layer on the disk: under no name yet, and none of them where something fails."""

from __future__ import annotations

import errno
import hashlib
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from tests.descriptors import open_descriptors
from tests.unit.storage.suite import FailingDisk
from tests.unit.storage.test_tar_stream import Pieces, member_of, tar_of
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.storage.disk import Disk
from transferkit.storage.folder import OpenFolder
from transferkit.storage.tar_stream import TarStream
from transferkit.storage.unpacking import Member, Unpacked, unpack
from transferkit.transfer.flow import WorkerFlow

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # printf hello | sha256sum


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[OpenFolder]:
    with OpenFolder(str(tmp_path), Disk()) as opened:
        yield opened


def run(
    folder: OpenFolder, data: bytes, wanted: Any = lambda name: Member(name, True), of: bytes | None = None
) -> Unpacked:
    content = data if of is None else of
    blob = Descriptor(Digest(f"sha256:{hashlib.sha256(content).hexdigest()}"), len(content))
    return unpack(TarStream(Pieces(data), blob, WorkerFlow(), gzip=False, ratio=100), wanted, folder)


def test_wanted_files_are_written_and_the_others_are_known(folder: OpenFolder, tmp_path: Path) -> None:
    data = tar_of({"a": b"hello", "b": b"not wanted", "outside": b"x"})
    found = run(folder, data, lambda name: None if name == "outside" else Member(f"to/{name}", name == "a"))
    assert {"to/a", "to/b"} == found.keys()
    assert found["to/b"] is None
    file = found["to/a"]
    assert file is not None
    assert (HELLO, 5) == (file.digest, file.size)
    assert {file.name: b"hello"} == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_of_several_of_one_name_the_last_one_counts(folder: OpenFolder, tmp_path: Path) -> None:
    end = bytes(1024)
    data = tar_of({"a": b"first"})[:1024] + tar_of({"a": b"hello"})[:1024] + end
    found = run(folder, data)
    assert HELLO == (found["a"] and found["a"].digest)
    assert [b"hello"] == [path.read_bytes() for path in tmp_path.iterdir()]


def test_links_devices_and_sparse_files_are_left_out(
    folder: OpenFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = (
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.GNUTYPE_SPARSE,
    )
    data = b"".join(member_of(f"k{number}", 0, kind) for number, kind in enumerate(kinds)) + tar_of({"a": b"hello"})
    with caplog.at_level(logging.WARNING):
        assert ["a"] == list(run(folder, data))
    assert "5 links, devices or sparse files were left out, such as k0, k1, k2" in caplog.text
    assert 1 == len(list(tmp_path.iterdir()))


def test_a_link_takes_the_place_of_a_file_before_it(folder: OpenFolder, tmp_path: Path) -> None:
    data = tar_of({"a": b"hello"})[:1024] + member_of("a", 0, tarfile.SYMTYPE) + bytes(1024)
    assert {} == run(folder, data)
    assert {".wh.a": None} == run(folder, data, lambda name: Member(name, True, f".wh.{name}"))
    assert [] == list(tmp_path.iterdir())


def test_where_it_is_not_the_right_content_nothing_is_left(folder: OpenFolder, tmp_path: Path) -> None:
    data = tar_of({"a": b"hello"})
    with pytest.raises(tk.DigestMismatchError):
        run(folder, data.replace(b"hello", b"hellO"), of=data)
    assert [] == list(tmp_path.iterdir())
    with pytest.raises(tk.InvalidModelError):
        run(folder, data[:512] + b"he")
    assert [] == list(tmp_path.iterdir())

    def refuse(name: str) -> Member:
        if name == "b":
            raise tk.InvalidNameError("no")
        return Member(name, True)

    with pytest.raises(tk.InvalidNameError):
        run(folder, tar_of({"a": b"hello", "b": b""}), refuse)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["create", "pwrite", "close"])
def test_whatever_the_disk_refuses_nothing_is_left(tmp_path: Path, call: str) -> None:
    before = open_descriptors()
    with OpenFolder(str(tmp_path), FailingDisk(lambda name, count, _: name == call and count == 1, errno.ENOSPC)) as to:
        with pytest.raises(tk.OutOfSpaceError):
            run(to, tar_of({"a": b"hello", "b": b"x"}))
        assert [] == list(tmp_path.iterdir())
    assert before == open_descriptors()
