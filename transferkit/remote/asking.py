"""Whether a registry is asked for a blob before it is sent: that pays where it has many of them.

A question costs a request, a third of what a small blob takes. Once a row of them were not there, small blobs are sent
unasked, but for one in a while; the first that is there brings the questions back.
"""

from __future__ import annotations

from transferkit.content.descriptor import Descriptor

SMALL = 1024 * 1024  # bytes: what is larger costs more to send in vain than to ask for
ENOUGH = 16  # that were not there, one after the other
EACH = 16  # of those that would be sent unasked, one is asked for


class Asking:
    """What was heard of one repository in one call. Thread-safe: a count that is off by one costs a request."""

    def __init__(self) -> None:
        self._absent = 0
        self._unasked = 0

    def pays(self, descriptor: Descriptor) -> bool:
        """Whether to ask for a blob."""
        if descriptor.size > SMALL or self._absent < ENOUGH:
            return True
        self._unasked += 1
        return self._unasked % EACH == 0

    def heard(self, *, is_there: bool) -> None:
        """Take in an answer."""
        self._absent = 0 if is_there else self._absent + 1

    def begin_again(self) -> None:
        """Ask again: something went wrong, and who knows what the registry has now."""
        self._absent = 0
