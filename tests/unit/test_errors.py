"""The exception tree: its shape, its attributes, and its way through pickle."""

from __future__ import annotations

import copy
import copyreg
import importlib
import pickle
import pkgutil
import re
from collections.abc import Callable
from typing import Any

import pytest

import transferkit
from transferkit import errors
from transferkit.errors import (
    BlobNotFoundError,
    CancelledError,
    CertificateError,
    ConnectError,
    DeniedError,
    DigestMismatchError,
    IncompleteError,
    InvalidDescriptorError,
    InvalidDigestError,
    InvalidManifestError,
    InvalidModelError,
    InvalidNameError,
    InvalidPlanError,
    ManifestNotFoundError,
    NotFoundError,
    OutOfSpaceError,
    ProtocolError,
    RateLimitedError,
    ReadError,
    RegistryError,
    RetriesExhaustedError,
    ServerError,
    SizeMismatchError,
    SlowError,
    SourceError,
    StalledError,
    StorageError,
    TransferKitError,
    TransportError,
    TransportTimeout,
    UnauthorizedError,
    VerificationError,
    WriteError,
)

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TransferKitError)]

ANSWER: dict[str, Any] = {
    "method": "GET",
    "url": "https://registry.example.com/v2/",
    "status": 429,
    "code": "TOOMANYREQUESTS",
    "message": "slow down",
    "detail": "a detail",
    "retry_after": 7.5,
}

EXAMPLES: list[TransferKitError] = [
    TransferKitError("the root"),
    TransferKitError("the root, retryable", retryable=True),
    TransferKitError(),
    InvalidNameError("no name"),
    InvalidDigestError("no digest"),
    InvalidDescriptorError("no descriptor"),
    InvalidManifestError("no manifest"),
    InvalidModelError("no model"),
    InvalidPlanError("no plan"),
    NotFoundError("not there"),
    BlobNotFoundError("no blob"),
    ManifestNotFoundError("no manifest"),
    VerificationError("other bytes"),
    DigestMismatchError("another digest", retryable=True),
    SizeMismatchError("another size"),
    TransportError("the network"),
    ConnectError("unknown host", retryable=False),
    CertificateError("expired"),
    ReadError("cut off"),
    WriteError("cut off"),
    TransportTimeout("too late"),
    StalledError("silent"),
    SlowError("slow"),
    ProtocolError("broken contract"),
    RegistryError("refused", **ANSWER),
    UnauthorizedError("who are you", **ANSWER),
    DeniedError("not you", **ANSWER),
    RateLimitedError("not now", **ANSWER, retryable=False),
    ServerError("not at all", **ANSWER),
    StorageError("input/output error", errno=5),
    OutOfSpaceError("disk full", errno=28),
    SourceError("no such file", errno=2),
    RetriesExhaustedError("gave up", attempts=6),
    RetriesExhaustedError(),
    RetriesExhaustedError.after(6, RateLimitedError("not now", **ANSWER)),
    RetriesExhaustedError.after(6, StorageError("full for a while", errno=28, retryable=True)),
    IncompleteError("1 of 2", failures={"sha256:aa": DeniedError("not you", status=403)}),
    CancelledError("the window was closed"),
]


def drawn_tree() -> dict[str, tuple[str, ...]]:
    """Read the bases of each class from the picture in the module's docstring."""
    tree: dict[str, tuple[str, ...]] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)(?:\((\w+)\))?(?:  |$)", line)
        if match is None:
            continue
        lines, name, second = match.groups()
        depth = len(lines) // 4
        branch = [*branch[:depth], name]
        parent = branch[depth - 1] if depth else "Exception"
        tree[name] = (parent, second) if second else (parent,)
    return tree


def attributes(error: TransferKitError) -> dict[str, Any]:
    names = ("retryable", "errno", "attempts", "method", "url", "status", "code", "message", "detail", "retry_after")
    return {name: getattr(error, name) for name in names if hasattr(error, name)}


def failures(error: TransferKitError) -> dict[str, tuple[type, str, dict[str, Any]]]:
    found: dict[str, TransferKitError] = getattr(error, "failures", {})
    return {digest: (type(cause), str(cause), attributes(cause)) for digest, cause in found.items()}


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    real = {kind.__name__: tuple(base.__name__ for base in kind.__bases__) for kind in CLASSES}
    assert drawn_tree() == real
    assert len(real) == 33


def test_every_class_has_an_example_here() -> None:
    assert {type(error) for error in EXAMPLES} >= set(CLASSES)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickle(error: TransferKitError, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert repr(again) == repr(error)
    assert attributes(again) == attributes(error)
    assert failures(again) == failures(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_copy(error: TransferKitError) -> None:
    again = copy.copy(error)
    assert (type(again), str(again), attributes(again)) == (type(error), str(error), attributes(error))


def causes(error: BaseException | None) -> list[tuple[type, str, dict[str, Any]]]:
    found = []
    while error is not None:
        found.append((type(error), str(error), attributes(error) if isinstance(error, TransferKitError) else {}))
        error = error.__cause__
    return found


def caused(error: TransferKitError, cause: BaseException) -> TransferKitError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "deep", "pickle"]
)
def test_an_error_keeps_its_causes(error: TransferKitError, again: Callable[[Any], TransferKitError]) -> None:
    read = caused(ReadError("cut off"), ConnectionResetError(104, "Connection reset by peer"))
    fresh = caused(copy.copy(error), caused(RetriesExhaustedError.after(3, read), read))
    assert len(causes(fresh)) == 4
    assert causes(again(fresh)) == causes(fresh)


