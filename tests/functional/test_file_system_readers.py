"""Programs that know nothing of registries read from one, and move no more than they need."""

from __future__ import annotations

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet
import pytest
import safetensors.numpy

import transferkit as tk
from tests.functional.models import host
from transferkit.filesystem import OCIFileSystem
from transferkit.server.oci import OCIRegistry
from transferkit.testing import running_registry

pytestmark = pytest.mark.xdist_group("pandas")  # it takes a second to import

ROWS = 100_000
KIB = 1024


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A registry without lists of chunks that has tables and tensors, and the folder that they were pushed from."""
    folder = tmp_path_factory.mktemp("readers")
    data = folder / "data"
    for part in (data / "year=2024", data / "year=2025"):
        part.mkdir(parents=True)
    noise = random.Random(5).randbytes(8 * ROWS)
    table = pd.DataFrame({"key": range(ROWS), "value": np.frombuffer(noise, "<u8"), "text": "row"})
    table[:1000].to_csv(data / "table.csv", index=False)
    for year, half in (("2024", table[: ROWS // 2]), ("2025", table[ROWS // 2 :])):
        half.to_parquet(data / f"year={year}" / "part.parquet", row_group_size=10_000, compression=None)
    tensors = {"small": np.arange(4, dtype="f4"), "large": np.arange(100_000, dtype="i8")}
    safetensors.numpy.save_file(tensors, data / "model.safetensors")
    application = OCIRegistry(folder / "server", chunksums=False, durable=False)
    with running_registry(folder / "server", middleware=lambda _: application) as registry:
        with tk.Registry(cache=folder / "cache") as client:
            client.push(f"{host(registry.url)}/team/data:v1", folder=data, format="oras")
        yield registry, f"oci://{host(registry.url)}/team/data:v1", table, data
    OCIFileSystem.clear_instance_cache()


@pytest.fixture(autouse=True)
def _empty_cache(served, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "cache"))
    OCIFileSystem.clear_instance_cache()
    served[0].log.clear()


def moved(registry) -> int:
    """How many bytes of blobs were moved since the test began."""
    return sum(request.sent for request in registry.log if "/blobs/" in request.path)


def test_pandas_reads_a_table(served):
    registry, base, table, _ = served
    assert table[:1000].equals(pd.read_csv(f"{base}/table.csv", dtype={"value": "uint64"}))
    assert 1 == registry.log.count("GET", "/blobs/")


def test_pandas_reads_one_column_of_parquet_by_ranges(served):
    registry, base, table, data = served
    path, options = f"{base}/year=2024/part.parquet", {"block_size": 4 * KIB, "cache_type": "none"}
    read = pd.read_parquet(path, columns=["key"], storage_options=options)
    assert table[: ROWS // 2][["key"]].equals(read)
    size = (data / "year=2024" / "part.parquet").stat().st_size
    assert moved(registry) < 0.75 * size
    assert {206} == {request.status for request in registry.log if "/blobs/" in request.path}


def test_pyarrow_reads_one_row_group(served):
    registry, base, table, data = served
    fs = fsspec.filesystem("oci")
    with fs.open(f"{base}/year=2025/part.parquet", block_size=4 * KIB) as file:
        group = pa.parquet.ParquetFile(file).read_row_group(3, columns=["value"])
    begin = ROWS // 2 + 30_000
    assert table["value"][begin : begin + 10_000].tolist() == group["value"].to_pylist()
    assert moved(registry) < 0.3 * (data / "year=2025" / "part.parquet").stat().st_size


def test_pyarrow_reads_a_dataset_of_partitions(served):
    _, base, _, _ = served
    fs = fsspec.filesystem("oci")
    found = pa.dataset.dataset(
        [path for path in fs.find(base) if path.endswith(".parquet")],
        filesystem=pa.fs.PyFileSystem(pa.fs.FSSpecHandler(fs)),
        partitioning="hive",
    )
    assert ROWS == found.count_rows()
    assert [99_998, 99_999] == found.to_table(filter=pa.dataset.field("key") >= 99_998)["key"].to_pylist()
    folder = pa.dataset.dataset(base.removeprefix("oci://") + "/year=2024", filesystem=fs, format="parquet")
    assert ROWS // 2 == folder.count_rows()


def test_safetensors_reads_what_was_read(served):
    registry, base, _, data = served
    with fsspec.open(f"{base}/model.safetensors") as file:
        tensors = safetensors.numpy.load(file.read())
    assert [0, 1, 2, 3] == tensors["small"].tolist()
    assert 99_999 == tensors["large"][-1]
    assert (data / "model.safetensors").stat().st_size == moved(registry)


def test_one_tensor_by_ranges(served):
    """The format's library takes bytes or a path; its header is 8 bytes and JSON, and says where a tensor is."""
    registry, base, _, _ = served
    with fsspec.open(f"{base}/model.safetensors", block_size=KIB) as file:
        length = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(length))["small"]["data_offsets"]
        file.seek(8 + length + begin)
        assert [0, 1, 2, 3] == np.frombuffer(file.read(end - begin), "<f4").tolist()
    assert moved(registry) < 4 * KIB


def test_threads_read_one_file(served):
    _, base, _, _ = served
    together = threading.Barrier(4)

    def read(group: int) -> int:
        together.wait(60)
        with fsspec.open(f"{base}/year=2024/part.parquet", block_size=4 * KIB) as file:
            return pa.parquet.ParquetFile(file).read_row_group(group, columns=["key"])["key"][0].as_py()

    with ThreadPoolExecutor(4) as pool:
        assert [0, 10_000, 20_000, 30_000] == list(pool.map(read, range(4)))
