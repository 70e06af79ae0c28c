"""The grammars of repositories and tags, for the client and for the server.

Source: OCI distribution specification v1.1, "Pulling manifests". Knows texts alone: no host, no path, no URL. Patterns
are ASCII and end with ``\\Z``: ``$`` lets a newline through, and ``\\w`` letters that no registry takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from transferkit.content.digest import Digest
from transferkit.errors import InvalidNameError

# The specification's advice: host and name together in 255 characters. No component outgrows a file name then.
_MAX_REPOSITORY = 255
# Docker Hub's name in references is not that of its API.
API_HOSTS = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
_SHOWN = 200  # characters of a rejected text that an error repeats


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a kind of registry calls a repository, and a tag; ``owner`` is who says so, as an error tells it."""

    repository: re.Pattern[str] = field(repr=False)
    tag: re.Pattern[str] = field(repr=False)
    owner: str = ""


def _path(component: str) -> re.Pattern[str]:
    return re.compile(rf"{component}(?:/{component})*\Z", re.ASCII)


_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z", re.ASCII)
STRICT = Grammar(_path(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"), _TAG)
"""The specification's own."""
WIDE = Grammar(_path(r"[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*"), _TAG)
"""A little wider: what a client asks a registry for. Those that serve models keep the case of a name."""
# A namespace and a model of up to 80 characters each; a namespace has no dots, and is no host then.
_OLLAMA = r"[A-Za-z0-9_][A-Za-z0-9{}_-]{{0,79}}"
OLLAMA = Grammar(
    re.compile(rf"{_OLLAMA.format('')}/{_OLLAMA.format('.')}\Z", re.ASCII),
    re.compile(rf"{_OLLAMA.format('.')}\Z", re.ASCII),
    " of Ollama's",
)
"""Ollama's: namespace/model."""


def check_repository(name: str, grammar: Grammar = WIDE) -> str:
    """Return ``name`` if it is the name of a repository, by the grammar of its registry.

    Raises:
        InvalidNameError: it is not.

    >>> check_repository("library/model")
    'library/model'
    """
    if not isinstance(name, str) or len(name) > _MAX_REPOSITORY or grammar.repository.match(name) is None:
        text = f"{str(name)[:_SHOWN]!r} is not a repository name{grammar.owner}; it should look like library/model"
        raise InvalidNameError(text)
    return name


def check_reference(reference: str, grammar: Grammar = WIDE) -> str:
    """Return ``reference`` if it is a tag, or a digest; a digest comes back as a :class:`Digest`.

    Raises:
        InvalidNameError, InvalidDigestError: it is neither.

    >>> check_reference("v1.2")
    'v1.2'
    """
    if isinstance(reference, str) and ":" in reference:
        return Digest(reference)
    if not isinstance(reference, str) or grammar.tag.match(reference) is None:
        text = f"{str(reference)[:_SHOWN]!r} is neither a tag{grammar.owner} nor a digest; tags look like v1.2"
        raise InvalidNameError(text)
    return reference
