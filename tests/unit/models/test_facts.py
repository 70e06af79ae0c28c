"""What headers and ``config.json`` say about a model."""

from __future__ import annotations

import json
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.models.build import gguf_file, pair, reader, safetensors_file, tensor, text
from transferkit.models.facts import Facts, facts_of, param_size


def facts(**files: bytes | dict[str, Any]) -> Facts:
    """Return the facts of files by name, of which ``__`` is a dot and ``config`` is JSON."""
    raw = {name.replace("__", "."): content for name, content in files.items()}
    return facts_of(
        {name: reader(json.dumps(body).encode() if isinstance(body, dict) else body) for name, body in raw.items()}
    )


def weights(**dtypes: int) -> bytes:
    """Return a safetensors file with one tensor of so many elements for each dtype; its data are holes."""
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8, "F8_E4M3": 1, "U8": 1}
    header, end = {}, 0
    for dtype, count in dtypes.items():
        header[dtype.lower()] = tensor(dtype, [count], end, end + sizes[dtype] * count)
        end += sizes[dtype] * count
    return safetensors_file(header, bytes(end))


def quantized(kind: int = 15, *, architecture: str = "gemma3", elements: int = 2560) -> bytes:
    pairs = [pair("general.architecture", 8, text(architecture)), pair("general.file_type", 4, pack("<I", kind))]
    return gguf_file(pairs, [("t", [256, elements // 256], 12, 0)], bytes(elements // 256 * 144))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (8_000_000_000, "8B"),
        (6_738_415_616, "6.7B"),
        (268_098_176, "268.1M"),
        (270_000_000, "270M"),
        (22_713_216, "22.7M"),
        (999_949_999, "999.9M"),
        (999_950_000, "1B"),
        (1_000_000_000_000, "1T"),
        (2 * 10**15, "2Q"),
        (5 * 10**18, "5000Q"),
        (1_234, "1.2K"),
        (700, "0.7K"),
        (49, None),
        (0, None),
    ],
)
def test_a_number_of_parameters_as_model_spec_writes_it(count: int, expected: str | None) -> None:
    assert expected == param_size(count)


def test_safetensors_with_their_settings() -> None:
    config = {"model_type": "bert", "torch_dtype": "float32"}

    assert Facts("safetensors", "bert", "10K", "fp32", None) == facts(
        model__safetensors=weights(F32=9_990, I64=10), config__json=config
    )


def test_shards_are_added_and_files_that_repeat_tensors_are_not() -> None:
    first, second = weights(BF16=1000), safetensors_file({"other": tensor("BF16", [2000], 0, 4000)}, bytes(4000))
    files = {"model-1.safetensors": first, "model-2.safetensors": second, "fp16.safetensors": weights(BF16=1000)}

    assert Facts("safetensors", None, "3K", "bf16", None) == facts_of({k: reader(v) for k, v in files.items()})


def test_folders_have_tensors_of_their_own() -> None:
    files = {"unet/model.safetensors": reader(weights(F16=1000)), "vae/model.safetensors": reader(weights(F16=500))}

    assert "1.5K" == facts_of(files).param_size


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ({"F16": 100}, "fp16"),
        ({"F8_E4M3": 100}, "fp8"),
        ({"BF16": 960, "F32": 40}, "bf16"),
        ({"BF16": 90, "F32": 10}, "mixed"),
        ({"I64": 100}, "mixed"),
    ],
)
def test_precision_is_that_of_nearly_all_elements(dtypes: dict[str, int], expected: str) -> None:
    assert expected == facts(model__safetensors=weights(**dtypes)).precision


def test_packed_parameters_are_not_counted() -> None:
    config = {"model_type": "llama", "dtype": "bfloat16", "quantization_config": {"quant_method": "gptq", "bits": 4}}

    assert Facts("safetensors", "llama", None, "bf16", "gptq") == facts(
        model__safetensors=weights(I32=1000, BF16=500), config__json=config
    )


def test_a_quantization_with_an_element_for_each_parameter() -> None:
    config = {"torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"}}

    assert Facts("safetensors", None, "1.5K", "bf16", "fp8") == facts(
        model__safetensors=weights(F8_E4M3=1000, BF16=500), config__json=config
    )


