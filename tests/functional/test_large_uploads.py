"""Uploads in parts, and uploads that go on where they broke, over real sockets."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from requests import Session

import transferkit as tk
from transferkit.testing import (
    FaultRule,
    Faults,
    challenge,
    fault_proxy,
    hang_up,
    respond,
    running_registry,
    set_header,
    with_faults,
)
from transferkit.transport import http11

pytestmark = pytest.mark.lanes

MIB = 1024 * 1024
REPOSITORY = "library/model"
PATCH = {"method": "PATCH", "path": "/blobs/uploads/"}
POST = {"method": "POST", "path": "/blobs/uploads/"}
PUT = {"method": "PUT", "path": "/blobs/uploads/"}


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


def options(part_size: int | None = MIB, **more) -> tk.TransferOptions:
    more.setdefault("retry", tk.RetryOptions(attempts=3, patience=0.0, max_wait=0.01))
    return tk.TransferOptions(part_size=part_size, **more)


def upload(url, blobs, folder: Path, **keywords) -> tk.Report:
    keywords.setdefault("options", options())
    return tk.upload(blobs, folder, base_url=url, repository=REPOSITORY, **keywords)


def stored(registry, blobs) -> list[str]:
    return ["sha256:" + hashlib.sha256(registry.blob_path(b.digest).read_bytes()).hexdigest() for b in blobs]


def requests(registry, *methods: str) -> list[tuple[str, str | None, int, int]]:
    """What was sent to the sessions: method, Content-Range, bytes of the body, status."""
    return [
        (r.method, r.headers.get("content-range"), r.received, r.status)
        for r in registry.log
        if "/uploads/" in r.path and r.method in (methods or ("PATCH", "PUT", "GET"))
    ]


@contextmanager
def faulty(*rules: FaultRule):
    with running_registry(middleware=lambda app: with_faults(app, *rules)) as registry:
        yield registry


def only_failure(caught) -> tk.TransferKitError:
    (error,) = caught.value.failures.values()
    return error


# -- parts


def test_a_blob_goes_up_in_parts_and_the_last_request_is_empty(registry, make_blobs, source):
    blobs = make_blobs(source, [3 * MIB + 5])
    figures: list[tuple[int, int]] = []

    report = upload(registry.url, blobs, source, progress=lambda *f: figures.append(f))

    assert [
        ("PATCH", "0-1048575", MIB, 202),
        ("PATCH", "1048576-2097151", MIB, 202),
        ("PATCH", "2097152-3145727", MIB, 202),
        ("PATCH", "3145728-3145732", 5, 202),
        ("PUT", None, 0, 201),
    ] == requests(registry)
    assert [b.digest for b in blobs] == stored(registry, blobs)
    assert (3 * MIB + 5, 0) == (report.bytes, report.retried)
    assert (3 * MIB + 5, 3 * MIB + 5) == figures[-1]
    assert sorted(figures) == figures


def test_what_is_no_larger_than_a_part_goes_in_one_request(registry, make_blobs, source):
    blobs = make_blobs(source, [0, 1, MIB])
    upload(registry.url, blobs, source)
    assert {(None, 0), (None, 1), (None, MIB)} == {r[1:3] for r in requests(registry)}
    assert 0 == registry.log.count("PATCH")


def test_without_the_option_any_blob_goes_in_one_request(registry, make_blobs, source):
    blobs = make_blobs(source, [9 * MIB])
    upload(registry.url, blobs, source, options=options(None))
    assert [("PUT", None, 9 * MIB, 201)] == requests(registry)


def test_parts_go_through_a_users_session_too(registry, make_blobs, source):

    blobs = make_blobs(source, [2 * MIB + 1])
    with Session() as session:
        upload(registry.url, blobs, source, session=session)
    assert 3 == registry.log.count("PATCH")
    assert [b.digest for b in blobs] == stored(registry, blobs)


@pytest.mark.parametrize("status", [201, 204, 202])
@pytest.mark.parametrize("unit", ["", "bytes="])
def test_the_range_of_an_answer_counts_and_not_its_status(make_blobs, source, status, unit):
    def changed(app):
        def middle(environ, start_response):
            def start(_status, headers, exc_info=None):
                headers = [(k, unit + v if k == "Range" else v) for k, v in headers]
                return start_response(f"{status} Whatever", headers, exc_info)

            return app(environ, start)

        return middle

    with faulty(FaultRule(changed, **PATCH)) as registry:
        blobs = make_blobs(source, [2 * MIB + 1])
        upload(registry.url, blobs, source)
        assert (3, 1, 1) == tuple(registry.log.count(method) for method in ("PATCH", "PUT", "POST"))
        assert [b.digest for b in blobs] == stored(registry, blobs)


def dropping(app):
    """As ECR does: the first part is taken; the next ones are swallowed, with 201 and the Range of the first one."""

    def middle(environ, start_response):
        if not environ["HTTP_CONTENT_RANGE"].startswith("0-"):
            while environ["wsgi.input"].read(65536):
                pass
            head = [("Location", environ["PATH_INFO"]), ("Range", "0-1048575"), ("Content-Length", "0")]
            start_response("201 Created", head)
            return [b""]
        return app(environ, start_response)

    return middle


def test_a_registry_that_drops_parts_gets_one_request_in_a_new_session(make_blobs, source):
    with faulty(FaultRule(dropping, **PATCH)) as registry:
        blobs = make_blobs(source, [3 * MIB, 2 * MIB])
        upload(registry.url, blobs[:1], source)

        assert [
            ("PATCH", "0-1048575", MIB, 202),
            ("PATCH", "1048576-2097151", MIB, 201),
            ("PUT", None, 3 * MIB, 201),
        ] == requests(registry)
        assert 2 == registry.log.count("POST")
        assert [blobs[0].digest] == stored(registry, blobs[:1])


def test_what_was_learnt_holds_for_the_next_blob(make_blobs, source):
    with faulty(FaultRule(dropping, **PATCH)) as registry:
        blobs = make_blobs(source, [3 * MIB, 3 * MIB, 3 * MIB])
        upload(registry.url, blobs, source, concurrency=1)
        assert (2, 3, 4) == tuple(registry.log.count(method) for method in ("PATCH", "PUT", "POST"))


@pytest.mark.parametrize(
    "rule",
    [
        FaultRule(set_header("Range", "0-0"), **PATCH),
        FaultRule(respond(405, read_body=True), **PATCH),
        FaultRule(respond(404, read_body=True), **PATCH),
        # It wants something else than an empty request at the end.
        FaultRule(respond(400), **PUT, where=lambda environ: environ["CONTENT_LENGTH"] == "0"),
    ],
    ids=["nothing", "405", "404", "empty-put-refused"],
)
def test_a_registry_that_takes_no_parts_gets_one_request(make_blobs, source, rule):
    with faulty(rule) as registry:
        blobs = make_blobs(source, [2 * MIB])
        upload(registry.url, blobs, source)
        assert ("PUT", None, 2 * MIB, 201) == requests(registry)[-1]
        assert [b.digest for b in blobs] == stored(registry, blobs)


@pytest.mark.parametrize("said", [None, "lots", "1048576-2097151"])
@pytest.mark.parametrize("tells", [True, False])
def test_a_registry_that_does_not_say_what_it_has_is_asked_and_then_believed(make_blobs, source, said, tells):
    """distribution-spec#213 and pulp_container#2199: the digest of the commit proves what came of the parts."""
    rules = [FaultRule(set_header("Range", said), **PATCH)]
    if not tells:
        rules.append(FaultRule(respond(405), method="GET", path="/blobs/uploads/"))
    with faulty(*rules) as registry:
        blobs = make_blobs(source, [3 * MIB])
        report = upload(registry.url, blobs, source)
        assert (3, 1) == (registry.log.count("PATCH"), registry.log.count("POST"))
        assert ("PUT", None, 0, 201) == requests(registry)[-1]
        assert (3 if tells else 1) == registry.log.count("GET")
        assert [b.digest for b in blobs] == stored(registry, blobs)
    assert 0 == report.retried


