"""Credentials of the machine: the environment, files of Docker and podman, and helpers that are real programs."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from transferkit.errors import CancelledError
from transferkit.transfer.flow import WorkerFlow
from transferkit.transport.credentials import Credential, StoredCredentials

HOST = "registry.example.com"
SECRET = "hush-hush"


def auth(user: str, password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


class Machine:
    """A home folder and an environment."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {"HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}"}

    def write(self, path: str, config: Any) -> Path:
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(config if isinstance(config, str) else json.dumps(config))
        return file

    def helper(self, name: str, script: str) -> None:
        self.write(f"bin/docker-credential-{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)

    def find(self, host: str = HOST, repository: str = "team/model", **options: Any) -> Any:
        return self.all(host, repository, **options)[0]

    def all(self, host: str = HOST, repository: str = "team/model", flow: Any = None, **options: Any) -> Any:
        return StoredCredentials(self.environment, **options).find(host, repository, flow)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_anything_there_is_none(machine: Any) -> None:
    assert machine.all() == (None, [])


def test_the_environment_comes_first(machine: Any) -> None:
    machine.write(".docker/config.json", {"auths": {HOST: auth("file")}})
    machine.environment |= {"TRANSFERKIT_USERNAME": "env", "TRANSFERKIT_PASSWORD": SECRET}
    found = machine.find()
    assert (found.user, found.password, found.found) == ("env", SECRET, "TRANSFERKIT_USERNAME")
    machine.environment["TRANSFERKIT_TOKEN"] = "t"
    assert machine.find() == Credential("TRANSFERKIT_TOKEN", registry_token="t")


def test_files_in_their_order(machine: Any) -> None:
    """podman's own, its runtime one, Docker's, REGISTRY_AUTH_FILE, DOCKER_AUTH_CONFIG: each new one is taken."""
    environment = machine.environment
    environment["XDG_RUNTIME_DIR"] = str(machine.home / "run")
    machine.write(".config/containers/auth.json", {"auths": {HOST: auth("podman")}})
    assert machine.find().user == "podman"
    machine.write("run/containers/auth.json", {"auths": {HOST: auth("runtime")}})
    assert machine.find().user == "runtime"
    machine.write(".docker/config.json", {"auths": {HOST: auth("docker")}})
    assert machine.find().user == "docker"
    machine.write("elsewhere/config.json", {"auths": {HOST: auth("moved")}})
    environment["DOCKER_CONFIG"] = str(machine.home / "elsewhere")
    assert machine.find().user == "moved"
    environment["REGISTRY_AUTH_FILE"] = str(machine.write("named.json", {"auths": {HOST: auth("named")}}))
    assert machine.find().user == "named"
    environment["DOCKER_AUTH_CONFIG"] = json.dumps({"auths": {HOST: auth("inline")}})
    found = machine.find()
    assert (found.user, found.password) == ("inline", SECRET)
    assert "DOCKER_AUTH_CONFIG" in found.found


def test_netrc_is_never_read(machine: Any) -> None:
    machine.write(".netrc", f"machine {HOST} login netrc password {SECRET}\n")
    assert machine.find() is None


@pytest.mark.parametrize(
    ("repository", "user"),
    [
        ("team/model", "exact"),
        ("team/other", "team"),
        ("team/model/deep", "exact"),
        ("teammate/x", "host"),
        ("", "host"),
    ],
)
def test_the_entry_of_the_longest_prefix_counts(machine: Any, repository: str, user: str) -> None:
    entries = {f"{HOST}/team/model": auth("exact"), f"{HOST}/team": auth("team"), f"https://{HOST}/v2/": auth("host")}
    machine.write(".docker/config.json", {"auths": entries})
    assert machine.find(repository=repository).user == user


@pytest.mark.parametrize("key", [HOST, f"https://{HOST}", f"http://{HOST}/", f"https://{HOST}/v1/", f"{HOST}/v2"])
def test_keys_as_clients_wrote_them(machine: Any, key: str) -> None:
    machine.write(".docker/config.json", {"auths": {key: auth("me")}})
    assert machine.find().user == "me"
    assert machine.find(host=f"{HOST}:5000") is None
    assert machine.find(host="example.com") is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"])
@pytest.mark.parametrize("host", ["registry-1.docker.io", "docker.io", "index.docker.io"])
def test_docker_hub_has_many_names(machine: Any, key: str, host: str) -> None:
    machine.write(".docker/config.json", {"auths": {key: auth("me")}})
    assert machine.find(host=host, repository="library/x").user == "me"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"username": "u", "password": "p"}, ("u", "p", "", "")),
        ({"auth": base64.b64encode(b"u:p:q").decode()}, ("u", "p:q", "", "")),
        ({**auth("u"), "identitytoken": "i"}, ("", "", "i", "")),
        ({"registrytoken": "r"}, ("", "", "", "r")),
    ],
)
def test_entries_of_every_kind(machine: Any, entry: Any, expected: tuple[str, ...]) -> None:
    machine.write(".docker/config.json", {"auths": {HOST: entry}})
    found = machine.find()
    assert (found.user, found.password, found.identity_token, found.registry_token) == expected


