"""Upload sessions of the OCI specification: one streamed request, or parts of it.

Parts are sent where the user wants them, and where the registry refuses the one request (413). What the registry says
that it has is compared with what was sent. After a failure the session is asked how far it is, and goes on from there.
"""

from __future__ import annotations

from transferkit.content.interfaces import Outcome
from transferkit.errors import (
    DeniedError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    RegistryError,
    TransferKitError,
    UnauthorizedError,
)
from transferkit.names import check_repository
from transferkit.protocol import routes
from transferkit.protocol.upload import SMALLEST_PART, commit_url, part_range, received, smallest_part
from transferkit.remote.upload import EMPTY, OCTETS, StartAgain, Upload, UploadSession, status_of
from transferkit.transport.request import Request
from transferkit.transport.response import Response

_PART = 64 * SMALLEST_PART  # where nobody says: below the 100 MB that the common proxies before registries take
_SHRINK = 4  # a part that is too large is followed by parts of a fourth: 64 MiB, 16, 4, 1
_WORTH_A_STALL = 64 * 1024 * 1024  # bytes that are not sent again in the 10 s that another stall would take
_OUT_OF_ORDER = 3  # answers (416) that are asked about: the rest of a broken request may still arrive
# A commit may be refused because another client has just committed the same blob.
_MAYBE_THERE = frozenset({400, 403, 404, 409})


