"""The program where it makes no GPU nodes: the mocker, and a pause. What holds for every stack holds here too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from recipe.constants import CPU_POOL, POOL_LABEL, STACK_LABEL
from tests.program import test_contracts as contracts
from tests.program import test_order as order
from tests.program.conftest import STACK, changed
from tests.program.recorder import Run, plain, run_program
from tests.program.test_program import test_what_is_created_is_what_the_plan_shows as created_is_planned

GRAPH = "kubernetes:nvidia.com/v1beta1:DynamoGraphDeployment"
NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"


@pytest.fixture(scope="module")
def mocker() -> Run:
    return run_program("mocker-cpu")


@pytest.fixture(scope="module")
def paused() -> Run:
    return run_program(STACK, changed(hardware={"paused": True}))


@pytest.fixture(scope="module", params=["mocker", "paused"])
def without(request: pytest.FixtureRequest) -> Run:
    found: Run = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize(
    "contract",
    [
        contracts.test_everything_has_a_component_as_parent,
        contracts.test_every_component_registers_its_outputs_once,
        contracts.test_whatever_can_carry_tags_does,
        contracts.test_launch_templates_tag_what_they_start,
        contracts.test_objects_go_with_the_cluster_and_aws_resources_do_not,
        contracts.test_objects_have_fixed_names_and_replacements_delete_first,
        contracts.test_every_resource_uses_the_explicit_providers,
        contracts.test_nodes_are_reached_with_tokens_only_and_disks_are_encrypted,
        contracts.test_components_and_providers_are_all_there_is_beside_custom_resources,
        order.test_the_cluster_outlives_nothing_it_needs,
        order.test_the_download_has_a_disk_a_network_and_a_resolver,
        order.test_the_dry_run_asks_a_live_webhook,
        created_is_planned,
    ],
    ids=lambda contract: contract.__name__.removeprefix("test_"),
)
def test_what_holds_for_every_stack_holds_here(without: Run, contract: Callable[[Run], None]) -> None:
    contract(without)


def test_there_is_one_node_group_and_nothing_of_a_gpu_pool(without: Run) -> None:
    assert [group.name for group in without.of(NODE_GROUP)] == ["cpu-nodes"]
    assert [template.name for template in without.of("aws:ec2/launchTemplate:LaunchTemplate")] == ["cpu-template"]
    assert not without.of("aws:ec2/placementGroup:PlacementGroup")
    assert without.exports["gpus"] == 0


def test_no_component_is_empty(without: Run) -> None:
    parents = {one.parent for one in without.resources.values()}
    assert {one.name for one in without.components if one.urn not in parents} == set(), "a room with nothing in it"


# ── mocker ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_mocker_has_no_device_plugins(mocker: Run) -> None:
    assert [one.name for one in mocker.of("kubernetes:helm.sh/v3:Release")] == ["platform-release"]


def test_every_pod_of_the_mocker_is_bound_to_the_cpu_pool(mocker: Run) -> None:
    labels = mocker.named("cpu-nodes").inputs["labels"]
    graph = mocker.only(GRAPH).inputs["spec"]["components"]
    assert labels == {POOL_LABEL: CPU_POOL, STACK_LABEL: mocker.plan.names.prefix}
    assert [part["podTemplate"]["spec"]["nodeSelector"] for part in graph] == [labels] * 3
    assert not any("tolerations" in part["podTemplate"]["spec"] for part in graph)


def test_the_mockers_graph_waits_for_nodes_weights_platform_and_admission(mocker: Run) -> None:
    behind = mocker.behind(mocker.named("serving-graph"))
    assert {
        "cpu-nodes",
        "cpu-coredns",
        "weights-job",
        "platform-release",
        "admission-job",
        "caches-model-claim",
    } <= behind
    assert "serving-graph" in mocker.behind(mocker.named("serving-ready"))


def test_the_mockers_readiness_answers_for_these_cpu_nodes(mocker: Run) -> None:
    job = mocker.named("serving-ready")
    assert job.inputs["metadata"]["name"].endswith("-5e1f0a9c"), "the id of the node group, as EKS gives it"
    assert job.replacement_trigger == plain(mocker.plan.cpu_pool.model_dump(mode="json"))


def test_the_mocker_warns_of_no_gpus(mocker: Run) -> None:
    assert not any("GPU" in warning for warning in mocker.warnings)


# ── paused ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pause_takes_away_gpu_nodes_graph_and_readiness_and_nothing_else(run: Run, paused: Run) -> None:
    # Without the stack itself, which the SDK registers once per process, with whichever program comes first.
    gone = {one for one in set(run.resources) - set(paused.resources) if "pulumi:pulumi:Stack" not in one}
    assert {urn.rpartition("::")[2].partition("-")[0] for urn in gone} == {"gpu", "serving"}
    assert set(paused.resources) <= set(run.resources), "a pause makes nothing new"


def test_what_stays_is_asked_for_with_the_same_inputs(run: Run, paused: Run) -> None:
    for urn, one in paused.resources.items():
        if one.custom:
            assert one.inputs == run.resources[urn].inputs, f"{one.name}: a pause would touch it"


def test_a_paused_stack_names_no_endpoint_and_says_what_it_costs(run: Run, paused: Run) -> None:
    assert {"endpoint", "portForward"} == set(run.exports) - set(paused.exports), "nothing answers there"
    assert paused.exports["usdPerHour"] < 5 < run.exports["usdPerHour"]
