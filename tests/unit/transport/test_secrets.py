"""What was sent as a secret is in no text that a peer made of it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import requests

from tests.unit.remote.rig import BLOB, WHERE, Flow, Source
from transferkit.content.chunk import Chunk
from transferkit.errors import IncompleteError, InvalidNameError, ProtocolError, RegistryError, TransferKitError
from transferkit.options import TransportOptions
from transferkit.remote.body import BlobBody
from transferkit.remote.repository import Repository
from transferkit.testing import RawRequest, answer, scripted_server
from transferkit.transport.client import Client
from transferkit.transport.hosts import Hosts
from transferkit.transport.secrets import clean, clean_error, parts_of_header, parts_of_proxy, parts_of_query

TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9"
SIGNED = "X-Signature=c2lnbmF0dXJl%2Fsigned&X-Date=20261126&digest=sha256:abc"


@pytest.mark.parametrize(
    ("text", "secrets", "expected"),
    [
        ("nothing of it", [TOKEN], "nothing of it"),
        (f"no: Bearer {TOKEN}!", [TOKEN], "no: Bearer ***!"),
        (f"{TOKEN}{TOKEN}", [TOKEN], "******"),
        (f"cut off: {TOKEN[:12]}", [TOKEN], "cut off: ***"),  # a text is cut before it is cleaned
        (f"cut off: {TOKEN[:7]}", [TOKEN], f"cut off: {TOKEN[:7]}"),
        ("a pass word", ["pass"], "a *** word"),
        ("a cat", ["cat", ""], "a cat"),
        ("bytes b'p\\\\ass\\\\word'", ["p\\ass\\word"], "bytes b'***'"),
        ("user:password", ["password", "user:password"], "***"),
    ],
)
def test_a_text_is_cleaned(text: str, secrets: list[str], expected: str) -> None:
    assert clean(text, secrets) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Bearer abc", {"Bearer abc", "abc"}),
        (
            "Basic dXNlcjpwYXNzOndvcmQ=",
            {"Basic dXNlcjpwYXNzOndvcmQ=", "dXNlcjpwYXNzOndvcmQ=", "user:pass:word", "pass:word"},
        ),
        ("Basic ???", {"Basic ???", "???"}),
        ("key", {"key"}),
    ],
)
def test_the_parts_of_a_header(value: str, expected: set[str]) -> None:
    assert set(parts_of_header(value)) == expected


def test_the_parts_of_a_query() -> None:
    assert set(parts_of_query("http://h/x")) == set()
    assert set(parts_of_query("http://h/x?digest=sha256:abc&from=library%2Fx")) == set()
    assert set(parts_of_query("http://h/x?sig=a%2Fb#y")) == {"sig=a%2Fb", "a%2Fb", "a/b"}


def test_the_parts_of_a_proxy() -> None:
    assert set(parts_of_proxy("http://proxy:3128")) == set()
    assert set(parts_of_proxy("http://[::1")) == set()
    assert set(parts_of_proxy("me:p%40ss@proxy:3128")) == {"me:p%40ss", "me:p@ss", "p%40ss", "p@ss"}


def test_an_error_is_cleaned_with_what_it_came_from() -> None:
    cause = ProtocolError(f"cause {TOKEN}")
    error = RegistryError(f"no {TOKEN}", code=TOKEN, message=f"a {TOKEN}", detail=f"b {TOKEN}", url=f"http://h/{TOKEN}")
    error.__cause__ = cause
    clean_error(error, [TOKEN])
    assert (str(error), error.code, error.message, error.detail) == ("no ***", "***", "a ***", "b ***")
    assert (error.url, str(cause)) == ("http://h/***", "cause ***")


# -- a peer that repeats our request, wherever an error would quote it


CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


def echoes(secret: str) -> dict[str, bytes]:
    quoted = json.dumps({"errors": [{"code": secret, "message": secret, "detail": {"you sent": secret}}]}).encode()
    return {
        "status line": f"HTTP/9 {secret}\r\n\r\n".encode(),
        "reason": f"HTTP/1.1 400 {secret}\r\nContent-Length: 0\r\n\r\n".encode(),
        "body": answer(400, secret.encode()),
        "error": answer(403, quoted),
        "challenge": answer(401, quoted, {"WWW-Authenticate": f"Other {secret}"}),
        "location": answer(307, b"", {"Location": f"file:///{secret}"}),
        "range": answer(206, b"x", {"Content-Range": secret}),
        "missing": answer(416, b"", {"Content-Range": f"bytes */{secret}"}),
        "encoding": answer(200, b"x", {"Content-Encoding": secret}),
        "encoding of a body": f"{CHUNKED}Content-Encoding: {secret}\r\n\r\n1\r\nx\r\n0\r\n\r\n".encode(),
        "size of a chunk": f"{CHUNKED}\r\n{secret}\r\n".encode(),
        "type": answer(200, b"x", {"Content-Type": f"html-{secret}"}),
        "length": f"HTTP/1.1 200 OK\r\nContent-Length: {secret}\r\n\r\n".encode(),
        "framing": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {secret}\r\n\r\n".encode(),
        "list": answer(200, f"{BLOB.digest} 0-9\n{secret}\n".encode()),
        "manifest": answer(200, json.dumps({"schemaVersion": 2, "mediaType": secret, "layers": secret}).encode()),
    }


PAIR = ("alice", "correct-horse-battery")
BASIC = "Basic " + base64.b64encode(b"alice:correct-horse-battery").decode()
SECRETS = [TOKEN, f"Bearer {TOKEN}", BASIC, BASIC.partition(" ")[2], PAIR[1]]
KEY = "a-key-of-my-own"


def assert_clean(error: BaseException | None) -> None:
    while error is not None:
        own = vars(error).values() if isinstance(error, TransferKitError) else ()
        texts = [str(error), repr(error), *map(str, own)]
        for secret in (TOKEN, BASIC.partition(" ")[2], PAIR[1], KEY, "c2lnbmF0dXJl"):
            assert not [text for text in texts if secret[:12] in text]
        error = error.__cause__


def read(body: BlobBody) -> None:
    with body:
        while body.readinto(memoryview(bytearray(1000))):
            pass


@pytest.mark.parametrize("place", echoes(""))
@pytest.mark.parametrize("secret", [*SECRETS, KEY], ids=["token", "bearer", "basic", "base64", "password", "header"])
@pytest.mark.parametrize("seen", [False, True], ids=["own session", "session of the user's"])
def test_what_a_peer_repeats_is_in_no_error(place: str, secret: str, seen: bool, caplog: Any) -> None:
    caplog.set_level("DEBUG", "transferkit")
    keywords: dict[str, Any] = {"token": TOKEN} if secret in SECRETS[:2] else {"auth": PAIR}
    keywords |= {"options": TransportOptions(response_timeout=0.1, commit_timeout=0.1), "stall_timeout": 0.1}
    flow, reply = Flow(), echoes(secret)[place]

    def script(request: RawRequest) -> bytes:
        if secret not in (*SECRETS[:2], KEY) and request.headers.get("authorization") is None:
            return answer(401, b"", {"WWW-Authenticate": "Basic realm=x"})
        return reply

    with scripted_server(script) as server, requests.Session() as session:
        session.headers["X-Key"] = KEY
        if seen or secret == KEY:
            keywords["session"] = session
        with Hosts(**keywords) as hosts:
            repository = Repository(Client(server.url, hosts), WHERE)
            for call in (
                lambda: read(repository.fetch(BLOB, flow=flow)),
                lambda: read(repository.fetch(BLOB, offset=5, flow=flow)),
                lambda: read(repository.fetch_range(BLOB, Chunk(0, 9), flow=flow)),
                lambda: list(repository.chunksums(BLOB, flow=flow)),
                lambda: repository.push(BLOB, Source(), flow=flow),
                lambda: repository.fetch_manifest("v1", flow=flow),
                lambda: repository.push_manifest(b"{}", "v1", media_type="x", flow=flow),
            ):
                try:
                    call()
                except TransferKitError as error:
                    assert_clean(error)
    for record in caplog.records:
        assert not [s for s in (TOKEN, BASIC.partition(" ")[2], PAIR[1], KEY) if s[:12] in record.getMessage()]


def test_a_chunk_whose_size_is_a_secret_is_in_no_error() -> None:
    """A foreign adapter's reader quotes what it cannot read."""
    begun = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + TOKEN.encode() + b"\r\n"
    with scripted_server([begun]) as server, requests.Session() as session, Hosts(session, token=TOKEN) as hosts:
        with Repository(Client(server.url, hosts), WHERE).fetch(BLOB, flow=Flow()) as body:
            with pytest.raises(TransferKitError) as caught:
                body.readinto(memoryview(bytearray(1000)))
    assert_clean(caught.value)


