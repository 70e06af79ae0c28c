"""Tensors as arrays: each type, with and without what numpy does not have."""

from __future__ import annotations

import struct
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from transferkit.errors import InvalidModelError
from transferkit.registry import arrays

# The bits of 1.0 and of -2.0 in each format, by IEEE 754 and the OCP specification of 8-bit formats.
ONES = {
    "F64": (struct.pack("<2d", 1, -2), "float64"),
    "F32": (struct.pack("<2f", 1, -2), "float32"),
    "F16": (b"\x00\x3c\x00\xc0", "float16"),
    "BF16": (b"\x80\x3f\x00\xc0", "bfloat16"),
    "F8_E4M3": (b"\x38\xc0", "float8_e4m3fn"),
    "F8_E5M2": (b"\x3c\xc0", "float8_e5m2"),
    "I64": (struct.pack("<2q", 1, -2), "int64"),
    "I32": (struct.pack("<2i", 1, -2), "int32"),
    "I16": (struct.pack("<2h", 1, -2), "int16"),
    "I8": (b"\x01\xfe", "int8"),
    "C64": (struct.pack("<4f", 1, 0, -2, 0), "complex64"),
}
COUNTS = {
    "U64": (struct.pack("<2Q", 1, 2**64 - 2), "uint64", 2**64 - 2),
    "U32": (struct.pack("<2I", 1, 2**32 - 2), "uint32", 2**32 - 2),
    "U16": (struct.pack("<2H", 1, 2**16 - 2), "uint16", 2**16 - 2),
    "U8": (b"\x01\xfe", "uint8", 254),
}


def made(dtype: str, shape: tuple[int, ...], data: bytes):
    array, memory = arrays.allocate(dtype, shape, len(data))
    memory[:] = data
    return arrays.finish(dtype, array)


@pytest.mark.parametrize("dtype", ONES)
def test_numbers(dtype):
    data, expected = ONES[dtype]
    array = made(dtype, (2, 1), data)
    assert (expected, (2, 1), [1, -2]) == (array.dtype.name, array.shape, [complex(x).real for x in array.reshape(-1)])
    assert (True, True, True) == (array.flags.owndata, array.flags.writeable, array.flags.c_contiguous)


@pytest.mark.parametrize("dtype", COUNTS)
def test_counts(dtype):
    data, expected, last = COUNTS[dtype]
    array = made(dtype, (2,), data)
    assert (expected, [1, last]) == (array.dtype.name, array.tolist())


def test_scales():
    array = made("F8_E8M0", (2,), b"\x7f\x80")  # 2^0 and 2^1
    assert ("float8_e8m0fnu", [1.0, 2.0]) == (array.dtype.name, [float(x) for x in array])


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"])
def test_without_ml_dtypes_the_bits_come_as_numbers(dtype, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    data = b"\x80\x3f\x00\xc0"
    array = made(dtype, (len(data) // (2 if dtype == "BF16" else 1),), data)
    assert ([0x3F80, 0xC000] if dtype == "BF16" else [0x80, 0x3F, 0, 0xC0]) == array.tolist()
    assert data == array.tobytes()


def test_a_type_that_an_old_ml_dtypes_does_not_have_comes_as_numbers(monkeypatch):
    monkeypatch.delattr(ml_dtypes, "float8_e8m0fnu")
    assert np.uint8 == made("F8_E8M0", (2,), b"\x7f\x80").dtype


@pytest.mark.parametrize(("dtype", "shape"), [("F4", (4, 2)), ("F6_E2M3", (2, 4)), ("F6_E3M2", (2, 4))])
def test_elements_of_no_whole_bytes_are_bytes(dtype, shape):
    data = bytes(range(4 if dtype == "F4" else 6))
    array = made(dtype, shape, data)
    assert ((len(data),), np.uint8, data) == (array.shape, array.dtype, array.tobytes())


def test_whatever_is_not_0_is_true():
    array = made("BOOL", (4,), b"\x00\x01\x02\xff")
    assert ([False, True, True, True], b"\x00\x01\x01\x01") == (array.tolist(), array.tobytes())


@pytest.mark.parametrize(("shape", "size"), [((), 4), ((0,), 0), ((3, 0, 2), 0), ((1, 1, 1), 4)])
def test_shapes(shape, size):
    array = made("F32", shape, struct.pack("<f", 1.5)[:size])
    assert (shape, [1.5] if size else []) == (array.shape, array.reshape(-1).tolist())


@pytest.mark.parametrize(("dtype", "width"), [("F32", 4), ("BF16", 2), ("C64", 4), ("U8", 1), ("I64", 8)])
def test_a_big_endian_machine_gets_its_own_order(dtype, width, monkeypatch):
    monkeypatch.setattr(sys, "byteorder", "big")
    data = bytes(range(16))
    swapped = b"".join(data[at : at + width][::-1] for at in range(0, 16, width))
    kind = {"BF16": 2, "C64": 8}.get(dtype, width)
    assert swapped == made(dtype, (16 // kind,), data).tobytes()


@pytest.mark.parametrize("shape", [(1,) * 100, (2**62, 4)])
def test_what_numpy_cannot_hold_is_an_error_of_the_model(shape):
    with pytest.raises(InvalidModelError, match=r"^no array can have the shape "):
        arrays.allocate("U8", shape, 1)


def test_a_size_that_contradicts_is_refused():
    with pytest.raises(InvalidModelError, match=r"^a tensor F32\[2\] has 8 bytes, and its header says 7$"):
        arrays.allocate("F32", (2,), 7)


def test_without_numpy_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'transferkit\[tensors\]'") as caught:
        arrays.check_numpy()
    assert "numpy" == caught.value.name


def test_nobody_imports_numpy_before_tensors_are_opened():
    code = "import sys, transferkit.registry, transferkit.registry.opening; print('numpy' in sys.modules)"
    assert (
        "False"
        == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    )
