"""What every contestant is told, the same for all: which blobs, from or to where.

A contestant written in Python is a script with these arguments, started in a fresh process. It imports what it needs,
then ``run``s its work, which prints how long that took.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ACTIONS = {
    "download": "the blobs, from their URLs",
    "download-again": "the same once more, into the folder that has them; the first time does not count",
    "upload": "the blobs, and with oras and skopeo an artifact",
    "pull": "by name, what has the tag v1",
    "copy": "by name, to the registry at target",
    "verify": "hash the files that are there",
    "push-folder": "a folder of files, with their names",
    "push-folder-again": "the same once more, unchanged; the first time does not count",
    "pull-folder": "the files of an artifact into a folder, with their names",
    "pull-folder-again": "the same once more, unchanged; the first time does not count",
    "tensor": "one tensor of 16 MiB out of a safetensors file",
}
TENSOR = "tensor-1"
"""The one that is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    action: str
    """One of ``ACTIONS``."""
    list_file: Path
    """A line ``<hex> <size>`` for each blob."""
    url: str
    repository: str
    folder: Path
    """The destination of a download, empty; for an upload the folder of the files."""
    source: Path
    """The files themselves, for who only wants to hash them."""
    threads: int
    ca: Path | None = None
    target: str = ""
    """The URL of the registry that a copy goes to."""

    @property
    def blobs(self) -> list[tuple[str, int]]:
        with self.list_file.open() as file:
            return [(line.split()[0], int(line.split()[1])) for line in file]

    def blob_url(self, hexdigest: str) -> str:
        return f"{self.url}/v2/{self.repository}/blobs/sha256:{hexdigest}"

    def path(self, hexdigest: str) -> Path:
        return self.folder / f"sha256-{hexdigest}"

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]

    def arguments(self) -> list[str]:
        result = [
            self.action,
            *("--list", str(self.list_file), "--url", self.url, "--repository", self.repository),
            *("--folder", str(self.folder), "--source", str(self.source), "--threads", str(self.threads)),
        ]
        result += ["--ca", str(self.ca)] if self.ca else []
        return [*result, "--target", self.target] if self.target else result


def parse(arguments: Sequence[str] | None = None) -> Job:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=tuple(ACTIONS))
    parser.add_argument("--list", dest="list_file", type=Path, required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--repository", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--target", default="")
    return Job(**vars(parser.parse_args(arguments)))


def run(work: Callable[[], object]) -> None:
    began = time.perf_counter()
    work()
    print(json.dumps({"call": time.perf_counter() - began}))
