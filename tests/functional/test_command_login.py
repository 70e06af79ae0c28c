"""login and logout: what is accepted, where it is kept, and what stays as it was."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.functional.commands import Commands, asking_registry
from transferkit.cli.login import _asked, is_terminal
from transferkit.testing import FaultRule, RunningRegistry, challenge, respond, running_registry, with_faults

AUTH = "YW5uOnNlY3JldA=="  # ann:secret
HELPER = """#!{python}
import pathlib, sys
said = sys.stdin.read()
with pathlib.Path({log!r}).open("a") as log:
    log.write(sys.argv[1] + " " + said + "\\n")
sys.exit({code})
"""


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path / "cache")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker" / "config.json"


@pytest.fixture
def asking() -> Iterator[RunningRegistry]:
    with asking_registry("ann", "secret") as registry:
        yield registry


def host_of(registry: RunningRegistry) -> str:
    return registry.url.removeprefix("http://")


def test_a_password_is_checked_kept_and_used(commands: Commands, config: Path, asking: RunningRegistry) -> None:
    host = host_of(asking)
    config.parent.mkdir()
    before = {"auths": {"other.example": {"auth": "b3RoZXI6eA=="}}, "psFormat": "tänle", "HttpHeaders": {"A": "b"}}
    config.write_text(json.dumps(before))
    config.chmod(0o644)
    done = commands("login", host, "-u", "ann", "--password-stdin", input="secret\n")
    assert ("", f"logged in to {host} as ann; kept in {config}\n") == (done.out, done.err)
    after = json.loads(config.read_text())
    assert {**before, "auths": {**before["auths"], host: {"auth": AUTH}}} == after  # type: ignore[dict-item]
    assert list(before) == list(after)
    assert 0o600 == stat.S_IMODE(config.stat().st_mode)
    assert ["config.json"] == os.listdir(config.parent)

    assert 3 == commands("pull", f"{host}/team/model:v1", code=3).code, "it was not let in"
    assert [{"type": "logout", "host": host}] == commands("logout", host, "--json").objects
    assert before == json.loads(config.read_text())
    again = commands("logout", host, code=3)
    assert f"error: there is nothing for {host} in {config}\n" == again.err


def test_a_wrong_password_is_not_kept(commands: Commands, config: Path, asking: RunningRegistry) -> None:
    done = commands("login", host_of(asking), "-u", "ann", "--password-stdin", input="wrong-password", code=4)
    assert "did not accept the user name and password, and nothing was kept" in done.err
    assert "wrong-password" not in done.out + done.err
    assert not config.exists()


def test_a_registry_that_is_down_keeps_nothing(commands: Commands, config: Path) -> None:
    assert (
        "Connection refused"
        in commands("login", "127.0.0.1:1", "-u", "ann", "--password-stdin", input="secret", code=5).err
    )
    assert not config.exists()


def test_a_registry_for_everybody_is_said(commands: Commands, config: Path, registry: RunningRegistry) -> None:
    done = commands("login", registry.url, "-u", "ann", "--password-stdin", input="secret\r\n")
    assert "asked for no password, so nobody has checked this one" in done.err
    assert {host_of(registry): {"auth": AUTH}} == json.loads(config.read_text())["auths"]


def test_a_token_service_elsewhere_sees_no_password_unless_it_is_allowed(commands: Commands, config: Path) -> None:
    token = FaultRule(respond(200, '{"token": "for-anybody"}', content_type="application/json"), path="/token")
    with running_registry(middleware=lambda app: with_faults(app, token)) as service:
        realm = service.url.removeprefix("http://").replace("127.0.0.1", "localhost")
        asked = FaultRule(
            challenge(f'Bearer realm="http://{realm}/token",service="x"'),
            path="/v2/",
            where=lambda environ: environ.get("HTTP_AUTHORIZATION") != "Bearer for-anybody",
        )
        with running_registry(middleware=lambda app: with_faults(app, asked)) as registry:
            arguments = ["login", host_of(registry), "-u", "ann", "--password-stdin"]
            done = commands(*arguments, input="secret", code=4)
            assert f"nothing was kept. If it is the right one: --token-realm {realm}" in done.err
            assert not config.exists()
            assert ["authorization" in each.headers for each in service.log] == [False]
            service.log.clear()
            commands(*arguments, "--token-realm", realm, input="secret")
    assert [f"Basic {AUTH}"] == [each.headers["authorization"] for each in service.log]
    assert {host_of(registry): {"auth": AUTH}} == json.loads(config.read_text())["auths"]


def test_a_helper_keeps_it_where_one_is_set(
    commands: Commands, config: Path, asking: RunningRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, log, folder = host_of(asking), tmp_path / "log", tmp_path / "bin"
    folder.mkdir()
    helper = folder / "docker-credential-chain"
    helper.write_text(HELPER.format(python=sys.executable, log=str(log), code=0))
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    config.parent.mkdir()
    before = {"auths": {f"https://{host}/v2/": {"auth": AUTH}}, "credHelpers": {host: "chain"}, "credsStore": "other"}
    config.write_text(json.dumps(before))
    done = commands("login", host, "-u", "ann", "--password-stdin", "--json", input="secret")
    assert [{"type": "login", "host": host, "username": "ann", "kept": "docker-credential-chain"}] == done.objects
    action, said = log.read_text().strip().split(" ", 1)
    assert ("store", {"ServerURL": host, "Username": "ann", "Secret": "secret"}) == (action, json.loads(said))
    assert {**before, "auths": {host: {}}} == json.loads(config.read_text()), "the password stands in the file"
    commands("logout", host)
    assert f"erase {host}" == log.read_text().strip().splitlines()[-1]

    helper.write_text(HELPER.format(python=sys.executable, log=str(log), code=1))
    failed = commands("login", host, "-u", "ann", "--password-stdin", input="secret", code=1)
    assert "error: the credential helper docker-credential-chain failed (1)" in failed.err
    helper.unlink()
    missing = commands("login", host, "-u", "ann", "--password-stdin", input="secret", code=1)
    assert f"docker-credential-chain, which {config} names, cannot be started: No such file" in missing.err


def test_a_terminal_is_asked_and_the_password_is_not_echoed(
    commands: Commands, config: Path, asking: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transferkit.cli.login.is_terminal", lambda: True)
    done = commands("login", host_of(asking), input="ann\nsecret\n")
    assert ("", True) == (done.out, "Username: " in done.err and "Password: " in done.err)
    assert "secret" not in done.err
    assert {host_of(asking): {"auth": AUTH}} == json.loads(config.read_text())["auths"]
    commands("login", host_of(asking), "-u", "ann", input="", code=130)


def test_a_file_that_is_not_dockers_is_left_as_it_is(commands: Commands, config: Path) -> None:
    config.parent.mkdir()
    config.write_text("{ not json")
    done = commands("login", "127.0.0.1:1", "-u", "ann", "--password-stdin", input="secret", code=1)
    assert f"{config} is left as it is" in done.err
    assert "{ not json" == config.read_text()


def test_a_link_to_a_file_elsewhere_stays_one(
    commands: Commands, config: Path, asking: RunningRegistry, tmp_path: Path
) -> None:
    config.parent.mkdir()
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    config.symlink_to(real)
    commands("login", host_of(asking), "-u", "ann", "--password-stdin", input="secret")
    assert config.is_symlink()
    assert {host_of(asking): {"auth": AUTH}} == json.loads(real.read_text())["auths"]


def test_a_variable_that_comes_first_is_said(
    commands: Commands, config: Path, asking: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSFERKIT_TOKEN", "something")
    done = commands("login", host_of(asking), "-u", "ann", "--password-stdin", input="secret")
    assert "warning: TRANSFERKIT_TOKEN is set, and is asked before that" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-u", "ann"], "there is no terminal to ask for the password: pipe it in, with --password-stdin"),
        (["--password-stdin"], "--password-stdin goes with --username NAME"),
        (["-u", "ann", "--password-stdin"], "the password is empty"),
        (["-u", "ann", "-p", "secret"], "seen by others: pipe it in, with --password-stdin"),
        (["-u", "a:b", "--password-stdin"], "a user name has no colon"),
        (["-u", "ann", "--password-stdin"], "the password that is piped in is not UTF-8"),
        (["-u", "ann", "--password-stdin"], "what is piped in is too long for a password"),
    ],
)
def test_a_password_that_nobody_gives_is_wrong_usage(
    commands: Commands, config: Path, arguments: list[str], said: str
) -> None:
    piped = {"UTF-8": b"s\xff", "too long": 70_000 * b"a", "colon": b"s"}
    given = next((raw for word, raw in piped.items() if word in said), None)
    assert said in commands("login", "ghcr.io", *arguments, code=2, input=given).err
    assert not config.exists()


def test_without_a_standard_input_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert not is_terminal()
    with pytest.raises(click.UsageError, match="the password is empty"):
        _asked("ann", password_stdin=True)


@pytest.mark.parametrize("command", ["doctor", "login"])
def test_a_word_that_is_no_host_ends_it_at_once(commands: Commands, config: Path, command: str) -> None:
    done = commands(command, "http://ann:p@ssw0rd@h", code=2)
    said = '"h" is no registry: write host, or host:port, without a user name and password'
    assert ("", f"error: {said}\n") == (done.out, done.err)
    assert '"a b" is no registry' in commands(command, "a b", code=2).err


def test_doctor_finds_what_is_there_and_shows_no_secret(
    commands: Commands, config: Path, asking: RunningRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = host_of(asking)
    commands("login", host, "-u", "ann", "--password-stdin", "-q", input="secret")
    (commands.cache / "blobs").mkdir(parents=True)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxy-password@proxy.example:3128")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    document = json.loads(config.read_text())
    config.write_text(json.dumps({**document, "credHelpers": {"gcr.io": "gcloud-none"}}))
    config.chmod(0o644)
    done = commands("doctor", asking.url, "--json", code=1)
    found = {(each["level"], each["about"]): each for each in done.objects}
    assert f"{commands.cache} (as was asked for) has 0 models" == found["ok", "store"]["text"]
    assert {"versions", "store", "space", "fsync", "lock", "rename", "proxy", "ca", "credentials", "registry"} <= {
        about for _, about in found
    }
    texts = " ".join(f"{each['text']} {each['advice']}" for each in done.objects)
    assert "HTTPS_PROXY is http://proxy.example:3128" in texts
    assert f"REQUESTS_CA_BUNDLE is {tmp_path / 'none.pem'}, which cannot be read" in texts
    assert f"{config} has some for {host}" in texts
    assert "docker-credential-gcloud-none for gcr.io, which is not in PATH" in texts
    assert f"chmod 600 {config}" in texts
    assert "with credentials that it accepts" in found["ok", "registry"]["text"]
    for secret in ("secret", AUTH, "proxy-password"):
        assert secret not in texts
    assert [] == [name for name in os.listdir(commands.cache / "blobs" / ".partial") if name.startswith("sha256-")]

    quiet = commands("doctor", "--offline", "-q", code=1)
    assert {"warning", "problem"} == {line.split()[0] for line in quiet.lines}


def test_doctor_says_what_a_registry_answers(commands: Commands, config: Path, registry: RunningRegistry) -> None:
    good = commands("doctor", registry.url)
    assert "it asks for no credentials" in good.out
    assert "transferkit login HOST keeps some" in good.out
    with asking_registry("ann", "secret") as asking:
        asked = commands("doctor", asking.url).out
        assert f"transferkit login {host_of(asking)}" in asked
        assert "auth=" not in asked
    bad = commands("doctor", "127.0.0.1:1", code=1)
    assert "Connection refused" in bad.lines[-1]
    assert bad.lines[-1].startswith("problem")


def test_a_page_for_people_is_no_registry(commands: Commands, config: Path) -> None:
    page = FaultRule(respond(200, "<html>Sign in", content_type="text/html"), path="/v2/")
    with running_registry(middleware=lambda app: with_faults(app, page)) as registry:
        found = commands("doctor", registry.url, "-q").lines
        done = commands("login", registry.url, "-u", "ann", "--password-stdin", input="secret", code=1)
    said = f"{registry.url}/v2/ answered with a page for people: it is no registry, or a proxy wants a login first"
    assert said in " ".join(found)
    assert f"error: {said}; nothing was kept\n" == done.err
    assert not config.exists()
