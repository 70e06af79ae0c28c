"""The command line as tests run it: in this process, with a cache of its own, and what it printed taken apart."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from transferkit.cli import main
from transferkit.testing import RunningRegistry, running_registry


@dataclass(frozen=True)
class Done:
    """What became of a command."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """What it wrote with ``--json``; each is of the schema, without that word."""
        found = [json.loads(line) for line in self.out.splitlines()]
        assert all(each.pop("schema") == "transferkit/1" for each in found)
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
