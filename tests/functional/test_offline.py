"""Offline: the cache alone answers, no request is made, and an error lists just what is missing."""

from __future__ import annotations

import socket

import pytest
import requests

import transferkit as tk
from transferkit.registry import Registry
from transferkit.testing.registry import running_registry


class Panicking(requests.Session):
    """A session whose requests end the test."""

    def send(self, request, **keywords):
        raise AssertionError(f"a request was made: {request.url}")

    def get_adapter(self, url):
        raise AssertionError(f"a connection was wanted: {url}")


@pytest.fixture
def filled(tmp_path):
    """A cache with one model: its folder, and the model's name."""
    files = {}
    for name, data in (("a.bin", b"a" * 1000), ("b.bin", b"b" * 2000)):
        (tmp_path / name).write_bytes(data)
        files[name] = tmp_path / name
    with running_registry() as registry, Registry(cache=tmp_path / "cache") as client:
        name = f"{registry.url}/team/data:v1"
        client.push(name, files=files)
        client.pull(name)
    return tmp_path / "cache", name


@pytest.fixture
def offline(filled, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a name or a connection was wanted")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    with Panicking() as session, Registry(cache=filled[0], session=session, offline=True) as client:
        yield client


def test_what_is_in_the_cache_is_answered(offline, filled, tmp_path):
    _, name = filled
    manifest = offline.pull(name)
    assert manifest.raw == offline.resolve(name).raw == offline.resolve_local(name).raw
    assert ["v1"] == offline.tags(name)
    assert 0 == offline.plan(name).bytes
    assert {"a.bin", "b.bin"} == set(offline.export(name, tmp_path / "out"))
    assert b"b" * 2000 == (tmp_path / "out" / "b.bin").read_bytes()
    assert [] == offline.repair(name)
    assert offline.unlink(name)


def test_a_pull_lists_just_what_is_missing(offline, filled):
    _, name = filled
    manifest = offline.resolve_local(name)
    by_size = {layer.size: layer.digest for layer in manifest.layers}
    offline.cache.take_away(next(layer for layer in manifest.layers if layer.size == 2000))
    with pytest.raises(tk.IncompleteError) as caught:
        offline.pull(name)
    assert {by_size[2000]} == set(caught.value.failures)
    assert "2000 bytes are missing" in str(caught.value)
    assert by_size[2000][:19] in str(caught.value)
    with pytest.raises(tk.ConnectError, match="offline"):
        offline.repair(name)


def test_a_name_that_is_not_in_the_cache_is_named(offline):
    for call in (offline.pull, offline.resolve, offline.plan, offline.resolve_local):
        with pytest.raises(tk.ManifestNotFoundError, match="other"):
            call("localhost:5000/team/other:v1")
    with pytest.raises(tk.ManifestNotFoundError, match="sha256:aaaa"):
        offline.pull("localhost:5000/team/data@sha256:" + 64 * "a")


def test_what_takes_a_registry_says_that_it_is_offline(offline, filled):
    _, name = filled
    calls = [
        lambda: offline.push(name),
        lambda: offline.copy(name, "localhost:5000/team/other:v1"),
        lambda: offline.referrers(name),
    ]
    for call in calls:
        with pytest.raises(tk.ConnectError, match=r"offline \(TRANSFERKIT_OFFLINE, or offline=True\)") as caught:
            call()
        assert not caught.value.retryable


@pytest.mark.parametrize(("text", "is_offline"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_the_environment_says_so_too(tmp_path, monkeypatch, text, is_offline):
    monkeypatch.setenv("TRANSFERKIT_OFFLINE", text)
    with Registry(cache=tmp_path) as client, Registry(cache=tmp_path, offline=False) as online:
        assert (is_offline, False) == (client.offline, online.offline)
