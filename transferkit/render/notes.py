"""Lines of the log where bars are drawn: they go above the bars, and not into the middle of one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TextIO

from transferkit.render.screen import is_notebook, is_terminal, write_above


class AboveBars(logging.Handler):
    """Write to the standard error stream, above the bars that are drawn there. Any thread may log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if sys.stderr is not None:
                write_above(self.format(record), sys.stderr)
        except Exception:  # noqa: BLE001 - as every handler does
            self.handleError(record)


_default = AboveBars(logging.WARNING)
_users: list[object] = []


def warn_above(stream: TextIO | None) -> Callable[[], None]:
    """Write warnings above the bars on ``stream``, where nobody has set up logging; return what ends it.

    Python writes them to the standard error stream then, wherever its cursor is.
    """
    user = object()
    if stream is None or stream is not sys.stderr or not is_terminal(stream) or is_notebook():
        return lambda: None
    logger = logging.getLogger("transferkit")
    if not _users and logger.hasHandlers():
        return lambda: None
    _users.append(user)
    logger.addHandler(_default)

    def end() -> None:
        if user in _users:
            _users.remove(user)
        if not _users:
            logger.removeHandler(_default)

    return end
