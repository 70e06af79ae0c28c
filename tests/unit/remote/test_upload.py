"""One attempt at an upload: its content, opened where a request's body begins; and the session that it sends to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.remote.rig import BLOB, WHERE, Flow, Source
from tests.unit.transport.rig import client_of
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Outcome
from transferkit.errors import CancelledError, ProtocolError, ReadError, ServerError, StalledError, TransferKitError
from transferkit.remote.endpoint import Endpoint
from transferkit.remote.repository import Repository
from transferkit.remote.upload import StartAgain, Upload, Uploads, UploadSession
from transferkit.testing import scripted_server

DATA = bytes(range(256)) * 4096
DESCRIPTOR = Descriptor("sha256:" + 64 * "a", len(DATA))
ABSENT = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
THERE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with scripted_server(lambda _: ABSENT) as server, client_of(server) as client:
        yield Endpoint(client, WHERE)


@pytest.fixture
def upload(endpoint: Endpoint, flow: Flow) -> Callable[..., Upload]:
    return lambda source: Upload(Uploads(endpoint, lambda _: Outcome.MOVED), DESCRIPTOR, source, flow)


# -- content


def test_content_that_was_looked_for_is_not_fetched_twice(upload: Any, flow: Flow) -> None:
    source = Source(DATA)
    with upload(source) as attempt:
        attempt.seek(5)
        assert DATA[5:10] == bytes(flow.buffer[: attempt.content(5).readinto(flow.buffer[:5])])
        assert source.fetched == [5]
        # A redirect: from the same place once more.
        assert DATA[5:10] == bytes(flow.buffer[: attempt.content(5).readinto(flow.buffer[:5])])
        assert source.fetched == [5, 5]
        assert source.open == 1
    assert source.open == 0


@pytest.mark.parametrize("offset", [0, 1, 70_000, 300_000, len(DATA)])
def test_what_a_source_cannot_leave_out_is_thrown_away(upload: Any, flow: Flow, offset: int) -> None:
    with upload(Source(DATA, resumes=False)) as attempt:
        count = attempt.content(offset).readinto(flow.buffer)
        assert DATA[offset : offset + 64 * 1024] == bytes(flow.buffer[:count])


def test_a_source_that_ends_before_is_a_read_error(upload: Any) -> None:
    with upload(Source(DATA, resumes=False, ends_at=1000)) as attempt:
        with pytest.raises(ReadError, match="ended 1000 bytes early"):
            attempt.seek(2000)


def test_throwing_away_can_be_cancelled(upload: Any, flow: Flow) -> None:
    source = Source(DATA, resumes=False)
    flow.cut()
    with upload(source) as attempt:
        with pytest.raises(CancelledError):
            attempt.seek(2000)
    assert source.open == 0


# -- sessions


class Session(UploadSession):
    """A session that fails as it is told to."""

    def __init__(self, *failures: Exception, resumes: bool = True) -> None:
        super().__init__("http://registry.test/session")
        self.failures = list(failures)
        self.resumes = resumes
        self.asked: list[tuple[bool, bool]] = []

    def resume(self, upload: Upload) -> bool:
        self.asked.append((self.resumed, self.stalled))
        return self.resumes

    def send(self, upload: Upload) -> Outcome:
        self.confirmed += 1000
        upload.flow.counter.set_position(self.confirmed)
        if self.failures:
            raise self.failures.pop(0)
        return Outcome.MOVED


def attempt_at(uploads: Uploads, descriptor: Descriptor, flow: Flow) -> Outcome:
    """Make one attempt, as a repository with these uploads does."""
    repository: Any = SimpleNamespace(_uploads=uploads)
    return Repository.push(repository, descriptor, Source(), flow=flow)


def test_a_session_goes_on_in_the_next_attempt(endpoint: Endpoint, flow: Flow) -> None:
    session = Session(ServerError("busy"), StalledError("silent"), ReadError("reset"))
    begun = [session]
    uploads = Uploads(endpoint, lambda _: begun.pop())
    for error in (ServerError, StalledError, ReadError):
        with pytest.raises(error):
            attempt_at(uploads, DESCRIPTOR, flow)
    assert flow.counter.position == 3000  # the count stays until the registry has said what is there
    assert attempt_at(uploads, DESCRIPTOR, flow) is Outcome.MOVED
    assert session.asked == [(True, False), (True, True), (True, False)]
    assert flow.counter.position == len(DATA)


@pytest.mark.parametrize("error", [ProtocolError("no"), KeyboardInterrupt(), CancelledError("enough")])
def test_a_session_that_ended_for_good_is_forgotten(endpoint: Endpoint, flow: Flow, error: BaseException) -> None:
    begun = [Session(), Session(error)]  # type: ignore[arg-type]  # a KeyboardInterrupt is no Exception
    uploads = Uploads(endpoint, lambda _: begun.pop())
    with pytest.raises(type(error)):
        attempt_at(uploads, DESCRIPTOR, flow)
    assert flow.counter.position == 0
    assert attempt_at(uploads, DESCRIPTOR, flow) is Outcome.MOVED
    assert begun == []


def test_a_session_that_cannot_be_gone_on_with_is_followed_by_another(endpoint: Endpoint, flow: Flow) -> None:
    begun = [Session(), Session(ServerError("busy"), resumes=False)]
    uploads = Uploads(endpoint, lambda _: begun.pop())
    with pytest.raises(ServerError):
        attempt_at(uploads, DESCRIPTOR, flow)
    assert attempt_at(uploads, DESCRIPTOR, flow) is Outcome.MOVED
    assert begun == []


def test_a_small_blob_is_sent_anew(endpoint: Endpoint, flow: Flow) -> None:
    begun = [Session(), Session(ServerError("busy"))]
    uploads = Uploads(endpoint, lambda _: begun.pop())
    with pytest.raises(ServerError):
        attempt_at(uploads, BLOB, flow)
    assert flow.counter.position == 0
    assert attempt_at(uploads, BLOB, flow) is Outcome.MOVED


def test_four_sessions_are_begun_in_one_attempt(endpoint: Endpoint, flow: Flow) -> None:
    errors: list[TransferKitError] = [ProtocolError(f"number {number}") for number in range(4)]
    begun = [Session(StartAgain(error)) for error in reversed(errors)]
    uploads = Uploads(endpoint, lambda _: begun.pop())
    with pytest.raises(ProtocolError, match="number 3") as caught:
        attempt_at(uploads, DESCRIPTOR, flow)
    assert caught.value is errors[3]
    assert flow.counter.position == 0
    assert begun == []


def test_a_blob_that_is_there_begins_no_session(flow: Flow) -> None:
    with scripted_server([THERE % len(DATA)]) as server, client_of(server) as client:
        uploads = Uploads(Endpoint(client, WHERE), lambda _: pytest.fail("a session was begun"))
        assert attempt_at(uploads, DESCRIPTOR, flow) is Outcome.PRESENT
    assert flow.counter.position == len(DATA)


def test_after_a_failure_the_registry_is_asked_again(flow: Flow) -> None:
    begun = [Session(), Session(ServerError("busy"))]
    with scripted_server(lambda _: ABSENT) as server, client_of(server) as client:
        uploads = Uploads(Endpoint(client, WHERE), lambda _: begun.pop())
        for _ in range(16):
            uploads.presence.was_absent()
        with pytest.raises(ServerError):
            attempt_at(uploads, BLOB, flow)
        assert [] == server.requests
        assert attempt_at(uploads, BLOB, flow) is Outcome.MOVED
        assert ["HEAD"] == [request.method for request in server.requests]
