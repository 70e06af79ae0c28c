"""The demo: real bytes, to an embedded registry and back, every one of them compared."""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from transferkit.bulk import download, fetch_manifest, upload
from transferkit.content.descriptor import Blob
from transferkit.content.digest import Digest
from transferkit.content.manifest import OCI_MANIFEST
from transferkit.errors import SourceError, VerificationError
from transferkit.render.bars import progress_bar
from transferkit.report import Report, human_bytes
from transferkit.testing.registry import running_registry

REPOSITORY = "demo/model"
_BLOCK = 1024 * 1024


def run(paths: list[Path], *, tensors: int, large: int) -> None:
    """Move the files under ``paths``, or a generated model; ``VerificationError`` where not every byte came back."""
    with tempfile.TemporaryDirectory(prefix="transferkit-demo-") as folder:
        outbox, inbox = Path(folder, "out"), Path(folder, "in")
        outbox.mkdir()
        files = _files(paths) if paths else _generate(Path(folder, "model"), tensors, large)
        blobs = [_stage(file, outbox) for file in files]
        if not blobs:
            raise SourceError(f"there are no files in {', '.join(map(str, paths))}")
        distinct = {blob.digest: blob for blob in blobs}
        total = sum(blob.size for blob in distinct.values())
        click.echo(f"{len(blobs)} files, {len(distinct)} distinct blobs, {human_bytes(total)}")
        with running_registry() as registry:
            click.echo(f"a registry listens on {registry.url}")
            with progress_bar("push", total) as progress:
                pushed = upload(
                    blobs,
                    outbox,
                    base_url=registry.url,
                    repository=REPOSITORY,
                    manifest=_manifest(blobs),
                    manifest_ref="latest",
                    progress=progress,
                )
            _tell("pushed", pushed)
            layers = fetch_manifest("latest", base_url=registry.url, repository=REPOSITORY).layers
            registry.log.clear()
            with progress_bar("pull", total) as progress:
                pulled = download(layers, inbox, base_url=registry.url, repository=REPOSITORY, progress=progress)
            _tell("pulled", pulled)
            click.echo(f"requests: {len(registry.log)} for {len(distinct)} blobs")
        wrong = [path for digest, path in pulled.paths.items() if _digest(path) != digest]
    if wrong:
        raise VerificationError(f"{len(wrong)} files are wrong: {', '.join(wrong[:3])}")
    click.echo(f"verified {len(pulled.paths)} files, {human_bytes(total)}: every byte is in place")


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


def _stage(file: Path, outbox: Path) -> Blob:
    """Put a file into the outbox under the name of its content, without copying it where the disk allows."""
    try:
        digest = _digest(file)
        target = outbox / digest.file_name
        if not target.exists():
            target.symlink_to(file.resolve())
        return Blob(digest, file.stat().st_size)
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}", errno=error.errno) from error


def _digest(file: Path | str) -> Digest:
    hasher = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(_BLOCK):
            hasher.update(block)
    return Digest(f"sha256:{hasher.hexdigest()}")


def _manifest(blobs: list[Blob]) -> bytes:
    layers = [{"mediaType": "application/octet-stream", "digest": blob.digest, "size": blob.size} for blob in blobs]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": layers[0], "layers": layers}).encode()


def _tell(verb: str, report: Report) -> None:
    rate = report.blobs / report.seconds if report.seconds else 0.0
    click.echo(
        f"{verb} {report.blobs} blobs, {human_bytes(report.bytes)} in {report.seconds:.2f} s: "
        f"{rate:.0f} blobs/s, {human_bytes(report.rate)}/s"
    )
