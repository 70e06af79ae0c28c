"""A second machine pulls what the first one has: through a mirror, and from it alone."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

import transferkit as tk
from tests.functional.models import Model, client, digest_of, host, links, names_of, stored
from tests.functional.test_registry_server import Ollama
from transferkit.server import Application, serving

MODEL = Model([b"weights " * 300_000, b"do as you like"])  # 2.4 MB


@pytest.fixture
def first(registry, tmp_path):
    """The folder of a first machine, which has pulled the model from a registry."""
    MODEL.put(registry.url, "library/smol", "v1")
    with client(tmp_path / "first") as mine:
        mine.pull(f"{registry.url}/library/smol:v1")
    registry.log.clear()
    return tmp_path / "first"


@contextmanager
def mirror(folder):
    with Application(mirror=tk.DiskCache(folder)) as application, serving(application) as url:
        yield url


def test_blobs_come_from_the_mirror_and_the_registry_says_what_is_right(registry, first, tmp_path):
    with mirror(first) as url:
        hosts = {host(registry.url): tk.HostOptions(mirrors=[url])}
        with client(tmp_path / "second", hosts=hosts) as second:
            second.pull(f"{registry.url}/library/smol:v1")
    assert 0 == registry.log.count("GET", "/blobs/")
    assert names_of(*MODEL.blobs) <= set(stored(tmp_path / "second"))


def test_a_mirror_with_wrong_content_is_found_out(registry, first, tmp_path):
    weights = first / "blobs" / digest_of(MODEL.layers[0]).replace(":", "-")
    weights.chmod(0o644)
    weights.write_bytes(b"WEIGHTS " * 300_000)
    with mirror(first) as url:
        hosts = {host(registry.url): tk.HostOptions(mirrors=[url])}
        with client(tmp_path / "second", hosts=hosts) as second:
            second.pull(f"{registry.url}/library/smol:v1")
    assert names_of(*MODEL.blobs) <= set(stored(tmp_path / "second"))
    assert all(name == content for name, content in stored(tmp_path / "second").items())


def test_the_mirror_alone_is_a_registry_to_pull_from(registry, first, tmp_path):
    with mirror(first) as url, client(tmp_path / "second") as second:
        assert MODEL.digest == str(second.pull(f"{url}/library/smol:v1").digest)
        assert ["v1"] == second.tags(f"{url}/library/smol")
        with pytest.raises(tk.TransferKitError, match="read-only"):
            second.push(f"{url}/library/smol:v2", source=f"{url}/library/smol:v1")
    assert [f"{host(url)}/library/smol/v1"] == links(tmp_path / "second")
    assert [] == list(registry.log)


def test_ollamas_clients_pull_from_the_mirror(tmp_path):
    cache = tk.DiskCache(tmp_path)
    with mirror(tmp_path) as url:
        user = Ollama(url)
        for layer in MODEL.layers:
            cache.put(layer)
        cache.link("library/smol:latest", user.manifest(MODEL.layers))
        assert MODEL.layers == user.pull_parts(1_000_000) == user.pull_files()
        # What is large they ask the list of its parts for, which a mirror does not have.
        assert MODEL.layers == user.pull_original(threshold=64 * 1024 * 1024)
