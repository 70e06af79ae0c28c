"""Every fault that a registry, a network or a disk is known for, one at a time, and how the call ends.

Each case of the tables ends in the right bytes or in the documented error, and whichever it is: nothing wrong is under
a final name, nothing unfinished lies about, nothing half is in the registry, no thread and no descriptor is left,
progress never passes the total and ends there when all went well, and the next call, without the fault, succeeds.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from importlib import util
from pathlib import Path

import pytest

import transferkit as tk


def beside(name):
    """Load a module of this folder, which is on no path."""
    spec = util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cases, rigs = beside("fault_cases"), beside("fault_rig")
downloads, uploads = beside("fault_downloads"), beside("fault_uploads")

DOWNLOADS = cases.product("down", downloads.CASES)
UPLOADS = cases.product("up", uploads.CASES)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        world = rigs.World(stack, tmp_path_factory.mktemp("world"))
        patch.setenv("REQUESTS_CA_BUNDLE", str(world.ca))
        world.publish()
        yield world


def options_for(run) -> tk.TransferOptions:
    """Options that give up soon, and wait for silence no longer than a case of silence must."""
    return tk.TransferOptions(
        resume_threshold=cases.RESUMABLE,
        stall_timeout=0.3 if run.case.silent else 5.0,
        progress_interval=0.01,
        retry=tk.RetryOptions(attempts=2, patience=0.0, max_wait=0.01, free_restarts=0),
        transport=tk.TransportOptions(
            connect_timeout=0.4 if run.case.silent else 10.0,
            response_timeout=0.4 if run.case.silent else 10.0,
            commit_timeout=0.4 if run.case.silent else 10.0,
            direct=run.scheme != "client",
        ),
    )


def check_progress(calls, blobs, *, succeeded):
    total = sum(blob.size for blob in blobs)
    assert {total} == {figure for _, figure in calls}
    assert all(0 <= completed <= total for completed, _ in calls)
    if succeeded:
        assert (total, total) == calls[-1]


@pytest.mark.parametrize("run", DOWNLOADS)
def test_a_download_ends_in_the_right_bytes_or_the_documented_error(run, world, tmp_path, monkeypatch):
    folder, calls, error = tmp_path / "d", [], None
    blobs = world.blobs[run.kind]
    place = world.places[run.scheme]
    marks = run.case.name.startswith("wire-") and world.marks(place, run.kind)
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
