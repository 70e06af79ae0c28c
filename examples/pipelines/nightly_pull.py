"""Pulls models into a folder, as a job of the night does it.

Run it with ``python nightly_pull.py FOLDER NAME...``. It logs, and goes on after a
failure. It ends with 0 when every model is there; with the ``exit_code`` of the error
when all failures are of one kind (3 not found, 4 refused, 5 network, 6 verification,
7 disk full, 8 incomplete: those of the command line); with 1 when they are of several;
with 130 or 143 when it was stopped.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

import transferkit as tk

log = logging.getLogger("nightly")


def pull_all(names: list[str], folder: Path, cancel: tk.Cancellation) -> int:
    """Pull each model into a folder of its own, and return the exit code."""
    codes: set[int] = set()
    with (
        tk.Registry() as registry
    ):  # one for all: connections, tokens and what is known of hosts are shared
        for name in names:
            try:
                place = folder / tk.Reference.parse(name).name.repository
                report = registry.pull(name, to=place, cancel=cancel)
            except tk.CancelledError:
                log.warning(
                    "%s: stopped; the next run goes on where this one was", name
                )
                raise
            except tk.TransferKitError as error:
                log.error("%s: %s", name, error)
                codes.add(error.exit_code)
            else:
                log.info(
                    "%s: %s, %d bytes moved, in %s",
                    name,
                    report.digest,
                    report.bytes,
                    place,
                )
    return codes.pop() if len(codes) == 1 else int(bool(codes))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+", metavar="name")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    cancel = tk.Cancellation()
    signal.signal(
        signal.SIGTERM, lambda *_: cancel.cancel("SIGTERM")
    )  # what a scheduler sends
    try:
        return pull_all(parsed.names, parsed.folder, cancel)
    except tk.CancelledError:
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
