"""The events of a transfer: a trace of the caller's, and the one that hears nothing."""

from __future__ import annotations

from transferkit.content.descriptor import Descriptor
from transferkit.errors import SlowError
from transferkit.trace import NULL_TRACE, Trace

BLOB = Descriptor("sha256:" + 64 * "a", 10)


def test_the_default_hears_everything_and_does_nothing() -> None:
    error = SlowError("slow")
    told = [NULL_TRACE.started(BLOB), NULL_TRACE.cached(BLOB), NULL_TRACE.healed(BLOB, error, 5)]
    told += [NULL_TRACE.failed(BLOB, error), NULL_TRACE.done(BLOB), NULL_TRACE.announced([BLOB])]
    assert [None] * 6 == told


def test_a_trace_overrides_what_it_wants_to_hear_of() -> None:
    class Healings(Trace):
        def __init__(self) -> None:
            self.positions: list[int] = []

        def healed(self, descriptor, error, position):
            self.positions.append(position)

    trace = Healings()
    trace.started(BLOB)
    trace.healed(BLOB, SlowError("slow"), 42)
    trace.done(BLOB)
    assert [42] == trace.positions
