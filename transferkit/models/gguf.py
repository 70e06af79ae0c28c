"""The header of a GGUF file: its metadata, and where its tensors lie. Bounded: nothing in it makes this read on and on.

Source: ggml-org/ggml, docs/gguf.md (versions 2 and 3), and llama.cpp's reader (ggml/src/gguf.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import unpack

from transferkit.content.budget import Budget
from transferkit.errors import InvalidModelError
from transferkit.models.cursor import Cursor
from transferkit.models.ggml import type_name, type_size
from transferkit.models.values import ReadAt

MAX_HEADER = 64 * 1024 * 1024  # bytes; that of a model with a vocabulary of 256 Ki tokens has some 15 MiB
_MAX_PAIRS = 65_536  # llama.cpp writes fewer than a hundred
_MAX_TENSORS = 131_072  # large mixtures of experts have some thousands
_MAX_KEY = 65_535  # docs/gguf.md: a key is at most 2^16-1 bytes
_MAX_TEXT = 4 * 1024 * 1024  # bytes of a value that is kept; chat templates have some kilobytes
_MAX_NAME = 1024  # bytes of a tensor's name; ggml itself stops at 64
_MAX_DIMENSIONS = 8  # ggml: 4
_MAX_DEPTH = 4  # arrays in arrays; none are known to be written
_MAX_KEPT = 64  # elements of an array that is kept; vocabularies are only counted
_MAX_WEIGHT = 16 * 1024 * 1024  # bytes of all that is kept, names and numbers included; most have some kilobytes
_VALUE = 32  # bytes that each of them counts for, besides those of a text
_LARGEST = 2**63 - 1

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_BOOL, _TEXT, _ARRAY = 7, 8, 9


@dataclass(frozen=True, slots=True)
class LongArray:
    """An array of the metadata that was counted and not kept, such as the tokens of a vocabulary."""

    count: int


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """One tensor: ggml's name of its type, its shape as the file has it (fastest axis first), where it begins."""

    name: str
    type: str
    shape: tuple[int, ...]
    start: int
    elements: int


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What a GGUF file says about itself; ``metadata`` has texts, numbers, tuples and :class:`LongArray`."""

    version: int
    metadata: dict[str, object]
    tensors: tuple[GGUFTensor, ...]
    data_start: int
    """Where the header ends and the bytes of the tensors begin."""


def read_header(read: ReadAt, size: int, tensors: Budget | None = None) -> GGUFHeader:
    """Return the header of a file of ``size`` bytes.

    ``tensors`` is how many tensors it and others may have together.

    Raises:
        InvalidModelError: the file is no GGUF file of version 2 or 3, is big-endian, or its header contradicts itself
            or the file's size.
    """
    cursor = Cursor(read, size, limit=MAX_HEADER)
    if (magic := cursor.take(4)) != b"GGUF":
        raise InvalidModelError(f"the file is no GGUF file: it begins with {magic!r}")
    version = cursor.u32()
    if version & 0xFFFF == 0:
        raise InvalidModelError("the GGUF file is big-endian, which is not read here")
    if version not in (2, 3):
        raise InvalidModelError(f"the GGUF file has version {version}; versions 2 and 3 are read")
    count, pairs = cursor.u64(), cursor.u64()
    if count > _MAX_TENSORS or pairs > _MAX_PAIRS:
        raise InvalidModelError(f"the GGUF header claims {count} tensors and {pairs} pairs of metadata; that is absurd")
    if tensors is not None and not tensors.take(count):
        raise InvalidModelError(f"the headers have more than {tensors.most} tensors together")
    kept = Budget(_MAX_WEIGHT)
    metadata: dict[str, object] = {}
    for _ in range(pairs):
        key = _text(cursor, kept, _MAX_KEY, "a key")
        if key in metadata:
            raise InvalidModelError(f"the GGUF header has {key[:100]!r} twice")
        metadata[key] = _value(cursor, kept, cursor.u32(), 0)
    described = [_tensor(cursor, kept) for _ in range(count)]
    alignment = metadata.get("general.alignment", 32)  # docs/gguf.md: the default
    if type(alignment) is not int or not 0 < alignment <= MAX_HEADER or alignment & (alignment - 1):
        raise InvalidModelError("general.alignment of the GGUF header is no power of two")
    begin = -(-cursor.offset // alignment) * alignment
    placed = tuple(_placed(tensor, begin, alignment, size) for tensor in described)
    if len({tensor.name for tensor in placed}) != len(placed):
        raise InvalidModelError("two tensors of the GGUF header have one name")
    return GGUFHeader(version, metadata, placed, begin)


def _text(cursor: Cursor, kept: Budget, longest: int, what: str) -> str:
    length = cursor.u64()
    if length > longest:
        raise InvalidModelError(f"{what} of the GGUF header has {length} bytes; {longest} are read at most")
    _keep(kept, length)
    try:
        return cursor.take(length).decode()
    except UnicodeDecodeError as error:
        raise InvalidModelError(f"{what} of the GGUF header is not UTF-8") from error


def _keep(kept: Budget, length: int) -> None:
    if not kept.take(_VALUE + length):
        raise InvalidModelError("the GGUF header has more metadata and names than are read")


def _value(cursor: Cursor, kept: Budget, kind: int, depth: int) -> object:
    """Return one value of the metadata, of the type that GGUF numbers ``kind``."""
    if kind in _SCALARS:
        _keep(kept, 0)
        value = unpack("<" + _SCALARS[kind], cursor.take(_WIDTHS[kind]))[0]
        return bool(value) if kind == _BOOL else value
    if kind == _TEXT:
        return _text(cursor, kept, _MAX_TEXT, "a text")
    if kind == _ARRAY:
        return _array(cursor, kept, depth + 1)
    raise InvalidModelError(f"the GGUF header has a value of type {kind}, which there is not")


def _array(cursor: Cursor, kept: Budget, depth: int) -> object:
    if depth > _MAX_DEPTH:
        raise InvalidModelError(f"the GGUF header has arrays nested more than {_MAX_DEPTH} deep")
    _keep(kept, 0)
    kind, count = cursor.u32(), cursor.u64()
    # The least that an element takes: that many have to fit, before any of them is looked at.
    least = _WIDTHS.get(kind, 8 if kind == _TEXT else 12)
    if count * least > cursor.limit - cursor.offset:
        raise InvalidModelError(f"the GGUF header has an array of {count} elements, more than there are bytes")
    if kind != _ARRAY and count > _MAX_KEPT:
        if kind == _TEXT:
            cursor.skip_sized(count)
        elif kind in _WIDTHS:
            cursor.skip(count * least)
        else:
            raise InvalidModelError(f"the GGUF header has an array of type {kind}, which there is not")
        return LongArray(count)
    return tuple(_value(cursor, kept, kind, depth) for _ in range(count))


def _tensor(cursor: Cursor, kept: Budget) -> tuple[str, int, tuple[int, ...], int]:
    """Return name, type, shape and offset of a tensor, as the header has them."""
    name = _text(cursor, kept, _MAX_NAME, "a tensor's name")
    dimensions = cursor.u32()
    if dimensions > _MAX_DIMENSIONS:
        raise InvalidModelError(f"the tensor {name[:100]!r} has {dimensions} dimensions")
    shape = tuple(cursor.u64() for _ in range(dimensions))
    return name, cursor.u32(), shape, cursor.u64()


def _placed(described: tuple[str, int, tuple[int, ...], int], begin: int, alignment: int, size: int) -> GGUFTensor:
    """Return a tensor with its place in the file, or refuse one that has none."""
    name, kind, shape, offset = described
    what = f"the tensor {name[:100]!r}"
    elements = 1
    for count in shape:
        elements *= count
        if elements > _LARGEST:
            raise InvalidModelError(f"{what} is larger than any file")
    if offset % alignment:
        raise InvalidModelError(f"{what} does not begin at a multiple of {alignment} bytes")
    # Of a type that is newer than this table only the beginning can be checked.
    taken = type_size(kind, shape)
    if taken is None:
        raise InvalidModelError(f"{what} has rows that are no whole number of blocks of {type_name(kind)}")
    if begin + offset + taken > size:
        raise InvalidModelError(f"{what} ends at {begin + offset + taken}, behind the end of the file at {size}")
    return GGUFTensor(name, type_name(kind), shape, begin + offset, elements)
