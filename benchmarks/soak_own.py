"""The library as a client of a registry that is soaked: pushes and pulls of small folders, some of them cancelled."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import transferkit as tk
from benchmarks.soak_rig import KIB, MIB, WrongBytes

_OPTIONS = tk.TransferOptions(concurrency=4, chunk_threshold=MIB, chunk_size=256 * KIB, resume_threshold=256 * KIB)


def move(folder: Path, url: str, rng: random.Random, count: Callable[[str], None], *, cuts: float = 0.0) -> None:
    """Push a folder as a model, and pull it elsewhere; some of the calls are cancelled."""
    source, name = folder / "source", f"{url}/own/{folder.name}:v{rng.randrange(10**9)}"
    source.mkdir(parents=True, exist_ok=True)
    contents = {f"file-{number}": rng.randbytes(rng.choice((100, 40 * KIB, 600 * KIB))) for number in range(3)}
    for file, data in contents.items():
        (source / file).write_bytes(data)
    with tk.Registry(cache=folder / "cache", options=_OPTIONS) as registry:
        try:
            with _cancelled(rng, cuts) as cancel:
                registry.push(name, files={file: source / file for file in contents}, cancel=cancel)
            with _cancelled(rng, cuts) as cancel:
                registry.pull(name, to=folder / "target", cancel=cancel)
            for file, data in contents.items():
                if (folder / "target" / file).read_bytes() != data:
                    raise WrongBytes(f"{file} of {name} is another one")
            count("own")
        except tk.CancelledError:
            count("cut")
        registry.unlink(name.removeprefix("http://"))
        registry.cache.gc(grace=0)


class _cancelled:  # noqa: N801 - a context manager
    def __init__(self, rng: random.Random, cuts: float) -> None:
        self._cancel = tk.Cancellation()
        self._timer = threading.Timer(rng.uniform(0, 0.1), self._cancel.cancel) if rng.random() < cuts else None

    def __enter__(self) -> tk.Cancellation:
        if self._timer is not None:
            self._timer.start()
        return self._cancel

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()


def move_on(folder: str, url: str, seed: float) -> None:
    """What a child does until it is killed."""
    rng = random.Random(seed)
    while True:
        move(Path(folder), url, rng, lambda _: None)
