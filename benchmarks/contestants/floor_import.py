"""A floor for a first call: the import of ``requests``, and nothing else."""

from __future__ import annotations

from benchmarks.contestants.job import run


def work() -> None:
    import requests  # noqa: F401  # this is what is measured


if __name__ == "__main__":
    run(work)
