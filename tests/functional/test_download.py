"""Downloads of whole blobs from the embedded registry, over real sockets."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

import transferkit as tk
from transferkit.storage.disk import Disk
from transferkit.testing import Close, answer, chunked, scripted_server

pytestmark = pytest.mark.lanes

REPOSITORY = "library/model"
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
SIZES = [1, 100, 16 * 1024, 300_000, 1024 * 1024 + 1]


@pytest.fixture
def served(registry, make_blobs, tmp_path):
    """Blobs that the registry has; its log starts empty."""
    blobs = make_blobs(tmp_path / "source", SIZES)
    tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
    registry.log.clear()
    return blobs


def download(registry, blobs, folder: Path, **keywords) -> tk.Report:
    return tk.download(blobs, folder, base_url=registry.url, repository=REPOSITORY, **keywords)


def test_every_blob_arrives_with_one_request_each(registry, served, tmp_path, assert_exactly):
    report = download(registry, served, tmp_path / "new" / "deep")

    assert_exactly(tmp_path / "new" / "deep", served)
    assert len(registry.log) == len(served)
    assert registry.log.count(method="GET") == len(served)
    assert (len(served), sum(SIZES), 0) == (report.blobs, report.bytes, report.skipped)
    for digest, path in report.paths.items():
        assert digest == "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_blobs_that_are_there_are_skipped_without_a_request(registry, served, tmp_path):
    download(registry, served[:3], tmp_path / "d")
    registry.log.clear()

    report = download(registry, served, tmp_path / "d")

    assert len(registry.log) == 2
    assert (3, sum(SIZES[3:])) == (report.skipped, report.bytes)


def test_a_file_of_unknown_origin_is_hashed_without_a_request(registry, served, tmp_path):
    blob = served[3]
    (tmp_path / "d").mkdir()
    name = tk.digest_to_path(blob.digest)
    (tmp_path / "d" / name).write_bytes((tmp_path / "source" / name).read_bytes())

    report = download(registry, [blob], tmp_path / "d")

    assert (1, 0, 0) == (report.skipped, report.bytes, len(registry.log))


def test_a_verified_file_is_remembered_and_not_hashed_again(registry, served, tmp_path, monkeypatch):
    blob = served[3]
    download(registry, [blob], tmp_path / "d")
    reads: list[int] = []
    read = Disk.preadv
    monkeypatch.setattr(Disk, "preadv", lambda *arguments: reads.append(1) or read(*arguments))
    registry.log.clear()

    assert (1, []) == (download(registry, [blob], tmp_path / "d").skipped, reads)
    again = download(registry, [blob], tmp_path / "d", options=tk.TransferOptions(rehash_existing=True))

    assert (1, 0, True) == (again.skipped, len(registry.log), bool(reads))


def test_a_file_that_was_edited_in_place_with_its_time_put_back_is_fetched_again(registry, served, tmp_path):
    """The same size, time and inode with other content: the time of its last change tells."""
    blob = served[3]
    path = tmp_path / "d" / tk.digest_to_path(blob.digest)
    download(registry, [blob], tmp_path / "d")
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    again = download(registry, [blob], tmp_path / "d")

    assert (0, blob.size) == (again.skipped, again.bytes)
    assert blob.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_touched_file_is_hashed_again(registry, served, tmp_path, assert_exactly):
    blob = served[3]
    download(registry, [blob], tmp_path / "d")
    path = tmp_path / "d" / tk.digest_to_path(blob.digest)
    path.write_bytes(bytes(blob.size))

    report = download(registry, [blob], tmp_path / "d")

    assert report.bytes == blob.size
    assert_exactly(tmp_path / "d", [blob])


def test_wrong_content_of_the_right_size_is_fetched_again(registry, served, tmp_path, assert_exactly):
    blob = served[2]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / tk.digest_to_path(blob.digest)).write_bytes(bytes(blob.size))

    report = download(registry, [blob], tmp_path / "d")

    assert (0, blob.size) == (report.skipped, report.bytes)
    assert_exactly(tmp_path / "d", [blob])


def test_duplicates_are_fetched_once(registry, served, tmp_path, assert_exactly):
    report = download(registry, [*served, *served, served[0]], tmp_path / "d")

    assert len(served) == report.blobs == len(registry.log)
    assert_exactly(tmp_path / "d", served)


def test_the_same_digest_with_two_sizes_is_refused(registry, served, tmp_path):
    liar = tk.Blob(served[0].digest, served[0].size + 1)

    with pytest.raises(tk.InvalidDescriptorError, match="listed twice"):
        download(registry, [served[0], liar], tmp_path / "d")
    assert len(registry.log) == 0


def test_an_empty_list_is_a_no_op(registry, tmp_path):
    report = download(registry, [], tmp_path / "d")

    assert (0, 0) == (report.blobs, len(registry.log))
    assert not (tmp_path / "d").exists()


def test_a_generator_of_blobs_is_fine(registry, served, tmp_path, assert_exactly):
    download(registry, (blob for blob in served), tmp_path / "d")

    assert_exactly(tmp_path / "d", served)


def test_a_blob_of_zero_bytes(registry, make_blobs, tmp_path, assert_exactly):
    blobs = make_blobs(tmp_path / "source", [0])
    tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=REPOSITORY)

    download(registry, blobs, tmp_path / "d")

    assert [EMPTY] == [blob.digest for blob in blobs]
    assert_exactly(tmp_path / "d", blobs)


def test_a_sha512_blob(registry, tmp_path):
    data = b"long digests exist in the wild"
    hexdigest = hashlib.sha512(data).hexdigest()
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / f"sha512-{hexdigest}").write_bytes(data)
    blob = tk.Blob(f"sha512:{hexdigest}", len(data))
    tk.upload([blob], tmp_path / "s", base_url=registry.url, repository=REPOSITORY)

    download(registry, [blob], tmp_path / "d")

    assert data == (tmp_path / "d" / f"sha512-{hexdigest}").read_bytes()


def test_a_failing_blob_does_not_hide_the_others(registry, served, tmp_path, impatient, contents):
    missing = [tk.Blob("sha256:" + 64 * c, 10) for c in "ab"]

    with pytest.raises(tk.IncompleteError, match="2 of 7 blobs failed") as caught:
        download(registry, [missing[0], *served, missing[1]], tmp_path / "d", options=impatient)

    assert {blob.digest for blob in missing} == set(caught.value.failures)
    assert all(isinstance(error, tk.BlobNotFoundError) for error in caught.value.failures.values())
    assert {tk.digest_to_path(blob.digest) for blob in served} == set(contents(tmp_path / "d"))


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(answer(404), id="not there"),
        pytest.param(answer(403, b"no"), id="denied"),
        pytest.param(answer(500), id="broken"),
        pytest.param(answer(200, b"hell"), id="another length"),
        pytest.param(answer(200, b"hellx"), id="other bytes"),
        pytest.param((answer(200, b"hello")[:-3], Close()), id="cut off"),
    ],
)
def test_one_failing_blob_is_named_once(step, tmp_path):
    blob = tk.Blob("sha256:" + hashlib.sha256(b"hello").hexdigest(), 5)
    options = tk.TransferOptions(retry=tk.RetryOptions(attempts=1, patience=0))

    with scripted_server(lambda _: step) as server, pytest.raises(tk.IncompleteError) as caught:
        tk.download([blob], tmp_path, base_url=server.url, repository=REPOSITORY, options=options)

    assert str(caught.value).startswith("1 of 1 blobs failed: ")
    assert 1 == str(caught.value).count("2cf24dba5fb0")


def test_a_size_that_the_registry_contradicts_is_final(registry, served, tmp_path, impatient, contents):
    liar = tk.Blob(served[1].digest, served[1].size + 1)

    with pytest.raises(tk.IncompleteError) as caught:
        download(registry, [liar], tmp_path / "d", options=impatient)

    assert isinstance(caught.value.failures[liar.digest], tk.SizeMismatchError)
    assert len(registry.log) == 1
    assert contents(tmp_path / "d") == {}


def test_content_with_another_digest_is_fetched_once_more_and_never_stored(registry, served, tmp_path, contents):
    registry.blob_path(served[2].digest).write_bytes(bytes(served[2].size))

    with pytest.raises(tk.IncompleteError) as caught:
        download(registry, served[2:4], tmp_path / "d")

    assert [served[2].digest] == list(caught.value.failures)
    assert isinstance(caught.value.failures[served[2].digest], tk.DigestMismatchError)
    assert registry.log.count(path_contains=served[2].digest) == 2
    assert [tk.digest_to_path(served[3].digest)] == list(contents(tmp_path / "d"))
    assert os.listdir(tmp_path / "d" / ".partial") == ["verified"]


def test_a_planted_symbolic_link_is_replaced_and_not_followed(registry, served, tmp_path, assert_exactly):
    precious = tmp_path / "precious"
    precious.write_bytes(b"keep me")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / tk.digest_to_path(served[1].digest)).symlink_to(precious)

    download(registry, [served[1]], tmp_path / "d")

    assert precious.read_bytes() == b"keep me"
    assert_exactly(tmp_path / "d", [served[1]])


def test_progress_starts_with_what_is_there_and_ends_at_the_total(registry, served, tmp_path):
    download(registry, served[:2], tmp_path / "d")
    calls: list[tuple[int, int]] = []

    download(
        registry,
        served,
        tmp_path / "d",
        progress=lambda *figures: calls.append(figures),
        options=tk.TransferOptions(progress_interval=0.001),
    )

    total = sum(SIZES)
    assert calls[0] == (SIZES[0] + SIZES[1], total)
    assert calls[-1] == (total, total)
    assert sorted(calls) == calls
    assert {total} == {call[1] for call in calls}


def test_progress_is_called_from_the_calling_thread(registry, served, tmp_path):
    import threading

    seen = set()
    download(registry, served, tmp_path / "d", progress=lambda *_: seen.add(threading.get_ident()))

    assert {threading.get_ident()} == seen


def test_a_callback_that_raises_is_logged_once_and_harms_nobody(registry, served, tmp_path, caplog, assert_exactly):
    def broken(completed: int, total: int) -> None:
        raise RuntimeError("a defect of the user's")

    download(registry, served, tmp_path / "d", progress=broken)

    assert_exactly(tmp_path / "d", served)
    assert 1 == len([r for r in caplog.records if "progress callback raised" in r.message])


def test_a_callback_that_blocks_does_not_stop_the_workers(registry, served, tmp_path, assert_exactly):
    def blocking(completed: int, total: int) -> None:
        # The first call comes before any worker is started; the second waits until they have all ended.
        if calls:
            deadline = 200
            while len(registry.log) < len(served) and deadline:
                pause.wait(0.05)
                deadline -= 1
        calls.append(completed)

    import threading

    calls: list[int] = []
    pause = threading.Event()
    download(registry, served, tmp_path / "d", progress=blocking)

    assert calls[-1] == sum(SIZES)
    assert_exactly(tmp_path / "d", served)


def test_the_report_is_readable(registry, served, tmp_path):
    report = download(registry, served, tmp_path / "d")

    assert "blobs 5" in repr(report)
    assert "1.3 MiB" in repr(report)
    assert "<table>" in report._repr_html_()


def test_a_users_session_is_honoured(served, registry, tmp_path, assert_exactly):
    import requests

    with requests.Session() as session:
        session.headers["X-Pipeline"] = "nightly"
        download(registry, served, tmp_path / "d", session=session)

    assert_exactly(tmp_path / "d", served)
    assert {"nightly"} == {record.headers.get("x-pipeline") for record in registry.log}


def test_the_user_agent_of_a_session_counts_where_the_call_says_none(served, registry, tmp_path):
    import requests

    with requests.Session() as session:
        download(registry, served[:1], tmp_path / "d", session=session)
        session.headers["User-Agent"] = "pipeline/7"
        download(registry, served[1:2], tmp_path / "d", session=session)
        download(registry, served[2:3], tmp_path / "d", session=session, user_agent="pipeline/8")

    agents = [record.headers["user-agent"] for record in registry.log]
    assert [f"transferkit/{tk.__version__}", "pipeline/7", "pipeline/8"] == agents


def test_responses_works_on_a_users_session(tmp_path):
    import requests
    import responses

    data = b"from a mock"
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    with responses.RequestsMock() as mock, requests.Session() as session:
        mock.get(f"https://registry.example/v2/a/b/blobs/{digest}", body=data)
        report = tk.download(
            [tk.Blob(digest, len(data))],
            tmp_path,
            base_url="https://registry.example",
            repository="a/b",
            session=session,
        )

    assert data == Path(report.paths[digest]).read_bytes()


def test_the_user_agent_is_sent(registry, served, tmp_path):
    download(registry, served[:1], tmp_path / "d")
    download(registry, served[1:2], tmp_path / "d", user_agent="pipeline/7")

    assert [f"transferkit/{tk.__version__}", "pipeline/7"] == [r.headers["user-agent"] for r in registry.log]


def test_a_concurrency_of_one_is_enough(registry, served, tmp_path, assert_exactly):
    download(registry, served, tmp_path / "d", concurrency=1)

    assert_exactly(tmp_path / "d", served)


def test_a_registry_that_frames_every_answer_in_chunks_serves_all_on_one_connection(serve, make_blobs, tmp_path):
    """One connection a blob took three times as long (vertx-server#26)."""
    blobs = make_blobs(tmp_path / "source", [1000 + number for number in range(20)] + [300_000])

    def say(request):
        if request.method == "GET":
            data = (tmp_path / "source" / request.target.rpartition("/")[2].replace(":", "-")).read_bytes()
            return chunked(*[data[at : at + 50_000] for at in range(0, len(data), 50_000)])
        if request.method == "POST":
            return chunked(status=202, headers={"Location": f"{request.target}1"})
        return chunked(status=201) if request.method == "PUT" else answer(404)

    server = serve(say)
    where = {"base_url": server.url, "repository": REPOSITORY, "concurrency": 1}

    assert 21 == tk.download(blobs, tmp_path / "d", **where).blobs
    assert 21 == tk.upload(blobs, tmp_path / "source", **where).blobs
    assert {0, 1} == {request.connection for request in server.requests}  # one of each call
