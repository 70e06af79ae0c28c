"""The JSON body of a request to the local API, read as Ollama's server reads it: bounded, and by its first value.

Source: Go's ``encoding/json``, whose words about what is malformed its clients show to people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from transferkit.server.api_errors import Failure, bad_request

LIMIT = 1024 * 1024  # bytes; a request names a model
_BLANKS = " \t\r\n"
_BEGINS = '{["-tfn0123456789'


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for; ``fields`` has lower-case names."""

    fields: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The name of the model; ``name`` is the older key for it."""
        return self._text("model") or self._text("name")

    @property
    def stream(self) -> bool:
        return self._flag("stream", default=True)

    def _text(self, key: str) -> str:
        value = self.fields.get(key)
        if value is not None and not isinstance(value, str):
            raise bad_request(f"the field {key} is a text, not {_kind(value)}")
        return value or ""

    def _flag(self, key: str, *, default: bool) -> bool:
        value = self.fields.get(key)
        if value is not None and not isinstance(value, bool):
            raise bad_request(f"the field {key} is true or false, not {_kind(value)}")
        return default if value is None else value


def read_json(body: IO[bytes]) -> Asked:
    """Read a request. Failure: it cannot be read, ends early, comes too slowly, is empty, or is no JSON object."""
    try:
        raw = body.read(LIMIT + 1)
    except ConnectionAbortedError as error:  # the client's doing, and so is the next one: no error of ours in the log
        raise bad_request(str(error) or "the request body ended early") from error
    except TimeoutError as error:
        raise Failure(408, "request_timeout", "the request body did not go on in time") from error
    except OSError as error:
        raise Failure(500, "internal_error", "internal server error", cause=str(error)) from error
    if len(raw) > LIMIT:
        raise bad_request(f"the request body has more than {LIMIT} bytes")
    if not raw:
        raise bad_request("empty request body")
    return Asked(parse(raw.decode("utf-8", "replace")))


def parse(text: str) -> dict[str, Any]:
    """Return the first value in a text, with its keys in lower case; what follows it is not looked at."""
    text = text.lstrip(_BLANKS)
    if not text:
        raise bad_request("unexpected end of JSON input")
    if text[0] not in _BEGINS:
        raise bad_request(f"invalid character {_shown(text[0])} looking for beginning of value")
    try:
        value, _ = json.JSONDecoder(parse_constant=_no_constant).raw_decode(text)
    except json.JSONDecodeError as error:
        at = text[error.pos : error.pos + 1]
        if not at.strip(_BLANKS) or error.msg.startswith("Unterminated"):
            raise bad_request("unexpected end of JSON input") from error
        raise bad_request(f"invalid character {_shown(at)} in the request body: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the request body is not JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise bad_request(f"the request body is a JSON object, not {_kind(value)}")
    return {key.lower(): field for key, field in value.items()}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _shown(character: str) -> str:
    return f"'{character}'" if character.isprintable() else repr(character)


def _kind(value: object) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "an array"}
    return "null" if value is None else names.get(type(value), "an object")
