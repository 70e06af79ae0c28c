"""Tensors as numpy arrays: the only module that imports numpy, once it is asked for an array.

An array owns its memory, may be written to, and is in C order and in the byte order of this machine; files are little
endian. Source of the names: the safetensors library, ``Dtype`` in ``tensor.rs``, 0.7.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

from transferkit.errors import InvalidModelError
from transferkit.forks import importing

if TYPE_CHECKING:
    import numpy

    Array: TypeAlias = "numpy.ndarray[Any, Any]"

_KINDS = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "u2",
    "I16": "i2",
    "F16": "f2",
    "U32": "u4",
    "I32": "i4",
    "F32": "f4",
    "U64": "u8",
    "I64": "i8",
    "F64": "f8",
    "C64": "c8",
}
# numpy has no such types. ``ml_dtypes`` has them, by these names; without it the bits come as numbers of their size.
_FOREIGN = {
    "BF16": ("bfloat16", "u2"),
    "F8_E4M3": ("float8_e4m3fn", "u1"),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", "u1"),
    "F8_E5M2": ("float8_e5m2", "u1"),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", "u1"),
    "F8_E8M0": ("float8_e8m0fnu", "u1"),
}


def check_numpy() -> None:
    """Raise ModuleNotFoundError, which says what to install, where there is no numpy."""
    _numpy()


def _numpy() -> Any:
    try:
        with importing:
            import numpy
    except ImportError as error:
        text = "tensors are numpy arrays, and numpy is not installed: pip install 'transferkit[tensors]'"
        raise ModuleNotFoundError(text, name="numpy") from error
    return numpy


def _kind_of(dtype: str) -> Any:
    """Return the type of an array's elements; ``None``: there is none, and its bytes are all there is."""
    np = _numpy()
    if dtype in _KINDS:
        return np.dtype(_KINDS[dtype])
    if dtype not in _FOREIGN:
        return None
    name, plain = _FOREIGN[dtype]
    try:
        with importing:
            import ml_dtypes
        return np.dtype(getattr(ml_dtypes, name))
    except (ImportError, AttributeError):
        return np.dtype(plain)


def allocate(dtype: str, shape: tuple[int, ...], size: int) -> tuple[Array, memoryview]:
    """Return a new array for a tensor of ``size`` bytes, and its memory, which is to be filled.

    A type with elements of no whole bytes (``F4``, ``F6_E2M3``) is an array of bytes, in one row.
    """
    np, kind = _numpy(), _kind_of(dtype)
    try:
        array = np.empty((size,), np.uint8) if kind is None else np.empty(shape, kind)
    except ValueError as error:
        raise InvalidModelError(
            f"no array can have the shape {list(shape)[:8]} of {len(shape)} axes: {error}"
        ) from error
    if array.nbytes != size:
        raise InvalidModelError(f"a tensor {dtype}{list(shape)} has {array.nbytes} bytes, and its header says {size}")
    return array, memoryview(array.reshape(-1).view(np.uint8))


def finish(dtype: str, array: Array) -> Array:
    """Return an array whose memory was filled from a file, as this machine wants its bytes."""
    np = _numpy()
    if dtype == "BOOL":  # whatever is not 0 is true: numpy itself expects 0 and 1
        raw = array.reshape(-1).view(np.uint8)
        np.not_equal(raw, 0, out=raw.view(np.bool_))
    width = 4 if dtype == "C64" else array.itemsize
    if sys.byteorder == "big" and width > 1:
        array.reshape(-1).view(f"u{width}").byteswap(inplace=True)
    return array
