"""What the program would send to AWS, for every stack, GPU and kind of capacity, against independent descriptions of AWS.

botocore's API models (names, types, required, enums, patterns, maxima), cfn-lint's CloudFormation schemas, and rules of our own for
what both leave open. Each of the three is shown to say no. What none of them covers stands in docs/unverified.md.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, get_args

import pytest

from ops.variants import Variant, by_hand
from recipe import catalogue, config
from tests.outside.aws_mapping import (
    ROWS,
    Template,
    api_calls,
    aws_resources,
    calls_of,
    example,
    formation_properties,
    resolved,
)
from tests.outside.aws_rules import broken_rules
from tests.outside.tools import ask
from tests.program.recorder import Run, run_program

RESERVED = "reservation_id: cr-0123456789abcdef0"
CAPACITIES: Final = {
    "on-demand": "hardware.capacity={kind: on-demand}",
    "spot": "hardware.capacity={kind: spot, accept_interruption: true}",
    "odcr": f"hardware.capacity={{kind: odcr, {RESERVED}}}",
    "capacity-block": f"hardware.capacity={{kind: capacity-block, {RESERVED}}}",
}
RESERVING: Final = {kind for kind, setting in CAPACITIES.items() if RESERVED in setting}
ADMINS = "access.admin_principals=[arn:aws:iam::111122223333:role/ops, arn:aws:iam::111122223333:user/me]"
REGION = "us-east-2"
# In two parts, so that scanners for secrets stay quiet.
TOKEN = "hf_" + "abcdefghijklmnopqrstuvwxyz012345"


def run(variant: Variant, *settings: str) -> Run:
    return run_program(variant.stack, variant.changed(*settings), secrets={"hfToken": TOKEN})


def asked_for() -> Iterator[tuple[str, Variant, tuple[str, ...]]]:
    """Everything to look at: a label, a variant and settings."""
    for variant in by_hand():
        if variant.gpu is None:
            yield str(variant), variant, ()
            continue
        for kind, setting in CAPACITIES.items():
            # A reservation is for one type; otherwise the GPU's default type will do.
            types = (
                catalogue.gpu_instances(variant.gpu) if kind in RESERVING else catalogue.gpu_instances(variant.gpu)[:1]
            )
            for instance in types:
                yield f"{variant} {kind} {instance.name}", variant, (setting, f"hardware.instance_type={instance.name}")
    first = {variant.gpu: variant for variant in reversed(by_hand()) if variant.gpu}
    for instance in catalogue.GPU_INSTANCES.values():
        for layout in ("device0", "device1"):
            settings = (f"hardware.instance_type={instance.name}", f"hardware.nic_layout={layout}")
            if instance.gpu in first:
                yield f"{instance.name} {layout}", first[instance.gpu], settings
    some = next(iter(first.values()))
    yield "admins and a token", some, (ADMINS, "weights.token=true")
    for region in catalogue.REGIONS:
        yield region, some, (f"access.region={region}", "access.zone_id=")


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    """Every run by its label."""
    return {label: run(variant, *settings) for label, variant, settings in asked_for()}


@cache
def good() -> Run:
    """The run that the bad inputs below are made from."""
    variant = next(one for one in by_hand() if one.gpu == "h100")
    return run(variant, CAPACITIES["capacity-block"], ADMINS)


def cfn_lint(template: Template) -> list[dict[str, str]]:
    """Its findings, without E3019: one name in several resources is ours, who put several stacks into one template."""
    found: list[dict[str, str]] = ask("template", {"template": template.document(), "regions": [REGION]})
    return [match for match in found if match["rule"] != "E3019"]


def test_every_kind_of_capacity_of_the_schema_is_here() -> None:
    union = get_args(config.Hardware.model_fields["capacity"].annotation)
    kinds = {get_args(one.model_fields["kind"].annotation)[0] for one in union}
    assert kinds == set(CAPACITIES), "a new kind of capacity has to be looked at too"


def test_every_aws_type_of_the_program_has_a_row(runs: dict[str, Run]) -> None:
    used = {one.type for each in runs.values() for one in aws_resources(each)}
    assert used == set(ROWS), "a row for each, and none that nothing uses"


def test_every_call_is_what_the_api_takes(runs: dict[str, Run]) -> None:
    asked: dict[str, tuple[str, Any]] = {}
    for label, each in runs.items():
        for one, call in calls_of(each):
            asked.setdefault(json.dumps(call, sort_keys=True), (f"{label}: {one.name} {call[1]}", call))
    said = ask("calls", [call for _, call in asked.values()])
    wrong = {label: problems for (label, _), problems in zip(asked.values(), said, strict=True) if problems}
    assert wrong == {}
    assert len(asked) > 50, "too few distinct calls to be all of them"


def test_every_resource_is_what_cloudformation_takes(runs: dict[str, Run]) -> None:
    template = Template()
    for label, each in runs.items():
        if each.plan.recipe.access.region == REGION:
            template.add(each, label)
    said = cfn_lint(template)
    wrong = [f"{template.whose.get(match['path'].split('/')[1], '')}: {match}" for match in said]
    assert wrong == []
    kinds = [resource["Type"] for resource in template.resources.values()]
    assert kinds.count("AWS::EC2::LaunchTemplate") > len(CAPACITIES), "each kind of GPU node has its own"


def test_our_own_rules_hold(runs: dict[str, Run]) -> None:
    wrong = {
        f"{label}: {one.name}": problems
        for label, each in runs.items()
        for one in aws_resources(each)
        if (problems := broken_rules(one.type, resolved(one.inputs, each, example)))
    }
    assert wrong == {}


def test_the_program_writes_no_permission_policy_of_its_own(runs: dict[str, Run]) -> None:
    """cfn-lint knows neither actions nor condition keys; for such a document parliament is the tool (facts/aws-checks.md)."""
    documents = [
        f"{one.name}.{key}"
        for each in runs.values()
        for one in aws_resources(each)
        for key, value in one.inputs.items()
        if "olicy" in key and key not in ("assumeRolePolicy", "policyArn", "upgradePolicy")
    ]
    assert documents == [], "check it with parliament, in tests/outside/requirements.txt"


# ── each check can fail ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Bad:
    """`value` at `path` of the resource of that name (`...` takes the key away), and who says no."""

    name: str
    path: str
    value: Any
    says_no: str
    """Letters: a, botocore's models; c, cfn-lint; o, our own rules."""

    def __str__(self) -> str:
        return f"{self.name} {self.path}={'missing' if self.value is ... else self.value}"[:90]

    @property
    def type(self) -> str:
        return good().named(self.name).type

    def inputs(self) -> dict[str, Any]:
        changed = copy.deepcopy(good().named(self.name).inputs)
        *parents, last = self.path.split(".")
        at: Any = changed
        for parent in parents:
            at = at[int(parent)] if parent.isdigit() else at.setdefault(parent, {})
        if self.value is ...:
            del at[last]
        else:
            at[last] = self.value
        return changed