def test_a_registry_that_has_more_than_was_sent_is_refused(make_blobs, source):
    with faulty(FaultRule(set_header("Range", "0-1999999"), **PATCH)) as registry:
        with pytest.raises(tk.IncompleteError) as caught:
            upload(registry.url, make_blobs(source, [3 * MIB]), source)
        assert isinstance(only_failure(caught), tk.ProtocolError)
        assert "has 2000000 bytes, and was sent 1048576" in str(only_failure(caught))
        assert 0 == registry.log.count("PUT")


# -- 413 and OCI-Chunk-Min-Length


def at_most(limit: int):
    """What a proxy before the registry says to a longer body."""
    return FaultRule(respond(413, "too large"), where=lambda environ: int(environ.get("CONTENT_LENGTH") or 0) > limit)


@pytest.mark.parametrize(("limit", "first"), [(MIB, MIB), (3 * MIB, MIB), (8 * MIB - 1, 4 * MIB)])
def test_a_single_request_that_is_too_large_becomes_parts(make_blobs, source, limit, first):
    with faulty(at_most(limit)) as registry:
        blobs = make_blobs(source, [8 * MIB, 8 * MIB])
        upload(registry.url, blobs, source, options=options(None), concurrency=1)

        assert [b.digest for b in blobs] == stored(registry, blobs)
        taken = [r for r in requests(registry, "PATCH") if r[3] == 202]
        assert first == taken[0][2]
        assert max(r[2] for r in taken) <= limit
        # The second blob begins with parts that are taken.
        begins = [r.path for r in registry.log].index(registry.log[-1].path)
        assert 413 not in [r.status for r in registry.log[begins:]]


