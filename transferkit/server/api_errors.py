"""What the local API answers where it cannot do what it is asked, as Ollama's clients know it."""

from __future__ import annotations

from typing import Any

from transferkit.errors import InvalidNameError, ManifestNotFoundError, RegistryError


class Failure(Exception):
    """A request fails with a status, a code and a message; ``cause`` is for the log alone."""

    def __init__(self, status: int, code: str, message: str, *, cause: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.cause = cause or message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.code, self.message), vars(self)


def bad_request(message: str) -> Failure:
    return Failure(400, "bad_request", message)


def model_not_found() -> Failure:
    return Failure(404, "not_found", "model not found")


def failure_of(error: Exception) -> Failure:
    """Return what a client is told of an error; what is nobody's fault but ours, or a registry's, is in the log."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, InvalidNameError):
        return bad_request(str(error))
    if isinstance(error, ManifestNotFoundError):
        return model_not_found()
    return Failure(500, "internal_error", "internal server error", cause=str(error) or type(error).__name__)


def told(error: Exception, name: str) -> str:
    """Return what a stream says of an error, in the words of Ollama's client."""
    if isinstance(error, ManifestNotFoundError):
        return f'model "{name}" not found'
    if isinstance(error, RegistryError):
        return f"request error {error.url}: {str(error).partition(f' {error.url}: ')[2] or error}"
    return str(error) or type(error).__name__
