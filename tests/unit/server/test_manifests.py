"""Manifests, tags and referrers."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from transferkit.server import OCIRegistry
from transferkit.server.limits import Limits

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
HELLO = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
MISSING = "sha256:" + 64 * "a"
URL = "/v2/library/model/manifests/"

Push = Callable[..., str]


def descriptor(digest: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": "application/octet-stream", "digest": digest, "size": 5, **more}


def document(**more: Any) -> bytes:
    # Spaces and order that no encoder would make: what comes back must be these bytes.
    return json.dumps({"schemaVersion": 2, **more}, indent=3).encode() + b"\n"


def put(client: Client, reference: str, raw: bytes, kind: str | None = MANIFEST) -> TestResponse:
    return client.put(URL + reference, data=raw, headers={} if kind is None else {"Content-Type": kind})


def code(answer: TestResponse) -> tuple[int, str]:
    assert answer.json is not None
    return answer.status_code, answer.json["errors"][0]["code"]


def sha256(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


@pytest.fixture
def raw(push: Push) -> bytes:
    return document(config=descriptor(push(b"hello")), layers=[descriptor(push(b"world"))])


def test_a_manifest_comes_back_byte_for_byte_by_tag_and_by_digest(client: Client, raw: bytes) -> None:
    pushed = put(client, "v1", raw)

    assert pushed.status_code == 201
    assert (URL + sha256(raw), sha256(raw)) == (pushed.headers["Location"], pushed.headers["Docker-Content-Digest"])
    for reference in ("v1", sha256(raw)):
        answer = client.get(URL + reference)
        assert (200, raw, MANIFEST) == (answer.status_code, answer.data, answer.headers["Content-Type"])
        assert sha256(raw) == answer.headers["Docker-Content-Digest"]
        head = client.head(URL + reference)
        assert (200, b"", dict(answer.headers)) == (head.status_code, head.data, dict(head.headers))


def test_a_manifest_put_by_digest_has_no_tag(client: Client, raw: bytes) -> None:
    assert put(client, sha256(raw), raw).status_code == 201
    assert client.get("/v2/library/model/tags/list").json["tags"] == []
    assert raw == client.get(URL + sha256(raw)).data


def test_a_manifest_may_have_a_sha512_digest(client: Client, raw: bytes) -> None:
    digest = "sha512:" + hashlib.sha512(raw).hexdigest()

    assert digest == put(client, digest, raw).headers["Docker-Content-Digest"]
    assert raw == client.get(URL + digest).data


def test_a_manifest_put_by_the_digest_of_another_is_refused(client: Client, raw: bytes) -> None:
    answer = put(client, MISSING, raw)

    assert code(answer) == (400, "DIGEST_INVALID")
    assert {"digest": sha256(raw)} == answer.json["errors"][0]["detail"]


def test_a_tag_moves(client: Client, raw: bytes) -> None:
    put(client, "latest", raw)
    other = raw + b" "
    put(client, "latest", other)

    assert other == client.get(URL + "latest").data
    assert raw == client.get(URL + sha256(raw)).data


def test_a_manifest_that_has_not_changed_is_not_sent(client: Client, raw: bytes) -> None:
    put(client, "v1", raw)

    assert client.get(URL + "v1", headers={"If-None-Match": f'"{sha256(raw)}"'}).status_code == 304
    assert client.get(URL + "v1", headers={"If-None-Match": f'"{MISSING}"'}).status_code == 200


@pytest.mark.parametrize("reference", ["v1", MISSING])
def test_a_manifest_that_is_not_here_is_unknown(client: Client, reference: str) -> None:
    assert code(client.get(URL + reference)) == (404, "MANIFEST_UNKNOWN")
    assert client.head(URL + reference).status_code == 404
    assert code(client.delete(URL + reference)) == (404, "MANIFEST_UNKNOWN")


def test_a_manifest_of_another_repository_is_not_here(client: Client, raw: bytes) -> None:
    put(client, "v1", raw)
    assert client.get(f"/v2/other/model/manifests/{sha256(raw)}").status_code == 404


def test_a_manifest_whose_file_was_removed_by_hand_is_unknown(client: Client, raw: bytes, tmp_path: Path) -> None:
    put(client, "v1", raw)
    (tmp_path / "blobs" / sha256(raw).replace(":", "-")).unlink()

    assert client.get(URL + "v1").status_code == 404
    assert client.get(f"/v2/library/model/referrers/{HELLO}").json["manifests"] == []


@pytest.mark.parametrize(
    "tag",
    ["-a", ".a", "..", "a b", "a%00", "a%0a", "%D9%A1", "%EF%BC%91", "%ff", "a" * 129, "..%2f..%2fx", "a\\b", ""],
)
def test_a_tag_outside_the_grammar_is_refused(client: Client, raw: bytes, tag: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = client.open(URL + tag, method=method, data=raw)
        # With a slash in it, it is no tag but another path.
        assert ((404, "UNSUPPORTED") if "%2f" in tag else (400, "TAG_INVALID")) == code(answer)
    assert client.get("/v2/library/model/tags/list").json["tags"] == []


@pytest.mark.parametrize("tag", ["_", "a.b-c_D", "9" * 128])
def test_a_tag_within_the_grammar_is_taken(client: Client, raw: bytes, tag: str) -> None:
    assert put(client, tag, raw).status_code == 201
    assert raw == client.get(URL + tag).data


def test_a_deleted_tag_leaves_the_manifest(client: Client, raw: bytes) -> None:
    put(client, "v1", raw)

    assert client.delete(URL + "v1").status_code == 202

    assert client.get(URL + "v1").status_code == 404
    assert client.get(URL + sha256(raw)).status_code == 200


def test_a_deleted_manifest_takes_its_tags_along(client: Client, raw: bytes) -> None:
    put(client, "v1", raw)
    put(client, "latest", raw)
    put(client, "other", raw + b" ")

    assert client.delete(URL + sha256(raw)).status_code == 202

    assert client.get(URL + "v1").status_code == 404
    assert client.get("/v2/library/model/tags/list").json["tags"] == ["other"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        b'"x"',
        b"\xff\xfe{\x00}\x00",
        b'{"layers": 5}',
        b'{"layers": [5]}',
        b'{"layers": [{}]}',
        b'{"layers": [{"digest": 5}]}',
        b'{"layers": [{"digest": "sha256:../../x"}]}',
        b'{"config": []}',
        b'{"config": {"digest": "sha256:a"}}',
        b'{"manifests": {}}',
        b'{"manifests": [null]}',
        b'{"subject": 5}',
        b'{"subject": {"digest": null}}',
        b'{"mediaType": 5}',
        b'{"n": ' + 5000 * b"9" + b"}",
        100_000 * b"[",
    ],
)
def test_what_is_no_manifest_is_refused(client: Client, raw: bytes) -> None:
    assert code(put(client, "v1", raw)) == (400, "MANIFEST_INVALID")
    assert code(client.get(URL + "v1")) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("kind", ["text", "a/b\x00", "a/b/c", "/", "a/" + 200 * "b", "é/b"])
def test_a_media_type_that_is_none_is_refused(client: Client, raw: bytes, kind: str) -> None:
    answer = client.put(URL + "v1", data=raw, environ_overrides={"CONTENT_TYPE": kind})
    assert code(answer) == (400, "MANIFEST_INVALID")


def test_a_manifest_does_not_claim_to_be_two_things(client: Client) -> None:
    raw = document(mediaType=INDEX, manifests=[])
    assert code(put(client, "v1", raw, MANIFEST)) == (400, "MANIFEST_INVALID")
    assert put(client, "v1", raw, INDEX + "; charset=utf-8").status_code == 201


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (document(), MANIFEST),
        (document(manifests=[]), INDEX),
        (document(mediaType="application/vnd.docker.distribution.manifest.v2+json"), None),
        (document(config=None, layers=None, manifests=None, subject=None), INDEX),
    ],
)
def test_without_a_content_type_the_document_says_what_it_is(client: Client, raw: bytes, kind: str | None) -> None:
    put(client, "v1", raw, None)
    expected = kind or "application/vnd.docker.distribution.manifest.v2+json"
    assert expected == client.get(URL + "v1").headers["Content-Type"]


def test_a_manifest_that_names_missing_blobs_is_refused_with_their_digests(client: Client, push: Push) -> None:
    here = push(b"hello")
    there = push(b"elsewhere", "other/model")
    raw = document(config=descriptor(MISSING), layers=[descriptor(here), descriptor(there)])

    answer = put(client, "v1", raw)

    assert code(answer) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert [{"digest": MISSING}, {"digest": there}] == answer.json["errors"][0]["detail"]
    assert client.get(URL + "v1").status_code == 404


def test_a_foreign_layer_need_not_be_here(client: Client) -> None:
    raw = document(layers=[descriptor(MISSING, urls=["https://example.com/layer"])])
    assert put(client, "v1", raw).status_code == 201


def test_an_index_names_manifests_that_are_here(client: Client, raw: bytes) -> None:
    index = document(manifests=[descriptor(sha256(raw))])

    assert code(put(client, "v1", index, INDEX)) == (404, "MANIFEST_BLOB_UNKNOWN")
    put(client, sha256(raw), raw)
    assert put(client, "v1", index, INDEX).status_code == 201


def test_a_manifest_of_4_mib_is_the_largest(client: Client) -> None:
    largest = b"{" + b" " * (4 * 1024 * 1024 - 2) + b"}"

    assert put(client, "v1", largest).status_code == 201
    assert code(put(client, "v1", largest + b" ")) == (413, "SIZE_INVALID")


def test_a_chunked_manifest_is_cut_off_at_4_mib(client: Client) -> None:
    stream = io.BytesIO(b" " * (6 * 1024 * 1024))
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True, "wsgi.input": stream}

    answer = client.put(URL + "v1", environ_overrides=environ)

    assert code(answer) == (413, "SIZE_INVALID")
    assert stream.tell() <= 5 * 1024 * 1024


def test_a_manifest_that_ends_early_is_refused(client: Client, raw: bytes) -> None:
    environ = {"CONTENT_LENGTH": str(len(raw) + 1)}

    answer = client.put(URL + "v1", input_stream=io.BytesIO(raw), environ_overrides=environ)

    assert answer.status_code == 400
    assert client.get(URL + "v1").status_code == 404


def test_tags_are_listed_in_order(client: Client, raw: bytes) -> None:
    for tag in ("b", "a", "C"):
        put(client, tag, raw)

    assert client.get("/v2/library/model/tags/list").json == {"name": "library/model", "tags": ["C", "a", "b"]}


def test_tags_come_in_pages_with_a_link_to_the_next(client: Client, raw: bytes) -> None:
    for tag in ("a", "b", "c", "d", "e"):
        put(client, tag, raw)
    pages, url = [], "/v2/library/model/tags/list?n=2"
    while url:
        answer = client.get(url)
        pages.append(answer.json["tags"])
        link = answer.headers.get("Link", "")
        assert link == "" or link.endswith('>; rel="next"')
        url = link.partition(">")[0][1:]

    assert pages == [["a", "b"], ["c", "d"], ["e"]]
    assert client.get("/v2/library/model/tags/list?last=c").json["tags"] == ["d", "e"]
    assert client.get("/v2/library/model/tags/list?n=0").json["tags"] == []
    assert "Link" not in client.get("/v2/library/model/tags/list?n=5").headers


@pytest.mark.parametrize("count", ["-1", "a", "", "1.5", "%D9%A1", "1%0a", "+1", 50 * "9"])
def test_a_page_size_that_is_none_is_refused(client: Client, raw: bytes, count: str) -> None:
    put(client, "v1", raw)
    assert code(client.get(f"/v2/library/model/tags/list?n={count}")) == (400, "PAGINATION_NUMBER_INVALID")


def test_a_repository_that_has_nothing_is_unknown(client: Client, raw: bytes) -> None:
    assert code(client.get("/v2/library/tags/list")) == (404, "NAME_UNKNOWN")


def test_a_repository_that_has_blobs_alone_has_no_tags(client: Client, push: Push) -> None:
    push(b"hello")
    assert client.get("/v2/library/model/tags/list").json["tags"] == []


def test_referrers_are_the_manifests_with_that_subject(client: Client, push: Push) -> None:
    config = descriptor(push(b"hello"), mediaType="application/vnd.example.config")
    signature = document(subject=descriptor(MISSING), artifactType="application/vnd.example.signature")
    bill = document(subject=descriptor(MISSING), config=config, annotations={"key": "value"})
    put(client, "unrelated", document(config=config))
    answers = [put(client, "signature", signature), put(client, sha256(bill), bill)]

    answer = client.get(f"/v2/library/model/referrers/{MISSING}")

    assert [pushed.headers["OCI-Subject"] for pushed in answers] == [MISSING, MISSING]
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, INDEX)
    assert (answer.json["schemaVersion"], answer.json["mediaType"]) == (2, INDEX)
    expected = [
        {
            "mediaType": MANIFEST,
            "digest": sha256(signature),
            "size": len(signature),
            "artifactType": "application/vnd.example.signature",
        },
        {
            "mediaType": MANIFEST,
            "digest": sha256(bill),
            "size": len(bill),
            "artifactType": "application/vnd.example.config",
            "annotations": {"key": "value"},
        },
    ]
    assert sorted(expected, key=lambda entry: str(entry["digest"])) == answer.json["manifests"]


def test_referrers_are_filtered_by_artifact_type(client: Client) -> None:
    for kind in ("a/b", "c/d"):
        put(client, kind[0], document(subject=descriptor(MISSING), artifactType=kind))

    answer = client.get(f"/v2/library/model/referrers/{MISSING}?artifactType=c/d")

    assert [entry["artifactType"] for entry in answer.json["manifests"]] == ["c/d"]
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"


def test_nothing_refers_to_what_nobody_names(client: Client) -> None:
    answer = client.get(f"/v2/library/model/referrers/{MISSING}")

    assert (answer.status_code, answer.json["manifests"]) == (200, [])
    assert "OCI-Filters-Applied" not in answer.headers


def test_referrers_are_those_that_are_still_here(client: Client) -> None:
    raws = [document(subject=descriptor(MISSING), artifactType=kind) for kind in ("a/b", "c/d")]
    for raw in raws:
        put(client, sha256(raw), raw)

    assert client.delete(URL + sha256(raws[0])).status_code == 202

    entries = client.get(f"/v2/library/model/referrers/{MISSING}").json["manifests"]
    assert [sha256(raws[1])] == [entry["digest"] for entry in entries]
    assert client.get(f"/v2/other/model/referrers/{MISSING}").json["manifests"] == []


def test_a_manifest_by_its_digest_may_bring_its_tags(client: Client, raw: bytes) -> None:
    pushed = put(client, f"{sha256(raw)}?tag=v1&tag=latest&tag=v1", raw)

    assert (201, ["v1", "latest"]) == (pushed.status_code, pushed.headers.getlist("OCI-Tag"))
    assert client.get("/v2/library/model/tags/list").json["tags"] == ["latest", "v1"]
    assert raw == client.get(URL + "latest").data


def test_a_sha512_manifest_may_bring_its_tags(client: Client, raw: bytes) -> None:
    digest = "sha512:" + hashlib.sha512(raw).hexdigest()
    assert put(client, f"{digest}?tag=v1", raw).status_code == 201
    assert digest == client.get(URL + "v1").headers["Docker-Content-Digest"]


@pytest.mark.parametrize("tag", ["", "..", "a/b", "-a", MISSING, 129 * "a"])
def test_what_is_no_tag_is_refused_and_nothing_is_stored(client: Client, raw: bytes, tag: str) -> None:
    assert code(put(client, f"{sha256(raw)}?tag=v1&tag={tag}", raw)) == (400, "TAG_INVALID")
    assert client.get(URL + "v1").status_code == 404


def test_a_manifest_takes_64_tags_at_once(client: Client, raw: bytes) -> None:
    query = "&".join(f"tag=v{number}" for number in range(64))
    assert put(client, f"{sha256(raw)}?{query}", raw).status_code == 201
    assert code(put(client, f"{sha256(raw)}?{query}&tag=v64", raw)) == (414, "TAG_INVALID")


@pytest.mark.parametrize("more", [{"layers": [descriptor(MISSING)]}, {"manifests": [descriptor(MISSING)]}])
def test_a_manifest_of_what_is_not_here_is_taken_if_wanted(client: Client, tmp_path: Path, more: Any) -> None:
    raw, sparse = document(**more), Client(OCIRegistry(tmp_path, sparse=True))
    assert code(put(client, "v1", raw, kind=None)) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert put(sparse, "v1", raw, kind=None).status_code == 201
    assert raw == client.get(URL + "v1").data
    assert code(put(sparse, "v1", document(layers=[descriptor("sha256:..")]))) == (400, "MANIFEST_INVALID")


def test_pages_of_tags_and_manifests_are_bounded(client: Client, raw: bytes, tmp_path: Path) -> None:
    bounded = Client(OCIRegistry(tmp_path, limits=Limits(page=2, manifest=len(raw))))
    assert put(bounded, f"{sha256(raw)}?tag=a&tag=b&tag=c&tag=d&tag=e", raw).status_code == 201
    assert code(put(bounded, "a", raw + b" ")) == (413, "SIZE_INVALID")
    pages, url = [], "/v2/library/model/tags/list?n=100"
    while url:
        answer = bounded.get(url)
        pages.append(answer.json["tags"])
        url = answer.headers.get("Link", "<>").partition(">")[0][1:]
    assert [["a", "b"], ["c", "d"], ["e"]] == pages
    assert "Link" in bounded.get("/v2/library/model/tags/list").headers


def test_ollamas_manifest_without_config_and_type_is_taken_for_dockers(client: Client, push: Push) -> None:
    config = {"digest": f"sha256:{64 * '0'}", "mediaType": "", "size": 0}
    layer = {**descriptor(push(b"hello")), "mediaType": "application/vnd.ollama.image.model"}
    assert put(client, "latest", document(config=config, layers=[layer]), kind=None).status_code == 201
    kind = client.get(URL + "latest").headers["Content-Type"]
    assert kind == "application/vnd.docker.distribution.manifest.v2+json"


def test_a_manifest_is_a_blob_as_well_as_ollama_asks_for_pinned_ones(client: Client, raw: bytes) -> None:
    put(client, "v1", raw)
    url = f"/v2/library/model/blobs/{sha256(raw)}"
    assert raw == client.get(url).data
    client.delete(URL + sha256(raw))
    assert client.get(url).status_code == 404
