"""Every stack on every GPU it fits: accepted by the API server, placed by the scheduler as the Plan said."""

from __future__ import annotations

from recipe.catalogue import gpu_instance
from tests.cluster.conftest import Placed


def test_every_object_is_accepted_and_every_pod_runs(placed: Placed) -> None:
    waiting = [f"{pod.name}: {pod.why}" for pod in placed.pods if pod.phase != "Running"]
    assert waiting == [], "each of these would have cost the whole deployment"
    assert len(placed.pods) == placed.trial.expected_pods()


def test_gpus_and_efa_add_up_and_are_used_whole(placed: Placed) -> None:
    plan = placed.plan
    if plan.gpu_pool is None:
        assert not any(pod.gpus or pod.efa for pod in placed.pods), "nobody would ever offer them"
        return
    instance = gpu_instance(plan.gpu_pool.instance_type)
    used = {node: {"gpus": 0, "efa": 0} for node in {pod.node for pod in placed.pods if pod.gpus}}
    for pod in placed.pods:
        if pod.gpus:
            used[pod.node]["gpus"] += pod.gpus
            used[pod.node]["efa"] += pod.efa
    assert sum(one["gpus"] for one in used.values()) == plan.gpus
    assert sorted((one["gpus"], one["efa"]) for one in used.values()) == sorted(
        (node.gpus_used, node.efa_used) for node in plan.placement.gpu_nodes
    ), "the scheduler fills the nodes as the Plan counted"
    assert all(one["gpus"] <= instance.gpus and one["efa"] <= instance.efa_devices for one in used.values())


def test_cpu_and_memory_of_the_cpu_pool_add_up(placed: Placed) -> None:
    nodes = placed.plan.placement.cpu_nodes
    said = (sum(node.cpu_millis for node in nodes), sum(node.memory_mib for node in nodes))
    assert placed.trial.asked_of_cpu_pool() == said, "of all nodes: the Plan packs them, the scheduler spreads"


def test_whatever_asks_for_no_gpu_is_on_the_cpu_pool(placed: Placed) -> None:
    elsewhere = [pod.name for pod in placed.pods if not pod.gpus and not placed.trial.on_cpu_pool(pod)]
    assert elsewhere == [], "they would take room on nodes at $55 an hour, or never start"


def test_roles_are_on_the_nodes_the_plan_names(placed: Placed) -> None:
    component = {worker.role: worker.component for worker in placed.plan.workers}
    said = [
        {component[role]: count for role, count in node.workers.items()} for node in placed.plan.placement.gpu_nodes
    ]
    found = placed.trial.roles_by_node()
    assert sorted(map(sorted, (one.items() for one in found))) == sorted(map(sorted, (one.items() for one in said)))
