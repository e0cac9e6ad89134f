"""The table: where each rule comes from, what replaces, what collides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rehearsal.cloud import rules as r

from .conftest import Start
from .world import World

UNVERIFIED = Path(__file__).parents[2] / "docs" / "unverified.md"


def test_a_rule_without_a_source_stands_in_the_list_of_unverified_things() -> None:
    text = UNVERIFIED.read_text(encoding="utf-8")
    missing = [r.label(row) for row in r.ROWS if row.source is None and f"`{r.label(row)}`" not in text]
    assert not missing, f"docs/unverified.md must name these guesses and the command that settles them: {missing}"


def test_every_type_the_program_creates_has_a_row_that_says_what_replaces_it() -> None:
    assert len(r.TYPES) == 29 + 14, (
        "29 AWS types and 14 Kubernetes ones (a Service, which the program refuses, is the 14th)"
    )
    assert all(t.startswith(("aws:", "kubernetes:")) for t in r.TYPES)


@pytest.mark.parametrize(
    ("name", "change", "replaced"),
    [
        ("gpu", {"instanceTypes": ["p5en.48xlarge"]}, True),
        ("gpu", {"subnetIds": ["subnet-other"]}, True),
        ("gpu", {"launchTemplate": {"id": "lt-other", "version": "1"}}, True),
        ("gpu", {"labels": {"pool": "other"}}, False),
        ("gpu", {"taints": []}, False),
        ("gpu", {"scalingConfig": {"desiredSize": 4, "minSize": 4, "maxSize": 4}}, False),
        ("gpu-template", {"userData": "x"}, False),
        ("gpu-template", {"name": "other"}, True),
        ("cluster", {"version": "1.36"}, False),
        ("cluster", {"roleArn": "arn:aws:iam::111122223333:role/other"}, True),
        ("nodes", {"availabilityZoneId": "use2-az2"}, True),
        ("nodes", {"tags": {"a": "b"}}, False),
        ("efs", {"throughputMode": "bursting"}, False),
        ("efs", {"encrypted": False}, True),
        ("point", {"posixUser": {"uid": 0, "gid": 0}}, True),
        ("target", {"securityGroups": []}, False),
        ("class", {"parameters": {"a": "b"}}, True),
        ("nodes-link", {"routeTableId": "rtb-other"}, False),
    ],
)  # fmt: skip
def test_only_create_only_fields_replace(whole: Start, name: str, change: dict[str, Any], replaced: bool) -> None:
    world = whole()
    typ, made, inputs, outputs = world.made[name]
    diff = world.cloud.diff(typ, made, inputs, outputs, inputs | change)
    assert diff.changes
    assert bool(diff.replaces) == replaced, f"{typ} {change}: {diff}"


def test_a_launch_templates_new_version_rolls_the_nodes_without_replacing_the_group(whole: Start) -> None:
    world = whole()
    typ, made, inputs, outputs = world.made["gpu"]
    new = inputs | {"launchTemplate": {**inputs["launchTemplate"], "version": "2"}}
    assert not world.cloud.diff(typ, made, inputs, outputs, new).replaces
    before = {e["id"] for e in world.events("node-running")}
    world.change("gpu", **new)
    assert len({e["id"] for e in world.events("node-running")} - before) == 2, "both GPU nodes are new"


def test_nothing_changes_when_nothing_was_changed(whole: Start) -> None:
    world = whole()
    for name, (typ, made, inputs, outputs) in world.made.items():
        checked = world.cloud.check(typ, world.urn(typ, name), inputs, inputs).inputs
        assert not world.cloud.diff(typ, made, inputs, outputs, checked).changes, name
        found = world.cloud.read(typ, made)
        assert found is not None
        assert not world.cloud.diff(typ, made, found[1], found[2], checked).changes, (
            f"{name}: a refresh would show a change"
        )


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("cluster", {}, "ResourceInUseException: Cluster already exists with name: q"),
        ("gpu", {}, "ResourceInUseException: NodeGroup already exists with name q-gpu and cluster name q"),
        ("node-role", {}, "EntityAlreadyExists: Role with name q-node-role already exists."),
        ("logs", {}, "ResourceAlreadyExistsException: The specified log group already exists"),
        ("gpu-template", {}, "InvalidLaunchTemplateName.AlreadyExistsException"),
        ("efs", {}, "FileSystemAlreadyExists: File system 'fs-"),
        ("efs-group", {}, "InvalidGroup.Duplicate: The security group 'q-efs' already exists for VPC 'vpc-"),
        ("vpc-cni", {}, "ResourceInUseException: Addon already exists."),
        ("association", {}, "ResourceInUseException: Association already exists"),
        ("target", {}, "MountTargetConflict: mount target already exists in this AZ"),
        ("nodes", {"cidrBlock": "10.0.17.0/24"}, "InvalidSubnet.Conflict"),
        ("nodes-route", {}, "RouteAlreadyExists"),
        ("nodes-link", {}, "Resource.AlreadyAssociated"),
        ("nfs", {}, "InvalidPermission.Duplicate"),
    ],
)  # fmt: skip
def test_a_repeated_create_collides_and_makes_nothing(
    whole: Start, name: str, change: dict[str, Any], text: str
) -> None:
    world = whole()
    before = len(world.cloud.left())
    assert text in world.again(name, **change)
    assert len(world.cloud.left()) == before, "a refused create must leave nothing behind"


@pytest.mark.parametrize("name", ["vpc", "eip", "nat", "point", "public-table"])
def test_what_has_no_name_is_made_a_second_time(whole: Start, name: str) -> None:
    world = whole()
    typ, made, inputs, _ = world.made[name]
    assert world.make(typ, f"{name}-again", **inputs)["id"] != made


def test_a_placement_groups_name_is_taken_until_it_is_gone(empty: World) -> None:
    empty.make(r.PLACEMENT_GROUP, "group", name="q", strategy="cluster")
    assert "InvalidPlacementGroup.Duplicate" in empty.again("group")
    empty.drop("group")
    empty.make(r.PLACEMENT_GROUP, "group", name="q", strategy="cluster")


def test_the_cloud_never_asks_for_delete_before_replace_of_an_aws_name(whole: Start) -> None:
    world = whole()
    typ, made, inputs, outputs = world.made["gpu"]
    assert not world.cloud.diff(typ, made, inputs, outputs, inputs | {"amiType": "CUSTOM"}).delete_before_replace


def test_a_kubernetes_object_with_a_fixed_name_is_deleted_before_it_is_replaced(whole: Start) -> None:
    world = whole()
    typ, made, inputs, outputs = world.made["weights"]
    new = inputs | {"spec": {"template": {"spec": {}}}}
    assert world.cloud.diff(typ, made, inputs, outputs, new).delete_before_replace
    renamed = new | {"metadata": inputs["metadata"] | {"name": "other"}}
    assert not world.cloud.diff(typ, made, inputs, outputs, renamed).delete_before_replace


def test_a_release_is_not_deleted_first_unless_the_program_says_so(whole: Start) -> None:
    world = whole()
    typ, made, inputs, outputs = world.made["dynamo-platform"]
    assert not world.cloud.diff(typ, made, inputs, outputs, inputs | {"version": "1.6.2"}).replaces
    diff = world.cloud.diff(typ, made, inputs, outputs, inputs | {"namespace": "other"})
    assert diff.replaces == ["namespace"]
    assert not diff.delete_before_replace


def test_names_not_given_are_made_and_kept(empty: World) -> None:
    urn = empty.urn(r.ROLE, "role")
    first = empty.cloud.check(r.ROLE, urn, None, {"assumeRolePolicy": "{}"}).inputs
    assert first["name"].startswith("role-")
    assert empty.cloud.check(r.ROLE, urn, first, {"assumeRolePolicy": "{}"}).inputs["name"] == first["name"]
    assert empty.cloud.check(r.ROLE, urn, None, {"assumeRolePolicy": "{}"}).inputs["name"] != first["name"], (
        "a replacement gets another"
    )


def test_a_zone_of_another_region_and_a_missing_input_fail_the_check(empty: World) -> None:
    failures = empty.cloud.check(r.SUBNET, "urn::s", None, {"availabilityZoneId": "use1-az1"}).failures
    assert {f[0] for f in failures} == {"vpcId", "availabilityZoneId"}
    assert "us-east-2" in dict(failures)["availabilityZoneId"], "the message names the region the zone is not of"


def test_an_unknown_type_is_an_error_that_lists_what_is_known(empty: World) -> None:
    assert not empty.cloud.known("aws:sqs/queue:Queue")
    with pytest.raises(Exception, match="does not know the resource type aws:sqs/queue:Queue; known are: aws:"):
        empty.cloud.create("aws:sqs/queue:Queue", "urn::b", {}, preview=False, timeout_s=None)


@pytest.mark.parametrize(
    ("nics", "more", "text"),
    [
        ([{"deviceIndex": 0}], {"vpcSecurityGroupIds": ["sg-1"]}, "instance-level security groups"),
        ([{"deviceIndex": 0, "associatePublicIpAddress": "true"}, {"deviceIndex": 1}], {}, "associatePublicIPAddress"),
        ([{"deviceIndex": 0, "interfaceType": "efa-only"}], {}, "never efa-only"),
        ([{"deviceIndex": 0}, {"deviceIndex": 0}], {}, "not used twice"),
        ([{"deviceIndex": 0, "securityGroups": ["sg-none"]}], {}, "InvalidGroup.NotFound"),
    ],
)  # fmt: skip
def test_ec2_refuses_wrong_interfaces(
    empty: World, nics: list[dict[str, Any]], more: dict[str, Any], text: str
) -> None:
    assert text in empty.refused(r.LAUNCH_TEMPLATE, "t", name="t", networkInterfaces=nics, **more)


@pytest.mark.parametrize(
    ("template", "group", "text"),
    [
        ({"networkInterfaces": [{"deviceIndex": 0, "subnetId": "subnet-1"}]}, {}, "should not specify a subnet"),
        ({"iamInstanceProfile": {"name": "x"}}, {}, "IAM instance profile"),
        ({"instanceType": "m7i.xlarge"}, {"instanceTypes": ["m7i.xlarge"]}, "not in both"),
        ({}, {"diskSize": 100}, "within the launch template"),
        ({"instanceType": "p5.48xlarge"}, {"capacityType": "CAPACITY_BLOCK"}, "market type capacity-block"),
        ({}, {"scalingConfig": {"desiredSize": 3, "minSize": 1, "maxSize": 2}}, "minSize <= desiredSize"),
        ({}, {"nodeRoleArn": "arn:aws:iam::111122223333:role/none"}, "does not exist"),
    ],
)  # fmt: skip
def test_eks_refuses_wrong_node_groups(
    with_cluster: Start, template: dict[str, Any], group: dict[str, Any], text: str
) -> None:
    world = with_cluster()
    role = world.role("node-role", "AmazonEKSWorkerNodePolicy")
    made = world.make(r.LAUNCH_TEMPLATE, "t", name="t", **template)["id"]
    inputs = {"clusterName": "q", "nodeRoleArn": role, "subnetIds": [world.id("nodes")], "launchTemplate": {"id": made, "version": "1"},
              "scalingConfig": {"desiredSize": 1, "minSize": 1, "maxSize": 1}}  # fmt: skip
    assert text in world.refused(r.NODE_GROUP, "g", **(inputs | group))


def test_a_cluster_needs_two_zones_and_its_policy(empty: World) -> None:
    empty.network()
    role = empty.role("cluster-role")
    config = {"subnetIds": [empty.id("nodes"), empty.id("public")]}
    assert "at least two different AZs" in empty.refused(r.CLUSTER, "cluster", name="q", roleArn=role, vpcConfig=config)
    config = {"subnetIds": [empty.id("nodes"), empty.id("second")]}
    assert "AmazonEKSClusterPolicy" in empty.refused(r.CLUSTER, "cluster", name="q", roleArn=role, vpcConfig=config)
