"""This library in four processes, which the call begins itself."""

from __future__ import annotations

from benchmarks.contestants.ours import main

if __name__ == "__main__":  # the processes are spawned, and import this
    main(processes=4)
