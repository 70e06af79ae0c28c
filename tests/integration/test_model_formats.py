"""Model files and manifests beside the formats' own libraries: safetensors, llama.cpp's gguf, RamaLama."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ramalama.transports.oci import spec

from tests.unit.models.build import model_file, reader, safetensors_file, tensor
from transferkit.errors import InvalidModelError
from transferkit.models import gguf as our_gguf
from transferkit.models import safetensors as ours
from transferkit.models.facts import Facts, facts_of
from transferkit.models.ggml import file_type, type_name, type_size
from transferkit.models.gguf import LongArray
from transferkit.models.values import ReadAt
from transferkit.models.writing import draft

pytestmark = pytest.mark.integration

HUGE = 2**63


def on_disk(path: Path) -> tuple[ReadAt, int]:
    def read(offset: int, count: int) -> bytes:
        with path.open("rb") as file:
            return os.pread(file.fileno(), count, offset)

    return read, path.stat().st_size


def test_a_real_model_as_its_library_sees_it(minilm: Path) -> None:
    header = ours.read_header(*on_disk(minilm))

    with safetensors.safe_open(minilm, framework="numpy") as theirs:
        names = set(theirs.keys())
        slices = {name: theirs.get_slice(name) for name in names}
        metadata = theirs.metadata()
        assert names == set(header.tensors)
        assert metadata == (header.metadata or None)
        assert {name: (found.get_dtype(), found.get_shape()) for name, found in slices.items()} == {
            name: (found.dtype, list(found.shape)) for name, found in header.tensors.items()
        }
        # One of them to the byte: the offsets are those of the file.
        name = next(name for name, found in header.tensors.items() if found.elements > 1000)
        read, _ = on_disk(minilm)
        found = header.tensors[name]
        assert theirs.get_tensor(name).tobytes() == read(found.start, found.end - found.start)
    assert Facts("safetensors", None, "22.7M", "fp32", None) == facts_of({"model.safetensors": on_disk(minilm)})


def verdict(content: bytes) -> bool:
    """Tell whether the library takes a file."""
    try:
        safetensors.deserialize(content)
    except safetensors.SafetensorError:
        return False
    return True


def our_verdict(content: bytes) -> bool:
    try:
        ours.read_header(*reader(content))
    except InvalidModelError:
        return False
    return True


@pytest.mark.parametrize("dtype", sorted(ours.BITS))
def test_every_dtype_that_is_known_here_is_known_to_the_library(dtype: str) -> None:
    size = ours.BITS[dtype]
    for content in (
        safetensors_file({"t": tensor(dtype, [8], 0, size)}, bytes(size)),
        safetensors_file({"t": tensor(dtype, [8], 0, size)}, bytes(size + 1)),
        safetensors_file({"t": tensor(dtype, [9], 0, size)}, bytes(size)),
        safetensors_file({"t": tensor(dtype, [1], 0, 1)}, b"1"),
    ):
        try:
            expected = verdict(content)
        except TypeError:
            expected = True  # it is read, and Python's side of the library has no array for it
        assert expected == our_verdict(content)


counts = st.integers(-1, 9) | st.sampled_from([HUGE, 2**64, 1.5])
infos = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F16", "F4", "F32", "F7"]),
        "shape": st.lists(st.integers(0, 4) | counts, max_size=2),
    },
    optional={"more": st.none() | st.text(max_size=2)},
)
spans = st.lists(st.integers(0, 8), min_size=2, max_size=2).map(sorted)


@st.composite
def files(draw: Callable[..., Any]) -> bytes:
    """Return files that are nearly right: tensors one behind the other, of which some lie."""
    described, end = {}, 0
    for name in draw(st.lists(st.sampled_from("abc"), max_size=3, unique=True)):
        info = draw(infos)
        size = 1
        for count in info["shape"]:
            size *= count if isinstance(count, int) and 0 <= count < 10 else 0
        size = size * ours.BITS.get(info["dtype"], 8) // 8
        offsets = [end, end + size] if draw(st.integers(0, 3)) else draw(spans)
        described[name] = {**info, "data_offsets": offsets}
        end += size
    if draw(st.booleans()):
        described["__metadata__"] = draw(
            st.dictionaries(st.text(max_size=2), st.text(max_size=2) | st.none(), max_size=1)
        )
    return safetensors_file(described, bytes(end + draw(st.sampled_from([0, 0, 0, 1]))))


@given(files())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_the_library_and_this_one_agree_on_what_is_broken(content: bytes) -> None:
    assert verdict(content) == our_verdict(content)


def test_a_file_that_llama_cpps_writer_writes(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(4096)
    writer.add_token_list([f"token {number}" for number in range(1000)])
    writer.add_token_scores([0.5] * 1000)
    writer.add_array("few", [1, 2, 3])
    writer.add_rope_freq_base(10000.0)
    writer.add_tensor("norm", np.ones(32, dtype=np.float32))
    writer.add_tensor("embd", np.ones((10, 320), dtype=np.float16))
    packed = gguf.quantize(np.ones((4, 256), dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    header = our_gguf.read_header(*on_disk(path))
    theirs = gguf.GGUFReader(path)
    assert {
        (found.name, tuple(int(size) for size in found.shape), found.tensor_type.name, int(found.data_offset))
        for found in theirs.tensors
    } == {(found.name, found.shape, found.type, found.start) for found in header.tensors}
    assert LongArray(1000) == header.metadata["tokenizer.ggml.tokens"] == header.metadata["tokenizer.ggml.scores"]
    assert ((1, 2, 3), 4096) == (header.metadata["few"], header.metadata["llama.context_length"])
    assert Facts("gguf", "llama", "4.3K", None, "Q8_0") == facts_of({"small.gguf": on_disk(path)})


def test_the_table_of_types_is_llama_cpps() -> None:
    """Those of a later llama.cpp may be missing; Q8_1, which no file has, is out of date in gguf-py."""
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        if type_name(kind.value) != f"type {kind.value}" and kind.name != "Q8_1":
            assert (kind.name, size) == (type_name(kind.value), type_size(kind.value, (block,)))
    for file in gguf.LlamaFileType:
        if (name := file_type(file.value)) is not None:
            assert name == file.name.removeprefix("MOSTLY_").removeprefix("ALL_")


def test_ramalama_takes_our_manifest() -> None:
    names = ["model.gguf", "config.json", "README.md", "run.py", "train.csv", "odd"]
    drafted = draft([model_file(name) for name in names], facts=Facts("gguf", "llama", "8B", None, "Q4_K_M"))

    manifest = spec.Manifest.from_dict(drafted.manifest.json())

    assert spec.is_cncf_artifact_manifest(drafted.manifest.json())
    assert {name: name == "odd" for name in names} == {
        layer.filepath(): bool(layer.media_type_untested()) for layer in manifest.layers
    }
