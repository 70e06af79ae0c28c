"""The command line as tests run it: in this process, with a cache of its own, and what it printed taken apart."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from transferkit.cli import main
from transferkit.testing import RunningRegistry, running_registry

PAGE = Path(__file__).parents[2] / "docs" / "command-line.rst"


@cache
def documented() -> dict[str, set[str]]:
    """Return the fields that the page of the command line names, by the types of objects."""
    found: dict[str, set[str]] = {}
    page = PAGE.read_text().partition("\nJSON\n")[2].partition("\nCompletion")[0]
    for terms, text in re.findall(r"^(``[^\n]*``)\n((?:    [^\n]*\n)+)", page, re.M):
        for term in re.findall(r"``([a-z-]+)``", terms):
            found[term] = set(re.findall(r"``([a-z_]+)``", text))
    return found


@dataclass(frozen=True)
class Done:
    """What became of a command."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """What it wrote with ``--json``: each is of the schema, and is without that word here."""
        found, fields = [json.loads(line) for line in self.out.splitlines()], documented()
        for each in found:
            assert each.pop("schema") == "transferkit/1"
            assert each.keys() - {"type"} <= fields[each["type"]], "a field that docs/command-line.rst does not name"
        return found

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@dataclass(frozen=True)
class Commands:
    """``commands("ls", "--json")`` runs one."""

    cache: Path

    def __call__(self, *arguments: str | Path, code: int = 0, **more: Any) -> Done:
        result = CliRunner().invoke(main, ["--cache", str(self.cache), *map(str, arguments)], **more)
        assert code == result.exit_code, (result.output, result.exception)
        return Done(result.exit_code, result.stdout, result.stderr)


def folder_of(path: Path, **files: bytes) -> Path:
    """Write a folder of files, by their names with ``_`` for the dot."""
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name.replace("_", ".")).write_bytes(content)
    return path


@contextmanager
def asking_registry(user: str, password: str) -> Iterator[RunningRegistry]:
    """Run a registry that wants this user name and password."""
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def guarded(app: Callable[..., Any]) -> Callable[..., Any]:
        def middle(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            if environ.get("HTTP_AUTHORIZATION") == wanted:
                return app(environ, start_response)
            start_response("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="r"'), ("Content-Length", "0")])
            return [b""]

        return middle

    with running_registry(middleware=guarded) as registry:
        yield registry
