"""How the benchmark measures a process, and how an earlier version of this library takes part. Never a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import measure, releases
from benchmarks.results import FAILED, OK, TIMEOUT, Run


def measured(code: str, *, timeout: float = 30.0) -> Run:
    return measure.run([sys.executable, "-I", "-S", "-c", code], env=dict(os.environ), timeout=timeout)


def test_a_process_is_measured_apart_from_the_runner() -> None:
    ballast = bytearray(100_000_000)  # a runner that has grown must not show in its children

    small, big = (
        measured("pass"),
        measured("x = bytearray(64_000_000); sum(range(3_000_000)); print('{\"call\": 0.5}')"),
    )

    assert len(ballast) == 100_000_000
    assert (OK, OK, None, 0.5) == (small.status, big.status, small.call, big.call)
    assert 1_000_000 < small.rss < 40_000_000 < 64_000_000 < big.rss < 104_000_000
    assert big.user > 0
    assert big.wall > 0


def test_a_process_that_fails_says_why() -> None:
    failed = measured("raise SystemExit('no luck')")

    assert (FAILED, "exit code 1: no luck") == (failed.status, failed.note)


def test_a_process_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import os, time\n"
        "if os.fork() == 0: pass\n"
        f"open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w').close()\n"
        "time.sleep(60)"
    )

    ended = measured(code, timeout=1.0)

    assert (TIMEOUT, "ended after 1 s") == (ended.status, ended.note)
    assert 2 == len(list(tmp_path.iterdir()))
    for path in tmp_path.iterdir():
        # The signal may still be on its way, where the machine is busy.
        deadline = time.monotonic() + 5
        while alive(int(path.name)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not alive(int(path.name))


def alive(process: int) -> bool:
    """Tell whether a process runs. One that nobody has waited for yet is dead all the same."""
    try:
        return "State:\tZ" not in Path("/proc", str(process), "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_contestant_sees_no_proxy_and_no_bundle_but_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/elsewhere")

    plain = measure.environment(ca=None, scratch=tmp_path)
    private = measure.environment(ca=tmp_path / "ca.pem", scratch=tmp_path)

    assert (None, None) == (plain.get("HTTP_PROXY"), plain.get("REQUESTS_CA_BUNDLE"))
    assert str(tmp_path / "ca.pem") == private["REQUESTS_CA_BUNDLE"] == private["SSL_CERT_FILE"]


# -- an earlier version


def git(repository: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(repository), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_an_earlier_version_is_taken_from_its_commit(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is missing")
    repository, package = tmp_path / "repository", tmp_path / "repository/transferkit"
    package.mkdir(parents=True)
    git(repository, "init", "-q")
    for text in ("before", "after"):
        (package / "__init__.py").write_text(f"said = {text!r}\n")
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", text)

    releases.unpack(git(repository, "rev-parse", "HEAD~1"), tmp_path / "version", repository=repository)

    assert "said = 'before'\n" == (tmp_path / "version/transferkit/__init__.py").read_text()
    with pytest.raises(releases.MissingReleaseError, match="there is no commit 0000000 here"):
        releases.unpack(40 * "0", tmp_path / "other", repository=repository)


def test_without_the_repository_an_earlier_version_is_missing(tmp_path: Path) -> None:
    with pytest.raises(releases.MissingReleaseError):
        releases.unpack("HEAD", tmp_path / "version", repository=tmp_path)


def test_a_contestant_imports_the_version_in_its_folder_and_the_rest_from_here(tmp_path: Path) -> None:
    (tmp_path / "transferkit").mkdir()
    (tmp_path / "transferkit/__init__.py").write_text("")
    code = "import transferkit, benchmarks; raise SystemExit(transferkit.__file__ + ' ' + benchmarks.__file__)"

    seen = measure.run(
        [sys.executable, "-c", code],
        env=measure.environment(ca=None, scratch=tmp_path, home=tmp_path),
        timeout=30.0,
        home=tmp_path,
    )

    assert "exit code 1: ./transferkit/__init__.py ./benchmarks/__init__.py" == seen.note


def test_the_present_version_does_not_pass_for_an_earlier_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.contestants.ours_earlier"]

    refused = measure.run(command, env=measure.environment(ca=None, scratch=tmp_path), timeout=30.0)

    assert (FAILED, "exit code 1: this is not the earlier version") == (refused.status, refused.note)
