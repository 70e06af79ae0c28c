"""How a run ends: codes, lines, tracebacks without secrets, signals."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import transferkit as tk
from transferkit import errors
from transferkit.cli import main
from transferkit.cli.ending import EXIT_CODES, Interrupt, scrubbed, signals
from transferkit.storage import inventory

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, tk.TransferKitError)]
DIGEST = f"sha256:{64 * 'a'}"


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, *options: str) -> Result:
    """Run a command that ends with an error."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(inventory, "inventory", fail)
    return CliRunner().invoke(main, ["ls", *options])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (tk.TransferKitError("x"), 1),
        (tk.InvalidNameError("x"), 2),
        (tk.ManifestNotFoundError("x"), 3),
        (tk.BlobNotFoundError("x"), 3),
        (tk.UnauthorizedError("x"), 4),
        (tk.DeniedError("x"), 4),
        (tk.ConnectError("x"), 5),
        (tk.CertificateError("x"), 5),
        (tk.StalledError("x"), 5),
        (tk.ServerError("x"), 5),
        (tk.RateLimitedError("x"), 5),
        (tk.RetriesExhaustedError.after(3, tk.ReadError("x")), 5),
        (tk.RetriesExhaustedError.after(3, tk.ServerError("x")), 5),
        (tk.DigestMismatchError("x"), 6),
        (tk.OutOfSpaceError("x"), 7),
        (tk.StorageError("x"), 1),
        (tk.IncompleteError("x", failures={DIGEST: tk.OutOfSpaceError("full")}), 8),
        (tk.CancelledError("x"), 130),
        (KeyboardInterrupt(), 130),
        (Interrupt(signal.SIGTERM), 143),
        (ValueError("x"), 1),
        (OSError(28, "No space left on device"), 7),
        (PermissionError(13, "Permission denied", "there"), 1),
        (BrokenPipeError(32, "Broken pipe"), 141),
    ],
)
def test_each_error_has_its_exit_code(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    done = failing(monkeypatch, error)
    assert code == done.exit_code
    assert code in EXIT_CODES
    assert len(done.stderr.splitlines()) <= 1
    assert "Traceback" not in done.output


def test_every_exit_code_of_an_error_is_explained() -> None:
    assert {kind.exit_code for kind in CLASSES} <= EXIT_CODES.keys()


def test_an_error_is_an_object_on_standard_output_and_a_line_on_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    error = tk.IncompleteError("2 failed", failures={DIGEST: tk.ServerError("busy", url="https://h/v2/", status=503)})
    done = failing(monkeypatch, error, "--json")
    failure = {"error": "ServerError", "retryable": True, "url": "https://h/v2/", "status": 503, "code": ""}
    expected = {
        "schema": "transferkit/1",
        "type": "error",
        "error": "IncompleteError",
        "retryable": False,
        "failures": [{**failure, "digest": DIGEST, "message": "busy"}],
        "message": "2 failed",
        "exit_code": 8,
    }
    assert (expected, "error: 2 failed\n") == (json.loads(done.stdout), done.stderr)


def test_a_traceback_comes_with_debug_alone_and_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFERKIT_TOKEN", "tk-0123456789")
    cause = ValueError("GET https://ann:pass@host/x?X-Signature=abcdef, Authorization: Bearer eyJhbGciOi tk-0123456789")
    error = tk.ProtocolError("refused")
    error.__cause__ = cause
    done = failing(monkeypatch, error, "--debug")
    assert "Traceback (most recent call last)" in done.stderr
    assert "GET https://***@host/x?***, Authorization: Bearer *** ***" in done.stderr
    assert done.stderr.endswith("error: refused\n")
    assert "Traceback" not in failing(monkeypatch, error).stderr


def test_what_nobody_expected_is_one_line_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    done = failing(monkeypatch, RuntimeError("first\nhttps://h/?sig=secret"))
    said = "unexpected RuntimeError: first https://h/?***; run it with --debug, and report what that shows"
    assert (1, f"error: {said}\n") == (done.exit_code, done.stderr)


def test_what_the_system_refuses_is_said_with_what_it_was_refused_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done = failing(monkeypatch, PermissionError(13, "Permission denied", "/x/y"))
    assert "error: /x/y: Permission denied; --debug shows what was tried\n" == done.stderr


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Interrupt(signal.SIGTERM), 143)])
def test_an_interrupt_is_an_object_too(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    done = failing(monkeypatch, error, "--json")
    said = json.loads(done.stdout)
    assert ("error", "CancelledError", code, False) == tuple(
        said[key] for key in ("type", "error", "exit_code", "retryable")
    )
    assert f"{said['message']}\n" == done.stderr


def test_a_signal_while_the_end_is_told_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*_: object) -> int:
        raise Interrupt(signal.SIGTERM)

    monkeypatch.setattr("transferkit.cli.ending.told", told)
    assert (143, "") == ((done := failing(monkeypatch, tk.TransferKitError("x"))).exit_code, done.output)


def test_sigterm_at_a_question_is_no_ctrl_c(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def terminated(_: str) -> str:
        raise Interrupt(signal.SIGTERM)

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr("transferkit.cli.login.is_terminal", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", terminated)
    with pytest.raises(SystemExit) as end:  # a CliRunner asks in a way of its own
        main(["login", "127.0.0.1:1"])
    assert 143 == end.value.code


def test_what_a_registry_says_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    done = failing(monkeypatch, tk.ProtocolError("bad \x1b[2J"))
    assert "error: bad \\x1b[2J\n" == done.stderr


def test_colors_are_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    def colored() -> bool:
        monkeypatch.setattr(inventory, "inventory", lambda *_: (_ for _ in ()).throw(tk.ProtocolError("x")))
        return "\x1b[31m" in CliRunner().invoke(main, ["ls"], color=True).stderr

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colored()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colored()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not colored()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_first_signal_interrupts_and_a_second_one_would_kill(number: int, code: int) -> None:
    every = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(each) for each in every]
    with signals():
        with pytest.raises(Interrupt) as caught:
            os.kill(os.getpid(), number)
            time.sleep(10)
        assert code == caught.value.exit_code
        # A terminal that is closed sends SIGHUP twice.
        assert [signal.SIG_DFL, signal.SIG_DFL, signal.SIG_IGN] == [signal.getsignal(each) for each in every]
    assert before == [signal.getsignal(each) for each in every]


@pytest.mark.parametrize("words", [[], ["plan"]])
def test_without_a_command_the_help_is_shown(words: list[str]) -> None:
    done = CliRunner().invoke(main, words)
    assert (2, "") == (done.exit_code, done.stdout)
    assert done.stderr.startswith("Usage: transferkit")
    assert "\n  pull " in done.stderr


def test_who_calls_it_from_python_gets_the_errors_themselves() -> None:
    with pytest.raises(click.UsageError):
        main(["lss"], standalone_mode=False)


def test_a_password_with_an_at_sign_is_one() -> None:
    assert "GET https://***@host/x" == scrubbed("GET https://ann:p@ss@host/x")


def test_what_is_no_secret_stays() -> None:
    assert "is it a? b=c, or d" == scrubbed("is it a? b=c, or d")
