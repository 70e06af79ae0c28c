"""A part of a file as the body of an answer, as any WSGI server takes it; how ours sends it is in ``test_serve``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from transferkit.server.file_part import FilePart


def test_a_part_comes_in_bounded_blocks(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(250)) * 4_000)
    part = FilePart.open(str(tmp_path / "file"))
    assert 1_000_000 == part.size
    part.select(5, 600_005)

    blocks = list(part)

    assert [262_144, 262_144, 75_712] == [len(block) for block in blocks]
    assert (bytes(range(250)) * 4_000)[5:600_005] == b"".join(blocks)
    part.close()


def test_what_was_sent_otherwise_is_not_sent_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    part = FilePart.open(str(tmp_path / "file"))
    part.select(2, 8)

    part.moved(4)

    assert (2, b"67") == (part.left, part.whole())


def test_a_file_that_shrinks_while_it_is_sent_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 500_000)
    part = FilePart.open(str(tmp_path / "file"))
    next(part)
    os.truncate(tmp_path / "file", 300_000)
    assert len(next(part)) == 37_856

    with pytest.raises(OSError, match="shorter"):
        next(part)

    part.close()
    assert list(part) == []
