"""The demo: real bytes by name, to an embedded registry and back into a cache, every one of them compared."""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import click

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.title import check_title
from transferkit.errors import InvalidNameError, SourceError, VerificationError
from transferkit.registry.registry import Registry
from transferkit.report import human_bytes
from transferkit.testing.registry import running_registry

_BLOCK = 1024 * 1024


def run(paths: list[Path], *, tensors: int, large: int) -> None:
    """Move the files under ``paths``, or a generated model; ``VerificationError`` where not every byte came back."""
    with tempfile.TemporaryDirectory(prefix="transferkit-demo-") as folder:
        files = dict(_titled(_files(paths) if paths else _generate(Path(folder, "model"), tensors, large)))
        if not files:
            raise SourceError(f"there are no files in {', '.join(map(str, paths))}")
        digests = {title: _digest(file) for title, file in files.items()}
        with running_registry() as server, Registry(cache=Path(folder, "cache")) as registry:
            click.echo(f"a registry listens on {server.url}")
            name = f"{server.url.removeprefix('http://')}/demo/model:v1"
            click.echo(f'push("{name}", files=...)')
            manifest = _timed("pushed", lambda: registry.push(name, files=files, progress=True).layers)
            server.log.clear()
            click.echo(f'pull("{name}")')
            layers = _timed("pulled", lambda: registry.pull(name, progress=True).layers)
            click.echo(f"requests: {len(server.log)} for {len({layer.digest for layer in manifest})} blobs")
            click.echo(f"the first file is {registry.cache.path(layers[0].digest)}")
            wrong = [layer for layer in layers if _digest(registry.cache.path(layer.digest)) != layer.digest]
    if wrong or [layer.digest for layer in layers] != list(digests.values()):
        raise VerificationError(f"{len(wrong)} files are wrong, or another model came back")
    click.echo(f"verified {len(layers)} files, {_size(layers)}: every byte is in place")


def _titled(files: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Give each file a title: its path, where that may be one, after a number that tells them apart."""
    for number, file in enumerate(files):
        title = f"{number:05}"
        with suppress(InvalidNameError):
            title = check_title(f"{title}/{file.name}")
        yield title, file


def _timed(verb: str, move: Callable[[], tuple[Descriptor, ...]]) -> tuple[Descriptor, ...]:
    began = time.monotonic()
    layers = move()
    seconds = time.monotonic() - began
    distinct = {layer.digest: layer.size for layer in layers}
    size = sum(distinct.values())
    click.echo(
        f"{verb} {len(layers)} files, {len(distinct)} distinct blobs, {human_bytes(size)} in {seconds:.2f} s: "
        f"{len(distinct) / seconds:.0f} blobs/s, {human_bytes(size / seconds)}/s"
    )
    return layers


def _size(layers: Iterable[Descriptor]) -> str:
    return human_bytes(sum({layer.digest: layer.size for layer in layers}.values()))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
        else:
            yield path


def _generate(folder: Path, tensors: int, large: int) -> Iterator[Path]:
    """Write a model of many small tensors of mixed sizes and one large blob, the same one every time."""
    folder.mkdir()
    rng = random.Random(0)  # noqa: S311 - data, not a secret
    for number in range(tensors):
        path = folder / f"tensor-{number:05}"
        path.write_bytes(rng.randbytes(rng.choice((1, 4, 16, 64)) * 1024))
        yield path
    path = folder / "weights"
    with path.open("wb") as file:
        file.writelines(rng.randbytes(_BLOCK) for _ in range(large // _BLOCK))
    yield path


def _digest(file: Path | str) -> Digest:
    hasher = hashlib.sha256()
    try:
        with open(file, "rb") as opened:
            while block := opened.read(_BLOCK):
                hasher.update(block)
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}", errno=error.errno) from error
    return Digest(f"sha256:{hasher.hexdigest()}")
