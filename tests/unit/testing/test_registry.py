"""The registry that other tests run against: over a real socket, and what its log says."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
import trustme

import transferkit.testing
from tests.descriptors import open_descriptors
from transferkit.errors import InvalidDigestError
from transferkit.testing import LoggedRequest, RunningRegistry, running_registry

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@pytest.fixture
def registry() -> Iterator[RunningRegistry]:
    with running_registry() as registry:
        yield registry


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def push(registry: RunningRegistry, session: requests.Session, data: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    answer = session.post(f"{registry.url}/v2/library/model/blobs/uploads/", params={"digest": digest}, data=data)
    assert answer.status_code == 201
    return digest


def test_a_whole_conversation(registry: RunningRegistry, session: requests.Session) -> None:
    data = os.urandom(3_000_000)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    base = f"{registry.url}/v2/library/model"

    location = session.post(f"{base}/blobs/uploads/").headers["Location"]
    for start in (0, 1_000_000):
        part = data[start : start + 1_000_000]
        answer = session.patch(
            registry.url + location, data=part, headers={"Content-Range": f"{start}-{start + len(part) - 1}"}
        )
        assert answer.status_code == 202
        location = answer.headers["Location"]
    rest = (data[start : start + 100_000] for start in range(2_000_000, 3_000_000, 100_000))  # sent in chunks
    assert session.put(f"{registry.url}{location}&digest={digest}", data=rest).status_code == 201
    manifest = b'{"schemaVersion":2,"layers":[{"digest":"%b","size":3000000}]}' % digest.encode()
    assert session.put(f"{base}/manifests/latest", data=manifest).status_code == 201

    assert data == session.get(f"{base}/blobs/{digest}").content
    assert data[5:500_000] == session.get(f"{base}/blobs/{digest}", headers={"Range": "bytes=5-499999"}).content
    assert manifest == session.get(f"{base}/manifests/latest").content
    assert data == registry.blob_path(digest).read_bytes()


def test_the_log_says_what_was_asked_and_answered(registry: RunningRegistry, session: requests.Session) -> None:
    push(registry, session, b"hello")
    session.get(f"{registry.url}/v2/library/model/blobs/{HELLO}", headers={"X-Mark": "one"})
    session.head(f"{registry.url}/v2/library/model/blobs/{HELLO}")
    session.get(f"{registry.url}/v2/library/m%6Fdel/tags/list?n=1")

    posted, got, head, tags = registry.log
    assert (posted.method, posted.path, posted.status) == ("POST", "/v2/library/model/blobs/uploads/", 201)
    assert (posted.received, posted.sent) == (5, 0)
    assert "digest=sha256%3A" + HELLO[7:] == posted.query
    assert posted.headers["content-length"] == "5"
    assert (got.method, got.status, got.received, got.sent, got.headers["x-mark"]) == ("GET", 200, 0, 5, "one")
    assert (head.method, head.status, head.sent) == ("HEAD", 200, 0)
    assert (tags.path, tags.query) == ("/v2/library/model/tags/list", "n=1")
    assert tags.sent == 34


def test_the_log_is_a_list(registry: RunningRegistry, session: requests.Session) -> None:
    log = registry.log
    assert (len(log), repr(log)) == (0, "<RequestLog: >")
    session.get(f"{registry.url}/v2/")
    session.head(f"{registry.url}/v2/a/blobs/{HELLO}")

    assert (len(log), log[0].method, [request.method for request in log[1:]]) == (2, "GET", ["HEAD"])
    assert (
        log.count(),
        log.count("GET"),
        log.count(path_contains="/blobs/"),
        log.count("GET", "/blobs/"),
        log.count(method="HEAD", path_contains=HELLO),
    ) == (2, 1, 1, 0, 1)
    assert f"<RequestLog: GET /v2/ 200, HEAD /v2/a/blobs/{HELLO} 404>" == repr(log)
    log.clear()
    assert list(log) == []


def test_a_record_cannot_be_changed(registry: RunningRegistry, session: requests.Session) -> None:
    session.get(f"{registry.url}/v2/")
    with pytest.raises(AttributeError):
        registry.log[0].status = 500  # type: ignore[misc]  # that is the point


def test_a_request_is_in_the_log_before_its_answer_has_ended() -> None:
    looked = threading.Event()

    class Body(list[bytes]):
        def close(self) -> None:
            assert looked.wait(10)

    def slow_to_close(application: WSGIApplication) -> WSGIApplication:
        def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Length", "2")])
            return Body([b"o", b"k"])

        return middleware

    with running_registry(middleware=slow_to_close) as registry, requests.Session() as session:
        assert session.get(f"{registry.url}/v2/").content == b"ok"
        assert [request.sent for request in registry.log] == [2]
        looked.set()


def test_who_has_an_answer_finds_its_request_in_the_log(registry: RunningRegistry, session: requests.Session) -> None:
    small, large = push(registry, session, b"x"), push(registry, session, b"x" * 1_000_000)
    registry.log.clear()
    urls = [f"{registry.url}/v2/library/model/blobs/{digest}" for digest in (small, large)]

    for n in range(1, 51):
        for url in urls:
            session.get(url)
        session.head(urls[0])
        assert 3 * n == len(registry.log)
    assert sum(request.sent for request in registry.log) == 50 * 1_000_001


def test_an_answer_that_is_cut_short_is_logged_with_what_was_sent(
    registry: RunningRegistry, session: requests.Session
) -> None:
    digest = push(registry, session, b"x" * 50_000_000)
    registry.log.clear()
    with session.get(f"{registry.url}/v2/library/model/blobs/{digest}", stream=True) as answer:
        answer.raw.read(1000)
    deadline = time.monotonic() + 10
    while not registry.log and time.monotonic() < deadline:
        time.sleep(0.01)

    (request,) = registry.log
    assert request.status == 200
    assert 1000 <= request.sent < 50_000_000


def test_a_body_that_breaks_off_is_kept_in_the_session_and_nowhere_else(
    registry: RunningRegistry, session: requests.Session
) -> None:
    begun = session.post(f"{registry.url}/v2/library/model/blobs/uploads/").headers["Location"]
    connection = HTTPConnection(registry.url.removeprefix("http://"))
    connection.putrequest("PUT", f"{begun}&digest={HELLO}")
    connection.putheader("Content-Length", "5")
    connection.endheaders(b"hel")
    connection.close()
    deadline = time.monotonic() + 10
    while len(registry.log) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)

    assert registry.log[1].received == 3
    assert not registry.blob_path(HELLO).exists()
    status = session.get(registry.url + begun)
    assert (status.status_code, status.headers["Range"]) == (204, "0-2")
    finished = session.put(f"{registry.url}{status.headers['Location']}&digest={HELLO}", data=b"lo")
    assert (finished.status_code, registry.blob_path(HELLO).read_bytes()) == (201, b"hello")


def test_a_middleware_is_between_the_log_and_the_registry() -> None:
    seen: list[str] = []

    def busy_once(application: WSGIApplication) -> WSGIApplication:
        def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            seen.append(environ["PATH_INFO"])
            if len(seen) > 1:
                return application(environ, start_response)
            start_response("503 Service Unavailable", [("Retry-After", "1")])
            return [b"bu", b"sy"]  # without a length: sent in chunks

        return middleware

    with running_registry(middleware=busy_once) as registry, requests.Session() as session:
        answers = [session.get(f"{registry.url}/v2/") for _ in range(2)]

        assert [(answer.status_code, answer.content) for answer in answers] == [(503, b"busy"), (200, b"{}")]
        assert [(request.status, request.sent) for request in registry.log] == [(503, 4), (200, 2)]


def test_a_middleware_may_fail_and_the_body_is_closed_all_the_same() -> None:
    closed = threading.Event()

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"x"
            raise ConnectionResetError

        def close(self) -> None:
            closed.set()

    def breaking(application: WSGIApplication) -> WSGIApplication:
        def middleware(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Length", "2")])
            return Body()

        return middleware

    with running_registry(middleware=breaking) as registry, requests.Session() as session:
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            session.get(f"{registry.url}/v2/")
        assert closed.wait(10)
        assert [request.sent for request in registry.log] == [1]


def test_a_store_is_kept_and_found_again(tmp_path: Path, session: requests.Session) -> None:
    with running_registry(tmp_path / "store") as registry:
        push(registry, session, b"hello")
        assert tmp_path / "store" == registry.store
    with running_registry(tmp_path / "store") as registry:
        assert session.get(f"{registry.url}/v2/library/model/blobs/{HELLO}").content == b"hello"


def test_a_temporary_store_is_removed() -> None:
    with running_registry() as registry:
        assert registry.store.is_dir()
    assert not registry.store.exists()


def test_a_port_may_be_chosen_and_is_free_again_at_once(registry: RunningRegistry) -> None:
    with running_registry() as other:
        url = other.url
    with running_registry(port=int(url.rpartition(":")[2])) as again:
        assert url == again.url


def test_blob_path_takes_nothing_but_a_digest(registry: RunningRegistry) -> None:
    assert registry.store / "blobs" / f"sha256-{HELLO[7:]}" == registry.blob_path(HELLO)
    with pytest.raises(InvalidDigestError):
        registry.blob_path("../../etc/passwd")


def test_tls_takes_a_certificate_and_its_key(tmp_path: Path, session: requests.Session) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    session.verify = str(tmp_path / "ca.pem")

    with running_registry(tls=(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))) as registry:
        assert registry.url.startswith("https://127.0.0.1:")
        data = os.urandom(1_000_000)
        digest = push(registry, session, data)
        assert data == session.get(f"{registry.url}/v2/library/model/blobs/{digest}").content


def test_many_threads_read_and_write_at_once(registry: RunningRegistry) -> None:
    blobs = {"sha256:" + hashlib.sha256(data).hexdigest(): data for data in (os.urandom(16384) for _ in range(25))}

    def ask(connection: HTTPConnection, method: str, path: str, body: bytes = b"") -> tuple[HTTPResponse, bytes]:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        return answer, answer.read()

    def work(repository: str) -> int:
        connection = HTTPConnection(registry.url.removeprefix("http://"))
        try:
            for digest, data in blobs.items():
                answer, _ = ask(connection, "POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data)
                assert answer.status == 201
            for digest, data in blobs.items():
                answer, body = ask(connection, "GET", f"/v2/{repository}/blobs/{digest}")
                assert (200, data) == (answer.status, body)
        finally:
            connection.close()
        return len(blobs)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, [f"model/{n // 2}" for n in range(16)])) == 16 * [25]  # two write to each repository
    assert len(registry.log) == 16 * 50


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_the_way_out_is_quick_and_leaves_nothing_behind() -> None:
    threads, descriptors = threading.active_count(), len(open_descriptors())
    with running_registry() as registry:
        connections = [HTTPConnection(registry.url.removeprefix("http://")) for _ in range(64)]
        for connection in connections:
            connection.request("GET", "/v2/")
            connection.getresponse().read()
        started = time.monotonic()
    duration = time.monotonic() - started
    for connection in connections:
        connection.close()

    assert duration < 0.5
    assert (threads, descriptors) == (threading.active_count(), len(open_descriptors()))


def test_what_the_package_does_not_have_is_an_attribute_error() -> None:
    assert transferkit.testing.LoggedRequest is LoggedRequest
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = transferkit.testing.Nothing  # type: ignore[attr-defined]  # that is the point
