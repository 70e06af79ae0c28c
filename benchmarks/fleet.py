"""A model of a fleet: how long a tree of machines takes, and what its origin sends, by the width of the tree.

``python -m benchmarks.fleet`` prints the table of ``docs/scale.rst``; ``--check`` runs the same tree on a small cluster
of Dask's on this machine, and prints what the model says of it beside what was measured.

What the model knows: the origin's link, the links of machines (as fast in both directions), what a machine has in the
air at once, and the time that a hop adds. Chunks that move side by side are all there at about the same time, and what
is there is sent on: so a machine sends as much as it has in the air to each of the machines behind it, one after the
other. What it does not know: disks, switches that are shared, machines that die, and the time of the scheduler.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GB = 1e9
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """``origin`` and ``link`` are bytes a second, ``size`` and ``air`` bytes, ``hop`` seconds.

    ``air`` is what a machine has under way at once: 64 chunks of 64 MiB of a large model.
    """

    machines: int = 10_000
    size: float = 400 * GB
    origin: float = 100 * GB / 8
    link: float = 25 * GB / 8
    air: float = 64 * 64 * MIB
    hop: float = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """``seconds`` until the last machine has it, and the bytes that the origin ``sent``."""

    seconds: float
    sent: float
    levels: int


def direct(fleet: Fleet) -> Outcome:
    """Return what it takes where each machine asks the origin."""
    rate = min(fleet.link, fleet.origin / fleet.machines)
    return Outcome(fleet.size / rate, fleet.size * fleet.machines, 1)


def levels_of(machines: int, width: int) -> int:
    """Return how many levels a tree has.

    >>> levels_of(1, 2), levels_of(7, 2), levels_of(8, 2), levels_of(5, 1)
    (1, 3, 4, 5)
    """
    if width == 1:
        return machines
    levels, there, row = 0, 0, 1
    while there < machines:
        levels, there, row = levels + 1, there + row, row * width
    return levels


def tree(fleet: Fleet, width: int) -> Outcome:
    """Return what it takes in a tree: the way of all parts to the machine that hears of them last.

    That one is the last of those behind a machine, on each level.
    """
    count = max(1, round(fleet.size / fleet.air))
    first = fleet.air / min(fleet.origin, fleet.link)
    arrived = [first * (number + 1) for number in range(count)]
    levels = levels_of(fleet.machines, width)
    each = width * fleet.air / fleet.link
    for level in range(1, levels):
        later = list(_next(arrived, each, fleet.hop))
        step = later[0] - arrived[0]
        if all(abs(two - one - step) < 1e-9 for one, two in zip(arrived, later, strict=True)):
            # From here on each level is as much later as this one.
            return Outcome(arrived[-1] + step * (levels - level), fleet.size, levels)
        arrived = later
    return Outcome(arrived[-1], fleet.size, levels)


def _next(arrived: list[float], each: float, hop: float) -> Iterator[float]:
    """Yield when chunks are at the next level, whose machines get each within ``each`` seconds."""
    free = 0.0
    for moment in arrived:
        free = max(free, moment) + each
        yield free + hop


def table(fleet: Fleet, widths: tuple[int, ...] = (1, 2, 3, 4, 8, 16)) -> list[tuple[str, str, str, str]]:
    """Return a row for each way: how, levels, time, and what the origin sends."""
    rows = [("each from the origin", direct(fleet))]
    rows += [(f"a tree of width {width}", tree(fleet, width)) for width in widths]
    return [(how, str(each.levels), _time(each.seconds), _bytes(each.sent)) for how, each in rows]


def _time(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _bytes(count: float) -> str:
    return f"{count / 1e15:.1f} PB" if count >= 1e15 else f"{count / GB:,.1f} GB"


# -- beside a real cluster


def check(machines: int = 4, size: int = 96 * MIB, bandwidth: float = 16e6) -> list[tuple[int, float, float, float]]:
    """Run trees of widths 1 to ``machines`` - 1 on this machine, each machine held to ``bandwidth`` by the library.

    Return, for each width, the seconds of the model, those that were measured, and how often the origin sent it.
    """
    from distributed import Client, Nanny, Scheduler, SpecCluster

    import transferkit as tk
    from transferkit.cluster.dask import fan_out
    from transferkit.testing import running_registry

    found = []
    chunk = 8 * MIB
    air = 2 * chunk
    options = tk.TransferOptions(chunk_size=chunk, max_bandwidth=bandwidth, concurrency=2)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        registry = stack.enter_context(running_registry())
        name = f"{registry.url.removeprefix('http://')}/fleet/model:v1"
        (folder / "weights.bin").write_bytes(bytes(range(256)) * (size // 256))
        with tk.Registry(cache=folder / "first") as client:
            client.push(name, files=[folder / "weights.bin"])
        common: dict[str, Any] = {"nthreads": 1, "dashboard_address": ":0", "silence_logs": logging.CRITICAL}
        specification = {
            number: {
                "cls": Nanny,
                "options": {**common, "host": f"127.0.0.{number + 1}", "env": {"HOST": str(folder / str(number))}},
            }
            for number in range(machines)
        }
        scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard_address": ":0"}}
        cluster = stack.enter_context(
            SpecCluster(scheduler=scheduler, workers=specification, silence_logs=logging.CRITICAL)
        )
        workers = stack.enter_context(Client(cluster))
        workers.wait_for_workers(machines)
        fan_out(workers, name, cache="$HOST/warm")  # imports
        for width in range(1, machines):
            registry.log.clear()
            began = time.monotonic()
            fan_out(workers, name, cache=f"$HOST/width{width}", width=width, settings={"options": options})
            seconds = time.monotonic() - began
            sent = sum(each.sent for each in registry.log if each.method == "GET" and "/blobs/" in each.path)
            # Here what a machine sends is not held back: of its width, the model hears nothing.
            fleet = Fleet(machines=machines, size=size, origin=bandwidth, link=bandwidth, air=air, hop=0.05)
            free = Fleet(machines=machines, size=size, origin=bandwidth, link=width * bandwidth, air=air, hop=0.05)
            said = tree(free, width).seconds if width > 1 else tree(fleet, 1).seconds
            found.append((width, said, seconds, sent / size))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="A fleet of machines that get one model.")
    parser.add_argument("--check", action="store_true", help="beside a small cluster on this machine")
    parser.add_argument("--machines", type=int, default=10_000)
    parser.add_argument("--gigabytes", type=float, default=400.0)
    parser.add_argument("--origin", type=float, default=100.0, metavar="GBIT", help="gigabits a second")
    parser.add_argument("--link", type=float, default=25.0, metavar="GBIT", help="gigabits a second")
    asked = parser.parse_args()
    if asked.check:
        print("width  model  measured  the origin sent it")
        for width, said, measured, sent in check():
            print(f"{width:5}  {said:4.1f} s  {measured:6.1f} s  {sent:.2f} times")
        return
    fleet = Fleet(
        machines=asked.machines,
        size=asked.gigabytes * GB,
        origin=asked.origin * GB / 8,
        link=asked.link * GB / 8,
    )
    for row in [("", "levels", "time", "the origin sends"), *table(fleet)]:
        print(f"{row[0]:22} {row[1]:>7} {row[2]:>10} {row[3]:>18}")


if __name__ == "__main__":
    main()
