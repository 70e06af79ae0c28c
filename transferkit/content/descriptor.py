"""Descriptors: what a piece of content is, without the content."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from transferkit.content.digest import Digest
from transferkit.errors import InvalidDescriptorError

MAX_SIZE = 2**63 - 1  # OCI image specification v1.1: size is an int64
OCTET_STREAM = "application/octet-stream"


def _check(described: Descriptor | Blob) -> None:
    """Refuse a digest that is none, and a size that no file can have; keep the digest as a :class:`Digest`."""
    digest, size = described.digest, described.size
    if type(digest) is not Digest:
        object.__setattr__(described, "digest", Digest(digest))
    if type(size) is int and 0 <= size <= MAX_SIZE:
        return
    what = f"the size of {Digest(digest).short} is"
    if type(size) is not int:
        raise InvalidDescriptorError(f"{what} a number of bytes (int), not {type(size).__name__}")
    raise InvalidDescriptorError(f"{what} {size}; it should be between 0 and 2^63-1 bytes")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Digest and size of one piece of content, and what it is.

    ``digest`` may be given as a plain ``str``; it is checked and kept as a :class:`Digest`. ``size`` is in bytes.

    Raises:
        InvalidDigestError, InvalidDescriptorError: the digest or the size is none.

    Source: OCI image specification v1.1, descriptor.md.
    """

    digest: Digest
    size: int
    media_type: str = field(default=OCTET_STREAM, kw_only=True)
    annotations: tuple[tuple[str, str], ...] = field(default=(), kw_only=True, compare=False, repr=False)
    """Pairs as a manifest has them, sorted; a tuple because a descriptor is hashable."""
    source: str | None = field(default=None, kw_only=True, compare=False)
    """A repository of the same registry that has the content already: an upload may mount it from there."""
    artifact_type: str | None = field(default=None, kw_only=True, compare=False)
    """What kind of artifact a manifest in a list is."""
    platform: str | None = field(default=None, kw_only=True, compare=False)
    """What a manifest in an index is for, as os/architecture[/variant], such as ``linux/arm64/v8``."""
    urls: tuple[str, ...] = field(default=(), kw_only=True, compare=False, repr=False)
    """Where else the content is, as a manifest says of a foreign layer; asked only where the user wants that."""

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob as a user names it: digest, size in bytes and, for uploads, a repository to mount it from.

    Raises:
        InvalidDigestError, InvalidDescriptorError: the digest or the size is none.
    """

    digest: str
    size: int
    source: str | None = None

    def __post_init__(self) -> None:
        _check(self)


class HasBlobs:
    """What names blobs, as a manifest does; a call that takes some takes all of its ``blobs``."""


AnyBlob: TypeAlias = "Blob | Descriptor"


def described(blob: AnyBlob) -> Descriptor:
    """Return the descriptor of a blob."""
    if isinstance(blob, Descriptor):
        return blob
    return Descriptor(blob.digest, blob.size, source=blob.source)  # type: ignore[arg-type]  # it is a Digest


def unique(blobs: Iterable[AnyBlob]) -> list[Descriptor]:
    """Return one descriptor for each digest, in the order of first appearance; as ``distinct`` raises."""
    return list(map(described, distinct(blobs)))


def distinct(blobs: Iterable[AnyBlob]) -> list[AnyBlob]:
    """Return the first of the blobs with each digest, in their order: without an object more for any of them.

    Raises:
        TypeError: something is neither a blob nor a descriptor.
        InvalidDescriptorError: the same digest is listed with two sizes; one of them is wrong.
    """
    seen: dict[str, AnyBlob] = {}
    for blob in blobs:
        if not isinstance(blob, (Blob, Descriptor)):
            raise TypeError(
                f"blobs are Blob or Descriptor objects, such as Blob(digest, size), not {type(blob).__name__}"
            )
        first = seen.setdefault(blob.digest, blob)
        if first is not blob and first.size != blob.size:
            raise InvalidDescriptorError(
                f"{first.digest[:19]} is listed twice, with {first.size} and with {blob.size} bytes"
            )
    return list(seen.values())