def test_a_helper_of_the_host_comes_before_the_store_and_the_file(machine: Any) -> None:
    machine.helper("mine", 'read -r host; printf \'{"ServerURL":"%s","Username":"%s","Secret":"s"}\' "$host" "$host"')
    machine.helper("store", 'echo \'{"Username":"store","Secret":"s"}\'')
    config = {"credHelpers": {HOST: "mine"}, "credsStore": "store", "auths": {HOST: auth("file")}}
    machine.write(".docker/config.json", config)
    assert machine.find().user == HOST  # what the helper was told
    assert machine.find(host="other.example.com").user == "store"
    del config["credHelpers"], config["credsStore"]
    machine.write(".docker/config.json", config)
    assert machine.find().user == "file"


def test_a_helper_is_asked_for_docker_hub_by_its_old_name(machine: Any) -> None:
    machine.helper("store", 'host=$(cat); printf \'{"Username":"%s","Secret":"s"}\' "$host"')
    machine.write(".docker/config.json", {"credsStore": "store"})
    assert machine.find(host="registry-1.docker.io").user == "https://index.docker.io/v1/"


def test_a_helper_that_has_an_identity_token(machine: Any) -> None:
    machine.helper("store", 'echo \'{"Username":"<token>","Secret":"refresh"}\'')
    machine.write(".docker/config.json", {"credsStore": "store"})
    assert machine.find() == Credential("docker-credential-store", identity_token="refresh")


