"""The program: its commands, the options that all of them have, and what is said of a word that is none of them."""

from __future__ import annotations

import difflib
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click

from transferkit.cli.completing import PROGRAM, complete
from transferkit.cli.ending import run, ways_out
from transferkit.cli.logs import logged
from transferkit.cli.settings import GlobalOption, Settings, global_options

_FEW = 4  # commands that are named one by one
_WIDEST = 100  # characters of a line of help
# What other programs call it: docker, oras, skopeo, ollama, hf.
_ELSEWHERE = {
    "auth": "login",
    "cache": "ls",
    "check": "doctor",
    "clean": "gc",
    "cp": "copy",
    "delete": "rm",
    "download": "pull",
    "fetch": "pull",
    "get": "pull",
    "images": "ls",
    "info": "show",
    "inspect": "show",
    "list": "ls",
    "manifest": "show",
    "path": "resolve",
    "prune": "gc",
    "remove": "rm",
    "rmi": "rm",
    "scan": "ls",
    "snapshot": "resolve",
    "sync": "copy",
    "upload": "push",
}


class _Described(click.Command):
    """A command whose help has the options of all commands in a part of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            # Arguments stand in the line of usage, and in the text.
            if isinstance(parameter, click.Option) and (row := parameter.get_help_record(ctx)) is not None:
                (shared if isinstance(parameter, GlobalOption) else own).append(row)
        for title, rows in (("Options", own), ("Options of every command", shared)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class Command(_Described):
    """One command, with the options of all commands behind its own."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params += global_options()

    def invoke(self, ctx: click.Context) -> Any:
        with logged(ctx.ensure_object(Settings)):
            return super().invoke(ctx)


class Group(_Described, click.Group):
    """A command with commands below it. A word that is none of them is answered with those that are like it."""

    command_class = Command

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params += global_options()

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are used."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if self.get_command(ctx, word) is None and not ctx.resilient_parsing and not word.startswith("-"):
            names = self.list_commands(ctx)
            like = [_ELSEWHERE[word]] if _ELSEWHERE.get(word) in names else []
            like = like or difflib.get_close_matches(word, names, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(like)}?" if like else ""
            if not hint and len(names) <= _FEW:
                hint = f"{ctx.command_path} has {' and '.join(names)}."
            ctx.fail(f"there is no command {word!r}. {hint}".rstrip())
        return super().resolve_command(ctx, args)


class Program(Group):
    """``transferkit`` itself: every way out of a run goes through here."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.context_settings.update(help_option_names=["-h", "--help"], max_content_width=_WIDEST)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        arguments = sys.argv[1:] if args is None else list(args)
        settings = extra.setdefault("obj", Settings())
        extra.setdefault("terminal_width", min(_WIDEST, shutil.get_terminal_size().columns))

        def call() -> Any:
            name = prog_name or PROGRAM
            if (code := complete(self, {"obj": settings})) is not None:
                return code
            return super(Program, self).main(arguments, name, complete_var, standalone_mode=False, **extra)

        if not standalone_mode:
            return call()
        raise SystemExit(run(call, settings, arguments))

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with ways_out():  # --help writes from here
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with ways_out():
            return super().invoke(ctx)
