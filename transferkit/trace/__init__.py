"""What happens in a transfer, as typed events: for bars, logs, metrics and tests. It knows no clock and no stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import TransferKitError


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far a call is, and what its workers are at. Sizes in bytes, times in seconds.

    ``completed`` of ``total`` bytes are in place. ``cached`` of them were there before, or came without being moved.
    ``moved`` is what the whole call has moved so far, attempts that were thrown away included. A step that is no
    transfer says so by ``doing``, and has a ``completed`` and a ``total`` of its own; ``moved`` goes on with what is
    hashed or copied there.
    """

    completed: int = 0
    total: int = 0
    cached: int = 0
    moved: int = 0
    doing: str = ""
    """What is counted where that is no transfer: ``hashing``, ``verifying``, ``unpacking``, ``copying``."""
    workers: int = 0
    """How many are at work; ``verifying`` and ``waiting`` count some of them."""
    verifying: int = 0
    """How many are at the disk: they hash, sync or name what has come."""
    waiting: int = 0
    reason: str = ""
    """What the call waits for: ``rate limit``, ``retry``, ``lock``, ``registry``. Empty where something moves."""
    pause: float = 0.0
    """How many seconds are left of that, where it is known."""
    retried: int = 0
    healed: int = 0
    blobs: tuple[tuple[Descriptor, int], ...] = ()
    """The blobs that are under way, with the bytes in place of each, the largest first."""


class Trace:
    """Override the events that you want. They are called from worker threads, but for ``announced``, ``moved``,
    ``status``, ``waiting`` and ``waited``, which come from the thread that called: be quick and thread-safe.

    An exception in here is logged and never harms the transfer. Later versions may add events.
    """

    def announced(self, descriptors: Sequence[Descriptor]) -> None:
        """A pull, push or copy by name will bring these to its target; told once, before the first byte of any.

        Layers come in the order of the manifest, then configs. What is at the target already is among them.
        """

    def started(self, descriptor: Descriptor) -> None:
        """A worker has taken the blob."""

    def moved(self, positions: Mapping[Digest, int]) -> None:
        """So many bytes of each blob that is under way are in place.

        Told by the thread that called, every ``progress_interval``, where something has moved.
        """

    def status(self, status: Status) -> None:
        """How far the call is; every ``progress_interval``, also where nothing moves, and at the end of each step."""

    def cached(self, descriptor: Descriptor) -> None:
        """The blob is at the target already, or the registry mounted it."""

    def retried(self, descriptor: Descriptor, error: TransferKitError, position: int, wait: float) -> None:
        """An attempt failed; after ``wait`` seconds the blob goes on at ``position``."""

    def healed(self, descriptor: Descriptor, error: TransferKitError, position: int) -> None:
        """A silent or slow connection was cut; the blob goes on at ``position``, on another one. Also ``retried``."""

    def waiting(self, reason: str, pause: float) -> None:
        """Nothing moves any more: the call waits for ``reason`` (see ``Status``), for ``pause`` seconds if known."""

    def waited(self, reason: str, seconds: float) -> None:
        """That wait is over, after so many seconds."""

    def failed(self, descriptor: Descriptor, error: TransferKitError) -> None:
        """The blob was given up."""

    def done(self, descriptor: Descriptor) -> None:
        """The blob is in place, verified."""


EVENTS = tuple(name for name, value in vars(Trace).items() if callable(value) and not name.startswith("_"))
"""The names of all events."""

NULL_TRACE = Trace()


class Traces(Trace):
    """Several traces as one: each hears every event, in their order.

    What one of them raises keeps the others from nothing; it is raised when all have heard.

    >>> Traces(Trace(), Trace()).traces == ()
    False
    """

    def __init__(self, *traces: Trace) -> None:
        self.traces = traces
        self._told = {event: [getattr(trace, event) for trace in traces if hears(trace, event)] for event in EVENTS}

    def _tell(self, event: str, *arguments: object) -> None:
        error: Exception | None = None
        for told in self._told[event]:
            try:
                told(*arguments)
            except Exception as caught:  # noqa: BLE001 - whatever it is, whoever called deals with it
                error = error or caught
        if error is not None:
            raise error

    def hears(self, event: str) -> bool:
        """Tell whether any of them does something about an event."""
        return bool(self._told[event])


def _passing_on(event: str) -> Callable[..., None]:
    def tell(self: Traces, *arguments: object) -> None:
        self._tell(event, *arguments)

    tell.__name__, tell.__doc__ = event, f"Tell all of them; see ``Trace.{event}``."
    return tell


for _event in EVENTS:
    setattr(Traces, _event, _passing_on(_event))


def hears(trace: Trace, event: str) -> bool:
    """Tell whether a trace does something about an event: what nobody hears of need not be put together."""
    if isinstance(trace, Traces):
        return trace.hears(event)
    own: Any = getattr(type(trace), event)
    return own is not getattr(Trace, event) or event in getattr(trace, "__dict__", {})
