"""ggml's types: sizes and names as llama.cpp has them."""

from __future__ import annotations

import pytest

from transferkit.models.ggml import file_type, type_name, type_size


@pytest.mark.parametrize(
    ("number", "name", "shape", "size"),
    [
        (0, "F32", (3, 2), 24),
        (1, "F16", (3, 2), 12),
        (30, "BF16", (), 2),
        (2, "Q4_0", (64,), 36),
        (8, "Q8_0", (32, 2), 68),
        (12, "Q4_K", (256,), 144),
        (14, "Q6_K", (512,), 420),
        (39, "MXFP4", (32,), 17),
        (12, "Q4_K", (0, 5), 0),
    ],
)
def test_the_size_of_a_tensor(number: int, name: str, shape: tuple[int, ...], size: int) -> None:
    assert (name, size) == (type_name(number), type_size(number, shape))


def test_rows_are_whole_blocks() -> None:
    assert type_size(12, (128, 2)) is None
    assert type_size(2, ()) is None


def test_a_type_that_is_not_known_has_no_size() -> None:
    assert ("type 77", 0) == (type_name(77), type_size(77, (5,)))


@pytest.mark.parametrize(("number", "name"), [(0, "F32"), (7, "Q8_0"), (15, "Q4_K_M"), (18, "Q6_K"), (32, "BF16")])
def test_the_name_of_a_file_type(number: int, name: str) -> None:
    assert name == file_type(number)


@pytest.mark.parametrize("number", [4, 1024, -1, None, "15", True, 15.0])
def test_what_is_no_file_type(number: object) -> None:
    assert file_type(number) is None
