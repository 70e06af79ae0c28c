"""Where the parts of a blob are asked for: found once for all threads, and again when it has expired."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.unit.remote.rig import BLOB, BLOB_PATH, PART, WHERE, Flow, all_parts, part, take, targets
from tests.unit.transport.rig import client_of
from transferkit.errors import BlobNotFoundError, CancelledError, ConnectError, RegistryError, ServerError
from transferkit.remote.blob_url import BlobURL, Target
from transferkit.remote.endpoint import Endpoint
from transferkit.remote.repository import Repository
from transferkit.testing import RawRequest, answer, never, scripted_server
from transferkit.transport.flight import SingleFlight

# -- storage behind a redirect


class Front:
    """A registry that redirects to a storage; ``good`` is the only signature that the storage takes."""

    def __init__(self, refusal: int = 403) -> None:
        self.good = 1
        self.given = 1
        self.refusal = refusal
        self.storage = scripted_server(self.store)
        self.registry = scripted_server(self.redirect)

    def redirect(self, request: RawRequest) -> bytes:
        return answer(307, b"", {"Location": f"{self.storage.url}/blob?X-Signature={self.given}"})

    def store(self, request: RawRequest) -> bytes:
        if request.target != f"/blob?X-Signature={self.good}":
            return answer(self.refusal, b"<Error>Request has expired</Error>")
        return part(request, ETag='"storage"')

    def __enter__(self) -> Front:
        self.storage.__enter__()
        self.registry.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.registry.__exit__(*error)
        self.storage.__exit__(*error)


def test_a_redirect_is_resolved_once_for_all_threads(repository_of: Any) -> None:
    with Front() as front:
        repository = repository_of(front.registry.url, token="secret")
        all_parts(repository)
        all_parts(repository)
        assert targets(front.registry) == [BLOB_PATH]
        assert targets(front.storage) == ["/blob?X-Signature=1"] * 16
        assert not any("authorization" in request.headers for request in front.storage.requests)
        pinned = [request.headers.get("if-match") for request in front.storage.requests]
        assert pinned == [None] + 15 * ['"storage"']


@pytest.mark.parametrize("refusal", [400, 401, 403])
def test_an_expired_url_is_resolved_again_once_for_all_threads(repository_of: Any, refusal: int) -> None:
    with Front(refusal) as front:
        repository = repository_of(front.registry.url)
        all_parts(repository)
        for signature in (2, 3):
            front.good = front.given = signature
            all_parts(repository)
        assert targets(front.registry) == [BLOB_PATH] * 3


def test_a_refusal_by_a_fresh_url_is_final(repository_of: Any, flow: Flow) -> None:
    with Front() as front:
        repository = repository_of(front.registry.url)
        take(repository)
        front.good = 99
        with pytest.raises(RegistryError, match=r"/blob: registry responded with status 403") as caught:
            repository.fetch_range(BLOB, PART, flow=flow)
        # The part before, and the client's own two: it takes the first refusal behind a redirect for an old URL.
        assert len(front.registry.requests) == 3
    assert not caught.value.retryable
    assert "Signature" not in str(caught.value)
    assert flow.held == set()


def test_other_refusals_of_a_storage_do_not_ask_the_registry_again(repository_of: Any, flow: Flow) -> None:
    with Front(503) as front:
        repository = repository_of(front.registry.url)
        take(repository)
        front.good = 99
        with pytest.raises(ServerError, match="responded with status 503"):
            repository.fetch_range(BLOB, PART, flow=flow)
        assert len(front.registry.requests) == 1


def test_a_refusal_by_the_registry_itself_is_final(repository_of: Any, flow: Flow) -> None:
    with scripted_server([part, lambda _: answer(403)]) as server:
        repository = repository_of(server.url)
        take(repository)
        with pytest.raises(RegistryError, match="responded with status 403"):
            repository.fetch_range(BLOB, PART, flow=flow)
        assert len(server.requests) == 2


def test_a_storage_that_cannot_be_reached_any_more_is_left(repository_of: Any, flow: Flow) -> None:
    with Front() as front:
        repository = repository_of(front.registry.url)
        take(repository)
        gone = front.storage
        gone.__exit__(None, None, None)
        front.storage = scripted_server(front.store)
        front.storage.__enter__()
        with pytest.raises(ConnectError):
            repository.fetch_range(BLOB, PART, flow=flow)
        take(repository)
        assert len(front.registry.requests) == 2


def test_a_redirect_on_the_registry_itself_is_not_kept(repository_of: Any) -> None:
    def reply(request: RawRequest) -> bytes:
        return part(request) if request.target == "/storage" else answer(302, b"", {"Location": "/storage"})

    with scripted_server(reply) as server:
        repository = repository_of(server.url, token="secret")
        take(repository)
        take(repository)
    assert targets(server) == 2 * [BLOB_PATH, "/storage"]
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer secret"}


# -- waiting for the one who asks


def fetch_in_thread(pool: ThreadPoolExecutor, repository: Repository, flow: Flow) -> Any:
    return pool.submit(repository.fetch_range, BLOB, PART, flow=flow)


def test_those_who_waited_share_a_failure_and_those_who_come_later_ask_again(repository_of: Any) -> None:
    waiting = threading.Event()

    def reply(request: RawRequest) -> Any:
        waiting.wait(10)
        return answer(500)

    with scripted_server(reply) as server, ThreadPoolExecutor(8) as pool:
        repository = repository_of(server.url)
        futures = [fetch_in_thread(pool, repository, Flow()) for _ in range(8)]
        time.sleep(0.2)
        waiting.set()
        errors = [future.exception(10) for future in futures]
        assert [type(error) for error in errors] == [ServerError] * 8
        assert len({id(error) for error in errors}) == 8
        assert len(server.requests) == 1
        with pytest.raises(ServerError):
            take(repository)
        assert len(server.requests) == 2


def test_a_wait_ends_when_its_flow_is_cut(repository_of: Any) -> None:
    with scripted_server([never()]) as server, ThreadPoolExecutor(2) as pool:
        repository = repository_of(server.url)
        asking, waiting = Flow(), Flow()
        leader = fetch_in_thread(pool, repository, asking)
        while not server.requests:
            time.sleep(0.005)
        waiter = fetch_in_thread(pool, repository, waiting)
        time.sleep(0.05)
        waiting.cut()
        with pytest.raises(CancelledError):
            waiter.result(1)
        asking.cut()
        with pytest.raises(CancelledError):
            leader.result(1)


def test_when_the_one_who_asks_is_cut_another_asks(repository_of: Any) -> None:
    with scripted_server([never(), part]) as server, ThreadPoolExecutor(2) as pool:
        repository = repository_of(server.url)
        asking = Flow()
        leader = fetch_in_thread(pool, repository, asking)
        while not server.requests:
            time.sleep(0.005)
        waiter = pool.submit(take, repository)
        time.sleep(0.05)
        asking.cut()
        with pytest.raises(CancelledError):
            leader.result(1)
        waiter.result(5)


# -- the turn to ask


class Waiter(Flow):
    """While it waits, the one who asks fails with ``error``, and then ``another`` has the turn if it is given."""

    def __init__(self, flight: SingleFlight, error: BaseException, *, another: bool) -> None:
        super().__init__()
        self._flight = flight
        self._error = error
        self._another = another
        self._asking = flight.turn(Flow())
        self._asking.__enter__()

    def wait(self, seconds: float, why: str = "") -> None:
        self._asking.__exit__(type(self._error), self._error, None)
        if self._another:
            with self._flight.turn(Flow()):
                pass


def test_who_waited_shares_a_failure() -> None:
    flight = SingleFlight()
    with pytest.raises(ServerError, match="down"), flight.turn(Waiter(flight, ServerError("down"), another=False)):
        pytest.fail("it had the turn")


def test_an_answer_that_was_found_meanwhile_stands_against_the_failure_before() -> None:
    flight, turns = SingleFlight(), []
    with flight.turn(Waiter(flight, ServerError("down"), another=True)):
        turns.append("had")
    assert ["had"] == turns


def test_what_is_no_failure_of_the_server_is_not_shared() -> None:
    flight, turns = SingleFlight(), []
    with flight.turn(Waiter(flight, KeyboardInterrupt(), another=False)):
        turns.append("had")
    assert ["had"] == turns


# -- the URL as a value


@pytest.fixture
def url() -> Iterator[BlobURL]:
    with client_of("http://registry.test") as client:
        yield BlobURL(Endpoint(client, WHERE), BLOB)


def test_a_part_is_asked_of_the_registry_while_nothing_else_is_known(url: BlobURL) -> None:
    request = url.request(PART)
    assert (request.method, request.url, request.headers) == ("GET", BLOB_PATH, {"Range": "bytes=100-299"})
    assert (request.scope, request.subject) == (f"repository:{WHERE}:pull", "sha256:785b0751fc2c")
    assert request.missing is BlobNotFoundError


def test_a_part_is_asked_of_the_target_with_the_tag_that_is_pinned(url: BlobURL) -> None:
    target = Target("http://storage.test/b?sig=1", foreign=True)
    assert url.check_version(target, '"one"')
    request = url.request(PART, target)
    assert request.url == "http://storage.test/b?sig=1"
    assert request.headers == {"Range": "bytes=100-299", "If-Match": '"one"'}
    assert not url.check_version(target, '"two"')
    url.pins = False
    assert url.check_version(target, '"two"')


def test_a_list_that_names_the_registry_changes_where_it_is_asked(url: BlobURL) -> None:
    url.target = Target("http://storage.test/b", foreign=True)
    url.follow("http://registry.test/v2/elsewhere")
    assert (url.target, url.request(PART).url) == (None, "http://registry.test/v2/elsewhere")
    url.follow("http://storage.test/c")
    assert url.target is not None
    assert (url.target.url, url.target.foreign) == ("http://storage.test/c", True)