class PartRules:
    """What is known of the parts that one registry takes. Thread-safe: two threads that learn it learn the same."""

    def __init__(self, wanted: int | None = None) -> None:
        self.wanted = wanted
        """Bytes that larger blobs are to be cut to; ``None``: not unless the registry demands it."""
        self.refused: int | None = None
        """The shortest body that it refused with 413."""
        self.taken = True
        """Whether it takes parts at all."""

    def demanded(self, size: int) -> bool:
        """Tell whether a blob is too large for one request."""
        return self.refused is not None and size >= self.refused

    def length(self, size: int, minimum: int) -> int:
        """Return the length of a blob's parts, at least ``minimum``; 0 for a single request."""
        wanted = self.wanted is not None and size > self.wanted and self.taken
        if not (wanted or self.demanded(size)):
            return 0
        part = self.wanted or _PART
        while self.refused is not None and part >= self.refused and part > SMALLEST_PART:
            part = max(part // _SHRINK, SMALLEST_PART)
        return max(part, minimum)

    def refuse(self, length: int) -> None:
        """Take in that a body was too long."""
        self.refused = min(length, self.refused or length)


def begin(upload: Upload, rules: PartRules) -> UploadSession | Outcome:
    """Begin a session, unless the registry mounts the blob.

    Raises:
        ProtocolError: the session is where no request may go, or ended before it began.
    """
    descriptor, endpoint = upload.descriptor, upload.endpoint
    response = None
    if descriptor.source:
        source = check_repository(descriptor.source)
        path = routes.mount(endpoint.name, descriptor.digest, source)
        try:
            response = _post(upload, path, scope=routes.push_scope(endpoint.name, source))
        except (RegistryError, NotFoundError) as error:
            # What cannot be mounted is sent: some registries know no mount, or the source is not ours to read, and then
            # the token service may refuse the wider scope too.
            if error.retryable or isinstance(error, RateLimitedError):
                raise
        if response is not None and response.status == 201:
            return Outcome.MOUNTED
    response = response or _post(upload, routes.uploads(endpoint.name))
    if response.status == 201:
        raise ProtocolError(f"{upload.subject}: {upload.client.origin} says 201 to an upload that was only begun")
    minimum = smallest_part(response.headers.get("oci-chunk-min-length"))
    url = upload.client.locate(response.url, response.headers.get("location"))
    return OCISession(url, minimum=minimum, part=rules.length(descriptor.size, minimum), rules=rules)


def _post(upload: Upload, path: str, **scope: str) -> Response:
    request = upload.request(method="POST", url=path, ok=(201, 202), headers=EMPTY, **scope)
    with upload.client.send(request, upload.flow) as response:
        response.finish()
    return response


class OCISession(UploadSession):
    """A session of the specification's kind."""

    def __init__(self, url: str, *, minimum: int, part: int, rules: PartRules) -> None:
        super().__init__(url)
        self._minimum = minimum  # bytes of the smallest part that the registry takes, but for the last one
        self._part = part  # bytes; 0 for a single request
        self._rules = rules
        self._sent = 0  # the end of what was ever begun to be sent: the registry cannot have more
        self._asked = -1  # how far it was when it was asked last

    def resume(self, upload: Upload) -> bool:
        before = self._asked
        # After silence, a registry that has not noticed the end of that request may still hold the session for it: that
        # is risked once, and where there is something to gain.
        return self._ask(upload) and not (self.stalled and self.confirmed <= max(before, _WORTH_A_STALL))

    def _ask(self, upload: Upload) -> bool:
        """Ask the registry how far it is; ``False`` where that cannot be gone on with."""
        request = upload.request(method="GET", url=self.url, ok=(200, 202, 204))
        try:
            with upload.client.send(request, upload.flow) as response:
                position = received(response.headers.get("range"), sent=self._sent)
                response.finish()
        except (RegistryError, NotFoundError) as error:
            if error.retryable:
                raise
            # 404: it is gone. docker-registry 2 itself ends a session that broke in the middle of a body: its size is
            # not the one that the URL was signed for.
            return False
        if position is None or position > self._sent:
            return False
        self._go_to(upload, response, position)
        self._asked = position
        return True

    def _go_to(self, upload: Upload, response: Response, position: int) -> None:
        location = response.headers.get("location")
        if location:
            self.url = upload.client.locate(response.url, location)
        self.confirmed = position
        upload.flow.counter.set_position(position)

    def send(self, upload: Upload) -> Outcome:
        size = upload.descriptor.size
        questions = _OUT_OF_ORDER
        while True:
            start = self.confirmed
            is_final = not self._part or start == size
            end = size if is_final else min(start + self._part, size)
            request = self._request(upload, start, end, is_final=is_final)
            try:
                with upload.client.send(request, upload.flow) as response:
                    if is_final:
                        upload.check_stored(response)
                        return Outcome.MOVED
                    response.finish()
            except (RegistryError, NotFoundError) as error:
                if status_of(error) == 416 and questions:
                    questions -= 1
                    self.resumed = True  # what it has is not what was counted here
                    if self._ask(upload):
                        continue
                if is_final and status_of(error) in _MAYBE_THERE and upload.is_there():
                    return Outcome.PRESENT
                self._judge(upload, error, end - start, is_final=is_final)
            else:
                self._took(upload, response, start, end)

    def _request(self, upload: Upload, start: int, end: int, *, is_final: bool) -> Request:
        """Return the request for the bytes from ``start`` to ``end``."""
        url = commit_url(self.url, upload.descriptor.digest) if is_final else self.url
        if start == end and start:
            return upload.commit(url)
        body = upload.body(start, end)
        self._sent = max(self._sent, end)
        headers = {**OCTETS, "Content-Range": part_range(start, end)} if start or not is_final else OCTETS
        if is_final:
            return upload.commit(url, headers=headers, body=body)
        # 201 and 204 are not the specification's answer; what counts is the Range.
        return upload.request(method="PATCH", url=url, ok=(201, 202, 204), headers=headers, body=body)

    def _took(self, upload: Upload, response: Response, start: int, end: int) -> None:
        """Take in what the registry says that it has after a part."""
        got = received(response.headers.get("range"), sent=end)
        if got is not None and got > end:
            raise ProtocolError(f"{upload.subject}: {upload.client.origin} has {got} bytes, and was sent {end}")
        # ECR answers 201 to a part that it drops, and repeats the Range that it gave for the first one.
        if got is None or got <= start:
            how = f"dropped the part from {start} to {end - 1}"
            self._give_up_parts(upload, ProtocolError(f"{upload.subject}: {upload.client.origin} {how}"), how)
        else:
            self._go_to(upload, response, got)

    def _judge(self, upload: Upload, error: RegistryError | NotFoundError, length: int, *, is_final: bool) -> None:
        """Find out whether a refusal is one of the blob, or of the way it was sent; return to send smaller parts.

        Raises:
            StartAgain: another session, or another way, may be taken.
            RegistryError, NotFoundError: ``error``, where it is final.
        """
        status = status_of(error)
        if error.retryable or isinstance(error, (UnauthorizedError, DeniedError)):
            raise error
        if status == 413 and not is_final:
            smaller = max(length // _SHRINK, SMALLEST_PART, self._minimum)
            if smaller < length:
                self._rules.refuse(length)
                self._part = smaller
                upload.flow.counter.set_position(self.confirmed)
                return
        elif status == 413:
            if length > SMALLEST_PART:
                self._rules.refuse(length)
                if not self._rules.taken:
                    self._give_up_parts(upload, error, "does not take them")
                raise StartAgain(error) from error
        elif self.resumed or (status == 404 and self.confirmed):
            # It is gone, or holds something else than we take it for.
            raise StartAgain(error) from error
        elif self._part:
            self._give_up_parts(upload, error, f"refuses them ({status})")
        raise error

    def _give_up_parts(self, upload: Upload, error: TransferKitError, how: str) -> None:
        """Send no more parts to this registry.

        Raises:
            StartAgain: a single request is still to be tried.
            ProtocolError: it has refused that already.
        """
        self._rules.taken = False
        if self._rules.demanded(upload.descriptor.size):
            raise ProtocolError(
                f"{upload.subject}: {upload.client.origin} wants an upload in parts (413), and {how}"
            ) from error
        raise StartAgain(error) from error
