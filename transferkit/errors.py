"""Every exception that transferkit raises, and nothing else.

::

    TransferKitError                    .retryable
    ├── InvalidNameError(ValueError)
    ├── InvalidDigestError(ValueError)
    ├── InvalidDescriptorError(ValueError)
    ├── InvalidManifestError(ValueError)
    ├── InvalidModelError(ValueError)
    ├── InvalidPlanError(ValueError)
    ├── NotFoundError(LookupError)
    │   ├── BlobNotFoundError
    │   └── ManifestNotFoundError
    ├── VerificationError
    │   ├── DigestMismatchError
    │   └── SizeMismatchError
    ├── TransportError
    │   ├── ConnectError                no connection could be made
    │   ├── CertificateError            never retried
    │   ├── ReadError                   the connection broke while reading
    │   ├── WriteError                  the connection broke while sending
    │   ├── TransportTimeout            a time limit of the transport ran out
    │   ├── StalledError                open, but silent
    │   └── SlowError                   far behind its siblings
    ├── ProtocolError                   the peer broke a rule of the protocol
    ├── RegistryError                   .method .url .status .code .message .retry_after
    │   ├── UnauthorizedError
    │   ├── DeniedError
    │   ├── RateLimitedError
    │   └── ServerError
    ├── StorageError(OSError)           never retried
    │   ├── OutOfSpaceError
    │   └── SourceError                 a local file is not there, or not what its digest says
    ├── RetriesExhaustedError           .attempts; of the class of its cause as well
    ├── IncompleteError                 .failures, by digest
    └── CancelledError

Each layer raises only its own family. A message says what happened, where (short digest, host, path) and what the user
can do; it never holds a token, a password or a query string. All of them survive ``pickle`` and ``copy``, with their
attributes and their causes.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any, ClassVar


class TransferKitError(Exception):
    """The root of the tree: ``except TransferKitError`` catches whatever a call of this library raises on purpose.

    Keywords set the attributes that a class names. ``retryable`` says whether the same operation may succeed when it is
    tried again; the retry loop asks nothing else.
    """

    retryable: bool = False
    exit_code: ClassVar[int] = 1
    """What ``transferkit`` ends with on the command line where this ends a command (:doc:`command-line`)."""

    def __init__(self, text: str = "", /, **attributes: Any) -> None:
        super().__init__(text)
        for name, value in attributes.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no {name!r}")
            if value is not None:
                setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self._state()

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show in the place of a traceback; that is still there as ``__traceback__``."""
        return _one_line(self)

    def _state(self) -> dict[str, Any]:
        """Return what a pickle or a copy has besides the message: the attributes, and the cause."""
        cause = kept_cause(self)
        return vars(self) if cause is None else {**vars(self), "__cause__": cause}


def kept_cause(error: BaseException) -> BaseException | None:
    """Return the cause that a pickle of an error has. One of another library is left out: some cannot be pickled."""
    cause = error.__cause__
    is_kept = isinstance(cause, TransferKitError) or type(cause).__module__ == "builtins"
    return cause if is_kept else None


def _one_line(error: BaseException, text: str = "") -> list[str]:
    said = " ".join((text or str(error)).split())
    shown = "".join(char if char.isprintable() else "?" for char in said)
    return [f"{type(error).__name__}: {shown}" if shown else type(error).__name__]


def shown_as(error: BaseException, text: str) -> None:
    """Have IPython and Jupyter show an exception that is not ours, such as an interrupt, as one line of this text."""
    with contextlib.suppress(AttributeError):  # one without attributes of its own
        error._render_traceback_ = functools.partial(_one_line, error, text)  # type: ignore[attr-defined]  # IPython asks for it


class InvalidNameError(TransferKitError, ValueError):
    """A repository, tag or model name is not a name."""

    exit_code = 2


class InvalidDigestError(TransferKitError, ValueError):
    """A text is not a digest; raised before it gets near a path or a URL."""

    exit_code = 2


class InvalidDescriptorError(TransferKitError, ValueError):
    """A blob's size is negative, absurd, or contradicts another entry for the same digest."""


class InvalidManifestError(TransferKitError, ValueError):
    """A manifest does not parse, lacks what it needs, or claims to be two things at once."""


class InvalidModelError(TransferKitError, ValueError):
    """A file of a model is not what its format says, or the files make no model of the format that was asked for."""


class InvalidPlanError(TransferKitError, ValueError):
    """A text is no plan of a transfer, or one of another version, or one that contradicts itself."""


class NotFoundError(TransferKitError, LookupError):
    """What was asked for is not there."""

    exit_code = 3


