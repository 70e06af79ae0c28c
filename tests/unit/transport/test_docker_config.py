"""Docker's config.json is replaced as a whole or not at all, and a helper is told no more than it has to know."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from transferkit.errors import InvalidNameError, StorageError
from transferkit.transport.credentials import StoredCredentials
from transferkit.transport.docker_config import DockerConfig


def test_docker_hub_has_the_key_that_dockers_client_looks_for(tmp_path: Path) -> None:
    config = DockerConfig(environment={"DOCKER_CONFIG": str(tmp_path / "new")})
    assert str(tmp_path / "new" / "config.json") == config.store("docker.io", "ann", "a:b")
    expected = {"auths": {"https://index.docker.io/v1/": {"auth": "YW5uOmE6Yg=="}}}
    assert expected == json.loads((tmp_path / "new" / "config.json").read_text())
    found, problems = StoredCredentials({"DOCKER_CONFIG": str(tmp_path / "new")}).find("registry-1.docker.io", "a/b")
    assert found is not None
    assert ("ann", "a:b", []) == (found.user, found.password, problems)
    assert config.erase("registry-1.docker.io")
    assert not config.erase("docker.io")


@pytest.mark.parametrize("user", ["", "a:b"])
def test_a_user_name_that_no_header_can_carry_is_refused(tmp_path: Path, user: str) -> None:
    with pytest.raises(InvalidNameError, match="no colon"):
        DockerConfig(tmp_path / "config.json").store("h", user, "p")
    assert [] == os.listdir(tmp_path)


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"auths": {}}')

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"config\.json cannot be written: No space left on device"):
        DockerConfig(path).store("h", "ann", "secret")
    assert ('{"auths": {}}', ["config.json"]) == (path.read_text(), os.listdir(tmp_path))


@pytest.mark.parametrize("text", ["[]", '{"auths": []}', '{"auths": "x"}', "\x00", '{"a":'])
def test_a_file_of_another_kind_is_never_written_to(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    if text == '{"auths": []}':  # as good as none
        DockerConfig(path).store("h", "ann", "secret")
        return
    for act in (lambda c: c.store("h", "ann", "s"), lambda c: c.erase("h"), lambda c: c.helper("h")):
        with pytest.raises(StorageError, match="is left as it is"):
            act(DockerConfig(path))
    assert text == path.read_text()


def test_a_helper_whose_name_is_a_path_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"credsStore": "../../bin/sh"}')
    with pytest.raises(StorageError, match="names a credential helper that is none"):
        DockerConfig(path).store("h", "ann", "secret")


def test_a_helper_that_does_not_answer_is_ended_and_its_error_has_no_password(tmp_path: Path) -> None:
    path, helper = tmp_path / "config.json", tmp_path / "docker-credential-slow"
    helper.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    helper.chmod(0o755)
    path.write_text('{"credHelpers": {"h": "slow"}}')
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with pytest.raises(StorageError, match="did not answer within") as caught:
        DockerConfig(path, environment=environment, timeout=0.2).store("h", "ann", "hunter2hunter2")
    error: BaseException | None = caught.value
    assert "hunter2" not in repr(error)
    assert error is not None
    assert error.__cause__ is None
    assert '{"credHelpers": {"h": "slow"}}' == path.read_text()


def helped(tmp_path: Path, script: str, host: str = "h") -> DockerConfig:
    """Return a configuration whose helper is a script of the shell."""
    helper = tmp_path / "docker-credential-own"
    helper.write_text(f"#!/bin/sh\n{script}\n")
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {host: "own"}}))
    return DockerConfig(tmp_path / "config.json", environment={"PATH": f"{tmp_path}:{os.environ['PATH']}"})


def test_a_helper_that_repeats_what_it_was_given_is_quoted_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        helped(tmp_path, "cat; exit 3").store("h", "ann", 'pass"word')
    assert "word" not in str(caught.value)
    assert '"Username": "ann", "Secret": "***"' in str(caught.value)


def test_a_helper_that_says_nothing_is_quoted_with_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"failed \(3\)$"):
        helped(tmp_path, "exit 3").store("h", "ann", "secret")


def test_a_helper_is_asked_for_a_host_where_a_repository_was_named(tmp_path: Path) -> None:
    config = helped(tmp_path, f"cat > {tmp_path}/given")
    config.store("h/team", "ann", "secret")
    assert "h" == json.loads((tmp_path / "given").read_text())["ServerURL"]
    config.erase("h/team")
    assert "h" == (tmp_path / "given").read_text()


def test_text_that_is_no_utf8_stays_as_it_is_spelled(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"x": "\\ud800"}')
    DockerConfig(path).store("h", "ann", "secret")
    assert '"x": "\\ud800"' in path.read_text()


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root gives files to others")
def test_a_file_stays_its_owners_where_root_logs_in_for_somebody(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    os.chown(path, 1234, 4321)
    DockerConfig(path).store("h", "ann", "secret")
    assert (1234, 4321) == (path.stat().st_uid, path.stat().st_gid)


LOGIN = """
import sys
from transferkit.transport.docker_config import DockerConfig
sys.stdin.readline()
DockerConfig(sys.argv[1]).store(sys.argv[2], "ann", "secret")
"""


def test_of_logins_at_once_none_is_lost(tmp_path: Path) -> None:
    path, hosts = tmp_path / "new" / "config.json", [f"host-{number}.example" for number in range(8)]
    logins = [subprocess.Popen([sys.executable, "-c", LOGIN, str(path), host], stdin=subprocess.PIPE) for host in hosts]
    for login in logins:
        assert login.stdin is not None
        login.stdin.write(b"\n")
        login.stdin.close()
    assert [0] * len(hosts) == [login.wait(60) for login in logins]
    assert set(hosts) == json.loads(path.read_text())["auths"].keys()
    assert ["config.json"] == os.listdir(path.parent)


def test_where_the_folder_cannot_be_locked_it_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    DockerConfig(tmp_path / "config.json").store("h", "ann", "secret")
    assert {"h"} == json.loads((tmp_path / "config.json").read_text())["auths"].keys()
