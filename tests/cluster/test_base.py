"""Two model stacks on one base at once: nothing collides, nobody's nodes are used by the other, and one goes without the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops import stacks
from ops.planning import planned
from ops.variants import each_stack
from recipe.config import Recipe
from recipe.plan import Manifest, Plan
from recipe.planner import make_plan
from recipe.stack_file import read_base
from rehearsal.cluster import Cluster, operator
from rehearsal.cluster.api import wait_for
from rehearsal.cluster.trial import Trial
from tests.cluster.conftest import MakeTrial

_STACKS = [one.stack for one in each_stack()]
# Each engine beside another one, and a stack beside a second deployment of itself.
PAIRS = [
    ("qwen3-32b-disagg", "qwen3-235b-a22b-fp8-disagg"),
    ("mocker-cpu", "qwen3-32b-fp8-agg"),
    ("qwen3-32b-disagg", "qwen3-32b-disagg"),
]


def on_base(stack: str, name: str, *settings: str) -> Plan:
    """The plan of `stack` on the shipped base, for a stack called `name`."""
    recipe = planned(stack, ["foundation.kind=base", *settings]).recipe
    assert isinstance(recipe, Recipe), "a base is not on a base"
    base = read_base(recipe, stacks.FOLDER)
    return make_plan(name, recipe, placeholders=True, base=base)


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: f"{pair[0]}+{pair[1]}")
def both(request: pytest.FixtureRequest, graphs: Cluster) -> Iterator[tuple[Trial, Trial]]:
    """Both on one cluster, each with its nodes, for the tests of a pair in their order: the last one takes one away."""
    one, other = request.param
    trials = (
        Trial(graphs, on_base(one, f"{one[:30].rstrip('-')}-a")),
        Trial(graphs, on_base(other, f"{other[:30].rstrip('-')}-b", "deployment_id=other")),
    )
    try:
        for trial in trials:
            trial.add_nodes()
        for trial in trials:
            trial.add_objects()
            trial.reconcile(trial.graph())
        yield trials
    finally:
        for trial in trials:
            trial.clear_objects()
        for trial in trials:
            trial.clear_nodes()


def test_two_stacks_on_one_base_run_side_by_side_on_their_own_nodes(both: tuple[Trial, Trial]) -> None:
    used: list[set[str]] = []
    for trial in both:
        pods = trial.settled(trial.expected_pods())
        assert [f"{pod.name}: {pod.why}" for pod in pods if pod.phase != "Running"] == []
        used.append({str(pod.node) for pod in pods})
        assert all(node.startswith(trial.plan.names.prefix) for node in used[-1]), "each on the nodes it pays for"
    assert not used[0] & used[1]


def test_the_caches_of_two_stacks_are_the_same_directories(both: tuple[Trial, Trial]) -> None:
    one, other = (trial.plan.objects.volumes for trial in both)
    for purpose in ("model",):
        assert one[purpose]["spec"]["csi"] == other[purpose]["spec"]["csi"], "weights that one has, the other finds"
        assert one[purpose]["metadata"]["name"] != other[purpose]["metadata"]["name"]


def test_one_stack_goes_and_the_other_does_not_notice(both: tuple[Trial, Trial]) -> None:
    going, staying = both
    for trial in both:
        trial.settled(trial.expected_pods())
    before = {pod.name for pod in staying.pods() if pod.phase == "Running"}
    going.api.patch(going.plan.objects.graph, {"metadata": {"finalizers": [operator.FINALIZER]}})
    namespace: Manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": going.namespace}}
    going.api.delete(namespace)
    going.api.patch(going.plan.objects.graph, {"metadata": {"finalizers": None}})  # the base's operator is alive
    wait_for("the namespace to go with all in it", lambda: going.api.read(namespace) is None, 60)
    for volume in going.plan.objects.volumes.values():
        going.api.delete(volume)
        wait_for("its volumes to go after their claims", lambda volume=volume: going.api.read(volume) is None)  # type: ignore[misc]
    assert {pod.name for pod in staying.pods() if pod.phase == "Running"} == before
    for claim in staying.plan.objects.claims.values():
        held = staying.api.read(claim)
        assert held is not None
        assert held["status"]["phase"] == "Bound"


def test_no_name_of_one_stack_is_a_name_of_another() -> None:
    # One stack once: who refers to a base is in its backend, where a stack's name is unique.
    plans = [on_base(stack, stack) for stack in _STACKS]
    seen: dict[tuple[str, str, str], str] = {}
    for plan in plans:
        for one in plan.objects.all():
            metadata = one["metadata"]
            key = (one["kind"], metadata.get("namespace", ""), metadata["name"])
            assert key not in seen, f"{key} of {plan.stack} is also {seen[key]}'s"
            seen[key] = plan.stack
        for kind in (
            "cpu_node_group",
            "gpu_node_group",
            "cpu_launch_template",
            "gpu_launch_template",
            "placement_group",
        ):
            key = (kind.partition("_")[2], "", getattr(plan.names, kind))
            assert key not in seen, f"{key} of {plan.stack} is also {seen[key]}'s"
            seen[key] = plan.stack


def test_every_stack_on_a_base_is_rendered_for_its_own_nodes(stage: MakeTrial) -> None:
    for stack in _STACKS:
        plan = on_base(stack, stack)
        spec = plan.objects.graph["spec"]["components"]
        for component in spec:
            selector = component["podTemplate"]["spec"]["nodeSelector"]
            assert plan.names.prefix in selector.values(), f"{stack}: {component['name']} would take anybody's node"
