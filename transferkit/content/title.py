"""Titles: the names that a manifest gives to files, and which of them may become names on a disk.

Source: OCI image specification v1.1, ``org.opencontainers.image.title``. A title is checked by the rules of POSIX and
of Windows on every platform (CVE-2021-21272, CVE-2026-15717): what is written here may be read there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from transferkit.content.descriptor import Descriptor
from transferkit.errors import InvalidNameError, TransferKitError

TITLE = "org.opencontainers.image.title"
_LONGEST = 1024  # characters of a title; a part of it is a file name, which has 255 bytes at most
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_SURROGATE = re.compile("[\ud800-\udfff]")
# Windows takes them for devices, whatever is behind the first dot.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(?:\..*)?\Z", re.I)


def check_title(title: str) -> str:
    """Return ``title`` if it is a relative path, with slashes, that names the same file on every system.

    Raises:
        InvalidNameError: it leads elsewhere, or means something else than a file to some system.

    >>> check_title("config/model.json")
    'config/model.json'
    """
    reason = "it is empty or too long" if not 0 < len(title) <= _LONGEST else ""
    if match := _FORBIDDEN.search(title):
        reason = f"it holds {match[0]!r}, which is a separator, a drive or a wildcard to some system"
    elif _SURROGATE.search(title):
        reason = "it is not UTF-8"  # a name of a disk that is not, or JSON with half a character
    for part in title.split("/") if not reason else ():
        if part in ("", ".", ".."):
            reason = "it is no plain relative path"
        elif part[-1] in " ." or len(part.encode()) > 255:
            reason = f"{part[:40]!r} is no file name to some system"
        elif _RESERVED.match(part):
            reason = f"{part[:40]!r} is a device to Windows"
    if reason:
        raise _refused(f"the title {title[:200]!r} is refused as the name of a file: {reason}")
    return title


def _refused(text: str) -> InvalidNameError:
    return InvalidNameError(text, exit_code=TransferKitError.exit_code)  # it is not the command line that is wrong


def check_titles(descriptors: tuple[Descriptor, ...]) -> dict[str, Descriptor]:
    """Return the layers that have titles, by title; InvalidNameError: two of them would be one file, or in one."""
    return check_paths(
        (title, layer) for layer in descriptors if (title := dict(layer.annotations).get(TITLE)) is not None
    )


def check_paths(named: Iterable[tuple[str, Descriptor]]) -> dict[str, Descriptor]:
    """Return layers by the paths that they are to have, each once; the rules and the error are those of titles."""
    found: dict[str, Descriptor] = {}
    for title, descriptor in named:
        check_title(title)
        if title in found and found[title].digest != descriptor.digest:
            raise _refused(f"two layers have the title {title[:200]!r}; they would be one file")
        found[title] = descriptor
    for problem in collisions(found):
        raise _refused(problem)
    return found


def collisions(titles: Iterable[str]) -> Iterator[str]:
    """Yield, as sentences, which of some titles, each of them there once, cannot all be files on every system."""
    folded: dict[str, str] = {}
    for title in titles:
        other = folded.setdefault(_folded(title), title)
        if other != title:
            yield f"two files have the titles {other[:200]!r} and {title[:200]!r}; they would be one file"
    # What is in a folder comes right behind the folder itself where slashes sort before all else.
    before = ""
    for name in sorted(folded, key=lambda name: name.replace("/", "\0")):
        if before and name.startswith(f"{before}/"):
            yield f"the title {folded[before][:200]!r} is a file and a folder"
        before = name


def _folded(title: str) -> str:
    """Return a title as a file system sees it that knows no case (Windows, macOS) and no order of accents (macOS).

    Source: The Unicode Standard, section 3.13, D145, "canonical caseless match". To fold case first is not enough: it
    makes a letter of an accent (U+0345), which then keeps others from their order.
    """
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", title).casefold())
