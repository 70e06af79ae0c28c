"""The names of models, and references to one of them: four fields, for the client and for the server.

Source: Ollama's ``names`` package. Knows texts alone: no host, no path, no URL. Patterns are ASCII and end with
``\\Z``: ``$`` lets a newline through, and ``\\w`` letters that no registry takes.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, field

from transferkit.content.digest import HEX_LENGTHS, Digest
from transferkit.errors import InvalidDigestError, InvalidNameError
from transferkit.grammar import OLLAMA, WIDE

OLLAMA_HOSTS = ("ollama.ai", "ollama.com")  # and what is below them
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}\Z", re.ASCII)
_IPV6_HOST = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?\Z", re.ASCII)
_LOCAL_HOST = re.compile(r"(?:localhost|.+:[0-9]{1,5})\Z", re.ASCII)
_LONGEST = 593  # characters of a name: 350 of the host, 80 of each other part, and what stands between them
_SCHEMES = ("http", "https", "https+insecure")
_DROPPED = ("oci://", "docker://")  # what other tools write before a name
_DIGESTS = tuple(f"{algorithm}{mark}" for algorithm in HEX_LENGTHS for mark in ":-")  # what begins as one


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """The name of a model: ``host/namespace/model:tag``. Immutable; equal without regard to case.

    An empty field was not given. ``namespace`` may have several parts on a host that is not Ollama's, and is ``None``
    where a name says that there is none (``localhost:5000/model``).

    Source: the ``names`` package of Ollama's public client, April 2025, with the extensions of ``tests/vectors``.

    >>> str(Name.parse("ghcr.io/org/team/model:v1"))
    'ghcr.io/org/team/model:v1'
    """

    host: str = ""
    namespace: str | None = ""
    model: str = ""
    tag: str = ""

    @classmethod
    def parse(cls, text: str) -> Name:
        """Return the name in a text, from right to left: an empty part counts as missing.

        Raises:
            InvalidNameError: it is none, whatever it is.
        """
        name = _split_name(text) if isinstance(text, str) and len(text) <= _LONGEST else None
        if name is None or not name._is_valid():
            raise InvalidNameError(f"invalid or missing name: {_quoted(text)}")
        return name

    @classmethod
    def from_path(cls, path: str) -> Name:
        """Return the name that a manifest is stored under; InvalidNameError: ``path`` (of a store) is no such one."""
        host, *namespace, model, tag = parts if len(parts := path.split("/")) >= 3 else ("", "", "")
        name = cls(host, "/".join(namespace) if namespace else None, model, tag)
        if not name.is_complete or not name._is_valid():
            raise InvalidNameError(f"invalid or missing name: {_quoted(path)}")
        return name

    def merge(self, mask: Name) -> Name:
        """Return this name with the fields that were not given taken from ``mask``."""
        namespace = mask.namespace if self.namespace == "" else self.namespace
        return Name(self.host or mask.host, namespace, self.model or mask.model, self.tag or mask.tag)

    @property
    def is_complete(self) -> bool:
        """Whether all fields are given."""
        return bool(self.host and self.namespace != "" and self.model and self.tag)

    @property
    def repository(self) -> str:
        """The repository on its host: ``namespace/model``."""
        return f"{self.namespace}/{self.model}" if self.namespace else self.model

    @property
    def path(self) -> str:
        """Where its manifest is in a store, relative to the manifests: ``host/namespace/model/tag``."""
        return f"{self.host}/{self.repository}/{self.tag}"

    def _is_valid(self) -> bool:
        host, namespace, model, tag = self.host, self.namespace, self.model, self.tag
        if host and not _is_host(host):
            return False
        if OLLAMA.repository.match(f"{namespace or '_'}/{model}") and (not tag or OLLAMA.tag.match(tag)):
            return True
        if not host or is_ollama_host(host):
            return False
        return WIDE.repository.match(self.repository) is not None and (not tag or WIDE.tag.match(tag) is not None)

    def __str__(self) -> str:
        parts = filter(None, (self.host, self.namespace, self.model))
        return "/".join(parts) + (f":{self.tag}" if self.tag else "")

    def _folded(self) -> tuple[str | None, ...]:
        return tuple(part and part.lower() for part in (self.host, self.namespace, self.model, self.tag))

    def __eq__(self, other: object) -> bool:
        return self._folded() == other._folded() if isinstance(other, Name) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._folded())


DEFAULT_MASK = Name("registry.ollama.ai", "library", "_", "latest")


def short(name: Name) -> str:
    """Return a name as Ollama and the command line show it: without what its own registry has for everybody.

    >>> short(Name("registry.ollama.ai", "library", "smollm", "135m"))
    'smollm:135m'
    """
    if name.host.lower() != DEFAULT_MASK.host:
        return str(name)
    is_library = (name.namespace or "").lower() == DEFAULT_MASK.namespace
    return f"{name.model}:{name.tag}" if is_library else f"{name.repository}:{name.tag}"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a user asks for: ``[scheme://]name[@digest]``. Immutable.

    ``scheme`` is ``https`` where none was given, and ``has_scheme`` tells that; so does ``has_tag`` of the tag. A
    reference by digest alone (``@sha256:...``) has an empty name.

    >>> str(Reference.parse("smollm:135m").name)
    'registry.ollama.ai/library/smollm:135m'
    """

    scheme: str
    name: Name
    digest: Digest | None = None
    has_scheme: bool = field(default=True, compare=False)
    has_tag: bool = field(default=True, compare=False)

    @classmethod
    def parse(cls, text: str, mask: Name = DEFAULT_MASK) -> Reference:
        """Return the reference in a text, its name completed by ``mask``; ``oci://`` before it is dropped.

        Raises:
            InvalidNameError: an unknown scheme, a user name, a digest that is none, a name that is none or incomplete.
        """
        if not isinstance(text, str):
            raise InvalidNameError(f"invalid or missing name: {_quoted(text)}")
        given = next((text[len(word) :] for word in _DROPPED if text.startswith(word)), text)
        scheme, separator, rest = given.partition("://")
        if not separator:
            scheme, rest = "", given
        if scheme and scheme not in _SCHEMES:
            raise InvalidNameError(
                f"unsupported scheme: {_quoted(scheme)}: supported schemes are {', '.join(_SCHEMES)}"
            )
        start = _behind_user(rest)
        if start and "/" in rest[start:].partition("@")[0]:
            shown = _quoted(rest[start:])
            raise InvalidNameError(
                f"a name has no user name or password: write {shown}, and pass auth=(user, password)"
            )
        named, _, pinned = rest.rpartition("@") if "@" in rest else (rest, "", "")
        digest = None
        if pinned:
            try:
                digest = Digest(pinned)
            except InvalidDigestError as error:
                raise InvalidNameError(f"invalid digest: {_quoted(pinned)}") from error
            if not digest.hex.strip("0"):
                raise InvalidNameError(f"invalid digest: {_quoted(pinned)}")
        if digest is not None and not named:
            return cls(scheme or "https", Name(), digest, bool(scheme), has_tag=False)
        written = Name.parse(named)
        name = written.merge(mask)
        if not name.is_complete or not name._is_valid():
            raise InvalidNameError(f"invalid or missing name: {_quoted(named)}")
        return cls(scheme or "https", name, digest, bool(scheme), bool(written.tag))

    @property
    def is_pinned(self) -> bool:
        """Whether it means a digest, and no tag: the tag of ``name`` is one that nobody has written."""
        return self.digest is not None and not self.has_tag

    def __str__(self) -> str:
        scheme, name = f"{self.scheme}://" if self.has_scheme else "", str(self.name)
        if self.is_pinned:  # or it would be another reference, which gives that tag a meaning
            name = name.removesuffix(f":{self.name.tag}")
        return f"{scheme}{name}{f'@{self.digest}' if self.digest else ''}"


