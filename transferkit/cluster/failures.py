"""The errors of pieces as one: each blob with its reason, and with the worker that it failed on."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from transferkit.errors import IncompleteError, OutOfSpaceError, TransferKitError, kept_cause
from transferkit.registry.plans import TransferPlan


def blobs_of(piece: TransferPlan, error: TransferKitError | None = None) -> Mapping[str, TransferKitError]:
    """Return the digests of what a piece moves, each with why it failed: its own reason, where it has one."""
    if isinstance(error, IncompleteError) and error.failures:
        return error.failures
    reason = error or TransferKitError()
    digests = [blob.digest for blob in piece.blobs] + [part.blob.digest for part in piece.ranges]
    return dict.fromkeys(digests, reason)


def portable(error: TransferKitError) -> TransferKitError:
    """Return an error that was made ready to be sent: with the causes alone that its own pickle has, and no traceback.

    Where Dask is imported, errors are pickled its way, with all that they came from.
    """
    current: BaseException | None = error
    while current is not None:
        current.__traceback__ = current.__context__ = None
        current.__cause__ = kept_cause(current)
        for each in current.failures.values() if isinstance(current, IncompleteError) else ():
            portable(each)
        current = current.__cause__
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


def incomplete(failures: dict[str, TransferKitError], blobs: int) -> TransferKitError:
    """Return one error for all that failed, of so many blobs; a full disk ends a call as what it is."""
    digest, first = next(iter(failures.items()))
    if all(isinstance(reason, OutOfSpaceError) for reason in failures.values()):
        return first
    others = ", the others are in place" if len(failures) < blobs else ""
    subject = "" if digest[:19] in str(first) else f"{digest[:19]}: "
    rest = f" (and {len(failures) - 1} more in .failures)" if len(failures) > 1 else ""
    return IncompleteError(
        f"{len(failures)} of {blobs} blobs failed{others}: {subject}{first}{rest}", failures=failures
    )
