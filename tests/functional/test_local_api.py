"""The local API: each row of Ollama's table, streaming and not, shared pulls, and clients that hang up."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import threading
import time
from contextlib import contextmanager

import pytest
from werkzeug.test import Client

import transferkit as tk
from tests.functional import models
from tests.functional.models import Model, client, digest_of, host, links
from transferkit.server.local import LocalAPI
from transferkit.testing import FaultRule, HTTPFaults, answer, respond, running_registry, scripted_server

CONFIG = b'{"model_format":"gguf","model_family":"llama","model_type":"1B","file_type":"Q4_0"}'
TYPES = [models.MODEL, models.LICENSE, "application/vnd.ollama.image.template", "application/vnd.ollama.image.params"]
SMOL = Model(
    [b"weights " * 500, b"do as you like", b"{{ .Prompt }}", b'{"temperature":0.5,"stop":["a","b"]}'], CONFIG, TYPES
)


@contextmanager
def api(folder, url, **keywords):
    """The API over a client whose mask leads to a registry of ours, as that of the original leads to its own."""
    hosts, mask = {host(url): tk.HostOptions(scheme="http")}, f"{host(url)}/library/_:latest"
    with client(folder, mask=mask, hosts=hosts) as registry, LocalAPI(registry, **keywords) as local:
        yield Client(local)


def pull(http, model="smol", **fields):
    return http.post("/api/pull", data=json.dumps({"model": model, **fields}))


def lines_of(response) -> list[dict]:
    return [json.loads(line) for line in response.get_data(as_text=True).splitlines()]


def error_of(response) -> tuple[int, str, str]:
    assert {"code", "error"} == set(response.json)
    return response.status_code, response.json["code"], response.json["error"]


@pytest.fixture
def smol(registry):
    SMOL.put(registry.url, "library/smol", "latest")
    return registry


# -- pull, streaming


def test_a_stream_says_what_comes_and_how_far_it_is(smol, tmp_path):
    with api(tmp_path, smol.url) as http:
        response = pull(http)
        assert (200, "application/x-ndjson") == (response.status_code, response.headers["Content-Type"])
        told = lines_of(response)
    assert {"status": "pulling manifest"} == told[0]
    assert ["verifying sha256 digest", "writing manifest", "success"] == [line["status"] for line in told[-3:]]
    layers = told[1:-3]
    wanted = [(digest_of(content), len(content)) for content in (*SMOL.layers, CONFIG)]
    # First a line for every layer, then the same again, each tick all of them, the config last.
    assert [{"digest": digest, "total": size} for digest, size in wanted] == layers[:5]
    assert 0 == len(layers) % 5
    assert [{"digest": digest, "total": size, "completed": size} for digest, size in wanted] == layers[-5:]
    for number, (digest, _) in enumerate(wanted):
        seen = layers[number::5]
        assert {digest} == {line["digest"] for line in seen}
        positions = [line.get("completed", 0) for line in seen]
        assert sorted(positions) == positions


def test_lines_are_compact_and_their_keys_are_in_order(smol, tmp_path):
    with api(tmp_path, smol.url) as http:
        text = pull(http).get_data(as_text=True)
    size = len(SMOL.layers[0])
    assert f'{{"digest":"{digest_of(SMOL.layers[0])}","total":{size}}}\n' in text
    assert f'{{"digest":"{digest_of(SMOL.layers[0])}","total":{size},"completed":{size}}}\n' in text
    assert '"completed":0' not in text


def test_an_unknown_model_is_said_in_the_stream(smol, tmp_path):
    with api(tmp_path, smol.url) as http:
        told = lines_of(pull(http, "unknown"))
    assert [{"status": 'error: model "unknown" not found'}, {"error": 'model "unknown" not found'}] == told[1:]


def test_an_error_of_the_registry_is_said_in_the_stream(tmp_path):
    with scripted_server(lambda _: answer(999, b'{"error": "boom"}')) as server, api(tmp_path, server.url) as http:
        told = lines_of(pull(http, "BOOM"))
    url = f"{server.url}/v2/library/BOOM/manifests/latest"
    said = f"request error {url}: registry responded with status 999: boom"
    assert [{"status": f"error: {said}"}, {"error": said}] == told[1:]


def test_a_name_that_is_none_is_said_in_the_stream(smol, tmp_path):
    with api(tmp_path, smol.url) as http:
        told = lines_of(pull(http, "://"))
    assert [{"status": 'error: invalid or missing name: ""'}, {"error": 'invalid or missing name: ""'}] == told[1:]


def test_a_layer_that_fails_is_one_record_in_the_log(smol, tmp_path, caplog):
    faults = HTTPFaults()
    with running_registry(middleware=faults) as registry, api(tmp_path, registry.url) as http:
        SMOL.put(registry.url, "library/smol", "latest")
        faults.set(FaultRule(respond(404), method="GET", path=digest_of(SMOL.layers[1])))
        with caplog.at_level(logging.INFO, "transferkit.server"):
            told = lines_of(pull(http))
    assert told[-1]["error"].startswith("1 of 4 blobs failed")
    records = [record for record in caplog.records if record.name == "transferkit.server"]
    assert [logging.ERROR, logging.INFO] == [record.levelno for record in records]
    assert "pulling" in records[0].getMessage()


# -- pull, not streaming


def test_without_a_stream_the_end_is_told_alone(smol, tmp_path):
    with api(tmp_path, smol.url) as http:
        response = pull(http, stream=False)
    assert (200, b'{"status":"success"}') == (response.status_code, response.data)
    assert [f"{host(smol.url)}/library/smol/latest"] == links(tmp_path)


@pytest.mark.parametrize(
    ("name", "status", "code", "message"),
    [
        ("unknown", 404, "not_found", "model not found"),
        ("://", 400, "bad_request", 'invalid or missing name: ""'),
        (
            "ftp://smol",
            400,
            "bad_request",
            'unsupported scheme: "ftp": supported schemes are http, https, https+insecure',
        ),
        ("smol@sha256:1", 400, "bad_request", 'invalid digest: "sha256:1"'),
        ("", 400, "bad_request", 'invalid or missing name: ""'),
    ],
)
def test_without_a_stream_an_error_has_a_status(smol, tmp_path, name, status, code, message):
    with api(tmp_path, smol.url) as http:
        assert (status, code, message) == error_of(pull(http, name, stream=False))


def test_without_a_stream_an_error_of_the_registry_is_in_the_log_alone(tmp_path, caplog):
    with scripted_server(lambda _: answer(999, b'{"error": "boom"}')) as server, api(tmp_path, server.url) as http:
        assert (500, "internal_error", "internal server error") == error_of(pull(http, "BOOM", stream=False))
    assert any("status 999: boom" in record.getMessage() for record in caplog.records)


# -- requests


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "message"),
    [
        ("DELETE", "/api/pull", b'{"model": "smol"}', 405, "method_not_allowed", "method not allowed"),
        ("GET", "/api/delete", b'{"model": "smol"}', 405, "method_not_allowed", "method not allowed"),
        ("POST", "/api/tags", b"", 405, "method_not_allowed", "method not allowed"),
        ("POST", "/api/pull", b"!", 400, "bad_request", "invalid character '!' looking for beginning of value"),
        ("DELETE", "/api/delete", b"!", 400, "bad_request", "invalid character '!' looking for beginning of value"),
        ("POST", "/api/pull", b"", 400, "bad_request", "empty request body"),
        ("DELETE", "/api/delete", b"", 400, "bad_request", "empty request body"),
        ("POST", "/api/pull", b'{"model":', 400, "bad_request", "unexpected end of JSON input"),
        ("DELETE", "/api/delete", b'{"model": "://"}', 400, "bad_request", 'invalid or missing name: ""'),
        ("DELETE", "/api/delete", b'{"model": "http://smol"}', 400, "bad_request", "invalid or missing name"),
        (
            "DELETE",
            "/api/delete",
            b'{"model": "smol@sha256:%s"}' % (b"a" * 64),
            400,
            "bad_request",
            "invalid or missing",
        ),
        ("DELETE", "/api/delete", b'{"model": "unknown"}', 404, "not_found", "model not found"),
        ("POST", "/api/show", b'{"model": "unknown"}', 404, "not_found", "model not found"),
        ("DELETE", "/api/unknown", b"{}", 404, "not_found", "not found"),
        ("GET", "/", b"", 404, "not_found", "not found"),
    ],
)
def test_what_cannot_be_done_is_refused(smol, tmp_path, caplog, method, path, body, status, code, message):
    with api(tmp_path, smol.url) as http, caplog.at_level(logging.INFO, "transferkit.server"):
        found = error_of(http.open(path, method=method, data=body))
    assert (status, code) == found[:2]
    assert message in found[2]
    (record,) = caplog.records
    assert logging.WARNING == record.levelno
    assert f"status={status} method={method} path={path} content-length={len(body)}" in record.getMessage()


def test_a_body_that_cannot_be_read_is_an_error_of_ours(smol, tmp_path, caplog):
    class Broken(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError("invalid argument")

    with api(tmp_path, smol.url) as http, caplog.at_level(logging.INFO, "transferkit.server"):
        response = http.delete("/api/delete", input_stream=Broken(), headers={"Content-Length": "5"})
    assert (500, "internal_error", "internal server error") == error_of(response)
    (record,) = caplog.records
    assert (logging.ERROR, True) == (record.levelno, 'error="invalid argument"' in record.getMessage())


def test_what_it_does_not_know_goes_to_the_fallback_and_not_into_the_log(smol, tmp_path, caplog):
    def fallback(environ, start_response):
        start_response("200 OK", [])
        return [b"fell back"]

    with api(tmp_path, smol.url, fallback=fallback) as http, caplog.at_level(logging.INFO, "transferkit.server"):
        assert b"fell back" == http.delete("/api/unknown", data=b"{}").data
    assert [] == caplog.records


def test_one_record_a_request(smol, tmp_path, caplog):
    with api(tmp_path, smol.url) as http, caplog.at_level(logging.INFO, "transferkit.server"):
        pull(http).get_data()
        http.get("/api/version?x=1")
    first, second = [record.getMessage() for record in caplog.records if record.name == "transferkit.server"]
    assert 'http error="" status=200 method=POST path=/api/pull content-length=17' in first
    assert second.endswith("query=x=1")
    assert "remote=" in second
    assert "proto=HTTP/1.1" in second


def test_no_client_writes_a_line_of_the_log(smol, tmp_path, caplog):
    with api(tmp_path, smol.url) as http, caplog.at_level(logging.INFO, "transferkit.server"):
        http.get("/", environ_overrides={"PATH_INFO": "/a\nERROR all is lost\x1b[31m\xe9"})
    (record,) = caplog.records
    assert r"path=/a\nERROR all is lost\x1b[31mé content-length" in record.getMessage()


# -- delete


def test_a_model_is_deleted_and_the_store_pruned(smol, tmp_path):
    pruned = []
    with api(tmp_path, smol.url, prune=lambda: pruned.append(links(tmp_path))) as http:
        pull(http, stream=False)
        assert (200, b"") == ((gone := http.delete("/api/delete", data=b'{"model": "SMOL"}')).status_code, gone.data)
        assert [[]] == pruned
        assert 404 == http.delete("/api/delete", data=b'{"model": "smol"}').status_code
    assert [[]] == pruned


# -- what the cache has


def test_what_the_cache_has_is_listed_and_shown(smol, tmp_path):
    with api(tmp_path, smol.url) as http:
        pull(http, stream=False)
        (tmp_path / "manifests" / host(smol.url) / "library" / "broken").mkdir()
        (tmp_path / "manifests" / host(smol.url) / "library" / "broken" / "v1").write_bytes(b"no manifest")
        (listed,) = http.get("/api/tags").json["models"]
        shown = http.post("/api/show", data=b'{"model": "smol"}').json
        assert b"" == http.head("/api/tags").data
    details = {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "1B",
        "quantization_level": "Q4_0",
    }
    name = f"{host(smol.url)}/library/smol:latest"
    assert (name, name, SMOL.digest[7:], details) == (
        listed["name"],
        listed["model"],
        listed["digest"],
        listed["details"],
    )
    assert sum(map(len, SMOL.blobs)) == listed["size"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", listed["modified_at"])
    assert ("do as you like", "{{ .Prompt }}", details) == (shown["license"], shown["template"], shown["details"])
    assert json.loads(SMOL.raw) == shown["manifest"]
    assert ["stop", "stop", "temperature"] == sorted(line.split()[0] for line in shown["parameters"].splitlines())
    path = tmp_path / "blobs" / digest_of(SMOL.layers[0]).replace(":", "-")
    assert f"FROM {path}\n" in shown["modelfile"]


# -- several clients, and none


def weights_in_pieces(app):
    """Send the weights 400 bytes at a time, with a pause after each."""

    def middle(environ, start_response):
        body = app(environ, start_response)
        if environ["REQUEST_METHOD"] != "GET" or not environ["PATH_INFO"].endswith(digest_of(SMOL.layers[0])):
            return body
        return pieces(body)

    def pieces(body):
        content = b"".join(body)
        if hasattr(body, "close"):
            body.close()
        for at in range(0, len(content), 400):
            yield content[at : at + 400]
            time.sleep(0.06)

    return middle


@pytest.fixture
def slow():
    with running_registry(middleware=weights_in_pieces) as registry:
        SMOL.put(registry.url, "library/smol", "latest")
        yield registry


def test_several_clients_share_one_transfer_and_all_see_progress(slow, tmp_path):
    told: dict[int, list[dict]] = {}
    with api(tmp_path, slow.url, tick=0.01) as http:

        def watch(number):
            told[number] = lines_of(pull(http))

        watchers = [threading.Thread(target=watch, args=(number,)) for number in range(4)]
        for watcher in watchers:
            watcher.start()
        deadline = time.monotonic() + 10
        while not (running := http.get("/api/ps").json["models"]) and time.monotonic() < deadline:
            time.sleep(0.01)
        for watcher in watchers:
            watcher.join()
        assert [] == http.get("/api/ps").json["models"]
    assert [f"{host(slow.url)}/library/smol:latest"] == [each["name"] for each in running]
    weights, size = digest_of(SMOL.layers[0]), len(SMOL.layers[0])
    assert 1 == sum(r.method == "GET" and r.path.endswith(weights) for r in slow.log)
    for lines in told.values():
        seen = [line.get("completed", 0) for line in lines if line.get("digest") == weights]
        assert ({"status": "success"}, size) == (lines[-1], seen[-1])
        assert len(set(seen)) > 2, "it saw no progress within the blob"


@pytest.mark.parametrize("stream", [True, False])
def test_the_last_client_that_hangs_up_cancels_the_transfer(slow, tmp_path, stream):
    gone = threading.Event()
    environ = {"transferkit.is_gone": gone.is_set}
    with api(tmp_path, slow.url) as http:
        ended = threading.Thread(
            target=lambda: http.post(
                "/api/pull", data=json.dumps({"model": "smol", "stream": stream}), environ_overrides=environ
            ).get_data()
        )
        ended.start()
        deadline = time.monotonic() + 10
        while not http.get("/api/ps").json["models"] and time.monotonic() < deadline:
            time.sleep(0.01)
        gone.set()
        ended.join(10)
        while http.get("/api/ps").json["models"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [] == http.get("/api/ps").json["models"]
    assert [] == links(tmp_path)
    assert not [name for name in os.listdir(tmp_path / "blobs") if name == digest_of(SMOL.layers[0]).replace(":", "-")]


def test_a_line_comes_while_nothing_moves(slow, tmp_path):
    with api(tmp_path, slow.url, heartbeat=0.05, tick=0.0) as http:
        told = lines_of(pull(http))
    weights = [line.get("completed", 0) for line in told if line.get("digest") == digest_of(SMOL.layers[0])]
    assert len(weights) > len(set(weights)), "each line told something new"


def test_the_end_of_the_server_ends_its_pulls(slow, tmp_path):
    with api(tmp_path, slow.url) as http:
        watcher = threading.Thread(target=lambda: pull(http).get_data())
        watcher.start()
        deadline = time.monotonic() + 10
        while not http.get("/api/ps").json["models"] and time.monotonic() < deadline:
            time.sleep(0.01)
    watcher.join(5)
    assert not watcher.is_alive()
    assert [] == links(tmp_path)
