"""A Prefect flow that pulls a model in one task and reads it in another.

Run it with ``python prefect_pull.py NAME``. Prefect tries a task again that fails;
errors know whether it is of use (``retryable``). A pull that is tried again goes on
where it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

from prefect import flow, task

import transferkit as tk


def is_worth_it(task, run, state) -> bool:
    """Tell whether a failed task may succeed when it is tried again."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, tk.IncompleteError):
        return any(each.retryable for each in error.failures.values())
    return isinstance(error, tk.TransferKitError) and error.retryable


@task(retries=3, retry_delay_seconds=60, retry_condition_fn=is_worth_it)
def pull_model(reference: str) -> Path:
    """Return the path of the model's folder, which all workers of a machine share."""
    return tk.snapshot(reference)


@task
def list_files(folder: Path) -> list[str]:
    """Return the paths of the files of a model."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


@flow
def nightly_model(reference: str) -> list[str]:
    return list_files(pull_model(reference))


if __name__ == "__main__":
    print(nightly_model(sys.argv[1]))
