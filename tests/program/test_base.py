"""A base under mocks, and a stack that takes its foundation from it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pulumi
import pytest

from components.foundation import OUTPUT
from tests.program.conftest import STACK, changed
from tests.program.recorder import BASE, Run, run_base, run_program

ON_BASE = {"foundation": {"kind": "base"}}
IN_NAMESPACE = "namespace"


def with_outputs(outputs: dict[str, Any]) -> Run:
    """STACK where the base's stack has these outputs."""
    return run_program(STACK, changed(**ON_BASE), stacks={BASE: outputs})


# ── the base ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_of_a_base_is_protected(base: Run) -> None:
    """The engine goes on past what is protected and deletes the rest (3.250, stepExecutor.cancelDueToError): one gap is a hole."""
    open_ = [one.name for one in base.resources.values() if not one.protect and one.type != "pulumi:pulumi:Stack"]
    assert open_ == [], "`pulumi destroy` would take it away under the stacks that use it"


def test_nothing_of_a_model_stack_is_protected(model: Run) -> None:
    assert [one.name for one in model.resources.values() if one.protect] == [], "`pulumi destroy` is how the bill ends"


def test_a_base_has_everything_but_a_model(base: Run, run: Run) -> None:
    wanted = ("network", "cluster", "cpu", "files", "platform", "devices", "identity")
    assert {one.name for one in base.components} == set(wanted)
    ours = {one.name for one in run.custom if one.name.split("-")[0] in wanted}
    assert {one.name for one in base.custom} == ours, "the same components make it, whoever uses it"
    assert {one.type for one in base.in_cluster} == {"kubernetes:helm.sh/v3:Release"}


def test_a_base_exports_what_stacks_take(base: Run) -> None:
    found = base.outputs[OUTPUT]
    assert found["agreed"] == base.plan.agreed()
    assert found["accessPoints"] == {purpose: f"files-{purpose}-id" for purpose in ("model", "compilation", "perf")}
    assert (found["fileSystemId"], found["subnetId"], found["securityGroupId"]) == (
        "files-efs-id",
        "network-nodes-id",
        "sg-cluster",
    )
    assert "token" not in json.dumps(json.loads(found["kubeconfig"])["users"][0]["user"].get("token", "")), (
        "an output that is a credential would have to be a secret"
    )


# ── a stack on it ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stack_on_a_base_makes_nodes_and_objects_and_nothing_else(on_base: Run) -> None:
    made = sorted(one.name for one in on_base.custom if one not in on_base.in_cluster)
    assert made == ["cpu-nodes", "cpu-template", "gpu-nodes", "gpu-placement", "gpu-template"], (
        "whatever else it makes the base has already: a second operator would be refused, a second NAT gateway billed"
    )
    assert not on_base.of("kubernetes:helm.sh/v3:Release")


def test_nodes_join_the_bases_cluster(on_base: Run, base: Run) -> None:
    found = base.outputs[OUTPUT]
    for group in on_base.of("aws:eks/nodeGroup:NodeGroup"):
        assert group.inputs["clusterName"] == found["clusterName"]
        assert group.inputs["nodeRoleArn"] == found["nodeRoleArn"]
        assert group.inputs["subnetIds"] == [found["subnetId"]]
    assert on_base.plan.names.gpu_node_group in group_names(on_base)
    assert not group_names(on_base) & group_names(base)


def group_names(run: Run) -> set[str]:
    return {group.inputs["nodeGroupName"] for group in run.of("aws:eks/nodeGroup:NodeGroup")}


def test_every_resource_uses_the_explicit_providers(on_base: Run) -> None:
    aws, kubernetes = on_base.named("aws"), on_base.named("kubernetes")
    for one in on_base.custom:
        wanted = kubernetes if one in on_base.in_cluster else aws
        assert one.provider.startswith(wanted.urn), f"{one.name} would go to whatever account or cluster is the default"


def test_in_a_shared_cluster_nothing_is_adopted(on_base: Run) -> None:
    inputs = on_base.named("kubernetes").inputs
    assert inputs["upsertExistingObjects"] == "false", "an object that is there already is another stack's"
    assert inputs["clusterIdentifier"] == on_base.plan.base.cluster.identifier


