"""``requests``, one blob after the other, on one session."""

from __future__ import annotations

import requests

from benchmarks.contestants.job import parse, run
from benchmarks.contestants.plain import move


def main() -> None:
    job = parse()
    session = requests.Session()

    def work() -> None:
        for hexdigest, _ in job.blobs:
            move(session, job, hexdigest)

    run(work)


if __name__ == "__main__":
    main()
