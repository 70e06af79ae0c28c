"""The kinds of arguments: names of models, which a shell completes, sizes, durations and pairs."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from transferkit.cli.settings import Settings

_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[KMGT]?)(?:i?B)?\Z", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>[smhd]?)\Z", re.ASCII | re.IGNORECASE)
_UNITS = ("", "K", "M", "G", "T")
_LONGEST = 1000 * 365 * 86400.0  # seconds; whoever says more means for ever
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
PLATFORMS = ("all", "linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64")


if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # not generic before click 8.2


class ModelName(_Type):
    """The name of a model. A shell completes those that the cache has."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from transferkit.names import short
        from transferkit.storage.cache import DiskCache

        names: list[str] = []
        with suppress(Exception):  # a shell has no place for what went wrong
            names = [short(name) for name in DiskCache(ctx.ensure_object(Settings).cache).links()]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class Platform(_Type):
    """os/architecture[/variant]; some are offered by completion, and every one is taken."""

    name = "platform"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(each) for each in PLATFORMS if each.startswith(incomplete)]


class Size(_Type):
    """A number of bytes, at least one: ``1048576``, ``1024K``, ``1M``, ``1MiB``. All units are powers of 1024.

    >>> Size().convert("1.5 MiB", None, None)
    1572864
    """

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.match(value.strip())
        if match is None:
            self.fail(f"{value!r} is no size; write bytes, or 500K, 20M, 1.5G (powers of 1024)", param, ctx)
        size = float(match["number"]) * 1024 ** _UNITS.index(match["unit"].upper())
        if not 1 <= size < 2**63:
            self.fail(f"{value!r} is no size: it is at least 1 byte, and less than 8 EiB", param, ctx)
        return int(size)


class Duration(_Type):
    """A time in seconds: ``90``, ``90s``, ``30m``, ``12h``, ``7d``; ``is_some``: more than none.

    >>> Duration().convert("12h", None, None)
    43200.0
    """

    name = "time"

    def __init__(self, *, is_some: bool = False) -> None:
        self._is_some = is_some

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        match = _DURATION.match(value.strip())
        if match is None:
            self.fail(f"{value!r} is no time; write seconds, or 30m, 12h, 7d", param, ctx)
        seconds = float(match["number"]) * _SECONDS[match["unit"].lower()]
        if self._is_some and not seconds:
            self.fail(f"{value!r} is too short: it is more than 0 seconds", param, ctx)
        return min(seconds, _LONGEST)


class Pair(_Type):
    """KEY=VALUE."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, mark, text = value.partition("=")
        if not mark or not key:
            self.fail(f"{value!r} is no KEY=VALUE", param, ctx)
        return key, text


NAME, PLATFORM, SIZE, DURATION, PAIR = ModelName(), Platform(), Size(), Duration(), Pair()
SOME_TIME = Duration(is_some=True)
EXISTING = click.Path(exists=True, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
