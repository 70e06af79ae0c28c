"""Pulls that clients of a server share: one transfer a model, however many ask for it and watch.

Who joins sees the whole progress. When the last one leaves before the end, the transfer is cancelled, and what has come
stays in the cache. What a mirror begins goes on without anybody.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from transferkit.cancellation import Cancellation
from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.errors import CancelledError, TransferKitError
from transferkit.names import Reference
from transferkit.registry.registry import Registry
from transferkit.thread_group import ThreadGroup
from transferkit.trace import Trace

_LOOK = 0.5  # seconds between two looks whether who waits is still there
logger = logging.getLogger("transferkit.server")


class Pull(Trace):
    """One running pull: of a ``name``, which is told as its ``title``. Thread-safe.

    ``layers`` is what it brings, in the order in which a client hears of it; ``completed`` has the bytes of each that
    are in place.
    """

    def __init__(self, name: str, title: str = "") -> None:
        self.name = name
        self.title = title or name
        self.layers: tuple[Descriptor, ...] = ()
        self.completed: dict[Digest, int] = {}
        self.error: Exception | None = None
        self.is_over = False
        self.watchers = 0
        self.cancellation = Cancellation()
        self._news = threading.Condition()
        self._version = 0

    # -- what the transfer tells

    def announced(self, descriptors: Sequence[Descriptor]) -> None:
        with self._told():
            self.layers = tuple(descriptors)

    def moved(self, positions: Mapping[Digest, int]) -> None:
        with self._told():
            self.completed.update(positions)

    def cached(self, descriptor: Descriptor) -> None:
        self.done(descriptor)

    def done(self, descriptor: Descriptor) -> None:
        with self._told():
            self.completed[descriptor.digest] = descriptor.size

    def end(self, error: Exception | None) -> None:
        """Take in that the transfer is over, for this reason where it failed."""
        with self._told():
            self.error, self.is_over = error, True
            if error is None:
                self.completed = {layer.digest: layer.size for layer in self.layers}

    @contextmanager
    def _told(self) -> Iterator[None]:
        with self._news:
            yield
            self._version += 1
            self._news.notify_all()

    # -- what watchers ask

    @property
    def total(self) -> int:
        return sum(layer.size for layer in self.layers)

    @property
    def in_place(self) -> int:
        return sum(self.position(layer) for layer in self.layers)

    def position(self, layer: Descriptor) -> int:
        return min(layer.size, self.completed.get(layer.digest, 0))

    def ended(self, seconds: float) -> bool:
        """Wait for the end, so many seconds at most, and tell whether it has come."""
        with self._news:
            return self._news.wait_for(lambda: self.is_over, timeout=seconds)

    def wait_for_layers(self, is_gone: Callable[[], bool]) -> tuple[Descriptor, ...]:
        """Wait until it is known what it brings, and return that; where it fails before, that error is raised.

        ConnectionResetError: who waits is gone.
        """
        with self._news:
            while not self._news.wait_for(lambda: self.layers or self.is_over, timeout=_LOOK):
                if is_gone():
                    raise ConnectionResetError(errno.ECONNRESET, "the client has hung up")
        if not self.layers:
            raise self.error or CancelledError(f"the pull of {self.name} has ended")
        return self.layers

    def wait(self, seen: int, seconds: float) -> int:
        """Wait until there is more to tell than a watcher has ``seen``, so many seconds at most; return what there is
        now."""
        with self._news:
            self._news.wait_for(lambda: self._version != seen or self.is_over, timeout=seconds)
            return self._version


class Pulls:
    """The running pulls of one registry client. Thread-safe."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._running: dict[str, Pull] = {}
        self._threads = ThreadGroup("transferkit-pull")
        self._lock = threading.Lock()
        self._closed = False

    def running(self) -> list[Pull]:
        """Return the pulls that are under way, in the order in which they began."""
        with self._lock:
            return [pull for pull in self._running.values() if not pull.is_over]

    @contextmanager
    def join(self, name: str) -> Iterator[Pull]:
        """Watch the pull of a model, which begins if nobody pulls it yet.

        InvalidNameError: the name is malformed.
        """
        reference = Reference.parse(name, self._registry.mask)
        pull = self._watched(str(reference).lower(), name, self._pull)
        try:
            yield pull
        finally:
            with self._lock:
                pull.watchers -= 1
                if not pull.watchers and not pull.is_over:
                    pull.cancellation.cancel("nobody waits for it any more")

    def begin(self, name: str, title: str, then: Callable[[], object]) -> Pull:
        """Begin the pull of a manifest (``host/repository@digest``), or find it, and let it go on until its end.

        ``title`` is the name that is told of it. ``then`` is called when everything is in place.
        """

        def work(pull: Pull) -> None:
            self._pull(pull)
            then()

        return self._watched(f"the manifest {name}", name, work, title)

    def begin_blob(self, name: str) -> Pull:
        """Begin the pull of one blob (``host/repository@digest``), or find it, and let it go on until its end."""

        def work(pull: Pull) -> None:
            self._registry.pull_blob(name, trace=pull, cancel=pull.cancellation)

        return self._watched(f"the blob {name}", name, work)

    def _pull(self, pull: Pull) -> None:
        self._registry.pull(pull.name, trace=pull, cancel=pull.cancellation)

    def _watched(self, key: str, name: str, work: Callable[[Pull], None], title: str = "") -> Pull:
        """Return a running pull that has one watcher more, and begin it if nobody has."""
        with self._lock:
            pull = self._running.get(key)
            if pull is None or pull.is_over or pull.cancellation.cancelled:
                pull = Pull(name, title or name)
                self._start(key, pull, work)
                self._running[key] = pull
            pull.watchers += 1
            return pull

    def _start(self, key: str, pull: Pull, work: Callable[[Pull], None]) -> None:
        if self._closed:
            pull.cancellation.cancel("the server ends")
        try:
            self._threads.start(self._run, key, pull, work)
        except RuntimeError as error:
            raise TransferKitError(f"{pull.name} is not pulled: {error}") from error

    def _run(self, key: str, pull: Pull, work: Callable[[Pull], None]) -> None:
        error: Exception | None = None
        try:
            work(pull)
        except BaseException as caught:  # noqa: BLE001 - whatever it is, the watchers hear of it
            error = caught if isinstance(caught, Exception) else CancelledError(f"the pull was ended: {caught!r}")
            failed = getattr(caught, "failures", {})
            for reason in failed.values():
                logger.error("pulling %s: %s", pull.name, reason)
        with self._lock:
            if self._running.get(key) is pull:
                del self._running[key]
        pull.end(error)

    def close(self) -> None:
        """Cancel what runs, which keeps what has come, and wait for its end."""
        with self._lock:
            self._closed = True
            running = list(self._running.values())
        for pull in running:
            pull.cancellation.cancel("the server ends")
        self._threads.join()
