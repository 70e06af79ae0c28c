"""Tables that fit, arguments that are sizes, times and pairs, completion, and the words of errors."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import transferkit as tk
from transferkit.cli import main
from transferkit.cli.completing import SHELLS, VARIABLE
from transferkit.cli.logs import logged
from transferkit.cli.output import Output, emit, lines_of
from transferkit.cli.pulling import FORMATS
from transferkit.cli.pushing import FORMATS as PUSHED
from transferkit.cli.settings import Settings
from transferkit.cli.types import DURATION, SIZE
from transferkit.cli.words import in_options
from transferkit.models.reading import _READERS
from transferkit.models.writing import FORMATS as WRITTEN


def test_the_first_column_is_cut_in_its_middle_where_the_terminal_is_narrow() -> None:
    rows = [["NAME", "SIZE"], ["registry.example.com/team/model:v1", "9.0 GiB"]]
    assert ["NAME                    SIZE", "regist…/team/model:v1   9.0 GiB"] == lines_of(rows, 31)
    assert "reg…model:v1   9.0 GiB" == lines_of(rows, 5)[1], "something of the name stays"
    assert "registry.example.com/team/model:v1   9.0 GiB" == lines_of(rows, 200)[1] == lines_of(rows)[1]


def test_several_columns_are_cut_one_after_the_other() -> None:
    rows = [["model-00001-of-00002.safetensors", "150.0 MiB", "application/vnd.cncf.model.weight.v1.raw"]]
    assert ["model-00001-of-00002.safetensors   150.0 MiB   applicati….model.weight.v1.raw"] == lines_of(
        rows, 77, cut=(-1, 0)
    )
    assert ["mod…etensors   150.0 MiB   app…t.v1.raw"] == lines_of(rows, 39, cut=(-1, 0))


def test_sentences_take_as_many_lines_as_a_terminal_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Output(Settings())
    output.sentence("finding", ["note", "lock"], "a b c" * 12)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")
    output.sentence("finding", ["note", "lock"], "seven words for a few lines of twenty-four characters")
    long, *lines = capsys.readouterr().out.splitlines()
    assert 26 + 60 == len(long)
    begin = "note         lock         "
    assert [f"{begin}seven words for a few", f"{' ' * 26}lines of twenty-four", f"{' ' * 26}characters"] == lines
    monkeypatch.setenv("COLUMNS", "20")
    output.sentence("finding", ["note", "lock"], "it stands below its heads")
    assert ["note lock it stands", "  below its heads"] == capsys.readouterr().out.splitlines()


def test_a_line_break_of_somebody_elses_begins_no_line_of_a_table_or_a_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ["NAME", "a\\nname   forged"] == lines_of([["NAME"], ["a\nname   forged"]])
    Output(Settings(quiet=True)).table("model", ("NAME",), [(("a\nb",), {})])
    Output(Settings()).record("tag", "a\nb", tag="a\nb")
    Output(Settings()).note("a\nb")
    assert ("a\\nb\na\\nb\n", "a\\nb\n") == capsys.readouterr()


def test_without_a_standard_output_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    Output(Settings()).table("model", ("NAME",), [(("a",), {})])
    Output(Settings()).sentence("finding", ["note", "lock"], "free")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_standard_output_is_said_and_a_full_standard_error_is_no_failure() -> None:
    script = """
import sys
from transferkit.cli.output import Output, emit
from transferkit.cli.settings import Settings
Output(Settings()).note("nobody reads it")
try:
    emit("data")
except OSError as error:
    assert "standard output cannot be written: No space left on device" == str(error)
    raise SystemExit(error.exit_code)
"""
    with open("/dev/full", "w") as full:
        assert 7 == subprocess.run([sys.executable, "-c", script], stdout=full, stderr=full, timeout=60).returncode


@pytest.mark.parametrize(
    ("text", "size"),
    [("7", 7), ("1k", 1024), ("1.5M", 1536 * 1024), ("2 GiB", 2 * 1024**3), ("1TB", 1024**4), ("10B", 10)],
)
def test_sizes(text: str, size: int) -> None:
    assert size == SIZE.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("30m", 1800), ("12h", 43200), ("7d", 604800)]
)
def test_times(text: str, seconds: float) -> None:
    assert seconds == DURATION.convert(text, None, None)


def test_the_formats_are_those_of_the_library() -> None:
    assert set(_READERS) == set(FORMATS)
    assert set(WRITTEN) == set(PUSHED)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script_and_completions(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tk.DiskCache(tmp_path) as cache:
        cache.link("smollm:135m", b"{}")
    script = CliRunner().invoke(main, ["completion", shell])
    assert VARIABLE in script.output
    words = f"transferkit --cache {tmp_path} show smo"
    environ = {VARIABLE: f"{shell}_complete", "COMP_LINE": words, "COMP_WORDS": words, "COMP_CWORD": "4"}
    if shell == "fish":
        environ["COMP_CWORD"] = "smo"
    done = CliRunner().invoke(main, [], env=environ)
    assert (0, True) == (done.exit_code, "smollm" in done.output), done.output
    commands = CliRunner().invoke(main, [], env={**environ, "COMP_LINE": "transferkit pu"})
    assert shell != "bash" or "plain,pull\nplain,push\n" == commands.output


def test_another_shell_is_wrong_usage() -> None:
    done = CliRunner().invoke(main, ["completion", "csh"])
    assert (2, True) == (done.exit_code, "bash" in done.output)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "allow it with TransportOptions(token_realms={'auth.example'})",
            "give --token-realm auth.example",
        ),
        ("pass auth=, token= or get_token=", "log in with: transferkit login ghcr.io"),
        (
            'it has linux/arm64: pass platform= one of these, or "all"',
            'it has linux/arm64: pass --platform one of these, or "all"',
        ),
        ("offline (TRANSFERKIT_OFFLINE, or offline=True)", "offline (TRANSFERKIT_OFFLINE, or --offline)"),
        (
            "set REQUESTS_CA_BUNDLE or pass a session with .verify, or HostOptions(ca_bundle=...)",
            "set REQUESTS_CA_BUNDLE or give --ca-bundle PATH",
        ),
        ("pass a=b, and to=", "pass a=b, and --to"),
        ("no (and 2 more in .failures)", "no (and 2 more: --json has all of them)"),
    ],
)
def test_advice_is_in_the_words_of_the_command_line(said: str, shown: str) -> None:
    assert shown == in_options(said, "ghcr.io")


def test_a_line_of_the_log_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with logged(Settings()):
        logging.getLogger("transferkit.x").warning("it said %s", "a\nerror: forged")
        logging.getLogger("transferkit.x").warning("a callback raised", exc_info=ValueError("x"))
    first, second, *_ = capsys.readouterr().err.splitlines()
    assert ["warning: it said a\\nerror: forged", "warning: a callback raised"] == [first, second]


def test_what_the_encoding_of_a_terminal_lacks_is_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    emit("Größe日")
    assert "Größe\\u65e5\n".encode("latin-1") == raw.getvalue()
