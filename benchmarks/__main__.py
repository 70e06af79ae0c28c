"""The command: ``python -m benchmarks --rows small-loopback,large-cdn --size 0.1 --runs 3``."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import transferkit
from benchmarks import machine
from benchmarks.chart import chart
from benchmarks.entrants import ALL
from benchmarks.report import earlier_table, goals_table
from benchmarks.results import Results
from benchmarks.rows import ROWS, select
from benchmarks.runner import Runner
from benchmarks.table import heading, row_table

MEMORY = Path("/dev/shm")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this library beside other clients, on servers of this machine.",
        epilog=f"Rows: {', '.join(ROWS)}. Contestants: {'; '.join(ALL)}.",
    )
    parser.add_argument("--rows", default="all", help="names, or their beginnings, with commas (default: all)")
    parser.add_argument("--size", type=float, default=1.0, help="a factor for the data (default: 1)")
    parser.add_argument("--runs", type=int, default=3, help="how often each contestant runs (default: 3)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that a run may take (default: 120)")
    parser.add_argument("--only", default="", help="names of contestants, with semicolons (default: all)")
    parser.add_argument("--work", type=Path, help="a folder in memory where the data stays for a later run")
    parser.add_argument("--disk", type=Path, help="a folder on a real disk (default: one for temporary files)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--svg", type=Path, help="write a chart here")
    args = parser.parse_args(arguments)
    if not 0 < args.size <= 1 or args.runs < 1 or args.timeout <= 0:
        parser.error("--size is in (0, 1], --runs at least 1, --timeout positive")
    if args.disk is not None and not args.disk.is_dir():
        parser.error(f"--disk {args.disk} is no folder")
    args.only = frozenset(name.strip() for name in args.only.split(";") if name.strip())
    if args.only - set(ALL):
        parser.error(f"no such contestant: {', '.join(sorted(args.only - set(ALL)))}")
    try:
        args.rows = select(args.rows)
    except ValueError as error:
        parser.error(str(error))
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write. Return 1 where a contestant delivered wrong bytes or this library failed."""
    args = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda which, _: sys.exit(128 + which))  # so that what was started ends too
    # What pip installs is compiled, the other contestants too: a checkout might be compiled anew at each start.
    compileall.compile_dir(os.path.dirname(transferkit.__file__), quiet=1)
    results = Results(machine=machine.describe(), versions={}, scale=args.size, runs=args.runs, rows=[])
    with _folders(args.work, args.disk) as (work, disk):
        runner = Runner(work=work, disk=disk, scale=args.size, runs=args.runs, timeout=args.timeout, only=args.only)
        for spec in args.rows:
            row = runner.row(spec)
            results.rows.append(row)
            results.versions.update(machine.versions(entry.contestant for entry in row.entries))
            print(row_table(row), end="\n\n", flush=True)
            _write(results, args.json, args.svg)  # after each row: who interrupts an hour keeps what there is
    print(heading("Goals", "-"), goals_table(results), sep="\n\n", end="\n\n")
    print(heading("Against version 0.1.0", "-"), earlier_table(results), sep="\n\n")
    if args.size != 1:
        print(f"\nThe goals are meant for the full size; this was {args.size:g} of it.")
    for problem in results.broken:
        print(f"WRONG: {problem}", file=sys.stderr)
    return 1 if results.broken else 0


def _write(results: Results, figures: Path | None, picture: Path | None) -> None:
    for path, text in ((figures, json.dumps(results.to_json(), indent=1)), (picture, chart(results))):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@contextmanager
def _folders(work: Path | None, disk: Path | None) -> Iterator[tuple[Path, Path]]:
    """Folders for this run, removed after it, but for the data below a ``work`` that the user named."""
    memory = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folders = []
        for parent in (work.resolve() if work else memory, disk or "/var/tmp"):  # /tmp may be in memory
            folders.append(Path(tempfile.mkdtemp(prefix="transferkit-bench-", dir=parent)))
            stack.callback(shutil.rmtree, folders[-1], ignore_errors=True)
        if work is not None:
            (work / "blobs").mkdir(exist_ok=True)
            (folders[0] / "blobs").symlink_to((work / "blobs").resolve())
        yield folders[0], folders[1]


if __name__ == "__main__":
    sys.exit(main())
