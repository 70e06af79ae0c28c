"""The options of commands whose work several processes or the workers of a cluster can do, and how they do it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from transferkit.cli.output import Output, plural
from transferkit.cli.settings import Settings

if TYPE_CHECKING:
    from transferkit.cluster import ClusterReport
    from transferkit.registry.plans import TransferPlan

_LONGEST = 16 * 1024 * 1024  # characters of a scheduler file, which names each worker

F = TypeVar("F", bound=Callable[..., Any])


def workers_options(command: F) -> F:
    """Add the options that say who does the work."""
    command = click.option(
        "--dask", metavar="SCHEDULER", help="Have it done by a Dask cluster: its address, or its scheduler file."
    )(command)
    return click.option(
        "--processes", type=click.IntRange(1, 256), metavar="N", help="Have it done by so many processes."
    )(command)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The values of these options."""

    processes: int | None = None
    dask: str | None = None

    def __post_init__(self) -> None:
        if self.processes is not None and self.dask is not None:
            raise click.UsageError("--processes and --dask are two ways to do the work: choose one")

    def __bool__(self) -> bool:
        return self.processes is not None or self.dask is not None

    @property
    def option(self) -> str:
        """The one that was given."""
        return "--processes" if self.processes is not None else "--dask"

    def run(
        self, settings: Settings, plan: TransferPlan, *, to: Path | None, cache: Path | None, given: dict[str, Any]
    ) -> ClusterReport:
        """Run a plan, and tell who did what; ``given`` are the keywords of a registry client."""
        call: dict[str, Any] = {"to": to, "cache": cache, "progress": settings.progress}
        if self.processes is not None:
            from transferkit.cluster import run_plan

            options = given["options"]
            each = {}
            if options.max_bandwidth is not None:
                each["max_bandwidth"] = max(1.0, options.max_bandwidth / self.processes)
            if options.concurrency is not None:
                call["concurrency"] = max(1, options.concurrency // self.processes)
            given = {**given, "options": replace(options, **each)}
            report = run_plan(plan, processes=self.processes, settings=given, **call)
        else:
            with _client(str(self.dask)) as client:
                from transferkit.cluster.dask import spread

                report = spread(client, plan, settings=given, concurrency=given["options"].concurrency, **call)
        for line in repr(report).strip("<>").splitlines()[1:]:
            Output(settings).note(line)
        return report


@contextmanager
def _client(where: str) -> Iterator[Any]:
    """Connect to a cluster. TransferKitError: there is none."""
    from transferkit.errors import TransferKitError

    try:
        from distributed import Client
    except ImportError as error:
        text = "a cluster is spoken to by dask.distributed, which is not installed: pip install 'transferkit[dask]'"
        raise TransferKitError(text) from error
    try:
        client = Client(_address(where))
    except (OSError, ValueError, LookupError, TypeError) as error:
        what = str(error).partition("\n")[0]
        raise TransferKitError(f"there is no scheduler at {where}: {type(error).__name__}: {what}") from error
    with client:
        yield client


def _address(where: str) -> str:
    """Return the address of a scheduler, which a scheduler file has, too."""
    if not os.path.exists(where):
        return where
    with open(where, encoding="utf-8") as file:
        return str(json.loads(file.read(_LONGEST))["address"])


def told(report: ClusterReport) -> str:
    """Return a line for a person about what was done."""
    from transferkit.report import human_bytes

    pieces = f"{plural(report.pieces, 'piece')} by {plural(len(report.workers), 'worker')}"
    return f"{pieces}; {human_bytes(report.bytes)} in {report.seconds:.1f} s"
