"""Upload sessions of the specification's kind, over real sockets; the long conversations are functional tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.unit.remote.rig import BLOB, BLOB_PATH, DATA, DIGEST, WHERE, Flow, Source, SourceBody, requests_of
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Outcome
from transferkit.errors import (
    BlobNotFoundError,
    DeniedError,
    NotFoundError,
    ProtocolError,
    ReadError,
    RegistryError,
    ServerError,
    TransferKitError,
)
from transferkit.remote.repository import Repository
from transferkit.testing import Close, RawRequest, answer, scripted_server

UPLOADS = f"/v2/{WHERE}/blobs/uploads/"
SESSION = "/session?_state=a%2Fb"
COMMIT = f"{SESSION}&digest={DIGEST}"
MOUNT = f"{UPLOADS}?mount={DIGEST}&from=library%2Fother"
MOUNTED = replace(BLOB, source="library/other")
ABSENT = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
THERE = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n"
PROBED = ("HEAD", BLOB_PATH)
BEGUN = ("POST", UPLOADS)
MIB = 1024 * 1024
ZEROS = bytes(2 * MIB)
# head -c 2097152 /dev/zero | sha256sum
LARGE = Descriptor("sha256:5647f05ec18958947d32874eeb788fa396a05d0bab7c1b71f112ceb7e9b31eee", 2 * MIB)


def begun(location: str = SESSION, **headers: str) -> bytes:
    return answer(202, b"", {"Location": location, **{name.replace("_", "-"): text for name, text in headers.items()}})


def push(repository: Repository, flow: Flow, descriptor: Descriptor = BLOB, data: bytes = DATA) -> Outcome:
    source = Source(data)
    try:
        return repository.push(descriptor, source, flow=flow)
    finally:
        assert source.open == 0
        assert flow.held == set()


def test_a_blob_goes_up_in_three_requests(repository_of: Any, flow: Flow) -> None:
    with scripted_server([ABSENT, begun(), answer(201)]) as server:
        assert push(repository_of(server.url, token="secret"), flow) is Outcome.MOVED
        assert requests_of(server) == [PROBED, BEGUN, ("PUT", COMMIT)]
        head, post, put = server.requests
    assert {request.headers["authorization"] for request in (head, post, put)} == {"Bearer secret"}
    assert (post.headers["content-length"], post.body) == ("0", b"")
    assert (put.headers["content-length"], put.headers["content-type"], put.body) == (
        "1024",
        "application/octet-stream",
        DATA,
    )
    assert "content-range" not in put.headers
    assert flow.counter.position == 1024


@pytest.mark.parametrize("status", [200, 201, 203, 204])
def test_another_success_that_says_where_to_go_began_a_session(in_parts: Any, flow: Flow, status: int) -> None:
    """And one that a part gets, but for 201, which ECR says to what it drops, is none the worse."""
    first = answer(status, b"", {"Location": SESSION})
    second = answer(status, b"", {"Location": SESSION, "Range": "0-1048575"})
    third = answer(status, b"", {"Location": SESSION, "Range": "0-2097151"})
    with scripted_server([ABSENT, first, second, third, answer(201)]) as server:
        assert push(in_parts(server.url), flow, LARGE, ZEROS) is Outcome.MOVED
        assert [request.method for request in server.requests] == ["HEAD", "POST", "PATCH", "PATCH", "PUT"]


def test_an_empty_blob_is_a_request_with_an_empty_body(repository_of: Any, flow: Flow) -> None:
    empty = Descriptor("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0)
    with scripted_server([ABSENT, begun(), answer(201)]) as server:
        assert push(repository_of(server.url), flow, empty, b"") is Outcome.MOVED
        put = server.requests[2]
    assert (put.headers["content-length"], put.headers["content-type"]) == ("0", "application/octet-stream")


def test_all_requests_of_an_upload_ask_for_one_scope(repository_of: Any, flow: Flow) -> None:
    asked: list[str] = []

    def token(challenge: Any) -> str:
        asked.append(challenge.scope)
        return "secret"

    def reply(request: RawRequest) -> bytes:
        if "authorization" not in request.headers:
            realm = f'Bearer realm="https://auth.test/token",service="r",scope="repository:{WHERE}:pull,push"'
            return answer(401, b"", {"WWW-Authenticate": realm})
        return {"HEAD": ABSENT, "POST": begun(), "PUT": answer(201)}[request.method]

    with scripted_server(reply) as server:
        assert push(repository_of(server.url, get_token=token), flow) is Outcome.MOVED
        assert [request.method for request in server.requests] == ["HEAD", "HEAD", "POST", "PUT"]
    assert asked == [f"repository:{WHERE}:pull,push"]


@pytest.mark.parametrize("status", [400, 401, 403, 501])
def test_a_registry_that_will_not_say_whether_it_has_a_blob_is_sent_it(
    repository_of: Any, flow: Flow, status: int
) -> None:
    refusal = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status
    with scripted_server([refusal, begun(), answer(201)]) as server:
        assert push(repository_of(server.url), flow) is Outcome.MOVED
        assert requests_of(server) == [PROBED, BEGUN, ("PUT", COMMIT)]


def test_a_portal_that_says_200_to_everything_has_no_blob(repository_of: Any, flow: Flow) -> None:
    portal = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n"
    with scripted_server([portal, begun(), answer(201)]) as server:
        assert push(repository_of(server.url), flow) is Outcome.MOVED


# -- mounts


@pytest.mark.parametrize("said", [{"Location": BLOB_PATH}, {"Docker-Content-Digest": DIGEST}])
def test_a_blob_is_mounted(repository_of: Any, flow: Flow, said: dict[str, str]) -> None:
    with scripted_server([ABSENT, answer(201, b"", said)]) as server:
        assert push(repository_of(server.url), flow, MOUNTED) is Outcome.MOUNTED
        assert requests_of(server) == [PROBED, ("POST", MOUNT)]


def test_a_201_that_anybody_could_say_is_asked_about(repository_of: Any, flow: Flow) -> None:
    for there in (THERE, b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"):
        with scripted_server([ABSENT, answer(201), there]) as server:
            assert push(repository_of(server.url), flow, MOUNTED) is Outcome.MOUNTED
    with scripted_server([ABSENT, answer(201), ABSENT, begun(), answer(201)]) as server:
        assert push(repository_of(server.url), flow, MOUNTED) is Outcome.MOVED


def test_a_mount_that_is_declined_began_a_session(repository_of: Any, flow: Flow) -> None:
    with scripted_server([ABSENT, begun(), answer(201)]) as server:
        assert push(repository_of(server.url), flow, MOUNTED) is Outcome.MOVED
        assert requests_of(server) == [PROBED, ("POST", MOUNT), ("PUT", COMMIT)]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_a_mount_that_is_refused_is_followed_by_a_plain_upload(repository_of: Any, flow: Flow, status: int) -> None:
    with scripted_server([ABSENT, answer(status), begun(), answer(201)]) as server:
        assert push(repository_of(server.url), flow, MOUNTED) is Outcome.MOVED
        assert requests_of(server) == [PROBED, ("POST", MOUNT), BEGUN, ("PUT", COMMIT)]


def test_so_is_one_whose_scope_the_token_service_refuses(repository_of: Any, flow: Flow) -> None:
    def reply(request: RawRequest) -> bytes:
        path, _, query = request.target.partition("?")
        if path == "/token":
            scopes = parse_qs(query)["scope"]
            if len(scopes) > 1:
                return answer(403)
            return answer(200, b'{"token": "issued"}')
        if request.headers.get("authorization") != "Bearer issued" or "mount=" in request.target:
            realm = f'Bearer realm="{server.url}/token",service="r"'
            return answer(401, b"", {"WWW-Authenticate": realm})
        return {"HEAD": ABSENT, "POST": begun(), "PUT": answer(201)}[request.method]

    with scripted_server(reply) as server:
        assert push(repository_of(server.url), flow, MOUNTED) is Outcome.MOVED
        asked = [
            parse_qs(request.target.partition("?")[2])["scope"]
            for request in server.requests
            if "/token" in request.target
        ]
    assert asked == [
        [f"repository:{WHERE}:pull,push"],
        [f"repository:{WHERE}:pull,push", "repository:library/other:pull"],
    ]


@pytest.mark.parametrize(
    ("refusal", "error"), [(answer(500), ServerError), (answer(429, b"", {"Retry-After": "9999"}), RegistryError)]
)
def test_trouble_at_a_mount_is_no_refusal(
    repository_of: Any, flow: Flow, refusal: bytes, error: type[TransferKitError]
) -> None:
    with scripted_server([ABSENT, refusal]) as server:
        with pytest.raises(error):
            push(repository_of(server.url), flow, MOUNTED)


@pytest.mark.parametrize("trouble", [answer(500), answer(429), Close()], ids=["500", "429", "cut"])
def test_a_mount_that_keeps_failing_is_followed_by_a_plain_upload(repository_of: Any, flow: Flow, trouble: Any) -> None:
    def reply(request: RawRequest) -> Any:
        return {"HEAD": ABSENT, "PUT": answer(201)}.get(request.method) or (
            trouble if "mount=" in request.target else begun()
        )

    with scripted_server(reply) as server:
        repository = repository_of(server.url)
        for _ in range(2):
            with pytest.raises((RegistryError, ReadError)):
                push(repository, flow, MOUNTED)
        assert push(repository, flow, MOUNTED) is Outcome.MOVED
        assert [method for method, target in requests_of(server) if target == MOUNT] == 3 * ["POST"]


@pytest.mark.parametrize(
    "reply",
    [
        answer(200),
        answer(202),
        answer(201, b"<p>", {"Content-Type": "text/html"}),
        answer(201, b"", {"Docker-Content-Digest": "sha256:" + 64 * "b"}),
        answer(302, b"", {"Location": "file:///x"}),
    ],
)
def test_a_mount_that_proves_nothing_is_followed_by_a_plain_upload(
    repository_of: Any, flow: Flow, reply: bytes
) -> None:
    with scripted_server([ABSENT, reply, begun(), answer(201)]) as server:
        assert push(repository_of(server.url), flow, MOUNTED) is Outcome.MOVED
        assert requests_of(server) == [PROBED, ("POST", MOUNT), BEGUN, ("PUT", COMMIT)]


# -- the answer to the commit


@pytest.mark.parametrize("status", [400, 403, 404, 409])
def test_a_commit_that_is_refused_since_the_blob_is_there_is_no_failure(
    repository_of: Any, flow: Flow, status: int
) -> None:
    with scripted_server([ABSENT, begun(), answer(status), THERE]) as server:
        assert push(repository_of(server.url), flow) is Outcome.PRESENT
        assert requests_of(server) == [PROBED, BEGUN, ("PUT", COMMIT), PROBED]


@pytest.mark.parametrize(("status", "error"), [(400, RegistryError), (403, DeniedError), (409, RegistryError)])
@pytest.mark.parametrize("head", [ABSENT, b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"])
def test_a_commit_that_is_refused_for_good_is_told(
    repository_of: Any, flow: Flow, status: int, error: type[TransferKitError], head: bytes
) -> None:
    with scripted_server([ABSENT, begun(), answer(status), head]) as server:
        with pytest.raises(error, match=f"PUT .*: registry responded with status {status}"):
            push(repository_of(server.url), flow)
    assert flow.counter.position == 0


@pytest.mark.parametrize(
    "said", ["", "x", "sha256:x", f"{DIGEST}, {DIGEST}", "md5:abc", "sha512:" + 128 * "a", f'"{DIGEST}"', DIGEST]
)
def test_what_a_registry_announces_counts_only_where_it_can_be_compared(
    repository_of: Any, flow: Flow, said: str
) -> None:
    with scripted_server([ABSENT, begun(), answer(201, b"", {"Docker-Content-Digest": said})]) as server:
        assert push(repository_of(server.url), flow) is Outcome.MOVED


def test_a_registry_that_stored_something_else_is_caught(repository_of: Any, flow: Flow) -> None:
    other = "sha256:" + 64 * "b"
    with scripted_server([ABSENT, begun(), answer(201, b"", {"Docker-Content-Digest": other})]) as server:
        with pytest.raises(ProtocolError, match="stored it as sha256:bbbb"):
            push(repository_of(server.url), flow)


PAGE = answer(200, b"<p>", {"Content-Type": "text/html"})


@pytest.mark.parametrize("reply", [PAGE, answer(202), answer(206), answer(226)], ids=["page", "202", "206", "226"])
def test_an_answer_that_proves_nothing_is_asked_about(repository_of: Any, flow: Flow, reply: bytes) -> None:
    with scripted_server([ABSENT, begun(), reply, THERE]) as server:
        assert push(repository_of(server.url), flow) is Outcome.MOVED
        assert requests_of(server) == [PROBED, BEGUN, ("PUT", COMMIT), PROBED]
    with scripted_server([ABSENT, begun(), reply, ABSENT]) as server:
        with pytest.raises(ProtocolError, match="does not say that it has the blob"):
            push(repository_of(server.url), flow)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "BLOB_UPLOAD_INVALID"),
        (404, "BLOB_UPLOAD_UNKNOWN"),
        (403, "TOOMANYREQUESTS"),
        (400, "UNAVAILABLE"),
        (409, "UNKNOWN"),
    ],
)
def test_a_code_that_is_temporary_gets_another_session(repository_of: Any, flow: Flow, status: int, code: str) -> None:
    """The list is crane's; a session of which the registry says that it is lost is not asked about."""
    refusal = answer(status, b'{"errors": [{"code": "%s"}]}' % code.encode())
    lost = "UPLOAD" in code
    after = [ABSENT, begun("/second"), answer(201)] if lost else [ABSENT, answer(404), begun("/second"), answer(201)]
    with scripted_server([ABSENT, begun(), refusal, *after]) as server:
        repository = repository_of(server.url)
        with pytest.raises((RegistryError, NotFoundError)) as caught:
            push(repository, flow, LARGE, ZEROS)
        assert caught.value.retryable
        assert push(repository, flow, LARGE, ZEROS) is Outcome.MOVED
        assert server.requests[-1].target == f"/second?digest={LARGE.digest}"