def trust(**changes: Any) -> str:
    statement = {"Effect": "Allow", "Action": ["sts:AssumeRole"], "Principal": {"Service": "eks.amazonaws.com"}}
    version = changes.pop("Version", "2012-10-17")
    return json.dumps({"Version": version, "Statement": [statement | changes]})


CLUSTER, NODES, GPU, EFS = "cluster-eks", "gpu-nodes", "gpu-template", "files-efs"
NIC = "networkInterfaces.1"
MANY = [
    {"networkCardIndex": 0, "deviceIndex": index, "interfaceType": "efa-only", "securityGroups": ["sg-cluster"]}
    for index in range(99)
]
TWICE = [
    {"networkCardIndex": 1, "deviceIndex": 0, "interfaceType": kind, "securityGroups": ["sg-cluster"]}
    for kind in ("efa-only", "interface")
]
BAD: Final = (
    Bad(NODES, "nodeRoleArn", ..., "ac"),
    Bad(NODES, "subnetIds", ..., "ac"),
    Bad(CLUSTER, "vpcConfig", ..., "ac"),
    Bad("files-driver-identity", "roleArn", ..., "ac"),
    Bad(GPU, f"{NIC}.networkCard", 1, "ac"),
    Bad(GPU, f"{NIC}.networkCardIndex", "one", "ac"),
    Bad(NODES, "scalingConfig.minSize", -1, "ac"),
    Bad(NODES, "updateConfig", {"maxUnavailablePercentage": 400}, "ac"),
    Bad(NODES, "amiType", "AL2023_NVIDIA", "ac"),
    Bad(NODES, "capacityType", "ONDEMAND", "ac"),
    Bad(NODES, "taints.0.effect", "NoSchedule", "ac"),
    Bad(NODES, "nodeGroupNames", "x", "ac"),
    Bad(CLUSTER, "accessConfig.authenticationMode", "IAM", "ac"),
    Bad(CLUSTER, "enabledClusterLogTypes", ["api", "controller-manager"], "ac"),
    Bad(CLUSTER, "upgradePolicy.supportType", "LTS", "ac"),
    Bad("cluster-vpc-cni", "resolveConflictsOnCreate", "REPLACE", "ac"),
    Bad(GPU, "instanceMarketOptions.marketType", "capacity_block", "ac"),
    Bad(GPU, "metadataOptions.httpTokens", "yes", "ac"),
    Bad(GPU, "instanceType", "p5.49xlarge", "aco"),
    Bad(GPU, "blockDeviceMappings.0.ebs.volumeType", "gp4", "ac"),
    Bad("network-s3", "vpcEndpointType", "gateway", "ac"),
    Bad(EFS, "throughputMode", "fast", "ac"),
    Bad("gpu-template", "tagSpecifications.0.resourceType", "instances", "ac"),
    Bad(CLUSTER, "name", "my cluster", "a"),
    Bad(CLUSTER, "version", "latest", "co"),
    Bad("network-vpc", "cidrBlock", "10.42.0.0/33", "c"),
    Bad("network-nodes", "cidrBlock", "10.99.0.0/17", "c"),
    Bad("cluster-role", "assumeRolePolicy", trust(Effect="Permit"), "c"),
    Bad("cluster-role", "assumeRolePolicy", trust(Version="2012-10-18"), "c"),
    # What only our own rules see.
    Bad("cluster-role", "assumeRolePolicy", trust(Principal={"Service": "eks.amazon.com"}), "o"),
    Bad("cluster-role-AmazonEKSClusterPolicy", "policyArn", "arn:aws:iam::aws:policy/AmazonEKSClusterPolice", "o"),
    Bad(GPU, f"{NIC}.interfaceType", "efaonly", "o"),
    Bad(GPU, "networkInterfaces", MANY, "o"),
    Bad(GPU, "networkInterfaces", TWICE * 2, "o"),
    Bad(GPU, f"{NIC}.networkCardIndex", 32, "o"),
    Bad(GPU, "vpcSecurityGroupIds", ["sg-cluster"], "o"),
    Bad(GPU, "userData", "not base64!", "o"),
    Bad(GPU, "metadataOptions.httpPutResponseHopLimit", 999, "o"),
    Bad(CLUSTER, "version", "1.99", "o"),
    Bad(CLUSTER, "vpcConfig.subnetIds", ["network-nodes-id"], "o"),
    Bad("cluster-vpc-cni", "addonName", "vpc-cnii", "o"),
    Bad(NODES, "updateConfig", {"maxUnavailable": 1, "maxUnavailablePercentage": 50}, "o"),
    Bad(NODES, "diskSize", 100, "o"),
    Bad(NODES, "scalingConfig", {"minSize": 3, "desiredSize": 2, "maxSize": 2}, "o"),
    Bad(NODES, "releaseVersion", "1.34.7-20260512", "o"),
    Bad("files-from-nodes", "ipProtocol", "tcpp", "co"),
    Bad("network-s3", "serviceName", "com.amazonaws.us-east-2.s33", "o"),
    Bad("cluster-admin-111122223333:role/ops-policy", "policyArn", "arn:aws:eks::aws:cluster-access-policy/Admin", "o"),
    Bad("cluster-admin-111122223333:role/ops", "type", "ADMIN", "o"),
)


