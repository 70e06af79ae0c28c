"""Headers of safetensors files: those of the library's own tests, each fault it names, and fuzz."""

from __future__ import annotations

import json
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.models.build import reader, safetensors_file, tensor
from transferkit.content.budget import Budget
from transferkit.errors import InvalidModelError
from transferkit.models.safetensors import BITS, Header, TensorInfo, read_header

# safetensors/src/tensor.rs, test_serialization and test_empty, byte for byte.
ATTENTION = (
    b'@\x00\x00\x00\x00\x00\x00\x00{"attn.0":{"dtype":"F32","shape":[1,2,3],"data_offsets":[0,24]}}'
    b"\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@\x00\x00@@\x00\x00\x80@\x00\x00\xa0@"
)
EMPTY = b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "
FRAMEWORK = b'(\x00\x00\x00\x00\x00\x00\x00{"__metadata__":{"framework":"pt"}}     '


def test_files_that_the_library_writes() -> None:
    attention = TensorInfo("attn.0", "F32", (1, 2, 3), 72, 96)

    assert Header({"attn.0": attention}, {}, 72) == read_header(*reader(ATTENTION))
    assert Header({}, {}, 16) == read_header(*reader(EMPTY))
    assert Header({}, {"framework": "pt"}, 48) == read_header(*reader(FRAMEWORK))


def test_tensors_come_in_the_order_of_their_bytes() -> None:
    described = {"b": tensor("U8", [2], 3, 5), "none": tensor("F64", [0], 3, 3), "a": tensor("I8", [3], 0, 3)}
    header = read_header(*reader(safetensors_file(described, b"12345")))

    assert ["a", "none", "b"] == list(header.tensors)
    assert [3, 0, 2] == [found.elements for found in header.tensors.values()]


def test_a_tensor_without_axes_is_one_number() -> None:
    header = read_header(*reader(safetensors_file({"scale": tensor("F32", [], 0, 4)}, b"1234")))

    assert (1, ()) == (header.tensors["scale"].elements, header.tensors["scale"].shape)


@pytest.mark.parametrize(
    ("bits", "dtypes"),
    [
        (4, "F4"),
        (6, "F6_E2M3 F6_E3M2"),
        (8, "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ"),
        (16, "I16 U16 F16 BF16"),
        (32, "I32 U32 F32"),
        (64, "I64 U64 F64 C64"),
    ],
)
def test_every_dtype_of_the_library(bits: int, dtypes: str) -> None:
    for dtype in dtypes.split():
        header = read_header(*reader(safetensors_file({"t": tensor(dtype, [2, 4], 0, bits)}, bytes(bits))))
        assert dtype == header.tensors["t"].dtype


def test_no_other_dtype_is_known() -> None:
    assert 22 == len(BITS)


def test_two_reads_are_made_and_none_of_the_data() -> None:
    reads: list[tuple[int, int]] = []

    def read(offset: int, count: int) -> bytes:
        reads.append((offset, count))
        return ATTENTION[offset : offset + count]

    read_header(read, len(ATTENTION))

    assert [(0, 8), (8, 64)] == reads


