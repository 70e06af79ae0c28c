"""Uploads: whether a blob is there already, else an upload session, which outlives the attempt that began it.

At most three requests for a blob that is sent in one: HEAD, POST, PUT; two where asking does not pay. What a session is
sent, :mod:`~transferkit.remote.upload_oci` and :mod:`~transferkit.remote.upload_ollama` know.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Body, Fetcher, Flow, Outcome, Seekable
from transferkit.errors import NotFoundError, ProtocolError, ReadError, RegistryError, StalledError, TransferKitError
from transferkit.protocol.upload import announced
from transferkit.remote.endpoint import Endpoint
from transferkit.remote.probe import ExistenceProbe, exists
from transferkit.transport.request import Request, RequestBody
from transferkit.transport.response import Response

EMPTY = {"Content-Length": "0"}
OCTETS = {"Content-Type": "application/octet-stream"}
# Of the final request. 204 and 200 come from registries before the specification, and from storage behind a redirect.
STORED = (200, 201, 204)
# Bytes from which a session is worth going on with: below, asking for it costs more than the bytes do.
_WORTH_RESUMING = 1024 * 1024
_SESSIONS = 4  # that one attempt may begin: one is refused (413), one drops parts, one is gone, and a good one


class StartAgain(Exception):
    """The session is of no use any more, and another one may be; the argument is the error that says why."""


@dataclass(eq=False)
class UploadSession(ABC):
    """An upload under way. What is there is not sent again by the next attempt at its blob."""

    url: str  # where its next request goes; absolute
    confirmed: int = 0  # bytes that are there
    resumed: bool = False  # it has been through an attempt that failed
    stalled: bool = False  # that attempt ended in silence

    @abstractmethod
    def resume(self, upload: Upload) -> bool:
        """Find out how far it is, after an attempt that failed; ``False`` where it cannot be gone on with."""

    @abstractmethod
    def send(self, upload: Upload) -> Outcome:
        """Send what is missing, and end the session.

        Raises:
            StartAgain: another session is needed.
            RegistryError, TransportError, ProtocolError: the registry refused, or a connection did not hold.
        """


@dataclass(slots=True, eq=False)
class Uploads:
    """The uploads to one repository. Thread-safe, one thread a blob."""

    endpoint: Endpoint
    begin: Callable[[Upload], UploadSession | Outcome]  # or the registry mounts the blob, or says that it has it
    probe: ExistenceProbe = field(default_factory=ExistenceProbe)
    sessions: dict[Digest, UploadSession] = field(default_factory=dict)  # under way


class Upload:
    """One attempt at one blob: its content, opened where a request's body begins. A context manager, for one thread.

    ``request`` makes its requests: a token serves them all, as long as the scope does. Where the attempt fails, and
    another one may not, its session is kept for that.
    """

    def __init__(self, uploads: Uploads, descriptor: Descriptor, source: Fetcher, flow: Flow) -> None:
        self.endpoint = uploads.endpoint
        self.client = uploads.endpoint.client
        self.descriptor = descriptor
        self.flow = flow
        self.subject = descriptor.digest.short
        self.request = partial(uploads.endpoint.write, subject=self.subject)
        self._uploads = uploads
        self._begun = 0  # sessions
        self._source = source
        self._content: Body | None = None
        self._unread_at: int | None = None

    def session(self, error: TransferKitError | None = None) -> UploadSession | Outcome:
        """Return the session to send to, or how the blob came to be there without one.

        ``error`` says why the last session was of no use; after the fourth one, it is raised.
        """
        probe, sessions, digest = self._uploads.probe, self._uploads.sessions, self.descriptor.digest
        if error is None:
            if probe.pays(self.descriptor):
                is_there = self.is_there()
                probe.absent = 0 if is_there else probe.absent + 1
                if is_there:
                    return Outcome.PRESENT
            session = sessions.get(digest)
            if session is not None and session.resume(self):
                self.flow.counter.set_position(session.confirmed)
                return session
        sessions.pop(digest, None)
        if error is not None and self._begun == _SESSIONS:
            raise error from error.__cause__
        self.flow.counter.set_position(0)
        self._begun += 1
        begun = self._uploads.begin(self)
        if isinstance(begun, UploadSession) and self.descriptor.size >= _WORTH_RESUMING:
            sessions[digest] = begun
        return begun

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        session = self._uploads.sessions.get(self.descriptor.digest)
        if error is not None:
            self._uploads.probe.absent = 0  # something went wrong, and nobody knows what the registry has now
        if session is not None and isinstance(error, TransferKitError) and error.retryable:
            # The count stays as it is until the registry has said what of it is there.
            session.resumed = True
            session.stalled = isinstance(error, StalledError)
        else:
            self._uploads.sessions.pop(self.descriptor.digest, None)
            self.flow.counter.set_position(0 if error is not None else self.descriptor.size)
        self._close()

    def body(self, start: int, end: int) -> RequestBody:
        """Return the bytes from ``start`` to ``end`` as a request's body, opened and, where need be, hashed so far."""
        # Before the request begins: a server that waits for a body would not wait for 40 GB to be hashed.
        self.seek(start)
        return RequestBody(end - start, lambda: nullcontext(self.content(start)), self.flow, start=start)

    def seek(self, offset: int) -> Body:
        """Return the content, whose next byte is the one at ``offset``."""
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

    def _close(self) -> None:
        content, self._content = self._content, None
        if content is not None:
            content.close()

    def commit(self, url: str, *, headers: Mapping[str, str] = EMPTY, body: RequestBody | None = None) -> Request:
        """Return the request that ends a session."""
        timeout = self.client.options.commit_timeout
        return self.request(method="PUT", url=url, ok=STORED, headers=headers, body=body, timeout=timeout)

    def check_stored(self, response: Response) -> None:
        """Refuse the response to a commit that names another digest."""
        response.finish()
        said, digest = announced(response.headers), self.descriptor.digest
        if said is not None and said != digest and said.algorithm == digest.algorithm:
            raise ProtocolError(f"{self.subject}: {self.client.origin} stored it as {said}")

    def is_there(self) -> bool:
        """Tell whether the repository says that it has the blob."""
        return exists(self.endpoint, self.descriptor, self.flow, uploading=True)


def status_of(error: RegistryError | NotFoundError) -> int:
    """Return the status of a refusal."""
    return error.status if isinstance(error, RegistryError) else 404
