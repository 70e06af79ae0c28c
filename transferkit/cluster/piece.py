"""One piece of a plan where it runs: in a thread, a process or a worker of a cluster. All of this can be pickled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from transferkit._version import __version__
from transferkit.cluster.lines import Line, Teller
from transferkit.errors import CancelledError, TransferKitError
from transferkit.registry.plans import TransferPlan
from transferkit.registry.plans.places import given_by
from transferkit.registry.registry import Registry
from transferkit.report import Report
from transferkit.report.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A piece, and how it is run: the keywords of ``TransferPlan.run``, and those of a ``Registry``, ``settings``.

    ``line`` leads back to whoever waits for it. ``events`` are the names of those that somebody hears.
    """

    number: int
    plan: TransferPlan
    line: Line
    to: str | None = None
    cache: str | None = None
    concurrency: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    events: tuple[str, ...] = ()
    attempt: int = 0
    version: str = __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a piece, on which worker. ``error`` says why it failed, where it did."""

    number: int
    worker: str
    seconds: float = 0.0
    report: Report = field(default_factory=Report)
    error: TransferKitError | None = None


def run_piece(task: Task) -> Done:
    """Run a piece, and return what became of it: what the library raises is a part of that.

    KeyboardInterrupt and what is no error of the library come out as they are.
    """
    began = time.monotonic()
    with task.line.opened(task.number) as end:
        try:
            check_version(task.version, end.worker)
            trace = Teller(end, task.events)
            with client_of(task.plan, task.settings) as registry:
                try:
                    report = task.plan.run(
                        registry,
                        to=task.to,
                        cache=task.cache,
                        concurrency=task.concurrency,
                        trace=trace,
                        cancel=end.cancellation,
                    )
                finally:
                    trace.flush()
        except TransferKitError as error:
            error.__traceback__ = None
            return Done(number=task.number, worker=end.worker, seconds=time.monotonic() - began, error=error)
        report = replace(report, record=Record(), paths={} if task.plan.step == "piece" else report.paths)
        return Done(number=task.number, worker=end.worker, seconds=time.monotonic() - began, report=report)


def check_version(wanted: str, worker: str) -> None:
    """Raise TransferKitError where this is another version of the library than that of whoever sends a piece."""
    if wanted != __version__:
        raise TransferKitError(
            f"{worker} has transferkit {__version__}, and {wanted} is needed there: install the same version everywhere"
        )


@contextlib.contextmanager
def client_of(plan: TransferPlan, settings: Mapping[str, Any]) -> Iterator[Registry | None]:
    """Return the client for a plan; ``None`` where nobody has said anything of it, and the plan knows what to do."""
    if not settings:
        yield None
        return
    with Registry(**{**settings, **(given_by(plan.credentials) if plan.credentials else {})}) as registry:
        yield registry


def is_final(error: TransferKitError) -> bool:
    """Tell whether an error of a piece would be the same wherever it is tried again.

    >>> from transferkit.errors import BlobNotFoundError, OutOfSpaceError
    >>> full, missing = OutOfSpaceError("full"), BlobNotFoundError("no such blob")
    >>> is_final(full), is_final(missing)
    (False, True)
    """
    from transferkit.errors import IncompleteError, InvalidPlanError, NotFoundError, UnauthorizedError

    if isinstance(error, IncompleteError) and error.failures:
        return all(map(is_final, error.failures.values()))
    return isinstance(error, NotFoundError | InvalidPlanError | UnauthorizedError) and not isinstance(
        error, CancelledError
    )
