"""The errors of pieces as one: each blob with its reason, and with the worker that it failed on."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping

from transferkit.errors import IncompleteError, TransferKitError
from transferkit.registry.plans import TransferPlan


def blobs_of(piece: TransferPlan, error: TransferKitError | None = None) -> Mapping[str, TransferKitError]:
    """Return the digests of what a piece moves, each with why it failed: its own reason, where it has one."""
    if isinstance(error, IncompleteError) and error.failures:
        return error.failures
    reason = error or TransferKitError()
    digests = [blob.digest for blob in piece.blobs] + [part.blob.digest for part in piece.ranges]
    return dict.fromkeys(digests, reason)


def portable(error: TransferKitError) -> TransferKitError:
    """Return an error that was made ready to be sent: without tracebacks, and without causes that cannot be pickled.

    Where Dask is imported, errors are pickled with their causes.
    """
    error.__traceback__ = None
    for name in ("__cause__", "__context__"):
        try:
            pickle.dumps(getattr(error, name))
        except Exception:  # noqa: BLE001 - whatever its own pickling raises
            setattr(error, name, None)
    if isinstance(error, IncompleteError):
        for each in error.failures.values():
            portable(each)
    return error


def on_worker(error: TransferKitError, worker: str) -> TransferKitError:
    """Return an error that says where it happened.

    >>> print(on_worker(TransferKitError("the disk is full"), "process 12"))
    the disk is full (process 12)
    """
    text = str(error)
    if worker in text:
        return error
    said = copy.copy(error)
    said.args = (f"{text} ({worker})",)
    return said


def incomplete(failures: dict[str, TransferKitError], blobs: int) -> IncompleteError:
    """Return one error for all that failed, of so many blobs."""
    digest, first = next(iter(failures.items()))
    others = ", the others are in place" if len(failures) < blobs else ""
    subject = "" if digest[:19] in str(first) else f"{digest[:19]}: "
    rest = f" (and {len(failures) - 1} more in .failures)" if len(failures) > 1 else ""
    return IncompleteError(
        f"{len(failures)} of {blobs} blobs failed{others}: {subject}{first}{rest}", failures=failures
    )
