"""Small blobs are asked for together at mirrors as well, and where layers may be elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from tests.functional.bundle_faults import (
    counts_and_refuses_the_hundredth,
    falls_silent,
    out_of_order,
    refuses_the_tenth,
    resets_in_the_middle,
)
from tests.functional.bundles import BLOBS, IMPATIENT, REPOSITORY, Blobs, Counting, Fault, plain, serve
from tests.functional.bundles import small as small
from transferkit.content.interfaces import Fetcher, Pipeliner
from transferkit.remote.foreign import ForeignLayers
from transferkit.remote.mirrors import MirroredRepository
from transferkit.remote.repository import Repository
from transferkit.storage.directory import Directory
from transferkit.transfer.operation import Operation
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts


def copy(make: Callable[..., Fetcher], urls: list[str], descriptors: list[tk.Descriptor], folder: Path) -> tk.Report:
    with ExitStack() as stack:
        hosts = stack.enter_context(Hosts())
        operation = stack.enter_context(Operation(concurrency=1, options=IMPATIENT))
        source = make(*(Repository(Client(url, hosts), REPOSITORY) for url in urls))
        assert isinstance(source, Pipeliner)
        return operation.copy(descriptors, source, Directory(folder))


def mirrored(mirror: Repository, registry: Repository) -> Fetcher:
    return MirroredRepository([mirror], registry)


def foreign(registry: Repository) -> Fetcher:
    return ForeignLayers(registry, registry)


def described(blobs: list[tk.Blob]) -> list[tk.Descriptor]:
    return [tk.Descriptor(blob.digest, blob.size) for blob in blobs]


@pytest.mark.parametrize(("make", "count"), [(mirrored, 2), (foreign, 1)])
def test_requests_go_out_together(
    make: Any, count: int, small: Any, tmp_path: Path, assert_exactly: Callable[..., None]
) -> None:
    folder, blobs = small
    with Counting(Blobs(folder, blobs)) as first, serve(Blobs(folder, blobs), plain) as registry:
        copy(make, [first.url, registry.url][:count], described(blobs), tmp_path / "to")
        assert (BLOBS, 8, 0) == (sum(first.together), max(first.together), len(registry.requests))
    assert_exactly(tmp_path / "to", blobs)


@pytest.mark.parametrize(
    "fault",
    [out_of_order, resets_in_the_middle, refuses_the_tenth, falls_silent, counts_and_refuses_the_hundredth],
    ids=lambda fault: fault.__name__,
)
def test_what_a_mirror_does_not_answer_as_it_should_comes_from_the_registry(
    fault: Fault, small: Any, tmp_path: Path, assert_exactly: Callable[..., None]
) -> None:
    folder, blobs = small
    seen, asked = Blobs(folder, blobs), Blobs(folder, blobs)
    with serve(seen, fault) as mirror, serve(asked, plain) as registry:
        copy(mirrored, [mirror.url, registry.url], described(blobs), tmp_path / "to")
    assert_exactly(tmp_path / "to", blobs)
    assert max(seen.asked.values()) <= 2
    assert set(asked.asked.values()) <= {1}
    if fault in (out_of_order, counts_and_refuses_the_hundredth):
        assert len(asked.asked) >= 1  # that mirror is not asked for it again


def test_a_layer_that_the_registry_does_not_have_comes_from_elsewhere(
    small: Any, tmp_path: Path, assert_exactly: Callable[..., None]
) -> None:
    folder, blobs = small
    missing = {blob.digest for blob in blobs[20:23]}
    abroad = Blobs(folder, blobs)

    def lacks(seen: Blobs, request: Any, data: bytes) -> Any:
        return plain(seen, request, data) if request.target.rpartition("/")[2] not in missing else refused

    refused = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    with serve(Blobs(folder, blobs), lacks) as registry, serve(abroad, plain) as elsewhere:
        wanted = [
            replace(each, urls=(f"{elsewhere.url}/{each.digest}",)) if each.digest in missing else each
            for each in described(blobs)
        ]
        copy(foreign, [registry.url], wanted, tmp_path / "to")
    assert_exactly(tmp_path / "to", blobs)
    assert missing == set(abroad.asked)
