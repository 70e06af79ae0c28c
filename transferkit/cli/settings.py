"""What holds for every command: how it speaks, and where models are kept. Options of it stand anywhere on the line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Folder(click.Path):
    """A folder. An empty name is none: a variable of a script that is not set does not stand for this folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty; write . for this folder", param, ctx)
        return super().convert(value, param, ctx)


# What cannot be read is said by the library, with what it was needed for.
FOLDER = Folder(file_okay=False, readable=False, path_type=Path)


@dataclass(slots=True)
class Settings:
    """The global options of one run, filled while its arguments are read."""

    as_json: bool = False
    quiet: bool = False
    verbose: int = 0
    debug: bool = False
    cache: Path | None = None

    @property
    def progress(self) -> bool:
        """What the library is given as ``progress=``."""
        return not self.quiet


class GlobalOption(click.Option):
    """An option of every command; it is the same before the command's name and behind it."""

    def __init__(self, *names: str, field: str, **more: Any) -> None:
        super().__init__(names, expose_value=False, callback=self._keep, is_eager=True, **more)
        self._field = field

    def _keep(self, context: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            setattr(context.ensure_object(Settings), self._field, value)


def global_options() -> list[click.Parameter]:
    """Return the options that each command has besides its own, made anew."""
    return [
        GlobalOption(
            "--json", field="as_json", is_flag=True, help="Write one JSON object a line, of the schema transferkit/1."
        ),
        GlobalOption(
            "-q", "--quiet", field="quiet", is_flag=True, help="No progress, no notes; of a list, the names alone."
        ),
        GlobalOption(
            "-v", "--verbose", field="verbose", count=True, help="Log to standard error what happens; -vv: all of it."
        ),
        GlobalOption("--debug", field="debug", is_flag=True, help="Log all of it, and show a traceback of a failure."),
        GlobalOption(
            "--cache",
            field="cache",
            type=FOLDER,
            metavar="DIR",
            help="Where models are kept; or TRANSFERKIT_CACHE.",
        ),
    ]
