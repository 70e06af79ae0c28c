"""When the times of a file can tell that it was changed: not within the tick in which it was written."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

# Seconds within which a file can change twice without a trace in its times: the kernel counts them in ticks of up to
# 10 ms, and some file systems in whole seconds, or in two.
_TICK = 0.02
_COARSE_TICK = 2.0
_MOMENT, _MOMENTS = 0.005, 5  # seconds, and times that are waited for the end of a tick


def is_settled(when: int, now: float) -> bool:
    """Tell whether a change after ``now`` (s) gives a file another time than ``when`` (ns), which it has."""
    return now - when / 1e9 > (_TICK if when % 10**9 else _COARSE_TICK)


def settle(times: Collection[int], clock: Callable[[], float], sleep: Callable[[float], object] = time.sleep) -> None:
    """Wait until some times (ns) of files are settled, but for no longer than a tick of the kernel's takes."""
    for _ in range(_MOMENTS if times else 0):
        if is_settled(max(times), clock()):
            break
        sleep(_MOMENT)
