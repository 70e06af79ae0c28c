"""The types of ggml: how tensors are quantized, and how a file of them is called.

Source: ggml-org/llama.cpp, ggml/include/ggml.h (ggml_type), ggml/src/ggml-common.h (sizes of the blocks) and
include/llama.h (llama_ftype), in the middle of 2026.
"""

from __future__ import annotations

# Number: name, elements of a block, bytes of a block.
_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),  # never in a file; gguf-py has 40 for it, as ggml had before 2024
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}

_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
}


def type_name(number: int) -> str:
    """Return ggml's name of a tensor's type; one that is newer than this table is called by its number."""
    return _TYPES[number][0] if number in _TYPES else f"type {number}"


def type_size(number: int, shape: tuple[int, ...]) -> int | None:
    """Return the bytes that a tensor takes, 0 for an unknown type, ``None`` if its rows are no whole blocks."""
    if number not in _TYPES:
        return 0
    _, block, size = _TYPES[number]
    elements = 1
    for count in shape:
        elements *= count
    # A row is the first axis; a tensor without axes is a single number.
    return None if (shape[0] if shape else 1) % block else elements // block * size


def file_type(number: object) -> str | None:
    """Return the name of ``general.file_type``, such as ``Q4_K_M``; ``None`` for what llama.cpp does not number."""
    return _FILE_TYPES.get(number) if type(number) is int else None
