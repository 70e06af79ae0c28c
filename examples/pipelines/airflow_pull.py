"""An Airflow task that pulls a model, and one that reads it. Written for Airflow 3.

Airflow tries a task again that fails. What cannot succeed by that, such as a wrong name
or a missing permission, fails at once: errors know whether it is of use
(``retryable``). A pull that is tried again goes on where it was.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import (
    AirflowFailException,
)  # before 3.2: airflow.exceptions

REFERENCE = "registry.example.com/team/model:v1"


@task(retries=3, retry_delay=timedelta(minutes=5))
def pull_model(reference: str) -> str:
    """Return the path of the model's folder, which all workers of a machine share."""
    # Here: the scheduler parses this file often, and runs none of it.
    import transferkit as tk

    try:
        return str(tk.snapshot(reference))
    except tk.TransferKitError as error:
        reasons = (
            error.failures.values()
            if isinstance(error, tk.IncompleteError)
            else [error]
        )
        if any(reason.retryable for reason in reasons):
            raise
        raise AirflowFailException(f"{reference}: {error}") from error


@task
def list_files(folder: str) -> list[str]:
    """Return the paths of the files of a model."""
    from pathlib import Path

    return sorted(
        str(path.relative_to(folder))
        for path in Path(folder).rglob("*")
        if path.is_file()
    )


@dag(schedule="@daily", start_date=datetime(2025, 1, 1), catchup=False)
def nightly_model(reference: str = REFERENCE):
    list_files(pull_model(reference))


nightly = nightly_model()