def test_parts_that_are_too_large_become_smaller(make_blobs, source):
    with faulty(at_most(2 * MIB)) as registry:
        blobs = make_blobs(source, [9 * MIB])
        report = upload(registry.url, blobs, source, options=options(8 * MIB))
        assert [
            ("0-8388607", 413),
            ("0-2097151", 202),
            ("2097152-4194303", 202),
            ("4194304-6291455", 202),
            ("6291456-8388607", 202),
            ("8388608-9437183", 202),
        ] == [(r[1], r[3]) for r in requests(registry, "PATCH")]
        assert [b.digest for b in blobs] == stored(registry, blobs)
        assert 0 == report.retried


@pytest.mark.parametrize("part_size", [None, 2 * MIB])
def test_a_registry_that_takes_nothing_is_told_so(make_blobs, source, part_size):
    with faulty(at_most(1000)) as registry:
        with pytest.raises(tk.IncompleteError) as caught:
            upload(registry.url, make_blobs(source, [4 * MIB]), source, options=options(part_size))
        assert 413 == only_failure(caught).status


@pytest.mark.parametrize("part_size", [None, MIB])
def test_parts_are_demanded_and_dropped(make_blobs, source, part_size):
    with faulty(FaultRule(dropping, **PATCH), at_most(2 * MIB)) as registry:
        with pytest.raises(tk.IncompleteError) as caught:
            upload(registry.url, make_blobs(source, [8 * MIB]), source, options=options(part_size))
    assert isinstance(only_failure(caught), tk.ProtocolError)
    assert re.search(
        r"wants an upload in parts \(413\), and (dropped the part|does not take)", str(only_failure(caught))
    )


def test_the_smallest_part_of_the_registry_holds_where_there_are_parts(make_blobs, source):
    with faulty(FaultRule(set_header("OCI-Chunk-Min-Length", str(3 * MIB)), **POST)) as registry:
        blobs = make_blobs(source, [7 * MIB])
        upload(registry.url, blobs, source)
        assert [3 * MIB, 3 * MIB, MIB] == [r[2] for r in requests(registry, "PATCH")]
        assert [b.digest for b in blobs] == stored(registry, blobs)


def test_the_smallest_part_of_the_registry_forces_no_parts(make_blobs, source):
    with faulty(FaultRule(set_header("OCI-Chunk-Min-Length", str(3 * MIB)), **POST)) as registry:
        upload(registry.url, make_blobs(source, [7 * MIB]), source, options=options(None))
        assert [("PUT", None, 7 * MIB, 201)] == requests(registry)


def test_parts_below_the_smallest_are_not_tried(make_blobs, source):
    minimum = FaultRule(set_header("OCI-Chunk-Min-Length", str(3 * MIB)), **POST)
    with faulty(minimum, at_most(2 * MIB)) as registry:
        with pytest.raises(tk.IncompleteError) as caught:
            upload(registry.url, make_blobs(source, [7 * MIB]), source)
        assert 413 == only_failure(caught).status
        assert [3 * MIB] == [int(r.headers["content-length"]) for r in registry.log if r.method == "PATCH"]


# -- going on


