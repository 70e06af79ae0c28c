"""What file systems with the same settings share: a registry client, and the artifacts that it has open.

``fsspec`` makes a file system for each thread; they all use one pool of connections, and ask for a manifest once.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transferkit.filesystem.paths import folders_of
from transferkit.registry import OpenFiles, Registry

MOST = 256  # artifacts that are kept open; what is known of the manifest of one may take a few MiB

_shared: weakref.WeakValueDictionary[tuple[int, str], Artifacts] = weakref.WeakValueDictionary()
_all: weakref.WeakSet[Artifacts] = weakref.WeakSet()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Artifact:
    """The files of one manifest."""

    files: OpenFiles
    folders: Mapping[str, set[str]]
    """The names of what is in each folder."""


@dataclass(slots=True)
class _Slot:
    """What is known of one name."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    artifact: Artifact | None = None
    asked_at: float = 0.0


class Artifacts:
    """Artifacts by their names. Thread-safe, and usable after a fork.

    ``expiry`` is how many seconds a tag is believed to stay where it is; ``None``: for ever. A digest stays.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        platform: str | None = None,
        require_verified: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry
        self._platform = platform
        self._require_verified = require_verified
        self._clock = clock
        self._slots: dict[str, _Slot] = {}
        self._lock = threading.Lock()
        with _lock:
            _all.add(self)
        weakref.finalize(self, registry.close)

    def open(self, name: str, expiry: float | None, *, refresh: bool = False) -> Artifact:
        """Return the artifact of a name; one that was asked for lately is not asked for again.

        Raises:
            TransferKitError: as ``Registry.open_files`` does.
        """
        with self._lock:
            slot = self._slots.pop(name, None) or _Slot()
            self._slots[name] = slot  # the last one is the one that was asked for last
            if len(self._slots) > MOST:
                del self._slots[next(iter(self._slots))]
        with slot.lock:
            now, artifact = self._clock(), slot.artifact
            is_old = "@" not in name and expiry is not None and now - slot.asked_at >= expiry
            if artifact is None or refresh or is_old:
                files = self.registry.open_files(name, platform=self._platform, require_verified=self._require_verified)
                # What is known of the files of the same manifest still holds: where they are, and of which version.
                if artifact is None or artifact.files.digest != files.digest:
                    artifact = Artifact(files, folders_of(list(files)))
                slot.artifact, slot.asked_at = artifact, now
            return artifact

    def forget(self, name: str | None = None) -> None:
        """Forget an artifact, or all."""
        with self._lock:
            if name is None:
                self._slots.clear()
            else:
                self._slots.pop(name, None)

    def renew(self) -> None:
        """Begin anew in a child of a fork, whose parent may have held any lock."""
        self._lock, self._slots = threading.Lock(), {}


def shared(key: str, make: Callable[[], Artifacts]) -> Artifacts:
    """Return the artifacts of this process with these settings; they end with their last user."""
    with _lock:
        found = _shared.get((os.getpid(), key))
    if found is None:
        made = make()
        with _lock:
            found = _shared.setdefault((os.getpid(), key), made)
    return found


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    for artifacts in list(_all):
        artifacts.renew()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


def client(settings: Mapping[str, Any]) -> Registry:
    """Return a registry client with the settings that were given."""
    return Registry(**{name: value for name, value in settings.items() if value is not None})
