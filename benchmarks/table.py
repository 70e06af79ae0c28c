"""Results as text: simple tables of reStructuredText, which read as they are on a terminal. Knows no measuring."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.results import OURS, SERVE, Entry, Row

HEAD = (
    *("contestant", "wall s", "min - max", "call s", "user s", "sys s", "RSS MB", "requests", "connections"),
    *("wire MB", "ratio"),
)


def row_table(row: Row, *, line: str = "-") -> str:
    """Return one row with its heading: medians, and ``ratio`` as a multiple of the time of this library's call."""
    parts = [heading(f"{row.name}: {row.title}", line)]
    ours = row.entry(OURS) or row.entry(SERVE)
    own = ours.call if ours else None
    if row.entries:
        parts.append(simple_table(HEAD, [_cells(entry, own) for entry in row.entries]))
    notes = [f"{entry.contestant}: {run.note}" for entry in row.entries for run in entry.runs if run.note]
    notes += [f"Left out: {name or 'the whole row'}, {reason}" for name, reason in row.left_out.items()]
    parts += [f"{note}." for note in notes]
    return "\n\n".join(parts)


def _cells(entry: Entry, own: float | None) -> tuple[str, ...]:
    wall, call = entry.wall, entry.call
    if wall is None or call is None:
        status = next((run.status for run in entry.runs if run.status != "ok"), "-")
        return (entry.contestant, status, *("-" for _ in HEAD[2:]))
    walls = [run.wall for run in entry.good]
    return (
        entry.contestant,
        f"{wall:.2f}",
        f"{min(walls):.2f} - {max(walls):.2f}",
        number(call, 2) if entry.has_call else "-",
        number(entry.median(lambda run: run.user), 2),
        number(entry.median(lambda run: run.system), 2),
        number((entry.rss or 0) / 1e6, 0),
        number(entry.requests, 0),
        number(entry.connections, 0),
        number(None if entry.wire is None else entry.wire / 1e6, 1),
        f"{call / own:.2f}" if own else "-",
    )


def number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:,.{places}f}"


def heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def simple_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """Return a simple table; the first columns are texts, the others are figures, aligned to the right.

    >>> print(simple_table(("a", "b"), [("one", "1"), ("eleven", "11")]))
    ======  ==
    a        b
    ======  ==
    one      1
    eleven  11
    ======  ==
    """
    widths = [max(len(line[column]) for line in [head, *rows]) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)

    def show(line: Sequence[str]) -> str:
        cells = enumerate(zip(line, widths, strict=True))
        return "  ".join(text.ljust(w) if n < texts else text.rjust(w) for n, (text, w) in cells).rstrip()

    return "\n".join([rule, show(head), rule, *(show(line) for line in rows), rule])
