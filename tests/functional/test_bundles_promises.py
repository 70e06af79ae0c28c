"""What the library promises, where small blobs are asked for together: each promise in the middle of a bundle."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from tests.functional.bundle_faults import out_of_order, resets_in_the_middle
from tests.functional.bundles import BLOBS, REPOSITORY, Blobs, Fault, download, plain, serve
from tests.functional.bundles import small as small
from transferkit.remote.repository import Repository
from transferkit.storage.directory import Directory
from transferkit.storage.disk import Disk
from transferkit.testing.scripted import RawRequest, Step
from transferkit.testing.wire import Pause, answer
from transferkit.transfer.operation import Operation
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts

HELD = 20  # the request, of a bundle, in whose answer a server stops
CHILD = """
import json, sys
import transferkit as tk
given = json.loads(sys.argv[1])
blobs = [tk.Blob(digest, size) for digest, size in given["blobs"]]
tk.download(blobs, given["folder"], base_url=given["url"], repository=given["repository"], concurrency=1)
"""


class Holds:
    """A fault: half of an answer in the middle of a bundle, and then nothing; ``reached`` tells of it."""

    def __init__(self) -> None:
        self.reached = threading.Event()

    def __call__(self, blobs: Blobs, request: RawRequest, data: bytes) -> Step:
        if next(blobs.number) != HELD:
            return answer(200, data)
        self.reached.set()
        whole = answer(200, data)
        return [whole[: len(whole) - len(data) // 2], Pause(600)]


def in_place(folder: Path, blobs: list[tk.Blob]) -> set[str]:
    """Return the digests of the blobs that are there; each has to be right, and no other file may be there."""
    names = {file.name: file for file in folder.iterdir() if file.is_file()}
    found = {blob.digest for blob in blobs if tk.digest_to_path(blob.digest) in names}
    assert {tk.digest_to_path(digest) for digest in found} == set(names)
    for digest in found:
        content = names[tk.digest_to_path(digest)].read_bytes()
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
    return found


def unfinished(folder: Path) -> list[str]:
    return [file.name for file in (folder / ".partial").iterdir() if file.name != "verified"]


def goes_on(folder: Path, source: Path, blobs: list[tk.Blob], there: set[str]) -> None:
    """Run again: what is in place is not asked for, and all else comes."""
    seen = Blobs(source, blobs)
    with serve(seen, plain) as server:
        download(server.url, blobs, folder)
    assert {blob.digest for blob in blobs} - there == set(seen.asked)
    assert {blob.digest for blob in blobs} == in_place(folder, blobs)


def test_a_cancel_in_a_bundle_ends_the_call_and_what_has_come_stays(small: Any, tmp_path: Path) -> None:
    source, blobs = small
    holds, cancel, threads = Holds(), tk.Cancellation(), threading.active_count()
    with serve(Blobs(source, blobs), holds) as server:

        def stop() -> None:
            assert holds.reached.wait(20)
            cancel.cancel("enough")

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(tk.CancelledError, match="enough"):
            download(server.url, blobs, tmp_path / "to", cancel=cancel)
        stopper.join()
    assert threads == threading.active_count()

    there = in_place(tmp_path / "to", blobs)
    assert {blob.digest for blob in blobs[: HELD - 8]} <= there <= {blob.digest for blob in blobs[:HELD]}
    assert unfinished(tmp_path / "to") == []
    goes_on(tmp_path / "to", source, blobs, there)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_kill_9_in_a_bundle_leave_whole_blobs_and_a_second_run_goes_on(
    number: signal.Signals, small: Any, tmp_path: Path
) -> None:
    source, blobs = small
    holds = Holds()
    with serve(Blobs(source, blobs), holds) as server:
        given = {
            "blobs": [[blob.digest, blob.size] for blob in blobs],
            "folder": str(tmp_path / "to"),
            "url": server.url,
            "repository": REPOSITORY,
        }
        child = subprocess.Popen([sys.executable, "-c", CHILD, json.dumps(given)], stderr=subprocess.PIPE, text=True)
        try:
            assert holds.reached.wait(30)
            child.send_signal(number)
            said = child.communicate(timeout=20)[1]
        finally:
            child.kill()  # where it did not end
    assert (-number == child.returncode) or "KeyboardInterrupt" in said

    there = in_place(tmp_path / "to", blobs)
    assert {blob.digest for blob in blobs[: HELD - 8]} <= there <= {blob.digest for blob in blobs[:HELD]}
    if number is signal.SIGINT:
        assert unfinished(tmp_path / "to") == []
    goes_on(tmp_path / "to", source, blobs, there)


class Watched(Disk):
    """A disk that is full after so many bytes; it hashes every file before that gets its final name."""

    def __init__(self, room: int = sys.maxsize) -> None:
        self.refused = 0
        self.named: dict[str, str] = {}
        self._room = room

    def pwrite(self, fd: int, data: memoryview, offset: int) -> None:
        if self._room < len(data):
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._room -= len(data)
        super().pwrite(fd, data, offset)

    def rename(self, old: str, new: str, folder: int | None = None, **keywords: Any) -> Any:
        fd = os.open(old, os.O_RDONLY, dir_fd=folder)
        with os.fdopen(fd, "rb") as file:
            self.named[os.path.basename(new)] = hashlib.sha256(file.read()).hexdigest()
        return super().rename(old, new, folder, **keywords)


def copy(url: str, blobs: list[tk.Blob], target: Directory) -> None:
    options = tk.TransferOptions(retry=tk.RetryOptions(attempts=3, patience=0.0, max_wait=0.01))
    with Hosts() as hosts, Operation(concurrency=1, options=options) as operation:
        descriptors = [tk.Descriptor(blob.digest, blob.size) for blob in blobs]
        operation.copy(descriptors, Repository(Client(url, hosts), REPOSITORY), target)


def test_a_full_disk_in_a_bundle_ends_the_call_at_once_and_leaves_whole_blobs(small: Any, tmp_path: Path) -> None:
    source, blobs = small
    seen, disk = Blobs(source, blobs), Watched(room=sum(blob.size for blob in blobs[:HELD]))
    with serve(seen, plain) as server, pytest.raises(tk.OutOfSpaceError) as caught:
        copy(server.url, blobs, Directory(tmp_path / "to", disk=disk))

    assert (errno.ENOSPC, 1) == (caught.value.errno, disk.refused)
    assert {blob.digest for blob in blobs[:HELD]} == in_place(tmp_path / "to", blobs)
    assert unfinished(tmp_path / "to") == []
    assert sum(seen.asked.values()) <= HELD + 8  # nobody goes on asking


@pytest.mark.parametrize("fault", [out_of_order, resets_in_the_middle])
def test_no_file_gets_its_name_before_it_is_whole_and_verified(fault: Fault, small: Any, tmp_path: Path) -> None:
    source, blobs = small
    disk = Watched()
    with serve(Blobs(source, blobs), fault) as server:
        copy(server.url, blobs, Directory(tmp_path / "to", disk=disk))

    assert {f"sha256-{digest}" for digest in disk.named.values()} == set(disk.named)
    assert len(disk.named) == BLOBS


class Synced(Disk):
    """A disk that writes down which files were synced, by their inodes, and which got their names without that."""

    def __init__(self) -> None:
        self.synced: set[int] = set()
        self.unsynced: list[str] = []
        self.fsync = self._fsync  # type: ignore[method-assign]  # a static one

    def _fsync(self, fd: int) -> None:
        self.synced.add(os.fstat(fd).st_ino)
        os.fsync(fd)

    def rename(self, old: str, new: str, folder: int | None = None, **keywords: Any) -> Any:
        if os.stat(old, dir_fd=folder).st_ino not in self.synced:
            self.unsynced.append(new)
        return super().rename(old, new, folder, **keywords)


@pytest.mark.parametrize("durable", [True, False])
def test_what_is_durable_is_synced_before_it_gets_its_name(durable: bool, small: Any, tmp_path: Path) -> None:
    source, blobs = small
    disk = Synced()
    with serve(Blobs(source, blobs), plain) as server:
        copy(server.url, blobs, Directory(tmp_path / "to", durable=durable, disk=disk))

    assert (0 if durable else BLOBS) == len(disk.unsynced)
    assert {blob.digest for blob in blobs} == in_place(tmp_path / "to", blobs)


@pytest.mark.parametrize("fault", [plain, out_of_order, resets_in_the_middle])
def test_progress_never_tells_of_more_than_was_sent_and_ends_at_the_sum(
    fault: Fault, small: Any, tmp_path: Path
) -> None:
    source, blobs = small
    seen, calls = Blobs(source, blobs), list[tuple[int, int, int]]()

    def progress(completed: int, total: int) -> None:
        # What was asked for, each blob once: more cannot be in place.
        calls.append((completed, sum(blob.size for blob in blobs if seen.asked[blob.digest]), total))

    with serve(seen, fault) as server:
        options = tk.TransferOptions(progress_interval=0.0005)
        report = download(server.url, blobs, tmp_path / "to", options=options, progress=progress)

    size = sum(blob.size for blob in blobs)
    assert (0, size) == (calls[0][0], calls[-1][0])
    assert all(completed <= sent and total == size for completed, sent, total in calls)
    again = report.bytes - size  # what came in vain is traffic, and no progress
    assert again == 0 if fault is plain else 0 < again <= 2 * max(blob.size for blob in blobs)


def test_credentials_never_go_to_the_host_that_a_blob_of_a_bundle_is_redirected_to(
    small: Any, tmp_path: Path, assert_exactly: Callable[..., None]
) -> None:
    source, blobs = small
    abroad = Blobs(source, blobs)
    with serve(abroad, plain) as storage:

        def fault(seen: Blobs, request: RawRequest, data: bytes) -> Step:
            if "authorization" not in request.headers:
                return answer(401, headers={"WWW-Authenticate": 'Basic realm="registry"'})
            if next(seen.number) >= HELD:
                return answer(307, headers={"Location": f"{storage.url}/{request.target.rpartition('/')[2]}"})
            return answer(200, data)

        with serve(Blobs(source, blobs), fault) as server:
            download(server.url, blobs, tmp_path / "to", auth=("ann", "secret"))
        assert_exactly(tmp_path / "to", blobs)
        assert BLOBS - HELD == len(storage.requests)
        for request in storage.requests:
            assert not {"authorization", "cookie"} & set(request.headers)