@pytest.fixture(scope="module")
def verdicts() -> dict[str, str]:
    """Who says no to each bad input, by its words: one question to each tool for all of them."""
    calls: list[tuple[str, Any]] = []
    template = Template()
    template.add(good(), "good")
    logical: dict[str, str] = {}
    found = {str(bad): "" for bad in BAD}
    for number, bad in enumerate(BAD):
        inputs = bad.inputs()
        calls += [(str(bad), call) for call in api_calls(resolved(inputs, good(), example), bad.type)]
        found[str(bad)] += "o" if broken_rules(bad.type, resolved(inputs, good(), example)) else ""
        if kind := ROWS[bad.type].formation:
            logical[f"Bad{number}"] = str(bad)
            references = resolved(inputs, good(), Template.reference)
            template.resources[f"Bad{number}"] = {
                "Type": kind,
                "Properties": formation_properties(references, bad.type),
            }
    for (label, _), problems in zip(calls, ask("calls", [call for _, call in calls]), strict=True):
        if problems and "a" not in found[label]:
            found[label] += "a"
    for match in cfn_lint(template):
        place = match["path"].split("/")[1]
        if place in logical and "c" not in found[logical[place]]:
            found[logical[place]] += "c"
    return {label: "".join(sorted(letters)) for label, letters in found.items()}


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_a_bad_input_is_caught(bad: Bad, verdicts: dict[str, str]) -> None:
    assert verdicts[str(bad)] == "".join(sorted(bad.says_no)), (
        "who says no to it (a: API models, c: cfn-lint, o: our own)"
    )


def test_bad_inputs_have_different_names() -> None:
    assert len({str(bad) for bad in BAD}) == len(BAD)
