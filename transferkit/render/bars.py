"""A progress bar where there is a terminal or a notebook, a line now and then where there is a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from transferkit.report import human_bytes

Callback = Callable[[int, int], None]

_LINE_EVERY = 5.0  # seconds: a log is not a screen


@contextmanager
def progress_bar(label: str, total: int, *, stream: TextIO | None = None) -> Iterator[Callback]:
    """Return a callback for ``progress=`` that draws a bar on ``stream`` (by default standard error).

    >>> with progress_bar("pull", 2048, stream=sys.stdout) as progress:
    ...     progress(2048, 2048)
    pull: 2.0 KiB of 2.0 KiB (100 %)
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    # The kernel of a notebook: its streams say that they are no terminals.
    in_notebook = stream is None and shell is not None and "IPKernelApp" in shell.config
    stream = stream or sys.stderr
    if in_notebook or stream.isatty():
        from tqdm.auto import tqdm

        with tqdm(total=total, desc=label, unit="B", unit_scale=True, unit_divisor=1024, file=stream) as bar:

            def callback(completed: int, total: int) -> None:
                bar.total = total
                bar.update(completed - bar.n)

            yield callback
    else:
        yield plain_lines(label, stream)


def plain_lines(label: str, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> Callback:
    """Return a callback that writes a line every five seconds, and one when all is done."""
    last = -_LINE_EVERY
    done = False

    def callback(completed: int, total: int) -> None:
        nonlocal last, done
        finished = completed >= total
        if (done and finished) or (not finished and clock() - last < _LINE_EVERY):
            return
        last, done = clock(), finished
        percent = 100 * completed // total if total else 100
        print(f"{label}: {human_bytes(completed)} of {human_bytes(total)} ({percent} %)", file=stream, flush=True)

    return callback
