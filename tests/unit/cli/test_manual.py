"""The manual page: it is that of the commands, and names all of them, their options and the exit codes."""

from __future__ import annotations

from pathlib import Path

import click

from transferkit.cli import main
from transferkit.cli.ending import EXIT_CODES
from transferkit.cli.manual import commands, page

PAGE = Path(__file__).parents[3] / "docs" / "transferkit.1"


def test_the_page_that_is_installed_is_that_of_the_commands() -> None:
    assert page(main) == PAGE.read_text(), "make man writes it anew"


def test_it_names_every_command_option_and_exit_code() -> None:
    lines = PAGE.read_text().splitlines()
    context = click.Context(main, info_name="transferkit")
    found = list(commands(main, context))
    assert {"pull", "push", "copy", "resolve", "ls", "show", "tags", "rm", "verify", "gc", "partials", "login"} <= {
        command.name for command, _ in found
    }
    for command, below in found:
        start = next(n for n, line in enumerate(lines) if line.startswith(f".SS {below.command_path}"))
        section = "\n".join(lines[start:]).partition("\n.S")[0].replace("\\-", "-")
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.expose_value:
                assert parameter.opts[0] in section, (below.command_path, parameter.opts)
            if isinstance(parameter, click.Argument):
                assert parameter.make_metavar(below).strip("[].") in section
    exits = "\n".join(lines).partition(".SH EXIT STATUS")[2].partition(".SH ")[0].splitlines()
    assert [f".B {code}" for code in sorted(EXIT_CODES)] == [line for line in exits if line.startswith(".B ")]


def test_it_has_every_global_option() -> None:
    text = PAGE.read_text().replace("\\-", "-")
    for parameter in main.params:
        assert f".B {', '.join(parameter.opts)}" in text or parameter.opts[-1] in text


def test_every_option_has_a_help() -> None:
    context = click.Context(main, info_name="transferkit")
    silent = [
        (below.command_path, parameter.name)
        for command, below in commands(main, context)
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert [] == silent
