"""The pages of the documentation as tests see them: their blocks of code, and what stands around them.

A block that cannot run in a test has a comment in front of it that says why::

    .. not run: it needs a cluster
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDEST = 88  # characters of code: what furo shows without cutting a line off or scrolling, measured in Chromium
NARROW = 83  # the same for an example of a method, which is indented twice
_BLOCK = re.compile(r"( *)\.\. code-block:: *(\S*)$")
_NOT_RUN = re.compile(r" *\.\. not run: *(.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code. ``line`` is its first one in the page, and ``reason`` why it does not run, if it does not."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Return all pages, relative to the repository."""
    found = [*ROOT.glob("*.rst"), *(ROOT / "docs").rglob("*.rst")]
    return sorted(str(path.relative_to(ROOT)) for path in found if "_build" not in path.parts)


def blocks_of(page: str) -> Iterator[Block]:
    """Yield the blocks of a page, in their order."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    reason = None
    for number, line in enumerate(lines):
        if marked := _NOT_RUN.match(line):
            reason = marked[1]
        elif begun := _BLOCK.match(line):
            body = []
            for below in lines[number + 1 :]:
                if below.strip() and len(below) - len(below.lstrip()) <= len(begun[1]):
                    break
                body.append(below)
            while body and (not body[0].strip() or body[0].lstrip().startswith(":")):
                body.pop(0)
            start = number + 2 + lines[number + 1 :].index(body[0])
            code = "\n".join(body).rstrip()
            margin = min(len(each) - len(each.lstrip()) for each in code.splitlines() if each)
            code = "\n".join(each[margin:] for each in code.splitlines())
            yield Block(page=page, line=start, language=begun[2], code=code, reason=reason)
            reason = None
        elif line.strip():
            reason = None
