"""Upload sessions: bytes that grow on disk, with the hash of them kept in memory where that can be had.

Knows files and digests. Does not know HTTP, but for the refusals of the specification that only it can tell.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from transferkit.content.digest import Digest, Hasher
from transferkit.server.answers import Refusal
from transferkit.server.incoming import BLOCK
from transferkit.server.store import Repository

# uuid.UUID() also takes braces, "urn:" and missing dashes: one session would have many names.
_IDENTIFIER = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.ASCII)


class Session:
    """One upload under way. Whatever changes it needs :meth:`held`; ``size`` may be read by anybody."""

    def __init__(self, repository: Repository, identifier: uuid.UUID, *, patience: float) -> None:
        self.repository = repository
        self.identifier = identifier
        self.path = repository.upload(identifier)
        self._patience = patience
        self._lock = threading.Lock()
        self._hasher: Hasher = hashlib.sha256(usedforsecurity=False)  # the guess; the digest is named only at the end
        self._algorithm = "sha256"
        self._hashed = 0  # bytes that the hasher has seen: none yet in a session that an earlier process began

    @property
    def size(self) -> int:
        """Bytes that are here.

        Raises:
            Refusal: 404, the session is over.
        """
        try:
            return os.stat(self.path).st_size
        except FileNotFoundError:
            raise _unknown() from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep everybody else from changing the session.

        Raises:
            Refusal: 409, another request does not let go of it; 404, the session is over.
        """
        if not self._lock.acquire(timeout=self._patience):
            raise Refusal(409, "BLOB_UPLOAD_INVALID", "another request is writing to this upload")
        try:
            _ = self.size
            yield
        finally:
            self._lock.release()

    def append(self, blocks: Iterable[bytes]) -> None:
        """Add to the end. What came before an exception of ``blocks`` is kept."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            in_step = os.fstat(descriptor).st_size == self._hashed
            for block in blocks:
                rest = memoryview(block)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                if in_step:
                    self._hasher.update(block)
                    self._hashed += len(block)
        finally:
            os.close(descriptor)

    def finish(self, digest: Digest) -> None:
        """Verify the content and give it to the repository.

        Raises:
            Refusal: 400, it has another digest.
        """
        self._catch_up(digest)
        if not digest.matches(self._hasher):
            found = f"{digest.algorithm}:{self._hasher.hexdigest()}"
            raise Refusal(400, "DIGEST_INVALID", "the content has another digest", detail={"digest": found})
        self.repository.store.move(self.path, self.repository.store.content(digest))
        self.repository.link_blob(digest)

    def _catch_up(self, digest: Digest) -> None:
        if self._algorithm != digest.algorithm:
            self._hasher, self._algorithm, self._hashed = digest.hasher(), digest.algorithm, 0
        if self._hashed == self.size:
            return
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self._hashed)
            while block := file.read(BLOCK):
                self._hasher.update(block)
                self._hashed += len(block)


class Sessions:
    """The sessions of a store. Thread-safe.

    ``patience`` is how many seconds a request waits for another one to let go of a session: a client that resumes is
    often faster than the server's notice that its former connection is gone. No session expires: an abandoned one costs
    its file, and a few hundred bytes of memory, until it is deleted.
    """

    def __init__(self, *, patience: float) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._known: dict[str, Session] = {}  # by path

    def begin(self, repository: Repository) -> Session:
        session = Session(repository, uuid.uuid4(), patience=self._patience)
        os.makedirs(os.path.dirname(session.path), exist_ok=True)
        with open(session.path, "xb"):
            pass
        with self._lock:
            self._known[session.path] = session
        return session

    def find(self, repository: Repository, identifier: str) -> Session:
        """Return a session of this repository, by what a client calls it.

        Raises:
            Refusal: 404, there is none.
        """
        if _IDENTIFIER.match(identifier) is None:
            raise _unknown()
        session = Session(repository, uuid.UUID(identifier), patience=self._patience)
        _ = session.size
        with self._lock:
            return self._known.setdefault(session.path, session)

    def end(self, session: Session) -> None:
        """Forget a session and what is left of it."""
        with self._lock:
            self._known.pop(session.path, None)
        try:
            os.unlink(session.path)
        except FileNotFoundError:  # finished: the content was renamed
            pass


def _unknown() -> Refusal:
    return Refusal(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
