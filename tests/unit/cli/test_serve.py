"""The command ``serve``: which addresses need a word more, what it says, and what ``--help`` costs."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from click.testing import CliRunner

from transferkit.cli import main


def invoke(*arguments: str):
    return CliRunner().invoke(main, ["serve", *arguments])


def test_help_imports_no_http_library():
    code = (
        "import sys\n"
        "from transferkit.cli import main\n"
        "try:\n    main(['serve', '--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "found = {'requests', 'urllib3', 'werkzeug', 'cheroot'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert 0 == done.returncode, done.stderr
    for option in ("--host", "--port", "--registry", "--api", "--read-only", "--auth", "--insecure-public", "--cache"):
        assert option in done.stdout


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "models.example", "", "127.0.0.1.example"])
def test_an_address_of_other_machines_needs_a_word_more(host):
    done = invoke("--host", host, "--port", "0")
    assert 2 == done.exit_code
    assert "can be reached from other machines" in done.output
    assert "--auth USER:FILE" in done.output
    assert "--insecure-public" in done.output


def test_passwords_that_cannot_be_read_end_it(tmp_path):
    done = invoke("--auth", f"ann:{tmp_path / 'none'}", "--cache", str(tmp_path / "cache"))
    assert 1 == done.exit_code
    assert f"{tmp_path / 'none'} cannot be read: No such file or directory" in done.output


def test_an_address_that_is_taken_is_said(tmp_path, registry):
    port = registry.url.rpartition(":")[2]
    done = invoke("--port", port, "--cache", str(tmp_path))
    assert 1 == done.exit_code
    assert f"127.0.0.1:{port} is not to be had: Address already in use; --port" in done.output
    assert "--port" in done.output


@pytest.mark.parametrize(("arguments", "option"), [(("--port", "70000"), "--port"), (("--tls", "a", "b"), "--tls")])
def test_wrong_usage_is_said(arguments, option):
    done = invoke(*arguments)
    assert (2, True) == (done.exit_code, option in done.output)


def test_one_registry_at_an_address(tmp_path):
    done = invoke("--registry", str(tmp_path), "--mirror")
    assert (2, True) == (done.exit_code, "choose one" in done.output)


def test_the_log_is_left_as_it_was(tmp_path, registry, monkeypatch):
    logger = logging.getLogger("transferkit")
    monkeypatch.setattr(logger, "level", 5)
    before = logger.level, list(logger.handlers), list(logging.getLogger().handlers)
    done = invoke("--port", registry.url.rpartition(":")[2], "--cache", str(tmp_path))
    assert 1 == done.exit_code
    assert before == (logger.level, logger.handlers, logging.getLogger().handlers)


def test_files_that_are_no_certificate_are_said(tmp_path):
    (tmp_path / "a.pem").write_text("no certificate")
    done = invoke("--tls", *2 * [str(tmp_path / "a.pem")], "--port", "0", "--cache", str(tmp_path))
    assert 1 == done.exit_code
    assert f"{tmp_path / 'a.pem'} are no certificate and its key" in done.output
    assert "is not to be had" not in done.output
