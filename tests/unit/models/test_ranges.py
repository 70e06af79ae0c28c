"""Which ranges are asked for: all that is wanted, nothing twice, and little in vain."""

from __future__ import annotations

from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from transferkit.models.ranges import covering, cut, joined

spans = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 300)).map(lambda pair: (pair[0], sum(pair))), max_size=30
)


def bytes_of(found):
    return {at for start, end in found for at in range(start, end)}


@given(spans, st.integers(0, 200))
def test_joined_spans_have_all_bytes_and_bridge_no_longer_gap_than_allowed(wanted, gap):
    found = joined(wanted, gap)
    assert bytes_of(wanted) <= bytes_of(found)
    # Apart by more than the gap, so in order as well, and none overlaps another.
    assert all(next_start - end > gap for (_, end), (next_start, _) in pairwise(found))
    # Each begins and ends with a byte that is wanted, and what lies between is never longer than the gap.
    missing = sorted(bytes_of(found) - bytes_of(wanted))
    runs = "".join("x" if b - a == 1 else " " for a, b in pairwise(missing)).split(" ") if missing else []
    assert all(len(run) + 1 <= gap for run in runs)
    assert all({start, end - 1} <= bytes_of(wanted) for start, end in found)


@given(spans, st.integers(0, 200))
def test_gaps_cost_less_than_the_gap_for_each_span_that_is_saved(wanted, gap):
    found = joined(wanted, gap)
    apart = joined(wanted)
    assert len(bytes_of(found)) - len(bytes_of(apart)) <= gap * (len(apart) - len(found))


@given(spans, st.integers(1, 400))
def test_pieces_are_the_same_bytes_in_few_parts_of_the_right_length(wanted, most):
    whole = joined(wanted)
    pieces = cut(whole, most)
    assert sum(end - start for start, end in pieces) == len(bytes_of(whole)) == len(bytes_of(pieces))
    assert all(0 < end - start <= most for start, end in pieces)
    assert sorted(pieces) == pieces
    assert sum(-(-(end - start) // most) for start, end in whole) >= len(pieces)


@given(spans, st.lists(st.integers(1, 900), min_size=1, max_size=20))
def test_the_chunks_that_cover_are_those_that_have_a_byte_of_it(wanted, sizes):
    ends = list(accumulate([*sizes, 6000]))
    starts = [0, *ends[:-1]]
    expected = [
        number
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
        if bytes_of(wanted) & set(range(start, end))
    ]
    assert expected == covering(wanted, ends)


def test_nothing_wanted_is_nothing_asked_for():
    assert ([], [], []) == (joined([(5, 5)]), cut([], 10), covering([(5, 5)], [10]))


def test_a_span_is_cut_evenly():
    assert [(0, 34), (34, 68), (68, 100)] == cut([(0, 100)], 40)
