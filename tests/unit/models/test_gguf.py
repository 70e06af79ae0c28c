"""Headers of GGUF files: versions, values, bounds, and fuzz."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.models.build import gguf_file, pair, reader, text
from transferkit.content.budget import Budget
from transferkit.errors import InvalidModelError
from transferkit.models.gguf import GGUFTensor, LongArray, read_header

ARCHITECTURE = pair("general.architecture", 8, text("llama"))
SMALL = gguf_file(
    [ARCHITECTURE, pair("general.file_type", 4, pack("<I", 15))],
    [("token_embd.weight", [256, 3], 12, 0), ("norm", [8], 0, 448)],
    bytes(480),
)


def strings(count: int) -> bytes:
    return pack("<IQ", 8, count) + b"".join(text(f"token {number}") for number in range(count))


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_and_tensors(version: int) -> None:
    header = read_header(*reader(SMALL[:4] + pack("<I", version) + SMALL[8:]))

    assert (version, {"general.architecture": "llama", "general.file_type": 15}) == (header.version, header.metadata)
    assert len(SMALL) - 480 == header.data_start
    assert (
        GGUFTensor("token_embd.weight", "Q4_K", (256, 3), header.data_start, 768),
        GGUFTensor("norm", "F32", (8,), header.data_start + 448, 8),
    ) == header.tensors


def test_values_of_every_type() -> None:
    values = [
        pair("u8", 0, b"\xff"),
        pair("i8", 1, b"\xff"),
        pair("u16", 2, pack("<H", 65535)),
        pair("i16", 3, pack("<h", -2)),
        pair("u32", 4, pack("<I", 4)),
        pair("i32", 5, pack("<i", -5)),
        pair("f32", 6, pack("<f", 0.5)),
        pair("bool", 7, b"\x01"),
        pair("text", 8, text("é")),
        pair("array", 9, pack("<IQ", 5, 2) + pack("<ii", 1, -1)),
        pair("arrays", 9, pack("<IQ", 9, 1) + pack("<IQ", 0, 2) + b"\x01\x02"),
        pair("u64", 10, pack("<Q", 2**64 - 1)),
        pair("i64", 11, pack("<q", -(2**63))),
        pair("f64", 12, pack("<d", 0.25)),
    ]

    assert {
        "u8": 255,
        "i8": -1,
        "u16": 65535,
        "i16": -2,
        "u32": 4,
        "i32": -5,
        "f32": 0.5,
        "bool": True,
        "text": "é",
        "array": (1, -1),
        "arrays": ((1, 2),),
        "u64": 2**64 - 1,
        "i64": -(2**63),
        "f64": 0.25,
    } == read_header(*reader(gguf_file(values))).metadata


def test_large_arrays_are_counted_and_not_kept() -> None:
    pairs = [
        pair("tokens", 9, strings(70_000)),
        pair("scores", 9, pack("<IQ", 6, 1000) + bytes(4000)),
        pair("few", 9, strings(2)),
        ARCHITECTURE,
    ]

    assert {
        "tokens": LongArray(70_000),
        "scores": LongArray(1000),
        "few": ("token 0", "token 1"),
        "general.architecture": "llama",
    } == read_header(*reader(gguf_file(pairs))).metadata


def test_another_alignment() -> None:
    pairs = [pair("general.alignment", 4, pack("<I", 64))]
    header = read_header(*reader(gguf_file(pairs, [("t", [4], 0, 64)], bytes(80), alignment=64)))

    assert 0 == header.data_start % 64
    assert header.data_start + 64 == header.tensors[0].start


def test_a_type_that_is_newer_than_the_table() -> None:
    header = read_header(*reader(gguf_file([], [("t", [4], 200, 0)], b"1")))

    assert "type 200" == header.tensors[0].type


def claims(tensors: int, pairs: int) -> bytes:
    return b"GGUF" + pack("<IQQ", 3, tensors, pairs)


def nested(depth: int) -> bytes:
    return depth * pack("<IQ", 9, 1) + pack("<IQ", 0, 0)


FAULTS: list[tuple[str, bytes]] = [
    ("behind the end of the file", b"GGU"),
    ("begins with b'GGML'", b"GGML" + bytes(40)),
    ("is big-endian", b"GGUF" + pack(">IQQ", 3, 0, 0)),
    ("has version 1; versions 2 and 3 are read", b"GGUF" + pack("<III", 1, 0, 0)),
    ("has version 4", b"GGUF" + pack("<IQQ", 4, 0, 0)),
    ("that is absurd", claims(2**40, 0)),
    ("that is absurd", claims(0, 2**40)),
    ("behind the end of the file", claims(1, 0)),
    ("behind the end of the file", claims(0, 1)),
    ("a key of the GGUF header has 65536 bytes", claims(0, 1) + pack("<Q", 65_536) + bytes(70_000)),
    ("a key of the GGUF header is not UTF-8", claims(0, 1) + text(b"\xff")),
    ("a text of the GGUF header has 1099511627776 bytes", claims(0, 1) + text("a") + pack("<IQ", 8, 2**40)),
    ("behind the end of the file", claims(0, 1) + text("a") + pack("<IQ", 8, 1000)),
    ("a value of type 13", gguf_file([pair("a", 13, bytes(8))])),
    ("more than there are bytes", gguf_file([pair("a", 9, pack("<IQ", 0, 2**62))])),
    ("more than there are bytes", gguf_file([pair("a", 9, pack("<IQ", 8, 100))])),
    ("an array of type 99", gguf_file([pair("a", 9, pack("<IQ", 99, 65) + bytes(1000))])),
    ("a value of type 99", gguf_file([pair("a", 9, pack("<IQ", 99, 1) + bytes(1000))])),
    ("nested more than 4 deep", gguf_file([pair("a", 9, nested(1000))])),
    ("has 'general.architecture' twice", gguf_file([ARCHITECTURE, ARCHITECTURE])),
    ("no power of two", gguf_file([pair("general.alignment", 4, pack("<I", 0))])),
    ("no power of two", gguf_file([pair("general.alignment", 4, pack("<I", 48))])),
    ("no power of two", gguf_file([pair("general.alignment", 8, text("32"))])),
    ("has 9 dimensions", gguf_file([], [("t", [1] * 9, 0, 0)])),
    ("a tensor's name of the GGUF header has 1025 bytes", gguf_file([], [(1025 * "t", [1], 0, 0)])),
    ("larger than any file", gguf_file([], [("t", [2**40, 2**40], 0, 0)])),
    ("multiple of 32 bytes", gguf_file([], [("t", [1], 0, 4)], bytes(64))),
    ("no whole number of blocks of Q4_K", gguf_file([], [("t", [255], 12, 0)], bytes(64))),
    ("behind the end of the file", gguf_file([], [("t", [256], 12, 0)], bytes(143))),
    ("two tensors of the GGUF header have one name", gguf_file([], [("t", [1], 0, 0), ("t", [1], 0, 32)], bytes(64))),
]


@pytest.mark.parametrize(("reason", "content"), FAULTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_fault_is_refused_with_its_reason(reason: str, content: bytes) -> None:
    with pytest.raises(InvalidModelError, match=reason):
        read_header(*reader(content))


def test_a_header_that_never_ends_is_read_up_to_a_bound() -> None:
    read: list[int] = []

    def endless(offset: int, count: int) -> bytes:
        read.append(count)
        begin = claims(0, 65_536)
        return begin[offset : offset + count] + bytes(count - len(begin[offset : offset + count]))

    with pytest.raises(InvalidModelError, match="has '' twice"):
        read_header(endless, 2**62)
    assert sum(read) <= 2**20


def check(content: bytes) -> None:
    try:
        header = read_header(*reader(content))
    except InvalidModelError:
        return
    assert all(tensor.start <= len(content) for tensor in header.tensors)


@given(st.integers(0, len(SMALL) - 480), st.binary(min_size=1, max_size=8))
@settings(max_examples=300)
def test_a_header_with_some_bytes_changed(place: int, change: bytes) -> None:
    check(SMALL[:place] + change + SMALL[place + len(change) :])


@given(st.integers(0, 3), st.integers(0, 3), st.binary(max_size=100))
@settings(max_examples=200)
def test_any_bytes_are_a_header_or_the_documented_error(tensors: int, pairs: int, raw: bytes) -> None:
    check(raw)
    check(claims(tensors, pairs) + raw)


@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 5), st.binary(max_size=40)), max_size=3))
@settings(max_examples=200)
def test_any_value_is_read_or_the_documented_error(values: list[tuple[int, int, bytes]]) -> None:
    check(
        gguf_file(
            [
                pair(str(number), kind, pack("<IQ", kind, count) + raw)
                for number, (kind, count, raw) in enumerate(values)
            ]
        )
    )
    check(gguf_file([pair(str(number), kind, raw) for number, (kind, _, raw) in enumerate(values)]))


@pytest.mark.parametrize(
    ("pairs", "value"),
    [
        (1, pair("k", 9, pack("<IQ", 9, 600_000) + pack("<IQ", 0, 0) * 600_000)),
        (1, pair("k", 9, pack("<IQ", 9, 300_000) + (pack("<IQ", 0, 1) + b"\x01") * 300_000)),
        (4, b"".join(pair(f"k{number}", 8, text(bytes(4 * 1024 * 1024))) for number in range(4))),
    ],
    ids=["empty arrays", "arrays of one", "texts"],
)
def test_what_is_kept_of_a_header_is_bounded(pairs: int, value: bytes) -> None:
    file = b"GGUF" + pack("<IQQ", 3, 0, pairs) + value + bytes(64)
    with pytest.raises(InvalidModelError, match="more metadata and names than are read"):
        read_header(*reader(file))


def test_tensors_of_several_files_are_counted_together() -> None:
    tensors = Budget(3)
    read_header(*reader(SMALL), tensors)
    with pytest.raises(InvalidModelError, match="more than 3 tensors together"):
        read_header(*reader(SMALL), tensors)
