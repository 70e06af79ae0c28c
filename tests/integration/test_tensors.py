"""Lazy tensors beside safetensors' own library, which writes the files and reads them; docker-registry has them, on its
disk and in an S3 store that it redirects to.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

import transferkit as tk
from tests.functional.safetensors_files import data_start, put_model

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("s3")]

MIB = 1024 * 1024
# What the library calls the types when it writes, and how they are called in a file.
TYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "complex64": "C64",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
    "float4_e2m1fn_x2": "F4",
}


def kind_of(dtype: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, dtype) if dtype.startswith(("bf", "float8")) else dtype)


def serialized(tensors: dict[str, tuple[str, list[int], bytes]], **metadata: str) -> bytes:
    """Have the library write a file."""
    buffers = {name: np.frombuffer(data, np.uint8) for name, (_, _, data) in tensors.items()}
    specs = {
        name: safetensors.TensorSpec(
            dtype=dtype, shape=shape, data_ptr=buffers[name].ctypes.data, data_len=buffers[name].nbytes
        )
        for name, (dtype, shape, _) in tensors.items()
    }
    return bytes(safetensors.serialize(specs, metadata=metadata))


def test_every_type_comes_as_it_was_written(docker_registry: Any, tmp_path: Path) -> None:
    rng = random.Random(5)
    written: dict[str, tuple[str, list[int], bytes]] = {}
    for dtype in TYPES:
        size = 1 if dtype.startswith("float4") else kind_of(dtype).itemsize
        data = bytes(rng.randrange(2) for _ in range(12)) if dtype == "bool" else rng.randbytes(12 * size)
        written[f"t.{dtype}"] = (dtype, [3, 4], data)
    file = serialized(written, format="pt")
    theirs = dict(safetensors.deserialize(file))
    name = put_model(docker_registry.url, {"model.safetensors": file})
    with tk.Registry(cache=tmp_path).open_tensors(name) as tensors:
        assert set(written) == set(tensors)
        assert {"format": "pt"} == tensors.metadata["model.safetensors"]
        arrays = tensors.load()
        for dtype, said in TYPES.items():
            array, their, info = arrays[f"t.{dtype}"], theirs[f"t.{dtype}"], tensors.info(f"t.{dtype}")
            assert (said, tuple(their["shape"])) == (info.dtype, info.shape)
            assert bytes(their["data"]) == array.tobytes(), dtype
            if dtype.startswith("float4"):
                assert np.dtype("uint8") == array.dtype
                continue
            expected = np.frombuffer(bytes(their["data"]), kind_of(dtype)).reshape(3, 4)
            assert (expected.dtype, expected.shape) == (array.dtype, array.shape)
            assert expected[1:].tobytes() == tensors.slice(f"t.{dtype}", 1).tobytes()


@pytest.mark.timeout(600)  # the model may have to be fetched first
def test_a_real_model_is_what_the_library_reads(docker_registry: Any, minilm: Path, tmp_path: Path) -> None:
    name = put_model(docker_registry.url, {"model.safetensors": minilm.read_bytes()})
    expected = load_file(minilm)
    with tk.Registry(cache=tmp_path).open_tensors(name) as tensors:
        arrays = tensors.load()
        assert 103 <= len(arrays) == len(expected)
        for each, array in expected.items():
            assert np.array_equal(array, arrays[each]), each
        assert not any(tensors.info(each).verified for each in tensors)


def test_tensors_come_from_the_storage_behind_the_registry(
    s3_store: Any, run_docker_registry: Any, recording_proxy: Any, tmp_path: Path
) -> None:
    values = np.arange(4 * MIB, dtype="<f4").reshape(4096, 1024)
    file = serialized({"w": ("float32", [4096, 1024], values.tobytes())})
    with recording_proxy(s3_store.url) as storage:
        with run_docker_registry(
            tmp_path / "server", storage=s3_store.storage("tensors", endpoint=storage.url)
        ) as registry:
            name = put_model(registry.url, {"model.safetensors": file})
            with tk.Registry(cache=tmp_path / "cache").open_tensors(name) as tensors:
                rows = tensors.slice("w", 1000, 1256)
    assert np.array_equal(values[1000:1256], rows)
    seen = [r for r in storage.requests if r.headers["user-agent"].startswith("transferkit/") and "range" in r.headers]
    start = data_start(file) + 1000 * 4096
    assert [f"bytes=0-{64 * 1024 - 1}", f"bytes={start}-{start + MIB - 1}"] == [r.headers["range"] for r in seen]
    assert not any("authorization" in request.headers for request in seen)
