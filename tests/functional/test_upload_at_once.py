"""Many small blobs go up in one request each, where the registry takes that, and as ever where it does not."""

from __future__ import annotations

import hashlib
import threading

import pytest

import transferkit as tk
from transferkit.testing import (
    FaultRule,
    HTTPFaults,
    answer,
    hang_up,
    html_page,
    respond,
    running_registry,
    scripted_server,
    set_header,
)

REPOSITORY = "library/model"
COUNT = 60
ASKED = 16  # that are asked for before anything else

pytestmark = pytest.mark.lanes


@pytest.fixture
def blobs(make_blobs, tmp_path):
    return make_blobs(tmp_path / "source", [1000 + number for number in range(COUNT)])


@pytest.fixture
def send(blobs, tmp_path):
    """``send(registry)`` uploads all of them with one worker, and returns what was asked, as methods with a body."""

    def call(registry, **options):
        figures = []
        tk.upload(
            blobs,
            tmp_path / "source",
            base_url=registry.url,
            repository=REPOSITORY,
            options=tk.TransferOptions(concurrency=1, **options),
            progress=lambda done, total: figures.append((done, total)),
        )
        total = sum(blob.size for blob in blobs)
        assert (total, total) == figures[-1]
        assert all(done <= total for done, _ in figures)
        return [f"{request.method} {request.received}" for request in registry.log if request.method != "HEAD"]

    return call


def assert_stored(registry, blobs):
    for blob in blobs:
        path = registry.store / "blobs" / blob.digest.replace(":", "-")
        assert blob.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def plain(blobs):
    return [text for blob in blobs for text in ("POST 0", f"PUT {blob.size}")]


def test_once_a_registry_has_shown_that_it_takes_them_each_is_one_request(registry, blobs, send):
    asked = send(registry)
    assert plain(blobs[: ASKED - 1]) + [f"POST {blob.size}" for blob in blobs[ASKED - 1 :]] == asked
    # The first is held against HEAD; after that, the sixteenth is asked for, and then the 32nd after it.
    assert ASKED + 1 + 1 == registry.log.count("HEAD", "/blobs/")
    assert_stored(registry, blobs)


def test_with_many_workers(registry, blobs, tmp_path):
    report = tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
    assert (COUNT, 0) == (report.blobs, report.retried)
    assert_stored(registry, blobs)


def begins(environ):
    return environ["REQUEST_METHOD"] == "POST" and "digest=" in environ.get("QUERY_STRING", "")


def without_body(app):
    """A registry that does not know it: it begins an upload, as the specification has it, and drops the body."""

    def middle(environ, start_response):
        if begins(environ):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ = {**environ, "QUERY_STRING": "", "CONTENT_LENGTH": "0"}
        return app(environ, start_response)

    return middle


def test_a_registry_that_begins_an_upload_instead_is_sent_one_in_vain(blobs, send):
    with running_registry(middleware=without_body) as registry:
        asked = send(registry)
        tried = blobs[ASKED - 1]
        both = [f"POST {tried.size}", f"PUT {tried.size}"]
        expected = [*plain(blobs[: ASKED - 1]), *both, *plain(blobs[ASKED:])]
        assert expected == asked
        assert_stored(registry, blobs)


@pytest.mark.parametrize("fault", [respond(status) for status in (200, 204, 400, 403, 404, 405, 411, 413, 415, 501)])
def test_whatever_else_it_says_the_plain_way_is_taken(blobs, send, fault):
    rule = FaultRule(fault, where=begins)
    with running_registry(middleware=HTTPFaults(rule)) as registry:
        send(registry, retry=tk.RetryOptions(attempts=3, max_wait=0.01))
        assert_stored(registry, blobs)
    assert 1 <= rule.hits <= 2


def test_a_registry_that_refuses_it_later_is_not_sent_another_one(blobs, send):
    rule = FaultRule(respond(400), where=begins, skip=3)
    with running_registry(middleware=HTTPFaults(rule)) as registry:
        send(registry)
        assert_stored(registry, blobs)
    assert 1 == rule.hits