@pytest.mark.parametrize("after_app", [False, True])
def test_an_answer_that_says_out_of_order_is_followed_by_a_question(make_blobs, source, after_app):
    """416: the registry is somewhere else, behind or ahead of what was counted here."""
    rule = FaultRule(respond(416, read_body=True, after_app=after_app), skip=1, times=1, **PATCH)
    with faulty(rule) as registry:
        blobs = make_blobs(source, [4 * MIB])
        report = upload(registry.url, blobs, source)

        after = "2097152-3145727" if after_app else "1048576-2097151"
        asked = [("PATCH", "1048576-2097151", 416), ("GET", None, 204), ("PATCH", after, 202)]
        assert asked == [(r[0], r[1], r[3]) for r in requests(registry)][1:4]
        assert [b.digest for b in blobs] == stored(registry, blobs)
        assert 0 == report.retried
        assert 1 == registry.log.count("POST")


def test_a_registry_that_is_out_of_order_for_ever_is_given_up(make_blobs, source):
    with faulty(FaultRule(respond(416, read_body=True), **PATCH)) as registry:
        with pytest.raises(tk.IncompleteError) as caught:
            upload(registry.url, make_blobs(source, [4 * MIB]), source)
        assert 416 == only_failure(caught).status
        assert registry.log.count("PATCH") <= 16


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize(("part_size", "broken_at"), [(2 * MIB, 3 * MIB + 500_000), (None, 5 * MIB)])
def test_after_a_broken_connection_it_goes_on_from_where_it_is(registry, make_blobs, source, part_size, broken_at):
    blobs = make_blobs(source, [8 * MIB])
    figures: list[int] = []
    with fault_proxy(registry.url, [Faults(reset_after_up=broken_at)]) as proxy:
        report = upload(
            proxy.url,
            blobs,
            source,
            options=options(part_size),
            progress=lambda completed, total: figures.append(completed),
        )
        sent = sum(connection.up for connection in proxy.connections)

    assert [b.digest for b in blobs] == stored(registry, blobs)
    assert 1 == report.retried
    assert 1 == registry.log.count("POST")
    assert sent - 8 * MIB < 2 * MIB  # one part; of the heads a few hundred bytes
    asked = [r for r in requests(registry) if r[0] == "GET" and r[3] == 204]
    assert asked
    if part_size is None:
        (rest,) = [r for r in requests(registry, "PUT") if r[3] == 201]
        start = int(rest[1].partition("-")[0])
        assert 4 * MIB < start <= broken_at
        assert 8 * MIB - start == rest[2]
    assert 8 * MIB == figures[-1]


def test_a_status_of_the_registry_does_not_cost_what_it_has(make_blobs, source):
    rule = FaultRule(respond(503, read_body=True), skip=2, times=1, **PATCH)
    with faulty(rule) as registry:
        blobs = make_blobs(source, [4 * MIB])
        upload(registry.url, blobs, source)
        assert [b.digest for b in blobs] == stored(registry, blobs)
        assert 1 == registry.log.count("POST")
        assert 5 == registry.log.count("PATCH")


def test_a_commit_whose_answer_is_lost_is_found_done(make_blobs, source):
    rule = FaultRule(hang_up(after_app=True), times=1, **PUT)
    with faulty(rule) as registry:
        blobs = make_blobs(source, [4 * MIB])
        report = upload(registry.url, blobs, source)
        assert 4 == registry.log.count("PATCH")
        assert 1 == report.retried
        assert [b.digest for b in blobs] == stored(registry, blobs)


def test_a_commit_that_failed_is_sent_again_alone(make_blobs, source):
    rule = FaultRule(respond(500), times=1, **PUT)
    with faulty(rule) as registry:
        blobs = make_blobs(source, [4 * MIB])
        upload(registry.url, blobs, source)
        assert 4 == registry.log.count("PATCH")
        assert [("PUT", None, 0, 500), ("PUT", None, 0, 201)] == requests(registry, "PUT")


def killing(app):
    """The session vanishes before this request."""

    def middle(environ, start_response):
        body = environ["wsgi.input"]
        gone = {**environ, "REQUEST_METHOD": "DELETE", "CONTENT_LENGTH": "0"}
        list(app(gone, lambda status, headers, exc_info=None: lambda block: None))
        environ["wsgi.input"] = body
        return app(environ, start_response)

    return middle


