"""Chunks, how large they are, and sets of ranges."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferkit.content.chunk import Chunk, Ranges, chunk_size
from transferkit.errors import InvalidDescriptorError

MIB = 1024 * 1024
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "chunks.json").read_text())
STRICTER = {"+1-2"}  # README of the vectors: a leading "+" is refused


@pytest.mark.parametrize("row", VECTORS, ids=[row["input"] for row in VECTORS])
def test_ranges_are_read_as_ollama_reads_them(row: dict[str, Any]) -> None:
    if "error" in row or row["input"] in STRICTER:
        with pytest.raises(InvalidDescriptorError):
            Chunk.parse(row["input"])
    else:
        assert (row["start"], row["end"]) == (Chunk.parse(row["input"]).start, Chunk.parse(row["input"]).end)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "1-2 ",
        "1-2\n",
        "1--2",
        "-1-2",
        "1-+2",
        "0-9223372036854775808",
        "\u0661-\u0662",
        "1\u20132",
        f"{41 * '0'}-1",
        f"0-{5000 * '9'}",
        "1e3-2e3",
        "1.0-2.0",
    ],
)
def test_nothing_but_two_numbers_is_a_range(text: str) -> None:
    with pytest.raises(InvalidDescriptorError) as caught:
        Chunk.parse(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4), (0, 2**63), (0, -1)])
def test_what_is_no_range_is_refused(start: int, end: int) -> None:
    with pytest.raises(InvalidDescriptorError, match=r"is no range of bytes"):
        Chunk(start, end)


@pytest.mark.parametrize(("start", "end"), [(True, 5), (0, 5.0), ("0", "5"), (None, 1)])
def test_only_numbers_are_taken(start: Any, end: Any) -> None:
    with pytest.raises(InvalidDescriptorError, match=r"is no range of bytes"):
        Chunk(start, end)


@pytest.mark.parametrize(("chunk", "size"), [(Chunk(0, 0), 1), (Chunk(5, 9), 5), (Chunk(0, 2**63 - 1), 2**63)])
def test_the_end_belongs_to_it(chunk: Chunk, size: int) -> None:
    assert chunk.size == size


def test_a_chunk_is_a_value() -> None:
    assert Chunk(0, 9) == Chunk.parse("0-9")
    assert {Chunk(0, 9): 1}[Chunk(0, 9)] == 1
    assert str(Chunk.parse("01-02")) == "1-2"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 8 * MIB),
        (1, 8 * MIB),
        (64 * MIB, 8 * MIB),
        (500 * 8 * MIB, 8 * MIB),
        (500 * 8 * MIB + 1, 16 * MIB),
        (500 * 16 * MIB, 16 * MIB),
        (500 * 16 * MIB + 1, 32 * MIB),
        (80 * 1024 * MIB, 64 * MIB),
        (2**63 - 1, 64 * MIB),
    ],
)
def test_a_chunk_is_a_500th_as_a_power_of_two_between_8_and_64_mib(size: int, expected: int) -> None:
    assert chunk_size(size) == expected


# Ranges

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=25)


@given(spans=SPANS, start=st.integers(0, 80), length=st.integers(1, 90))
@settings(max_examples=300)
def test_ranges_equal_a_set_of_bytes(spans: list[tuple[int, int]], start: int, length: int) -> None:
    ranges = Ranges()
    model: set[int] = set()
    for first, more in spans:
        ranges.add(first, first + more)
        model |= set(range(first, first + more + 1))
    pairs = ranges.to_list()
    chunk = Chunk(start, start + length - 1)
    wanted = set(range(start, start + length))

    assert {byte for first, last in pairs for byte in range(first, last + 1)} == model
    # Sorted, and merged: between two of them at least one byte is missing.
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(pairs))
    assert ranges.total == len(model)
    assert _bytes(ranges.missing_in(chunk)) == sorted(wanted - model)
    assert ranges.contiguous_from(0) == next(byte for byte in range(100) if byte not in model)


@given(spans=SPANS, others=SPANS)
def test_the_difference_of_two_sets_is_that_of_their_bytes(
    spans: list[tuple[int, int]], others: list[tuple[int, int]]
) -> None:
    ranges, other = Ranges(), Ranges()
    for first, more in spans:
        ranges.add(first, first + more)
    for first, more in others:
        other.add(first, first + more)
    left = {byte for first, more in spans for byte in range(first, first + more + 1)}
    left -= {byte for first, more in others for byte in range(first, first + more + 1)}

    found = ranges.minus(other).to_list()

    assert {byte for first, last in found for byte in range(first, last + 1)} == left


def _bytes(chunks: list[Chunk]) -> list[int]:
    return [byte for chunk in chunks for byte in range(chunk.start, chunk.end + 1)]


def test_an_empty_set_lacks_everything() -> None:
    ranges = Ranges()
    assert (ranges.total, ranges.contiguous_from(0), ranges.to_list()) == (0, 0, [])
    assert ranges.missing_in(Chunk(0, 4)) == [Chunk(0, 4)]


def test_the_largest_blob_fits() -> None:
    ranges = Ranges()
    ranges.add(2**63 - 1, 2**63 - 1)
    ranges.add(0, 2**63 - 2)
    assert ranges.to_list() == [[0, 2**63 - 1]]
    assert ranges.total == 2**63
    assert ranges.missing_in(Chunk(0, 2**63 - 1)) == []


def test_many_chunks_in_order_are_one_range() -> None:
    ranges = Ranges()
    for start in range(0, 100_000, 10):
        ranges.add(start, start + 9)
    assert ranges.to_list() == [[0, 99_999]]


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (4, 3), (0, 2**63)])
def test_what_is_no_range_is_not_added(start: int, end: int) -> None:
    ranges = Ranges()
    with pytest.raises(InvalidDescriptorError):
        ranges.add(start, end)
    assert ranges.total == 0


@pytest.mark.parametrize(
    ("wanted", "found"),
    [((0, 39), ["10-14", "20-29"]), ((12, 24), ["12-14", "20-24"]), ((22, 25), ["22-25"]), ((30, 39), [])],
)
def test_what_of_a_chunk_is_in_the_set(wanted: tuple[int, int], found: list[str]) -> None:
    ranges = Ranges()
    ranges.add(10, 14)
    ranges.add(20, 29)
    assert found == [str(chunk) for chunk in ranges.within(Chunk(*wanted))]
