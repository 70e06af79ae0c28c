"""What a fork in another thread must not leave half done in the child: imports, and values that are found out once.

Names of this package are imported when they are used, which may be in a thread. A child that is forked in that moment
has the half of each module and its lock, and nobody to finish it: it would wait for ever at its own import of the same.
So what is imported late is imported under ``importing``, and a fork waits until that is over. Where a module that
registers handlers for forks itself (``logging``) is imported in that time, Python calls those for the end without those
for the beginning, and says so on the standard error stream: it does no harm.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

importing = threading.RLock()  # reentrant: an import leads to others, and a module may fork while it is imported
_LONGEST = 10.0  # seconds; rather a child that may hang than a parent that does
_held: list[bool] = []


class cached:  # noqa: N801 - it is used as ``functools.cached_property``
    """A ``functools.cached_property`` without a lock: before Python 3.12 it has one, which a child may find locked."""

    def __init__(self, find: Callable[[Any], Any]) -> None:
        self._find = find
        self.__doc__ = find.__doc__

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        if instance is None:
            return self
        value = self._find(instance)
        instance.__dict__[self._find.__name__] = value
        return value


def _before() -> None:
    _held.append(importing.acquire(timeout=_LONGEST))


def _after() -> None:
    if _held.pop():
        importing.release()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
