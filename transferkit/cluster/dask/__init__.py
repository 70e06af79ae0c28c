"""Plans on a cluster of Dask: one shared store, every machine, or many repositories. Needs ``transferkit[dask]``.

Where pieces run, and how often what was lost with a worker is run again, is decided by Dask. Nothing here talks between
machines but by Dask, and by the registry that a machine is for others in a tree.
"""

from __future__ import annotations

from transferkit.cluster.dask.fanning import fan_out
from transferkit.cluster.dask.mirroring import mirror
from transferkit.cluster.dask.pool import pool_of
from transferkit.cluster.dask.spreading import spread

__all__ = ["fan_out", "mirror", "pool_of", "spread"]
