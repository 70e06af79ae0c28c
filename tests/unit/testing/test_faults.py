"""HTTP faults before the embedded registry, seen from a plain client."""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from transferkit.testing import (
    FaultRule,
    HTTPFaults,
    RunningRegistry,
    challenge,
    corrupt,
    delay,
    encode_gzip,
    hang_up,
    html_page,
    ignore_range,
    lengthen,
    redirect,
    respond,
    running_registry,
    set_header,
    shift_range,
    truncate,
    with_faults,
)

DATA = bytes(range(251)) * 4000  # 1 MB: several blocks
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
BLOB = f"/v2/library/model/blobs/{DIGEST}"


class Client:
    """One connection to a registry, and what it answers."""

    def __init__(self, url: str) -> None:
        self.connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)

    def __call__(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body=body, headers=named)
        with self.connection.getresponse() as response:
            return response.status, response.headers, response.read()

    @property
    def port(self) -> int:
        """Of this side: another one is another connection."""
        return self.connection.sock.getsockname()[1]


@pytest.fixture
def faults() -> HTTPFaults:
    return HTTPFaults()


@pytest.fixture
def registry(faults: HTTPFaults) -> Iterator[RunningRegistry]:
    with running_registry(middleware=faults) as running:
        client = Client(running.url)
        status, _, _ = client("POST", f"/v2/library/model/blobs/uploads/?digest={DIGEST}", DATA)
        client.connection.close()
        assert status == 201
        running.log.clear()
        yield running


@pytest.fixture
def client(registry: RunningRegistry) -> Iterator[Client]:
    client = Client(registry.url)
    yield client
    client.connection.close()


def test_a_status_so_many_times_then_the_truth(faults: HTTPFaults, client: Client) -> None:
    rule = FaultRule(respond(503, "later", retry_after=7), method="GET", path="/blobs/", times=2)
    faults.set(rule)

    for _ in range(2):
        status, headers, body = client("GET", BLOB)
        assert (503, "7", "text/plain", b"later") == (status, headers["Retry-After"], headers["Content-Type"], body)
    assert (200, DATA) == client("GET", BLOB)[::2]
    assert rule.hits == 2


def test_a_rule_is_for_its_method_its_path_and_its_condition(faults: HTTPFaults, client: Client) -> None:
    rules = [
        FaultRule(respond(470), method="HEAD", path="/blobs/"),
        FaultRule(respond(471), path=re.compile(r"/manifests/v\d+$")),
        FaultRule(respond(472), where=lambda environ: "HTTP_RANGE" in environ),
        FaultRule(respond(473), path="?digest=sha256:"),
    ]
    faults.set(*rules)

    assert client("HEAD", BLOB)[0] == 470
    assert client("GET", BLOB)[0] == 200
    assert client("GET", "/v2/library/model/manifests/v12")[0] == 471
    assert client("GET", "/v2/library/model/manifests/vx")[0] == 404
    assert client("GET", BLOB, Range="bytes=0-1")[0] == 472
    assert client("POST", f"/v2/library/model/blobs/uploads/?digest={DIGEST}", DATA)[0] == 473
    assert [1, 1, 1, 1] == [rule.hits for rule in rules]


def test_skip_lets_the_first_ones_by(faults: HTTPFaults, client: Client) -> None:
    rule = FaultRule(respond(500), skip=2, times=1)
    faults.set(rule)
    assert [200, 200, 500, 200] == [client("GET", "/v2/")[0] for _ in range(4)]
    assert rule.hits == 1


def test_rules_compose_and_an_answer_hides_the_request_from_the_rules_after_it(
    faults: HTTPFaults, client: Client
) -> None:
    refusal = FaultRule(respond(500), times=1)
    header = FaultRule(set_header("X-Fault", "yes"))
    flip = FaultRule(corrupt(3))
    faults.set(refusal, header, flip)

    assert client("GET", BLOB)[0] == 500
    assert (1, 0, 0) == (refusal.hits, header.hits, flip.hits)
    _, headers, body = client("GET", BLOB)
    assert ("yes", 3 ^ 1) == (headers["X-Fault"], body[3])
    assert (1, 1, 1) == (refusal.hits, header.hits, flip.hits)


