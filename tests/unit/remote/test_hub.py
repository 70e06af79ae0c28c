"""Files of a commit as blobs: known by the list, or once they were read; small ones stay in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.functional.hub import COMMIT, ScriptedHub, git_oid, sha256
from tests.unit.remote.rig import Flow
from tests.unit.transport.rig import everything
from transferkit.content.chunk import Chunk
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import (
    BlobNotFoundError,
    DeniedError,
    DigestMismatchError,
    InvalidModelError,
    NotFoundError,
    ProtocolError,
    ReadError,
    SizeMismatchError,
    UnauthorizedError,
)
from transferkit.protocol.hub import HubFile
from transferkit.protocol.hub_name import HubName
from transferkit.remote.hub import HubClient, HubFiles, HubRepository
from transferkit.testing import answer, truncated
from transferkit.transport.hosts import Hosts
from transferkit.transport.hub import HubAccess, HubToken

SMALL, LARGE = b"small \xff" * 10, bytes(range(256)) * 40
NAME = HubName.parse("hf://org/model")
PLAIN = HubFile("a/small.txt", len(SMALL), git_oid(SMALL))
IN_LFS = HubFile("large.bin", len(LARGE), 40 * "1", Digest(f"sha256:{sha256(LARGE)}"))
SMALL_BLOB, LARGE_BLOB = (Descriptor(Digest(f"sha256:{sha256(data)}"), len(data)) for data in (SMALL, LARGE))


@pytest.fixture
def hub() -> Iterator[ScriptedHub]:
    with ScriptedHub({PLAIN.path: SMALL, IN_LFS.path: LARGE}, lfs=[IN_LFS.path]) as running:
        yield running


@pytest.fixture
def repository(hub: ScriptedHub) -> Iterator[HubRepository]:
    with ExitStack() as stack:
        client = HubClient(HubAccess(hub.url, HubToken("HF_TOKEN", "hf_secret")), stack.enter_context(Hosts()), NAME)
        yield HubRepository(client, NAME)


@pytest.fixture
def files(repository: HubRepository) -> Callable[..., HubFiles]:
    return lambda kept=(): HubFiles(repository, COMMIT, [PLAIN, IN_LFS], kept)


@pytest.fixture
def flow() -> Flow:
    return Flow()


def test_the_commit_and_the_pages(hub: ScriptedHub, repository: HubRepository, flow: Flow) -> None:
    hub.page = 2
    first = NAME.tree(COMMIT)
    seen = {first}
    assert COMMIT == repository.commit(flow)
    page, following = repository.page(first, seen, flow)
    assert (b"small.txt" in page, b"large.bin" in page, 2) == (True, False, len(seen))
    assert following is not None
    page, last = repository.page(following, seen, flow)
    assert (b"large.bin" in page, None) == (True, last)
    assert f"{hub.url}/org/model" == repository.url


def test_a_file_in_lfs_is_read_from_the_cdn_whole_and_in_parts(
    hub: ScriptedHub, files: Callable[..., HubFiles], flow: Flow
) -> None:
    source = files()
    with source.fetch(LARGE_BLOB, flow=flow) as body:
        assert (LARGE, len(LARGE)) == (everything(body), body.length)
    with source.fetch(LARGE_BLOB, offset=100, flow=flow) as body:
        assert (LARGE[100:], 100) == (everything(body), body.offset)
    for start in (0, 500):
        with source.fetch_range(LARGE_BLOB, Chunk(start, start + 9), flow=flow) as body:
            assert LARGE[start : start + 10] == everything(body)
    # The parts ask where the first of them was led to; the other two asked the hub.
    assert (3, 4) == (len(hub.front.requests), len(hub.cdn.requests))
    assert {None} == {request.headers.get("authorization") for request in hub.cdn.requests}
    assert [None, None, None, f'"{sha256(LARGE)}"'] == [r.headers.get("if-match") for r in hub.cdn.requests]


@pytest.mark.parametrize("kept", [[PLAIN.path], []])
def test_a_file_that_is_not_in_lfs_is_known_once_it_was_read(
    hub: ScriptedHub, files: Callable[..., HubFiles], flow: Flow, kept: list[str]
) -> None:
    source = files(kept)
    with pytest.raises(BlobNotFoundError):
        source.fetch(SMALL_BLOB, flow=flow)
    source.learn(PLAIN, flow)
    assert (SMALL_BLOB.digest, len(SMALL), 0) == (source.digest_of(PLAIN), flow.counter.progress, flow.watch.body)
    asked = len(hub.front.requests)
    with source.fetch(SMALL_BLOB, offset=5, flow=flow) as body:
        assert (SMALL[5:], 5, len(SMALL) - 5) == (everything(body), body.offset, body.length)
    with source.fetch_range(SMALL_BLOB, Chunk(3, 9), flow=flow) as body:
        assert (SMALL[3:10], 3, 7) == (everything(body), body.offset, body.length)
    assert (not kept) == (len(hub.front.requests) > asked)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (answer(200, SMALL[:-1]), SizeMismatchError),
        (answer(200, SMALL + b"x"), SizeMismatchError),
        (answer(200, SMALL[::-1]), DigestMismatchError),
        (answer(200, SMALL, {"Content-Encoding": "gzip"}), ProtocolError),
        (truncated(SMALL[:20], len(SMALL)), ReadError),
        (answer(404), BlobNotFoundError),
    ],
)
def test_another_content_than_was_listed_is_not_taken(
    hub: ScriptedHub, files: Callable[..., HubFiles], flow: Flow, said: Any, kind: type[Exception]
) -> None:
    source = files([PLAIN.path])
    hub.before = lambda request: said
    with pytest.raises(kind):
        source.learn(PLAIN, flow)
    assert (0, set()) == (flow.watch.body, flow.held)
    assert source.digest_of(PLAIN) is None


def test_a_content_that_never_ends_is_left_after_its_size(
    hub: ScriptedHub, files: Callable[..., HubFiles], flow: Flow
) -> None:
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" + bytes(0x100000) + b"\r\n"
    hub.before = lambda request: [endless] * 4
    with pytest.raises(SizeMismatchError, match="more than 70"):
        files().learn(PLAIN, flow)
    assert flow.counter.progress <= len(flow.buffer)


def test_what_is_in_memory_is_read_there_alone(hub: ScriptedHub, files: Callable[..., HubFiles], flow: Flow) -> None:
    source = files([PLAIN.path])
    source.learn(PLAIN, flow)
    source.keep(b"a config")
    assert b"con" == source.kept_at(Digest.of(b"a config"), 2, 3)
    with pytest.raises(InvalidModelError, match="was not read"):
        source.kept_at(LARGE_BLOB.digest, 0, 8)
    assert [] == hub.cdn.requests


def test_what_is_no_file_is_kept_beside_them(files: Callable[..., HubFiles], flow: Flow) -> None:
    source = files()
    source.keep(b"a config")
    with source.fetch(Descriptor(Digest.of(b"a config"), 8), flow=flow) as body:
        assert b"a config" == everything(body)


def test_a_gated_repository_refuses_every_file(files: Callable[..., HubFiles]) -> None:
    source = files()
    assert [True, True, False] == [
        source.concerns_all(error) for error in (DeniedError(), UnauthorizedError(), NotFoundError())
    ]