def test_gguf() -> None:
    assert Facts("gguf", "gemma3", "2.6K", None, "Q4_K_M") == facts(model__gguf=quantized())


def test_gguf_that_is_not_quantized() -> None:
    content = gguf_file([pair("general.file_type", 4, pack("<I", 32))], [("t", [1000], 30, 0)], bytes(2000))

    assert Facts("gguf", None, "1K", "bf16", "BF16") == facts(model__gguf=content)


def test_shards_of_gguf_and_a_projector_beside_them() -> None:
    files = {
        "a-mmproj.gguf": quantized(architecture="clip"),
        "m-00001-of-00002.gguf": quantized(),
        "m-00002-of-00002.gguf": quantized(elements=5120),
        "z.gguf": quantized(elements=25600),
    }

    assert Facts("gguf", "gemma3", "7.7K", None, "Q4_K_M") == facts_of({k: reader(v) for k, v in files.items()})


def test_a_shard_that_is_missing_leaves_the_size_out() -> None:
    assert facts_of({"m-00001-of-00002.gguf": reader(quantized())}).param_size is None


def test_the_format_with_more_bytes_counts() -> None:
    files = {"small.safetensors": weights(F16=1), "model.gguf": quantized()}

    assert "gguf" == facts_of({k: reader(v) for k, v in files.items()}).format


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("onnx/model.ONNX", "onnx"),
        ("pytorch_model.bin", "pytorch"),
        ("a/pytorch_model-00001-of-00002.bin", "pytorch"),
        ("weights.pth", "pytorch"),
        ("anything.bin", None),
        ("README.md", None),
    ],
)
def test_formats_without_a_header(name: str, expected: str | None) -> None:
    assert Facts(expected) == facts_of({name: reader(b"bytes")})


@pytest.mark.parametrize("name", ["model.safetensors", "model.gguf"])
def test_a_broken_header_leaves_all_out_but_the_format(name: str) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"

    assert Facts(name.partition(".")[2]) == facts_of({name: reader(pointer)})


@pytest.mark.parametrize(
    "config", [b"no json", b"[1]", b"\xff\xfe", b'{"model_type": 5, "torch_dtype": []}', b"[" * 99_999]
)
def test_settings_that_are_none(config: bytes) -> None:
    assert Facts("onnx") == facts(model__onnx=b"", config__json=config)


def test_settings_without_bounds_are_not_read() -> None:
    def read(offset: int, count: int) -> bytes:
        raise AssertionError("it is too large to be settings")

    assert Facts() == facts_of({"config.json": (read, 10**12)})


@given(st.dictionaries(st.sampled_from(["config.json", "m.safetensors", "m.gguf", "n.gguf"]), st.binary(max_size=80)))
@settings(max_examples=100)
def test_any_files_have_facts(files: dict[str, bytes]) -> None:
    found = facts_of({name: reader(content) for name, content in files.items()})
    weights = {name.rpartition(".")[2] for name, content in files.items() if content and name != "config.json"}
    assert found.format in (weights or {"safetensors", "gguf", None})


def test_headers_are_read_up_to_a_bound_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    file = safetensors_file({"w": tensor("F32", [1000], 0, 4000)}, bytes(4000))

    def read(offset: int, count: int) -> bytes:
        asked.append(count)
        return file[offset : offset + count]

    files = {f"{number}/model.safetensors": (read, len(file)) for number in range(40)}
    assert "40K" == facts_of(files).param_size
    whole = sum(asked)
    asked.clear()
    monkeypatch.setattr("transferkit.models.facts._MAX_READ", 500)
    assert ("safetensors", None, "fp32") == (
        (found := facts_of(files)).format,
        found.param_size,
        found.precision,
    )
    assert sum(asked) <= 500 < whole


def test_tensors_are_counted_up_to_a_bound_for_all_files(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"m-0000{at}-of-00003.gguf": reader(quantized()) for at in (1, 2, 3)}
    assert facts_of(files).param_size is not None
    monkeypatch.setattr("transferkit.models.facts._MAX_TENSORS", 2)
    assert Facts("gguf") == facts_of(files)
