"""What every method of a registry takes besides its own arguments."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypedDict

from transferkit.arguments import Progress, check
from transferkit.cancellation import Cancellation
from transferkit.trace import NULL_TRACE, Trace


class Arguments(TypedDict, total=False):
    """Keywords of each call, as ``download`` has them."""

    progress: Progress
    trace: Trace
    cancel: Cancellation | None
    logger: logging.Logger | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The keywords of one call, with their defaults. TypeError: one of them is of the wrong type."""

    progress: Progress = None
    trace: Trace = NULL_TRACE
    cancel: Cancellation | None = None
    logger: logging.Logger | None = None

    def __post_init__(self) -> None:
        check(progress=self.progress, trace=self.trace, cancel=self.cancel, logger=self.logger)
