"""This library with ``durable=True``: each blob is on the disk before it has its name."""

from __future__ import annotations

import transferkit as tk
from benchmarks.contestants.ours import main

if __name__ == "__main__":
    main(options=tk.TransferOptions(durable=True))
