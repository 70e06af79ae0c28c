"""Where a plan runs: the folder and the cache of that machine, and its credentials."""

from __future__ import annotations

import importlib
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transferkit.arguments import Path, check
from transferkit.errors import InvalidNameError, InvalidPlanError
from transferkit.forks import importing
from transferkit.registry.plans.checks import check_credentials

if TYPE_CHECKING:
    from transferkit.registry.plans.planning import Planning

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)
_GIVEN = ("auth", "token", "get_token")


def here(path: Path, what: str) -> str:
    """Return a path of this machine: in a text, ``~`` and variables of the environment stand for what they are here.

    Raises:
        InvalidNameError: a variable is not set here, or the path is none.
        TypeError: it is no path.
    """
    check(**{what: path})
    if not isinstance(path, str):
        return os.fspath(path)

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1] or match[2], "")
        if not found:  # an empty one would lead to the root of the disk
            raise InvalidNameError(f"{what} is {path!r}, and {match[0]} is not set on {platform.node()}")
        return found

    return os.path.expanduser(_VARIABLE.sub(value, path))


@contextmanager
def registry_for(credentials: str) -> Iterator[Planning]:
    """Return the registry client that plans are run with: that of the process, or one with credentials of its own."""
    from transferkit.registry.defaults import default  # all of the package is imported by now
    from transferkit.registry.registry import Registry

    if not credentials:
        yield default()
        return
    with Registry(**given_by(credentials)) as registry:
        yield registry


def given_by(credentials: str) -> dict[str, Any]:
    """Return the keywords that a callable gives, which is named as ``package.module:callable``.

    Raises:
        InvalidPlanError: there is no such callable here, or it gives something else.
    """
    module, _, name = check_credentials(credentials).partition(":")
    found: Any
    try:
        with importing:
            found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        text = f"the credentials of the plan are {credentials}, and {platform.node()} has no such callable: {error}"
        raise InvalidPlanError(text) from error
    if not isinstance(found, Callable):  # type: ignore[arg-type]  # an abstract class, which knows all callables
        raise InvalidPlanError(f"{credentials} is {type(found).__name__}, and no callable that gives credentials")
    given = found()
    if not isinstance(given, Mapping) or not set(given) <= set(_GIVEN):
        raise InvalidPlanError(f"{credentials} has to return a mapping with some of {', '.join(_GIVEN)}")
    return dict(given)
