"""A cache as a read-only registry: names, hosts, manifests, blobs and ranges."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from werkzeug.test import Client

import transferkit as tk
from transferkit.server.mirror import Mirror

WEIGHTS = b"0123456789" * 100
DIGEST = "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()
OCI = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


def manifest(media_type: str = OCI, **more: object) -> bytes:
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": DIGEST, "size": len(WEIGHTS)}
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "layers": [layer], **more}).encode()


@pytest.fixture
def cache(tmp_path):
    cache = tk.DiskCache(tmp_path)
    cache.put(WEIGHTS)
    return cache


class Closing(Client):
    """Closes answers when they are read, as a server does."""

    def open(self, *arguments, **keywords):
        return super().open(*arguments, buffered=True, **keywords)


@pytest.fixture
def client(cache):
    return Closing(Mirror(cache))


def digest_of(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def code_of(response) -> tuple[int, str]:
    (error,) = response.json["errors"]
    return response.status_code, error["code"]


@pytest.mark.parametrize("media_type", [OCI, DOCKER])
def test_a_manifest_comes_by_tag_and_by_digest_as_it_is(cache, client, media_type):
    raw = manifest(media_type)
    cache.link("smol:v1", raw)
    for reference in ("v1", digest_of(raw)):
        response = client.get(f"/v2/library/smol/manifests/{reference}")
        assert (200, raw, media_type) == (response.status_code, response.data, response.headers["Content-Type"])
        assert digest_of(raw) == response.headers["Docker-Content-Digest"]
        head = client.head(f"/v2/library/smol/manifests/{reference}")
        assert (200, b"", str(len(raw))) == (head.status_code, head.data, head.headers["Content-Length"])
        again = client.get(f"/v2/library/smol/manifests/{reference}", headers={"If-None-Match": f'"{digest_of(raw)}"'})
        assert 304 == again.status_code


@pytest.mark.parametrize("how", ["query", "header"])
def test_the_host_is_the_one_that_the_request_names(cache, client, how):
    one, two = manifest(annotations={"of": "one"}), manifest(annotations={"of": "two"})
    cache.link("one.example:5000/team/model:v1", one)
    cache.link("two.example/team/model:v1", two)
    cache.link("two.example/team/model:v2", two)

    def get(path, host):
        given = {"query_string": {"ns": host}} if how == "query" else {"headers": {"OCI-Namespace": host}}
        return client.get(f"/v2/team/model/{path}", **given)

    assert [one, two] == [get("manifests/v1", host).data for host in ("one.example:5000", "Two.Example")]
    assert ["v1", "v2"] == get("tags/list", "two.example").json["tags"]
    assert (404, "MANIFEST_UNKNOWN") == code_of(get("manifests/v2", "one.example:5000"))
    assert (404, "MANIFEST_UNKNOWN") == code_of(get("manifests/v1", "three.example"))
    assert (404, "NAME_UNKNOWN") == code_of(get("tags/list", "three.example"))
    assert 404 == get("manifests/v1", "../two.example").status_code
    assert 404 == get("manifests/v1", "two.example/team").status_code


def test_without_a_host_it_is_ollamas_or_the_only_one(cache, client):
    one, two, own = (manifest(annotations={"of": of}) for of in ("one", "two", "own"))
    cache.link("one.example/team/model:v1", one)
    assert one == client.get("/v2/team/model/manifests/v1").data
    cache.link("two.example/team/model:v1", two)
    ambiguous = client.get("/v2/team/model/manifests/v1")
    assert (404, "NAME_UNKNOWN") == code_of(ambiguous)
    assert "?ns=one.example" in ambiguous.json["errors"][0]["message"]
    cache.link("team/model:v1", own)
    assert own == client.get("/v2/team/model/manifests/v1").data
    assert {"name": "team/model", "tags": ["v1"]} == client.get("/v2/team/model/tags/list").json


@pytest.mark.parametrize(
    ("asked", "status", "content", "span"),
    [
        (None, 200, WEIGHTS, None),
        ("bytes=0-9", 206, WEIGHTS[:10], "bytes 0-9/1000"),
        ("bytes=995-", 206, WEIGHTS[995:], "bytes 995-999/1000"),
        ("bytes=-3", 206, WEIGHTS[-3:], "bytes 997-999/1000"),
        ("bytes=990-5000", 206, WEIGHTS[990:], "bytes 990-999/1000"),
        ("bytes=5-1", 200, WEIGHTS, None),
        ("bytes=1000-", 416, None, "bytes */1000"),
    ],
)
def test_a_blob_comes_whole_and_in_ranges(client, asked, status, content, span):
    response = client.get(f"/v2/any/repo/blobs/{DIGEST}", headers={} if asked is None else {"Range": asked})
    assert (status, span) == (response.status_code, response.headers.get("Content-Range"))
    if content is not None:
        assert (content, str(len(content))) == (response.data, response.headers["Content-Length"])
        assert (DIGEST, f'"{DIGEST}"') == (response.headers["Docker-Content-Digest"], response.headers["ETag"])
        assert ("bytes", "nosniff") == (response.headers["Accept-Ranges"], response.headers["X-Content-Type-Options"])


def test_a_blob_that_the_client_has_is_not_sent(client):
    head = client.head(f"/v2/a/b/blobs/{DIGEST}")
    assert (200, b"", "1000") == (head.status_code, head.data, head.headers["Content-Length"])
    assert 304 == client.get(f"/v2/a/b/blobs/{DIGEST}", headers={"If-None-Match": f'"{DIGEST}"'}).status_code


def test_no_file_stays_open(cache, client):
    for headers in ({}, {"Range": "bytes=5-1"}, {"If-None-Match": f'"{DIGEST}"'}, {"Range": "bytes=1-2"}):
        client.get(f"/v2/a/b/blobs/{DIGEST}", headers=headers).close()
        client.head(f"/v2/a/b/blobs/{DIGEST}", headers=headers).close()
    path = os.path.realpath(cache.path(DIGEST))
    assert not [link for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link) == path]


def test_a_link_that_is_planted_leads_nowhere(cache, client, tmp_path):
    (tmp_path / "secret").write_bytes(WEIGHTS)
    path = cache.path(DIGEST)
    os.remove(path)
    os.symlink(tmp_path / "secret", path)
    assert (404, "BLOB_UNKNOWN") == code_of(client.get(f"/v2/a/b/blobs/{DIGEST}"))


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", f"/v2/a/b/blobs/sha256:{'0' * 64}", (404, "BLOB_UNKNOWN")),
        ("GET", "/v2/a/b/blobs/sha256:1", (400, "DIGEST_INVALID")),
        ("GET", "/v2/a/b/manifests/v1", (404, "MANIFEST_UNKNOWN")),
        ("GET", f"/v2/a/b/manifests/{DIGEST}", (404, "MANIFEST_UNKNOWN")),  # a blob, and no manifest
        ("GET", "/v2/a/b/manifests/..", (400, "NAME_INVALID")),
        ("GET", "/v2/../b/manifests/v1", (400, "NAME_INVALID")),
        ("GET", "/v2/a/b/tags/list", (404, "NAME_UNKNOWN")),
        ("GET", "/v2/a/b/tags/other", (404, "UNSUPPORTED")),
        ("GET", f"/v2/a/b/referrers/{DIGEST}", (404, "UNSUPPORTED")),
        ("PUT", "/v2/a/b/manifests/v1", (405, "UNSUPPORTED")),
        ("POST", "/v2/a/b/blobs/uploads/", (405, "UNSUPPORTED")),
        ("DELETE", f"/v2/a/b/blobs/{DIGEST}", (405, "UNSUPPORTED")),
    ],
)
def test_what_is_not_there_or_not_allowed_is_refused(client, method, path, expected):
    assert expected == code_of(client.open(path, method=method))


def test_a_manifest_that_was_edited_into_nonsense_is_not_there(cache, client, tmp_path):
    cache.link("smol:v1", manifest())
    (tmp_path / "manifests" / "registry.ollama.ai" / "library" / "smol" / "v1").write_bytes(b"nonsense")
    assert (404, "MANIFEST_UNKNOWN") == code_of(client.get("/v2/library/smol/manifests/v1"))


def test_a_store_that_cannot_be_read_is_an_error_without_a_traceback(cache, client, monkeypatch):
    def broken(*_: object) -> None:
        raise tk.StorageError("/secret/path is broken")

    monkeypatch.setattr(tk.DiskCache, "links", broken)
    response = client.get("/v2/a/b/tags/list")
    assert (500, "UNKNOWN") == code_of(response)
    assert b"secret" not in response.data
