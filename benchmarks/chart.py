"""Results as a picture: horizontal bars of seconds, a group for each row. SVG by hand. Knows no measuring."""

from __future__ import annotations

from html import escape

from benchmarks.results import Results, Row

WIDTH, LABEL, FIGURE, BAR, GAP = 760, 170, 90, 16, 4
COLOURS = {"ours": "#1b7f5c", "several": "#57a98b", "earlier": "#8fc7b0", "other": "#8c96a3", "floor": "#d5dae0"}


def chart(results: Results) -> str:
    """Return an SVG document; contestants without a time have no bar, and their status instead of a figure."""
    parts: list[str] = []
    at = 10
    for row in results.rows:
        if row.entries:
            at = _group(parts, row, at)
    style = "font-family: system-ui, sans-serif; font-size: 12px"
    box = f'width="{WIDTH}" height="{at}" viewBox="0 0 {WIDTH} {at}"'
    background = f'<rect width="{WIDTH}" height="{at}" fill="#ffffff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" style="{style}">'
    return "\n".join([head, "<title>Seconds, shorter is better</title>", background, *parts, "</svg>", ""])


def _group(parts: list[str], row: Row, at: int) -> int:
    parts.append(f'<text x="10" y="{at + 12}" font-weight="bold">{escape(row.name)}: {escape(row.title)}</text>')
    at += 20
    longest = max((entry.wall or 0.0 for entry in row.entries), default=0.0) or 1.0
    for entry in row.entries:
        wall = entry.wall
        length = round((WIDTH - LABEL - FIGURE) * (wall or 0.0) / longest, 1)
        middle = at + BAR - 4
        text = f"{wall:.2f} s" if wall is not None else next((r.status for r in entry.runs if r.status != "ok"), "-")
        parts.append(f'<text x="{LABEL - 8}" y="{middle}" text-anchor="end">{escape(entry.contestant)}</text>')
        if wall is not None:
            colour = COLOURS[entry.kind]
            parts.append(f'<rect x="{LABEL}" y="{at}" width="{max(length, 1)}" height="{BAR}" fill="{colour}"/>')
        parts.append(f'<text x="{LABEL + length + 6}" y="{middle}">{text}</text>')
        at += BAR + GAP
    return at + 14
