"""The header of a safetensors file, read and checked as the format's own library checks it.

Source: huggingface/safetensors 0.6 to 0.8, safetensors/src/tensor.rs. Stricter in two things that its documentation
asks for and its code lets pass: the header begins with ``{``, and no key comes twice. Stricter as well in what a header
may be: 100 MB, which the format allows, could become gigabytes of Python objects.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, TypeGuard

from transferkit.content.budget import Budget, values_in
from transferkit.errors import InvalidModelError
from transferkit.models.values import ReadAt

MAX_HEADER = 100_000_000  # bytes; the library's MAX_HEADER_SIZE; a file of 1000 tensors has some 100 kB
_MAX_WIDE = 25_000_000  # bytes of one that is not ASCII: Python takes four times as much for each text with an emoji
MAX_TENSORS = 100_000  # of a file; models of 1T parameters have twice as many, in some 60 files
_MAX_VALUES = 1_000_000  # of the header's JSON: a tensor has 8 of them, and one more with each dimension
_PREFIX = 8  # the length of the header: a little-endian 64-bit number in front of it
_MAX_U64 = 2**64 - 1  # the library counts elements and bits in 64 bits

BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""How many bits an element of each dtype has."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: where its bytes lie in the file, from ``start`` up to ``end`` (exclusive), and what they are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors of a file, by name and in the order of their bytes, and its ``__metadata__``."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    """Where the header ends and the bytes of the tensors begin."""


def read_header(read: ReadAt, size: int, tensors: Budget | None = None) -> Header:
    """Return the header of a file of ``size`` bytes; two reads, of 8 bytes and of the header.

    ``tensors`` is how many tensors it and others may have together.

    Raises:
        InvalidModelError: the file is no safetensors file, or its header contradicts itself or the file's size.
    """
    if size < _PREFIX:
        raise InvalidModelError(f"a safetensors file has 8 bytes at least, this one has {size}")
    length = int.from_bytes(_exactly(read, 0, _PREFIX), "little")
    if length > MAX_HEADER:
        raise InvalidModelError(f"the header has {length} bytes; {MAX_HEADER} are read at most")
    if length > size - _PREFIX:
        raise InvalidModelError(f"the header has {length} bytes, and the whole file {size}")
    document = _parse(_weighed(_exactly(read, _PREFIX, length), tensors))
    metadata = _metadata(document.pop("__metadata__", None))
    begin = _PREFIX + length
    described = sorted(
        (_tensor(name, value, begin) for name, value in document.items()), key=lambda tensor: (tensor.start, tensor.end)
    )
    end = begin
    for tensor in described:
        if tensor.start != end:
            fault = "overlaps the one before it" if tensor.start < end else "leaves a hole before it"
            raise InvalidModelError(f"the tensor {tensor.name[:100]!r} {fault}")
        end = tensor.end
    if end != size:
        raise InvalidModelError(f"the tensors end at {end}, and the file at {size}")
    return Header({tensor.name: tensor for tensor in described}, metadata, begin)


def _exactly(read: ReadAt, offset: int, count: int) -> bytes:
    data = read(offset, count)
    if len(data) != count:
        raise InvalidModelError(f"the file ends at {offset + len(data)}, within its header")
    return data


def _weighed(raw: bytes, tensors: Budget | None) -> bytes:
    """Return a header, unless it is too much to be parsed."""
    if len(raw) > _MAX_WIDE and not (raw.isascii() and b"\\u" not in raw):
        raise InvalidModelError(f"the header has {len(raw)} bytes, not all ASCII; {_MAX_WIDE} of such are read at most")
    count = max(raw.count(b"{") - 1, 0)  # each tensor is an object
    if count > MAX_TENSORS or values_in(raw) > _MAX_VALUES:
        raise InvalidModelError(f"the header has more than {MAX_TENSORS} tensors, or {_MAX_VALUES} values")
    if tensors is not None and not tensors.take(count):
        raise InvalidModelError(f"the headers have more than {tensors.most} tensors together")
    return raw


def _parse(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise InvalidModelError("the header is no JSON object: it does not begin with '{'")
    try:
        document: dict[str, Any] = json.loads(raw.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except InvalidModelError:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"the header is not JSON: {type(error).__name__}") from error
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise InvalidModelError(f"the header has {twice[:100]!r} twice")
    return found


def _no_constant(name: str) -> Any:
    raise InvalidModelError(f"the header has {name}, which is not JSON")


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InvalidModelError("the header's __metadata__ is no map of texts")
    return value


def _tensor(name: str, value: Any, begin: int) -> TensorInfo:
    """Return a tensor as the header describes it, with offsets in the file; its data begin at ``begin``."""
    what = f"the tensor {name[:100]!r}"
    if not isinstance(value, dict):
        raise InvalidModelError(f"{what} is described by no JSON object")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise InvalidModelError(f"{what} has a dtype that is not known: {str(dtype)[:40]!r}")
    if not _are_counts(shape):
        raise InvalidModelError(f"{what} has no shape")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise InvalidModelError(f"{what} has no data_offsets, a begin and an end")
    elements = 1
    for count in shape:
        elements *= count
        if elements > _MAX_U64:
            break  # the library refuses it even if a later 0 makes it empty
    bits = elements * BITS[dtype]
    if bits > _MAX_U64:
        raise InvalidModelError(f"{what} is larger than any file")
    if bits % 8:
        raise InvalidModelError(f"{what} does not end at a whole byte: {elements} elements of {dtype}")
    if bits // 8 != offsets[1] - offsets[0]:
        raise InvalidModelError(
            f"{what} takes {bits // 8} bytes by its dtype and shape, and {offsets[1] - offsets[0]} by its offsets"
        )
    return TensorInfo(name, dtype, tuple(shape), begin + offsets[0], begin + offsets[1])


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(count) is int and 0 <= count <= _MAX_U64 for count in value)