def test_rules_count_exactly_under_many_threads(faults: HTTPFaults, registry: RunningRegistry) -> None:
    rule = FaultRule(respond(503), times=50)
    faults.set(rule)

    def ask(_number: int) -> int:
        client = Client(registry.url)
        try:
            return client("GET", "/v2/")[0]
        finally:
            client.connection.close()

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(120)))
    assert (50, 70) == (statuses.count(503), statuses.count(200))
    assert rule.hits == 50


def test_an_answer_before_the_body_keeps_the_connection_in_step(faults: HTTPFaults, client: Client) -> None:
    faults.set(FaultRule(respond(401), method="PUT", times=1))
    assert client("PUT", "/v2/library/model/manifests/v1", b"GET / HTTP/1.1\r\n\r\n" * 1000)[0] == 401
    port = client.port
    assert client("GET", "/v2/")[0] == 200
    assert client.port == port


def test_an_answer_after_the_body(faults: HTTPFaults, registry: RunningRegistry, client: Client) -> None:
    faults.set(FaultRule(respond(500, read_body=True), method="POST", times=1))
    assert client("POST", "/v2/library/model/blobs/uploads/", DATA)[0] == 500
    assert registry.log[0].received == len(DATA)
    assert client("GET", "/v2/")[0] == 200


@pytest.mark.parametrize("lose", [respond(500, after_app=True), hang_up(after_app=True)])
def test_a_lost_answer_to_something_that_was_done(faults: HTTPFaults, client: Client, lose) -> None:
    data = b"hello"
    digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    faults.set(FaultRule(lose, method="POST"))
    try:
        assert client("POST", f"/v2/library/model/blobs/uploads/?digest={digest}", data)[0] == 500
    except http.client.RemoteDisconnected:
        client.connection.close()
    assert (200, data) == client("GET", f"/v2/library/model/blobs/{digest}")[::2]


