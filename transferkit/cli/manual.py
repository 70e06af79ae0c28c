"""The manual page, made of the same texts as ``--help``: ``python -m transferkit.cli.manual > transferkit.1``.

Source: man-pages(7) for the sections, groff_man(7) for the macros.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from transferkit._version import __version__
from transferkit.cli.ending import EXIT_CODES
from transferkit.cli.settings import GlobalOption

_VARIABLES = {
    "TRANSFERKIT_CACHE": "Where models are kept. Else OLLAMA_MODELS, Ollama's own store, or the cache of the user.",
    "TRANSFERKIT_OFFLINE": "1: no request is made.",
    "TRANSFERKIT_TOKEN": "A token that whatever registry asks is shown.",
    "TRANSFERKIT_USERNAME, TRANSFERKIT_PASSWORD": "A user name and a password, likewise.",
    "DOCKER_CONFIG": "The folder of Docker's config.json, from which credentials are read, and where login keeps them.",
    "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY": "Proxies, and the hosts that are reached without one.",
    "REQUESTS_CA_BUNDLE": "The certificate authorities, as a file or a folder.",
    "NO_COLOR": "Set: nothing is coloured.",
}
VARIABLES = tuple(_VARIABLES)


def page(program: click.Group) -> str:
    """Return the manual page of a program and all of its commands, for ``man``."""
    context = click.Context(program, info_name="transferkit", help_option_names=["-h", "--help"])
    return "\n".join(_lines(program, context)) + "\n"


def _lines(program: click.Group, context: click.Context) -> Iterator[str]:
    yield f'.TH TRANSFERKIT 1 "" "transferkit {__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"transferkit \\- {_escaped((program.help or '').rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield ".B transferkit"
    yield "[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]"
    yield ".SH OPTIONS"
    yield "The options of every command stand before its name or behind it."
    yield from _options(program, context, shared=True)
    yield ".SH COMMANDS"
    for command, below in commands(program, context):
        usage = " ".join(command.collect_usage_pieces(below))
        yield f".SS {_escaped(below.command_path)} {_escaped(usage.removeprefix('[OPTIONS]').strip())}".rstrip()
        yield from _paragraphs(command.help or "")
        yield from _options(command, below, shared=False)
    yield ".SH EXIT STATUS"
    for code in sorted(EXIT_CODES):
        yield from (".TP", f".B {code}", _escaped(EXIT_CODES[code]))
    yield ".SH ENVIRONMENT"
    for name, text in _VARIABLES.items():
        yield from (".TP", f".B {name}", _escaped(text))
    yield ".SH FILES"
    yield from (".TP", ".I ~/.docker/config.json", "Credentials, as Docker's client keeps them.")
    yield ".SH SEE ALSO"
    yield "The documentation of the library: architecture, promises on disk, and the JSON that commands write."


def commands(program: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield all commands that do something, those of groups too, with a context each."""
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from commands(command, below)
        else:
            yield command, below


def _options(command: click.Command, context: click.Context, *, shared: bool) -> Iterator[str]:
    for parameter in command.get_params(context):
        is_shared = isinstance(parameter, GlobalOption)
        if not isinstance(parameter, click.Option) or (not shared and (is_shared or "--help" in parameter.opts)):
            continue
        if (record := parameter.get_help_record(context)) is not None:
            yield from (".TP", f".B {_escaped(record[0])}", _escaped(record[1]))


def _paragraphs(text: str) -> Iterator[str]:
    for number, part in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        lines = [line.strip() for line in part.splitlines()]
        if lines and lines[0] == "\b":
            yield ".nf"
            yield from map(_escaped, lines[1:])
            yield ".fi"
        else:
            yield _escaped(" ".join(lines))


def _escaped(text: str) -> str:
    """Return a text as groff takes it for one."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    from transferkit.cli import main

    print(page(main), end="")
