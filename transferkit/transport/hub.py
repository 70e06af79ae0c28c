"""How the Hugging Face hub is reached, as huggingface_hub finds it: its endpoint, its token, and whether at all.

Source: huggingface_hub 1.31, ``constants.py`` and ``utils/_auth.py``. The token is the hub's alone: it is shown to the
endpoint's own origin with each request, and whatever else a session or a registry client has is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from transferkit.content.flow import Flow
from transferkit.errors import ConnectError, InvalidNameError
from transferkit.protocol.hub import ENDPOINT
from transferkit.protocol.routes import check_base_url
from transferkit.transport.auth import Authorizer

_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
_MAX_FILE = 64 * 1024  # characters of a token file that are read; a token has some 40


@dataclass(frozen=True, slots=True)
class HubToken:
    """A token for the hub, or why there is none; ``found`` says where it is from."""

    found: str = ""
    value: str | None = field(default=None, repr=False)
    advice: str = ""
    """What to do where none was sent."""


def find_token(environment: Mapping[str, str]) -> HubToken:
    """Return the token of this machine: ``HF_TOKEN``, or that of ``hf auth login``. Never raises."""
    get = environment.get
    if (get("HF_HUB_DISABLE_IMPLICIT_TOKEN") or "").upper() in _TRUE:
        return HubToken(advice="no token is sent, as HF_HUB_DISABLE_IMPLICIT_TOKEN says")
    problem = ""
    for found, text in _texts(environment):
        if text is None:
            problem += f"; {found} cannot be read"
            continue
        value = text.replace("\r", "").replace("\n", "").strip()
        if value and value.isascii() and value.isprintable() and " " not in value:
            return HubToken(found, value)
        if value:
            problem += f"; what {found} holds is no token"
    return HubToken(advice=f"set HF_TOKEN, or log in with: hf auth login{problem}")


def _texts(environment: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """Yield the places where a token may be, and what is there; ``None`` where that cannot be read."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if text := environment.get(name):
            yield name, text
            return
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or f"{cache}/huggingface"
    path = environment.get("HF_TOKEN_PATH") or f"{home}/token"
    path = os.path.expandvars(os.path.expanduser(path))
    try:
        with Path(path).open(encoding="utf-8") as file:
            yield path, file.read(_MAX_FILE)
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        yield path, None


@dataclass(frozen=True, slots=True)
class HubAccess:
    """The base URL of the hub's API, and the token for it."""

    endpoint: str
    token: HubToken

    @classmethod
    def find(cls, environment: Mapping[str, str] | None = None) -> HubAccess:
        """Return what the environment says (``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_TOKEN_PATH``, ``HF_HOME``).

        Raises:
            ConnectError: ``HF_HUB_OFFLINE`` is set.
            InvalidNameError: ``HF_ENDPOINT`` is no base URL.
        """
        environment = os.environ if environment is None else environment
        if (environment.get("HF_HUB_OFFLINE") or "").upper() in _TRUE:
            raise ConnectError("the hub is not asked: offline (HF_HUB_OFFLINE)", retryable=False)
        try:
            endpoint = check_base_url(environment.get("HF_ENDPOINT") or ENDPOINT)
        except InvalidNameError as error:
            raise InvalidNameError(f"HF_ENDPOINT: {error}") from None
        return cls(endpoint, find_token(environment))


@dataclass(eq=False, repr=False)
class HubAuthorizer(Authorizer):
    """The token for the hub: shown with each request, and no challenge brings another one."""

    shown: HubToken = HubToken()

    def __post_init__(self) -> None:
        self.token = self.shown.value
        super().__post_init__()

    def after(self, challenge: str, scope: str, rejected: str | None, flow: Flow) -> str | None:
        """Return ``None``: the hub's challenge has no service behind it."""
        return None

    def blame(self, sent: str | None) -> str:
        """Return what to do about a 401."""
        return self.shown.advice if sent is None else f"it refused the token of {self.shown.found}"
