"""What a restart costs: chunks that were not complete go on where they were, and progress begins with what is there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

import transferkit as tk
from transferkit.server import OCIRegistry
from transferkit.testing.registry import running_registry

pytestmark = pytest.mark.lanes

REPOSITORY = "library/model"
MIB = 1024 * 1024
SIZE = 8 * MIB
CHUNK = 2 * MIB
STEP = 700_000  # bytes of a run, of a few chunks at once: none is ever complete in one of them


def options(**more) -> tk.TransferOptions:
    return tk.TransferOptions(
        chunk_threshold=MIB, chunk_size=CHUNK, resume_threshold=MIB, progress_interval=0.001, **more
    )


@pytest.fixture(params=[CHUNK, None], ids=["chunksums", "plain"])
def served(request, make_blobs, tmp_path):
    """A registry with a large blob, with and without a list of its chunks."""
    store = tmp_path / "store"

    def middleware(_app):
        return OCIRegistry(store, chunksums=request.param is not None, chunk_size=request.param)

    with running_registry(store, middleware=middleware) as registry:
        (blob,) = make_blobs(tmp_path / "source", [SIZE])
        tk.upload([blob], tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
        yield SimpleNamespace(url=registry.url, blob=blob)


def download(served, folder: Path, **keywords) -> tk.Report:
    where = {"base_url": served.url, "repository": REPOSITORY, "concurrency": 4}
    return tk.download([served.blob], folder, **where, **keywords)


def run(served, folder: Path) -> tuple[int, int]:
    """Download some bytes and be cancelled; return the first figure of the progress, and how many bytes are there."""
    cancel, figures = tk.Cancellation(), []

    def progress(completed: int, total: int) -> None:
        figures.append(completed)
        if completed >= figures[0] + STEP:
            cancel.cancel("enough")

    with pytest.raises(tk.CancelledError):
        download(served, folder, options=options(max_bandwidth=20e6), progress=progress, cancel=cancel)
    return figures[0], there(served, folder)


def there(served, folder: Path) -> int:
    """Return how many bytes the next run will not fetch."""
    return SIZE - tk.plan([served.blob], folder, options=options()).bytes


def test_each_run_that_is_cancelled_begins_where_the_one_before_has_ended(served, tmp_path, assert_exactly):
    folder, last = tmp_path / "d", 0
    while last < SIZE - 3 * STEP:
        first, after = run(served, folder)
        assert last == first
        assert after >= first + STEP
        last = after
    calls: list[int] = []
    report = download(served, folder, options=options(), progress=lambda completed, total: calls.append(completed))
    assert (last, SIZE, SIZE - last) == (calls[0], calls[-1], report.bytes)
    assert sorted(calls) == calls
    assert_exactly(folder, [served.blob])


def test_after_another_boot_it_goes_on_as_well(served, tmp_path, assert_exactly):
    folder = tmp_path / "d"
    _, last = run(served, folder)
    state = folder / ".partial" / f"{tk.digest_to_path(served.blob.digest)}.json"
    header, _, rows = state.read_text().partition("\n")
    state.write_text(json.dumps({**json.loads(header), "boot": "another"}) + "\n" + rows)
    assert SIZE - last == download(served, folder, options=options()).bytes
    assert_exactly(folder, [served.blob])


@pytest.mark.parametrize("served", [CHUNK], indirect=True)
def test_bytes_that_are_wrong_cost_their_chunk_and_nothing_else(served, tmp_path, assert_exactly):
    folder = tmp_path / "d"
    _, last = run(served, folder)
    partial = folder / ".partial" / tk.digest_to_path(served.blob.digest)
    rows = [json.loads(row) for row in partial.with_suffix(".json").read_text().splitlines()[1:]]
    left = {row["unverified"][0]: row["unverified"][1] for row in rows if "unverified" in row}
    start, end = max(left.items(), key=lambda pair: pair[1] - pair[0])
    with partial.open("r+b") as file:
        file.seek(start)
        byte = file.read(1)
        file.seek(start)
        file.write(bytes([byte[0] ^ 1]))
    calls: list[int] = []
    report = download(served, folder, options=options(), progress=lambda completed, total: calls.append(completed))
    # The rest of the chunk, and then all of it, as the digest of the whole chunk tells; or all of it at once.
    assert SIZE - last + (end + 1 - start) <= report.bytes <= SIZE - last + CHUNK
    assert (SIZE, 1) == (calls[-1], report.retried)
    assert max(calls) <= SIZE
    assert_exactly(folder, [served.blob])


@pytest.mark.parametrize("served", [CHUNK], indirect=True)
def test_where_the_list_is_gone_or_another_they_are_fetched_again(served, tmp_path, assert_exactly):
    """And counted once: not before and after."""
    folder = tmp_path / "d"
    _, last = run(served, folder)
    (tmp_path / "plain").mkdir()
    with running_registry(tmp_path / "plain") as plain:
        tk.upload([served.blob], tmp_path / "source", base_url=plain.url, repository=REPOSITORY)
        calls: list[int] = []
        served.url = plain.url
        report = download(served, folder, options=options(), progress=lambda completed, total: calls.append(completed))
    assert (last, SIZE) == (calls[0], calls[-1])
    assert 0 <= min(calls) <= max(calls) <= SIZE
    assert SIZE - last <= report.bytes <= SIZE
    assert_exactly(folder, [served.blob])


def test_a_stream_begins_with_what_is_there_too(served, tmp_path, assert_exactly):
    folder, last = tmp_path / "d", 0
    stream = {"chunk_threshold": 2**40, "resume_threshold": MIB, "progress_interval": 0.001}
    for _ in range(3):
        cancel, figures = tk.Cancellation(), []

        def progress(completed: int, total: int, figures=figures, cancel=cancel) -> None:
            figures.append(completed)
            if completed >= figures[0] + STEP:
                cancel.cancel("enough")

        with pytest.raises(tk.CancelledError):
            download(
                served,
                folder,
                options=tk.TransferOptions(**stream, max_bandwidth=20e6),
                progress=progress,
                cancel=cancel,
            )
        assert last == figures[0]
        last = there(served, folder)
    calls: list[int] = []
    report = download(
        served, folder, options=tk.TransferOptions(**stream), progress=lambda completed, _: calls.append(completed)
    )
    assert (last, SIZE, SIZE - last) == (calls[0], calls[-1], report.bytes)
    assert_exactly(folder, [served.blob])
    assert ["verified"] == os.listdir(folder / ".partial")
