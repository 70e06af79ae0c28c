"""Notes on uploads: kept for the next process, and for nobody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from transferkit.content.descriptor import Descriptor
from transferkit.storage.uploads import UploadNotes

BLOB = Descriptor("sha256:" + 64 * "a", 1000)
NOTE = {"url": "http://registry.example/session?_state=x", "minimum": 0}


def notes_of(folder: Path, place: str = "http://registry.example library/model") -> UploadNotes:
    return UploadNotes(str(folder), place, threshold=1000)


def files_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / ".partial" / "uploads"))


def test_a_note_is_there_for_the_next_process(tmp_path: Path) -> None:
    first = notes_of(tmp_path)
    assert first.load(BLOB) == {}
    first.save(BLOB, NOTE)
    first.save(BLOB, {**NOTE, "minimum": 5})
    assert notes_of(tmp_path).load(BLOB) == {}  # the first process is still at it
    first.close()
    assert notes_of(tmp_path, "another place").load(BLOB) == {}
    second = notes_of(tmp_path)
    assert second.load(BLOB) == {**NOTE, "minimum": 5, "size": 1000}
    second.forget(BLOB)
    second.forget(BLOB)
    assert files_in(tmp_path) == []


def test_its_owner_alone_may_read_it(tmp_path: Path) -> None:
    notes = notes_of(tmp_path)
    notes.save(BLOB, NOTE)
    notes.close()
    folder = tmp_path / ".partial" / "uploads"
    (name,) = (name for name in files_in(tmp_path) if not name.endswith(".lock"))
    assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    # The lock beside it says which process has it, and nothing else.
    assert (folder / f"{name}.lock").read_text().split()[0] == str(os.getpid())


def test_one_that_nobody_goes_on_with_is_removed_when_the_blob_is_there(tmp_path: Path) -> None:
    notes = notes_of(tmp_path)
    notes.save(BLOB, NOTE)
    notes.close()
    notes_of(tmp_path).forget(BLOB)
    assert files_in(tmp_path) == []


def test_small_blobs_have_none(tmp_path: Path) -> None:
    notes, small = notes_of(tmp_path), Descriptor(BLOB.digest, 999)
    notes.save(small, NOTE)
    assert notes.load(small) == {}
    notes.forget(small)
    assert not (tmp_path / ".partial").exists()


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"{}", b'{"size": 999}', b"[" * 60_000])
def test_what_is_no_note_is_none(tmp_path: Path, text: bytes) -> None:
    notes = notes_of(tmp_path)
    notes.save(BLOB, NOTE)
    notes.close()
    (name,) = (name for name in files_in(tmp_path) if not name.endswith(".lock"))
    (tmp_path / ".partial" / "uploads" / name).write_bytes(text)
    assert notes_of(tmp_path).load(BLOB) == {}


def test_a_named_pipe_or_a_link_is_not_read(tmp_path: Path) -> None:
    notes = notes_of(tmp_path)
    notes.save(BLOB, NOTE)
    notes.close()
    (name,) = (name for name in files_in(tmp_path) if not name.endswith(".lock"))
    path = tmp_path / ".partial" / "uploads" / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    notes = notes_of(tmp_path)
    assert notes.load(BLOB) == {}
    notes.close()
    path.unlink()
    os.mkfifo(path)
    notes = notes_of(tmp_path)
    assert notes.load(BLOB) == {}
    notes.close()
