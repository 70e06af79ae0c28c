"""Uploads that another process goes on with: after kill -9, after a cancel, and where the registry has forgotten."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import transferkit as tk
from transferkit.storage.directory import Directory
from transferkit.storage.uploads import UploadNotes
from transferkit.testing import FaultRule, HTTPFaults, respond, running_registry

REPOSITORY = "library/model"
MIB = 1024 * 1024
SIZE = 12 * MIB

KILLED = """
import sys
import transferkit as tk

url, digest, size, folder, part = sys.argv[1:]
options = tk.TransferOptions(resume_threshold=2**20, max_bandwidth=20e6, part_size=int(part) or None)
tk.upload([tk.Blob(digest, int(size))], folder, base_url=url, repository="library/model", options=options)
"""


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


def notes_in(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / ".partial" / "uploads").glob("sha256-*") if path.suffix != ".lock")


def upload(registry, blob, folder, **keywords) -> tk.Report:
    options = tk.TransferOptions(resume_threshold=MIB, **keywords.pop("options", {}))
    return tk.upload([blob], folder, base_url=registry.url, repository=REPOSITORY, options=options, **keywords)


def assert_stored(registry, blob, folder: Path) -> None:
    there, here = registry.blob_path(blob.digest), folder / tk.digest_to_path(blob.digest)
    assert here.read_bytes() == there.read_bytes()


@pytest.mark.parametrize("part_size", [None, MIB])
def test_another_process_goes_on_after_kill_9(make_blobs, source, tmp_path, part_size):
    with running_registry() as registry:
        (blob,) = make_blobs(source, [SIZE])
        arguments = [registry.url, blob.digest, str(SIZE), str(source), str(part_size or 0)]
        child = subprocess.Popen([sys.executable, "-c", KILLED, *arguments])
        deadline = time.monotonic() + 20
        while not received(registry) > 4 * MIB and time.monotonic() < deadline:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        (note,) = notes_in(source)
        assert 0o600 == stat.S_IMODE(note.stat().st_mode)
        calls = []
        registry.log.clear()

        report = upload(registry, blob, source, options={"part_size": part_size}, progress=lambda *c: calls.append(c))

        assert 0 == registry.log.count(method="POST")
        assert_stored(registry, blob, source)
    assert report.bytes <= SIZE - 3 * MIB
    assert (SIZE, SIZE) == calls[-1]
    assert [] == os.listdir(source / ".partial" / "uploads")


def received(registry) -> int:
    """Return how many bytes of uploads the registry has on its disk."""
    files = (path for path in Path(registry.blob_path("sha256:" + 64 * "0")).parents[1].rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files)


@pytest.fixture
def interrupted(make_blobs, source):
    """``interrupted(registry)`` is a blob whose upload was cancelled after half of it."""

    def make(registry) -> tk.Blob:
        (blob,) = make_blobs(source, [4 * MIB])
        cancel = tk.Cancellation()

        def half(completed, total):
            if completed > total / 2:
                cancel.cancel("half of it")

        with pytest.raises(tk.CancelledError):
            upload(
                registry,
                blob,
                source,
                cancel=cancel,
                progress=half,
                options={"part_size": MIB, "max_bandwidth": 20e6, "progress_interval": 0.01},
            )
        registry.log.clear()
        return blob

    return make


def test_a_second_run_asks_and_goes_on(registry, interrupted, source):
    blob = interrupted(registry)
    report = upload(registry, blob, source, options={"part_size": MIB})
    assert (0, 1) == (registry.log.count(method="POST"), registry.log.count(method="GET"))
    assert report.bytes < 3 * MIB
    assert_stored(registry, blob, source)


@pytest.mark.parametrize("answer", [respond(404), respond(401), respond(200, ""), respond(500)])
def test_where_the_registry_does_not_know_it_any_more_it_begins_anew(interrupted, source, answer):
    faults = HTTPFaults()
    with running_registry(middleware=faults) as registry:
        blob = interrupted(registry)
        faults.set(FaultRule(answer, method="GET", path="/blobs/uploads/"))
        report = upload(registry, blob, source)
        assert (1, 4 * MIB) == (registry.log.count(method="POST"), report.bytes)
        assert_stored(registry, blob, source)
    assert [] == notes_in(source)


def test_wrong_bytes_of_the_first_run_are_found_out_and_sent_again(registry, interrupted, source, make_blobs):
    """The session holds something else than this blob: the registry refuses its digest, and another one is begun."""
    blob = interrupted(registry)
    (other,) = make_blobs(source, [4 * MIB], seed=9)
    (note,) = notes_in(source)
    note.rename(note.with_name(note.name.replace(blob.digest[7:], other.digest[7:])))
    report = upload(registry, other, source)
    assert 1 == registry.log.count(method="POST")
    assert report.bytes > 4 * MIB
    assert_stored(registry, other, source)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "9" * 5000, "elsewhere", '{"url": 5, "size": 4194304}', '{"url": "x:y", "size": 4194304}'],
)
def test_a_note_that_makes_no_sense_is_none(registry, interrupted, source, text, serve):
    blob = interrupted(registry)
    (note,) = notes_in(source)
    evil = serve(lambda request: pytest.fail("it was asked"))
    if text == "elsewhere":
        text = json.dumps({"url": f"{evil.url}/session", "minimum": 0, "size": blob.size})
    note.write_text(text)
    upload(registry, blob, source)
    assert 1 == registry.log.count(method="POST")
    assert_stored(registry, blob, source)
    assert [] == evil.requests


def test_another_registry_and_another_repository_have_notes_of_their_own(registry, interrupted, source):
    blob = interrupted(registry)
    tk.upload([blob], source, base_url=registry.url, repository="library/other")
    with running_registry() as other:
        upload(other, blob, source)
        assert 1 == other.log.count(method="POST")
    assert 1 == len(notes_in(source))
    assert (1, 0) == (registry.log.count(method="POST"), registry.log.count(method="GET"))


def test_two_processes_do_not_send_to_one_session(registry, interrupted, source):
    blob = interrupted(registry)
    first = UploadNotes(str(source), f"{registry.url} {REPOSITORY}", threshold=MIB)
    assert first.load(tk.Descriptor(blob.digest, blob.size))["size"] == blob.size
    upload(registry, blob, source)
    assert 1 == registry.log.count(method="POST")
    assert_stored(registry, blob, source)
    first.close()


def test_a_folder_that_can_only_be_read_costs_nothing(registry, make_blobs, source, monkeypatch):
    (blob,) = make_blobs(source, [2 * MIB])
    refused = []

    real = os.makedirs

    def makedirs(path, **keywords):
        if not path.startswith(str(source)):
            return real(path, **keywords)
        refused.append(path)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("transferkit.storage.uploads.os.makedirs", makedirs)
    report = upload(registry, blob, source, options={"part_size": MIB})
    assert 2 * MIB == report.bytes
    assert 1 == len(refused)
    assert_stored(registry, blob, source)


def test_a_link_in_the_place_of_its_folder_is_not_followed(registry, make_blobs, source, tmp_path):
    (blob,) = make_blobs(source, [2 * MIB])
    (tmp_path / "elsewhere").mkdir()
    (source / ".partial").symlink_to(tmp_path / "elsewhere")
    upload(registry, blob, source)
    assert [] == os.listdir(tmp_path / "elsewhere")


def test_small_blobs_have_no_notes(registry, make_blobs, source):
    blobs = make_blobs(source, [10, MIB - 1])
    tk.upload(blobs, source, base_url=registry.url, repository=REPOSITORY)
    assert not (source / ".partial" / "uploads").exists()
    assert repr(Directory(source))
