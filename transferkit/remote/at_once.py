"""Whether a registry stores small blobs that come with the request which begins their upload: one request for two."""

from __future__ import annotations

from enum import Enum


class _State(Enum):
    UNKNOWN = 0
    TRIED = 1  # by one blob; the others go the plain way until it is known
    TAKEN = 2
    REFUSED = 3  # for good: a registry may say of one that it is stored while it has only begun another


class AtOnce:
    """What the first blob that went so has shown, and whether one was not stored. Thread-safe."""

    def __init__(self) -> None:
        self._state = _State.UNKNOWN

    def may_go(self) -> bool:
        """Tell whether another blob may go so. Two that find it out at the same time cost a request."""
        is_first = self._state is _State.UNKNOWN
        if is_first:
            self._state = _State.TRIED
        return is_first or self._state is _State.TAKEN

    @property
    def is_proven(self) -> bool:
        """Whether it is taken at its word, when it says that a blob is stored."""
        return self._state is _State.TAKEN

    def is_stored(self) -> None:
        """Take in that a blob which went so is there."""
        if self._state is _State.TRIED:
            self._state = _State.TAKEN

    def refuse(self) -> None:
        """Take in that a blob which went so is not stored."""
        self._state = _State.REFUSED