@pytest.mark.parametrize("part_size", [MIB, None])
def test_a_session_that_is_gone_is_begun_again(make_blobs, source, part_size):
    rules = [FaultRule(killing, skip=2, times=1, **PATCH)] if part_size else []
    if not part_size:  # broken off, and gone when it is asked for
        rules = [
            FaultRule(respond(503), times=1, **PUT),
            FaultRule(killing, times=1, method="GET", path="/blobs/uploads/"),
        ]
    with faulty(*rules) as registry:
        blobs = make_blobs(source, [4 * MIB])
        report = upload(registry.url, blobs, source, options=options(part_size))
        assert 2 == registry.log.count("POST")
        assert 404 in [r[3] for r in requests(registry)]
        assert [b.digest for b in blobs] == stored(registry, blobs)
        assert (0 if part_size else 1) == report.retried


@pytest.mark.parametrize("answer", [400, 404, 405, 416, 501])
def test_a_session_that_nobody_can_tell_about_is_begun_again(make_blobs, source, answer):
    rules = [
        FaultRule(respond(503, read_body=True), skip=1, times=1, **PATCH),
        FaultRule(respond(answer), method="GET", path="/blobs/uploads/"),
    ]
    with faulty(*rules) as registry:
        blobs = make_blobs(source, [3 * MIB])
        upload(registry.url, blobs, source)
        assert 2 == registry.log.count("POST")
        assert [b.digest for b in blobs] == stored(registry, blobs)


@pytest.mark.parametrize("range_", [None, "garbage", "0-4194303"])
def test_a_status_that_cannot_be_is_not_believed(make_blobs, source, range_):
    rules = [
        FaultRule(respond(503, read_body=True), skip=1, times=1, **PATCH),
        FaultRule(set_header("Range", range_), method="GET", path="/blobs/uploads/"),
    ]
    with faulty(*rules) as registry:
        blobs = make_blobs(source, [4 * MIB])
        upload(registry.url, blobs, source)
        assert 2 == registry.log.count("POST")
        assert [b.digest for b in blobs] == stored(registry, blobs)


def test_what_a_registry_made_of_a_broken_session_is_not_the_last_word(make_blobs, source):
    """Its bytes are not ours, and the commit is refused: once more, in a new session."""
    rules = [
        FaultRule(respond(503, read_body=True), skip=1, times=1, **PATCH),
        FaultRule(respond(400, '{"errors":[{"code":"DIGEST_INVALID"}]}'), times=1, **PUT),
    ]
    with faulty(*rules) as registry:
        blobs = make_blobs(source, [3 * MIB])
        upload(registry.url, blobs, source)
        assert 2 == registry.log.count("POST")
        assert [b.digest for b in blobs] == stored(registry, blobs)


# -- where the parts go


def host_of(environ) -> str:
    return f"http://{environ['HTTP_HOST']}"


