"""The parts as one application: which path is whose, and that every part stands behind the guards."""

from __future__ import annotations

import json
import os

import pytest
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
