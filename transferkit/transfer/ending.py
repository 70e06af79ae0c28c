"""What becomes of the calls of daemon threads when the program ends: they are cut, and what they have is kept.

Nobody waits for a daemon thread, but Python does wait for the workers of a call in one, and so for all of its work. The
program's own threads are waited for, as ever: a call in one of them goes on to its end.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from transferkit.errors import CancelledError
from transferkit.transfer.pool import Pool

_LONGEST = 5.0  # seconds in which a call that was cut has to put away what it has
_LOOK = 0.005  # seconds between two looks whether it has

# Of this process, as the end of a program is. Each step on them is atomic.
_under_way: dict[object, tuple[int, Pool]] = {}
_armed: list[int] = []


@contextmanager
def cut_at_exit(pool: Pool) -> Iterator[None]:
    """Where the program ends while a daemon thread is in here, stop its run, and wait until it has ended."""
    if not threading.current_thread().daemon:
        yield
        return
    if not _armed:
        _armed.append(os.getpid())
        register: Any = getattr(threading, "_register_atexit", lambda _: None)
        with suppress(RuntimeError):  # the program ends already
            # What was registered last is called first: executors, which wait for their threads, did it on their import.
            register(_cut_all)
    key = object()
    _under_way[key] = os.getpid(), pool
    try:
        yield
    finally:
        _under_way.pop(key, None)


def _cut_all() -> None:
    # Those of another process are copies, which a fork has made.
    pools = [pool for process, pool in list(_under_way.values()) if process == os.getpid()]
    for pool in pools:
        pool.stop(CancelledError("the program ends"))
    deadline = time.monotonic() + _LONGEST
    while any(not pool.is_over for pool in pools) and time.monotonic() < deadline:
        time.sleep(_LOOK)
