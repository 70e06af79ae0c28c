"""Errors as those who use files expect them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from transferkit.errors import DeniedError, InvalidNameError, NotFoundError, UnauthorizedError


@contextmanager
def as_file_errors(path: str) -> Iterator[None]:
    """Turn what is not there into FileNotFoundError, and a refusal into PermissionError; ours is the cause.

    What cannot be a name is not there either.
    """
    try:
        yield
    except (NotFoundError, InvalidNameError) as error:
        raise FileNotFoundError(errno.ENOENT, str(error), path) from error
    except (UnauthorizedError, DeniedError) as error:
        raise PermissionError(errno.EACCES, str(error), path) from error


def read_only(path: object) -> OSError:
    """Return what is raised where somebody wants to write."""
    return OSError(errno.EROFS, f"{os.strerror(errno.EROFS)}; push with transferkit.push", str(path))
