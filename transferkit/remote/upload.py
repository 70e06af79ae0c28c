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
from transferkit.content.interfaces import Fetcher, Flow, Outcome
from transferkit.errors import (
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    RegistryError,
    StalledError,
    TransferKitError,
)
from transferkit.protocol.upload import is_another
from transferkit.remote.endpoint import Endpoint
from transferkit.remote.probe import ExistenceProbe, exists
from transferkit.remote.upload_content import Content
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
    """The session is of no use any more, and another one may be; ``error`` says why."""

    def __init__(self, error: TransferKitError) -> None:
        super().__init__(str(error))
        self.error = error


class Upload:
    """One attempt at one blob. ``request`` makes its requests: a token serves them all, as long as the scope does."""

    def __init__(self, endpoint: Endpoint, descriptor: Descriptor, content: Content, flow: Flow) -> None:
        self.client = endpoint.client
        self.endpoint = endpoint
        self.descriptor = descriptor
        self.content = content
        self.flow = flow
        self.subject = descriptor.digest.short
        self.request = partial(endpoint.write, subject=self.subject)
        self.sessions = 0
        """How many it has begun."""

    def body(self, start: int, end: int) -> RequestBody:
        """Return the bytes from ``start`` to ``end`` as a request's body, opened and, where need be, hashed so far."""
        # Before the request begins: a server that waits for a body would not wait for 40 GB to be hashed.
        self.content.seek(start)
        return RequestBody(end - start, partial(self.content.at, start), self.flow, start=start)

    def commit(self, url: str, *, headers: Mapping[str, str] = EMPTY, body: RequestBody | None = None) -> Request:
        """Return the request that ends a session."""
        timeout = self.client.options.commit_timeout
        return self.request(method="PUT", url=url, ok=STORED, headers=headers, body=body, timeout=timeout)

    def check_stored(self, response: Response) -> None:
        """Hold the answer to a commit to the digest.

        Raises:
            ProtocolError: the registry stored something else.
        """
        response.finish()
        said = response.headers.get("docker-content-digest")
        if said is not None and is_another(said, self.descriptor.digest):
            raise ProtocolError(f"{self.subject}: {self.client.origin} stored it as {said[:80]!r}")

    def is_there(self) -> bool:
        """Tell whether the repository is known to have the blob; its refusal to say so is no answer, and no failure.

        Raises:
            TransferKitError: there is no answer now, and another attempt may get one.
        """
        try:
            return exists(self.endpoint, self.descriptor, self.flow, writes=True)
        except RegistryError as error:
            if error.retryable or isinstance(error, RateLimitedError):
                raise
            return False


class UploadSession(ABC):
    """An upload under way. What is there is not sent again by the next attempt at its blob."""

    def __init__(self, url: str) -> None:
        self.url = url
        """Where its next request goes; absolute."""
        self.confirmed = 0
        """Bytes that are there."""
        self.resumed = False
        """Whether it has been through an attempt that failed."""
        self.stalled = False
        """Whether that attempt ended in silence."""

    @abstractmethod
    def resume(self, upload: Upload) -> bool:
        """Find out how far it is, after an attempt that failed; ``False`` where it cannot be gone on with.

        Raises:
            TransportError, RegistryError: there is no answer now, and another attempt may get one.
        """

    @abstractmethod
    def send(self, upload: Upload) -> Outcome:
        """Send what is missing, and end the session.

        Raises:
            StartAgain: another session is needed.
            RegistryError, TransportError, ProtocolError: the registry refused, or a connection did not hold.
        """


Begin = Callable[[Upload], UploadSession | Outcome]
"""Begins a session, unless the registry mounts the blob instead, or says that it has it."""


class Uploads:
    """The uploads to one repository: the sessions under way, and what was heard. Thread-safe, one thread a blob."""

    def __init__(self, endpoint: Endpoint, begin: Begin) -> None:
        self._endpoint = endpoint
        self._begin_session = begin
        self._probe = ExistenceProbe()
        self._under_way: dict[Digest, UploadSession] = {}

    @contextmanager
    def attempt(self, descriptor: Descriptor, source: Fetcher, flow: Flow) -> Iterator[Upload]:
        """Make one attempt at a blob. Where it fails, and another one may not, its session is kept for that."""
        try:
            with closing(Content(source, descriptor, flow)) as content:
                yield Upload(self._endpoint, descriptor, content, flow)
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

    def begin(self, upload: Upload) -> UploadSession | Outcome:
        """Return the session to send to, or how the blob came to be there without one."""
        if self._probe.pays(upload.descriptor):
            is_there = upload.is_there()
            self._probe.heard(is_there=is_there)
            if is_there:
                return Outcome.PRESENT
        session = self._under_way.get(upload.descriptor.digest)
        if session is None or not session.resume(upload):
            return self._begin(upload)
        upload.flow.counter.set_position(session.confirmed)
        return session

    def begin_again(self, upload: Upload, error: TransferKitError) -> UploadSession | Outcome:
        """Begin another session; ``error`` says why the last one was of no use, and is raised after the fourth one."""
        if upload.sessions == _SESSIONS:
            self._under_way.pop(upload.descriptor.digest, None)
            raise error from error.__cause__
        return self._begin(upload)

    def _begin(self, upload: Upload) -> UploadSession | Outcome:
        digest = upload.descriptor.digest
        self._under_way.pop(digest, None)
        upload.flow.counter.set_position(0)
        upload.sessions += 1
        begun = self._begin_session(upload)
        if isinstance(begun, UploadSession) and upload.descriptor.size >= _WORTH_RESUMING:
            self._under_way[digest] = begun
        return begun


def status_of(error: RegistryError | NotFoundError) -> int:
    """Return the status of a refusal."""
    return error.status if isinstance(error, RegistryError) else 404
