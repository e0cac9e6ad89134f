"""No public door, nothing unencrypted, no wildcard, no privileged pod, no GPU without an end: of every stack, on every kind of capacity."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ops.variants import Variant, each_stack
from recipe import policy
from recipe.config import parse
from recipe.errors import RecipeError
from recipe.planner import make_plan
from recipe.policy import RULES, Registered, Violation, check_resources, every_violation
from tests.program.recorder import STACKS, Run, recipe_of, run_program
from tests.recipe.samples import raw

ADMINS = "access.admin_principals=[arn:aws:iam::111122223333:role/ops]"
PRIVILEGED = "serving.kv_transfer.privileged=true"
LUSTRE = "storage.model={kind: fsx-lustre, size_gib: 1200, throughput_mb_per_tib: 125}"
RESERVED = "hardware.capacity={kind: capacity-block, reservation_id: cr-0123456789abcdef0}"


def registered(run: Run) -> list[Registered]:
    return [(one.type, one.name, one.inputs) for one in run.custom]


def run(variant: Variant, *settings: str) -> Run:
    return run_program(variant.stack, variant.changed(*settings))


@pytest.fixture(scope="module")
def runs() -> dict[str, list[Registered]]:
    """Every stack, a base, and one stack with every door the recipe has."""
    found = {str(variant): registered(run(variant)) for variant in each_stack()}
    found |= {name: registered(run_program(name)) for name in STACKS if recipe_of(name).get("kind") == "base"}
    disagg = next(variant for variant in each_stack() if variant.stack == "qwen3-32b-disagg")
    found["all doors"] = registered(run(disagg, ADMINS, PRIVILEGED))
    found["lustre"] = registered(run(disagg, LUSTRE))
    found["block"] = registered(run(disagg, RESERVED))
    return found


@pytest.fixture(scope="module")
def whole(runs: dict[str, list[Registered]]) -> list[Registered]:
    return runs["all doors"]


def test_no_stack_breaks_a_rule_that_no_exception_covers(runs: dict[str, list[Registered]]) -> None:
    broken = {name: [str(one) for one in check_resources(found)] for name, found in runs.items()}
    assert {name: found for name, found in broken.items() if found} == {}


def test_every_exception_is_needed_and_says_why(runs: dict[str, list[Registered]]) -> None:
    seen = [one for found in runs.values() for one in every_violation(found)]
    unused = [
        f"{one.rule} {one.where} {one.value}"
        for one in policy.EXCEPTIONS
        if not any(one.covers(violation) for violation in seen)
    ]
    assert unused == [], "an exception that nothing needs is a door for later"
    assert all(len(one.reason) > 15 for one in policy.EXCEPTIONS)


def test_the_privileges_of_workers_are_asked_for_in_the_recipe(runs: dict[str, list[Registered]]) -> None:
    def rules(name: str) -> set[str]:
        return {one.rule for one in every_violation(runs[name]) if one.rule.startswith("pod-")}

    assert rules("all doors") == {"pod-capability", "pod-privileged", "pod-root"}
    assert "pod-privileged" not in rules("block"), "only with serving.kv_transfer.privileged"


# ── each rule says no

TEMPLATE, GROUP, CLUSTER = (
    "aws:ec2/launchTemplate:LaunchTemplate",
    "aws:eks/nodeGroup:NodeGroup",
    "aws:eks/cluster:Cluster",
)
TRUST = {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}]}
WIDE = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::mine"}]}
BAD: list[tuple[str, str, Any, str]] = [
    # type, path in the inputs, value, rule
    (TEMPLATE, "metadataOptions.httpTokens", "optional", "imds"),
    (TEMPLATE, "metadataOptions", None, "imds"),
    (TEMPLATE, "metadataOptions.httpPutResponseHopLimit", 3, "imds"),
    (TEMPLATE, "blockDeviceMappings.0.ebs.encrypted", "false", "encryption"),
    (TEMPLATE, "blockDeviceMappings.0.ebs.encrypted", None, "encryption"),
    (TEMPLATE, "blockDeviceMappings", None, "encryption"),
    (TEMPLATE, "tagSpecifications.0.tags.ttl-hours", None, "tags"),
    (TEMPLATE, "networkInterfaces.0.associatePublicIpAddress", "true", "public"),
    (GROUP, "tags.owner", None, "tags"),
    (GROUP, "tags.ttl-hours", "for ever", "gpu-without-end"),
    (GROUP, "remoteAccess", {"ec2SshKey": "k"}, "public"),
    (CLUSTER, "vpcConfig.publicAccessCidrs", [], "public"),
    (CLUSTER, "vpcConfig.publicAccessCidrs", ["0.0.0.0/0"], "public"),
    (CLUSTER, "vpcConfig.publicAccessCidrs", ["0.0.0.0/1", "128.0.0.0/1"], "public"),
    (CLUSTER, "vpcConfig.endpointPrivateAccess", False, "public"),
    (CLUSTER, "enabledClusterLogTypes", ["api"], "audit"),
    (CLUSTER, "version", "1.27", "encryption"),
    ("aws:efs/fileSystem:FileSystem", "encrypted", None, "encryption"),
    ("aws:ec2/subnet:Subnet", "mapPublicIpOnLaunch", True, "public"),
    ("aws:ec2/securityGroup:SecurityGroup", "ingress", [{"cidrBlocks": ["0.0.0.0/0"]}], "public"),
    ("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "cidrIpv4", "0.0.0.0/0", "public"),
    ("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "cidrIpv6", "::/0", "public"),
    ("aws:iam/role:Role", "assumeRolePolicy", json.dumps(TRUST), "iam-trust"),
    ("aws:iam/role:Role", "inlinePolicies", [{"policy": "{}"}], "iam-policy"),
    ("aws:iam/rolePolicyAttachment:RolePolicyAttachment", "policyArn", "arn:aws:iam::aws:policy/AdministratorAccess", "iam-policy"),
    ("aws:ec2/vpcEndpoint:VpcEndpoint", "policy", json.dumps(WIDE), "iam-wildcard"),
    ("aws:ec2/natGateway:NatGateway", "tags", {}, "tags"),
    ("kubernetes:batch/v1:Job", "spec.template.spec.hostNetwork", True, "pod-host"),
    ("kubernetes:batch/v1:Job", "spec.template.spec.volumes.0.hostPath", {"path": "/"}, "pod-host"),
    ("kubernetes:batch/v1:Job", "spec.template.spec.containers.0.securityContext.privileged", True, "pod-privileged"),
    ("kubernetes:batch/v1:Job", "spec.template.spec.securityContext.runAsUser", 0, "pod-root"),
    ("kubernetes:batch/v1:Job", "spec.template.spec.containers.0.securityContext.capabilities.add", ["SYS_ADMIN"], "pod-capability"),
    ("kubernetes:nvidia.com/v1beta1:DynamoGraphDeployment", "spec.components.1.podTemplate.spec.hostIPC", True, "pod-host"),
    ("kubernetes:rbac.authorization.k8s.io/v1:Role", "rules.0.verbs", ["*"], "rbac"),
    ("kubernetes:helm.sh/v3:Release", "chart", "somebodys-chart", "chart"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("typ", "path", "value", "rule"), BAD, ids=[f"{b[0].rpartition(':')[2]} {b[1]} {b[2]}"[:70] for b in BAD]
)
def test_each_rule_says_no(whole: list[Registered], typ: str, path: str, value: Any, rule: str) -> None:
    found = next(one for one in reversed(whole) if one[0] == typ)
    bad = copy.deepcopy(dict(found[2]))
    *parents, last = path.split(".")
    place: Any = bad
    for step in parents:
        place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    assert rule in {one.rule for one in check_resources([(typ, found[1], bad)])}
    assert check_resources([found]) == [], "and without the change it says yes"


def test_inline_policies_are_read(whole: list[Registered]) -> None:
    anything = {"Statement": {"Effect": "Allow", "Action": ["ec2:Describe*"], "Resource": "*"}}
    found = check_resources([("aws:iam/rolePolicy:RolePolicy", "x", {"policy": json.dumps(anything)})])
    assert sorted(one.value for one in found) == ["Action ec2:Describe*", "Resource *"]
    denied = {"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}
    assert check_resources([("aws:iam/policy:Policy", "x", {"policy": denied})]) == []


def test_a_type_nobody_has_looked_at_is_a_violation() -> None:
    (found,) = check_resources([("aws:s3/bucket:Bucket", "mine", {})])
    assert found.rule == "unknown-type"


def test_whole_cluster_permissions_and_load_balancers_are_none_of_ours() -> None:
    binding = ("kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding", "x", {"kind": "ClusterRoleBinding"})
    service = ("kubernetes:core/v1:Service", "x", {"kind": "Service", "spec": {"type": "LoadBalancer"}})
    assert [one.rule for one in check_resources([binding, service])] == ["rbac", "public"]


def test_an_exception_covers_its_own_place_only() -> None:
    elsewhere = Violation("pod-privileged", "weights-job", "privileged", "")
    assert policy.allowed_out([elsewhere]) == [elsewhere]


def test_every_type_of_the_rules_is_one_the_program_or_the_cloud_knows() -> None:
    assert all(typ.startswith("aws:") and typ.count(":") == 2 for typ in RULES)


# ── what a plan refuses


def refused(**changes: Any) -> str:
    recipe = raw()
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = recipe
        for key in parents:
            place = place.setdefault(key, {})
        if value is None:
            place.pop(last)
        else:
            place[last] = value
    with pytest.raises(RecipeError) as error:
        make_plan("qwen3-32b-disagg", parse(recipe), placeholders=True)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": None}, "budget"),
        ({"budget__usd_per_hour": None}, "budget.usd_per_hour: required"),
        ({"budget__ttl_hours": None}, "budget.ttl_hours: required"),
        ({"budget__usd_per_hour": 0}, "budget.usd_per_hour"),
        ({"budget__ttl_hours": 0}, "budget.ttl_hours"),
        ({"budget__usd_per_hour": 100}, "costs $113"),
        ({"access__endpoint_cidrs": ["0.0.0.0/0"]}, "access.endpoint_cidrs"),
        ({"access__endpoint_cidrs": ["2.0.0.0/7"]}, "wider than a /8"),
        ({"access__endpoint_cidrs": ["0.0.0.0/1", "128.0.0.0/1"]}, "access.endpoint_cidrs"),
    ],
)
def test_a_plan_is_refused_without_an_end_or_with_an_open_door(changes: dict[str, Any], words: str) -> None:
    assert words in refused(**changes)


def test_a_plan_with_a_privileged_pod_that_nobody_gave_a_reason_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tuple(one for one in policy.EXCEPTIONS if one.rule != "pod-privileged")
    monkeypatch.setattr(policy, "EXCEPTIONS", kept)
    assert "no privileged pod without its reason" in refused(serving__kv_transfer={"privileged": True})
