"""Large blobs in chunks from servers that nobody here wrote: nginx, and docker-registry on disk and on an S3 store."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
REPOSITORY = "library/model"
IN_CHUNKS = tk.TransferOptions(chunk_threshold=MIB, chunk_size=MIB, resume_threshold=MIB)
# One connection: no chunks, one stream.
AS_ONE = tk.TransferOptions()


def write(root: Path, size: int) -> tk.Blob:
    """Write a file that differs from MiB to MiB where nginx looks for a blob."""
    folder = root / "v2" / REPOSITORY / "blobs"
    folder.mkdir(parents=True)
    (root / "index.html").write_text("up")
    digest = hashlib.sha256()
    block = random.Random(7).randbytes(MIB - 8)
    with (folder / "new").open("wb") as file:
        for number in range(size // MIB):
            for part in (number.to_bytes(8, "big"), block):
                digest.update(part)
                file.write(part)
    blob = tk.Blob(f"sha256:{digest.hexdigest()}", size)
    (folder / "new").rename(folder / blob.digest)
    return blob


def download(url: str, blob: tk.Blob, folder: Path, **keywords: Any) -> tk.Report:
    return tk.download([blob], folder, base_url=url, repository=REPOSITORY, **keywords)


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chunks", [32, pytest.param(128, marks=pytest.mark.full)])
def test_a_file_from_nginx_comes_in_chunks(run_nginx: Any, tmp_path: Path, chunks: int) -> None:
    blob = write(tmp_path / "root", chunks * 8 * MIB)
    with run_nginx(tmp_path / "nginx", tmp_path / "root") as nginx:
        options = tk.TransferOptions(chunk_size=8 * MIB)  # on a link as fast as this they would grow
        report = download(nginx.url, blob, tmp_path / "d", concurrency=16, options=options)
        answers = [request for request in nginx.requests() if request[1] == 206]

    assert (chunks * 8 * MIB, 0) == (report.bytes, report.retried)
    assert chunks == len(answers)
    assert {8 * MIB} == {count for _, _, count in answers}
    # 16 workers, 16 connections, kept from chunk to chunk; less where a few of them do all the work.
    assert 2 <= len({connection for connection, _, _ in answers}) <= 17
    assert blob.digest == digest_of(tmp_path / "d" / tk.digest_to_path(blob.digest))
    assert ["verified"] == [path.name for path in (tmp_path / "d" / ".partial").iterdir()]


def test_parallel_ranges_beat_a_limit_on_each_connection(run_nginx: Any, tmp_path: Path) -> None:
    blob = write(tmp_path / "root", 16 * MIB)
    seconds = []
    rules = "access_by_lua_block { ngx.sleep(0.02) } limit_rate 4m;"
    with run_nginx(tmp_path / "nginx", tmp_path / "root", rules) as nginx:
        for number, options in enumerate((AS_ONE, IN_CHUNKS)):
            began = time.monotonic()
            download(nginx.url, blob, tmp_path / f"d{number}", options=options)
            seconds.append(time.monotonic() - began)
            assert blob.digest == digest_of(tmp_path / f"d{number}" / tk.digest_to_path(blob.digest))

    assert seconds[0] >= 3 * seconds[1]


@pytest.mark.parametrize("on_s3", [False, pytest.param(True, marks=pytest.mark.xdist_group("s3"))], ids=["disk", "s3"])
def test_blobs_of_a_docker_registry_come_in_chunks(
    run_docker_registry: Any, request: pytest.FixtureRequest, make_blobs: Any, tmp_path: Path, on_s3: bool
) -> None:
    config = {"storage": request.getfixturevalue("s3_store").storage("chunks")} if on_s3 else {}
    blobs = make_blobs(tmp_path / "src", [8 * MIB, 5 * MIB + 1, 1000])
    with run_docker_registry(tmp_path / "server", **config) as registry:
        tk.upload(blobs, tmp_path / "src", base_url=registry.url, repository=REPOSITORY)
        report = tk.download(
            blobs, tmp_path / "d", base_url=registry.url, repository=REPOSITORY, options=IN_CHUNKS, concurrency=8
        )

    assert (13 * MIB + 1001, 0) == (report.bytes, report.retried)
    for blob in blobs:
        assert blob.digest == digest_of(tmp_path / "d" / tk.digest_to_path(blob.digest))


@pytest.mark.timeout(600)  # the model may have to be fetched first
def test_a_real_model_comes_in_chunks(docker_registry: Any, minilm: Path, tmp_path: Path) -> None:
    blob = tk.Blob(digest_of(minilm), minilm.stat().st_size)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / tk.digest_to_path(blob.digest)).symlink_to(minilm)
    tk.upload([blob], tmp_path / "src", base_url=docker_registry.url, repository=REPOSITORY)

    report = download(docker_registry.url, blob, tmp_path / "d", options=IN_CHUNKS)

    assert blob.size == report.bytes
    assert report.healed == report.retried  # who is late at the tail of a busy machine is asked again
    assert blob.digest == digest_of(tmp_path / "d" / tk.digest_to_path(blob.digest))
    assert ["verified"] == [path.name for path in (tmp_path / "d" / ".partial").iterdir()]
