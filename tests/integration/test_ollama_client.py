"""Ollama's own Python client against the local API, served by the library's server."""

from __future__ import annotations

import time
from contextlib import contextmanager

import ollama
import pytest

import transferkit as tk
from tests.functional.models import Model, client, digest_of, host, links
from transferkit.server import LocalAPI, serving
from transferkit.testing import answer, running_registry, scripted_server

pytestmark = pytest.mark.integration

CONFIG = b'{"model_format":"gguf","model_family":"llama","model_type":"1B","file_type":"Q4_0"}'
SMOL = Model([b"weights " * 5000, b"do as you like"], CONFIG)


@contextmanager
def api(folder, url):
    hosts, mask = {host(url): tk.HostOptions(scheme="http")}, f"{host(url)}/library/_:latest"
    with (
        client(folder, mask=mask, hosts=hosts) as registry,
        LocalAPI(registry) as local,
        serving(local) as address,
        ollama.Client(host=address, trust_env=False) as user,
    ):
        yield user


@pytest.fixture
def user(tmp_path):
    with running_registry() as registry:
        SMOL.put(registry.url, "library/smol", "latest")
        with api(tmp_path, registry.url) as found:
            found.name = f"{host(registry.url)}/library/smol:latest"
            yield found


def test_a_model_is_pulled_with_and_without_a_stream(user, tmp_path):
    assert "success" == user.pull("smol").status
    assert [user.name.replace(":latest", "/latest")] == links(tmp_path)
    told = list(user.pull("smol", stream=True))
    assert ("pulling manifest", "success") == (told[0].status, told[-1].status)
    weights = [line for line in told if line.digest == digest_of(SMOL.layers[0])]
    assert (len(SMOL.layers[0]), len(SMOL.layers[0])) == (weights[-1].total, weights[-1].completed)


def test_models_are_listed_shown_and_deleted(user):
    user.pull("smol")
    (listed,) = user.list().models
    assert (user.name, sum(map(len, SMOL.blobs)), SMOL.digest[7:]) == (listed.model, listed.size, listed.digest)
    assert ("gguf", "llama", "1B", "Q4_0") == (
        listed.details.format,
        listed.details.family,
        listed.details.parameter_size,
        listed.details.quantization_level,
    )
    shown = user.show("smol")
    assert ("do as you like", "llama") == (shown.license, shown.details.family)
    assert [] == user.ps().models
    assert "success" == user.delete("smol").status
    assert [] == user.list().models


def test_errors_are_those_that_its_users_know(user):
    with pytest.raises(ollama.ResponseError, match="model not found") as caught:
        user.pull("unknown")
    assert 404 == caught.value.status_code
    with pytest.raises(ollama.ResponseError, match='model "unknown" not found'):
        list(user.pull("unknown", stream=True))
    with pytest.raises(ollama.ResponseError, match="invalid or missing name"):
        user.pull("://")
    for call in (user.delete, user.show):
        with pytest.raises(ollama.ResponseError, match="model not found") as caught:
            call("unknown")
        assert 404 == caught.value.status_code


def test_an_error_of_the_registry_reaches_it(tmp_path):
    with scripted_server(lambda _: answer(999, b'{"error": "boom"}')) as server, api(tmp_path, server.url) as user:
        with pytest.raises(ollama.ResponseError, match="registry responded with status 999: boom"):
            list(user.pull("BOOM", stream=True))
        with pytest.raises(ollama.ResponseError, match="internal server error") as caught:
            user.pull("BOOM")
        assert 500 == caught.value.status_code


def test_a_client_that_hangs_up_cancels_what_nobody_else_waits_for(tmp_path):
    def endless(app):
        def middle(environ, start_response):
            body = app(environ, start_response)
            is_wanted = environ["REQUEST_METHOD"] == "GET" and digest_of(SMOL.layers[0]) in environ["PATH_INFO"]
            return slowly(b"".join(body)) if is_wanted else body

        def slowly(content):
            for at in range(0, len(content), 500):
                yield content[at : at + 500]
                time.sleep(0.1)

        return middle

    with running_registry(middleware=endless) as registry:
        SMOL.put(registry.url, "library/smol", "latest")
        with api(tmp_path, registry.url) as user:
            told = user.pull("smol", stream=True)
            for line in told:
                if line.completed:
                    break
            told.close()
            deadline = time.monotonic() + 8
            while user.ps().models and time.monotonic() < deadline:
                time.sleep(0.05)
            assert [] == user.ps().models
    assert [] == links(tmp_path)
