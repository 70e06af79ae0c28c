"""Credentials that nobody passed: of the environment, of Docker's files and helpers, as a whole call uses them."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import requests

import transferkit as tk
from tests.functional.hello import HELLO, MANIFEST
from transferkit.registry import Registry
from transferkit.testing import answer

pytestmark = pytest.mark.lanes

REPOSITORY = "team/model"
BASIC = "Basic " + base64.b64encode(b"alice:pass-word").decode()
LEFT = {"auth": base64.b64encode(b"alice:pass-word").decode()}


class Site:
    """A registry with its token service. ``takes`` is the Authorization that it believes."""

    def __init__(self, takes: str, *, scheme: str = "Bearer", realm: str = "{url}/token") -> None:
        self.takes = takes
        self.scheme = scheme
        self.realm = realm
        self.server = None

    def __call__(self, request):
        if request.target.startswith("/token"):
            return answer(200, b'{"access_token": "issued", "expires_in": 300}')
        if request.headers.get("authorization") != self.takes:
            realm = self.realm.format(url=self.server.url, port=self.server.port)
            return answer(401, b"", {"WWW-Authenticate": f'{self.scheme} realm="{realm}",service="s"'})
        return answer(200, MANIFEST if "/manifests/" in request.target else b"hello")

    @property
    def asked(self):
        return [request for request in self.server.requests if request.target.startswith("/token")]

    @property
    def host(self):
        return self.server.url.partition("://")[2]


@pytest.fixture
def start(serve):
    def run(takes, **keywords):
        site = Site(takes, **keywords)
        site.server = serve(site)
        return site

    return run


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """``docker(config)`` writes Docker's config.json, and returns its path."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))

    def write(config):
        (folder / "config.json").write_text(json.dumps(config))
        return folder / "config.json"

    return write


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """``helper(name, script)`` puts a credential helper on the path."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")

    def write(name, script):
        path = tmp_path / "bin" / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return write


def download(site, folder, **keywords):
    return tk.download([tk.Blob(HELLO, 5)], folder, base_url=site.server.url, repository=REPOSITORY, **keywords)


# -- each kind of credential


def test_a_pair_of_a_file_goes_where_the_registry_asks_for_it(start, docker, tmp_path):
    site = start(BASIC, scheme="Basic")
    docker({"auths": {site.host: LEFT}})
    assert download(site, tmp_path / "d").bytes == 5
    assert [None, BASIC] == [request.headers.get("authorization") for request in site.server.requests]


def test_a_pair_of_a_file_goes_to_the_token_service(start, docker, tmp_path):
    site = start("Bearer issued")
    docker({"auths": {site.host: LEFT}})
    assert download(site, tmp_path / "d").bytes == 5
    assert [("GET", BASIC)] == [(request.method, request.headers.get("authorization")) for request in site.asked]


def test_an_identity_token_is_exchanged_by_post(start, docker, tmp_path):
    site = start("Bearer issued")
    docker({"auths": {site.host: {"identitytoken": "refresh&secret"}}})
    seen = []
    report = download(site, tmp_path / "d", progress=lambda completed, total: seen.append(completed))
    (request,) = site.asked
    assert ("POST", "/token", None) == (request.method, request.target, request.headers.get("authorization"))
    assert "application/x-www-form-urlencoded" == request.headers["content-type"]
    assert {
        "grant_type": ["refresh_token"],
        "service": ["s"],
        "client_id": ["transferkit"],
        "scope": ["repository:team/model:pull"],
        "refresh_token": ["refresh&secret"],
    } == parse_qs(request.body.decode())
    assert (5, 5) == (report.bytes, max(seen))  # what was posted is no progress


def test_a_registry_token_goes_to_the_registry_as_it_is(start, docker, tmp_path):
    site = start("Bearer mine")
    docker({"auths": {site.host: {"registrytoken": "mine"}}})
    assert download(site, tmp_path / "d").bytes == 5
    assert [] == site.asked


def test_the_environment_comes_before_the_files(start, docker, tmp_path, monkeypatch):
    site = start("Bearer mine")
    docker({"auths": {site.host: LEFT}})
    monkeypatch.setenv("TRANSFERKIT_TOKEN", "mine")
    assert download(site, tmp_path / "d").bytes == 5
    assert [] == site.asked


def test_a_helper_is_asked_for_the_host(start, docker, helper, tmp_path):
    site = start(BASIC, scheme="Basic")
    helper("test", f'read host; [ "$host" = "{site.host}" ] && echo \'{{"Username":"alice","Secret":"pass-word"}}\'')
    docker({"credHelpers": {site.host: "test"}})
    assert download(site, tmp_path / "d").bytes == 5


def test_each_repository_has_its_own(start, docker, tmp_path):
    site = start(BASIC, scheme="Basic")
    other = {"auth": base64.b64encode(b"bob:other").decode()}
    docker({"auths": {site.host: other, f"{site.host}/team": LEFT}})
    assert download(site, tmp_path / "d").bytes == 5


def test_every_call_uses_them(start, docker, make_blobs, tmp_path):
    site = start("Bearer issued")
    docker({"auths": {site.host: LEFT}})
    where = {"base_url": site.server.url, "repository": REPOSITORY}
    assert HELLO == tk.fetch_manifest("v1", **where).layers[0].digest
    with Registry(cache=tmp_path / "cache") as registry:
        registry.pull(f"{site.server.url}/{REPOSITORY}:v1")
        assert b"hello" == Path(registry.cache.path(HELLO)).read_bytes()
    with pytest.raises(tk.TransferKitError):  # this server takes no uploads
        tk.upload(make_blobs(tmp_path / "src", [9]), tmp_path / "src", **where)
    assert {BASIC} == {request.headers.get("authorization") for request in site.asked}


# -- when they are not asked for


def test_a_registry_that_asks_for_nothing_is_shown_nothing(start, docker, helper, tmp_path):
    site = start(None)
    helper("test", f"touch {tmp_path}/asked; exit 1")
    docker({"credsStore": "test", "auths": {site.host: LEFT}})
    assert download(site, tmp_path / "d").bytes == 5
    assert [None] == [request.headers.get("authorization") for request in site.server.requests]
    assert not (tmp_path / "asked").exists()


GIVEN = [{"auth": ("x", "y")}, {"auth": lambda host: None}, {"token": "t"}, {"get_token": lambda challenge: "t"}]


@pytest.mark.parametrize("given", GIVEN, ids=["pair", "function", "token", "get_token"])
def test_what_the_user_gives_beats_all(start, docker, tmp_path, given, monkeypatch):
    site = start(BASIC, scheme="Basic")
    docker({"auths": {site.host: LEFT}})
    monkeypatch.setenv("TRANSFERKIT_TOKEN", "mine")
    with pytest.raises(tk.UnauthorizedError) as caught:
        download(site, tmp_path / "d", **given)
    sent = {request.headers.get("authorization") for request in site.server.requests}
    assert not {BASIC, "Bearer mine"} & sent
    assert "config.json" not in str(caught.value)


def test_credentials_of_the_session_beat_those_of_the_machine(start, docker, tmp_path):
    site = start("Bearer issued")
    docker({"auths": {site.host: LEFT}})
    with requests.Session() as session:
        session.auth = ("bob", "other")
        download(site, tmp_path / "d", session=session)
    assert "Basic Ym9iOm90aGVy" == site.asked[0].headers["authorization"]
    assert BASIC not in {request.headers.get("authorization") for request in site.server.requests}


# -- what a refusal says


def test_a_refusal_names_the_file_whose_credentials_were_refused(start, docker, tmp_path):
    site = start("Bearer other")
    path = docker({"auths": {site.host: LEFT}})
    with pytest.raises(tk.UnauthorizedError) as caught:
        download(site, tmp_path / "d")
    what = f"the user name and password of {path}, entry {site.host}"
    assert f"it refused the token that {what} brought" in str(caught.value)
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_a_refusal_of_what_was_found_in_the_end_names_what_was_broken_before(start, docker, helper, tmp_path, scheme):
    site = start("other", scheme=scheme)
    helper("test", "exit 3")
    path = docker({"credsStore": "test", "auths": {site.host: LEFT}})
    with pytest.raises(tk.UnauthorizedError) as caught:
        download(site, tmp_path / "d")
    assert f"user name and password of {path}, entry {site.host}" in str(caught.value)
    assert f"docker-credential-test failed (3); {path} names it" in str(caught.value)


def test_a_token_where_a_password_is_asked_for_is_named(start, tmp_path, monkeypatch):
    site = start(BASIC, scheme="Basic")
    monkeypatch.setenv("TRANSFERKIT_TOKEN", "mine-mine")
    with pytest.raises(tk.UnauthorizedError) as caught:
        download(site, tmp_path / "d")
    assert "the token of TRANSFERKIT_TOKEN is no answer to what it asks for" in str(caught.value)
    assert "there are none that it takes in TRANSFERKIT_TOKEN" in str(caught.value)
    assert "mine-mine" not in str(caught.value)


def test_a_refusal_says_where_credentials_were_looked_for(start, docker, tmp_path):
    site = start(BASIC, scheme="Basic")
    path = docker({})
    with pytest.raises(tk.UnauthorizedError) as caught:
        download(site, tmp_path / "d")
    text = f"pass auth=, token= or get_token=; there are none in TRANSFERKIT_TOKEN, TRANSFERKIT_USERNAME, {path}, "
    assert text in str(caught.value)


def test_a_helper_that_fails_is_warned_of_and_stands_in_the_refusal(start, docker, helper, tmp_path, caplog):
    site = start(BASIC, scheme="Basic")
    helper("test", "echo the key chain is locked; exit 3")
    path = docker({"credsStore": "test"})
    with caplog.at_level(logging.WARNING), pytest.raises(tk.UnauthorizedError) as caught:
        download(site, tmp_path / "d")
    problem = f"the credential helper docker-credential-test failed (3): the key chain is locked; {path} names it"
    assert problem in str(caught.value)
    assert 1 == sum(problem in record.getMessage() for record in caplog.records)


def test_a_helper_that_fails_harms_no_public_content(start, docker, helper, tmp_path):
    site = start("Bearer issued")
    helper("test", "exit 3")
    docker({"credsStore": "test"})
    assert download(site, tmp_path / "d").bytes == 5
    assert [None] == [request.headers.get("authorization") for request in site.asked]


def test_a_file_that_is_malformed_stands_in_the_refusal(start, docker, tmp_path):
    site = start(BASIC, scheme="Basic")
    path = docker([])
    with pytest.raises(tk.UnauthorizedError) as caught:
        download(site, tmp_path / "d")
    assert f"{path} cannot be read: it is no JSON object" in str(caught.value)


@pytest.mark.parametrize("entry", [{"identitytoken": "hush-hush"}, {"registrytoken": "hush-hush"}])
def test_a_peer_that_repeats_a_secret_is_not_repeated(serve, docker, tmp_path, caplog, entry):
    def script(request):
        said = request.body.decode() + request.headers.get("authorization", "")
        if request.target.startswith("/token"):
            secret = said.rpartition("=")[2]  # an error quotes a length that is none
            return f"HTTP/1.1 200 OK\r\nContent-Length: {secret}\r\n\r\n".encode()
        body = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": said}]}).encode()
        return answer(401, body, {"WWW-Authenticate": f'Bearer realm="{server.url}/token",service="s"'})

    server = serve(script)
    docker({"auths": {server.url.partition("://")[2]: entry}})
    options = tk.TransferOptions(retry=tk.RetryOptions(attempts=1, patience=0))
    with caplog.at_level(logging.DEBUG), pytest.raises(tk.TransferKitError) as caught:
        tk.fetch_manifest("v1", base_url=server.url, repository=REPOSITORY, options=options)
    assert "***" in str(caught.value)
    assert "hush" not in f"{caught.value!r} {caplog.text}"
