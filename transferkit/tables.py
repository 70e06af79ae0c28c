"""Bytes as a person reads them, and small HTML tables for notebooks. Whatever is put into a table is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from transferkit.forks import importing

MOST_ROWS = 50
"""Rows of a long list that are shown; the others are counted."""
_LONGEST = 200  # characters of a cell
_CELL = "text-align: left"


def human_bytes(count: float) -> str:
    """Return ``count`` bytes as a person reads them.

    >>> human_bytes(0), human_bytes(1536), human_bytes(5 * 1024**3)
    ('0 B', '1.5 KiB', '5.0 GiB')
    """
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of two columns: names and what they are.

    >>> facts([("folder", "<b>")])
    '<table><tr><th>folder</th><td>&lt;b&gt;</td></tr></table>'
    """
    return (
        f"<table>{''.join(f'<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>' for name, value in rows)}</table>"
    )


def listing(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with a row for each of a list, the first ``MOST_ROWS`` of them, and how many more there are.

    >>> listing("1 layer", ["title"], [["a<b>.bin"]]).count("a&lt;b&gt;.bin")
    1
    """
    head = "".join(f'<th style="{_CELL}">{_text(name)}</th>' for name in heads)
    body = "".join(
        f"<tr>{''.join(f'<td style={chr(34)}{_CELL}{chr(34)}>{_text(cell)}</td>' for cell in row)}</tr>"
        for row in rows[:MOST_ROWS]
    )
    more = (
        f'<tr><td colspan="{len(heads)}">and {len(rows) - MOST_ROWS:,} more</td></tr>' if len(rows) > MOST_ROWS else ""
    )
    return f'<table><caption style="{_CELL}">{_text(caption)}</caption><tr>{head}</tr>{body}{more}</table>'


def _text(text: str) -> str:
    """Return a text as HTML: escaped, of bounded length, without characters that turn the others around."""
    with importing:
        from html import escape  # a millisecond, which only a notebook has to pay

    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[: _LONGEST + 1])
    return escape(shown if len(text) <= _LONGEST else f"{shown[:_LONGEST]}\N{HORIZONTAL ELLIPSIS}")