HUGE = 2**63
FAULTS: list[tuple[str, bytes]] = [
    ("8 bytes at least", b"1234567"),
    ("100000000 are read at most", (100_000_001).to_bytes(8, "little") + b"{}"),
    ("and the whole file 10", (3).to_bytes(8, "little") + b"{}"),
    ("does not begin with '{'", safetensors_file(b" {}")),
    ("does not begin with '{'", safetensors_file(b"[]")),
    ("does not begin with '{'", safetensors_file(b"")),
    ("not JSON: JSONDecodeError", safetensors_file(b"{} {}")),
    ("not JSON: UnicodeDecodeError", safetensors_file(b'{"\xff": {}}')),
    ("not JSON: RecursionError", safetensors_file(b'{"a":' + 100_000 * b"[")),
    ("not JSON: ValueError", safetensors_file(b'{"a":' + 5000 * b"1" + b"}")),
    ("NaN, which is not JSON", safetensors_file(b'{"a": NaN}')),
    ("has 'a' twice", safetensors_file(b'{"a": 1, "a": 2}')),
    (
        "has 'dtype' twice",
        safetensors_file(b'{"a": {"dtype": "U8", "dtype": "I8", "shape": [], "data_offsets": [0, 1]}}', b"1"),
    ),
    ("no map of texts", safetensors_file({"__metadata__": {"a": 1}})),
    ("no map of texts", safetensors_file({"__metadata__": []})),
    ("no JSON object", safetensors_file({"a": 1})),
    ("dtype that is not known: 'F7'", safetensors_file({"a": tensor("F7", [1], 0, 1)}, b"1")),
    ("dtype that is not known: 'None'", safetensors_file({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"1")),
    ("has no shape", safetensors_file({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, b"1")),
    ("has no shape", safetensors_file({"a": tensor("U8", [-1], 0, 1)}, b"1")),
    ("has no shape", safetensors_file({"a": {"dtype": "U8", "shape": [1.0], "data_offsets": [0, 1]}}, b"1")),
    ("has no shape", safetensors_file({"a": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, b"1")),
    ("has no data_offsets", safetensors_file({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}, b"1")),
    ("has no data_offsets", safetensors_file({"a": tensor("U8", [1], 1, 0)}, b"1")),
    ("larger than any file", safetensors_file({"a": tensor("U8", [HUGE, 4, 0], 0, 0)})),
    ("larger than any file", safetensors_file({"a": tensor("F64", [HUGE], 0, 0)})),
    ("whole byte: 3 elements of F4", safetensors_file({"a": tensor("F4", [3], 0, 1)}, b"1")),
    ("takes 2 bytes by its dtype and shape, and 1 by", safetensors_file({"a": tensor("F16", [1], 0, 1)}, b"1")),
    ("leaves a hole", safetensors_file({"a": tensor("U8", [1], 1, 2)}, b"12")),
    ("overlaps", safetensors_file({"a": tensor("U8", [2], 0, 2), "b": tensor("I8", [2], 1, 3)}, b"123")),
    ("overlaps", safetensors_file({"a": tensor("U8", [2], 0, 2), "b": tensor("I8", [2], 0, 2)}, b"12")),
    ("the tensors end at", safetensors_file({"a": tensor("U8", [1], 0, 1)}, b"12")),
    ("the tensors end at", safetensors_file({"a": tensor("U8", [3], 0, 3)}, b"12")),
    ("the tensors end at", safetensors_file({}, b"1")),
]


@pytest.mark.parametrize(("reason", "content"), FAULTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_fault_is_refused_with_its_reason(reason: str, content: bytes) -> None:
    with pytest.raises(InvalidModelError, match=reason.replace("[", r"\[")):
        read_header(*reader(content))


def test_a_file_that_ends_before_its_size() -> None:
    read, _ = reader(ATTENTION[:40])

    with pytest.raises(InvalidModelError, match="the file ends at 40"):
        read_header(read, len(ATTENTION))


def test_a_key_that_comes_twice_among_many_is_found_at_once() -> None:
    many = b"{" + b",".join(b'"%d":0' % (number % 99_999) for number in range(100_000)) + b"}"

    with pytest.raises(InvalidModelError, match="has '0' twice"):
        read_header(*reader(safetensors_file(many)))


counts = st.integers(-1, 5) | st.sampled_from([HUGE, 2**64, True, 1.5, None])
infos = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from([*BITS, "F7", None]),
        "shape": st.lists(counts, max_size=3),
        "data_offsets": st.lists(counts, max_size=3),
        "more": st.none(),
    },
)
documents = st.dictionaries(st.text(max_size=5) | st.just("__metadata__"), infos | st.none() | st.text(), max_size=4)


def check(content: bytes) -> None:
    """Read a header; what is no error is consistent."""
    try:
        header = read_header(*reader(content))
    except InvalidModelError:
        return
    end = header.data_start
    for found in header.tensors.values():
        assert end == found.start
        end = found.end
    assert len(content) == end


@given(st.binary(max_size=60), st.integers(0, 60))
@settings(max_examples=150)
def test_any_bytes_are_a_header_or_the_documented_error(raw: bytes, length: int) -> None:
    check(raw)
    check(length.to_bytes(8, "little") + b"{" + raw)


@given(documents, st.binary(max_size=12))
@settings(max_examples=200)
def test_any_document_is_a_header_or_the_documented_error(document: dict[str, Any], data: bytes) -> None:
    check(safetensors_file(document, data))


@given(st.integers(0, len(ATTENTION) - 1), st.integers(0, 255))
@settings(max_examples=200)
def test_a_header_with_one_byte_changed(place: int, byte: int) -> None:
    check(ATTENTION[:place] + bytes([byte]) + ATTENTION[place + 1 :])
    check(json.dumps({"a": byte}).encode())


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":[' + b"[]," * 500_001 + b"1]}",
        b'{"a":[' + b"{}," * 100_001 + b"1]}",
        b'{"__metadata__":{' + b",".join(b'"%x":""' % number for number in range(1_000_001)) + b"}}",
        b'{"a":{"dtype":"U8","data_offsets":[0,1],"shape":[' + b"1," * 1_000_000 + b"1]}}",
    ],
    ids=["lists", "objects", "pairs", "numbers"],
)
def test_a_header_that_would_become_too_much_is_not_parsed(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transferkit.models.safetensors.json", None)
    with pytest.raises(InvalidModelError, match="more than 100000 tensors, or 1000000 values"):
        read_header(*reader(safetensors_file(raw, b"1")))


def test_a_header_longer_than_is_read_is_refused_before_it_is_fetched() -> None:
    def read(offset: int, count: int) -> bytes:
        assert count == 8
        return pack("<Q", 100_000_001)

    with pytest.raises(InvalidModelError, match="100000001 bytes; 100000000 are read at most"):
        read_header(read, 2**40)


@pytest.mark.parametrize("wide", ["\U0001f600".encode(), b"\\ud83d\\ude00", b""])
def test_a_long_header_is_read_where_it_is_ascii(wide: bytes) -> None:
    """With one wide character, each of the others would take four bytes."""
    file = safetensors_file(b'{"__metadata__":{"a":"' + wide + 25_000_000 * b"x" + b'"}}')
    if not wide:
        assert 25_000_000 == len(read_header(*reader(file)).metadata["a"])
        return
    with pytest.raises(InvalidModelError, match="not all ASCII; 25000000 of such are read at most"):
        read_header(*reader(file))


def test_tensors_of_several_files_are_counted_together() -> None:
    file, tensors = safetensors_file({"a": tensor("U8", [0], 0, 0), "b": tensor("U8", [0], 0, 0)}), Budget(5)
    assert 2 == len(read_header(*reader(file), tensors).tensors)
    read_header(*reader(file), tensors)
    with pytest.raises(InvalidModelError, match="more than 5 tensors together"):
        read_header(*reader(file), tensors)
