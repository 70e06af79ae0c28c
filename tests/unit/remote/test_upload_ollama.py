"""Upload sessions of Ollama's registry, over real sockets; the long conversations are functional tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.remote.rig import BLOB, DATA, DIGEST, WHERE, Flow, Source, SourceBody
from transferkit.content.descriptor import Descriptor
from transferkit.content.interfaces import Outcome
from transferkit.errors import BlobNotFoundError, NotFoundError, ProtocolError, RegistryError, ServerError
from transferkit.options import TransportOptions
from transferkit.remote import upload, upload_ollama
from transferkit.remote.repository import Repository
from transferkit.testing import ScriptedServer, answer, scripted_server

UPLOADS = f"/v2/{WHERE}/blobs/uploads/"
ABSENT = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
# The halves of DATA are equal:
# python3 -c 'from hashlib import md5; print(md5(2 * md5(bytes(range(256)) * 2).digest()).hexdigest())'
ETAG = "2847fa4c7fd2b982c076498f325c0dbf-2"


@pytest.fixture
def ollama(repository_of: Any) -> Callable[[ScriptedServer], Repository]:
    def make(server: ScriptedServer) -> Repository:
        options = TransportOptions(ollama_hosts=frozenset({f"127.0.0.1:{server.port}"}))
        made: Repository = repository_of(server.url, token="secret", options=options)
        return made

    return make


def test_the_question_has_the_digest_and_the_size(ollama: Any, flow: Flow) -> None:
    with scripted_server([ABSENT, answer(201)]) as server:
        assert ollama(server).push(BLOB, Source(), flow=flow) is Outcome.PRESENT
        post = server.requests[1]
    assert (post.method, post.target) == ("POST", f"{UPLOADS}?digest={DIGEST}")
    assert (post.headers["x-redirect-uploads"], post.headers["x-content-length"]) == ("2", "1024")


@pytest.mark.parametrize(("source", "outcome"), [(None, Outcome.PRESENT), ("library/other", Outcome.MOUNTED)])
def test_an_answer_that_leads_nowhere_is_a_yes(ollama: Any, flow: Flow, source: str | None, outcome: Outcome) -> None:
    with scripted_server([ABSENT, answer(202)]) as server:
        assert ollama(server).push(replace(BLOB, source=source), Source(), flow=flow) is outcome
        assert len(server.requests) == 2


def test_the_whole_body_goes_to_the_storage_without_credentials(ollama: Any, flow: Flow) -> None:
    with scripted_server([answer(200)]) as storage:
        head = {
            "Docker-Upload-Location": "/session?q=%2F",
            "Location": "/wrong",
            "X-Direct-Upload-URL": f"{storage.url}/bucket?sig=%2F",
            "X-Signed-Header-Content-MD5": "abc==",
        }
        with scripted_server([ABSENT, answer(202, b"", head), answer(201)]) as server:
            assert ollama(server).push(BLOB, Source(), flow=flow) is Outcome.MOVED
            commit = server.requests[2]
        (put,) = storage.requests
    assert (put.method, put.target, put.body) == ("PUT", "/bucket?sig=%2F", DATA)
    assert put.headers["content-md5"] == "abc=="
    assert "authorization" not in put.headers
    assert (commit.method, commit.target, commit.body) == ("PUT", f"/session?q=%2F&digest={DIGEST}", b"")
    assert commit.headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("status", "head", "error"),
    [(307, {"Location": "/elsewhere"}, ProtocolError), (404, {}, NotFoundError), (413, {}, RegistryError)],
)
def test_a_storage_that_refuses_is_final(
    ollama: Any, flow: Flow, status: int, head: dict[str, str], error: type[Exception]
) -> None:
    with scripted_server([answer(status, b"", head)]) as storage:
        begun = answer(202, b"", {"Location": "/session", "X-Direct-Upload-URL": f"{storage.url}/bucket"})
        with scripted_server([ABSENT, begun]) as server:
            with pytest.raises(error):
                ollama(server).push(BLOB, Source(), flow=flow)
            assert len(server.requests) == 2
        assert len(storage.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_signature_that_has_expired_is_followed_by_another_session(ollama: Any, flow: Flow, status: int) -> None:
    with scripted_server([answer(status), answer(200)]) as storage:
        begun = answer(202, b"", {"Location": "/session", "X-Direct-Upload-URL": f"{storage.url}/bucket"})
        with scripted_server([ABSENT, begun, begun, answer(201)]) as server:
            assert ollama(server).push(BLOB, Source(), flow=flow) is Outcome.MOVED
        assert [request.body for request in storage.requests] == [DATA, DATA]


def test_parts_are_summed_and_the_commit_says_so(ollama: Any, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_ollama, "SMALLEST_PART", 512)
    with scripted_server([answer(200)]) as storage:
        script = [
            ABSENT,
            answer(202, b"", {"Location": "/first"}),
            answer(307, b"", {"Docker-Upload-Location": "/second", "Location": f"{storage.url}/bucket"}),
            answer(202, b"", {"Location": "/third", "Range": "0-1023"}),
            answer(201),
        ]
        with scripted_server(script) as server:
            assert ollama(server).push(BLOB, Source(), flow=flow) is Outcome.MOVED
            first, second, commit = server.requests[2:]
        (put,) = storage.requests
    assert (first.method, first.target, first.headers["content-range"]) == ("PATCH", "/first", "0-511")
    assert first.headers["x-redirect-uploads"] == "1"
    assert (put.method, put.body, "authorization" in put.headers) == ("PUT", DATA[:512], False)
    assert (second.target, second.headers["content-range"], second.body) == ("/second", "512-1023", DATA[512:])
    assert commit.target == f"/third?digest={DIGEST}&etag={ETAG}"


class KeptNotes(dict[Descriptor, dict[str, Any]]):
    """Notes in memory, as JSON would give them back."""

    def load(self, descriptor: Descriptor) -> dict[str, Any]:
        return json.loads(json.dumps(self.get(descriptor, {})))  # type: ignore[no-any-return]  # it is what was saved

    def save(self, descriptor: Descriptor, note: dict[str, Any]) -> None:
        self[descriptor] = note

    def forget(self, descriptor: Descriptor) -> None:
        self.pop(descriptor, None)


@pytest.mark.parametrize("lost", [False, True])
def test_another_process_goes_on_behind_the_parts_that_are_there(
    ollama: Any, flow: Flow, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    monkeypatch.setattr(upload_ollama, "SMALLEST_PART", 512)
    monkeypatch.setattr(upload, "_SMALL", 0)
    notes = KeptNotes()
    begun, first = answer(202, b"", {"Location": "/first?secret=1"}), answer(202, b"", {"Location": "/second"})
    with scripted_server([ABSENT, begun, first, answer(503)]) as server:
        with pytest.raises(ServerError):
            Repository(ollama(server).client, WHERE, notes=notes).push(BLOB, Source(), flow=flow)
        port = server.port
    assert list(notes[BLOB]) == ["url", "digests"]
    assert notes[BLOB]["url"].endswith("/second")

    third = answer(202, b"", {"Location": "/third"})
    script = [ABSENT, answer(404), begun, first, third, answer(201)] if lost else [ABSENT, third, answer(201)]
    with scripted_server(script, port=port) as server:
        outcome = Repository(ollama(server).client, WHERE, notes=notes).push(BLOB, Source(), flow=flow)
        assert outcome is Outcome.MOVED
        sent = [(r.method, r.target, r.headers.get("content-range")) for r in server.requests[1:]]
    anew = [("POST", f"{UPLOADS}?digest={DIGEST}", None), ("PATCH", "/first?secret=1", "0-511")] if lost else []
    rest = ("PATCH", "/second", "512-1023")
    assert sent == [*([rest] if lost else []), *anew, rest, ("PUT", f"/third?digest={DIGEST}&etag={ETAG}", None)]
    assert notes == {}


@pytest.mark.parametrize("status", [400, 401, 404, 501])
def test_a_mount_that_is_refused_is_followed_by_a_plain_upload(ollama: Any, flow: Flow, status: int) -> None:
    begun = answer(202, b"", {"Location": "/session"})
    with scripted_server([ABSENT, answer(status), begun, begun, answer(201)]) as server:
        mounted = replace(BLOB, source="library/other")
        assert ollama(server).push(mounted, Source(), flow=flow) is Outcome.MOVED
        assert [r.target for r in server.requests[1:3]] == [
            f"{UPLOADS}?mount={DIGEST}&from=library%2Fother&digest={DIGEST}",
            f"{UPLOADS}?digest={DIGEST}",
        ]


def test_a_portal_has_no_blob(ollama: Any, flow: Flow) -> None:
    page = answer(201, b"<p>", {"Content-Type": "text/html"})
    with scripted_server([ABSENT, page]) as server, pytest.raises(ProtocolError, match="does not answer as Ollama"):
        ollama(server).push(BLOB, Source(), flow=flow)


def test_a_registry_that_has_other_bytes_than_it_was_sent_is_refused(ollama: Any, flow: Flow) -> None:
    script = [ABSENT, answer(202, b"", {"Location": "/s"}), answer(202, b"", {"Location": "/s", "Range": "0-9"})]
    with scripted_server(script) as server:
        with pytest.raises(ProtocolError, match="has not the 1024 bytes that it was sent"):
            ollama(server).push(BLOB, Source(), flow=flow)


class _Gone(Source):
    """A source that does not have the blob any more from the ``reads``-th time on."""

    def __init__(self, reads: int) -> None:
        super().__init__()
        self.reads = reads

    def fetch(self, descriptor: Descriptor, *, offset: int = 0, flow: Any) -> SourceBody:
        if len(self.fetched) == self.reads:
            raise BlobNotFoundError("the source has it no more")
        return super().fetch(descriptor, offset=offset, flow=flow)


@pytest.mark.parametrize("direct", [{}, {"X-Direct-Upload-URL": "/bucket"}])
def test_an_error_of_the_source_is_raised_as_it_is(ollama: Any, flow: Flow, direct: dict[str, str]) -> None:
    with scripted_server([ABSENT, answer(202, b"", {"Location": "/session", **direct})]) as server:
        with pytest.raises(BlobNotFoundError, match="no more"):
            ollama(server).push(BLOB, _Gone(0), flow=flow)
        assert len(server.requests) == 2


def test_an_error_of_the_source_does_not_begin_another_session(
    ollama: Any, flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_SMALL", 0)
    script = [ABSENT, answer(202, b"", {"Location": "/session"}), answer(503), ABSENT]
    with scripted_server(script) as server:
        repository, source = ollama(server), _Gone(1)
        with pytest.raises(ServerError):
            repository.push(BLOB, source, flow=flow)
        with pytest.raises(BlobNotFoundError, match="no more"):
            repository.push(BLOB, source, flow=flow)
        assert [request.method for request in server.requests] == ["HEAD", "POST", "PATCH", "HEAD"]


# -- parts


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 100_000_000),
        (1_599_999_999, 100_000_000),
        (1_600_000_016, 100_000_001),
        (16_000_000_000, 1_000_000_000),
        (80_000_000_000, 1_000_000_000),
    ],
)
def test_ollamas_parts_are_a_sixteenth_within_limits(size: int, expected: int) -> None:
    assert upload_ollama.part_length(size) == expected
