"""What a command prints: data on standard output, as lines, tables or JSON, and notes on standard error.

A text may come from a registry: what is not printable never reaches the terminal as it is.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import click

from transferkit.cli.settings import Settings
from transferkit.errors import OutOfSpaceError, StorageError

SCHEMA = "transferkit/1"
"""The version of what ``--json`` writes. Within it fields and types are added, and none is changed or taken away."""

_GAP = "   "
_LEAST = 12  # characters that a column which is cut keeps
_NARROW = 24  # characters: a sentence with less room stands below its heads
_AGES = ((365 * 86400, "year"), (30 * 86400, "month"), (7 * 86400, "week"), (86400, "day"), (3600, "hour"))


class Output:
    """The two streams of a command."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def record(self, kind: str, line: str | None, /, **fields: Any) -> None:
        """Write one result: as an object of the type ``kind`` with ``--json``, else as a ``line``, where it has one."""
        if self._settings.as_json:
            write_json(kind, fields)
        elif line is not None:
            emit(printable(line))

    def sentence(self, kind: str, heads: Sequence[str], text: str, /, **fields: Any) -> None:
        """Write one result that is a sentence: behind its heads, and on a terminal in as many lines as it takes."""
        begin = "".join(f"{head:<12} " for head in heads)
        line, indent = begin + printable(text), " " * len(begin)
        if (width := terminal_width()) is not None:
            if width - len(begin) < _NARROW:
                line, indent = " ".join((*heads, printable(text))), "  "
            line = textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        if self._settings.as_json:
            write_json(kind, fields)
        else:
            emit(line)

    def note(self, text: str) -> None:
        """Tell a person what was done, on standard error. Where nobody can read it, that is no failure."""
        if not self._settings.quiet:
            with suppress(OSError, ValueError):
                click.echo(printable(text), err=True)

    def table(self, kind: str, heads: Sequence[str], rows: Sequence[tuple[Sequence[str], Mapping[str, Any]]]) -> None:
        """Write results that are alike: each as the cells of a line, and as the fields of an object.

        The first column names them: with ``--quiet`` it is all, and where the terminal is too narrow it is cut.
        """
        if self._settings.as_json:
            for _, fields in rows:
                write_json(kind, fields)
        elif self._settings.quiet:
            for cells, _ in rows:
                emit(printable(cells[0]))
        else:
            for line in lines_of([list(heads), *(list(cells) for cells, _ in rows)], terminal_width()):
                emit(line)


def terminal_width() -> int | None:
    """Return how wide a line may be: ``None`` for as wide as it is, where no terminal shows it."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def write_json(kind: str, fields: Mapping[str, Any]) -> None:
    """Write one object on a line of its own."""
    emit(json.dumps({"schema": SCHEMA, "type": kind, **fields}))


def emit(data: str | bytes, *, newline: bool = True) -> None:
    """Write data to standard output.

    BrokenPipeError: whoever read it has closed it; StorageError: it cannot be written for another reason.
    """
    try:
        try:
            click.echo(data, nl=newline)
        except UnicodeEncodeError:  # the encoding of a terminal of long ago
            encoding = sys.stdout.encoding
            click.echo(str(data).encode(encoding, "backslashreplace").decode(encoding), nl=newline)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        kind = OutOfSpaceError if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(f"standard output cannot be written: {error.strerror}", errno=error.errno) from error


def drop_output() -> None:
    """Let nobody who writes what is left in a buffer of standard output fail once more."""
    with suppress(OSError, ValueError, AttributeError):  # there may be no standard output
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def lines_of(rows: Sequence[Sequence[str]], width: int | None = None, *, cut: Sequence[int] = (0,)) -> list[str]:
    """Return the lines of a table; the columns ``cut`` are, one after the other, where a line is longer than ``width``.

    >>> lines_of([["NAME", "SIZE"], ["smollm:135m", "91.0 MiB"]])
    ['NAME          SIZE', 'smollm:135m   91.0 MiB']
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    most = sum(widths) if width is None else width - len(_GAP) * (len(widths) - 1)
    for column in cut:
        over = sum(widths) - most
        widths[column] = min(widths[column], max(_LEAST, widths[column] - max(0, over)))
    return [
        _GAP.join(_cut(cell, wide).ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]


def _cut(name: str, width: int) -> str:
    """Return a name without some of its middle: names that begin alike end differently."""
    if len(name) <= width:
        return name
    begin = (width - 1) // 3
    return f"{name[:begin]}…{name[len(name) - (width - 1 - begin) :]}"


def printable(text: str, *, lines: bool = False) -> str:
    """Return a text without what moves the cursor of a terminal: line breaks stay where it may have ``lines``.

    >>> printable("a" + chr(27) + "[2Jb")
    'a\\\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    kept = "\n" if lines else ""
    return "".join(c if c.isprintable() or c == kept else c.encode("unicode_escape").decode() for c in text)


def age(then: float, now: float) -> str:
    """Return how long ago a moment was, as a person says it.

    >>> age(0, 59), age(0, 3600), age(0, 200000)
    ('less than a minute ago', '1 hour ago', '2 days ago')
    """
    seconds = max(0.0, now - then)
    for length, name in (*_AGES, (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "less than a minute ago"


def moment(then: float) -> str:
    """Return a Unix time as RFC 3339 has it, in UTC.

    >>> moment(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(int(then), timezone.utc).isoformat().replace("+00:00", "Z")


def plural(count: int, what: str) -> str:
    """Return a number of things.

    >>> plural(1, "blob"), plural(2, "blob")
    ('1 blob', '2 blobs')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"
