"""What this library must reach, as ratios of medians in one run. Knows results, nothing else.

A ratio is how many times as long the other one takes. It is judged twice: on whole processes, start-up and imports of
Python included, and on the calls alone, which is what a program that runs already waits for. A goal is met if both say
so; where only the calls reach it, the verdict says that. Programs such as aria2c have no other time than their whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.results import OURS, Entry, Results, Row

MET, NOT_MET, NOT_MEASURED, CALL_ONLY = "met", "not met", "not measured", "met by the call"
INFORMATION = "for information"
PLAIN, SEQUENTIAL, ARIA, HASH = "requests, threads", "requests, sequential", "aria2c", "SHA-256 alone"

MAX_RSS = 90e6  # bytes
MAX_RSS_A_BLOB = 1000.0  # bytes, for each blob beyond the first thousands
GROWTH_TOLERANCE = 0.10
MANY = 5000
"""Up to so many blobs the limit of memory holds."""
UPLOAD_REQUESTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    row: str
    text: str
    verdict: str
    figures: str = ""


def goals(results: Results) -> list[Goal]:
    return [*_speed(results), *_requests(results), *_memory(results), *_growth(results), _healing(results)]


def _speed(results: Results) -> Iterator[Goal]:
    against = [
        ("small-loopback", 10.0, PLAIN),
        ("small-loopback", 1.0, ARIA),
        ("small-cdn", 6.0, PLAIN),
        ("small-cdn", 1.0, ARIA),
        ("medium-loopback", 2.5, PLAIN),
        ("medium-loopback", 1.0, ARIA),
        ("medium-cdn", 1.0, ARIA),
        ("large-loopback", 1.4, PLAIN),
        ("large-loopback", 1.0, ""),
        ("large-cdn", 9.0, PLAIN),
        ("large-cdn", 2.0, ARIA),
        ("small-tls", 1.0, ""),
        ("large-tls", 1.0, ""),
    ]
    for name, least, other in against:
        yield _at_least(results, name, least, other)
        if (name, other) == ("large-loopback", ""):
            yield _at_most_hashing(results, name, 2.5)
    for name in ("small", "medium"):
        for action in ("download", "upload"):
            yield _at_least(results, f"registry-{name}-{action}", 2.0, SEQUENTIAL)
            yield _at_least(results, f"registry-{name}-{action}", 1.0, "")


def _at_least(results: Results, name: str, least: float, other: str) -> Goal:
    """``other`` takes at least ``least`` times as long; no name stands for the fastest of the others."""
    than = other or "the best contestant"
    text = f"no slower than {than}" if least == 1 else f"at least {least:g} times as fast as {than}"
    row = results.row(name)
    ours = row.entry(OURS) if row else None
    them = _opponent(row, other) if row else None
    if ours is None or them is None or ours.wall is None:
        return Goal(row=name, text=text, verdict=NOT_MEASURED)
    if them.wall is None:
        # A contestant that was ended took at least this long.
        lasted = max((run.wall for run in them.runs if run.status == "timeout"), default=None)
        if lasted is None:
            return Goal(row=name, text=text, verdict=NOT_MEASURED, figures=f"{them.contestant} failed")
        met = lasted / ours.wall >= least
        verdict = MET if met else NOT_MEASURED
        return Goal(row=name, text=text, verdict=verdict, figures=f"more than {lasted / ours.wall:.2f}")
    return _judged(name, text, them, ours, lambda ratio: ratio >= least)


def _judged(name: str, text: str, over: Entry, under: Entry, fine: Callable[[float], bool]) -> Goal:
    if not over.wall or not under.wall:
        return Goal(row=name, text=text, verdict=NOT_MEASURED)
    ratio, of_calls = over.wall / under.wall, (over.call or over.wall) / (under.call or under.wall)
    verdict = NOT_MET
    if fine(of_calls):
        verdict = MET if fine(ratio) else CALL_ONLY
    seconds = f"{over.contestant} {over.wall:.2f} s, {under.contestant} {under.wall:.2f} s"
    return Goal(row=name, text=text, verdict=verdict, figures=f"{ratio:.2f}, calls {of_calls:.2f} ({seconds})")


def _opponent(row: Row, other: str) -> Entry | None:
    if other:
        return row.entry(other)
    timed = [(entry.wall, entry) for entry in row.entries if entry.kind == "other" and entry.wall is not None]
    return min(timed, key=lambda pair: pair[0])[1] if timed else None


def _at_most_hashing(results: Results, name: str, most: float) -> Goal:
    text = f"at most {most:g} times the time of SHA-256 alone"
    row = results.row(name)
    ours, floor = (row.entry(OURS), row.entry(HASH)) if row else (None, None)
    if ours is None or floor is None:
        return Goal(row=name, text=text, verdict=NOT_MEASURED)
    return _judged(name, text, ours, floor, lambda ratio: ratio <= most)


def _requests(results: Results) -> Iterator[Goal]:
    # Of "real" and "large" there are blobs that come in chunks.
    down = [row for row in results.rows if row.name.split("-")[0] in ("small", "medium")]
    down += [row for row in results.rows if row.name.startswith("registry-") and row.name.endswith("-download")]
    up = [row for row in results.rows if row.name.endswith("-upload")]
    yield _requests_of(down, "one request a blob on a download", 1, "downloads")
    yield _requests_of(up, f"at most {UPLOAD_REQUESTS} requests a blob on an upload", UPLOAD_REQUESTS, "uploads")


def _requests_of(rows: list[Row], text: str, most: int, name: str) -> Goal:
    seen = [(row, e.requests / row.blobs) for row in rows if (e := row.entry()) is not None and e.requests is not None]
    return _worst(seen, name, text, lambda a_blob: a_blob <= most, lambda a_blob: f"{a_blob:.3f} a blob")


def _memory(results: Results) -> Iterator[Goal]:
    seen = [
        (row, float(entry.peak))
        for row in results.rows
        for entry in row.entries
        if row.blobs <= MANY and entry.kind == "ours" and entry.peak is not None
    ]
    text = f"peak RSS under {MAX_RSS / 1e6:.0f} MB in every row of up to {MANY:,} blobs"
    yield _worst(seen, "memory", text, lambda rss: rss < MAX_RSS, lambda rss: f"{rss / 1e6:.0f} MB")
    text = "less than 1 KB of memory for each further blob"
    further = _marginal(results, "growth-10k", "growth-100k", lambda entry: entry.rss)
    if further is None:
        yield Goal(row="memory", text=text, verdict=NOT_MEASURED)
    else:
        verdict = MET if further < MAX_RSS_A_BLOB else NOT_MET
        yield Goal(row="memory", text=text, verdict=verdict, figures=f"{further:.0f} bytes")


def _growth(results: Results) -> Iterator[Goal]:
    figures: list[tuple[str, Callable[[Entry], float | None], float, str]] = [
        ("time", lambda entry: entry.wall, 1e6, "microseconds"),
        ("memory", lambda entry: entry.rss, 1, "bytes"),
    ]
    for what, figure, factor, unit in figures:
        text = f"the {what} of a further blob at 100,000 within {GROWTH_TOLERANCE:.0%} of that at 10,000"
        early = _marginal(results, "growth-1k", "growth-10k", figure)
        late = _marginal(results, "growth-10k", "growth-100k", figure)
        if early is None or late is None:
            yield Goal(row="growth", text=text, verdict=NOT_MEASURED)
            continue
        # Less than before is no failure.
        verdict = MET if late <= early * (1 + GROWTH_TOLERANCE) else NOT_MET
        shown = f"{early * factor:.0f} and then {late * factor:.0f} {unit}"
        yield Goal(row="growth", text=text, verdict=verdict, figures=shown)


def _healing(results: Results) -> Goal:
    """No goal is set for this one: it is told, not judged."""
    text = "what a connection of 50 KB/s adds to a download"
    ours = [row.entry(OURS) if (row := results.row(name)) else None for name in ("heal-none", "heal-one")]
    without, healed = [entry.wall if entry else None for entry in ours]
    if without is None or healed is None:
        return Goal(row="heal", text=text, verdict=NOT_MEASURED)
    figures = f"{healed - without:.2f} s ({without:.2f} s without, {healed:.2f} s with it)"
    return Goal(row="heal", text=text, verdict=INFORMATION, figures=figures)


def _marginal(results: Results, fewer: str, more: str, figure: Callable[[Entry], float | None]) -> float | None:
    one, two = results.row(fewer), results.row(more)
    if one is None or two is None or one.blobs >= two.blobs:
        return None
    begin, end = one.entry(), two.entry()
    if begin is None or end is None or (low := figure(begin)) is None or (high := figure(end)) is None:
        return None
    return (high - low) / (two.blobs - one.blobs)


def _worst(
    seen: list[tuple[Row, float]], name: str, text: str, fine: Callable[[float], bool], show: Callable[[float], str]
) -> Goal:
    if not seen:
        return Goal(row=name, text=text, verdict=NOT_MEASURED)
    row, value = max(seen, key=lambda pair: pair[1])
    verdict = MET if fine(value) else NOT_MET
    return Goal(row=name, text=text, verdict=verdict, figures=f"at most {show(value)} ({row.name})")
