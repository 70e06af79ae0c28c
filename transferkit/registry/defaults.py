"""``tk.pull`` and the other functions of a name: the same on a registry that is made when it is first used."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, overload

from transferkit.content.graph import Document
from transferkit.registry.registry import Registry
from transferkit.registry.tensors import Tensors
from transferkit.report.folder import FolderReport
from transferkit.storage.layout import Tagged

_lock = threading.Lock()
_made: dict[int, Registry] = {}  # by process: a child of a fork makes its own


def default() -> Registry:
    """Return the registry of this process that the functions use."""
    with _lock:
        process = os.getpid()
        if process not in _made:
            _made.clear()
            _made[process] = Registry()
        return _made[process]


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_renew_lock)


@overload
def pull(name: str, *, to: str | os.PathLike[str], **keywords: Any) -> FolderReport: ...
@overload
def pull(name: str, *, to: None = None, **keywords: Any) -> Document: ...
def pull(name: str, *, to: str | os.PathLike[str] | None = None, **keywords: Any) -> Document | FolderReport:
    """Pull a model into the default cache, or its files to a folder, as :meth:`Registry.pull` does."""
    return default().pull(name, **keywords) if to is None else default().pull(name, to=to, **keywords)


def snapshot(name: str, **keywords: Any) -> Path:
    """Return a folder with the files of a model in the default cache, as :meth:`Registry.snapshot` does."""
    return default().snapshot(name, **keywords)


def push(name: str, **keywords: Any) -> Document:
    """Push a model, files or a folder, as :meth:`Registry.push` does."""
    return default().push(name, **keywords)


def copy(source: str | Tagged, target: str | Tagged, **keywords: Any) -> Document:
    """Copy a model from one registry to another, as :meth:`Registry.copy` does."""
    return default().copy(source, target, **keywords)


def open_tensors(name: str, **keywords: Any) -> Tensors:
    """Open the tensors of a model, as :meth:`Registry.open_tensors` does."""
    return default().open_tensors(name, **keywords)
