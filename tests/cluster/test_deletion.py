"""Taking a graph away: in the background, with its operator alive or not, and what is left of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops.variants import Variant, each_stack
from recipe.plan import Manifest
from rehearsal.cluster import Cluster, operator
from rehearsal.cluster.api import wait_for
from rehearsal.cluster.trial import Trial, filled
from tests.cluster.conftest import MakeTrial

every_stack = pytest.mark.parametrize("variant", each_stack(), ids=lambda one: one.stack)
# The pod garbage collector alone takes 40 s, and it does the same for every stack.
one_stack = pytest.mark.parametrize("variant", each_stack()[:1], ids=lambda one: one.stack)


@pytest.fixture
def trial(variant: Variant, graphs: Cluster, stage: MakeTrial) -> Iterator[Trial]:
    """The whole stack, every pod running, and the operator's finalizer on the graph."""
    made = stage(variant)
    made.add_nodes()
    made.add_objects()
    made.reconcile(made.graph())
    made.settled(made.expected_pods())
    made.api.patch(made.plan.objects.graph, {"metadata": {"finalizers": [operator.FINALIZER]}})
    yield made
    made.clear()


def graph_pods(trial: Trial) -> list[str]:
    components = {component["name"] for component in trial.plan.objects.graph["spec"]["components"]}
    return [pod.name for pod in trial.pods() if pod.component in components]


def release(trial: Trial) -> None:
    """What a living operator does."""
    trial.api.patch(trial.plan.objects.graph, {"metadata": {"finalizers": None}})


@every_stack
def test_background_deletion_leaves_no_pods_and_what_the_operator_leaves_is_known(trial: Trial) -> None:
    graph = filled(trial.plan.objects.graph)
    assert graph["metadata"]["annotations"]["pulumi.com/deletionPropagationPolicy"] == "background"
    trial.api.delete(graph, "Background")
    release(trial)
    wait_for("the graph to go", lambda: trial.api.read(graph) is None)
    wait_for("its pods to go", lambda: not graph_pods(trial))
    namespace = trial.namespace
    assert trial.api.list("apps/v1", "Deployment", namespace) == []
    ours = {(one["kind"], one["metadata"]["name"]) for one in trial.objects()}
    by_the_server = {("ServiceAccount", "default")}
    found = {
        (kind, one["metadata"]["name"])
        for version, kind in (
            ("v1", "ServiceAccount"),
            ("rbac.authorization.k8s.io/v1", "Role"),
            ("rbac.authorization.k8s.io/v1", "RoleBinding"),
            ("v1", "Service"),
        )
        for one in trial.api.list(version, kind, namespace)
    }
    assert found - ours - by_the_server == set(operator.LEFT_BEHIND), "anything else would be news"
    for claim in trial.plan.objects.claims.values():
        held = trial.api.read(claim)
        assert held is not None
        assert held["status"]["phase"] == "Bound", "claims are not the graph's: weights stay"


@one_stack
def test_without_an_operator_the_graph_hangs_but_its_nodes_can_go(trial: Trial) -> None:
    """Why a stack that owns its cluster does not delete the graph at all: it goes with the cluster."""
    graph = filled(trial.plan.objects.graph)
    trial.api.delete(graph, "Background")
    held = trial.api.read(graph)
    assert held is not None
    assert held["metadata"]["finalizers"] == [operator.FINALIZER], "nobody is there to remove it"
    assert graph_pods(trial), "GPUs would be held by a graph that never goes"
    gpu_pods = [pod for pod in trial.pods() if pod.gpus and pod.node]
    for name in {pod.node for pod in gpu_pods}:
        trial.api.delete({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    still = {pod.name for pod in gpu_pods}
    wait_for("pods to be taken off the nodes that are gone", lambda: not still & {pod.name for pod in trial.pods()}, 90)


@every_stack
def test_claims_are_released_after_their_users(trial: Trial) -> None:
    graph, claims = filled(trial.plan.objects.graph), trial.plan.objects.claims.values()
    mounted = {
        volume["persistentVolumeClaim"]["claimName"]
        for component in graph["spec"]["components"]
        for volume in component["podTemplate"]["spec"].get("volumes", [])
        if "persistentVolumeClaim" in volume
    }
    for claim in claims:
        trial.api.delete(claim)
    for claim in claims:
        if claim["metadata"]["name"] in mounted:
            assert trial.api.read(claim) is not None, "in use"
    for manifest in trial.objects():
        if manifest["kind"] == "Job":
            for job in trial.api.list("batch/v1", "Job", trial.namespace):
                trial.api.delete(job | {"apiVersion": "batch/v1", "kind": "Job"})
    trial.api.delete(graph, "Background")
    release(trial)
    wait_for("every claim to go once nobody uses it", lambda: not any(trial.api.read(claim) for claim in claims))


@one_stack
def test_the_namespace_goes_and_takes_the_rest_along(trial: Trial) -> None:
    namespace: Manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": trial.namespace}}
    trial.api.delete(namespace)
    wait_for("the namespace to wait for the graph's finalizer", lambda: _terminating(trial, namespace))
    release(trial)
    wait_for("the namespace to go", lambda: trial.api.read(namespace) is None, 60)


def _terminating(trial: Trial, namespace: Manifest) -> bool:
    held = trial.api.read(namespace) or {}
    return any(
        condition["type"] == "NamespaceFinalizersRemaining" and condition["status"] == "True"
        for condition in held.get("status", {}).get("conditions", [])
    )
