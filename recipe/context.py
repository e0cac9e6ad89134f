"""What the manifests are made from: the recipe and what the planner decided before."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.catalogue import DynamoVersions, GpuInstance, Model
from recipe.config import Recipe
from recipe.constants import CPU_POOL, POOL_LABEL, STACK_LABEL
from recipe.plan import ClaimPlan, Names, StoragePlan, WorkerPlan


@dataclass(frozen=True)
class RenderContext:
    """Input of `recipe.objects.build_objects`."""

    stack: str
    recipe: Recipe
    names: Names
    labels: dict[str, str]
    """On every object and every pod."""
    model: Model
    gpu: GpuInstance | None
    """None for an engine without GPUs."""
    revision: str
    snapshot_path: str
    versions: DynamoVersions
    workers: tuple[WorkerPlan, ...]
    storage: StoragePlan

    @property
    def cpu_selector(self) -> dict[str, str]:
        """Labels of the CPU nodes this stack's pods run on: its own, also where the cluster is shared."""
        return {POOL_LABEL: CPU_POOL, STACK_LABEL: self.names.prefix}

    def claim(self, purpose: str) -> ClaimPlan:
        """The cache for `purpose`: model, compilation or perf."""
        return next(claim for claim in self.storage.claims if claim.purpose == purpose)
