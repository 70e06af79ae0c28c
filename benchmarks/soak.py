"""Years of bad luck in an hour: ``python -m benchmarks.soak``, or a part of it with ``--only kills``.

The parts are ``soak_kills``, ``soak_network``, ``soak_folder`` and, for ``transferkit serve``, ``soak_server``,
``soak_server_kills`` and ``soak_server_gc``. Every run prints its seed, with which it can be done
again; the random moments of a busy machine are not the same ones, though. The first thing that is wrong ends it.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
from collections.abc import Callable, Sequence

from benchmarks.soak_folder import soak_folder
from benchmarks.soak_kills import soak_kills
from benchmarks.soak_network import soak_network
from benchmarks.soak_rig import MIB
from benchmarks.soak_server import soak_server
from benchmarks.soak_server_gc import soak_server_gc
from benchmarks.soak_server_kills import soak_server_kills

HUNG = 300  # seconds without a word: all threads are printed, and the soak ends


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Years of bad luck in an hour.")
    parser.add_argument("--only", choices=["kills", "network", "folder", "server"], help="one part (default: all)")
    parser.add_argument("--kills", type=int, default=200, help="of downloads, and of uploads (default: 200)")
    parser.add_argument("--faults", type=int, default=10_000, help="of the network (default: 10000)")
    parser.add_argument("--runs", type=int, default=50, help="of two and four processes on a folder (default: 50)")
    parser.add_argument("--seed", type=int, help="of the random moments (default: another one each time)")
    parser.add_argument("--size", type=int, default=16, help="of the blob that is killed, in MiB (default: 16)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load on a server, twice (default: 60)")
    parser.add_argument("--clients", type=int, default=64, help="of a server at once (default: 64)")
    parser.add_argument("--server-kills", type=int, default=60, help="of a server (default: 60)")
    args = parser.parse_args(arguments)
    if args.kills < 1 or args.size < 2:
        parser.error("--kills is at least 1, --size at least 2")
    seed = random.randrange(10**6) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)

    def say(text: str) -> None:
        print(text, flush=True)
        faulthandler.dump_traceback_later(HUNG, exit=True)

    def server() -> None:
        soak_server(args.seconds, clients=args.clients, seed=seed, say=say)
        soak_server_kills(args.server_kills, seed=seed, say=say)
        soak_server_gc(args.seconds, seed=seed, say=say)

    parts: dict[str, Callable[[], None]] = {
        "kills": lambda: soak_kills(args.kills, seed=seed, size=args.size * MIB, say=say),
        "network": lambda: soak_network(args.faults, seed=seed, say=say),
        "folder": lambda: soak_folder(args.runs, seed=seed, say=say),
        "server": server,
    }
    try:
        for name in [args.only] if args.only else parts:
            say(f"-- {name}")
            parts[name]()
    finally:
        faulthandler.cancel_dump_traceback_later()
    return 0


if __name__ == "__main__":
    sys.exit(main())
