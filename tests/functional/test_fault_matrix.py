"""Every fault that a registry, a network or a disk is known for, one at a time, and how the call ends.

Each case of the tables ends in the right bytes or in the documented error, and whichever it is: nothing wrong is under
a final name, nothing unfinished lies about, nothing half is in the registry, no thread and no descriptor is left,
progress never passes the total and ends there when all went well, and the next call, without the fault, succeeds.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import sys
from contextlib import ExitStack
from dataclasses import replace
from importlib import util
from pathlib import Path

import pytest

import transferkit as tk
from transferkit.storage.directory import Directory

MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"


def beside(name):
    """Load a module of this folder, which is on no path."""
    spec = util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cases, rigs = beside("fault_cases"), beside("fault_rig")
downloads, uploads, auth = beside("fault_downloads"), beside("fault_uploads"), beside("fault_auth")
manifests, disks = beside("fault_manifests"), beside("fault_disks")

DOWNLOADS = cases.product("down", [*downloads.CASES, *auth.CASES])
UPLOADS = cases.product("up", [*uploads.CASES, *auth.FOR_UPLOADS])
PUSHES = cases.product("up", manifests.PUSHES)
FETCHES = cases.product("down", manifests.FETCHES)
DISKS, OPTIONAL, PLANTED, LOCKS = disks.calls(), disks.optional(), disks.planted(), disks.LOCKS


@pytest.fixture(scope="module")
def world(tmp_path_factory, take_little):
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        take_little(patch)
        world = rigs.World(stack, tmp_path_factory.mktemp("world"))
        patch.setenv("REQUESTS_CA_BUNDLE", str(world.ca))
        # A proxy that resets waits for what it has sent to arrive, in vain where its client has closed.
        patch.setattr("transferkit.testing.tunnel.TAKE", 0.2)
        world.publish()
        yield world


def options_for(run) -> tk.TransferOptions:
    """Options that give up soon, and wait for silence no longer than a case of silence must."""
    return tk.TransferOptions(
        resume_threshold=cases.RESUMABLE,
        stall_timeout=0.25 if run.case.silent else 5.0,
        progress_interval=0.01,
        retry=tk.RetryOptions(attempts=2, patience=0.0, max_wait=0.01, free_restarts=0),
        transport=tk.TransportOptions(
            connect_timeout=0.5 if run.case.silent else 10.0,
            response_timeout=0.5 if run.case.silent else 10.0,
            commit_timeout=0.5 if run.case.silent else 10.0,
        ),
    )


def check_progress(calls, blobs, *, succeeded):
    total = sum(blob.size for blob in blobs)
    assert {total} == {figure for _, figure in calls}
    assert all(0 <= completed <= total for completed, _ in calls)
    if succeeded:
        assert (total, total) == calls[-1]


# A connection that is reset within its handshake is left to the garbage collector by the server's own library.
# It has no peer any more, which one of ours would have.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket .*laddr=[(][^()]*[)]>:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("run", DOWNLOADS)
def test_a_download_ends_in_the_right_bytes_or_the_documented_error(run, world, tmp_path, monkeypatch):
    folder, calls, error = tmp_path / "d", [], None
    blobs = world.blobs[run.kind]
    place = world.places[run.scheme]
    if run.kind == "rest":
        shutil.copytree(world.rest, folder)
    place.log.clear()
    with rigs.nothing_left():
        with ExitStack() as stack:
            rig = rigs.Rig(world, run, stack, monkeypatch, tmp_path / "own")
            stack.callback(place.calm)
            stack.callback(world.storage.calm)
            run.case.arm(rig)
            try:
                tk.download(
                    blobs,
                    folder,
                    base_url=rig.url,
                    repository=rigs.REPOSITORY,
                    concurrency=1,
                    options=options_for(run),
                    progress=lambda *figures: calls.append(figures),
                )
            except tk.TransferKitError as caught:
                error = caught

    assert run.expected == rigs.chain(error), repr(error)
    names = {tk.digest_to_path(blob.digest) for blob in blobs}
    check_progress(calls, blobs, succeeded=error is None)
    assert {name: name for name in names if error is None} == rigs.digests(folder)
    leftovers = {file.name for file in (folder / ".partial").iterdir()} - {"verified"}
    if error is None or run.kind not in ("large", "rest"):
        assert set() == leftovers
    (name,) = names if len(names) == 1 else [""]
    assert leftovers <= {name, f"{name}.json", f"{name}.lock"}
    if name in leftovers:
        assert world.data(blobs[0]).startswith((folder / ".partial" / name).read_bytes())
    if run.requests is not None:
        assert run.requests == len(place.log)

    again = tk.download(
        blobs, folder, base_url=place.url, repository=rigs.REPOSITORY, options=options_for(run), concurrency=1
    )
    assert 0 == again.retried
    assert {name: name for name in names} == rigs.digests(folder)
    assert {"verified"} == {file.name for file in (folder / ".partial").iterdir()}


@pytest.mark.parametrize("run", UPLOADS)
def test_an_upload_ends_in_the_right_bytes_or_the_documented_error(run, world, tmp_path, monkeypatch):
    calls, error = [], None
    place = world.places[run.scheme]
    rigs.forget_pushes(place)
    blobs = [tk.Blob(b.digest, b.size, source=rigs.MOUNTED if run.case.mounts else None) for b in world.blobs[run.kind]]
    if run.case.mounts:
        tk.upload(world.blobs[run.kind], world.sources, base_url=place.url, repository=rigs.MOUNTED)
    place.log.clear()
    with rigs.nothing_left():
        with ExitStack() as stack, monkeypatch.context() as patch:
            rig = rigs.Rig(world, run, stack, patch, tmp_path / "own")
            stack.callback(place.calm)
            run.case.arm(rig)
            try:
                tk.upload(
                    blobs,
                    rig.source,
                    base_url=rig.url,
                    repository=rigs.PUSHED,
                    concurrency=1,
                    options=options_for(run),
                    progress=lambda *figures: calls.append(figures),
                )
            except tk.TransferKitError as caught:
                error = caught

    assert run.expected == rigs.chain(error), repr(error)
    check_progress(calls, blobs, succeeded=error is None)
    names = {tk.digest_to_path(blob.digest) for blob in blobs}
    if error is None and rig.scripted is None:
        assert all(rigs.linked(place, rigs.PUSHED, name) for name in names)
    check_store(place)
    if run.requests is not None:
        assert run.requests == len(place.log)

    again = tk.upload(
        blobs, world.sources, base_url=place.url, repository=rigs.PUSHED, options=options_for(run), concurrency=1
    )
    assert 0 == again.retried
    assert all(rigs.linked(place, rigs.PUSHED, name) for name in names)
    check_store(place)


def check_store(place):
    """Whatever a registry has is whole, and whatever its repository speaks of is there."""
    stored = rigs.digests(place.registry.store / "blobs")
    assert {name: name for name in stored} == stored
    links = place.registry.store / "repositories" / rigs.PUSHED / "_blobs"
    assert set(os.listdir(links) if links.exists() else ()) <= set(stored)


def manifest_of(blobs):
    layers = [{"mediaType": "application/octet-stream", "digest": b.digest, "size": b.size} for b in blobs]
    return json.dumps({"schemaVersion": 2, "mediaType": MEDIA_TYPE, "config": layers[0], "layers": layers}).encode()


@pytest.mark.parametrize("run", PUSHES)
def test_a_manifest_goes_out_after_its_blobs_or_not_at_all(run, world, tmp_path, monkeypatch):
    error, place, blobs = None, world.places[run.scheme], world.blobs[run.kind]
    raw, where = manifest_of(blobs), {"base_url": place.url, "repository": rigs.PUSHED, "options": options_for(run)}
    rigs.forget_pushes(place)
    with rigs.nothing_left(), ExitStack() as stack:
        stack.callback(place.calm)
        run.case.arm(rigs.Rig(world, run, stack, monkeypatch, tmp_path / "own"))
        try:
            tk.upload(blobs, world.sources, manifest=raw, manifest_ref="v1", **where)
        except tk.TransferKitError as caught:
            error = caught

    assert run.expected == rigs.chain(error), repr(error)
    tags = place.registry.store / "repositories" / rigs.PUSHED / "_tags" / "v1"
    # An answer that was lost, or that lies, may come of a manifest that is in place.
    if tags.exists() or error is None:
        assert "sha256:" + hashlib.sha256(raw).hexdigest() == tags.read_text()
        assert all(rigs.linked(place, rigs.PUSHED, tk.digest_to_path(blob.digest)) for blob in blobs)
    check_store(place)

    tk.upload(blobs, world.sources, manifest=raw, manifest_ref="v1", **where)
    assert raw == tk.fetch_manifest("v1", **where).raw


@pytest.mark.parametrize("run", FETCHES)
def test_a_manifest_comes_byte_for_byte_or_not_at_all(run, world, tmp_path, monkeypatch):
    error, place, blobs = None, world.places[run.scheme], world.blobs[run.kind]
    raw, where = manifest_of(blobs), {"base_url": place.url, "repository": rigs.REPOSITORY, "options": options_for(run)}
    tk.upload(blobs, world.sources, manifest=raw, manifest_ref="v1", **where)
    with rigs.nothing_left(), ExitStack() as stack:
        stack.callback(place.calm)
        run.case.arm(rigs.Rig(world, run, stack, monkeypatch, tmp_path / "own"))
        try:
            assert raw == tk.fetch_manifest("v1", **where).raw
        except tk.TransferKitError as caught:
            error = caught

    assert run.expected == rigs.chain(error), repr(error)
    assert raw == tk.fetch_manifest("v1", **where).raw


DURABLE = tk.TransferOptions(
    durable=True,
    resume_threshold=cases.RESUMABLE,
    progress_interval=0.01,
    retry=tk.RetryOptions(attempts=2, patience=0.0, max_wait=0.01),
)


@pytest.mark.parametrize("run", OPTIONAL)
def test_a_file_system_that_has_no_such_call_is_good_enough(run, world, tmp_path, monkeypatch):
    error, place, blobs, folder = None, world.places["plain"], world.blobs[run.kind], tmp_path / "d"
    if run.kind == "rest":
        shutil.copytree(world.rest, folder)
    # Where it was asked for that the data is durable, it has to be.
    options = replace(DURABLE, durable=run.call != "fsync")
    where = {"base_url": place.url, "repository": rigs.REPOSITORY, "options": options, "concurrency": 1}
    disk = disks.FailingDisk(run.call, run.code, run.first)
    with rigs.nothing_left(), monkeypatch.context() as patch:
        patch.setattr("transferkit.storage.pace.SYNC_EVERY", 400_000)
        patch.setattr("transferkit.arguments.Directory", functools.partial(Directory, disk=disk))
        try:
            tk.download(blobs, folder, **where)
        except tk.TransferKitError as caught:
            error = caught

    assert disk.failed
    assert run.expected == rigs.chain(error), repr(error)
    assert error is None or run.code == error.errno
    check_folder(folder, blobs, complete=error is None or run.call == "append")
    tk.download(blobs, folder, **where)
    check_folder(folder, blobs, complete=True)


@pytest.mark.parametrize("run", DISKS)
def test_whatever_call_of_the_disk_fails_the_error_says_so(run, world, tmp_path, monkeypatch):
    calls, error, place, blobs = [], None, world.places["plain"], world.blobs[run.kind]
    folder = tmp_path / "d"
    rigs.forget_pushes(place)
    if run.kind == "rest":
        shutil.copytree(world.rest, folder)
    where = {"base_url": place.url, "options": DURABLE, "concurrency": 1}
    with rigs.nothing_left(), monkeypatch.context() as patch:
        disk = disks.FailingDisk(run.call, run.code, run.first)
        patch.setattr("transferkit.arguments.Directory", functools.partial(Directory, disk=disk))
        keywords = {**where, "progress": lambda *figures: calls.append(figures)}
        try:
            if run.direction == "down":
                tk.download(blobs, folder, repository=rigs.REPOSITORY, **keywords)
            else:
                tk.upload(blobs, world.sources, repository=rigs.PUSHED, **keywords)
        except tk.TransferKitError as caught:
            error = caught

    assert run.expected == rigs.chain(error), repr(error)
    assert disk.failed or error is None
    assert error is None or run.code == error.errno
    if calls:
        check_progress(calls, blobs, succeeded=error is None)
    if run.direction == "up":
        check_store(place)
        tk.upload(blobs, world.sources, repository=rigs.PUSHED, **where)
        assert all(rigs.linked(place, rigs.PUSHED, tk.digest_to_path(blob.digest)) for blob in blobs)
        return
    check_folder(folder, blobs, complete=error is None)
    tk.download(blobs, folder, repository=rigs.REPOSITORY, **where)
    check_folder(folder, blobs, complete=True)


def check_folder(folder, blobs, *, complete):
    """What has a final name is right, and a call that went well has brought all of it."""
    names = {tk.digest_to_path(blob.digest) for blob in blobs}
    there = rigs.digests(folder) if folder.exists() else {}
    assert {name: name for name in there} == there
    assert set(there) == names if complete else set(there) <= names


@pytest.mark.parametrize(("where", "plant", "kind", "expected"), PLANTED)
def test_what_others_have_planted_is_neither_believed_nor_written_through(
    where, plant, kind, expected, world, tmp_path, monkeypatch
):
    error, place, blobs, folder = None, world.places["plain"], world.blobs[kind], tmp_path / "d"
    name = tk.digest_to_path(blobs[0].digest)
    path = folder / where.format(name)
    path.parent.mkdir(parents=True)
    plant(folder, path, world.data(blobs[0]))
    precious = tmp_path / "precious"
    before = precious.read_bytes() if precious.exists() else None
    with rigs.nothing_left():
        try:
            tk.download(blobs, folder, base_url=place.url, repository=rigs.REPOSITORY, concurrency=1, options=DURABLE)
        except tk.TransferKitError as caught:
            error = caught

    assert expected == rigs.chain(error), repr(error)
    assert before == (precious.read_bytes() if precious.exists() else None)
    if error is None:
        assert world.data(blobs[0]) == (folder / name).read_bytes()


@pytest.mark.parametrize(("arm", "kind", "expected"), LOCKS)
def test_a_file_system_without_locks_is_good_enough(arm, kind, expected, world, tmp_path, monkeypatch):
    error, place, blobs, folder = None, world.places["plain"], world.blobs[kind], tmp_path / "d"
    if kind == "rest":
        shutil.copytree(world.rest, folder)
    where = {"base_url": place.url, "repository": rigs.REPOSITORY, "concurrency": 1, "options": DURABLE}
    with rigs.nothing_left(), monkeypatch.context() as patch:
        arm(patch)
        try:
            report = tk.download(blobs, folder, **where)
        except tk.TransferKitError as caught:
            error = caught

    assert expected == rigs.chain(error), repr(error)
    if error is None and kind == "rest":
        assert blobs[0].size - cases.PLANTED == report.bytes
    check_folder(folder, blobs, complete=error is None)
    tk.download(blobs, folder, **where)
    check_folder(folder, blobs, complete=True)
