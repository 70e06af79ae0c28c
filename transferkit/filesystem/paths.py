"""The grammar of paths: ``host/namespace/name:tag/path/in/artifact``. Knows texts alone.

The first part is always a host, so a short name (``smollm:135m``) is none; the name ends with the first part behind it
that has a tag or a digest.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Path:
    """A path, taken apart.

    >>> Path.parse("localhost:5000/team/model:v1/unet/config.json")
    Path(name='localhost:5000/team/model:v1', has_version=True, inside='unet/config.json')
    >>> Path.parse("localhost:5000/team/model")
    Path(name='localhost:5000/team/model', has_version=False, inside='')
    """

    name: str
    """The name of the artifact; without a version, what may be a repository."""
    has_version: bool
    """Whether the name has a tag or a digest: else nothing can be inside."""
    inside: str
    """The path in the artifact; "" is its own folder."""

    @classmethod
    def parse(cls, path: str) -> Path:
        """Take a path without ``oci://`` apart."""
        parts = path.strip("/").split("/")
        for number, part in enumerate(parts[1:], 1):
            if ":" in part or "@" in part:
                return cls("/".join(parts[: number + 1]), True, "/".join(parts[number + 1 :]))
        return cls("/".join(parts), False, "")


def folders_of(paths: list[str]) -> dict[str, set[str]]:
    """Return the names of what lies in each folder, by the folder's path; "" is the topmost.

    >>> sorted(folders_of(["a/b", "c"])[""])
    ['a', 'c']
    """
    found: dict[str, set[str]] = {"": set()}
    for path in paths:
        while path:
            folder, _, name = path.rpartition("/")
            names = found.setdefault(folder, set())
            if name in names:
                break
            names.add(name)
            path = folder
    return found
