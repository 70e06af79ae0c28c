"""Progress: summed up by the one who waits, from cells that only their workers write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from transferkit.transfer.flow import WorkerFlow

ProgressCallback = Callable[[int, int], object]


class Progress:
    """Calls ``callback(completed, total)``, in bytes, from the thread that calls ``tick``.

    An exception in the callback is logged once and never harms the transfer.
    """

    def __init__(self, callback: ProgressCallback | None, total: int, *, present: int, logger: logging.Logger) -> None:
        self._callback = callback
        self._total = total
        self._present = present
        self._logger = logger
        self._complained = False
        self._last = -1

    def tick(self, flows: Iterable[WorkerFlow], *, taken_back: int = 0, always: bool = False) -> None:
        """Tell the callback how far it is, if that has changed."""
        if self._callback is None:
            return
        completed = self._present + sum(flow.counter.progress for flow in flows) - taken_back
        if completed == self._last and not always:
            return
        self._last = completed
        try:
            self._callback(completed, self._total)
        except Exception:
            if not self._complained:
                self._complained = True
                self._logger.warning("the progress callback raised; the transfer goes on", exc_info=True)
