"""Parts of an upload: how they lie, and what is noted of them. Conversations: ``functional/test_ollama_uploads``."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.remote.rig import BLOB, DATA, Flow, Source
from transferkit.content.interfaces import Outcome, Shared
from transferkit.errors import SourceError
from transferkit.options import TransportOptions
from transferkit.remote import upload_ollama
from transferkit.remote.body import BlobBody
from transferkit.remote.repository import Repository
from transferkit.remote.upload import Upload
from transferkit.remote.upload_parts import AT_ONCE, PartsSession
from transferkit.storage.directory import Directory
from transferkit.testing import ScriptedServer, answer, scripted_server

URL = "https://registry.example/session"


@given(st.integers(0, 1000), st.integers(1, 300))
def test_parts_partition_the_blob(size: int, length: int) -> None:
    session = PartsSession.begin(URL, size, length)
    assert [byte for part in session.parts for byte in range(part.start, part.end)] == list(range(size))
    assert {part.end - part.start for part in session.parts[:-1]} <= {length}


def test_the_note_has_the_first_parts_that_are_there_without_a_gap() -> None:
    session = PartsSession.begin(URL, 10, 3)
    for number in (0, 1, 3):
        session.parts[number].md5 = bytes([number])
    assert session.note() == {"digests": ["00", "01"]}


def test_what_another_process_has_sent_is_taken_over() -> None:
    session = PartsSession.begin(URL, 10, 3)
    session.go_on([b"a", b"b"])
    assert (session.confirmed, session.resumed, session.note()) == (6, True, {"digests": ["61", "62"]})
    session.go_on([b"a"] * 9)
    assert session.confirmed == 10


def test_a_part_is_hashed_as_it_is_sent_and_anew_each_time() -> None:
    (part,) = PartsSession.begin(URL, 4, 10).parts
    for content in (b"once", b"more"):
        with part.hashed(_body(content)) as body:
            assert body.readinto(memoryview(bytearray(9))) == 4
        assert part.hasher.hexdigest() == hashlib.md5(content).hexdigest()


def _body(data: bytes) -> BlobBody:
    def readinto(buffer: memoryview) -> int:
        buffer[: len(data)] = data
        return len(data)

    return BlobBody(readinto, lambda: None, 0, len(data))


def test_a_repository_says_how_many_workers_a_blob_keeps_busy(repository_of: Any) -> None:
    ollama = repository_of("http://o.example", options=TransportOptions(ollama_hosts=frozenset({"o.example"})))
    sizes = (0, 1, 100_000_000, 100_000_001, 300_000_001, 10**12)
    descriptors = [type(BLOB)(BLOB.digest, size) for size in sizes]
    assert [ollama.parts([descriptor]) for descriptor in descriptors] == [1, 1, 1, 2, AT_ONCE, AT_ONCE]
    assert repository_of("http://other.example").parts(descriptors) == len(sizes)


@pytest.mark.parametrize("change", ["bytes", "time"])
def test_what_others_have_sent_is_held_to_its_digest(
    repository_of: Any, flow: Flow, tmp_path: Path, change: str
) -> None:
    path = tmp_path / BLOB.digest.file_name
    path.write_bytes(DATA[:-1] + b"x" if change == "bytes" else DATA)
    uploads = repository_of("http://o.example")._uploads
    with pytest.raises(SourceError, match="does not match" if change == "bytes" else "changed"):
        with Upload(uploads, BLOB, Directory(tmp_path), flow) as upload:
            content = upload.seek(10)
            assert isinstance(content, Shared)
            with content.part(0) as part:
                assert part.readinto(memoryview(bytearray(2000))) == BLOB.size
            if change == "time":
                os.utime(path, (1, 1))
            upload.prove()


def led(server: ScriptedServer, storage: ScriptedServer) -> Any:
    """Return a script of a registry that leads two parts to the storage."""
    to = {"Location": f"{storage.url}/bucket"}
    return [
        answer(404),
        answer(202, b"", {"Location": "/first"}),
        answer(307, b"", {**to, "Docker-Upload-Location": "/second"}),
        answer(307, b"", {**to, "Docker-Upload-Location": "/third"}),
        answer(201),
    ]


@pytest.mark.parametrize("shares", [True, False])
def test_without_others_a_worker_sends_all_parts_itself(
    repository_of: Any, flow: Flow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shares: bool
) -> None:
    monkeypatch.setattr(upload_ollama, "SMALLEST_PART", 512)
    (tmp_path / BLOB.digest.file_name).write_bytes(DATA)
    source = Directory(tmp_path) if shares else Source()
    with source.fetch(BLOB, flow=flow) as body:
        assert isinstance(body, Shared) is shares
    with scripted_server([answer(200), answer(200)]) as storage, scripted_server(led(storage, storage)) as server:
        options = TransportOptions(ollama_hosts=frozenset({f"127.0.0.1:{server.port}"}))
        repository: Repository = repository_of(server.url, options=options)
        assert repository.push(BLOB, source, flow=flow) is Outcome.MOVED
        assert sorted(request.body for request in storage.requests) == sorted([DATA[:512], DATA[512:]])
        assert [request.target for request in server.requests[2:4]] == ["/first", "/second"]
        assert server.requests[4].target.startswith("/third?digest=")
    assert flow.counter.position == BLOB.size
