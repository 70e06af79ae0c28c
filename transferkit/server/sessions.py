"""Upload sessions: which ones there are, whose turn it is in one, and when one is over.

Knows files by :mod:`transferkit.storage.writer`. Does not know HTTP, but for the refusals of the specification that
only it can tell.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from transferkit.content.digest import Digest
from transferkit.errors import DigestMismatchError
from transferkit.server.answers import Refusal
from transferkit.server.limits import Limits
from transferkit.server.store import Repository, Store
from transferkit.storage.writer import Writer

# As this registry writes a UUID. There are also ones with braces, "urn:" and no dashes: many names for one session.
_IDENTIFIER = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.ASCII)
_LOOK = 600.0  # seconds between two looks for uploads that are idle


class Session:
    """One upload under way. Whatever changes it needs :meth:`held`; ``size`` may be read by anybody."""

    def __init__(self, repository: Repository, identifier: str, writer: Writer, *, patience: float) -> None:
        self.repository = repository
        self.identifier = identifier
        self.writer = writer
        self._patience = patience
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes that are here.

        Raises:
            Refusal: 404, the session is over.
        """
        try:
            return self.writer.status().st_size
        except FileNotFoundError:
            raise _unknown() from None

    @contextmanager
    def held(self, *, patience: float | None = None) -> Iterator[int]:
        """Keep everybody else from changing the session, and give its size.

        Raises:
            Refusal: 409, another request does not let go of it; 404, the session is over.
        """
        if not self._lock.acquire(timeout=self._patience if patience is None else patience):
            raise Refusal(409, "BLOB_UPLOAD_INVALID", "another request is writing to this upload")
        try:
            yield self.size
        finally:
            self.writer.close()
            self._lock.release()

    def finish(self, digest: Digest) -> None:
        """Verify the content and give it to the repository.

        Raises:
            Refusal: 400, it has another digest.
        """
        try:
            self.writer.commit(digest)
        except DigestMismatchError:
            found = self.writer.digest(digest.algorithm)
            raise Refusal(400, "DIGEST_INVALID", "the content has another digest", detail={"digest": found}) from None
        self.repository.link_blob(digest)


class Sessions:
    """The sessions of a store, those of earlier processes too. Thread-safe.

    ``patience`` is how many seconds a request waits for another one to let go of a session: a client that resumes is
    often faster than the server's notice that its former connection is gone. ``clock`` is Unix time, as files have it.
    """

    def __init__(
        self, store: Store, limits: Limits, *, patience: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._limits = limits
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        # By the name of the file; None: an earlier process began it, and nobody has gone on with it yet.
        self._known: dict[str, Session | None] = dict.fromkeys(() if store.read_only else store.upload_names())
        self._looked = float("-inf")
        if self._known:
            self._expire()

    def begin(self, repository: Repository, algorithm: str = "sha256") -> Session:
        """Begin an upload; whoever gets it closes its ``writer``.

        Raises:
            Refusal: 429, too many are under way.
        """
        is_full = len(self._known) >= self._limits.uploads
        if is_full or self._clock() - self._looked >= min(_LOOK, self._limits.idle):
            self._expire()
        identifier = str(uuid.uuid4())
        name = repository.upload(identifier)
        session = Session(repository, identifier, self._store.writer(name, algorithm), patience=self._patience)
        with self._lock:
            if len(self._known) >= self._limits.uploads:
                raise Refusal(429, "TOOMANYREQUESTS", f"{self._limits.uploads} uploads are under way")
            self._known[name] = session
        try:
            session.writer.create()
        except BaseException:
            self.end(session)
            raise
        return session

    def find(self, repository: Repository, identifier: str) -> Session:
        """Return a session of this repository, by what a client calls it.

        Raises:
            Refusal: 404, there is none.
        """
        if _IDENTIFIER.match(identifier) is None:
            raise _unknown()
        name = repository.upload(identifier)
        with self._lock:
            session = self._known.get(name)
        if session is None:
            session = Session(repository, identifier, self._store.writer(name), patience=self._patience)
        if self._end_if_idle(session.writer, session):
            raise _unknown()
        with self._lock:
            session = self._known[name] = self._known.get(name) or session
        return session

    def end(self, session: Session) -> None:
        """Forget a session and what is left of it."""
        self._end(session.writer)

    def _end(self, writer: Writer) -> None:
        with self._lock:
            self._known.pop(writer.name, None)
        writer.abort()

    def _expire(self) -> None:
        """Remove what is idle."""
        self._looked = self._clock()
        with self._lock:
            known = list(self._known.items())
        for name, session in known:
            self._end_if_idle(self._store.writer(name) if session is None else session.writer, session)

    def _end_if_idle(self, writer: Writer, session: Session | None) -> bool:
        """End what is idle, and tell whether there is no such upload any more."""
        try:
            is_idle = self._clock() - writer.status().st_mtime >= self._limits.idle
        except FileNotFoundError:  # somebody tidied the directory up by hand
            with self._lock:
                self._known.pop(writer.name, None)
            return True
        if is_idle:
            with suppress(Refusal):  # a request is at it
                with nullcontext() if session is None else session.held(patience=0):
                    self._end(writer)
                    return True
        return False


def _unknown() -> Refusal:
    return Refusal(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
