"""What this library must reach, as ratios of medians in one run. Knows which rows and contestants there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.judging import BEST, MET, NOT_MEASURED, NOT_MET, Goal, at_least, at_most, marginal, to_earlier, worst
from benchmarks.results import DEMO, EARLIER, FIRST_CALL, OURS, OWN_SESSION, SERVE, Entry, Results, Row

PLAIN, SEQUENTIAL, ARIA, HASH = "requests, threads", "requests, sequential", "aria2c", "SHA-256 alone"
SOCKETS = "bare sockets"

SERVED = tuple(f"server-{name}" for name in ("small-upload", "small-upload-disk", "large-upload", "large-upload-disk"))
PUSHES = 2000
"""Small files a second that the demo hashes and pushes, where the disk costs nothing."""
MAX_RSS = 90e6  # bytes
MAX_RSS_A_BLOB = 1000.0  # bytes, for each blob beyond the first thousands
GROWTH_TOLERANCE = 0.10
MANY = 5000
"""Up to so many blobs the limit of memory holds."""
UPLOAD_REQUESTS = 3
SLOWER_THAN_EARLIER = 1.05
TAIL = 0.5, 0.15
"""Seconds, or a part of the time without it, whichever is more: what a slow connection may add."""
SILENT = 1.0, 0.0
"""The same of one that falls silent in the last chunk."""
PRESENT = 1.0
"""Seconds in which a second download finds 100,000 blobs in place."""
FIRST = 0.04
"""Seconds that a first call may take next to the import of ``requests``."""


def goals(results: Results) -> list[Goal]:
    return [
        *_speed(results),
        *_servers(results),
        _no_slower_than_earlier(results),
        *_requests(results),
        *_memory(results),
        *_growth(results),
        *_present(results),
        *_tail(results),
        _start(results),
    ]


def _speed(results: Results) -> Iterator[Goal]:
    yield at_least(results, "small-loopback", 1.8, EARLIER)
    yield at_least(results, "small-loopback", 8.0, PLAIN)
    yield at_least(results, "small-loopback", 1.5, ARIA)
    yield at_most(results, "small-cdn", 1.1, SOCKETS)
    yield at_least(results, "medium-loopback", 2.5, PLAIN)
    yield at_least(results, "medium-loopback", 1.8, ARIA)
    yield at_least(results, "medium-cdn", 1.8, ARIA)
    yield at_most(results, "large-loopback", 1.05, SOCKETS)
    yield at_least(results, "large-loopback", 1.0, BEST)
    yield at_most(results, "large-loopback", 2.6, HASH)
    yield at_least(results, "large-cdn", 9.0, PLAIN)
    yield at_least(results, "large-cdn", 2.0, ARIA)
    for server in ("loopback", "cdn"):
        yield at_least(results, f"real-{server}", 1.0, ARIA)
    for name in ("small", "large"):
        yield at_least(results, f"{name}-tls", 1.0, BEST)
    for name in ("small", "medium", "large"):
        for action in ("download", "upload"):
            row = f"registry-{name}-{action}"
            if name != "large":
                yield at_least(results, row, 2.0, SEQUENTIAL)
            yield at_least(results, row, 1.0, BEST)
            if action == "upload":
                yield at_most(results, row, 1.3, SOCKETS)
    for name in ("limited-1", "limited-2"):
        yield at_most(results, name, 1.15, f"{ARIA}, retrying")
    yield at_most(results, "verify-large", 1.1, HASH)
    for server in ("loopback", "tls"):
        yield at_most(results, f"small-{server}", 1.10, OURS, who=OWN_SESSION)


def _servers(results: Results) -> Iterator[Goal]:
    yield at_most(results, "server-large-download", 2.0, "nginx", who=SERVE)
    for row in SERVED:
        yield at_most(results, row, 1.0, "docker-registry", who=SERVE)
    text = f"at least {PUSHES:,} blobs a second"
    row, seconds = results.row("demo-push"), _call(results, "demo-push", DEMO)
    if row is None or seconds is None:
        yield Goal(row="demo-push", text=text)
        return
    rate = row.blobs / seconds
    verdict = MET if rate >= PUSHES else NOT_MET
    yield Goal(row=row.name, text=text, verdict=verdict, figures=f"{rate:,.0f}")


def _no_slower_than_earlier(results: Results) -> Goal:
    seen = [(row, ratio) for row, _, _, ratio in to_earlier(results)]
    text = f"at most {SLOWER_THAN_EARLIER:g} times the time of {EARLIER} in every row"
    return worst(seen, "against 0.1.0", text, lambda ratio: ratio <= SLOWER_THAN_EARLIER, lambda ratio: f"{ratio:.2f}")


def _requests(results: Results) -> Iterator[Goal]:
    # Of "real" and "large" there are blobs that come in chunks.
    down = [row for row in results.rows if row.name.removeprefix("registry-").split("-")[0] in ("small", "medium")]
    up = [row for row in results.rows if row.name.endswith("-upload")]
    down = [row for row in down if row not in up]
    yield _requests_of(down, "one request a blob on a download", 1, "downloads")
    yield _requests_of(up, f"at most {UPLOAD_REQUESTS} requests a blob on an upload", UPLOAD_REQUESTS, "uploads")


def _requests_of(rows: list[Row], text: str, most: int, name: str) -> Goal:
    seen = [(row, e.requests / row.blobs) for row in rows if (e := row.entry()) is not None and e.requests is not None]
    return worst(seen, name, text, lambda a_blob: a_blob <= most, lambda a_blob: f"{a_blob:.3f} a blob")


def _memory(results: Results) -> Iterator[Goal]:
    seen = [
        (row, float(entry.peak))
        for row in results.rows
        for entry in row.entries
        if row.blobs <= MANY and entry.kind == "ours" and entry.peak is not None
    ]
    text = f"peak RSS under {MAX_RSS / 1e6:.0f} MB in every row of up to {MANY:,} blobs"
    yield worst(seen, "memory", text, lambda rss: rss < MAX_RSS, lambda rss: f"{rss / 1e6:.0f} MB")
    text = "less than 1 KB of memory for each further blob"
    further = marginal(results, "growth-10k", "growth-100k", lambda entry: entry.rss)
    if further is None:
        yield Goal(row="memory", text=text)
    else:
        verdict = MET if further < MAX_RSS_A_BLOB else NOT_MET
        yield Goal(row="memory", text=text, verdict=verdict, figures=f"{further:.0f} bytes")


def _growth(results: Results) -> Iterator[Goal]:
    figures: list[tuple[str, Callable[[Entry], float | None], float, str]] = [
        ("time", lambda entry: entry.call, 1e6, "microseconds"),
        ("memory", lambda entry: entry.rss, 1, "bytes"),
    ]
    for what, figure, factor, unit in figures:
        text = f"the {what} of a further blob at 100,000 within {GROWTH_TOLERANCE:.0%} of that at 10,000"
        early = marginal(results, "growth-1k", "growth-10k", figure)
        late = marginal(results, "growth-10k", "growth-100k", figure)
        if early is None or late is None:
            yield Goal(row="growth", text=text)
            continue
        # Less than before is no failure.
        verdict = MET if late <= early * (1 + GROWTH_TOLERANCE) else NOT_MET
        shown = f"{early * factor:.0f} and then {late * factor:.0f} {unit}"
        yield Goal(row="growth", text=text, verdict=verdict, figures=shown)


def _present(results: Results) -> Iterator[Goal]:
    text = f"a folder that has 100,000 blobs already is found so in at most {PRESENT:g} s"
    again = _call(results, "present-100k")
    verdict = NOT_MEASURED if again is None else MET if again <= PRESENT else NOT_MET
    yield Goal(row="present-100k", text=text, verdict=verdict, figures=f"{again:.2f} s" if again else "")
    text = "less than 1 KB of memory for each blob that is there already"
    further = marginal(results, "present-10k", "present-100k", lambda entry: entry.rss)
    verdict = NOT_MEASURED if further is None else MET if further < MAX_RSS_A_BLOB else NOT_MET
    yield Goal(row="present-100k", text=text, verdict=verdict, figures=f"{further:.0f} bytes" if further else "")


def _tail(results: Results) -> Iterator[Goal]:
    text = f"a connection of 50 KB/s adds at most {TAIL[0]:g} s, or {TAIL[1]:.0%}"
    yield _added(results, "heal-one", "heal", text, TAIL)
    text = f"a connection that falls silent in the last chunk adds at most {SILENT[0]:g} s"
    yield _added(results, "heal-silent", "heal-silent", text, SILENT)


def _added(results: Results, row: str, name: str, text: str, most: tuple[float, float]) -> Goal:
    allowed, part = most
    without, healed = _call(results, "heal-none"), _call(results, row)
    if without is None or healed is None:
        return Goal(row=name, text=text)
    verdict = MET if healed - without <= max(allowed, part * without) else NOT_MET
    figures = f"{healed - without:.2f} s ({without:.2f} s without, {healed:.2f} s with it)"
    return Goal(row=name, text=text, verdict=verdict, figures=figures)


def _start(results: Results) -> Goal:
    text = f"a first call takes at most {FIRST * 1000:.0f} ms more than the import of requests"
    first, floor = _call(results, "start", FIRST_CALL), _call(results, "start", "import requests")
    if first is None or floor is None:
        return Goal(row="start", text=text)
    verdict = MET if first - floor <= FIRST else NOT_MET
    figures = f"{(first - floor) * 1000:.0f} ms ({first * 1000:.0f} ms, import {floor * 1000:.0f} ms)"
    return Goal(row="start", text=text, verdict=verdict, figures=figures)


def _call(results: Results, name: str, contestant: str = OURS) -> float | None:
    row = results.row(name)
    entry = row.entry(contestant) if row else None
    return entry.call if entry else None
