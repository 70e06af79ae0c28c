"""``Range`` and ``Content-Range`` (RFC 9110 section 14), as strict as one who must not write at a wrong offset."""

from __future__ import annotations

import re

from transferkit.errors import ProtocolError

_CONTENT_RANGE = re.compile(
    r"bytes +([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)\Z",
    re.ASCII | re.IGNORECASE,  # RFC 9110 section 14.1: the names of range units have no case
)


class RangeRefused(ProtocolError):
    """What came is not the range that was asked for; the content itself may still be had as one stream."""


class VersionChanged(ProtocolError):
    """A part is of another version of the content than the part that came first."""


def check_content_range(value: str | None, *, start: int, end: int, total: int) -> None:
    """Raise RangeRefused unless a 206 brings what was asked for; ``end`` is inclusive, ``total`` the blob's size."""
    asked = f"asked for bytes {start}-{end}/{total}"
    if value is None:
        raise RangeRefused(f"the server answered 206 without Content-Range; {asked}")
    match = _CONTENT_RANGE.match(value.strip())
    if match is None:
        raise RangeRefused(f"the server's Content-Range {value[:80]!r} does not parse; {asked}")
    got_start, got_end, got_total = match.groups()
    if int(got_start) != start or int(got_end) != end or (got_total != "*" and int(got_total) != total):
        raise RangeRefused(f"the server sent {value[:80]!r}; {asked}")
