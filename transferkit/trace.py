"""What happens to each blob, as events: for logs, metrics and tests, where a bar is not enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import TransferKitError


class Trace:
    """Override the events that you want. They are called from worker threads: be quick and thread-safe.

    An exception in here is logged and never harms the transfer.
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

    def cached(self, descriptor: Descriptor) -> None:
        """The blob is at the target already, or the registry mounted it."""

    def healed(self, descriptor: Descriptor, error: TransferKitError, position: int) -> None:
        """A silent or slow connection was cut; the blob goes on at ``position`` on a new one."""

    def failed(self, descriptor: Descriptor, error: TransferKitError) -> None:
        """The blob was given up."""

    def done(self, descriptor: Descriptor) -> None:
        """The blob is in place, verified."""


NULL_TRACE = Trace()