class BlobNotFoundError(NotFoundError):
    """The registry or the directory has no such blob."""


class ManifestNotFoundError(NotFoundError):
    """The registry has no such tag or manifest."""


class VerificationError(TransferKitError):
    """Bytes arrived, and they are not the bytes that were promised."""

    exit_code = 6


class DigestMismatchError(VerificationError):
    """The content has another digest than the one it was asked for by."""


class SizeMismatchError(VerificationError):
    """The content is longer or shorter than its descriptor says."""


class TransportError(TransferKitError):
    """The network failed, before there was a whole answer."""

    exit_code = 5
    retryable = True


class ConnectError(TransportError):
    """No connection could be made. Final for a host name that does not resolve, else retried."""


class CertificateError(TransportError):
    """The peer's certificate does not verify."""

    retryable = False


class ReadError(TransportError):
    """The connection broke while an answer was read."""


class WriteError(TransportError):
    """The connection broke while a request was sent."""


class TransportTimeout(TransportError):
    """No connection, or no head of an answer, within the time allowed for it."""


class StalledError(TransportError):
    """The connection is open and nothing moves on it."""


class SlowError(TransportError):
    """The connection moves far less than its siblings do."""


class ProtocolError(TransferKitError):
    """The peer broke a rule of the protocol; the message says which peer and how."""


class RegistryError(TransferKitError):
    """The registry answered, and the answer is a refusal.

    ``url`` has neither query nor user name; ``code``, ``message`` and ``detail`` are the registry's own words, cut to a
    bounded length; ``retry_after`` is in seconds, ``None`` where the answer did not say.
    """

    method: str = ""
    url: str = ""
    status: int = 0
    code: str = ""
    message: str = ""
    detail: str = ""
    retry_after: float | None = None


class UnauthorizedError(RegistryError):
    """401: the registry wants credentials, or does not accept the ones it got."""

    exit_code = 4


class DeniedError(RegistryError):
    """403: the credentials are good and the action is not allowed."""

    exit_code = 4


class RateLimitedError(RegistryError):
    """429: too many requests; ``retry_after`` has the registry's wish."""

    exit_code = 5
    retryable = True


class ServerError(RegistryError):
    """5xx: the registry failed."""

    exit_code = 5
    retryable = True


class StorageError(TransferKitError, OSError):
    """The local disk refused; ``errno`` says how. Never retried."""

    errno: int | None = None


class OutOfSpaceError(StorageError):
    """The disk, or the user's quota on it, is full."""

    exit_code = 7


class SourceError(StorageError):
    """A local file that was to be sent is missing, unreadable, or not what its digest and size say."""

    problems: tuple[str, ...] = ()
    """Of a folder: all that cannot be pushed, a sentence each."""


class RetriesExhaustedError(TransferKitError):
    """The last of several attempts failed too; ``__cause__`` is its error, ``attempts`` their number.

    It is of the class of that error as well, and has its attributes: ``except ConnectError`` catches a registry that is
    down, however often it was tried.
    """

    attempts: int = 0

    @classmethod
    def after(cls, attempts: int, error: TransferKitError) -> RetriesExhaustedError:
        """Return what is raised from ``error``, the last of so many attempts'."""
        text = str(error)
        run = " Run" if text.endswith("?") else "; run"
        exhausted = _exhausted(
            type(error), f"gave up after {attempts} attempts: {text}{run} it again later: what is in place stays"
        )
        vars(exhausted).update(vars(error), attempts=attempts, retryable=error.retryable)
        return exhausted

    def __reduce__(self) -> tuple[Any, ...]:
        return _exhausted, (type(self).__bases__[0], *self.args), self._state()


@functools.cache
def _also_exhausted(family: Any) -> type[RetriesExhaustedError]:
    if issubclass(RetriesExhaustedError, family):
        return RetriesExhaustedError
    return type("RetriesExhaustedError", (family, RetriesExhaustedError), {})


def _exhausted(family: Any, *arguments: str) -> RetriesExhaustedError:
    return _also_exhausted(family)(*arguments)


class IncompleteError(TransferKitError):
    """Some blobs failed and the others were moved; ``failures`` maps a digest to its error."""

    exit_code = 8

    def __init__(self, text: str = "", /, *, failures: dict[str, TransferKitError] | None = None) -> None:
        super().__init__(text)
        self.failures: dict[str, TransferKitError] = dict(failures or {})


class CancelledError(TransferKitError):
    """The user's :class:`~transferkit.Cancellation` was triggered; the message has its reason."""

    exit_code = 130