def test_a_helper_that_has_none_leaves_it_to_the_file(machine: Any) -> None:
    machine.helper("store", "echo credentials not found in native keychain; exit 1")
    machine.write(".docker/config.json", {"credsStore": "store", "auths": {HOST: auth("file")}})
    found, problems = machine.all()
    assert (found.user, problems) == ("file", [])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "docker-credential-broken cannot be started: No such file"),
        ("echo 'the key chain is locked'; exit 3", r"docker-credential-broken failed \(3\): the key chain is locked"),
        ("echo nonsense", "docker-credential-broken answered something that is no credential"),
        ('echo \'{"Username": 5, "Secret": "s"}\'', "no credential"),
        ("exec sleep 60", "docker-credential-broken did not answer within 0.2 s"),
    ],
)
def test_a_helper_that_fails_is_named_with_its_file(
    machine: Any, script: str | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    if script is not None:
        machine.helper("broken", script)
    path = machine.write(".docker/config.json", {"credsStore": "broken"})
    with caplog.at_level(logging.WARNING):
        found, (problem,) = machine.all(timeout=0.2 if script == "exec sleep 60" else 10)
    assert found is None
    assert str(path) in problem
    assert re.search(words, problem)
    assert problem in caplog.text


@pytest.mark.parametrize("name", ["../evil", "a b", "", 5, "x/y", "-c"])
def test_what_is_no_name_of_a_helper_is_not_run(machine: Any, name: Any) -> None:
    machine.write(".docker/config.json", {"credHelpers": {HOST: name}, "auths": {HOST: auth("file")}})
    assert machine.find().user == "file"


def test_a_helper_is_asked_once_for_many_scopes(machine: Any) -> None:
    machine.helper("store", f'echo x >> {machine.home}/asked; echo \'{{"Username":"u","Secret":"s"}}\'')
    machine.write(".docker/config.json", {"credsStore": "store"})
    now = 0.0
    stored = StoredCredentials(machine.environment, clock=lambda: now)
    for _ in range(3):
        assert stored.find(HOST, "a/b")[0].user == "u"
    assert (machine.home / "asked").read_text() == "x\n"
    now = 61.0
    assert stored.find(HOST, "a/b")[0].user == "u"
    assert (machine.home / "asked").read_text() == "x\nx\n"


def test_a_helper_that_is_waited_for_can_be_left(machine: Any) -> None:
    machine.helper("slow", "exec sleep 60")
    machine.write(".docker/config.json", {"credsStore": "slow"})
    flow = WorkerFlow()
    flow.cut(CancelledError("now"), final=True)
    began = time.monotonic()
    with pytest.raises(CancelledError):
        machine.all(flow=flow)
    assert time.monotonic() - began < 5


def test_a_helper_that_is_waited_for_is_told_once(machine: Any, caplog: pytest.LogCaptureFixture) -> None:
    times = itertools.count(step=2.0)
    machine.helper("slow", 'sleep 0.6; echo \'{"Username":"u","Secret":"s"}\'')
    machine.write(".docker/config.json", {"credsStore": "slow"})
    with caplog.at_level(logging.INFO):
        assert machine.find(clock=lambda: next(times)).user == "u"
    (warning, over) = caplog.records
    assert (warning.levelname, over.levelname) == ("WARNING", "INFO")
    assert warning.getMessage() == f"waiting for the credential helper docker-credential-slow, for {HOST}"
    assert over.getMessage().startswith("no longer waiting for the credential helper docker-credential-slow, after ")


@pytest.mark.parametrize(
    "config", ["{", "[]", '{"auths": []}', '{"credHelpers": 5}', '{"auths": {"registry.example.com": {"auth": "!"}}}']
)
def test_a_file_that_is_malformed_is_named_and_the_next_one_read(machine: Any, config: str) -> None:
    path = machine.write(".docker/config.json", config)
    found, (problem,) = machine.all()
    assert found is None
    assert str(path) in problem
    machine.write(".config/containers/auth.json", {"auths": {HOST: auth("podman")}})
    assert machine.find().user == "podman"


def test_a_variable_that_is_empty_is_none(machine: Any) -> None:
    machine.environment |= dict.fromkeys(("TRANSFERKIT_TOKEN", "TRANSFERKIT_USERNAME", "DOCKER_AUTH_CONFIG"), "")
    machine.environment |= {"REGISTRY_AUTH_FILE": "", "XDG_RUNTIME_DIR": ""}
    machine.write(".docker/config.json", {"auths": {HOST: auth("file")}})
    assert machine.find().user == "file"


def test_what_is_for_whoever_asks_may_be_left_out(machine: Any) -> None:
    """A mirror is shown what stands under its own name, and nothing else."""
    machine.environment |= {"TRANSFERKIT_TOKEN": "t", "TRANSFERKIT_USERNAME": "u"}
    machine.write(".docker/config.json", {"auths": {HOST: auth("file")}})
    assert machine.find(for_hosts_alone=True).user == "file"
    assert machine.find(host="mirror.example", for_hosts_alone=True) is None


def test_where_credentials_are_looked_for(machine: Any) -> None:
    home, environment = machine.home, machine.environment
    general = "TRANSFERKIT_TOKEN, TRANSFERKIT_USERNAME"
    files = f"{home}/.docker/config.json, {home}/.config/containers/auth.json"
    assert StoredCredentials(environment).searched == f"{general}, {files}"
    assert StoredCredentials(environment, for_hosts_alone=True).searched == files
    environment |= {"DOCKER_AUTH_CONFIG": "{}", "REGISTRY_AUTH_FILE": "/a.json", "XDG_RUNTIME_DIR": "/run"}
    files = f"/a.json, {home}/.docker/config.json, /run/containers/auth.json, {home}/.config/containers/auth.json"
    assert StoredCredentials(environment).searched == f"{general}, DOCKER_AUTH_CONFIG, {files}"


def test_a_problem_is_warned_of_once(machine: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Also where something was found elsewhere: many scopes are asked for."""
    machine.write(".docker/config.json", "{")
    machine.write(".config/containers/auth.json", {"auths": {HOST: auth("podman")}})
    stored = StoredCredentials(machine.environment)
    for _ in range(3):
        found, problems = stored.find(HOST, "a/b")
        assert (found and found.user, len(problems)) == ("podman", 1)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("credential", "what", "is_pair"),
    [
        (Credential("x", "u", "p"), "user name and password of x", True),
        (Credential("x", identity_token="t"), "identity token of x", False),
        (Credential("x", registry_token="t"), "token of x", False),
    ],
)
def test_a_credential_says_what_it_is(credential: Credential, what: str, is_pair: bool) -> None:
    assert (credential.what, credential.is_pair) == (what, is_pair)


def test_no_secret_stands_in_a_repr() -> None:
    for name in ("password", "identity_token", "registry_token"):
        assert SECRET not in repr(Credential("x", **{name: SECRET}))
