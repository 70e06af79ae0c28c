"""Push a ``.safetensors`` file to an OCI registry, one blob for each tensor, and pull it back byte for byte.

::

    python examples/tensors.py push model.safetensors http://localhost:5000 library/model --tag v1
    python examples/tensors.py pull http://localhost:5000 library/model folder --tag v1

Two models that share tensors share blobs: only what changed is sent. The blobs of a push are laid out in a temporary
folder (``TMPDIR`` says where) that needs as much room as the file. Knows the file format
(https://huggingface.co/docs/safetensors: 8 bytes of length, a JSON header, the tensors) and the public names of
transferkit, nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import transferkit as tk

ARTIFACT = "application/vnd.example.safetensors"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself
BLOCK = 1024 * 1024
CLEAR = "\x1b[K"  # takes away the rest of a terminal's line

Progress = Callable[[int, int], None]


class FormatError(ValueError):
    """The file or the artifact is not what it should be."""


class Tensor(NamedTuple):
    begin: int  # bytes, counted from the end of the header
    end: int
    name: str
    dtype: str
    shape: list[int]


def read_header(file: BinaryIO, file_size: int) -> bytes:
    """Return the header with the 8 bytes of its length: everything that comes before the tensors."""
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > file_size - 8:
        raise FormatError(f"not a safetensors file: a header of {length} bytes does not fit into {file_size} bytes")
    if length > MAX_HEADER:
        raise FormatError(f"the header has {length} bytes, more than the {MAX_HEADER} that the format allows")
    return prefix + b"".join(blocks(file, length))


def parse_header(header: bytes, data_size: int) -> list[Tensor]:
    """Return the tensors in the order of their bytes, which fill ``data_size`` bytes without overlap or gap."""
    try:
        entries = json.loads(header[8:].decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the header is not JSON: {type(error).__name__}") from error
    if not isinstance(entries, dict):
        raise FormatError(f"the header is not a JSON object but {type(entries).__name__}")
    at = 0
    tensors = sorted(parse_tensor(name, entry) for name, entry in entries.items() if name != "__metadata__")
    for tensor in tensors:
        if tensor.end > data_size:
            raise FormatError(f"{tensor.name[:80]!r} ends at {tensor.end}, outside the {data_size} bytes of data")
        if tensor.begin < at:
            raise FormatError(f"{tensor.name[:80]!r} begins at {tensor.begin} and overlaps one that ends at {at}")
        if tensor.begin > at:
            raise FormatError(f"{tensor.begin - at} bytes in front of {tensor.name[:80]!r} belong to no tensor")
        at = tensor.end
    if at < data_size:
        raise FormatError(f"the last {data_size - at} bytes belong to no tensor")
    return tensors


def parse_tensor(name: str, entry: object) -> Tensor:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]}:
            # "is int" on purpose: True is an int to everybody else.
            if all(type(number) is int and number >= 0 for number in (*shape, begin, end)) and begin <= end:
                return Tensor(begin, end, name, dtype, shape)
    raise FormatError(f"the header does not say properly what and where {name[:80]!r} is")


def blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the next ``size`` bytes, a block at a time."""
    while size:
        block = file.read(min(size, BLOCK))
        if not block:
            raise FormatError(f"the file ended {size} bytes too early; was it changed meanwhile?")
        size -= len(block)
        yield block


def split(path: Path, folder: Path) -> tuple[list[tk.Blob], bytes]:
    """Cut a file into blobs in ``folder``; return them and the manifest that puts them together again."""
    with path.open("rb") as file:
        file_size = os.fstat(file.fileno()).st_size
        header = read_header(file, file_size)
        tensors = parse_header(header, file_size - len(header))
        config = store(iter([header]), folder)
        # Equal tensors become one file; the list repeats it, and so does the manifest.
        blobs = [store(blocks(file, tensor.end - tensor.begin), folder) for tensor in tensors]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {"mediaType": f"{ARTIFACT}.header", "digest": config.digest, "size": config.size},
        "layers": [
            {
                "mediaType": f"{ARTIFACT}.tensor",
                "digest": blob.digest,
                "size": blob.size,
                "annotations": {
                    "com.example.tensor.name": tensor.name,
                    "com.example.tensor.dtype": tensor.dtype,
                    "com.example.tensor.shape": json.dumps(tensor.shape),
                },
            }
            for tensor, blob in zip(tensors, blobs, strict=True)
        ],
    }
    return [config, *blobs], json.dumps(manifest, separators=(",", ":")).encode()


