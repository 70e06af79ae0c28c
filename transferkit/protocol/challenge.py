"""``WWW-Authenticate``: what a registry wants to see, as data.

Source: RFC 9110 section 11.6.1, and the Docker token specification. Values may be quoted or not, in any order, with
commas inside the quotes; several challenges may stand in one header.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from transferkit.errors import ProtocolError

_MAX_HEADER = 16 * 1024  # characters that are read; real ones have a few hundred
# A name, and its value where there is one: quoted, also where the quotes are never closed, or bare.
_PART = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)"
    r'(?:[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)(?:"|\Z)|([^\s,]*)))?',
    re.ASCII | re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AuthChallenge:
    """One challenge: its scheme in lower case, and its parameters.

    >>> challenge = AuthChallenge.parse(
    ...     'Bearer realm="https://a/token",service="r",scope="repository:x:pull,push"'
    ... )
    >>> challenge.scheme, challenge.realm, challenge.service, challenge.scope
    ('bearer', 'https://a/token', 'r', 'repository:x:pull,push')
    """

    scheme: str
    parameters: dict[str, str]

    @property
    def realm(self) -> str:
        return self.parameters.get("realm", "")

    @property
    def service(self) -> str:
        return self.parameters.get("service", "")

    @property
    def scope(self) -> str:
        """The scopes as the registry wrote them; several are separated by blanks."""
        return self.parameters.get("scope", "")

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(self.scope.split())

    @classmethod
    def parse(cls, header: str) -> AuthChallenge:
        """Return the first Bearer challenge of a header, else the first of any kind; ProtocolError: there is none."""
        challenges = parse_all(header)
        if not challenges:
            raise ProtocolError(f"the registry's WWW-Authenticate {header[:60]!r} holds no challenge")
        return next((challenge for challenge in challenges if challenge.scheme == "bearer"), challenges[0])


def parse_all(header: str) -> list[AuthChallenge]:
    """Return the challenges of a header in their order; what does not parse is passed over. Never raises."""
    challenges: list[AuthChallenge] = []
    for name, quoted, bare in (match.groups() for match in _PART.finditer(header[:_MAX_HEADER])):
        if challenges and (quoted is not None or bare is not None):
            value = _ESCAPED.sub(r"\1", quoted) if bare is None else bare
            challenges[-1].parameters.setdefault(name.lower(), value)
        else:  # a name without "=" is a scheme; so is whatever comes first
            challenges.append(AuthChallenge(name.lower(), {}))
    return challenges


def merge_scopes(*scopes: str) -> tuple[str, ...]:
    """Return scopes with one entry for each resource, which has the actions of all.

    A challenge names what this one request lacks; the rest of the job is known here, and one token should do for it.

    >>> pull, both = "repository:a:pull", "repository:a:pull,push"
    >>> merge_scopes(pull, both, "registry:catalog:*")
    ('repository:a:pull,push', 'registry:catalog:*')
    """
    actions: dict[str, dict[str, None]] = {}
    for scope in scopes:
        resource, colon, names = scope.rpartition(":")
        kept = actions.setdefault(resource if colon else scope, {})
        if colon:
            kept.update(dict.fromkeys(names.split(",")))
    return tuple(f"{resource}:{','.join(names)}" if names else resource for resource, names in actions.items())
