"""Reading a little of what is far away: one request for what is wanted in a row."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferkit.remote import ahead
from transferkit.remote.ahead import Ahead

DATA = random.Random(1).randbytes(1000)


class Source:
    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __call__(self, offset: int, count: int) -> bytes:
        assert 0 <= offset < offset + count <= len(DATA)
        self.asked.append((offset, count))
        return DATA[offset : offset + count]


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "AHEAD", 100)


def test_what_is_known_is_not_asked_for() -> None:
    source = Source()
    read = Ahead(source, len(DATA), DATA[:50])
    assert (DATA[:8], DATA[8:50], []) == (read(0, 8), read(8, 42), source.asked)
    assert (DATA[45:60], [(45, 100)]) == (read(45, 15), source.asked)


def test_small_reads_in_a_row_are_few_requests() -> None:
    source = Source()
    read = Ahead(source, len(DATA))
    assert DATA == b"".join(read(at, 10) for at in range(0, 1000, 10))
    assert [(at, 100) for at in range(0, 1000, 100)] == source.asked


def test_a_large_read_is_one_request_and_the_end_is_the_end() -> None:
    source = Source()
    read = Ahead(source, len(DATA))
    assert (DATA[10:510], DATA[990:], b"", b"") == (read(10, 500), read(990, 500), read(1000, 1), read(5000, 1))
    assert [(10, 500), (990, 10)] == source.asked


@given(st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 300)), max_size=20), st.integers(0, 200))
def test_whatever_is_read_is_right(wanted: list[tuple[int, int]], head: int) -> None:
    read = Ahead(Source(), len(DATA), DATA[:head])
    for offset, count in wanted:
        assert DATA[offset : offset + count] == read(offset, count)
