"""A node too few, a CPU pool one size too small: what waits is what the Plan names beforehand."""

from __future__ import annotations

from collections import Counter

import pytest

from ops.variants import Variant, by_hand, each_stack
from recipe.catalogue import cpu_instance, gpu_instance
from recipe.catalogue.instances import CPU_INSTANCES
from recipe.errors import RecipeError
from recipe.placement import waiting_workers
from tests.cluster.conftest import MakeTrial
from tests.recipe.samples import gpu_pool

on_gpus = pytest.mark.parametrize("variant", [one for one in by_hand() if one.gpu], ids=str)
# The mocker's CPU pool is made of the smallest type there is.
every_stack = pytest.mark.parametrize("variant", [one for one in each_stack() if one.gpu], ids=lambda one: one.stack)


@on_gpus
def test_with_one_node_too_few_those_wait_that_the_plan_names(variant: Variant, stage: MakeTrial) -> None:
    trial = stage(variant)
    plan = trial.plan
    pool = gpu_pool(plan)
    recipe, instance = variant.recipe(), gpu_instance(pool.instance_type)
    efa = {worker.role: worker.efa for worker in plan.workers}
    named = waiting_workers(recipe, instance, efa, pool.count - 1)
    try:
        trial.add_nodes(gpu_count=pool.count - 1)
        trial.add_objects(graph=False)
        # The Plan places the largest first, then the role with the fewest; the scheduler takes what comes.
        workers = sorted(plan.workers, key=lambda worker: (-worker.gpus, worker.replicas))
        trial.reconcile(trial.graph(), [worker.component for worker in workers])
        pods = trial.settled(trial.expected_pods())
        waiting = [pod for pod in pods if pod.phase == "Pending"]
        component = {worker.role: worker.component for worker in plan.workers}
        assert Counter(pod.component for pod in waiting) == {component[role]: count for role, count in named.items()}
        short = "nvidia.com/gpu" if pool.count > 1 else "affinity/selector"
        assert all(short in pod.why for pod in waiting), [pod.why for pod in waiting]
    finally:
        trial.clear()


@every_stack
def test_on_a_cpu_pool_one_size_too_small_the_pod_waits_that_the_plan_names(variant: Variant, stage: MakeTrial) -> None:
    smaller, problem = one_size_too_small(variant)
    trial = stage(variant)
    try:
        trial.add_nodes(cpu_type=smaller)
        trial.add_objects(graph=False)
        trial.reconcile(trial.graph())
        waiting = [pod for pod in trial.settled(trial.expected_pods()) if pod.phase == "Pending"]
        assert waiting, f"the Plan says: {problem}"
        # The Plan calls a Job by its purpose and a frontend by component and number.
        unnamed = [pod for pod in waiting if not names(problem, pod.component)]
        assert unnamed == [], f"the Plan names {problem}"
        assert all("Insufficient" in pod.why for pod in waiting)
    finally:
        trial.clear()


def one_size_too_small(variant: Variant) -> tuple[str, str]:
    """The largest CPU type that the planner refuses, and what it says."""
    own = cpu_instance(variant.plan().cpu_pool.instance_type)
    smaller = [row for row in CPU_INSTANCES.values() if row.vcpus <= own.vcpus and row.memory_gib <= own.memory_gib]
    for row in sorted(smaller, key=lambda row: (row.memory_gib, row.vcpus), reverse=True):
        try:
            variant.plan(None, f"hardware.cpu.instance_type={row.name}")
        except RecipeError as error:
            return row.name, " / ".join(str(problem) for problem in error.problems if "cpu" in problem.path)
    pytest.skip(f"{variant.stack} fits the smallest CPU type there is")


def names(problem: str, component: str) -> bool:
    return f"{component} Job" in problem or f"{component}-" in problem
