"""``Range`` and ``Content-Range``."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transferkit.errors import ProtocolError
from transferkit.protocol.ranges import RangeRefused, check_content_range


@pytest.mark.parametrize(
    "value",
    [
        "bytes 5-9/10",
        "bytes  5-9/10",
        " bytes 5-9/10 ",
        "Bytes 5-9/10",
        "bytes 5-9/*",
        "bytes 0000000000000000005-9/10",
    ],
)
def test_just_what_was_asked_for_is_taken(value: str) -> None:
    check_content_range(value, start=5, end=9, total=10)


@pytest.mark.parametrize(
    "value",
    [
        "bytes 4-9/10",
        "bytes 6-9/10",
        "bytes 5-8/10",
        "bytes 5-10/10",
        "bytes 5-9/11",
        "bytes 0-9/10",
        "bytes 0-4/*",
    ],
)
def test_another_range_or_size_is_refused(value: str) -> None:
    with pytest.raises(RangeRefused) as caught:
        check_content_range(value, start=5, end=9, total=10)
    assert str(caught.value) == f"the server sent {value!r}; asked for bytes 5-9/10"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "5-9/10",
        "bytes=5-9/10",
        "bytes */10",
        "bytes 5-9",
        "bytes 5-9/",
        "bytes 5-/10",
        "bytes -5-9/10",
        "bytes +5-9/10",
        "bytes 5 - 9 / 10",
        "bytes 5-9/10, bytes 0-4/10",
        "bytes 5-9/10\n0",
        "bytes\t5-9/10",
        "items 5-9/10",
        "bytes \u0665-9/10",
        "bytes 5-9/0x0a",
        "bytes 5-9/00000000000000000010",
        "bytes 5-9/" + 100 * "1",
    ],
)
def test_what_does_not_parse_is_refused(value: str) -> None:
    with pytest.raises(RangeRefused, match=r"does not parse; asked for bytes 5-9/10$") as caught:
        check_content_range(value, start=5, end=9, total=10)
    assert len(str(caught.value)) < 160


def test_an_answer_without_content_range_is_refused() -> None:
    with pytest.raises(RangeRefused, match=r"^the server answered 206 without Content-Range; asked for bytes 5-9/10$"):
        check_content_range(None, start=5, end=9, total=10)


@given(
    value=st.one_of(
        st.text(),
        st.from_regex(r"bytes [0-9]{1,3}-[0-9]{1,3}/([0-9]{1,3}|\*)", fullmatch=True),
        st.text(st.sampled_from("bytes -/*0123456789"), max_size=20),
    ),
    start=st.integers(0, 20),
    length=st.integers(1, 20),
)
@settings(deadline=None, max_examples=150)
def test_nothing_but_the_asked_range_is_ever_taken(value: str, start: int, length: int) -> None:
    end, total = start + length - 1, start + length
    try:
        check_content_range(value, start=start, end=end, total=total)
    except ProtocolError:
        return
    assert re.fullmatch(rf"\s*bytes +0*{start}-0*{end}/(\*|0*{total})\s*", value, re.IGNORECASE)
