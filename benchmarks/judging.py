"""How a ratio of times is judged: by the call, as medians of one run. Knows results, and no goal.

The call is what a program that runs already waits for. Of programs such as aria2c there is only the whole process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.results import EARLIER, OURS, TIMEOUT, Entry, Results, Row

MET, NOT_MET, NOT_MEASURED = "met", "not met", "not measured"
BEST = "the best contestant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    row: str
    text: str
    verdict: str = NOT_MEASURED
    figures: str = ""


def at_least(results: Results, name: str, least: float, other: str) -> Goal:
    """``other`` takes at least ``least`` times as long as this library."""
    text = f"no slower than {other}" if least == 1 else f"at least {least:g} times as fast as {other}"
    ours, them = _pair(results, name, OURS, other)
    if ours is not None and them is not None and ours.call and them.call is None:
        return _against_one_without_a_time(name, text, least, ours.call, them)
    return _judged(name, text, them, ours, lambda ratio: ratio >= least)


def at_most(results: Results, name: str, most: float, other: str, *, who: str = OURS) -> Goal:
    """``who`` takes at most ``most`` times as long as ``other``."""
    named = "" if who == OURS else f"{who}: "
    text = f"{named}at most {most:g} times the time of {other}"
    ours, them = _pair(results, name, who, other)
    return _judged(name, text, ours, them, lambda ratio: ratio <= most)


def seconds(entry: Entry) -> str:
    """Return a contestant's name and its time, with a note where that is of a whole process."""
    if entry.call is None:
        return f"{entry.contestant} has no time"
    note = "" if entry.has_call else ", whole process"
    return f"{entry.contestant} {entry.call:.2f} s{note}"


def worst(
    seen: Iterable[tuple[Row, float]],
    name: str,
    text: str,
    fine: Callable[[float], bool],
    show: Callable[[float], str],
) -> Goal:
    """Judge the row with the highest figure."""
    row, value = max(seen, key=lambda pair: pair[1], default=(None, 0.0))
    if row is None:
        return Goal(row=name, text=text)
    verdict = MET if fine(value) else NOT_MET
    return Goal(row=name, text=text, verdict=verdict, figures=f"at most {show(value)} ({row.name})")


def to_earlier(results: Results) -> list[tuple[Row, Entry, Entry, float]]:
    """Return the rows that the earlier version ran too: its time, ours, and ours as a multiple of it."""
    found = []
    for row in results.rows:
        ours, before = row.entry(OURS), row.entry(EARLIER)
        if ours is not None and before is not None and ours.call and before.call:
            found.append((row, ours, before, ours.call / before.call))
    return found


def marginal(results: Results, fewer: str, more: str, figure: Callable[[Entry], float | None]) -> float | None:
    """Return what each further blob adds to a figure, from one row to another one with more blobs."""
    one, two = results.row(fewer), results.row(more)
    if one is None or two is None or one.blobs >= two.blobs:
        return None
    begin, end = one.entry(), two.entry()
    if begin is None or end is None or (low := figure(begin)) is None or (high := figure(end)) is None:
        return None
    return (high - low) / (two.blobs - one.blobs)


def _pair(results: Results, name: str, who: str, other: str) -> tuple[Entry | None, Entry | None]:
    row = results.row(name)
    if row is None:
        return None, None
    if other != BEST:
        return row.entry(who), row.entry(other)
    timed = [(entry.call, entry) for entry in row.entries if entry.kind == "other" and entry.call is not None]
    return row.entry(who), min(timed, key=lambda pair: pair[0])[1] if timed else None


def _judged(name: str, text: str, over: Entry | None, under: Entry | None, fine: Callable[[float], bool]) -> Goal:
    if over is None or under is None or not over.call or not under.call:
        return Goal(row=name, text=text)
    ratio = over.call / under.call
    figures = f"{ratio:.2f} ({seconds(over)}; {seconds(under)})"
    return Goal(row=name, text=text, verdict=MET if fine(ratio) else NOT_MET, figures=figures)


def _against_one_without_a_time(name: str, text: str, least: float, ours: float, them: Entry) -> Goal:
    """A contestant that was ended took at least as long as it ran."""
    lasted = max((run.wall for run in them.runs if run.status == TIMEOUT), default=None)
    if lasted is None:
        return Goal(row=name, text=text, figures=f"{them.contestant} failed")
    verdict = MET if lasted / ours >= least else NOT_MEASURED
    return Goal(row=name, text=text, verdict=verdict, figures=f"more than {lasted / ours:.2f}")
