"""How blobs are divided: each byte is in one piece, the same way each time, and no piece has much more than another."""

from __future__ import annotations

import hashlib
import itertools
import resource
import time
import tracemalloc
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import transferkit as tk
from transferkit.content.chunk import MIN_CHUNK
from transferkit.registry.plans.splitting import BUNDLE, PER_BLOB

MIB = 1024 * 1024
SIZES = st.lists(
    st.one_of(
        st.integers(0, 5000), st.integers(0, 40 * MIB), st.integers(0, 2**40), st.sampled_from([0, 1, MIB, MIB - 1])
    ),
    max_size=60,
)


def plan_of(sizes: Sequence[int]) -> tk.TransferPlan:
    blobs = [tk.Blob(f"sha256:{hashlib.sha256(b'%d' % n).hexdigest()}", size) for n, size in enumerate(sizes)]
    return tk.plan_download(blobs, base_url="https://registry.example.com", repository="a/b")


def bytes_of(plan: tk.TransferPlan) -> dict[str, list[tuple[int, int]]]:
    """Return the bytes of each blob that a plan moves, as pairs of the first and the one after the last."""
    found = {blob.digest: [(0, blob.size)] for blob in plan.blobs}
    for piece in plan.ranges:
        found.setdefault(piece.blob.digest, []).append((piece.chunk.start, piece.chunk.end + 1))
    return found


