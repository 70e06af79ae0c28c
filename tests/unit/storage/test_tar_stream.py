"""A tar layer that comes by: what it holds, and what is refused of layers that are out of all bounds."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import tarfile
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import transferkit as tk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.storage import tar_stream
from transferkit.storage.tar_stream import TarStream
from transferkit.transfer.flow import WorkerFlow

FILES = {"a": b"hello", "deep/b": random.Random(1).randbytes(70_000), "empty": b"", "c" * 200: bytes(513)}
PAX = {"format": tarfile.PAX_FORMAT, "pax_headers": {"comment": "x" * 3000}}


class Pieces:
    """A body that arrives in small pieces."""

    offset = 0
    length = None

    def __init__(self, data: bytes, size: int = 999) -> None:
        self.data = io.BytesIO(data)
        self.size = size

    def readinto(self, buffer: memoryview, /) -> int:
        return self.data.readinto(buffer[: self.size])

    def close(self) -> None:
        self.data.close()

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tar_of(files: dict[str, bytes], **keywords: Any) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", **keywords) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def member_of(name: str, size: int | None, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header by hand, with a size that no file has."""
    info = tarfile.TarInfo(name)
    info.type = kind
    raw = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    raw[124:136] = b"%011o\0" % size if size is not None and size >= 0 else b"\xff" * 11 + b"\xf0"  # -16, as GNU has it
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def read(data: bytes, *, zipped: bool = False, ratio: float = 100.0, of: bytes | None = None) -> dict[str, bytes]:
    """Read all files of a layer; ``of`` is the content that the descriptor is of."""
    content = data if of is None else of
    descriptor = Descriptor(Digest(f"sha256:{hashlib.sha256(content).hexdigest()}"), len(content))
    stream = TarStream(Pieces(data), descriptor, WorkerFlow(), gzip=zipped, ratio=ratio)
    found: dict[str, bytes] = {}

    def take(member: tarfile.TarInfo) -> None:
        found[member.name] = b"".join(bytes(piece) for piece in stream.take(member.size))

    stream.each(take)
    return found


@pytest.mark.parametrize("pax", [{}, PAX, {"format": tarfile.GNU_FORMAT}], ids=["default", "pax", "gnu"])
@pytest.mark.parametrize("zipped", [False, True])
def test_files_come_in_order_with_their_content(pax: Any, zipped: bool) -> None:
    data = tar_of(FILES, **pax)
    assert FILES == read(gzip.compress(data) if zipped else data, zipped=zipped)


def test_gzip_in_several_parts_with_zeros_behind_is_one_stream() -> None:
    """As pigz, eStargz and who pads to a block write it."""
    data = tar_of(FILES)
    parts = gzip.compress(data[:3000]) + gzip.compress(data[3000:3001]) + gzip.compress(data[3001:]) + bytes(600)
    assert FILES == read(parts, zipped=True)


def test_what_nobody_reads_is_passed_over() -> None:
    data = tar_of(FILES)
    stream = TarStream(
        Pieces(data),
        Descriptor(Digest(f"sha256:{hashlib.sha256(data).hexdigest()}"), len(data)),
        WorkerFlow(),
        gzip=False,
        ratio=1,
    )
    names: list[str] = []
    stream.each(lambda member: names.append(member.name))
    assert list(FILES) == names


def test_it_is_held_to_its_digest_and_its_size() -> None:
    data = tar_of(FILES)
    with pytest.raises(tk.DigestMismatchError):
        read(data[:-1] + b"X", of=data)
    with pytest.raises(tk.SizeMismatchError, match=f"received {len(data) - 5}/{len(data)}") as caught:
        read(data[:-5], of=data)
    assert caught.value.retryable
    with pytest.raises(tk.SizeMismatchError):
        read(data + b"X", of=data)


@pytest.mark.parametrize(
    ("data", "zipped"),
    [
        (b"no tar file at all " * 100, False),
        (b"", False),
        (b"no gzip", True),
        (gzip.compress(tar_of(FILES))[:-9000], True),
        (tar_of(FILES)[:-75_000], False),
        (member_of("a", 1 << 32), False),
        (member_of("a", None), False),
        (tar_of({"a": b"1"})[:1024] + member_of("b", None) + bytes(1024), False),
        (member_of("x", 1 << 30, tarfile.GNUTYPE_LONGNAME), False),
        (member_of("x", 1 << 30, tarfile.XHDTYPE), False),
        (member_of("x", 20, tarfile.XHDTYPE) + b"20 size=99999999999\n" + bytes(492) + member_of("a", 1), False),
        (member_of("x", 0, tarfile.XHDTYPE) * 3000, False),
    ],
)
def test_what_is_no_tar_file_is_an_error_of_ours(data: bytes, zipped: bool) -> None:
    with pytest.raises(tk.InvalidModelError, match=r"^sha256:\w+ cannot be read as a tar file: "):
        read(data, zipped=zipped)


def test_what_unpacks_to_far_more_than_it_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_stream, "_SMALLEST", 10_000)
    bomb = gzip.compress(tar_of({"a": bytes(2_000_000)}))
    with pytest.raises(tk.InvalidModelError, match=rf"has {len(bomb)} bytes and unpacks to more than .*unpack_ratio"):
        read(bomb, zipped=True)
    assert {"a": bytes(2_000_000)} == read(bomb, zipped=True, ratio=2000)


def test_too_many_members_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_stream, "MAX_MEMBERS", 3)
    with pytest.raises(tk.InvalidModelError, match="more than 3 files"):
        read(tar_of(FILES))


@given(st.binary(max_size=3000), st.booleans(), st.integers(0, 3000))
@example(member_of("a", None), False, 0)
def test_whatever_it_is_there_is_a_file_or_an_error_of_ours(noise: bytes, zipped: bool, at: int) -> None:
    plain = tar_of({"a": b"hello", "b" * 120: b"x" * 700}, **PAX)
    for data in (noise, plain[:at] + noise + plain[at:], plain[:at] + noise[:9] + plain[at + 9 :]):
        try:
            read(gzip.compress(data) if zipped else data, zipped=zipped)
        except tk.InvalidModelError:
            pass


def test_a_worker_that_is_told_to_stop_stops() -> None:
    data = tar_of({"a": os.urandom(100_000)})
    flow = WorkerFlow()
    stream = TarStream(Pieces(data), Descriptor(Digest.of(data), len(data)), flow, gzip=False, ratio=1)
    flow.cut(tk.CancelledError("enough"), final=True)
    with pytest.raises(tk.CancelledError):
        stream.each(lambda member: None)
