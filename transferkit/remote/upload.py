"""Uploads: whether a blob is there already, else an upload session, which outlives the attempt that began it.

At most three requests for a blob that is sent in one: HEAD, POST, PUT. When the first does not pay, ``presence`` knows;
the smallest of the blobs that are sent unasked come with POST itself, where ``at_once`` knows that the registry takes
it. What a session is sent, ``upload_oci`` and ``upload_ollama`` know.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.flow import Flow
from transferkit.content.interfaces import Body, Fetcher, Local, Notes, Outcome, Seekable, Shared
from transferkit.errors import (
    CancelledError,
    DeniedError,
    NotFoundError,
    ProtocolError,
    ReadError,
    RegistryError,
    StalledError,
    TransferKitError,
)
from transferkit.grammar import check_repository
from transferkit.protocol.origin import Origin
from transferkit.protocol.upload import announced
from transferkit.remote.at_once import AtOnce
from transferkit.remote.endpoint import Endpoint
from transferkit.remote.presence import Presence
from transferkit.remote.proof import MOUNT, SUCCESS, contradicts, is_page, is_stored
from transferkit.transport.request import Request, RequestBody
from transferkit.transport.response import Response

EMPTY = {"Content-Length": "0"}
OCTETS = {"Content-Type": "application/octet-stream"}
_SMALL = 1024 * 1024  # bytes: below, they cost less than to ask for the blob, or for the session of an attempt before
_AT_ONCE = 64 * 1024  # bytes: what a registry that does not take them this way is sent in vain, once
_SESSIONS = 4  # that one attempt may begin: one is refused (413), one drops parts, one is gone, and a good one

Wrap = Callable[[Body], AbstractContextManager[Body]]


class StartAgain(Exception):
    """The session is of no use any more, and another one may be; the argument is the error that says why."""


@dataclass(eq=False)
class UploadSession(ABC):
    """An upload under way. What is there is not sent again by the next attempt at its blob."""

    url: str  # where its next request goes; absolute
    confirmed: int = 0  # bytes that are there
    resumed: bool = False  # it has been through an attempt that failed
    stalled: bool = False  # that attempt ended in silence

    def resume(self, upload: Upload) -> bool:
        """Find out how far it is, after an attempt that failed; ``False`` where it cannot be gone on with."""
        return True

    def note(self) -> dict[str, Any]:
        """Return what another process needs to go on, besides the address; nothing where it could not."""
        return {}

    @abstractmethod
    def send(self, upload: Upload) -> Outcome:
        """Send what is missing, and end the session. Raises StartAgain where another one is needed."""


@dataclass(slots=True, eq=False)
class Uploads:
    """The uploads to one repository. Thread-safe, one thread a blob: a count that is off by one costs a request."""

    endpoint: Endpoint
    start_session: Callable[[Upload], UploadSession | Outcome]  # or the blob is there
    restore: Callable[[Upload, dict[str, Any]], UploadSession | None] | None = None  # of another process, from its note
    notes: Notes | None = None
    sessions: dict[Digest, UploadSession] = field(default_factory=dict)  # under way
    presence: Presence = field(default_factory=Presence)  # of small blobs
    is_denied: bool = False  # to begin one: so is every other
    at_once: AtOnce = field(default_factory=AtOnce)  # small blobs, with the request that begins their upload
    committed: set[Digest] = field(default_factory=set)  # whose last request went out, and failed

    def asking_pays(self, descriptor: Descriptor) -> bool:
        """Tell whether to ask for a blob before it is sent."""
        return descriptor.size > _SMALL or self.presence.asking_pays()


class Upload:
    """One attempt at one blob: its content, opened where a request's body begins. A context manager, for one thread.

    ``request`` makes its requests. Where the attempt fails, and another one may not, its session is kept for that.
    """

    def __init__(self, uploads: Uploads, descriptor: Descriptor, source: Fetcher, flow: Flow) -> None:
        self.endpoint = uploads.endpoint
        self.client = uploads.endpoint.client
        self.descriptor = descriptor
        self.flow = flow
        self.subject = descriptor.digest.short
        self.request = partial(uploads.endpoint.write, subject=self.subject)
        self._uploads = uploads
        self._started = 0  # sessions
        self._is_committed = False
        self._source = source
        self._content: Body | None = None
        self._unread_at: int | None = None

    def session(self, error: TransferKitError | None = None) -> UploadSession | Outcome:
        """Return the session to send to, or how the blob came to be there; ``error``: why the last was of no use."""
        uploads, sessions, digest = self._uploads, self._uploads.sessions, self.descriptor.digest
        if error is None:
            if uploads.asking_pays(self.descriptor):
                if self.endpoint.exists(self.descriptor, self.flow, uploading=True):
                    uploads.presence.is_uncertain()
                    return Outcome.MOVED if digest in uploads.committed else Outcome.PRESENT
                uploads.presence.was_absent()
            session = sessions.get(digest)
            if session is None and self.descriptor.size >= _SMALL:
                session = self._restored()
            if session is not None and session.resume(self):
                sessions[digest] = session
                self.flow.counter.set_position(session.confirmed)
                return session
        sessions.pop(digest, None)
        if error is not None and self._started == _SESSIONS:
            raise error from error.__cause__
        self.flow.counter.set_position(0)
        self._started += 1
        started = uploads.start_session(self)
        if isinstance(started, UploadSession) and self.descriptor.size >= _SMALL:
            sessions[digest] = started
            self.note(started)
        return started

    def _restored(self) -> UploadSession | None:
        """Return the session that another process has left, where it was one at the registry itself."""
        uploads = self._uploads
        note = uploads.notes.load(self.descriptor) if uploads.notes is not None else {}
        if uploads.restore is None or not note:
            return None
        try:
            if Origin.of(str(note.get("url"))) == self.client.origin:
                return uploads.restore(self, note)
        except (ProtocolError, KeyError, TypeError, ValueError):
            pass  # a note that makes no sense is none
        return None

    def note(self, session: UploadSession) -> None:
        """Write down how a later process can go on. An address on another host is a secret of its own, and is not."""
        notes, note = self._uploads.notes, session.note()
        if notes is not None and note and Origin.of(session.url) == self.client.origin:
            notes.save(self.descriptor, {"url": session.url, **note})

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        session = self._uploads.sessions.get(self.descriptor.digest)
        if error is not None:
            if isinstance(error, TransferKitError):
                self.client.clean(error)
            self._uploads.presence.is_uncertain()
            if self._is_committed:
                self._uploads.committed.add(self.descriptor.digest)
        if session is not None and isinstance(error, TransferKitError) and error.retryable:
            # The count stays as it is until the registry has said what of it is there.
            session.resumed = True
            session.stalled = isinstance(error, StalledError)
        else:
            self._uploads.sessions.pop(self.descriptor.digest, None)
            has_ended = error is None or (isinstance(error, TransferKitError) and not isinstance(error, CancelledError))
            if has_ended and self.descriptor.size >= _SMALL and self._uploads.notes is not None:
                self._uploads.notes.forget(self.descriptor)
            self.flow.counter.set_position(0 if error is not None else self.descriptor.size)
        self._close()

    def body(self, start: int, end: int, wrap: Wrap = nullcontext, *, counted: int | None = None) -> RequestBody:
        """Return the bytes from ``start`` to ``end`` as a request's body; ``wrap`` says what is sent of the content.

        ``counted``: how many bytes of the blob are there, where that is not all before ``start``.
        """
        # Before the request begins: a server that waits for a body would not wait for 40 GB to be hashed.
        self.seek(start)
        return RequestBody(end - start, lambda: wrap(self.content(start)), self.flow, start=start, counted=counted)

    def seek(self, offset: int) -> Body:
        """Return the content, whose next byte is the one at ``offset``."""
        if self._content is not None and self._unread_at == offset:
            return self._content
        self._unread_at = offset
        # The same file for all parts: opened anew, it would be hashed anew, from its beginning, for each of them.
        if self._content is not None and isinstance(self._content, Seekable):
            self._content.seek(offset, flow=self.flow)
            return self._content
        self._close()
        self._content = content = self._source.fetch(self.descriptor, offset=offset, flow=self.flow)
        skip, buffer = offset - content.offset, self.flow.buffer
        while skip:
            self.flow.check()
            count = content.readinto(buffer[:skip])
            if not count:
                raise ReadError(f"the source ended {skip} bytes early")
            skip -= count
        return content

    def content(self, offset: int) -> Body:
        """Return the content at ``offset`` for one request; it stays open for the next one."""
        content = self._content if self._unread_at == offset else None
        content = content or self.seek(offset)
        self._unread_at = None
        return content

    def prove(self) -> None:
        """Hold the content to its digest, where other workers have sent a part of it: SourceError."""
        if isinstance(self._content, Shared):
            self._content.seek(self.descriptor.size, flow=self.flow)
            self._content.confirm()

    def doubt(self) -> None:
        """Look once more at a file that was sent without a look at its bytes: SourceError, where it has changed.

        Who puts back the time of a file that he has changed is found out here.
        """
        if isinstance(self._content, Local):
            self._close()
            self.seek(self.descriptor.size)

    def _close(self) -> None:
        if self._content is not None:
            self._content.close()
        self._content = None

    def commit(self, url: str, *, headers: Mapping[str, str] = EMPTY, body: RequestBody | None = None) -> Request:
        """Return the request that ends a session."""
        self._is_committed = True
        timeout = self.client.options.commit_timeout
        return self.request(method="PUT", url=url, ok=SUCCESS, headers=headers, body=body, timeout=timeout)

    def may_go_at_once(self) -> bool:
        """Tell whether to send the blob with the request that begins its upload."""
        uploads = self._uploads
        return self.descriptor.size <= _AT_ONCE and uploads.presence.is_unlikely and uploads.at_once.may_go()

    def went_at_once(self, response: Response) -> bool:
        """Tell whether a 201 to the request that began an upload says that the blob is stored.

        The first one of a registry is held against its answer to ``HEAD``, and so is one that was on its way when
        another was not stored: it may say 201 to what has only begun.
        """
        at_once = self._uploads.at_once
        if not is_stored(response, self.descriptor.digest):
            return False
        if not at_once.is_proven:
            if not self.endpoint.exists(self.descriptor, self.flow, uploading=True):
                return False
            at_once.is_stored()
        return True

    def goes_plainly(self) -> None:
        """Take in that a blob which was sent so is not stored: it is sent once more, and so are all that follow."""
        self._uploads.at_once.refuse()
        self.flow.counter.set_position(0)

    def mount_source(self) -> str | None:
        """Return the repository that the blob may be mounted from, while that has not failed too often."""
        source = self.descriptor.source
        if source is None or self.endpoint.questions.is_spent(MOUNT, self.descriptor.digest, self.flow):
            return None
        return check_repository(source, self.endpoint.grammar)

    def is_confirmed(self, response: Response) -> bool:
        """Tell whether a 201 to a mount is what it seems; one without its ``Location`` is asked about."""
        if response.headers.get("location") or announced(response.headers):
            return True
        try:
            return self.endpoint.exists(self.descriptor, self.flow)
        except (RegistryError, ProtocolError):
            return True  # it does not say, and has said 201

    def forget(self) -> None:
        """Let the next attempt begin another session."""
        self._uploads.sessions.pop(self.descriptor.digest, None)

    def check_stored(self, response: Response) -> None:
        """Finish the response to a commit; where it proves nothing, the registry has to say that the blob is there.
        ProtocolError: it does not, or has stored something else."""
        response.finish()
        digest = self.descriptor.digest
        if is_stored(response, digest):
            return
        if contradicts(response, digest):
            raise ProtocolError(f"{self.subject}: {self.client.origin} stored it as {announced(response.headers)}")
        if not self.endpoint.exists(self.descriptor, self.flow, uploading=True):
            what = "a page" if is_page(response) else str(response.status)
            text = f"answered the end of the upload with {what}, and does not say that it has the blob"
            raise ProtocolError(f"{self.subject}: {self.client.origin} {text}")

    def begin(self, request: Request, source: str | None) -> Response:
        """Send the request that begins the upload, or the mount from ``source``. It says nothing of the content."""
        try:
            response = self.ask(request)
        except DeniedError as error:
            if source is None and not error.retryable:
                self._uploads.is_denied = True
            raise
        self._uploads.is_denied = False
        return response

    def ask(self, request: Request) -> Response:
        """Send a request without a body, and return its response, whose body says nothing."""
        response = self.client.send(request, self.flow)
        response.finish()
        return response


def is_session_lost(error: TransferKitError) -> bool:
    """Tell whether an error says that the session cannot go on, and another one may."""
    code = error.code if isinstance(error, RegistryError) else ""
    return isinstance(error, NotFoundError) or code in ("BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN")


def status_of(error: RegistryError | NotFoundError) -> int:
    """Return the status of a refusal."""
    return error.status if isinstance(error, RegistryError) else 404
