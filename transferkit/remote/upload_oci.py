"""Upload sessions of the OCI specification: one streamed request, or parts of it.

Parts are sent where the user wants them, and where the registry refuses the one request (413). What the registry says
that it has is compared with what was sent. After a failure the session is asked how far it is, and goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transferkit.content.interfaces import Outcome
from transferkit.errors import NotFoundError, ProtocolError, RegistryError, TransferKitError
from transferkit.protocol import routes
from transferkit.protocol.upload import PartRules, commit_url, received, smallest_part
from transferkit.remote.proof import MOUNT, STATUS, SUCCESS, is_mounted
from transferkit.remote.upload import EMPTY, OCTETS, StartAgain, Upload, UploadSession, is_session_lost, status_of
from transferkit.transport.response import Response

_WORTH_A_STALL = 64 * 1024 * 1024  # bytes that are not sent again in the 10 s that another stall would take
_OUT_OF_ORDER = 3  # answers (416) that are asked about: the rest of a broken request may still arrive
_SHORT = 8  # parts in a row of which a registry took less than half, after which it gets no more parts
# A commit may be refused because another client has just committed the same blob.
_MAYBE_THERE = frozenset({400, 403, 404, 409})


def start_session(upload: Upload, rules: PartRules) -> UploadSession | Outcome:
    """Start a session, unless the registry mounts the blob."""
    source = upload.mount_source() if upload.descriptor.source else None
    if source is not None:
        try:
            return _begin(upload, rules, source)
        except TransferKitError as error:
            # What cannot be mounted is sent: some registries know no mount, or the source is not ours to read, and then
            # the token service may refuse the wider scope too.
            upload.endpoint.questions.go_without(error, MOUNT, upload.descriptor.digest, upload.flow)
    return (_at_once(upload, rules) if upload.may_go_at_once() else None) or _begin(upload, rules)


def restore_session(upload: Upload, note: dict[str, Any], rules: PartRules) -> UploadSession:
    """Return the session that a process before has left; the registry says how far it is."""
    size, minimum = upload.descriptor.size, int(note["minimum"])
    part = rules.length(size, minimum)
    return OCISession(str(note["url"]), resumed=True, rules=rules, minimum=minimum, part=part, sent=size)


def _begin(upload: Upload, rules: PartRules, source: str | None = None) -> UploadSession | Outcome:
    name, digest = upload.endpoint.name, upload.descriptor.digest
    path, scope = routes.uploads(name, digest, source), routes.push_scope(name, source)
    request = upload.request(method="POST", url=path, ok=SUCCESS, headers=EMPTY, scope=scope)
    response = upload.begin(request, source)
    if source is not None and is_mounted(response, digest) and upload.is_confirmed(response):
        return Outcome.MOUNTED
    location = response.headers.get("location")
    if response.status == 201 and (source is not None or not location):
        raise ProtocolError(f"{upload.subject}: {upload.client.origin} says 201 to an upload that was only begun")
    return _begun(upload, response, rules)


def _begun(upload: Upload, response: Response, rules: PartRules) -> UploadSession:
    minimum = smallest_part(response.headers.get("oci-chunk-min-length"))
    url = upload.client.locate(response, response.headers.get("location"))
    return OCISession(url, minimum=minimum, part=rules.length(upload.descriptor.size, minimum), rules=rules)


def _at_once(upload: Upload, rules: PartRules) -> UploadSession | Outcome | None:
    """Send a blob with the request that begins its upload: one request in the place of two. ``None``: to no avail.

    The specification lets a registry take that, or begin a plain upload (202) as if there had been no body.
    """
    descriptor = upload.descriptor
    url = f"{routes.uploads(upload.endpoint.name, descriptor.digest, None)}?digest={descriptor.digest}"
    body = upload.body(0, descriptor.size)
    request = upload.request(method="POST", url=url, ok=SUCCESS, headers=OCTETS, body=body)
    try:
        response = upload.ask(request)
    except (RegistryError, NotFoundError, ProtocolError) as error:
        if body.error is not None or error.retryable:
            raise
        upload.goes_plainly()
        return None
    if response.status == 201 and upload.went_at_once(response):
        return Outcome.MOVED
    upload.goes_plainly()
    is_begun = response.status == 202 and response.headers.get("location")
    return _begun(upload, response, rules) if is_begun else None


@dataclass(eq=False, kw_only=True)
class OCISession(UploadSession):
    """A session of the specification's kind."""

    rules: PartRules
    minimum: int  # bytes of the smallest part that the registry takes, but for the last one
    part: int  # bytes; 0 for a single request
    sent: int = 0  # the end of what was ever begun to be sent: the registry cannot have more
    asked: int = -1  # how far it was when it was asked last
    short: int = 0  # parts in a row of which it took less than half
    tells: bool = True  # whether it says how far it is, where it is asked after a part

    def note(self) -> dict[str, Any]:
        return {"minimum": self.minimum}

    def resume(self, upload: Upload) -> bool:
        before = self.asked
        # After silence, a registry that has not noticed the end of that request may still hold the session for it: that
        # is risked once, and where there is something to gain.
        return self._ask(upload) and not (self.stalled and self.confirmed <= max(before, _WORTH_A_STALL))

    def _ask(self, upload: Upload) -> bool:
        """Ask the registry how far it is; ``False`` where that cannot be gone on with."""
        questions, digest = upload.endpoint.questions, upload.descriptor.digest
        if questions.is_spent(STATUS, digest, upload.flow):
            return False
        try:
            response = upload.ask(upload.request(method="GET", url=self.url, ok=(200, 202, 204)))
        except TransferKitError as error:
            # 404: it is gone. docker-registry 2 itself ends a session that broke in the middle of a body: its size is
            # not the one that the URL was signed for.
            if not is_session_lost(error):
                questions.go_without(error, STATUS, digest, upload.flow)
            return False
        questions.answered(STATUS, digest, upload.flow)
        position = received(response.headers.get("range"), sent=self.sent)
        if position is None or position > self.sent:
            return False
        self.asked = position
        self._go_to(upload, response, position)
        return True

    def _go_to(self, upload: Upload, response: Response, position: int) -> None:
        location = response.headers.get("location")
        if location:
            self.url = upload.client.locate(response, location)
            upload.note(self)
        self.confirmed = position
        upload.flow.counter.set_position(position)

    def send(self, upload: Upload) -> Outcome:
        size = upload.descriptor.size
        questions = _OUT_OF_ORDER
        while True:
            start = self.confirmed
            is_final = not self.part or start == size
            end = size if is_final else min(start + self.part, size)
            body, headers = None, EMPTY
            if start < end or not size:
                body = upload.body(start, end)
                self.sent = max(self.sent, end)
                headers = {**OCTETS, "Content-Range": f"{start}-{end - 1}"} if start or not is_final else OCTETS
            if is_final:
                url = commit_url(self.url, upload.descriptor.digest)
                request = upload.commit(url, headers=headers, body=body)
            else:  # 202 is the specification's answer; what counts is the Range
                request = upload.request(method="PATCH", url=self.url, ok=SUCCESS, headers=headers, body=body)
            try:
                response = upload.client.send(request, upload.flow)
                if is_final:
                    upload.check_stored(response)
                    return Outcome.MOVED
                response.finish()
                self._took(upload, response, start, end)
            except (RegistryError, NotFoundError) as error:
                if body is not None and body.error is not None:
                    raise  # it is the source's, which may be a registry too
                if status_of(error) == 416 and questions:
                    questions -= 1
                    self.resumed = True  # what it has is not what was counted here
                    if self._ask(upload):
                        continue
                maybe_there = is_final and not error.retryable and status_of(error) in _MAYBE_THERE
                if maybe_there and upload.endpoint.exists(upload.descriptor, upload.flow, uploading=True):
                    return Outcome.PRESENT
                self._judge(upload, error, end - start, is_final=is_final)

    def _took(self, upload: Upload, response: Response, start: int, end: int) -> None:
        """Take in what the registry says that it has after a part.

        Some say nothing, or name that part alone (distribution-spec#213, pulp_container#2199): the session is asked,
        and where that does not tell either, it is taken at its word, but for a 201, which is none for a part. What
        came of it, the digest of the commit proves.
        """
        got = received(response.headers.get("range"), sent=end)
        asks = got is None and response.status != 201
        if asks:
            self._go_to(upload, response, end)
            self.tells = self.tells and self._ask(upload)
            got = self.confirmed
        if got is not None and got > end:
            raise ProtocolError(f"{upload.subject}: {upload.client.origin} has {got} bytes, and was sent {end}")
        # A crumb of each part would have each sent again, without an end.
        self.short = self.short + 1 if got is not None and 2 * (got - start) < end - start else 0
        # ECR answers 201 to a part that it drops, and repeats the Range that it gave for the first one.
        if got is None or got <= start or self.short == _SHORT:
            how = f"dropped the part from {start} to {end - 1}"
            self._give_up_parts(upload, ProtocolError(f"{upload.subject}: {upload.client.origin} {how}"), how)
        elif not asks:
            self._go_to(upload, response, got)

    def _judge(self, upload: Upload, error: RegistryError | NotFoundError, length: int, *, is_final: bool) -> None:
        """Return after a refusal of a part that is to become smaller; raise it where it is final, else StartAgain."""
        status = status_of(error)
        if is_session_lost(error) and (self.resumed or (status == 404 and self.confirmed)):
            raise StartAgain(error) from error
        if error.retryable or status in (401, 403):
            if is_session_lost(error):
                upload.forget()
            raise error
        if status == 413:
            smaller = self.rules.refuse(length, self.minimum)
            if not smaller:
                raise error
            if not is_final:
                self.part = smaller
                upload.flow.counter.set_position(self.confirmed)
                return
            if not self.rules.taken:
                self._give_up_parts(upload, error, "does not take them")
        elif not self.resumed:
            if not self.part:
                raise error
            self._give_up_parts(upload, error, f"refuses them ({status})")
        # Or else the session is gone, or holds something else than we take it for.
        raise StartAgain(error) from error

    def _give_up_parts(self, upload: Upload, error: TransferKitError, how: str) -> None:
        """Send no more parts to this registry: a single request is tried, unless it has refused that already."""
        self.rules.taken = False
        if self.rules.demanded(upload.descriptor.size):
            text = f"{upload.subject}: {upload.client.origin} wants an upload in parts (413), and {how}"
            raise ProtocolError(text) from error
        raise StartAgain(error) from error
