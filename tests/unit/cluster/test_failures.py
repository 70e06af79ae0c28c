"""Errors on their way from a worker: with Dask imported, which pickles causes too."""

from __future__ import annotations

import pickle
import threading

import pytest

import transferkit as tk
from transferkit.cluster.failures import incomplete, portable


def failed(cause: Exception, name: str) -> tk.TransferKitError:
    try:
        try:
            raise cause
        except Exception as error:
            if name == "__cause__":
                raise tk.ReadError("the connection broke") from error
            raise tk.ReadError("the connection broke")  # noqa: B904 - a context, and no cause
    except tk.TransferKitError as error:
        return error


class Holding(Exception):
    """What holds a lock, as errors that refer to a connection do."""

    def __init__(self) -> None:
        super().__init__("reset")
        self.lock = threading.Lock()


@pytest.mark.parametrize("name", ["__cause__", "__context__"])
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_cause_that_cannot_be_pickled_does_not_keep_the_error_from_coming_back(name, is_nested):
    import distributed  # noqa: F401 - from then on errors are pickled with their causes

    error = failed(Holding(), name)
    if is_nested:
        error = tk.IncompleteError("1 of 1 blobs failed", failures={"a": error})
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(error)

    back = pickle.loads(pickle.dumps(portable(error)))
    assert "the connection broke" == str(back.failures["a"] if is_nested else back)


def test_what_a_cause_came_from_does_not_keep_it_from_coming_back_either():
    import distributed  # noqa: F401

    cause = OSError(5, "no")
    cause.__context__ = Holding()
    back = pickle.loads(pickle.dumps(portable(failed(cause, "__cause__"))))
    assert 5 == back.__cause__.errno


def test_a_cause_that_can_be_pickled_stays():
    import distributed  # noqa: F401

    back = pickle.loads(pickle.dumps(portable(failed(OSError(5, "no"), "__cause__"))))
    assert (5, None) == (back.__cause__.errno, back.__traceback__)


def test_a_full_disk_is_told_as_what_it_is():
    full, gone = tk.OutOfSpaceError("no room"), tk.BlobNotFoundError("no such blob")
    assert incomplete({"sha256:1": full, "sha256:2": full}, 3) is full
    error = incomplete({"sha256:1": full, "sha256:2": gone}, 3)
    assert (tk.IncompleteError, {"sha256:1": full, "sha256:2": gone}) == (type(error), error.failures)
