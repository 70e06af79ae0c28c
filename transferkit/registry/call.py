"""What every method of a registry takes besides its own arguments."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypedDict

from transferkit.cancellation import Cancellation
from transferkit.trace import NULL_TRACE, Trace
from transferkit.transfer.outcomes import ProgressCallback


class Arguments(TypedDict, total=False):
    """Keywords of each call, as ``download`` has them."""

    progress: ProgressCallback | None
    trace: Trace
    cancel: Cancellation | None
    logger: logging.Logger | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The keywords of one call, with their defaults."""

    progress: ProgressCallback | None = None
    trace: Trace = NULL_TRACE
    cancel: Cancellation | None = None
    logger: logging.Logger | None = None
