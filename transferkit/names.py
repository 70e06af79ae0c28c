"""The grammar of repositories, tags and references, for the client and for the server.

Source: OCI distribution specification v1.1, "Pulling manifests". Knows texts alone: no host, no path, no URL. Patterns
are ASCII and end with ``\\Z``: ``$`` lets a newline through, and ``\\w`` letters that no registry takes.
"""

from __future__ import annotations

import re

from transferkit.content.digest import Digest
from transferkit.errors import InvalidNameError

# A client takes repositories a little wider than the specification: Ollama's names keep their case.
_WIDE = r"[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*"
_STRICT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_WIDE_REPOSITORY = re.compile(rf"{_WIDE}(?:/{_WIDE})*\Z", re.ASCII)
_STRICT_REPOSITORY = re.compile(rf"{_STRICT}(?:/{_STRICT})*\Z", re.ASCII)
# The specification's advice: host and name together in 255 characters. No component outgrows a file name then.
_MAX_REPOSITORY = 255
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z", re.ASCII)
_SHOWN = 200  # characters of a rejected text that an error repeats


def check_repository(name: str, *, strict: bool = False) -> str:
    """Return ``name`` if it is the name of a repository; ``strict``: by the specification's own grammar.

    Raises:
        InvalidNameError: it is not.

    >>> check_repository("library/model")
    'library/model'
    """
    grammar = _STRICT_REPOSITORY if strict else _WIDE_REPOSITORY
    if not isinstance(name, str) or len(name) > _MAX_REPOSITORY or grammar.match(name) is None:
        raise InvalidNameError(f"{str(name)[:_SHOWN]!r} is not a repository name; it should look like library/model")
    return name


def check_reference(reference: str) -> str:
    """Return ``reference`` if it is a tag, or a digest; a digest comes back as a :class:`Digest`.

    Raises:
        InvalidNameError, InvalidDigestError: it is neither.

    >>> check_reference("v1.2")
    'v1.2'
    """
    if isinstance(reference, str) and ":" in reference:
        return Digest(reference)
    if not isinstance(reference, str) or _TAG.match(reference) is None:
        raise InvalidNameError(f"{str(reference)[:_SHOWN]!r} is neither a tag nor a digest; tags look like v1.2")
    return reference