def test_the_causes_of_each_failure_are_kept() -> None:
    failure = caused(RetriesExhaustedError.after(6, ServerError("no", **ANSWER)), ServerError("no", **ANSWER))
    again = pickle.loads(pickle.dumps(IncompleteError("1 of 2", failures={"sha256:aa": failure})))
    assert causes(again.failures["sha256:aa"]) == causes(failure)


def test_a_cause_that_cannot_be_pickled_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where Dask was imported, errors are pickled its way, with all of their causes.
    monkeypatch.delitem(copyreg.dispatch_table, ReadError, raising=False)

    class Foreign(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("a socket is in here")

    again = pickle.loads(pickle.dumps(caused(ReadError("cut off"), Foreign())))
    assert (str(again), again.__cause__) == ("cut off", None)


def every_exception() -> list[type[Exception]]:
    found: set[type[Exception]] = set()
    for module in pkgutil.walk_packages(transferkit.__path__, "transferkit."):
        # The plugin is for pytest to import, which rewrites its assertions.
        if module.name not in ("transferkit.__main__", "transferkit.testing.plugin"):
            found.update(kind for kind in vars(importlib.import_module(module.name)).values() if is_ours(kind))
    return sorted(found, key=lambda kind: kind.__name__)


def is_ours(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__.startswith("transferkit.")


@pytest.mark.parametrize("kind", every_exception(), ids=lambda kind: kind.__name__)
def test_every_exception_of_every_module_survives_pickle_and_copy(kind: type[Exception]) -> None:
    told = 418, "TEAPOT", "short and stout"
    arguments: dict[str, Any] = {"Refusal": told, "Failure": told}
    error = kind(*arguments.get(kind.__name__, ("the message",)))
    error.args = error.args or ("the message",)
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(again), again.args, vars(again)) == (kind, error.args, vars(error))


def test_an_attribute_set_later_survives_pickle() -> None:
    error = DigestMismatchError("another digest")
    error.retryable = True
    vars(error)["__notes__"] = ["while fetching a layer"]
    again = pickle.loads(pickle.dumps(error))
    assert again.retryable is True
    assert again.__notes__ == ["while fetching a layer"]


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (InvalidNameError, ValueError),
        (InvalidDigestError, ValueError),
        (InvalidDescriptorError, ValueError),
        (InvalidManifestError, ValueError),
        (InvalidModelError, ValueError),
        (InvalidPlanError, ValueError),
        (NotFoundError, LookupError),
        (BlobNotFoundError, LookupError),
        (ManifestNotFoundError, LookupError),
        (StorageError, OSError),
        (OutOfSpaceError, OSError),
        (SourceError, OSError),
    ],
)
def test_a_builtin_except_clause_catches_it_too(kind: type[TransferKitError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="the message"):
        raise kind("the message")


def test_only_what_may_succeed_later_is_retryable() -> None:
    assert {kind.__name__ for kind in CLASSES if kind.retryable} == {
        "TransportError",
        "ConnectError",
        "ReadError",
        "WriteError",
        "TransportTimeout",
        "StalledError",
        "SlowError",
        "RateLimitedError",
        "ServerError",
    }


def test_retryable_of_one_error_is_not_that_of_its_class() -> None:
    assert ConnectError("unknown host", retryable=False).retryable is False
    assert ConnectError("refused").retryable is True


def test_attributes_of_a_refusal_are_as_given() -> None:
    error = RateLimitedError("not now", **ANSWER)
    assert str(error) == "not now"
    assert attributes(error) == {**ANSWER, "retryable": True}


def test_attributes_of_an_empty_refusal_have_harmless_values() -> None:
    error = RegistryError()
    assert str(error) == ""
    assert attributes(error) == {
        "retryable": False,
        "method": "",
        "url": "",
        "status": 0,
        "code": "",
        "message": "",
        "detail": "",
        "retry_after": None,
    }


def test_a_storage_error_has_its_errno_and_prints_its_message_alone() -> None:
    error = OutOfSpaceError("the disk is full", errno=28)
    assert error.errno == 28
    assert str(error) == "the disk is full"
    assert StorageError("unknown").errno is None


def test_failures_are_a_copy_of_what_was_given() -> None:
    given: dict[str, TransferKitError] = {"sha256:aa": ReadError("cut off")}
    error = IncompleteError("1 of 2", failures=given)
    given.clear()
    assert list(error.failures) == ["sha256:aa"]
    assert IncompleteError().failures == {}


def test_an_attribute_that_a_class_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="ConnectError has no 'status'"):
        ConnectError("refused", status=500)


@pytest.mark.parametrize("error", [RateLimitedError("not now", **ANSWER), ConnectError("down"), TransferKitError("no")])
def test_giving_up_is_of_the_family_of_the_last_error_and_has_its_attributes(error: TransferKitError) -> None:
    exhausted = RetriesExhaustedError.after(6, error)
    assert isinstance(exhausted, RetriesExhaustedError)
    assert isinstance(exhausted, type(error))
    assert type(exhausted).__name__ == "RetriesExhaustedError"
    assert str(exhausted) == f"gave up after 6 attempts: {error}; run it again later: what is in place stays"
    assert attributes(exhausted) == {**attributes(error), "attempts": 6}
    assert type(RetriesExhaustedError.after(2, exhausted)).__name__ == "RetriesExhaustedError"


def test_attempts_default_to_none_made() -> None:
    assert RetriesExhaustedError().attempts == 0
