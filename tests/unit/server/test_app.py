"""The parts as one application: which path is whose, and that every part stands behind the guards."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import Client

import transferkit as tk
from transferkit.server.app import Application
from transferkit.server.passwords import Passwords

DIGEST = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of "hello"


@pytest.fixture
def registry(tmp_path):
    with tk.Registry(cache=tmp_path / "cache", offline=True) as offline:
        yield offline


@pytest.fixture
def both(registry, tmp_path):
    with Application(registry=registry, store=tmp_path / "store") as application:
        yield Client(application)


@pytest.fixture
def mirroring(registry):
    registry.cache.put(b"hello")
    registry.cache.link("docker.io/a/b:latest", b'{"schemaVersion": 2, "layers": []}')
    with Application(mirror=registry.cache) as application:
        yield Client(application)


def test_each_path_is_of_its_part(both):
    assert "registry/2.0" == both.get("/v2/").headers["Docker-Distribution-Api-Version"]
    assert {"models": []} == both.get("/api/tags").json
    assert (404, {"code": "not_found", "error": "not found"}) == ((r := both.get("/v2x")).status_code, r.json)


def test_a_part_that_is_not_served_is_not_there(registry, tmp_path):
    with Application(registry=registry) as application:
        assert "not_found" == Client(application).get("/v2/").json["code"]
    with Application(store=tmp_path / "store") as application:
        client = Client(application)
        assert 200 == client.get("/v2/").status_code
        assert (404, "not_found") == ((r := client.get("/api/tags")).status_code, r.json["code"])


def test_there_is_one_registry_at_an_address(registry, tmp_path):
    with pytest.raises(TypeError, match="a store, or a mirror"):
        Application(store=tmp_path / "store", mirror=registry.cache)


PATHS = ["/", "/api/tags", "/api/version", "/v2/", f"/v2/a/blobs/{DIGEST}", "/unknown"]


@pytest.mark.parametrize("path", PATHS)
def test_every_part_stands_behind_the_guards(registry, tmp_path, path):
    passwords = Passwords.plain({"ann": "secret"})
    with Application(registry=registry, store=tmp_path / "store", passwords=passwords, read_only=True) as application:
        client = Client(application)
        assert 401 == client.get(path).status_code
        assert client.get(path, auth=("ann", "secret")).status_code in (200, 404)
        assert 403 == client.get(path, auth=("ann", "secret"), headers={"Host": "attacker.example"}).status_code
        changed = client.delete(path, auth=("ann", "secret"), headers={"Origin": "http://attacker.example"})
        assert 403 == changed.status_code
        assert client.delete(path, auth=("ann", "secret")).status_code in (403, 405)


def test_a_delete_gives_the_room_back(registry, both, tmp_path):
    layer = registry.cache.put(b"weights")
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": layer.digest, "size": 7}],
        }
    ).encode()
    registry.cache.link("smol", raw)
    for path in (tmp_path / "cache" / "blobs").glob("sha256-*"):
        os.utime(path, (0, 0))
    assert 200 == both.delete("/api/delete", json={"model": "smol"}).status_code
    assert [] == list((tmp_path / "cache" / "blobs").glob("sha256-*"))


def test_a_delete_is_one_even_where_the_rest_cannot_be_tidied_up(registry, both, tmp_path, monkeypatch):
    registry.cache.link("smol", b'{"schemaVersion": 2, "layers": []}')
    monkeypatch.setattr(tk.DiskCache, "gc", lambda _: (_ for _ in ()).throw(tk.StorageError("it is read-only")))
    assert 200 == both.delete("/api/delete", json={"model": "smol"}).status_code


# -- whatever is asked

METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "INVENTED"])
API = st.sampled_from(
    ["pull", "delete", "show", "tags", "ps", "version", "", "transferkit/store", "transferkit/verify"]
)
NAMES = st.sampled_from(
    ["a", "a/b", "library/smol", "A", "..", "a//b", "_", "a/_uploads", "x" * 300, "%00", "é", "a\n"]
)
REFERENCES = st.sampled_from(
    [DIGEST, "latest", "sha256:1", "", "list", "0" * 300, "sha512:" + "a" * 128, "a\x00b"]
) | st.text(max_size=8)
KINDS = st.sampled_from(["blobs", "blobs/uploads", "manifests", "tags", "referrers", "chunksums", "invented"])
ROUTES = st.one_of(
    st.builds(lambda name: f"/api/{name}", API),
    st.builds(lambda name, kind, reference: f"/v2/{name}/{kind}/{reference}", NAMES, KINDS, REFERENCES),
    st.sampled_from(["/", "/v2", "/v2/", "/v2//", "//", "/page.js", "/../etc/passwd", "/api"]),
    st.text(max_size=12).map(lambda text: "/" + text),
)
QUERIES = st.sampled_from(
    [
        "",
        f"digest={DIGEST}",
        "digest=x",
        f"mount={DIGEST}&from=a",
        "n=-1",
        "n=x&last=y",
        "ns=docker.io",
        "ns=../..",
        "ns=%00",
        "n=99999999999999999999",
        "%",
        "a=%ff",
    ]
)
MODELS = st.sampled_from(
    ["smol", "", "://", "http://127.0.0.1:1/a", "a" * 400, "h/n/m:t@" + DIGEST, "ftp://a", "é/a", "hf://a/b"]
)
BODIES = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda model, stream: json.dumps({"model": model, "stream": stream}).encode(), MODELS | st.text(), st.booleans()
    ),
    st.recursive(
        st.none() | st.integers() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [b'{"schemaVersion": 2, "layers": null}', b'{"model": ' + b"[" * 5000, b'{"model": 1e999}', b"\xff{"]
    ),
)
VALUES = st.sampled_from(
    ["", "0", "-1", "x", "bytes=0-", "bytes=5-1", "bytes=-0", "0-4", "5-9", "9" * 30, "application/json", "*/*", "null"]
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["Range", "Content-Range", "Content-Type", "Accept", "If-None-Match", "Origin", "Sec-Fetch-Site", "OCI-Tag",
         "Authorization", "X-Redirect-Uploads", "X-Content-Length", "Expect"]
    ),
    VALUES,
    max_size=3,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mirrors=st.booleans(), method=METHODS, path=ROUTES, query=QUERIES, body=BODIES, headers=HEADERS)
def test_nothing_that_is_asked_is_an_error_of_ours(both, mirroring, mirrors, method, path, query, body, headers):
    # As a server has it: whatever the bytes, decoded as Latin-1.
    environ = {"PATH_INFO": path.encode().decode("latin-1")}
    response = (mirroring if mirrors else both).open(
        method=method, query_string=query, data=body, headers=headers, environ_overrides=environ, buffered=True
    )
    text = response.get_data()
    assert response.status_code < 500, text
    assert b"Traceback" not in text
    assert b'File "' not in text
