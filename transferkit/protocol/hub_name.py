"""Names of repositories on the Hugging Face hub: ``hf://org/model@revision``, and the paths that they have in its API.

Sources: huggingface_hub, "HF URIs" (``utils/_hf_uris.py``) and ``validate_repo_id``; git-check-ref-format(1). Knows
texts alone. A name of one part (``gpt2``) is from before there were organisations; the hub leads on to what it is
called now.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeGuard
from urllib.parse import quote, unquote

from transferkit.errors import InvalidNameError

SCHEME = "hf://"
_KINDS = ("models", "datasets", "spaces")
_LONGEST = 96  # characters of organisation and name together, as the hub has it
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"(?:{_PART}/)?{_PART}\Z", re.ASCII)
_REVISION = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]{1,255}\Z")
# The only revisions whose slashes need no %2F: requests to merge, and what the hub has converted by itself.
_SPECIAL = re.compile(r"refs/(?:pr/[0-9]{1,9}|convert/[A-Za-z0-9._-]{1,100})\Z", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z", re.ASCII)
"""The hash of a commit, of SHA-1 or SHA-256."""


def is_hub_name(text: object) -> TypeGuard[str]:
    """Tell whether a text means to be the name of a repository of the hub."""
    return isinstance(text, str) and text.startswith(SCHEME)


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository of the hub at a revision: a branch, a tag, a commit. Immutable.

    >>> str(HubName.parse("hf://openai-community/gpt2@refs/pr/7"))
    'hf://openai-community/gpt2@refs/pr/7'
    """

    kind: str
    """``models``, ``datasets`` or ``spaces``."""
    repository: str
    """``org/name``, or an old name of one part."""
    revision: str = "main"

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Return the name in a text such as ``hf://[datasets/]org/name[@revision]``.

        A slash in a revision is written ``%2F``, but for ``refs/pr/...`` and ``refs/convert/...``.

        Raises:
            InvalidNameError: it is none, or names a file in a repository.
        """
        if not is_hub_name(text):
            raise _refusal(text, "it begins with hf://")
        place, at, said = text[len(SCHEME) :].partition("@")
        kind, slash, rest = place.partition("/")
        if f"{kind}s" in _KINDS:
            raise _refusal(text, f"write {SCHEME}{kind}s/...")
        kind, repository = (kind, rest) if kind in _KINDS else ("models", place)
        if not slash and place in _KINDS:
            raise _refusal(text, "the name of the repository is missing")
        if repository.count("/") > 1:
            raise _refusal(text, "it names a repository; choose files of it with only=")
        if len(repository) > _LONGEST or _REPOSITORY.match(repository) is None:
            raise _refusal(text, f"a repository is org/name, of letters, digits and -_., at most {_LONGEST} of them")
        if "--" in repository or ".." in repository or repository.endswith(".git"):
            raise _refusal(text, "the hub has no name with -- or .. in it, or .git at its end")
        return cls(kind, repository, _revision(text, said) if at else "main")

    @property
    def page(self) -> str:
        """The path of the repository's page."""
        return f"/{self.repository}" if self.kind == "models" else f"/{self.kind}/{self.repository}"

    @property
    def info(self) -> str:
        """The path that says which commit the revision is."""
        return f"/api/{self.kind}/{self.repository}/revision/{quote(self.revision, safe='')}"

    def tree(self, commit: str) -> str:
        """Return the path of the list of a commit's files."""
        return f"/api/{self.kind}/{self.repository}/tree/{commit}?recursive=true&expand=false"

    def file(self, commit: str, path: str) -> str:
        """Return the path that a file of a commit is fetched from.

        Its slashes stay as they are: with ``%2F`` the hub counts the request as one for a page, of which it allows
        3 % as many (https://huggingface.co/docs/hub/rate-limits).
        """
        return f"{self.page}/resolve/{commit}/{quote(path)}"

    def __str__(self) -> str:
        kind = "" if self.kind == "models" else f"{self.kind}/"
        revision = self.revision if _SPECIAL.match(self.revision) else self.revision.replace("/", "%2F")
        return f"{SCHEME}{kind}{self.repository}@{revision}"


def _revision(text: str, said: str) -> str:
    """Return the revision that stands behind the @ of a name."""
    if "/" in said and _SPECIAL.match(said) is None:
        raise _refusal(text, "a slash in a revision is written %2F; files are chosen with only=")
    try:
        revision = unquote(said, errors="strict")
    except UnicodeDecodeError:
        raise _refusal(text, "behind the @ stands something that is no UTF-8") from None
    parts = revision.split("/")
    is_odd = ".." in revision or "@{" in revision or any(part[:1] in ("", ".") for part in parts)
    if is_odd or not revision.isprintable() or _REVISION.match(revision) is None:
        raise _refusal(text, "behind the @ stands no branch, tag or commit")
    return revision


def _refusal(text: object, why: str) -> InvalidNameError:
    return InvalidNameError(f"{str(text)[:200]!r} is no name on the hub, such as {SCHEME}org/name@revision: {why}")
