"""Mirrors: asked first, believed in nothing, left where they fail."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.unit.remote.rig import BLOB, DATA, PART, Flow, part
from tests.unit.transport.rig import everything
from transferkit.content.descriptor import Descriptor
from transferkit.errors import BlobNotFoundError, ReadError, TransferKitError
from transferkit.options import TransferOptions
from transferkit.remote.mirrors import MirroredRepository
from transferkit.storage.directory import Directory
from transferkit.testing import Close, RawRequest, answer, scripted_server
from transferkit.transfer.operation import Operation

WRONG = bytes(len(DATA))


@pytest.fixture
def mirrored(repository_of: Any) -> Any:
    def make(*servers: Any) -> MirroredRepository:
        *mirrors, registry = (repository_of(server.url) for server in servers)
        return MirroredRepository(mirrors, registry)

    return make


def read(source: MirroredRepository, flow: Flow, *, offset: int = 0) -> bytes:
    with source.fetch(BLOB, offset=offset, flow=flow) as body:
        return everything(body)


def test_the_first_mirror_that_has_a_blob_sends_it(mirrored: Any, flow: Flow) -> None:
    with scripted_server([answer(404)]) as one, scripted_server([answer(200, DATA)]) as two:
        with scripted_server([]) as registry:
            assert read(mirrored(one, two, registry), flow) == DATA
            assert (len(one.requests), len(two.requests), len(registry.requests)) == (1, 1, 0)


@pytest.mark.parametrize(
    "refusal", [answer(401), answer(403), answer(500), answer(429), Close(), b"HTTP/1.1 nonsense\r\n\r\n"]
)
def test_the_errors_of_a_mirror_are_its_own(mirrored: Any, flow: Flow, refusal: Any) -> None:
    with scripted_server([refusal]) as mirror, scripted_server([answer(200, DATA)]) as registry:
        assert read(mirrored(mirror, registry), flow) == DATA


def test_the_errors_of_the_registry_count(mirrored: Any, flow: Flow) -> None:
    with scripted_server([answer(500)]) as mirror, scripted_server([answer(404)]) as registry:
        with pytest.raises(BlobNotFoundError):
            read(mirrored(mirror, registry), flow)


def test_a_blob_goes_on_elsewhere_in_its_middle(mirrored: Any, flow: Flow) -> None:
    cut = [answer(200, DATA)[:-500], Close()]
    with scripted_server([cut]) as mirror, scripted_server(part_from) as registry:
        source = mirrored(mirror, registry)
        with source.fetch(BLOB, flow=flow) as body, pytest.raises(ReadError):
            everything(body)
        assert read(source, flow, offset=524) == DATA[524:]
        assert registry.requests[0].headers["range"] == "bytes=524-"


def part_from(request: RawRequest) -> bytes:
    start = int(request.headers["range"].removeprefix("bytes=").rstrip("-"))
    return answer(206, DATA[start:], {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"})


def test_content_that_was_wrong_comes_from_the_registry_the_second_time(mirrored: Any, tmp_path: Path) -> None:
    with scripted_server([answer(200, WRONG)]) as one, scripted_server([]) as two:
        with scripted_server([answer(200, DATA)]) as registry, Operation(options=TransferOptions()) as operation:
            operation.copy([BLOB], mirrored(one, two, registry), ready(tmp_path))
            assert [len(server.requests) for server in (one, two, registry)] == [1, 0, 1]
    assert hashlib.sha256((tmp_path / BLOB.digest.file_name).read_bytes()).hexdigest() == BLOB.digest.hex


def test_a_large_blob_with_a_wrong_chunk_of_a_mirror_comes_right(mirrored: Any, tmp_path: Path) -> None:
    def lying(request: RawRequest) -> bytes:
        return answer(404) if "chunksums" in request.target else part(request).replace(DATA[:16], bytes(16))

    def honest(request: RawRequest) -> bytes:
        return answer(404) if "chunksums" in request.target else part(request)

    options = TransferOptions(chunk_threshold=256, chunk_size=256)
    with scripted_server(lying) as mirror, scripted_server(honest) as registry:
        with Operation(options=options) as operation:
            operation.copy([BLOB], mirrored(mirror, registry), ready(tmp_path, 256))
    assert (tmp_path / BLOB.digest.file_name).read_bytes() == DATA


def ready(folder: Path, threshold: int = 16 * 1024 * 1024) -> Directory:
    directory = Directory(folder, resume_threshold=threshold)
    directory.prepare([BLOB])
    return directory


def test_a_mirror_that_fails_again_and_again_is_not_asked_any_more(
    mirrored: Any, flow: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    blobs = [Descriptor(f"sha256:{digit * 64}", len(DATA)) for digit in "abcde"]
    with scripted_server([answer(500)] * 5) as mirror, scripted_server([answer(200, DATA)] * 5) as registry:
        source = mirrored(mirror, registry)
        with caplog.at_level(logging.WARNING):
            for blob in blobs:
                source.fetch(blob, flow=flow).close()
        assert (len(mirror.requests), len(registry.requests)) == (3, 5)
    (record,) = caplog.records
    assert "is not asked any more" in record.getMessage()


def test_a_call_that_was_ended_is_not_the_mirrors_fault(mirrored: Any, flow: Flow) -> None:
    with scripted_server([answer(200, DATA)]) as mirror, scripted_server([]) as registry:
        flow.cut()
        with pytest.raises(TransferKitError, match="enough"):
            mirrored(mirror, registry).fetch_range(BLOB, PART, flow=flow)
        assert registry.requests == []