def is_ollama_host(host: str) -> bool:
    """Tell whether a host, with or without a port, is one of Ollama's own."""
    bare = host.lower().partition(":")[0].rstrip(".")
    return any(bare == known or bare.endswith(f".{known}") for known in OLLAMA_HOSTS)


def _is_host(host: str) -> bool:
    if _HOST.match(host) is not None:
        return True
    match = _IPV6_HOST.match(host)
    try:
        return match is not None and bool(ipaddress.IPv6Address(match[1]))
    except ValueError:
        return False


def _split_name(text: str) -> Name:
    """Take a name apart from the right; of several tags the first one counts, as in the original."""
    before, _, last = text.rpartition("/")
    model, _, tags = last.partition(":")
    tag = tags.partition(":")[0]
    host, namespace = "", before
    if "/" in before:
        first, _, rest = before.partition("/")
        host, _, namespace = before.rpartition("/")
        if "/" in host and (first == "localhost" or "." in first or ":" in first):
            host, namespace = first, rest  # several parts, on what can only be a host
    elif _LOCAL_HOST.match(before) is not None:
        return Name(before, None, model, tag)
    return Name(host, namespace, model, tag)


def _behind_user(text: str) -> int:
    """Return where a text goes on behind its last ``@`` that is not a digest's: 0, where there is none."""
    end = len(text)
    while (at := text.rfind("@", 0, end)) >= 0:
        if not text.startswith(_DIGESTS, at + 1):
            return at + 1
        end = at
    return 0


def _quoted(text: object) -> str:
    """Return a text in double quotes on one line, as Go's ``%q`` writes it; what is too long is cut.

    What may be a password is left out.
    """
    shown = text if isinstance(text, str) else repr(text)
    start = _behind_user(shown)
    shown = (f"***@{shown[start:]}" if ":" in shown[:start] else shown)[:_LONGEST]
    return json.dumps(shown, ensure_ascii=not shown.isprintable())
