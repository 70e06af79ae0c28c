"""Plans on executors: threads, processes, and a Dask cluster. Knows who runs which piece, and nothing of how it is run.

Nothing is imported before it is asked for: :mod:`transferkit.cluster.dask` needs the extra ``transferkit[dask]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transferkit.cluster.report import ClusterReport, WorkerRow
    from transferkit.cluster.running import run_plan

__all__ = ["ClusterReport", "WorkerRow", "run_plan"]


def __getattr__(name: str) -> Any:
    if name == "run_plan":
        from transferkit.cluster.running import run_plan

        return run_plan
    if name in ("ClusterReport", "WorkerRow"):
        from transferkit.cluster import report

        return getattr(report, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