@pytest.mark.parametrize(
    ("reply", "text"),
    [(answer(201), "says 201 to an upload that was only begun"), (answer(202), "without saying where it goes")],
)
def test_a_session_that_leads_nowhere_is_refused(repository_of: Any, flow: Flow, reply: bytes, text: str) -> None:
    with scripted_server([ABSENT, reply]) as server:
        with pytest.raises(ProtocolError, match=text):
            push(repository_of(server.url), flow)


# -- parts, and sessions that go on


def taken(end: int) -> bytes:
    return answer(202, b"", {"Location": SESSION, "Range": f"0-{end}"})


@pytest.fixture
def in_parts(repository_of: Any) -> Callable[[str], Repository]:
    def make(url: str) -> Repository:
        return Repository(repository_of(url).client, WHERE, part_size=MIB)

    return make


def test_parts_follow_each_other_and_an_empty_request_ends_them(in_parts: Any, flow: Flow) -> None:
    script = [ABSENT, begun(), taken(MIB - 1), taken(2 * MIB - 1), answer(201)]
    with scripted_server(script) as server:
        assert push(in_parts(server.url), flow, LARGE, ZEROS) is Outcome.MOVED
        sent = [
            (r.method, r.target.partition("&")[0], r.headers.get("content-range"), len(r.body))
            for r in server.requests[2:]
        ]
    assert sent == [
        ("PATCH", SESSION, "0-1048575", MIB),
        ("PATCH", SESSION, "1048576-2097151", MIB),
        ("PUT", SESSION, None, 0),
    ]