@pytest.mark.parametrize("fault", [respond(503), respond(429, retry_after=0), hang_up()], ids=["503", "429", "cut"])
def test_trouble_is_tried_again_the_plain_way(blobs, send, fault):
    with running_registry(middleware=HTTPFaults(FaultRule(fault, where=begins, times=1))) as registry:
        send(registry, retry=tk.RetryOptions(max_wait=0.01))
        assert_stored(registry, blobs)


@pytest.mark.parametrize(
    "lie",
    [
        respond(201),
        respond(201, headers={"Location": "/v2/library/model/blobs/sha256:1"}),
        respond(201, headers={"Docker-Content-Digest": "sha256:" + 64 * "a"}),
        html_page(201),
    ],
    ids=["nothing", "a location", "another digest", "a page"],
)
def test_a_registry_that_says_201_and_has_nothing_is_found_out(blobs, send, lie):
    rule = FaultRule(lie, where=begins)
    with running_registry(middleware=HTTPFaults(rule)) as registry:
        send(registry)
        assert_stored(registry, blobs)
    assert 1 == rule.hits


def test_one_that_stores_something_else_later_is_found_out(blobs, send):
    rule = FaultRule(set_header("Docker-Content-Digest", "sha256:" + 64 * "a"), where=begins, skip=3)
    with running_registry(middleware=HTTPFaults(rule)) as registry:
        send(registry)
        assert_stored(registry, blobs)
    assert 1 == rule.hits


def test_a_file_that_changes_is_named_and_not_stored(registry, blobs, tmp_path):
    path = tmp_path / "source" / blobs[40].digest.replace(":", "-")
    path.write_bytes(bytes(blobs[40].size))
    with pytest.raises(tk.SourceError, match=path.name):
        tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=REPOSITORY)
    assert not (registry.store / "blobs" / path.name).exists()


def test_a_cancel_ends_it(blobs, tmp_path):
    reached, cancel = threading.Event(), tk.Cancellation()

    def waiting(app):
        def middle(environ, start_response):
            if begins(environ):
                reached.set()
                cancel.cancelled or threading.Event().wait(0.3)
            return app(environ, start_response)

        return middle

    with running_registry(middleware=waiting) as registry:
        caller = threading.Thread(target=lambda: (reached.wait(20), cancel.cancel("enough")))
        caller.start()
        with pytest.raises(tk.CancelledError):
            tk.upload(blobs, tmp_path / "source", base_url=registry.url, repository=REPOSITORY, cancel=cancel)
        caller.join()


def test_once_one_was_not_stored_none_goes_so_whatever_becomes_of_those_on_their_way(blobs, tmp_path):
    stored, sent, refused, lock = set(), [], threading.Event(), threading.Lock()
    sizes = {blob.digest: blob.size for blob in blobs}

    def say(request):
        digest = request.target.partition("digest=")[2].replace("%3A", ":")
        if request.method == "HEAD":
            asked = request.target.rpartition("/")[2]
            there = f"HTTP/1.1 200 OK\r\nContent-Length: {sizes[asked]}\r\n\r\n".encode()
            return there if asked in stored else answer(404)
        location = {"Location": "/v2/a/b/blobs/uploads/1"}
        if not digest:
            return answer(202, headers=location)
        if request.method == "POST":
            with lock:
                sent.append(digest)
                number = len(sent)
            if number == 5:  # on its way while the next one is not stored
                assert refused.wait(20)
            elif number == 6:
                return answer(202, headers=location)
        elif len(sent) >= 6:
            refused.set()  # that one goes plainly now
        stored.add(digest)
        return answer(201, headers={"Location": f"/v2/a/b/blobs/{digest}"})

    with scripted_server(say) as server:
        tk.upload(blobs, tmp_path / "source", base_url=server.url, repository="a/b", concurrency=2)
    assert {blob.digest for blob in blobs} == stored
    assert 6 == len(sent)
