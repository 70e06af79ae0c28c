"""Pushing blobs: is it there, can it be mounted, else one session and one streamed request, or parts of it.

At most three requests for a blob that is sent in one: HEAD, POST, PUT; two where asking does not pay. Parts are sent
where the user wants them, and where the registry refuses the one request (413). A session outlives the attempt that
began it: the next one asks the registry how far it is, and goes on from there.
"""

from __future__ import annotations

from transferkit.content.descriptor import Descriptor
from transferkit.content.digest import Digest
from transferkit.content.interfaces import Fetcher, Flow, Outcome
from transferkit.errors import (
    DeniedError,
    NotFoundError,
    ProtocolError,
    RegistryError,
    StalledError,
    TransferKitError,
    UnauthorizedError,
)
from transferkit.protocol import routes
from transferkit.protocol.upload import SMALLEST_PART, commit_url, is_ollama, part_range, smallest_part
from transferkit.remote import blobs, ollama
from transferkit.remote.asking import Asking
from transferkit.remote.parts import OCTETS, Content, Job, PartDropped, Session, StartAgain, ask, send_parts
from transferkit.transport.client import Client
from transferkit.transport.request import Request
from transferkit.transport.response import Response

_PART = 64 * SMALLEST_PART  # where nobody says: below the 100 MB that the common proxies before registries take
# Bytes from which a session is worth going on with: below, asking for it costs more than the bytes do.
_WORTH_RESUMING = 1024 * 1024
_WORTH_A_STALL = 64 * 1024 * 1024  # bytes that are not sent again in the 10 s that another stall would take
_SESSIONS = 4  # that one attempt may begin: one is refused (413), one drops parts, one is gone, and a good one
_OUT_OF_ORDER = 4  # answers (416) in a row that may say "not there": the rest of a broken request may still arrive