class Breaking(SourceBody):
    """A body whose registry refuses the rest of it."""

    error: TransferKitError

    def readinto(self, buffer: memoryview, /) -> int:
        if self._at:
            raise self.error
        return super().readinto(buffer[:512])


@pytest.mark.parametrize("error", [BlobNotFoundError("gone"), DeniedError("no", status=403), RegistryError(status=413)])
@pytest.mark.parametrize("part_size", [None, MIB])
def test_an_error_of_a_registry_that_is_the_source_is_not_the_targets(
    repository_of: Any, flow: Flow, error: TransferKitError, part_size: int | None
) -> None:
    class Failing(Source):
        def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Any) -> SourceBody:
            super().fetch(descriptor, offset=offset, flow=flow)
            body = Breaking(self, offset)
            body.error = error
            return body

    with scripted_server([ABSENT, begun()]) as server:
        target = Repository(repository_of(server.url).client, WHERE, part_size=part_size)
        with pytest.raises(type(error)) as caught:
            target.push(LARGE, Failing(ZEROS), flow=flow)
        assert caught.value is error
        assert requests_of(server) == [("HEAD", BLOB_PATH.replace(DIGEST, LARGE.digest)), BEGUN]


PART_ALONE = {"Range": "1048576-2097151"}


@pytest.mark.parametrize("said", [{}, {"Range": ""}, {"Range": "bytes=?"}], ids=repr)
def test_a_part_whose_answer_does_not_say_what_is_there_is_asked_about(
    in_parts: Any, flow: Flow, said: dict[str, str]
) -> None:
    first, second = (answer(202, b"", {"Location": SESSION, **more}) for more in (said, PART_ALONE))
    script = [ABSENT, begun(), first, taken(MIB - 1), second, taken(2 * MIB - 1), answer(201)]
    with scripted_server(script) as server:
        assert push(in_parts(server.url), flow, LARGE, ZEROS) is Outcome.MOVED
        assert [r.method for r in server.requests] == ["HEAD", "POST", "PATCH", "GET", "PATCH", "GET", "PUT"]
    assert flow.counter.position == 2 * MIB


