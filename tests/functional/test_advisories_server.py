"""Advisories about servers of models: who reaches one, and what it may be made to do. The whole stack, over sockets."""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager

import pytest

import transferkit as tk
from tests.functional.models import Model, ask, links
from transferkit.server import Application, serving
from transferkit.server.passwords import Passwords

BODY = json.dumps({"model": "smol", "stream": False}).encode()
CHANGES = [("POST", "/api/pull"), ("DELETE", "/api/delete"), ("POST", "/v2/library/own/blobs/uploads/")]


@contextmanager
def served(folder, **keywords):
    with tk.Registry(cache=folder / "cache") as registry:
        registry.cache.link("smol", b'{"schemaVersion": 2, "layers": []}')
        application = Application(registry=registry, store=folder / "store", **keywords)
        with application, serving(application) as url:
            yield url


@pytest.mark.parametrize("host", ["rebound.attacker.example", "rebound.attacker.example:11434", "10.0.0.1"])
def test_cve_2024_28224_a_name_that_was_led_to_this_machine_is_answered_nothing(tmp_path, host):
    with served(tmp_path) as url:
        for method, path in [("GET", "/api/tags"), ("POST", "/api/show"), ("GET", "/v2/"), ("GET", "/"), *CHANGES]:
            status, headers, body = ask(url, method, path, BODY, Host=host)
            assert (403, False) == (status, b"smol" in body)
            assert not [name for name in headers if name.startswith("access-control")]
    assert ["registry.ollama.ai/library/smol/latest"] == links(tmp_path / "cache")


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://attacker.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}],
    ids=["origin", "null", "site"],
)
def test_cve_2024_28224_a_foreign_page_changes_nothing(tmp_path, headers):
    with served(tmp_path) as url:
        for method, path in CHANGES:
            # What a form of another site can send, without asking first.
            assert 403 == ask(url, method, path, BODY, Content_Type="text/plain", **headers)[0]
    assert ["registry.ollama.ai/library/smol/latest"] == links(tmp_path / "cache")


def test_cve_2025_63389_nothing_is_done_for_who_has_no_password(tmp_path):
    right = "Basic " + base64.b64encode(b"ann:secret").decode()
    with served(tmp_path, passwords=Passwords.plain({"ann": "secret"})) as url:
        for method, path in [("GET", "/api/tags"), ("GET", "/v2/"), ("GET", "/"), *CHANGES]:
            for headers in ({}, {"Authorization": "Basic " + base64.b64encode(b"ann:guess").decode()}):
                status, answered, _ = ask(url, method, path, BODY, **headers)
                assert (401, 'Basic realm="transferkit", charset="UTF-8"') == (status, answered["www-authenticate"])
        assert ["registry.ollama.ai/library/smol/latest"] == links(tmp_path / "cache")
        assert 200 == ask(url, "DELETE", "/api/delete", BODY, Authorization=right)[0]
    assert [] == links(tmp_path / "cache")


def test_cve_2026_5530_who_is_not_let_in_makes_the_server_ask_nobody(tmp_path, registry):
    Model([b"weights"]).put(registry.url, "library/inner", "v1")
    registry.log.clear()
    body = json.dumps({"model": f"{registry.url}/library/inner:v1", "stream": False}).encode()
    refused = [{"Host": "attacker.example"}, {"Origin": "http://attacker.example"}]
    with served(tmp_path) as url:
        assert [403, 403] == [ask(url, "POST", "/api/pull", body, **headers)[0] for headers in refused]
    with served(tmp_path, read_only=True) as url:
        assert 403 == ask(url, "POST", "/api/pull", body)[0]
    with served(tmp_path, passwords=Passwords.plain({"ann": "secret"})) as url:
        assert 401 == ask(url, "POST", "/api/pull", body)[0]
    assert [] == list(registry.log)
    with served(tmp_path) as url:
        assert 200 == ask(url, "POST", "/api/pull", body)[0]
    assert len(registry.log) > 0