@pytest.mark.parametrize("absolute", [True, False])
def test_each_location_is_followed_with_its_query_kept(make_blobs, source, absolute):
    def changed(app):
        def middle(environ, start_response):
            def start(status, headers, exc_info=None):
                base = host_of(environ)
                new = [
                    (k, (base if absolute else "") + v.removeprefix(base) + "&keep=a%2Fb+c")
                    if k == "Location"
                    else (k, v)
                    for k, v in headers
                ]
                return start_response(status, new, exc_info)

            return app(environ, start)

        return middle

    with faulty(FaultRule(changed, path="/blobs/uploads/")) as registry:
        blobs = make_blobs(source, [3 * MIB])
        upload(registry.url, blobs, source)
        assert [b.digest for b in blobs] == stored(registry, blobs)
        sent = [r.query for r in registry.log if r.method in ("PATCH", "PUT")]
        assert 4 == len(sent)
        assert all("keep=a%2Fb+c" in query and "_state=" in query for query in sent)
        assert 4 == len({query.partition("&")[0] for query in sent})  # each its own


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/u/1", "http://localhost:9/u/1", "file:///etc/passwd", "http://me:you@h/x"]
)
def test_a_location_that_may_not_be_followed_is_refused(make_blobs, source, monkeypatch, target):
    real = socket.getaddrinfo

    def resolve(host, *rest, **more):
        return real("127.0.0.1" if host == "registry.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with faulty(FaultRule(set_header("Location", target), skip=1, **PATCH)) as registry:
        url = registry.url.replace("127.0.0.1", "registry.example")
        with pytest.raises(tk.IncompleteError) as caught:
            upload(url, make_blobs(source, [4 * MIB]), source)
        assert isinstance(only_failure(caught), tk.ProtocolError)
        assert (2, 0) == (registry.log.count("PATCH"), registry.log.count("PUT"))


def test_another_origin_gets_the_parts_and_no_credentials(make_blobs, source):
    with running_registry() as behind:
        with fault_proxy(behind.url) as proxy:
            rule = FaultRule(set_header("Location", lambda text: proxy.url + text), times=1, **POST)

            def guarded(app):
                return with_faults(app, rule, FaultRule(challenge("Basic realm=x", accept=lambda given: True)))

            # One store: the second registry goes on with the sessions of the first one.
            with running_registry(behind.store, middleware=guarded) as registry:
                blobs = make_blobs(source, [2 * MIB])
                upload(registry.url, blobs, source, auth=("user", "secret"))
                assert {"POST", "HEAD"} == {r.method for r in registry.log if "authorization" in r.headers}
        assert 2 == behind.log.count("PATCH")
        assert not [r for r in behind.log if "authorization" in r.headers]
        assert [b.digest for b in blobs] == stored(behind, blobs)


# -- tokens, stopping, sources


def test_a_token_that_ends_between_two_parts_is_replaced(make_blobs, source):
    tokens = iter(["first", "second"])
    good = ["Bearer first"]

    def expire(app):
        def middle(environ, start_response):
            good[:] = ["Bearer second"]
            return app(environ, start_response)

        return middle

    rules = [
        FaultRule(expire, skip=2, times=1, **PATCH),
        FaultRule(
            challenge('Bearer realm="http://127.0.0.1:9/token",service="test"', accept=lambda given: given in good)
        ),
    ]
    with faulty(*rules) as registry:
        blobs = make_blobs(source, [4 * MIB])
        report = upload(registry.url, blobs, source, get_token=lambda asked: next(tokens))

        assert [202, 202, 401, 202, 202] == [r[3] for r in requests(registry, "PATCH")]
        assert 1 == registry.log.count("PUT")
        assert [b.digest for b in blobs] == stored(registry, blobs)
        assert 0 == report.retried


@pytest.mark.usefixtures("small_buffers")
def test_cancelling_in_the_middle_of_a_part_ends_the_call(registry, make_blobs, source):
    blobs = make_blobs(source, [16 * MIB])
    cancel = tk.Cancellation()
    began: list[float] = []
    with fault_proxy(registry.url, Faults(silent_after_up=5 * MIB)) as proxy:

        def trigger() -> None:
            deadline = time.monotonic() + 20
            while sum(c.up for c in proxy.connections) < 5 * MIB and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)
            began.append(time.monotonic())
            cancel.cancel("enough")

        thread = threading.Thread(target=trigger)
        thread.start()
        with pytest.raises(tk.CancelledError, match="enough"):
            upload(proxy.url, blobs, source, options=options(4 * MIB), cancel=cancel)
        took = time.monotonic() - began[0]
        thread.join()
    assert took < 1.0
    assert 0 == registry.log.count("PUT")
    assert not registry.blob_path(blobs[0].digest).exists()


@pytest.fixture
def verified(registry, make_blobs, tmp_path):
    """A folder whose files are known to be verified: they were downloaded."""
    blobs = make_blobs(tmp_path / "origin", [6 * MIB + 7, 100])
    tk.upload(blobs, tmp_path / "origin", base_url=registry.url, repository="library/origin")
    tk.download(blobs, tmp_path / "verified", base_url=registry.url, repository="library/origin")
    registry.log.clear()
    return blobs, tmp_path / "verified"


@pytest.fixture
def extents(monkeypatch):
    """Who asks the kernel to send a file, and what for."""
    seen: list[tuple[int, int]] = []
    real = os.sendfile

    def sendfile(out, file, offset, count):
        sent = real(out, file, offset, count)
        seen.append((offset, sent))
        return sent

    monkeypatch.setattr(http11.os, "sendfile", sendfile)
    return seen


