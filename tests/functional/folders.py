"""Models whose layers are files, tar layers, and what a folder has: for the tests of folders."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

from tests.functional.models import OCI_MANIFEST, Model, digest_of, host

TITLE = "org.opencontainers.image.title"
WHERE = "team/model"
FILES = {"config.json": b'{"architectures": ["A"]}', "model.safetensors": b"weights " * 4000, "deep/er/a.txt": b"hello"}


def model_of(files: dict[str, bytes], **more) -> Model:
    """An artifact as ``oras`` pushes it: a layer a file, each with a title."""
    annotations = [{TITLE: title} for title in files]
    types = ["application/octet-stream"] * len(files)
    return Model(list(files.values()), config=b"{}", types=types, annotations=annotations, **more)


def tar_of(files: dict[str, bytes | tarfile.TarInfo], *, zipped: bool = False) -> bytes:
    """A tar file; a TarInfo is a member without content."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                tar.addfile(info)
    return gzip.compress(raw.getvalue(), mtime=0) if zipped else raw.getvalue()


def image_of(*layers: bytes, zipped: bool = True) -> Model:
    """An image; its config says so."""
    kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if zipped else "")
    config = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": digest_of(b'{"os":"linux"}'),
        "size": len(b'{"os":"linux"}'),
    }
    return Model(list(layers), config=b'{"os":"linux"}', types=[kind] * len(layers), more={"config": config})


def name_in(registry, tag: str = "v1") -> str:
    return f"http://{host(registry.url)}/{WHERE}:{tag}"


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder by their paths, without ours."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith(".transferkit/"):
            found[name] = path.read_bytes()
    return found


def unfinished(folder: Path) -> list[str]:
    """What is left of ours in a folder, without what is known."""
    own = folder / ".transferkit"
    names = [str(path.relative_to(own)) for path in own.rglob("*") if path.is_file()]
    return sorted(set(names) - {"state.json", ".partial/verified"})


def change(path: Path, data: bytes) -> None:
    """Write to a file as an editor does it that keeps the old one out of the way."""
    other = path.with_name(path.name + ".edited")
    other.write_bytes(data)
    os.replace(other, path)


__all__ = ["FILES", "OCI_MANIFEST", "TITLE", "WHERE"]