def test_the_namespace_is_deleted_and_takes_what_is_in_it_along(on_base: Run) -> None:
    namespace = on_base.named("caches-namespace")
    deleted = {one.name for one in on_base.custom if not one.deleted_with}
    aws = {one.name for one in on_base.custom if one not in on_base.in_cluster}
    volumes = {f"caches-{purpose}-volume" for purpose in ("model", "compilation", "perf")}
    assert deleted == aws | volumes | {"caches-namespace", "caches-class"}, "what has no namespace is deleted itself"
    for one in on_base.in_cluster:
        if IN_NAMESPACE in one.inputs["metadata"]:
            assert one.deleted_with == namespace.urn, (
                f"{one.name}: its finalizer could hold up the release of GPU nodes"
            )


def test_gpu_nodes_go_first_and_the_namespace_before_what_its_pods_need(on_base: Run) -> None:
    """On destroy the order is reversed: what is behind something is deleted after it."""
    gpu, namespace = on_base.behind(on_base.named("gpu-nodes")), on_base.behind(on_base.named("caches-namespace"))
    assert "caches-namespace" in gpu, "GPUs would be paid for while finalizers take their time"
    assert {"caches-model-volume", "caches-compilation-volume", "caches-perf-volume", "cpu-nodes"} <= namespace, (
        "volumes stay bound, and pods without a kubelet stay Terminating, while their claims are there"
    )
    assert "gpu-nodes" not in namespace


def test_gpus_wait_for_what_costs_cents(on_base: Run) -> None:
    behind = on_base.behind(on_base.named("gpu-nodes"))
    assert {"weights-job", "admission-job", "caches-model-claim", "cpu-nodes"} <= behind
    assert {"gpu-nodes", "weights-job"} <= on_base.behind(on_base.named("serving-graph"))


TIED = {
    "aws:ec2/launchTemplate:LaunchTemplate": "name",
    "aws:ec2/placementGroup:PlacementGroup": "name",
    "aws:eks/nodeGroup:NodeGroup": "nodeGroupName",
}


def test_everything_goes_with_the_identity(on_base: Run) -> None:
    value = on_base.only("pulumi:index:Stash")
    assert value.replacement_trigger == on_base.plan.identity
    assert on_base.plan.names.prefix in value.replacement_trigger, "another deployment id is another deployment"
    assert on_base.plan.base.cluster.identifier in value.replacement_trigger, "so is another cluster"
    for one in on_base.custom:
        key = TIED.get(one.type, "metadata")
        assert value.urn in one.property_depends_on[key], f"{one.name} would stay behind when the deployment moves"


def test_providers_that_delete_something_are_not_replaced_with_the_identity(on_base: Run) -> None:
    """The engine closes a provider that is, and then deletes through it."""
    identity = on_base.only("pulumi:index:Stash").urn
    for name in ("aws", "kubernetes"):
        assert not any(identity in urns for urns in on_base.named(name).property_depends_on.values()), name


def test_outputs_name_the_base_and_lead_to_its_cluster(on_base: Run) -> None:
    assert on_base.exports["base"] == BASE
    assert on_base.exports["kubeconfig"].endswith(f"--name {on_base.plan.base.names.cluster}")


def test_another_organization_or_project_can_be_named() -> None:
    raw = changed(foundation={"kind": "base", "reference": "acme/infra/shared"})
    run = run_program(STACK, raw, stacks={"acme/infra/shared": run_base().outputs})
    assert run.exports["base"] == "acme/infra/shared"


# ── a base that is not what was planned with ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("key", "value"),
    [("kubernetes", "1.34"), ("dynamo", "1.5.1"), ("cluster", "dynamo-recipes-base-main-0"), ("region", "x")],
)
def test_a_base_that_runs_otherwise_is_refused_with_both_values(key: str, value: str) -> None:
    outputs = copy.deepcopy(run_base().outputs)
    outputs[OUTPUT]["agreed"][key] = value
    with pytest.raises(pulumi.RunError) as refused:
        with_outputs(outputs)
    ours = run_base().plan.agreed()[key]
    assert f"{key}: runs {value}, planned {ours}" in str(refused.value)
    assert "`pulumi up -s base` first" in str(refused.value)


def test_a_base_that_is_not_up_is_refused_with_the_command() -> None:
    with pytest.raises(pulumi.RunError, match="pulumi up -s base"):
        with_outputs({})


def test_a_base_without_a_file_is_refused_before_anything_is_asked() -> None:
    raw = changed(foundation={"kind": "base", "stack": "nobody"})
    with pytest.raises(pulumi.RunError, match=r"stacks/Pulumi\.nobody\.yaml does not exist"):
        run_program(STACK, raw, stacks={})


def test_a_model_stack_is_no_base() -> None:
    raw = changed(foundation={"kind": "base", "stack": STACK})
    with pytest.raises(pulumi.RunError, match="is the recipe of a model"):
        run_program(STACK, raw, stacks={})
