"""Earlier versions of this library, as packages in a folder of their own. Knows the repository, and no contestant."""

from __future__ import annotations

import compileall
import io
import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "transferkit"


class MissingReleaseError(Exception):
    """The repository, or the commit in it, is not there: this is a source distribution, or a shallow clone."""


def unpack(commit: str, folder: Path, *, repository: Path = ROOT) -> None:
    """Write the package as ``commit`` has it into ``folder``.

    Raises:
        MissingReleaseError: there is nothing to take it from.
    """
    # A zip file: what tarfile does with its members differs between versions of Python.
    command = ["git", "-C", str(repository), "archive", "--format=zip", commit, PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        raise MissingReleaseError("git is not installed") from None
    if done.returncode != 0:
        raise MissingReleaseError(f"there is no commit {commit[:7]} here")
    with zipfile.ZipFile(io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder)
    compileall.compile_dir(folder / PACKAGE, quiet=1)  # as what pip installs is