@pytest.mark.parametrize("status", [answer(404), answer(204), answer(204, b"", {"Range": "0-9999999"})])
def test_a_registry_that_never_tells_is_taken_at_its_word(in_parts: Any, flow: Flow, status: bytes) -> None:
    """It is asked once; the digest of the commit proves what came of the parts."""
    silent = answer(202, b"", {"Location": SESSION})
    with scripted_server([ABSENT, begun(), silent, status, silent, answer(201)]) as server:
        assert push(in_parts(server.url), flow, LARGE, ZEROS) is Outcome.MOVED
        assert [r.method for r in server.requests] == ["HEAD", "POST", "PATCH", "GET", "PATCH", "PUT"]
        assert [len(r.body) for r in server.requests if r.method == "PATCH"] == [MIB, MIB]


def test_a_part_that_the_session_does_not_have_was_dropped(in_parts: Any, flow: Flow) -> None:
    dropped = answer(202, b"", {"Location": SESSION})
    with scripted_server([ABSENT, begun(), dropped, taken(0), begun("/second"), answer(201)]) as server:
        assert push(in_parts(server.url), flow, LARGE, ZEROS) is Outcome.MOVED
        assert server.requests[-1].target == f"/second?digest={LARGE.digest}"
        assert len(server.requests[-1].body) == 2 * MIB


