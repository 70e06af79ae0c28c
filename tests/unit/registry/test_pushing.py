"""Where the notes on an upload are kept that a later push goes on with."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import transferkit as tk
from transferkit.content.descriptor import Descriptor
from transferkit.registry import pushing
from transferkit.registry.job import Job
from transferkit.remote.repository import Repository
from transferkit.storage.cache import DiskCache
from transferkit.transfer.operation import Operation
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts

BLOB = Descriptor(f"sha256:{64 * 'a'}", 10)


def test_notes_are_kept_in_the_cache_for_one_registry_and_repository(tmp_path: Path) -> None:
    options = tk.TransferOptions(resume_threshold=1)
    names = []
    for url, repository in (("http://a.example", "n/m"), ("http://b.example", "n/m"), ("http://a.example", "n/other")):
        with ExitStack() as held, Hosts() as hosts, Operation() as operation, DiskCache(tmp_path) as cache:
            job = Job(operation, None, options, held)  # type: ignore[arg-type]  # no names here
            found = pushing.noted(job, cache, Repository(Client(url, hosts), repository))
            assert found.name == repository
            notes = found._uploads.notes
            assert notes is not None
            notes.save(BLOB, {"url": "x"})
            assert notes.load(BLOB)["url"] == "x"
        names.append(set(os.listdir(tmp_path / "blobs" / ".partial" / "uploads")))
    assert len(names[0]) < len(names[1]) < len(names[2])
