"""Plans: transfers as values, which are cut into pieces, sent somewhere, and run there."""

from transferkit.registry.plans.planning import plan_download
from transferkit.registry.plans.value import TransferPlan

__all__ = ["TransferPlan", "plan_download"]