class Uploads:
    """The uploads to one repository, with what was learnt from them. Thread-safe, for one thread a blob."""

    def __init__(self, client: Client, repository: str, *, part_size: int | None = None) -> None:
        self._client = client
        self._repository = repository
        self._part_size = part_size
        self._is_ollama = is_ollama(client.origin, client.options.ollama_hosts)
        self._asking = Asking()
        self._under_way: dict[Digest, Session | ollama.OllamaSession] = {}
        # What holds for all blobs of the registry. Two threads may learn it at the same time, and learn the same.
        self._refused: int | None = None  # the shortest body that it refused with 413
        self._takes_parts = True

    def push(self, descriptor: Descriptor, source: Fetcher, *, flow: Flow) -> Outcome:
        """Make one attempt to bring ``descriptor``'s content from ``source`` into the repository.

        Raises:
            SourceError: the source is a local file that is not what its digest says; the registry never gets the last
                byte.
            RegistryError, TransportError, ProtocolError: the registry refused, or the connection did not hold. Where
                that is worth another attempt, it goes on from what the registry has then.
        """
        # One token serves the whole upload: all requests ask for the same scope.
        scope = routes.push_scope(self._repository)
        try:
            if self._asking.pays(descriptor) and self._is_there(descriptor, scope, flow):
                outcome = Outcome.PRESENT
            else:
                with Content(source, descriptor, flow) as content:
                    job = Job(self._client, self._repository, descriptor, content, scope, flow)
                    outcome = self._push(job)
        except BaseException as error:
            self._asking.begin_again()
            session = self._under_way.get(descriptor.digest)
            if session is not None and isinstance(error, TransferKitError) and error.retryable:
                # The count stays as it is until the registry has said what of it is there.
                session.resumed = True
                if isinstance(session, Session):
                    session.stalled = isinstance(error, StalledError)
            else:
                self._under_way.pop(descriptor.digest, None)
                flow.counter.set_position(0)
            raise
        self._under_way.pop(descriptor.digest, None)
        flow.counter.set_position(descriptor.size)
        return outcome

    def _is_there(self, descriptor: Descriptor, scope: str, flow: Flow) -> bool:
        is_there = blobs.exists(self._client, self._repository, descriptor, flow=flow, scope=scope)
        self._asking.heard(is_there=is_there)
        return is_there

    def _push(self, job: Job) -> Outcome:
        sessions = 0
        while True:
            session = self._go_on(job)
            if session is None:
                sessions += 1
                begun = self._begin(job)
                if isinstance(begun, Outcome):
                    return begun
                session = begun
                if job.descriptor.size >= _WORTH_RESUMING:
                    self._under_way[job.descriptor.digest] = session
            job.flow.counter.set_position(session.confirmed)
            try:
                if isinstance(session, Session):
                    self._send(job, session)
                else:
                    ollama.send(job, session)
                return Outcome.MOVED
            except StartAgain as again:
                self._under_way.pop(job.descriptor.digest, None)
                if sessions == _SESSIONS:
                    raise again.error from again.error.__cause__
                job.flow.counter.set_position(0)

    def _go_on(self, job: Job) -> Session | ollama.OllamaSession | None:
        """Return the session that an earlier attempt began, where it can be gone on with."""
        session = self._under_way.get(job.descriptor.digest)
        # Ollama's sessions tell nobody how far they are; the storage behind them has whole parts.
        if isinstance(session, Session):
            before = session.asked
            goes_on = ask(job, session)
            # After silence, a registry that has not noticed the end of that request may still hold the session for it:
            # that is risked once, and where there is something to gain.
            if session.stalled and session.confirmed <= max(before, _WORTH_A_STALL):
                goes_on = False
            if not goes_on:
                del self._under_way[job.descriptor.digest]
                return None
        return session

    def _begin(self, job: Job) -> Session | ollama.OllamaSession | Outcome:
        """Begin a session, unless the registry mounts the blob instead."""
        if self._is_ollama:
            return ollama.begin(job)
        descriptor, client = job.descriptor, self._client
        answer: Response | None = None
        if descriptor.source:
            try:
                answer = self._post(job, routes.check_repository(descriptor.source))
            except (RegistryError, NotFoundError) as error:
                # What cannot be mounted is sent: some registries know no mount, or the source is not ours to read.
                if error.retryable or isinstance(error, UnauthorizedError):
                    raise
            if answer is not None and answer.status == 201:
                return Outcome.MOUNTED
        answer = answer or self._post(job, None)
        if answer.status == 201:
            raise ProtocolError(f"{job.what}: {client.origin} says 201 to an upload that was only begun")
        minimum = smallest_part(answer.headers.get("oci-chunk-min-length"))
        return Session(
            url=client.locate(answer.url, answer.headers.get("location")),
            minimum=minimum,
            part=self._part(descriptor.size, minimum),
        )

    def _post(self, job: Job, source: str | None) -> Response:
        path = (
            routes.mount(self._repository, job.descriptor.digest, source)
            if source
            else routes.uploads(self._repository)
        )
        request = Request(
            method="POST",
            url=path,
            headers={"Content-Length": "0"},
            ok=(201, 202),
            scope=routes.push_scope(self._repository, source),
            subject=job.what,
        )
        with self._client.send(request, job.flow) as answer:
            answer.finish()
        return answer

    def _part(self, size: int, minimum: int) -> int:
        """Return the length of a blob's parts, 0 for a single request."""
        demanded = self._demands_parts(size)
        wanted = self._part_size is not None and size > self._part_size and self._takes_parts
        if not (demanded or wanted):
            return 0
        part = self._part_size or _PART
        while self._refused is not None and part >= self._refused and part > SMALLEST_PART:
            part = max(part // 4, SMALLEST_PART)
        return max(part, minimum)

    def _demands_parts(self, size: int) -> bool:
        return self._refused is not None and size >= self._refused

    def _send(self, job: Job, session: Session) -> None:
        """Send what the registry does not have, and end the session.

        Raises:
            StartAgain: another session is needed.
        """
        for left in reversed(range(_OUT_OF_ORDER)):
            try:
                if session.part:
                    send_parts(job, session)
                    if session.refused is not None:
                        self._refused = min(session.refused, self._refused or session.refused)
                self._finish(job, session)
                return
            except PartDropped as error:
                self._give_up_parts(job, error, str(error))
            except (RegistryError, NotFoundError) as error:
                if left and _status(error) == 416:
                    session.resumed = True  # what it has is not what was counted here
                    if ask(job, session):
                        job.flow.counter.set_position(session.confirmed)
                        continue
                self._judge(job, session, error)
                raise

    def _finish(self, job: Job, session: Session) -> None:
        """End the session, with what is missing in the body."""
        size, start = job.descriptor.size, session.confirmed
        url = commit_url(session.url, job.descriptor.digest)
        if start == size and start:
            job.commit(url)
            return
        sender = job.sender(start, size)
        session.sent = size
        job.commit(
            url, headers={**OCTETS, "Content-Range": part_range(start, size)} if start else OCTETS, sender=sender
        )

    def _judge(self, job: Job, session: Session, error: RegistryError | NotFoundError) -> None:
        """Find out whether a refusal is one of the blob, or of the way it was sent; return where it is final.

        Raises:
            StartAgain: another session, or another way, may be taken.
        """
        status = _status(error)
        if error.retryable or isinstance(error, (UnauthorizedError, DeniedError)):
            return
        if status == 413:
            length = job.descriptor.size - session.confirmed
            if not session.part and length > SMALLEST_PART:
                self._refused = min(length, self._refused or length)
                if not self._takes_parts:
                    self._give_up_parts(job, error, "does not take them")
                raise StartAgain(error) from error
        elif session.resumed or (status == 404 and session.confirmed):
            # It is gone, or holds something else than we take it for.
            raise StartAgain(error) from error
        elif session.part:
            self._give_up_parts(job, error, f"refuses them ({status})")

    def _give_up_parts(self, job: Job, error: TransferKitError, how: str) -> None:
        """Send no more parts to this registry.

        Raises:
            StartAgain: a single request is still to be tried.
            ProtocolError: it has refused that already.
        """
        self._takes_parts = False
        if self._demands_parts(job.descriptor.size):
            raise ProtocolError(
                f"{job.what}: {self._client.origin} wants an upload in parts (413), and {how}"
            ) from error
        raise StartAgain(error) from error


def _status(error: RegistryError | NotFoundError) -> int:
    return error.status if isinstance(error, RegistryError) else 404
