"""User names and passwords: where they come from. What is done with them is ``auth``'s."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from transferkit.errors import UnauthorizedError

Pair: TypeAlias = "tuple[str, str]"
Auth: TypeAlias = "Pair | Callable[[str], Pair | None] | Credentials"


class Credentials(Protocol):
    """A source of user names and passwords. Thread-safe."""

    def for_(self, host: str, repository: str) -> Pair | None:
        """Return user name and password for a repository of ``host`` (``host`` or ``host:port``), if there are any."""


@dataclass(frozen=True, slots=True)
class Given:
    """One pair for every host, a function that is asked with the host, or nothing."""

    auth: Pair | Callable[[str], Pair | None] | None = field(repr=False)

    def for_(self, host: str, repository: str) -> Pair | None:
        pair = self.auth(host) if callable(self.auth) else self.auth
        if pair is not None and (len(pair) != 2 or not all(isinstance(part, str) for part in pair)):
            raise UnauthorizedError("auth is (user, password), or a function that returns that or None")
        return pair


def credentials_of(auth: Auth | None) -> Credentials:
    """Return what an ``auth`` argument stands for."""
    return Given(auth) if auth is None or isinstance(auth, tuple) or callable(auth) else auth


def basic(user: str, password: str) -> str:
    """Return the ``Authorization`` of a user name and password (RFC 7617, UTF-8)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