def store(content: Iterator[bytes], folder: Path) -> tk.Blob:
    """Write one blob file, named after its digest as transferkit wants it."""
    temporary = folder / "unfinished"
    sha256 = hashlib.sha256()
    with temporary.open("wb") as out:
        for block in content:
            sha256.update(block)
            out.write(block)
        size = out.tell()
    digest = f"sha256:{sha256.hexdigest()}"
    temporary.replace(folder / tk.digest_to_path(digest))
    return tk.Blob(digest=digest, size=size)


def push(path: Path, base_url: str, repository: str, *, tag: str, progress: Progress | None = None) -> tk.Report:
    """Upload a file: the blobs that the registry lacks, and after them the manifest under ``tag``."""
    with tempfile.TemporaryDirectory(prefix="tensors-") as folder:
        blobs, manifest = split(path, Path(folder))
        return tk.upload(
            blobs,
            folder,
            base_url=base_url,
            repository=repository,
            manifest=manifest,
            manifest_ref=tag,
            progress=progress,
        )


def pull(
    base_url: str, repository: str, dest_dir: Path, *, tag: str, progress: Progress | None = None
) -> tuple[Path, str, tk.Report]:
    """Download into ``dest_dir/blobs``, rebuild ``dest_dir/model.safetensors``; return its path and SHA-256."""
    manifest = tk.fetch_manifest(tag, base_url=base_url, repository=repository)
    config, layers = manifest.config, manifest.layers
    if config is None or config.media_type != f"{ARTIFACT}.header" or config.size > 8 + MAX_HEADER:
        raise FormatError(f"{repository}:{tag} is not a safetensors file pushed by this program")
    # Verified while they stream. What an earlier, interrupted run has brought here is not fetched again.
    blobs = [config, *layers]
    report = tk.download(blobs, dest_dir / "blobs", base_url=base_url, repository=repository, progress=progress)
    with open(report.paths[config.digest], "rb") as file:
        header = read_header(file, config.size)
    tensors = parse_header(header, sum(layer.size for layer in layers))
    # Else the layers would be put together to something that no safetensors reader takes.
    if len(header) != config.size or [t.end - t.begin for t in tensors] != [layer.size for layer in layers]:
        raise FormatError("the blobs are not the tensors that the header lists")
    model, temporary = dest_dir / "model.safetensors", dest_dir / "model.safetensors.unfinished"
    sha256 = hashlib.sha256()
    with temporary.open("wb") as out:
        for descriptor in blobs:
            with open(report.paths[descriptor.digest], "rb") as blob:
                for block in blocks(blob, descriptor.size):
                    sha256.update(block)
                    out.write(block)
    temporary.replace(model)
    return model, sha256.hexdigest(), report


def show_progress(completed: int, total: int) -> None:
    """Keep one line up to date, and take it away at the end."""
    line = CLEAR if completed == total else f"{completed / 1e6:,.1f} of {total / 1e6:,.1f} MB"
    print(f"{line}\r", end="", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Push a .safetensors file to an OCI registry, and pull it back.")
    commands = parser.add_subparsers(dest="command", required=True)
    pushing, pulling = commands.add_parser("push"), commands.add_parser("pull")
    pushing.add_argument("file", type=Path)
    for command in (pushing, pulling):
        command.add_argument("base_url")
        command.add_argument("repository")
        command.add_argument("--tag", default="v1")
    pulling.add_argument("dest_dir", type=Path)
    args = parser.parse_args(arguments)
    progress = show_progress if sys.stderr.isatty() else None
    try:
        if args.command == "push":
            print(push(args.file, args.base_url, args.repository, tag=args.tag, progress=progress))
        else:
            path, digest, report = pull(args.base_url, args.repository, args.dest_dir, tag=args.tag, progress=progress)
            print(report, f"{digest}  {path}", sep="\n")  # the second line is one of sha256sum's
    except (FormatError, tk.TransferKitError, OSError) as error:
        # On a terminal the progress line may still be there.
        sys.exit(f"{CLEAR if progress else ''}error: {error}")


if __name__ == "__main__":
    main()
