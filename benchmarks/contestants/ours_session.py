"""This library on a session of the user's, with its adapter mounted there."""

from __future__ import annotations

import requests

import transferkit as tk
from benchmarks.contestants.ours import main


def session() -> requests.Session:
    made = requests.Session()
    adapter = tk.PooledAdapter()
    for scheme in ("http://", "https://"):
        made.mount(scheme, adapter)
    return made


if __name__ == "__main__":
    main(session=session())
