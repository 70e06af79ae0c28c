"""Tags and referrers over real sockets, page by page, from registries of every kind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.remote.rig import WHERE, Flow
from transferkit.content.digest import Digest
from transferkit.content.manifest import OCI_INDEX, OCI_MANIFEST, Manifest
from transferkit.errors import NotFoundError, ProtocolError, RegistryError
from transferkit.remote import listing
from transferkit.remote.endpoint import Endpoint
from transferkit.testing import answer, scripted_server

A, B = Digest("sha256:" + 64 * "a"), Digest("sha256:" + 64 * "b")
TAGS = f"/v2/{WHERE}/tags/list"


def page(*tags: str, following: str | None = None) -> bytes:
    return answer(200, json.dumps({"tags": tags}).encode(), {"Link": f'<{following}>; rel="next"'} if following else {})


def index(*digests: str) -> bytes:
    manifests = [{"mediaType": "m", "digest": digest, "size": 5} for digest in digests]
    return json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()


@pytest.fixture
def tags_of(repository_of: Any, flow: Flow) -> Any:
    return lambda server: list(listing.tags(Endpoint(repository_of(server.url).client, WHERE), flow))


@pytest.fixture
def referrers_of(repository_of: Any, flow: Flow) -> Any:
    return lambda server: [
        d.digest for d in listing.referrers(Endpoint(repository_of(server.url).client, WHERE), A, flow)
    ]


def test_tags_of_all_pages(tags_of: Any) -> None:
    with scripted_server([page("a", "b", following=f"{TAGS}?last=b"), page("b", "c")]) as server:
        assert tags_of(server) == ["a", "b", "c"]
        assert [request.target for request in server.requests] == [f"{TAGS}?n=1000", f"{TAGS}?last=b"]


@pytest.mark.parametrize("link", ["http://127.0.0.1:9/next", "//evil.example/x", "file:///etc/passwd"])
def test_a_page_elsewhere_is_not_asked_for(tags_of: Any, link: str) -> None:
    with scripted_server([page("a", following=link)]) as server:
        with pytest.raises(ProtocolError):
            tags_of(server)
        assert len(server.requests) == 1


def test_a_list_that_leads_to_itself_ends(tags_of: Any) -> None:
    pages = [page("a", following=f"{TAGS}?last=a"), page("b", following=f"{TAGS}?last=a")]
    with scripted_server(pages) as server, pytest.raises(ProtocolError, match="begins again"):
        tags_of(server)


def test_a_list_without_end_ends(tags_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_PAGES", 5)
    pages = [page(f"t{n}", following=f"{TAGS}?last={n}") for n in range(9)]
    with scripted_server(pages) as server, pytest.raises(ProtocolError, match="more than 5 pages"):
        tags_of(server)


def test_a_repository_that_is_not_there(tags_of: Any) -> None:
    with scripted_server([answer(404)]) as server, pytest.raises(NotFoundError):
        tags_of(server)


def test_referrers_each_once(referrers_of: Any) -> None:
    with scripted_server([answer(200, index(A, B, A))]) as server:
        assert referrers_of(server) == [A, B]
        assert server.requests[0].target == f"/v2/{WHERE}/referrers/{A}"


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_without_such_a_list_the_tag_is_read(referrers_of: Any, status: int) -> None:
    with scripted_server([answer(status), answer(200, index(B))]) as server:
        assert referrers_of(server) == [B]
        assert server.requests[1].target == f"/v2/{WHERE}/manifests/{A.file_name}"


def test_without_list_and_tag_there_are_none(referrers_of: Any) -> None:
    with scripted_server([answer(404), answer(404)]) as server:
        assert referrers_of(server) == []


def test_trouble_is_not_none(referrers_of: Any) -> None:
    with scripted_server([answer(500)]) as server, pytest.raises(RegistryError):
        referrers_of(server)


# -- entering them


MANIFEST = Manifest(b'{"layers": [], "artifactType": "application/vnd.example", "annotations": {"a": "b"}}')
PLAIN = Manifest(b'{"layers": [], "config": {"mediaType": "m", "digest": "' + B.encode() + b'", "size": 5}}')


def refer(repository_of: Any, flow: Flow, answers: list[bytes], *documents: Manifest) -> list[tuple[str, str, bytes]]:
    with scripted_server(answers) as server:
        listing.refer(Endpoint(repository_of(server.url).client, WHERE), A, documents, flow)
        return [(request.method, request.target, request.body) for request in server.requests]


def test_a_registry_with_a_list_enters_them_itself(repository_of: Any, flow: Flow) -> None:
    asked = refer(repository_of, flow, [answer(200, index(MANIFEST.digest))], MANIFEST)
    assert asked == [("GET", f"/v2/{WHERE}/referrers/{A}", b"")]


@pytest.mark.parametrize("known", [[], [B]])
def test_without_a_list_they_are_entered_under_a_tag(repository_of: Any, flow: Flow, known: list[str]) -> None:
    there = answer(200, index(*known)) if known else answer(404)
    asked = refer(repository_of, flow, [answer(404), there, there, answer(201)], MANIFEST, PLAIN)
    tag = f"/v2/{WHERE}/manifests/sha256-{64 * 'a'}"
    expected = [("GET", f"/v2/{WHERE}/referrers/{A}"), ("GET", tag), ("GET", tag), ("PUT", tag)]
    assert [each[:2] for each in asked] == expected
    document = json.loads(asked[-1][2])
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    *others, first, second = document["manifests"]
    assert others == [{"mediaType": "m", "digest": digest, "size": 5} for digest in known]
    assert first == {
        "mediaType": OCI_MANIFEST,
        "digest": MANIFEST.digest,
        "size": len(MANIFEST.raw),
        "artifactType": "application/vnd.example",
        "annotations": {"a": "b"},
    }
    assert (second["digest"], second["artifactType"]) == (PLAIN.digest, "m")


def test_a_list_that_has_begun_and_does_not_end_is_no_reason_for_the_tag(referrers_of: Any) -> None:
    page = answer(200, index(), {"Link": '<http://127.0.0.1:9/next>; rel="next"'})
    with scripted_server([page]) as server, pytest.raises(ProtocolError, match="elsewhere; refused"):
        referrers_of(server)
