"""Uploads: whether a blob is there already, else an upload session, which outlives the attempt that began it.

At most three requests for a blob that is sent in one: HEAD, POST, PUT; two where asking does not pay. What a session is
sent, :mod:`~transferkit.remote.upload_oci` and :mod:`~transferkit.remote.upload_ollama` know.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
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


class Upload:
    """One attempt at one blob: its content, opened where a request's body begins. For one thread, which closes it.

    ``request`` makes its requests: a token serves them all, as long as the scope does.
    """

    def __init__(self, endpoint: Endpoint, descriptor: Descriptor, source: Fetcher, flow: Flow) -> None:
        self.client = endpoint.client
        self.endpoint = endpoint
        self.descriptor = descriptor
        self.flow = flow
        self.subject = descriptor.digest.short
        self.request = partial(endpoint.write, subject=self.subject)
        self.sessions = 0  # that it has begun
        self._source = source
        self._content: Body | None = None
        self._unread_at: int | None = None

    def body(self, start: int, end: int) -> RequestBody:
        """Return the bytes from ``start`` to ``end`` as a request's body, opened and, where need be, hashed so far."""
        # Before the request begins: a server that waits for a body would not wait for 40 GB to be hashed.
        self.seek(start)
        return RequestBody(end - start, partial(self.content, start), self.flow, start=start)

    def seek(self, offset: int) -> Body:
        """Return the content, whose next byte is the one at ``offset``."""
        self._unread_at = offset
        # The same file for all parts: opened anew, it would be hashed anew, from its beginning, for each of them.
        if self._content is not None and isinstance(self._content, Seekable):
            self._content.seek(offset, flow=self.flow)
            return self._content
        self.close()
        self._content = content = self._source.fetch(self.descriptor, offset=offset, flow=self.flow)
        skip, buffer = offset - content.offset, self.flow.buffer
        while skip:
            self.flow.check()
            count = content.readinto(buffer[:skip])
            if not count:
                raise ReadError(f"the source ended {skip} bytes early")
            skip -= count
        return content

    @contextmanager
    def content(self, offset: int) -> Iterator[Body]:
        """Open the content at ``offset`` for one request; it stays open for the next one."""
        content = self._content if self._unread_at == offset else None
        content = content or self.seek(offset)
        self._unread_at = None
        yield content

    def close(self) -> None:
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


class UploadSession(ABC):
    """An upload under way. What is there is not sent again by the next attempt at its blob."""

    def __init__(self, url: str) -> None:
        self.url = url  # where its next request goes; absolute
        self.confirmed = 0  # bytes that are there
        self.resumed = False  # it has been through an attempt that failed
        self.stalled = False  # that attempt ended in silence

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


# Begins a session, unless the registry mounts the blob instead, or says that it has it.
Begin = Callable[[Upload], UploadSession | Outcome]


class Uploads:
    """The uploads to one repository: the sessions under way, and what was heard. Thread-safe, one thread a blob."""

    def __init__(self, endpoint: Endpoint, begin: Begin) -> None:
        self._endpoint = endpoint
        self._begin = begin
        self._probe = ExistenceProbe()
        self._under_way: dict[Digest, UploadSession] = {}

    @contextmanager
    def attempt(self, descriptor: Descriptor, source: Fetcher, flow: Flow) -> Iterator[Upload]:
        """Make one attempt at a blob. Where it fails, and another one may not, its session is kept for that."""
        try:
            with closing(Upload(self._endpoint, descriptor, source, flow)) as upload:
                yield upload
        except BaseException as error:
            self._probe.begin_again()
            session = self._under_way.get(descriptor.digest)
            if session is not None and isinstance(error, TransferKitError) and error.retryable:
                # The count stays as it is until the registry has said what of it is there.
                session.resumed = True
                session.stalled = isinstance(error, StalledError)
            else:
                self._under_way.pop(descriptor.digest, None)
                flow.counter.set_position(0)
            raise
        self._under_way.pop(descriptor.digest, None)
        flow.counter.set_position(descriptor.size)

    def session(self, upload: Upload, error: TransferKitError | None = None) -> UploadSession | Outcome:
        """Return the session to send to, or how the blob came to be there without one.

        ``error`` says why the last session was of no use; after the fourth one, it is raised.
        """
        digest, counter = upload.descriptor.digest, upload.flow.counter
        if error is None:
            if self._probe.pays(upload.descriptor):
                is_there = upload.is_there()
                self._probe.heard(is_there=is_there)
                if is_there:
                    return Outcome.PRESENT
            session = self._under_way.get(digest)
            if session is not None and session.resume(upload):
                counter.set_position(session.confirmed)
                return session
        self._under_way.pop(digest, None)
        if error is not None and upload.sessions == _SESSIONS:
            raise error from error.__cause__
        counter.set_position(0)
        upload.sessions += 1
        begun = self._begin(upload)
        if isinstance(begun, UploadSession) and upload.descriptor.size >= _WORTH_RESUMING:
            self._under_way[digest] = begun
        return begun


def status_of(error: RegistryError | NotFoundError) -> int:
    """Return the status of a refusal."""
    return error.status if isinstance(error, RegistryError) else 404
