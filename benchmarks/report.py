"""Write the page of the documentation from the JSON of a run: ``python -m benchmarks.report RESULTS.json PAGE.rst``.

An hour can be run in pieces: of several files, later rows take the place of earlier ones. The chart goes beside the
page. What stands in ``PAGE-reasons.txt`` beside it, which says why goals are not met, becomes part of it. Nothing tells
which machine it was but its size: no host name, no path.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.chart import chart
from benchmarks.goals import SLOWER_THAN_EARLIER, goals
from benchmarks.judging import MET, NOT_MET, to_earlier
from benchmarks.results import EARLIER, OURS, Results
from benchmarks.rows import ROWS
from benchmarks.table import heading, row_table, simple_table

INTRODUCTION = """
Made by ``make bench``; anyone can run it. Absolute figures say little: another machine has others, and so has the same
one an hour later. The ratios hold, because the contestants of a row ran in turn, in one run.

``wall`` is the time of a whole process with its start, as a median; ``call`` is what a program that runs already waits
for: contestants written in Python have their imports before that time runs, and of a program there is the whole process
alone. ``ratio`` is a multiple of the time of transferkit, by the call, and so are goals judged. ``RSS`` is the peak of
the process's memory (10 MB is the least that can be seen). Every file was hashed after each run. *bare sockets* and
*SHA-256 alone* are floors for orientation: the first checks nothing that a client must check, the second moves nothing.
Client and server share the cores. Where a row compares servers, the time is that of a client, the same for all, which
throws away what it receives, and hashes it when the time has run.
"""


def page(results: Results, image: str, reasons: str = "") -> str:
    """Return the page; ``reasons`` names the file that says why goals are not met."""
    parts = [heading("Benchmarks", "="), INTRODUCTION.strip(), heading("The machine", "-")]
    parts.append("\n".join(f"* {name}: {text}" for name, text in [*results.machine.items(), *results.versions.items()]))
    size = "." if results.scale == 1 else f", at {results.scale:g} of the full size: the goals are meant for that."
    parts.append(f"Medians of {results.runs} runs{size}")
    parts += [heading("Goals", "-"), goals_table(results)]
    parts += [heading("Against version 0.1.0", "-"), earlier_table(results)]
    if reasons:
        parts.append(f".. include:: {reasons}")
    parts += [heading("Times", "-"), f".. image:: {image}\n   :alt: Seconds of each contestant, as in the tables below"]
    parts += [row_table(row, line="^") for row in results.rows]
    return "\n\n".join(parts) + "\n"


def goals_table(results: Results) -> str:
    """Return every goal with its verdict and its figures."""
    return simple_table(
        ("row", "goal", "verdict", "figures"),
        [(goal.row, goal.text, goal.verdict, goal.figures or "-") for goal in goals(results)],
        texts=4,
    )


def earlier_table(results: Results) -> str:
    """Return this version's time beside that of version 0.1.0, by the call, for each row that both ran."""
    cells = [
        (
            row.name,
            MET if ratio <= SLOWER_THAN_EARLIER else NOT_MET,
            *(f"{n:.2f}" for n in (ours.call, before.call, ratio)),
        )
        for row, ours, before, ratio in to_earlier(results)
    ]
    return (
        simple_table(("row", "verdict", f"{OURS} s", f"{EARLIER} s", "ratio"), cells, texts=2)
        if cells
        else "Not measured."
    )


def main() -> None:
    *sources, target = map(Path, sys.argv[1:])
    results = merge([Results.from_json(json.loads(source.read_text())) for source in sources])
    picture = target.with_suffix(".svg")
    picture.write_text(chart(results))
    reasons = target.with_name(f"{target.stem}-reasons.txt")
    target.write_text(page(results, picture.name, reasons.name if reasons.exists() else ""))


def merge(pieces: Sequence[Results]) -> Results:
    """Return several runs of different rows as one; the last one that has a row has the say."""
    rows = {row.name: row for results in pieces for row in results.rows}
    versions = {name: version for results in pieces for name, version in results.versions.items()}
    ordered = [rows[name] for name in ROWS if name in rows]
    return replace(pieces[-1], rows=ordered, versions=versions, runs=min(results.runs for results in pieces))


if __name__ == "__main__":
    main()