def test_no_answer_at_all(
    faults: HTTPFaults, registry: RunningRegistry, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    faults.set(FaultRule(hang_up(), times=1))
    with pytest.raises(http.client.RemoteDisconnected):
        client("GET", "/v2/")
    assert len(registry.log) == 0
    client.connection.close()
    assert client("GET", "/v2/")[0] == 200
    assert [] == [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_page_of_a_gateway(faults: HTTPFaults, client: Client) -> None:
    faults.set(FaultRule(html_page(504)))
    status, headers, body = client("GET", BLOB)
    assert (504, "text/html; charset=utf-8") == (status, headers["Content-Type"])
    assert b"<h1>504 Gateway Timeout</h1>" in body


def test_redirects_are_absolute_relative_or_made_of_the_request(faults: HTTPFaults, client: Client) -> None:
    faults.set(
        FaultRule(redirect("http://127.0.0.1:9/x"), times=1),
        FaultRule(redirect("../y", status=302), times=1),
        FaultRule(redirect(lambda environ: environ["PATH_INFO"] + "/z")),
    )
    found = [client("GET", "/v2/")[:2] for _ in range(3)]
    assert [307, 302, 307] == [status for status, _ in found]
    assert ["http://127.0.0.1:9/x", "../y", "/v2//z"] == [headers["Location"] for _, headers in found]


def test_a_challenge_until_there_are_credentials(faults: HTTPFaults, client: Client) -> None:
    text = 'Bearer realm="http://127.0.0.1:9/token",service="test",scope="a,b"'
    faults.set(FaultRule(challenge(text, accept="Bearer secret")))

    status, headers, body = client("GET", BLOB)
    assert (401, text) == (status, headers["WWW-Authenticate"])
    assert b'"code":"UNAUTHORIZED"' in body
    assert client("GET", BLOB, Authorization="Bearer other")[0] == 401
    assert client("GET", BLOB, Authorization="Bearer secret")[0] == 200

    faults.set(FaultRule(challenge(text, accept=lambda given: given.startswith("Basic "))))
    assert client("GET", BLOB, Authorization="Basic eDp5")[0] == 200


def test_a_range_is_ignored(faults: HTTPFaults, client: Client) -> None:
    faults.set(FaultRule(ignore_range(), times=1))
    assert (200, DATA) == client("GET", BLOB, Range="bytes=5-9")[::2]
    assert (206, DATA[5:10]) == client("GET", BLOB, Range="bytes=5-9")[::2]


def test_a_content_range_lies(faults: HTTPFaults, client: Client) -> None:
    faults.set(FaultRule(shift_range(start=1), times=2), FaultRule(shift_range(total=-3), skip=1))
    assert client("GET", BLOB, Range="bytes=5-9")[1]["Content-Range"] == "bytes 6-10/1004000"
    assert client("GET", BLOB, Range="bytes=5-9")[1]["Content-Range"] == "bytes 6-10/1003997"
    status, headers, body = client("GET", BLOB)
    assert (200, None, DATA) == (status, headers["Content-Range"], body)


def test_headers_are_set_changed_and_dropped(faults: HTTPFaults, client: Client) -> None:
    faults.set(
        FaultRule(set_header("docker-content-digest", "sha256:" + 64 * "0"), method="HEAD"),
        FaultRule(set_header("Location", None), method="POST", times=1),
        FaultRule(set_header("Location", lambda old: f"http://127.0.0.1:9{old}"), method="POST", skip=1),
    )
    assert ["sha256:" + 64 * "0"] == client("HEAD", BLOB)[1].get_all("Docker-Content-Digest")
    _, headers, _ = client("POST", "/v2/library/model/blobs/uploads/")
    assert headers["Location"] is None
    _, headers, _ = client("POST", "/v2/library/model/blobs/uploads/")
    assert headers["Location"].startswith("http://127.0.0.1:9/v2/library/model/blobs/uploads/")


def test_without_a_length_the_answer_is_chunked(faults: HTTPFaults, client: Client) -> None:
    faults.set(FaultRule(set_header("Content-Length", None)))
    _, headers, body = client("GET", BLOB)
    assert (None, "chunked", DATA) == (headers["Content-Length"], headers["Transfer-Encoding"], body)


@pytest.mark.parametrize("size", [0, 1, 700_000])
def test_a_body_breaks_off(
    faults: HTTPFaults, registry: RunningRegistry, client: Client, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    faults.set(FaultRule(truncate(size), times=1))
    client.connection.request("GET", BLOB)
    with client.connection.getresponse() as response:
        assert (200, "1004000") == (response.status, response.headers["Content-Length"])
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
    assert caught.value.partial == DATA[:size]
    assert registry.log[0].sent == size
    client.connection.close()
    assert client("GET", BLOB)[2] == DATA
    assert [] == [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_body_is_short_and_says_so(faults: HTTPFaults, client: Client) -> None:
    faults.set(FaultRule(truncate(700_000, announce=False)))
    for _ in range(2):  # on one connection: nothing is wrong with the framing
        status, headers, body = client("GET", BLOB)
        assert (200, "700000", DATA[:700_000]) == (status, headers["Content-Length"], body)
    status, headers, body = client("GET", BLOB, Range="bytes=0-9")
    assert (206, DATA[:10]) == (status, body)


def test_a_body_is_longer_than_asked_for(faults: HTTPFaults, client: Client) -> None:
    faults.set(FaultRule(lengthen(b"more")))
    status, headers, body = client("GET", BLOB, Range="bytes=0-9")
    assert (206, "14", DATA[:10] + b"more") == (status, headers["Content-Length"], body)
    assert client("HEAD", BLOB)[1]["Content-Length"] == "1004004"
    assert client("GET", "/v2/")[0] == 200


@pytest.mark.parametrize("position", [0, 300_000, 1_003_999])
def test_one_bit_is_flipped(faults: HTTPFaults, client: Client, position: int) -> None:
    faults.set(FaultRule(corrupt(position)))
    body = client("GET", BLOB)[2]
    expected = bytearray(DATA)
    expected[position] ^= 1
    assert body == expected


def test_gzip_is_sent_or_only_claimed(faults: HTTPFaults, client: Client) -> None:
    faults.set(FaultRule(encode_gzip(), times=2), FaultRule(encode_gzip(really=False)))
    _, headers, body = client("GET", BLOB)
    assert ("gzip", DATA) == (headers["Content-Encoding"], zlib.decompress(body, wbits=31))
    assert (200, b"") == client("HEAD", BLOB)[::2]
    _, headers, body = client("GET", BLOB)
    assert ("gzip", "1004000", DATA) == (headers["Content-Encoding"], headers["Content-Length"], body)


def test_answers_without_a_body_stay_without(faults: HTTPFaults, client: Client) -> None:
    faults.set(FaultRule(lengthen(b"x")), FaultRule(encode_gzip()), FaultRule(corrupt()), FaultRule(truncate(0)))
    for _ in range(2):
        assert (304, b"") == client("GET", BLOB, If_None_Match=f'"{DIGEST}"')[::2]
    faults.set(FaultRule(respond(204)))
    assert [(204, b""), (204, b"")] == [client("GET", BLOB)[::2] for _ in range(2)]
    faults.set(FaultRule(respond(503, "text")))
    status, headers, body = client("HEAD", BLOB)
    assert (503, "4", b"") == (status, headers["Content-Length"], body)


def test_a_delay_waits_before_the_application_is_asked(faults: HTTPFaults, client: Client) -> None:
    waited: list[float] = []
    faults.set(FaultRule(delay(30.0, sleep=waited.append)))
    assert client("GET", "/v2/")[0] == 200
    assert [30.0] == waited

    release = threading.Event()
    faults.set(FaultRule(delay(30.0, sleep=release.wait)))
    client.connection.request("GET", "/v2/")
    release.set()
    assert client.connection.getresponse().read() == b"{}"


def test_an_application_with_faults_shows_its_rules() -> None:
    rule = FaultRule(respond(500), method="GET", path="/v2/", times=1)
    with running_registry(middleware=lambda app: with_faults(app, rule)) as registry:
        client = Client(registry.url)
        assert [500, 200] == [client("GET", "/v2/")[0] for _ in range(2)]
        client.connection.close()
    app = with_faults(lambda environ, start_response: [], rule)
    assert app.rules == (rule,)
    assert repr(app.faults) == "<HTTPFaults: <FaultRule method='GET' path='/v2/' times=1: 1 hits>>"


def test_an_action_of_ones_own_is_middleware(faults: HTTPFaults, client: Client) -> None:
    def upper_case(app):
        def wrapped(environ, start_response):
            return [block.upper() for block in app(environ, start_response)]

        return wrapped

    faults.set(FaultRule(upper_case))
    assert b'"CODE":"NAME_UNKNOWN"' in client("GET", "/v2/x/tags/list")[2].replace(b" ", b"")


def test_an_application_that_starts_its_answer_late() -> None:
    """A generator calls ``start_response`` when its first block is asked for."""
    started: list[tuple[str, list[tuple[str, str]]]] = []
    closed: list[bool] = []

    def app(environ, start_response):
        try:
            start_response("200 OK", [("Content-Length", "3")])
            yield b"abc"
        finally:
            closed.append(True)

    def start(status, headers, exc_info=None):
        started.append((status, headers))
        return lambda block: None

    faulty = with_faults(app, FaultRule(lengthen(b"d")), FaultRule(corrupt(0)))
    body = faulty({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, start)
    assert [b"`bc", b"d"] == list(body)
    body.close()
    assert [("200 OK", [("Content-Length", "4")])] == started
    assert [True] == closed
