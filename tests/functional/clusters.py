"""A cluster of Dask as tests have it: real processes on addresses of this machine, each a host of its own."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transferkit as tk
from transferkit.testing import running_registry
from transferkit.testing.registry import RequestLog

MIB = 1024 * 1024


@dataclass
class Machines:
    """``folder / "host0"`` is where the first of them keeps what it gets; ``$HOST`` in its environment."""

    folder: Path
    cluster: Any
    client: Any
    pids: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.look()

    def look(self) -> None:
        """Find out which processes the workers are now."""
        self.pids = self.client.run(os.getpid)

    def pid(self, number: int) -> int:
        """Return the process of a host's worker."""
        return next(pid for address, pid in self.pids.items() if f"127.0.0.{number + 1}:" in address)

    def hosts(self) -> list[Path]:
        return sorted(self.folder.glob("host*"))


def nanny(folder: Path, number: int, **more: Any) -> dict[str, Any]:
    """Return the specification of a worker on a host of its own."""
    from distributed import Nanny

    where = folder / f"host{number}"
    where.mkdir(exist_ok=True)
    environment = {
        "HOST": str(where),
        "PYTHONPATH": os.pathsep.join([str(Path(tk.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
        "TRANSFERKIT_CACHE": str(where / "default"),
    }
    options = {"nthreads": 1, "host": f"127.0.0.{number + 1}", "env": environment, "silence_logs": logging.CRITICAL}
    options |= {"local_directory": str(folder / "scratch"), "dashboard_address": ":0", **more}
    return {"cls": Nanny, "options": options}


@contextlib.contextmanager
def machines(folder: Path, count: int, *, security: Any = None, **more: Any) -> Iterator[Machines]:
    """Run a scheduler and so many workers."""
    from distributed import Client, Scheduler, SpecCluster

    options = {"dashboard_address": ":0", "host": "127.0.0.1", "port": 0}
    if security is not None:
        options["security"] = more["security"] = security
    workers = {number: nanny(folder, number, **more) for number in range(count)}
    scheduler = {"cls": Scheduler, "options": options}
    with (
        SpecCluster(scheduler=scheduler, workers=workers, silence_logs=logging.CRITICAL, security=security) as cluster,
        Client(cluster, security=security) as client,
    ):
        if count:
            client.wait_for_workers(count, timeout=60)
        yield Machines(folder, cluster, client)


@dataclass(frozen=True)
class Origin:
    """A registry with the model ``name``, of these ``files``."""

    url: str
    name: str
    log: RequestLog
    files: dict[str, bytes]

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))

    def sent(self) -> int:
        """Return the bytes of blobs that it has sent."""
        return sum(each.sent for each in self.log if each.method == "GET" and "/blobs/" in each.path)


@contextlib.contextmanager
def origin(folder: Path, sizes: list[int]) -> Iterator[Origin]:
    """Run a registry with a model of files of these sizes."""
    rng = random.Random(17)
    files = {f"{number}.bin": rng.randbytes(size) for number, size in enumerate(sizes)}
    source = folder / "source"
    source.mkdir(parents=True)
    for name, content in files.items():
        (source / name).write_bytes(content)
    with running_registry(threads=64) as registry:
        name = f"{registry.url.removeprefix('http://')}/team/model:v1"
        with tk.Registry(cache=folder / "first") as client:
            client.push(name, files=[source / file for file in files])
        registry.log.clear()
        yield Origin(registry.url, name, registry.log, files)


def right(folder: Path, files: dict[str, bytes]) -> bool:
    """Tell whether a folder has just these files."""
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return found == {*files} and all((folder / name).read_bytes() == content for name, content in files.items())


def blobs_right(cache: Path) -> bool:
    """Tell whether all blobs of a cache are what their names say."""
    return all(
        path.name == "sha256-" + hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (cache / "blobs").glob("sha256-*")
    )
