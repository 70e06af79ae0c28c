"""Uploads to a registry that speaks Ollama's dialect: straight to its storage, whole or in parts."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import pytest

import transferkit as tk
from transferkit.remote import upload_ollama as ollama
from transferkit.server.serve import serving
from transferkit.testing import Faults, fault_proxy

REPOSITORY = "library/model"
SIGNED = "/bucket/a%2Fb?X-Sig=x%20y+z%3D%3D&partNumber=%31&empty="
SMALLEST, LARGEST = 1_000_000, 2_000_000


@dataclass
class Request:
    method: str
    target: str
    """As it stands in the request line."""
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)


@dataclass
class Server:
    """A server that writes down its requests; ``answer`` returns status and headers."""

    requests: list[Request] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ, start_response):
        body = bytearray()
        while block := environ["wsgi.input"].read(65536):
            body += block
        headers = {k[5:].lower().replace("_", "-"): v for k, v in environ.items() if k.startswith("HTTP_")}
        headers |= {
            k.lower().replace("_", "-"): environ[k] for k in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(k)
        }
        request = Request(environ["REQUEST_METHOD"], environ["REQUEST_URI"], headers, bytes(body))
        with self.lock:
            self.requests.append(request)
            status, head = self.answer(request)
        start_response(f"{status} Whatever", [*head.items(), ("Content-Length", "0")])
        return []

    def answer(self, request: Request) -> tuple[int, dict[str, str]]:
        return 200, {}

    def sent(self, *methods: str) -> list[Request]:
        return [r for r in self.requests if r.method in methods]


@dataclass
class Ollama(Server):
    """As registry.ollama.ai: ``way`` is what it wants to be done with a body."""

    way: str = "direct"
    storage: Server = field(default_factory=Server)
    has: bool = False
    signed: dict[str, str] = field(default_factory=dict)
    direct_url: str = ""
    fail: list[int] = field(default_factory=list)
    """What the next PATCH requests or commits are answered with, instead."""
    number: int = 0

    def answer(self, request: Request) -> tuple[int, dict[str, str]]:
        if "authorization" not in request.headers:
            return 401, {"WWW-Authenticate": "Basic realm=x"}
        if request.method == "HEAD":
            return 404, {}
        self.number += 1
        # A path of the storage in Location, as it has had before: who follows it goes wrong.
        following = {"Docker-Upload-Location": f"{self.url}/session/{self.number}?q=%2F", "Location": "/wrong"}
        if request.method == "POST":
            if self.has:
                return 201, {}
            if self.way == "direct":
                following["X-Direct-Upload-URL"] = self.direct_url or self.storage.url + SIGNED
                following |= {f"X-Signed-Header-{name}": value for name, value in self.signed.items()}
            return 202, following
        if self.fail:
            return self.fail.pop(0), {}
        if request.method == "PATCH":
            if self.way == "redirect":
                return 307, {**following, "Location": self.storage.url + SIGNED + str(self.number)}
            if self.way == "one-header":
                return 307, {"Location": self.storage.url + SIGNED + str(self.number)}
            return 202, following
        return 201, {}


@contextmanager
def playing(**settings):
    storage = settings.pop("storage", Server())
    with serving(storage) as storage_url, fault_proxy(storage_url) as proxy:
        storage.url = proxy.url
        storage.proxy = proxy
        registry = Ollama(storage=storage, **settings)
        with serving(registry) as registry.url:
            yield registry, storage


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(ollama, "SMALLEST_PART", SMALLEST)
    monkeypatch.setattr(ollama, "LARGEST_PART", LARGEST)


def upload(registry: Ollama, blobs, folder, *, dialect: bool = True, **more) -> tk.Report:
    hosts = frozenset({registry.url.partition("://")[2]}) if dialect else frozenset()
    call = {name: more.pop(name) for name in ("progress", "cancel", "concurrency") if name in more}
    options = tk.TransferOptions(
        transport=tk.TransportOptions(ollama_hosts=hosts),
        retry=tk.RetryOptions(attempts=3, patience=0.0, max_wait=0.01),
        **more,
    )
    return tk.upload(
        blobs, folder, base_url=registry.url, repository=REPOSITORY, auth=("user", "secret"), options=options, **call
    )


def content(folder, blob) -> bytes:
    return (folder / tk.digest_to_path(blob.digest)).read_bytes()


def posts(registry: Ollama) -> list[Request]:
    return [r for r in registry.sent("POST") if "authorization" in r.headers]


def test_a_blob_that_the_registry_has_is_not_sent(make_blobs, source):
    with playing(has=True) as (registry, storage):
        blobs = make_blobs(source, [1000])
        report = upload(registry, blobs, source)
    (post,) = posts(registry)
    assert (b"", [blobs[0].digest]) == (post.body, post.query["digest"])
    assert ("2", "1000") == (post.headers["x-redirect-uploads"], post.headers["x-content-length"])
    assert (1, 0, 0) == (report.skipped, report.bytes, len(storage.requests))
    assert not registry.sent("PUT", "PATCH")


def test_a_blob_of_another_repository_is_mounted(make_blobs, source):
    with playing(has=True) as (registry, _):
        (blob,) = make_blobs(source, [1000])
        report = upload(registry, [tk.Blob(blob.digest, 1000, source="library/other")], source)
    (post,) = posts(registry)
    assert {"mount": [blob.digest], "from": ["library/other"], "digest": [blob.digest]} == post.query
    assert (1, 0) == (report.mounted, report.bytes)


@pytest.mark.parametrize("size", [0, 1, 5_000_001])
def test_a_body_goes_straight_to_the_storage(make_blobs, source, size):
    signed = {
        "Content-MD5": "abc==",
        "X-Amz-Meta-A": "b, c",
        "Content-Type": "application/x-model",
        "User-Agent": "signed",
        "Authorization": "Bearer stolen",
        "Cookie": "a=b",
        "Host": "elsewhere",
        "Content-Length": "7",
    }
    with playing(signed=signed) as (registry, storage):
        blobs = make_blobs(source, [size])
        report = upload(registry, blobs, source)

        (put,) = storage.requests
        assert ("PUT", SIGNED) == (put.method, put.target)
        assert content(source, blobs[0]) == put.body
        assert ("abc==", "b, c", "signed") == tuple(
            put.headers[n] for n in ("content-md5", "x-amz-meta-a", "user-agent")
        )
        assert "application/x-model" == put.headers["content-type"]
        assert not {"authorization", "cookie"} & put.headers.keys()
        assert storage.url.endswith(put.headers["host"])
        assert str(size) == put.headers["content-length"]
        (commit,) = registry.sent("PUT")
        assert (b"", {"q": ["/"], "digest": [blobs[0].digest]}) == (commit.body, commit.query)
        assert commit.target.startswith("/session/")
        assert not registry.sent("PATCH")
        assert size == report.bytes


def test_the_storage_sees_no_credentials_even_where_it_is_the_registry(make_blobs, source):
    class Open(Ollama):
        def answer(self, request):
            if request.target.startswith("/bucket"):
                return 200, {}
            return super().answer(request)

    registry = Open()
    with serving(registry) as registry.url:
        registry.direct_url = registry.url + SIGNED
        blobs = make_blobs(source, [5000])
        upload(registry, blobs, source)
    (put,) = [r for r in registry.requests if r.target.startswith("/bucket")]
    assert SIGNED == put.target
    assert "authorization" not in put.headers
    assert content(source, blobs[0]) == put.body


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://me:you@127.0.0.1/x", "ftp://127.0.0.1/x", "http://a b/x"]
)
def test_a_storage_that_may_not_be_asked_is_refused(make_blobs, source, url):
    with playing(direct_url=url) as (registry, storage):
        with pytest.raises(tk.IncompleteError) as caught:
            upload(registry, make_blobs(source, [10]), source)
    (error,) = caught.value.failures.values()
    assert isinstance(error, tk.ProtocolError)
    assert not storage.requests
    assert not registry.sent("PUT")


class Once(Server):
    """Answers its first requests with these statuses."""

    def __init__(self, *statuses: int, location: str = "") -> None:
        super().__init__()
        self.statuses = list(statuses)
        self.location = location

    def answer(self, request):
        return (self.statuses.pop(0) if self.statuses else 200), ({"Location": self.location} if self.location else {})


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_signed_url_that_has_expired_is_asked_for_again(make_blobs, source, status):
    with playing(storage=Once(status)) as (registry, storage):
        blobs = make_blobs(source, [5000])
        report = upload(registry, blobs, source)
    assert 2 == len(storage.requests) == len(posts(registry))
    assert content(source, blobs[0]) == storage.requests[-1].body
    assert 0 == report.retried


@pytest.mark.parametrize("status", [301, 307])
def test_a_storage_that_redirects_a_signed_upload_is_refused(make_blobs, source, status):
    with playing(storage=Once(*[status] * 9, location="/elsewhere")) as (registry, storage):
        with pytest.raises(tk.IncompleteError) as caught:
            upload(registry, make_blobs(source, [10]), source)
    (error,) = caught.value.failures.values()
    assert isinstance(error, tk.ProtocolError)
    assert 1 == len(storage.requests)


def test_a_direct_upload_that_breaks_is_sent_again(make_blobs, source):
    with playing() as (registry, storage):
        storage.proxy.set([Faults(reset_after_up=3_000_000)])
        blobs = make_blobs(source, [8_000_000])
        report = upload(registry, blobs, source)
    assert content(source, blobs[0]) == storage.requests[-1].body
    assert 1 == report.retried


def test_what_is_stored_is_not_sent_again_for_its_commit(make_blobs, source):
    with playing(fail=[503]) as (registry, storage):
        blobs = make_blobs(source, [8_000_000])
        upload(registry, blobs, source)
    assert 1 == len(storage.requests)
    assert 1 == len(posts(registry))
    assert 2 == len(registry.sent("PUT"))


# -- parts


def composite(data: bytes, size: int) -> str:
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    return f"{hashlib.md5(b''.join(hashlib.md5(part).digest() for part in parts)).hexdigest()}-{len(parts)}"


def test_parts_are_redirected_to_the_storage(make_blobs, source):
    with playing(way="redirect") as (registry, storage):
        blobs = make_blobs(source, [2_500_000])
        data = content(source, blobs[0])
        upload(registry, blobs, source)

    # Side by side, so in any order.
    parts = data[:1_000_000], data[1_000_000:2_000_000], data[2_000_000:]
    assert {hashlib.sha256(part).digest() for part in parts} == {
        hashlib.sha256(r.body).digest() for r in storage.sent("PUT")
    }
    assert 3 == len(storage.sent("PUT"))
    assert not [r for r in storage.requests if "authorization" in r.headers]
    patches = [r for r in registry.sent("PATCH") if "authorization" in r.headers]
    assert ["0-999999", "1000000-1999999", "2000000-2499999"] == [r.headers["content-range"] for r in patches]
    assert {"1"} == {r.headers["x-redirect-uploads"] for r in patches}
    (commit,) = registry.sent("PUT")
    assert b"" == commit.body
    assert [composite(data, SMALLEST)] == commit.query["etag"]
    assert [blobs[0].digest] == commit.query["digest"]
    # Each answer names the next session, and the last one's ends it.
    sessions = [r.target.partition("?")[0] for r in [*patches, commit]]
    assert len(sessions) == len(set(sessions))
    assert all(session.startswith("/session/") for session in sessions)


def test_a_location_alone_is_both_the_storage_and_the_next_session(make_blobs, source):
    with playing(way="one-header") as (registry, storage):
        blobs = make_blobs(source, [900_000])
        data = content(source, blobs[0])
        upload(registry, blobs, source)
    part, commit = storage.sent("PUT")
    assert data == part.body
    assert commit.target.startswith(part.target)
    assert ([blobs[0].digest], [composite(data, SMALLEST)]) == (commit.query["digest"], commit.query["etag"])


def test_parts_that_the_registry_takes_itself(make_blobs, source):
    with playing(way="take") as (registry, storage):
        blobs = make_blobs(source, [2_500_000])
        data = content(source, blobs[0])
        report = upload(registry, blobs, source)
    patches = [r for r in registry.sent("PATCH") if "authorization" in r.headers]
    assert data == b"".join(r.body for r in patches)
    assert [composite(data, SMALLEST)] == registry.sent("PUT")[-1].query["etag"]
    assert not storage.requests
    assert 2_500_000 == report.bytes


def test_an_empty_blob_has_no_parts(make_blobs, source):
    with playing(way="redirect") as (registry, _):
        blobs = make_blobs(source, [0])
        upload(registry, blobs, source)
    assert ["d41d8cd98f00b204e9800998ecf8427e-0"] == registry.sent("PUT")[-1].query["etag"]
    assert not registry.sent("PATCH")


@pytest.mark.parametrize(("size", "part"), [(1_600_000 * 16, 1_600_000), (40_000_000, LARGEST)])
def test_a_part_is_a_sixteenth_within_limits(make_blobs, source, size, part):
    with playing(way="redirect") as (registry, storage):
        upload(registry, make_blobs(source, [size]), source)
    assert {part, size % part} - {0} == {len(r.body) for r in storage.requests}


def test_a_part_that_breaks_is_sent_again_alone(make_blobs, source):
    with playing(way="redirect") as (registry, storage):
        storage.proxy.set([Faults(reset_after_up=500_000)])
        blobs = make_blobs(source, [3_000_000])
        data = content(source, blobs[0])
        report = upload(registry, blobs, source)

        assert 1 == report.retried
        assert 1 == len(posts(registry))
        whole = sorted(r.body for r in storage.requests if len(r.body) == SMALLEST)
        assert sorted([data[:SMALLEST], data[SMALLEST : 2 * SMALLEST], data[2 * SMALLEST :]]) == whole
        assert sum(c.up for c in storage.proxy.connections) < 3_000_000 + SMALLEST
        assert [composite(data, SMALLEST)] == registry.sent("PUT")[-1].query["etag"]


@dataclass
class Slow(Server):
    """A storage that takes some time for each body; ``most`` is how many it had at once."""

    takes: float = 0.2
    at_work: int = 0
    most: int = 0
    fails: dict[bytes, list[int]] = field(default_factory=dict)
    """The next answers to a body that begins like this."""

    def __call__(self, environ, start_response):
        with self.lock:
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        try:
            time.sleep(self.takes)
            return super().__call__(environ, start_response)
        finally:
            with self.lock:
                self.at_work -= 1

    def answer(self, request):
        statuses = self.fails.get(request.body[:16])
        return (statuses.pop(0) if statuses else 200), {}


def test_four_parts_are_on_their_way_at_once(make_blobs, source):
    with playing(way="redirect", storage=Slow()) as (registry, storage):
        blobs = make_blobs(source, [16_000_000])
        data, figures = content(source, blobs[0]), []
        began = time.monotonic()
        report = upload(registry, blobs, source, progress=lambda *figure: figures.append(figure))
        took = time.monotonic() - began

    assert storage.most in (3, 4)  # never more; a busy machine may not start the last worker in time
    assert took < 16 * 0.2 * 0.75  # a quarter, and what a busy machine adds
    assert sorted(data[at : at + SMALLEST] for at in range(0, 16_000_000, SMALLEST)) == sorted(
        request.body for request in storage.requests
    )
    assert [composite(data, SMALLEST)] == registry.sent("PUT")[-1].query["etag"]
    assert not [r for r in storage.requests if "authorization" in r.headers]
    assert ((0, 16_000_000), (16_000_000, 16_000_000)) == (figures[0], figures[-1])
    assert max(figures) == figures[-1]
    assert 16_000_000 <= report.bytes < 17_000_000 * 2  # the registry gets some of a part before it leads it away
    assert 0 == report.retried


@pytest.mark.parametrize("concurrency", [1, 2])
def test_where_fewer_workers_may_be_at_work_fewer_parts_are_on_their_way(make_blobs, source, concurrency):
    with playing(way="redirect", storage=Slow(takes=0.01)) as (registry, storage):
        blobs = make_blobs(source, [6_000_000])
        upload(registry, blobs, source, concurrency=concurrency)
        assert storage.most <= concurrency
        assert [composite(content(source, blobs[0]), SMALLEST)] == registry.sent("PUT")[-1].query["etag"]


def test_small_blobs_are_not_kept_waiting_by_a_large_one(make_blobs, source):
    with playing(way="redirect", storage=Slow(takes=0.02)) as (registry, _):
        blobs = make_blobs(source, [8_000_000, *range(1000, 1040)])
        report = upload(registry, blobs, source)
        assert {(blob.digest, composite(content(source, blob), SMALLEST)) for blob in blobs} == {
            (commit.query["digest"][0], commit.query["etag"][0]) for commit in registry.sent("PUT")
        }
    assert (41, 0) == (report.blobs, report.retried)


def test_only_the_part_that_failed_is_sent_again(make_blobs, source):
    with playing(way="redirect", storage=Slow(takes=0.05)) as (registry, storage):
        blobs = make_blobs(source, [8_000_000])
        data, figures = content(source, blobs[0]), []
        storage.fails = {data[2 * SMALLEST :][:16]: [503, 503], data[5 * SMALLEST :][:16]: [500]}
        report = upload(registry, blobs, source, progress=lambda *figure: figures.append(figure))

    bodies = [request.body for request in storage.requests]
    assert [1, 1, 3, 1, 1, 2, 1, 1] == [bodies.count(data[at : at + SMALLEST]) for at in range(0, 8_000_000, SMALLEST)]
    assert 8 == len([r for r in registry.sent("PATCH") if "authorization" in r.headers])
    assert 1 == len(posts(registry))
    assert [composite(data, SMALLEST)] == registry.sent("PUT")[-1].query["etag"]
    assert (8_000_000, 8_000_000) == figures[-1] == max(figures)
    assert 2 <= report.retried <= 3


@pytest.mark.parametrize("status", [403, 413])
def test_a_part_that_the_storage_refuses_stops_the_others(make_blobs, source, status):
    """403: its signature is of no use, and four sessions are tried; 413 is final."""
    with playing(way="redirect", storage=Slow(takes=0.05)) as (registry, storage):
        blobs = make_blobs(source, [8_000_000])
        storage.fails = {content(source, blobs[0])[SMALLEST:][:16]: [status] * 9}
        with pytest.raises(tk.IncompleteError, match=str(status)):
            upload(registry, blobs, source)
    assert {403: 4, 413: 1}[status] == len(posts(registry))
    assert not registry.sent("PUT")


def test_a_cancel_wakes_all_parts(make_blobs, source):
    with playing(way="redirect", storage=Slow(takes=0.5)) as (registry, storage):
        cancel, ended = tk.Cancellation(), []

        def stop():
            while storage.most < 4:
                time.sleep(0.005)
            ended.append(time.monotonic())
            cancel.cancel("enough")

        thread = threading.Thread(target=stop)
        thread.start()
        threads = threading.active_count()
        with pytest.raises(tk.CancelledError, match="enough"):
            upload(registry, make_blobs(source, [16_000_000]), source, cancel=cancel)
        took = time.monotonic() - ended[0]
        thread.join()
    assert took < 0.4
    assert threading.active_count() < threads


def test_another_run_goes_on_behind_the_first_part_that_is_missing(make_blobs, source):
    with playing(way="redirect", storage=Slow(takes=0.02)) as (registry, storage):
        blobs = make_blobs(source, [8_000_000])
        data = content(source, blobs[0])
        storage.fails = {data[3 * SMALLEST :][:16]: [503] * 9}
        keep = {"resume_threshold": SMALLEST}
        cancel = tk.Cancellation()

        def stop():
            while len(storage.fails[data[3 * SMALLEST :][:16]]) > 7:
                time.sleep(0.002)
            cancel.cancel("enough")

        thread = threading.Thread(target=stop)
        thread.start()
        with pytest.raises(tk.CancelledError):
            upload(registry, blobs, source, cancel=cancel, **keep)
        thread.join()
        storage.fails.clear()
        storage.requests.clear()
        upload(registry, blobs, source, **keep)

    assert 1 == len(posts(registry))
    assert not [r for r in storage.requests if r.body in (data[:SMALLEST], data[SMALLEST : 2 * SMALLEST])]
    assert [composite(data, SMALLEST)] == registry.sent("PUT")[-1].query["etag"]


def test_a_session_that_is_gone_is_begun_again(make_blobs, source):
    with playing(way="redirect") as (registry, storage):
        storage.proxy.set([Faults(reset_after_up=500_000)])
        blobs = make_blobs(source, [3_000_000])
        data = content(source, blobs[0])
        answers: list[int] = []
        real = registry.answer

        def answer(request):
            # The request after the break finds the session gone, once.
            if request.method in ("PATCH", "PUT") and not answers and len(registry.sent("HEAD")) > 2:
                answers.append(404)
                return 404, {}
            return real(request)

        registry.answer = answer
        upload(registry, blobs, source)
        assert [404] == answers
        assert 2 == len(posts(registry))
        assert [composite(data, SMALLEST)] == registry.sent("PUT")[-1].query["etag"]


@pytest.mark.parametrize("wrong", [10, 5_000_000, -1])
def test_a_file_that_is_not_what_its_digest_says_is_not_committed(make_blobs, source, wrong):
    with playing(way="redirect") as (registry, _):
        blobs = make_blobs(source, [7_500_000])
        path = source / tk.digest_to_path(blobs[0].digest)
        data = bytearray(path.read_bytes())
        data[wrong] ^= 1
        path.write_bytes(data)
        with pytest.raises(tk.SourceError):
            upload(registry, blobs, source)
    assert not registry.sent("PUT")


# -- everybody else


@pytest.mark.parametrize("way", ["direct", "redirect"])
def test_nothing_of_it_is_sent_to_another_registry(make_blobs, source, way):
    with playing(way=way) as (registry, storage):
        real = registry.answer

        def answer(request):
            status, head = real(request)
            if "Docker-Upload-Location" in head:  # a registry by the specification, but for the lures
                head = {**head, "Location": f"{registry.url}/session/{registry.number}?q=%2F"}
                head["Docker-Upload-Location"] = f"{storage.url}/lure"
            return (202 if status == 307 else status), head

        registry.answer = answer
        blobs = make_blobs(source, [100, 2_500_000])
        upload(registry, blobs, source, dialect=False)

    assert not storage.requests
    for request in registry.requests:
        assert not {"x-redirect-uploads", "x-content-length"} & request.headers.keys()
        assert "etag" not in request.query
        if request.method == "POST":
            assert {} == request.query
    assert {100, 2_500_000} == {len(r.body) for r in registry.sent("PUT")}
    assert not registry.sent("PATCH")


def test_the_option_names_hosts_in_any_case():
    assert frozenset({"a.example:5000"}) == tk.TransportOptions(ollama_hosts={"A.example:5000"}).ollama_hosts
    with pytest.raises(ValueError, match="ollama_hosts is a set"):
        tk.TransportOptions(ollama_hosts="a.example")
