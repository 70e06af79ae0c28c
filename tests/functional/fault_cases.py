"""What a row of the fault matrix says: a fault, and how a call that meets it has to end. Values only.

A row stands for its product: each kind of content, plain and over TLS, the fault once and for ever. The tables are in
the modules beside this one, and ``test_fault_matrix.py`` runs them.

``make test`` runs one row a class of causes: one status of those that end alike, one size of a body that is never sent,
one kind of content over TLS. The others have the marker ``full``, and run under ``make test-full``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest

import transferkit as tk
from transferkit.testing import FaultRule

Expected = tuple[type[BaseException], ...]

SIZES = {"small": 50_000, "large": 1_200_000, "rest": 1_200_000, "empty": 0, "huge": 8 * 1024 * 1024}
"""Bytes of each kind. An earlier run has left a part of ``rest``; no buffer of a socket takes in ``huge``."""
PLANTED = 500_000
RESUMABLE = 600_000
MANY = 6
"""Blobs of the kind ``many``, each as large as a small one."""

RIGHT: Expected = ()
"""The right bytes, and no error."""


def final(kind: type[BaseException]) -> Expected:
    """The blob fails for good."""
    return (tk.IncompleteError, kind)


def gave_up(kind: type[BaseException]) -> Expected:
    """The blob fails again and again."""
    return (tk.IncompleteError, tk.RetriesExhaustedError, kind)


def whole_call(*kinds: type[BaseException]) -> Expected:
    """The error is raised as it is: it would be the same for every blob."""
    return kinds


AGAIN = {
    408: tk.RegistryError,
    425: tk.RegistryError,
    429: tk.RateLimitedError,
    499: tk.RegistryError,
    500: tk.ServerError,
    502: tk.ServerError,
    503: tk.ServerError,
    504: tk.ServerError,
    522: tk.ServerError,
}
"""Statuses that are asked again, and what they are for ever."""


def classes(statuses: dict[int, type[BaseException]]) -> list[tuple[int, type[BaseException], bool]]:
    """Return each status, its error, and whether an earlier one of the same hundred has the same error."""
    seen: set[tuple[int, type[BaseException]]] = set()
    rows = []
    for status, kind in statuses.items():
        rows.append((status, kind, (status // 100, kind) in seen))
        seen.add((status // 100, kind))
    return rows


UNREACHABLE = whole_call(tk.RetriesExhaustedError, tk.ConnectError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A row. ``arm(rig)`` sets the fault; ``once`` and ``ever`` say how the call ends, ``None`` where it is no case."""

    name: str
    arm: Callable[[Any], None]
    once: Expected | None = None
    ever: Expected | None = None
    kinds: tuple[str, ...] = ("small", "large")
    alike: tuple[str, ...] = ()
    """Kinds of content for which the fault is no other one than for the first of ``kinds``."""
    schemes: tuple[str, ...] = ("plain",)
    full: bool = False
    """Another row has a cause of the same class."""
    lanes: bool = False
    """The lanes of the transport have code of their own for it: ``make test-plain`` runs it on the ordinary one."""
    requests: tuple[int | None, int | None] = (None, None)
    """How many requests the registry answers: with the fault once, for ever."""
    silent: bool = False
    """The fault is silence, which takes short limits of time to notice."""
    mounts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One case of the product."""

    case: Case
    direction: str
    kind: str
    scheme: str
    times: int | None
    expected: Expected
    requests: int | None


def product(direction: str, cases: Iterable[Case]) -> list[Any]:
    """Return the parameters of a test, with readable ids."""
    params = []
    for case in cases:
        for kind in (*case.kinds, *case.alike):
            for scheme in case.schemes:
                for word, times, expected, requests in (
                    ("once", 1, case.once, case.requests[0]),
                    ("ever", None, case.ever, case.requests[1]),
                ):
                    if expected is not None:
                        run = Run(
                            case=case,
                            direction=direction,
                            kind=kind,
                            scheme=scheme,
                            times=times,
                            expected=expected,
                            requests=requests,
                        )
                        params.append(pytest.param(run, id=f"{case.name}-{kind}-{scheme}-{word}", marks=marks(run)))
    ids = [param.id for param in params]
    assert len(ids) == len(set(ids)), sorted(name for name in ids if ids.count(name) > 1)
    return params


def marks(run: Run) -> list[pytest.MarkDecorator]:
    """Tell whether a run is of the full product, and whether it is of the selection for both lanes."""
    case = run.case
    first_kind, first_scheme = run.kind == case.kinds[0], run.scheme == case.schemes[0]
    if case.full or run.kind in case.alike or not (first_kind or first_scheme):
        return [pytest.mark.full]
    # A fault that ends the call at its first sight, and one that harms nobody: the other word says no more.
    if case.once == case.ever and (run.times is None) == (run.expected != RIGHT):
        return [pytest.mark.full]
    return [pytest.mark.lanes] if case.lanes and first_kind else []


def in_lanes(*tables: Iterable[Case]) -> list[Case]:
    """Return the rows of some tables as those for which each lane has code of its own."""
    return [replace(case, lanes=True) for table in tables for case in table]


def http(action: Any, *, skip: int = 0, **match: Any) -> Callable[[Any], None]:
    """Let the registry answer wrongly to the requests that match."""
    return lambda rig: rig.faults.set(FaultRule(action, times=rig.times, skip=skip, **match))


def wire(kind: str, place: str | int) -> Callable[[Any], None]:
    """Let the network do this at a place: a number of bytes, or a word that the rig translates."""
    return lambda rig: rig.break_wire(**{kind: rig.position(place) if isinstance(place, str) else place})


def says(step: Callable[[bytes], Any], **options: Any) -> Callable[[Any], None]:
    """Let a server say what ``step`` makes of the bytes that were asked for."""
    return lambda rig: rig.script(step, **options)
