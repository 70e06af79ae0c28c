"""Whether it pays to ask a registry for a small blob before it is sent: the question is a third of what it costs.

Once a row of blobs were not there, they are sent unasked, but for one in a while; the longer none is there, the rarer
that is. The first one that is there brings the questions back.
"""

from __future__ import annotations

from dataclasses import dataclass

_ENOUGH = 16  # blobs that were not there, one after the other
_EACH = 16  # of those that would be sent unasked, one is asked for; each time that it was not there, one of 16 more
_RARELY = 128  # and one of these at least


@dataclass(slots=True, eq=False)
class Presence:
    """What the blobs that were asked for say of the others. Thread-safe: a count that is off by one costs a request."""

    _absent: int = 0  # that were asked for, one after the other
    _unasked: int = 0  # since the last one that was asked for

    @property
    def is_unlikely(self) -> bool:
        """Whether enough of them were not there."""
        return self._absent >= _ENOUGH

    def asking_pays(self) -> bool:
        """Tell whether to ask for the next one."""
        if not self.is_unlikely:
            return True
        self._unasked += 1
        if self._unasked < min(_EACH * (self._absent - _ENOUGH + 1), _RARELY):
            return False
        self._unasked = 0
        return True

    def was_absent(self) -> None:
        """Take in that one that was asked for is not there."""
        self._absent += 1

    def is_uncertain(self) -> None:
        """Take in that one is there, or that something went wrong, and nobody knows what the registry has now."""
        self._absent = 0
