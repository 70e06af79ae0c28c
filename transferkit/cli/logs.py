"""The log of a run on standard error, from the level that was asked for; what other programs log is left alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transferkit.cli.output import printable
from transferkit.cli.settings import Settings
from transferkit.render.notes import AboveBars


class _Line(logging.Formatter):
    """A warning is a line as an error is one; with ``-v`` each line has its time and its level."""

    def __init__(self, *, full: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s" if full else "%(message)s")
        self._full = full

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        text = printable(super().format(record), lines=True)
        return text if self._full else f"{record.levelname.lower()}: {text}"


@contextmanager
def logged(settings: Settings) -> Iterator[None]:
    """Write the log of the library until the end, and leave its logger as it was."""
    logger, handler = logging.getLogger("transferkit"), AboveBars()
    handler.setFormatter(_Line(full=bool(settings.verbose or settings.debug)))
    level = logging.ERROR if settings.quiet else logging.WARNING
    if settings.verbose:
        level = logging.INFO
    if settings.debug or settings.verbose > 1:
        level = logging.DEBUG
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.propagate = before[1]
        logger.removeHandler(handler)
        handler.close()