@pytest.mark.skipif(not http11._KERNEL_SENDS, reason="Linux alone")
@pytest.mark.parametrize("part_size", [None, 2 * MIB])
def test_the_kernel_sends_files_that_are_verified(registry, verified, extents, part_size):
    blobs, folder = verified
    report = upload(registry.url, blobs, folder, options=options(part_size))

    assert 6 * MIB + 7 - (7 if part_size else 0) == sum(sent for _, sent in extents)
    assert 6 * MIB + 107 == report.bytes
    assert [b.digest for b in blobs] == stored(registry, blobs)


@pytest.mark.parametrize("way", ["unverified", "tls", "adapter"])
def test_the_kernel_sends_nothing_that_must_be_seen(registry, verified, extents, make_blobs, source, way, tmp_path):
    blobs, folder = verified
    if way == "unverified":
        upload(registry.url, make_blobs(source, [3 * MIB], seed=9), source)
    elif way == "adapter":
        with Session() as session:
            upload(registry.url, blobs, folder, session=session)
        assert [b.digest for b in blobs] == stored(registry, blobs)
    else:
        import trustme

        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        with running_registry(tls=(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))) as secure:
            with Session() as session:
                session.verify = str(tmp_path / "ca.pem")
                upload(secure.url, blobs, folder, session=session)
            assert [b.digest for b in blobs] == stored(secure, blobs)
    assert [] == extents


def test_a_file_that_the_kernel_cannot_send_is_read(registry, verified, monkeypatch):
    calls: list[int] = []
    real = os.sendfile

    def sendfile(out, file, offset, count):
        calls.append(offset)
        if offset >= MIB:
            raise OSError(22, "Invalid argument")
        return real(out, file, offset, count)

    monkeypatch.setattr(http11.os, "sendfile", sendfile)
    blobs, folder = verified
    report = upload(registry.url, blobs, folder, options=options(None))
    assert calls[-1] >= MIB
    assert [b.digest for b in blobs] == stored(registry, blobs)
    assert 6 * MIB + 107 == report.bytes


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("part_size", [2 * MIB, None])
@pytest.mark.parametrize("spoil", ["touch", "lengthen", "shorten", "change"])
def test_a_file_that_changes_while_it_is_sent_is_a_source_error(make_blobs, tmp_path, known, part_size, spoil):
    blobs = make_blobs(tmp_path / "s", [8 * MIB])
    path = tmp_path / "s" / tk.digest_to_path(blobs[0].digest)
    if known:
        with running_registry() as registry:
            upload(registry.url, blobs, tmp_path / "s")
            tk.download(blobs, tmp_path / "k", base_url=registry.url, repository=REPOSITORY)
        path = tmp_path / "k" / path.name

    def spoiling(app):
        def middle(environ, start_response):
            if spoil == "touch":
                os.utime(path, ns=(1, 1))
            elif spoil == "lengthen":
                with path.open("ab") as file:
                    file.write(b"x")
            elif spoil == "shorten":
                os.truncate(path, 7 * MIB)
            else:
                with path.open("r+b") as file:
                    file.seek(7 * MIB)
                    file.write(b"something else")
            return app(environ, start_response)

        return middle

    rule = FaultRule(spoiling, times=1, **(PATCH if part_size else PUT))
    with faulty(rule) as registry:
        with pytest.raises(tk.SourceError):
            upload(registry.url, blobs, path.parent, options=options(part_size))
        assert not registry.blob_path(blobs[0].digest).exists()
        assert 201 not in [r[3] for r in requests(registry)]


def test_a_file_is_hashed_once_however_many_parts_it_has(registry, make_blobs, source, monkeypatch):
    """Opened anew for each part, it would be hashed from its beginning each time."""
    from transferkit.storage.disk import Disk

    read: list[int] = []
    real = Disk.preadv

    def preadv(self, fd, buffer, offset):
        count = real(self, fd, buffer, offset)
        read.append(count)
        return count

    monkeypatch.setattr(Disk, "preadv", preadv)
    upload(registry.url, make_blobs(source, [8 * MIB]), source)
    assert 8 * MIB == sum(read)


@pytest.mark.parametrize("part_size", [0, -1, 1, MIB - 1])
def test_a_part_is_at_least_a_mebibyte(part_size):
    with pytest.raises(ValueError, match="part_size is at least 1 MiB"):
        tk.TransferOptions(part_size=part_size)
