"""The chunksums list: what is read from it, what is refused, and what is worth another try."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transferkit.content.chunk import Chunk
from transferkit.content.digest import Digest
from transferkit.errors import ProtocolError, ReadError, TransferKitError
from transferkit.protocol import chunksums
from transferkit.protocol.chunksums import ChunksumParser

A = "sha256:" + 64 * "a"
B = "sha256:" + 64 * "b"
C = "sha512:" + 128 * "c"
GOOD = f"{A} 0-3\n{B} 4-8\n{C} 9-9\n".encode()
PAIRS = [(Chunk(0, 3), A), (Chunk(4, 8), B), (Chunk(9, 9), C)]


def read(blocks: Iterable[bytes], size: int = 10) -> tuple[list[tuple[Chunk, Digest]], TransferKitError | None]:
    """Return what a parser hands out, and the error that it ends with."""
    parser = ChunksumParser(size)
    pairs: list[tuple[Chunk, Digest]] = []
    try:
        for block in blocks:
            pairs += parser.feed(block)
        pairs += parser.close()
    except TransferKitError as error:
        return pairs, error
    return pairs, None


def lines(*ranges: str, end: str = "\n") -> bytes:
    return "\n".join(f"{A} {text}" for text in ranges).encode() + end.encode()


@pytest.mark.parametrize(
    "body",
    [
        GOOD,
        GOOD.rstrip(),
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"\n", b" "),
        b"\n \t" + GOOD.replace(b" ", b"\n\n\t ") + b"\r\n\x0b\x0c ",
    ],
)
def test_pairs_are_separated_by_blanks_of_any_kind(body: bytes) -> None:
    assert read([body]) == (PAIRS, None)


def test_the_first_pair_is_there_before_the_list_ends() -> None:
    parser = ChunksumParser(10)
    assert list(parser.feed(f"{A}".encode())) == []
    assert not parser.begun
    assert list(parser.feed(b" 0-3")) == []
    assert parser.begun
    assert list(parser.feed(b"\n")) == [(Chunk(0, 3), A)]


def test_an_empty_blob_has_an_empty_list() -> None:
    assert read([b"\n"], size=0) == ([], None)
    assert read([], size=0) == ([], None)


@pytest.mark.parametrize(
    ("body", "good", "reason"),
    [
        (lines("0-3", "5-9"), 1, "leaves a gap, or is out of order: 5-9 comes where byte 4 should"),
        (lines("1-9"), 0, "leaves a gap, or is out of order: 1-9 comes where byte 0 should"),
        (lines("4-9", "0-3"), 0, "leaves a gap, or is out of order: 4-9 comes where byte 0 should"),
        (lines("0-3", "3-9"), 1, "3-9 overlaps; the line before is 0-3"),
        (lines("0-3", "0-9"), 1, "0-9 overlaps; the line before is 0-3"),
        (lines("0-3", "4-6", "1-2"), 2, "1-2 is out of order; the line before is 4-6"),
        (lines("0-3", "0-3"), 1, "0-3 is there twice; the line before is 0-3"),
        (lines("0-9", "0-9"), 1, "0-9 is there twice; the line before is 0-9"),
        (lines("0-3", "4-10"), 1, "4-10 is past the end of a blob of 10 bytes"),
        (lines("0-9", "10-19"), 1, "10-19 is past the end of a blob of 10 bytes"),
        (lines("0-9223372036854775807"), 0, "0-9223372036854775807 is past the end of a blob of 10 bytes"),
        (lines("0-3", "9-4"), 1, "9-4 is no range of bytes"),
        (lines("0-3", "+4-9"), 1, "'+4-9' is no range of bytes"),
        (lines("0-3", "4-9\xff"), 1, "is no range of bytes"),
        (lines("0"), 0, "'0' is no range of bytes"),
        (lines("0-3") + lines("4-9").upper(), 1, "is not a digest"),
        (lines("0-3") + b"md5:" + 32 * b"a" + b" 4-9\n", 1, "is not a digest: it should start with sha256: or sha512:"),
        (lines("0-3") + b"4-9 " + A.encode(), 1, "'4-9' is not a digest"),
        (b"<!DOCTYPE html>\n<html>", 0, "'<!DOCTYPE' is not a digest"),
        (b"\x1f\x8b\x08\x00\xff\xfe ", 0, "is not a digest"),
        (lines("0-9") + A.encode(), 1, "goes on after the last byte of the blob"),
        (lines("0-9") + A.encode() + b"\n", 1, "goes on after the last byte of the blob"),
        (lines("0-9") + b"x", 1, "goes on after the last byte of the blob"),
        (lines("0-9") + b"x\n", 1, "'x' is not a digest"),
        (lines("0-3") + 161 * b"a", 1, "has a word of more than 160 characters: 'aaa"),
        (lines("0-3") + 161 * b"a" + b" ", 1, "has a word of more than 160 characters: 'aaa"),
        # Without a line break at the end of the list
        (lines("0-3", "5-9", end=""), 1, "leaves a gap, or is out of order: 5-9 comes where byte 4 should"),
        (lines("0-3", "4-10", end=""), 1, "4-10 is past the end of a blob of 10 bytes"),
        (lines("0-3", "0-3", end=""), 1, "0-3 is there twice"),
        (lines("0-3", "x-y", end=""), 1, "'x-y' is no range of bytes"),
        (b"Not", 0, "'Not' is not a digest"),
    ],
)
def test_a_lie_is_refused_with_its_reason_after_what_came_before_it(body: bytes, good: int, reason: str) -> None:
    for split in ([body], [bytes([byte]) for byte in body]):
        pairs, error = read(split)
        assert good == len(pairs)
        assert type(error) is ProtocolError
        assert not error.retryable
        assert reason in str(error)
        assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("body", "position"),
    [
        (b"", 0),
        (b"\n", 0),
        (A.encode() + b"\n", 0),
        (f"{A} 0".encode(), 0),
        (f"{A} 0-".encode(), 0),
        (f"{A} 0-8".encode(), 9),
        (lines("0-3"), 4),
        (lines("0-3") + b"sha25", 4),
        (lines("0-3") + A.encode(), 4),
        (lines("0-3", "4-", end=""), 4),
        (lines("0-3", "4-7", end=""), 8),
        (lines("0-8", "9-0", end=""), 9),
        (lines("0-8"), 9),
    ],
)
def test_a_list_cut_short_is_worth_another_try(body: bytes, position: int) -> None:
    _, error = read([body])
    assert type(error) is ReadError
    assert error.retryable
    assert str(error) == f"the list of chunks was cut short: it ends at byte {position} of 10"


@given(cut=st.integers(0, len(GOOD) - 2))
def test_wherever_a_good_list_is_cut_it_is_a_cut_and_no_wrong_pair_comes_of_it(cut: int) -> None:
    pairs, error = read([GOOD[:cut]])
    assert pairs == PAIRS[: len(pairs)]
    # Within its first word nothing says yet that it is a list.
    assert type(error) is (ProtocolError if 0 < cut < len(A) else ReadError)


TOKENS = st.one_of(
    st.sampled_from([A, B, C, "0-3", "4-8", "9-9", "4-9", "5-9", "0-9", "9-10", "sha256:x", "<html>", "", 170 * "x"]),
    st.text("ab019-: ", max_size=6),
)
BODIES = st.one_of(
    st.just(GOOD),
    st.lists(TOKENS, max_size=9).map(lambda words: " ".join(words).encode()),
    st.lists(st.sampled_from(["0-3", "4-8", "9-9", "5-9"]), max_size=5).map(lambda ranges: lines(*ranges)),
    st.binary(max_size=40),
)


@given(body=BODIES, cuts=st.lists(st.integers(0, 400), max_size=8))
@example(body=GOOD, cuts=list(range(len(GOOD))))
@example(body=lines("0-3", "5-9"), cuts=[])
@settings(max_examples=400)
def test_it_does_not_matter_where_the_input_is_split(body: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    blocks = [body[start:end] for start, end in itertools.pairwise(edges)]

    whole_pairs, whole_error = read([body])
    pairs, error = read(blocks)

    assert pairs == whole_pairs
    assert (type(error), str(error)) == (type(whole_error), str(whole_error))


def test_a_list_has_a_bound_of_lines_and_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chunksums.MAX_LINES == 10_000_000
    monkeypatch.setattr(chunksums, "MAX_LINES", 20_000)
    parser = ChunksumParser(2**62)
    count = 0
    block = b""
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=r"^the list of chunks has more than 20000 lines$"):
            for start in itertools.count():
                block = f"{A} {start}-{start}\n".encode()
                count += len(list(parser.feed(block)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 64 * 1024


def test_a_flood_of_blanks_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunksums, "_MAX_BYTES", 1000)
    pairs, error = read([lines("0-3"), *itertools.repeat(100 * b" ", 20)])
    assert pairs == [(Chunk(0, 3), A)]
    assert (type(error), str(error)) == (ProtocolError, "the list of chunks is longer than 1000 bytes")