@pytest.mark.parametrize("place", ["status line", "body", "error", "range", "encoding", "missing", "type"])
@pytest.mark.parametrize("secret", [SIGNED, "c2lnbmF0dXJl%2Fsigned", "c2lnbmF0dXJl/signed"])
def test_a_signed_query_that_its_storage_repeats_is_in_no_error(place: str, secret: str) -> None:
    flow, reply = Flow(), echoes(secret)[place]
    with scripted_server(lambda _: reply) as storage:
        lead = answer(307, b"", {"Location": f"{storage.url}/blob?{SIGNED}"})
        with scripted_server(lambda _: lead) as server, Hosts() as hosts:
            repository = Repository(Client(server.url, hosts), WHERE)
            for call in (
                lambda: repository.fetch(BLOB, offset=5, flow=flow),
                lambda: repository.fetch_range(BLOB, Chunk(0, 9), flow=flow),
            ):
                with pytest.raises(TransferKitError) as caught:
                    call()
                assert_clean(caught.value)


def test_what_an_error_came_from_and_the_failures_it_has_are_cleaned() -> None:
    def failed(text: str) -> TransferKitError:
        try:
            try:
                raise ProtocolError(f"first {TOKEN}")
            except ProtocolError:
                raise InvalidNameError(f"{text} {TOKEN}")  # noqa: B904
        except InvalidNameError as error:
            return error

    error = IncompleteError(f"some failed: {TOKEN}", failures={"a": failed("second")})
    error.__cause__ = failed("third")
    error.__cause__.__cause__ = error  # in a circle
    clean_error(error, [TOKEN])
    found = [error, error.__cause__, error.failures["a"], error.failures["a"].__context__]
    assert ["some failed: ***", "third ***", "second ***", "first ***"] == [str(each) for each in found]
