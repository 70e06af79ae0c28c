"""The kinds of arguments: names of models, which a shell completes, sizes, durations and pairs."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from transferkit.cli.settings import Settings

_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[KMGT]?)(?:i?B)?\Z", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>[smhd]?)\Z", re.ASCII | re.IGNORECASE)
_UNITS = ("", "K", "M", "G", "T")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
PLATFORMS = ("all", "linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64")


class ModelName(click.ParamType):
    """The name of a model. A shell completes those that the cache has."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from transferkit.names import short
        from transferkit.storage.cache import DiskCache

        names: list[str] = []
        with suppress(Exception):  # a shell has no place for what went wrong
            names = [short(name) for name in DiskCache(ctx.ensure_object(Settings).cache).links()]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class Platform(click.ParamType):
    """os/architecture[/variant]; some are offered by completion, and every one is taken."""

    name = "platform"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(each) for each in PLATFORMS if each.startswith(incomplete)]


class Size(click.ParamType):
    """A number of bytes: ``1048576``, ``1024K``, ``1M``, ``1MiB``. All units are powers of 1024.

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
        return int(float(match["number"]) * 1024 ** _UNITS.index(match["unit"].upper()))


class Duration(click.ParamType):
    """A time in seconds: ``90``, ``90s``, ``30m``, ``12h``, ``7d``.

    >>> Duration().convert("12h", None, None)
    43200.0
    """

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        match = _DURATION.match(value.strip())
        if match is None:
            self.fail(f"{value!r} is no time; write seconds, or 30m, 12h, 7d", param, ctx)
        return float(match["number"]) * _SECONDS[match["unit"].lower()]


class Pair(click.ParamType):
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
EXISTING = click.Path(exists=True, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