def test_an_upload_goes_on_from_what_the_registry_has(repository_of: Any, flow: Flow) -> None:
    status = answer(204, b"", {"Location": "/moved?x=1", "Range": "0-1048575"})
    with scripted_server([ABSENT, begun(), answer(503), ABSENT, status, answer(201)]) as server:
        repository = repository_of(server.url)
        with pytest.raises(ServerError):
            push(repository, flow, LARGE, ZEROS)
        assert push(repository, flow, LARGE, ZEROS) is Outcome.MOVED
        asked, put = server.requests[4:]
    assert (asked.method, asked.target) == ("GET", SESSION)
    assert put.target == f"/moved?x=1&digest={LARGE.digest}"
    assert (put.headers["content-range"], len(put.body)) == ("1048576-2097151", MIB)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_session_that_may_not_be_asked_about_is_begun_again(repository_of: Any, flow: Flow, status: int) -> None:
    script = [ABSENT, begun(), answer(503), ABSENT, answer(status), begun("/second"), answer(201)]
    with scripted_server(script) as server:
        repository = repository_of(server.url)
        with pytest.raises(ServerError):
            push(repository, flow, LARGE, ZEROS)
        assert push(repository, flow, LARGE, ZEROS) is Outcome.MOVED
        assert server.requests[-1].target == f"/second?digest={LARGE.digest}"


def test_a_body_that_is_too_large_goes_in_parts_of_another_session(repository_of: Any, flow: Flow) -> None:
    script = [ABSENT, begun(), answer(413), begun(), taken(MIB - 1), taken(2 * MIB - 1), answer(201)]
    with scripted_server(script) as server:
        assert push(repository_of(server.url), flow, LARGE, ZEROS) is Outcome.MOVED
        methods = [request.method for request in server.requests]
    assert methods == ["HEAD", "POST", "PUT", "POST", "PATCH", "PATCH", "PUT"]
