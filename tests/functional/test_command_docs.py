"""The page of the command line: its examples run, and its tables are those of the program."""

from __future__ import annotations

import doctest
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.functional.commands import PAGE, documented
from transferkit.cli import main
from transferkit.cli.ending import EXIT_CODES
from transferkit.testing import RunningRegistry


def examples() -> Iterator[tuple[str, str]]:
    """Yield the commands of the page, and what each prints."""
    for part in PAGE.read_text().split(".. code-block:: console\n")[1:]:
        lines = part.splitlines()
        end = next((number for number, line in enumerate(lines) if line and not line.startswith("   ")), len(lines))
        for each in "\n".join(line[3:] for line in lines[:end]).strip().split("$ ")[1:]:
            command, _, output = each.partition("\n")
            yield command, output


def test_every_example_runs_and_prints_what_stands_there(
    registry: RunningRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, ran = registry.url.removeprefix("http://"), 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSFERKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").write_text("{}")
    (tmp_path / "my-model" / "weights.bin").write_bytes(b"weights " * 1000)
    (tmp_path / "password.txt").write_text("secret\n")
    for command, expected in examples():
        line, _, given = command.removesuffix(" || true").partition(" < ")
        words = shlex.split(line.replace("localhost:5000", host))
        assert "transferkit" == words[0], command
        text = (tmp_path / given).read_text() if given else None
        done = CliRunner().invoke(main, words[1:], input=text)
        assert command.endswith("|| true") == (done.exit_code != 0), (command, done.output)
        said = done.stdout.replace(host, "localhost:5000")
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.OutputChecker().check_output(expected, said, flags), (command, said)
        ran += 1
    assert ran >= 15


def test_the_exit_codes_are_those_of_the_program() -> None:
    table = PAGE.read_text().partition("\nExit codes\n")[2].partition("\nJSON\n")[0]
    assert [(code, EXIT_CODES[code]) for code in sorted(EXIT_CODES)] == [
        (int(code), text) for code, text in re.findall(r"^([0-9]+) +(\S.*)$", table, re.M)
    ]


def test_every_type_of_object_is_documented() -> None:
    sources = "".join(path.read_text() for path in Path(main.callback.__code__.co_filename).parent.glob("*.py"))
    written = set(re.findall(r'(?:\.record|\.table|\.sentence|write_json)\(\s*"([a-z-]+)"', sources)) | {
        "pushed",
        "copied",
    }
    assert written == documented().keys()