def assert_partition(plan: tk.TransferPlan, pieces: Sequence[tk.TransferPlan]) -> None:
    """Assert that every byte of every blob is in one piece, and empty blobs are in one as well."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for piece in pieces:
        for digest, found in bytes_of(piece).items():
            spans.setdefault(digest, []).extend(found)
    assert {blob.digest for blob in plan.blobs} == set(spans)
    for blob in plan.blobs:
        at = 0
        for start, end in sorted(spans[blob.digest]):
            assert at == start
            at = end
        assert blob.size == at
    assert plan.size == sum(piece.size for piece in pieces)


@given(SIZES, st.integers(1, 12), st.booleans())
def test_each_byte_is_in_one_of_so_many_pieces(sizes: list[int], count: int, ranges: bool) -> None:
    plan = plan_of(sizes)
    pieces = plan.split(count, ranges=ranges)

    assert_partition(plan, pieces)
    assert len(pieces) <= count
    assert pieces == plan.split(count, ranges=ranges)
    assert all(piece.blobs or piece.ranges for piece in pieces)
    assert all(list(piece.blobs) == sorted(piece.blobs, key=lambda blob: -blob.size) for piece in pieces)


@given(SIZES, st.integers(1, 2**42), st.booleans())
def test_each_byte_is_in_one_piece_of_so_many_bytes(sizes: list[int], size: int, ranges: bool) -> None:
    size = max(size, sum(sizes) // 500)  # else it has too many of them for a test
    plan = plan_of(sizes)
    pieces = plan.split(bytes=size, ranges=ranges)

    assert_partition(plan, pieces)
    assert pieces == plan.split(bytes=size, ranges=ranges)
    for piece in pieces:
        assert piece.size <= size or 1 == len(piece.blobs) + len(piece.ranges)
        assert all(part.size <= max(MIN_CHUNK, size) for part in piece.ranges)


@given(SIZES, st.integers(1, 12))
def test_no_piece_has_more_than_another_by_more_than_the_largest_blob(sizes: list[int], count: int) -> None:
    pieces = plan_of(sizes).split(count)

    costs = [piece.size + PER_BLOB * len(piece.blobs) for piece in pieces] + [0] * (count - len(pieces))
    bundle = BUNDLE * (PER_BLOB + MIB)
    assert max(costs) - min(costs) <= max([bundle, *(size + PER_BLOB for size in sizes)])


@given(st.lists(st.integers(MIB, 2**40), min_size=1, max_size=40), st.integers(1, 8))
def test_the_next_largest_blob_goes_to_who_has_least(sizes: list[int], count: int) -> None:
    pieces = plan_of(sizes).split(count)

    costs = [sum(blob.size + PER_BLOB for blob in piece.blobs) for piece in pieces] + [0] * (count - len(pieces))
    for piece, cost in zip(pieces, costs, strict=False):
        assert cost - (piece.blobs[-1].size + PER_BLOB) <= min(costs)  # before it got its last one


def test_small_blobs_stay_together_and_are_divided_evenly() -> None:
    pieces = plan_of([16_384] * 10_000).split(8)

    counts = [len(piece.blobs) for piece in pieces]
    assert max(counts) - min(counts) <= BUNDLE
    order = {blob.digest: number for number, blob in enumerate(plan_of([16_384] * 10_000).blobs)}
    numbers = [order[blob.digest] for blob in pieces[0].blobs]
    breaks = sum(1 for one, two in itertools.pairwise(numbers) if two != one + 1)
    assert breaks < len(numbers) / 200


def test_a_huge_blob_is_divided_where_that_is_wanted_and_only_there() -> None:
    plan = plan_of([400 * 2**30, 5])

    assert [[400 * 2**30], [5]] == [[blob.size for blob in piece.blobs] for piece in plan.split(16)]
    pieces = plan.split(16, ranges=True)
    assert 16 == len(pieces)
    assert max(piece.size for piece in pieces) < 1.3 * min(piece.size for piece in pieces)
    starts = {part.chunk.start % MIN_CHUNK for piece in pieces for part in piece.ranges}
    assert {0} == starts


def test_pieces_of_a_copy_have_whole_blobs(one_manifest: bytes) -> None:
    digest = hashlib.sha256(one_manifest).hexdigest()
    plan = tk.TransferPlan(
        kind="copy",
        source=f"https://a.example/x/y:v1@sha256:{digest}",
        target="https://b.example/x/y:v1",
        blobs=plan_of([2**33]).blobs,
        documents=(one_manifest,),
    )

    assert [] == [part for piece in plan.split(4, ranges=True) for part in piece.ranges]


def test_the_last_step_has_the_large_blobs_which_may_have_come_in_ranges() -> None:
    plan = plan_of([5, 2**33, 2**24, 2**24 - 1])

    assert [2**33, 2**24] == [blob.size for blob in plan.last().blobs]
    assert (0, True, plan.last()) == (plan.last().size, plan.last().is_last, plan.last().last())


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({}, TypeError),
        ({"pieces": 2, "bytes": 2}, TypeError),
        ({"pieces": "2"}, TypeError),
        ({"bytes": 1.5}, TypeError),
        ({"pieces": 0}, ValueError),
        ({"bytes": -1}, ValueError),
    ],
)
def test_what_is_no_number_of_pieces_is_refused(keywords: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        plan_of([1]).split(**keywords)  # type: ignore[arg-type]  # that is the test


def test_a_piece_is_not_split_again_and_has_no_last_step() -> None:
    (piece,) = plan_of([1]).split(1)

    with pytest.raises(ValueError, match="a plan is split once, and this is a piece of one"):
        piece.split(2)
    with pytest.raises(ValueError, match="a piece has no last step"):
        piece.last()
    with pytest.raises(ValueError, match="this is a last"):
        plan_of([1]).last().split(2)


def test_an_empty_plan_has_no_pieces() -> None:
    assert [] == plan_of([]).split(3) == plan_of([]).split(bytes=3)


def _measured(count: int) -> tuple[float, float, float]:
    """Return the seconds of processor time that planning and splitting take, and the bytes a blob, then and at most."""
    blobs = [tk.Blob(f"sha256:{n:064x}", n * 7919 % 65536) for n in range(count)]
    began = time.process_time()
    plan = tk.plan_download(blobs, base_url="https://registry.example.com", repository="a/b")
    pieces = plan.split(64)
    seconds = time.process_time() - began
    assert count == sum(len(piece.blobs) for piece in pieces)
    del plan, pieces
    tracemalloc.start()
    try:
        plan = tk.plan_download(blobs, base_url="https://registry.example.com", repository="a/b")
        pieces = plan.split(64)
        now, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == len(plan.blobs) == sum(len(piece.blobs) for piece in pieces)
    return seconds, now / count, most / count


def test_many_blobs_take_less_than_a_kilobyte_each() -> None:
    _, now, most = _measured(10_000)

    assert now < 500
    assert most < 1000


@pytest.mark.full
def test_a_million_blobs_are_planned_and_split_in_ten_seconds_and_a_kilobyte_each() -> None:
    seconds, now, most = _measured(1_000_000)

    assert seconds < 10
    assert now < 500
    assert most < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 4 * 2**30
