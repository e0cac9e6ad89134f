"""Listing and deleting on AWS: every call and every answer held against botocore's own models, and what is made of the answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from ops import aws_things, things
from ops.aws import REQUIREMENTS, AwsError
from ops.packages import packages
from ops.planning import planned
from ops.things import KINDS, Marks, Thing

MARKS = Marks.of(planned("qwen3-32b-disagg", []).plan)
OURS = [{"Key": key, "Value": value} for key, value in MARKS.tags.items()]
EKS_TAGS = dict(MARKS.tags)
FOREIGN = [{**tag, "Value": "another"} if tag["Key"] == "deployment" else tag for tag in OURS]
ARN = "arn:aws:iam::aws:policy/P"
CLUSTER = MARKS.cluster
TIME = "2026-11-25T08:00:00+00:00"

ANSWERS: dict[str, Any] = {
    "ec2:describe_vpcs": {"Vpcs": [{"VpcId": "vpc-1", "CidrBlock": "10.0.0.0/16", "Tags": OURS}]},
    "ec2:describe_internet_gateways": {
        "InternetGateways": [{"InternetGatewayId": "igw-1", "Tags": OURS, "Attachments": [{"VpcId": "vpc-1"}]}]
    },
    "ec2:describe_subnets": {
        "Subnets": [{"SubnetId": "subnet-1", "VpcId": "vpc-1", "CidrBlock": "10.0.0.0/24", "Tags": OURS}]
    },
    "ec2:describe_addresses": {"Addresses": [{"AllocationId": "eipalloc-1", "Tags": OURS}]},
    "ec2:describe_nat_gateways": {
        "NatGateways": [
            {"NatGatewayId": "nat-1", "State": "available", "SubnetId": "subnet-1", "Tags": OURS},
            {"NatGatewayId": "nat-0", "State": "deleted", "SubnetId": "subnet-1", "Tags": OURS},
        ]
    },
    "ec2:describe_route_tables": {
        "RouteTables": [
            {
                "RouteTableId": "rtb-1",
                "VpcId": "vpc-1",
                "Tags": OURS,
                "Associations": [{"RouteTableAssociationId": "rtbassoc-1", "SubnetId": "subnet-1", "Main": False}],
                "Routes": [
                    {"DestinationCidrBlock": "10.0.0.0/16", "Origin": "CreateRouteTable"},
                    {"DestinationCidrBlock": "0.0.0.0/0", "Origin": "CreateRoute"},
                ],
            }
        ]
    },
    "ec2:describe_vpc_endpoints": {
        "VpcEndpoints": [
            {"VpcEndpointId": "vpce-1", "State": "available", "VpcId": "vpc-1", "ServiceName": "s3", "Tags": OURS}
        ]
    },
    "ec2:describe_security_groups": {
        "SecurityGroups": [
            {"GroupId": "sg-1", "VpcId": "vpc-1", "GroupName": "efs", "Tags": OURS},
            {
                "GroupId": "sg-2",
                "VpcId": "vpc-1",
                "GroupName": "eks-cluster-sg",
                "Tags": [{"Key": "aws:eks:cluster-name", "Value": CLUSTER}],
            },
            {"GroupId": "sg-0", "VpcId": "vpc-1", "GroupName": "default", "Tags": []},
        ]
    },
    "ec2:describe_security_group_rules": {
        "SecurityGroupRules": [{"SecurityGroupRuleId": "sgr-1", "GroupId": "sg-1", "IsEgress": False, "Tags": OURS}]
    },
    "ec2:describe_launch_templates": {
        "LaunchTemplates": [{"LaunchTemplateId": "lt-1", "LaunchTemplateName": "gpu", "Tags": OURS}]
    },
    "ec2:describe_placement_groups": {"PlacementGroups": [{"GroupName": "gpu", "State": "available", "Tags": OURS}]},
    "ec2:describe_instances": {
        "Reservations": [
            {
                "Instances": [
                    {"InstanceId": "i-1", "InstanceType": "p5.48xlarge", "State": {"Name": "running"}, "Tags": OURS},
                    {"InstanceId": "i-0", "InstanceType": "p5.48xlarge", "State": {"Name": "terminated"}, "Tags": OURS},
                ]
            }
        ]
    },
    "ec2:describe_volumes": {"Volumes": [{"VolumeId": "vol-1", "Size": 100, "State": "available", "Tags": OURS}]},
    "ec2:describe_network_interfaces": {
        "NetworkInterfaces": [
            {
                "NetworkInterfaceId": "eni-1",
                "Status": "available",
                "VpcId": "vpc-1",
                "Description": "aws-K8S-i-1",
                "TagSet": [],
            },
            {"NetworkInterfaceId": "eni-2", "Status": "in-use", "VpcId": "vpc-1", "Description": "NAT", "TagSet": []},
        ]
    },
    "elbv2:describe_load_balancers": {
        "LoadBalancers": [
            {"LoadBalancerArn": "arn:lb/1", "LoadBalancerName": "one", "VpcId": "vpc-1"},
            {"LoadBalancerArn": "arn:lb/2", "LoadBalancerName": "two", "VpcId": "vpc-9"},
        ]
    },
    "elb:describe_load_balancers": {"LoadBalancerDescriptions": [{"LoadBalancerName": "classic", "VPCId": "vpc-1"}]},
    "eks:describe_cluster": {"cluster": {"name": CLUSTER, "status": "ACTIVE", "tags": EKS_TAGS}},
    "eks:list_clusters": {"clusters": [CLUSTER]},
    "eks:list_nodegroups": {"nodegroups": ["gpu"]},
    "eks:describe_nodegroup": {
        "nodegroup": {
            "nodegroupName": "gpu",
            "status": "CREATE_FAILED",
            "tags": EKS_TAGS,
            "createdAt": TIME,
            "taints": [{"key": "nvidia.com/gpu", "value": "true", "effect": "NO_SCHEDULE"}],
            "instanceTypes": ["p5.48xlarge"],
        }
    },
    "eks:list_addons": {"addons": ["vpc-cni"]},
    "eks:describe_addon": {"addon": {"addonName": "vpc-cni", "status": "ACTIVE", "tags": EKS_TAGS}},
    "eks:list_pod_identity_associations": {
        "associations": [{"associationId": "a-1", "namespace": "kube-system", "serviceAccount": "efs"}]
    },
    "eks:describe_pod_identity_association": {"association": {"associationId": "a-1", "tags": EKS_TAGS}},
    "eks:list_access_entries": {"accessEntries": ["arn:aws:iam::1:role/me"]},
    "eks:describe_access_entry": {"accessEntry": {"principalArn": "arn:aws:iam::1:role/me", "tags": EKS_TAGS}},
    "eks:list_associated_access_policies": {"associatedAccessPolicies": [{"policyArn": "arn:aws:eks::aws:p"}]},
    "efs:describe_file_systems": {
        "FileSystems": [
            {
                "FileSystemId": "fs-1",
                "CreationToken": "t",
                "LifeCycleState": "available",
                "SizeInBytes": {"Value": 65500000000},
                "Tags": OURS,
            },
            {
                "FileSystemId": "fs-9",
                "CreationToken": "u",
                "LifeCycleState": "available",
                "SizeInBytes": {"Value": 1},
                "Tags": FOREIGN,
            },
        ]
    },
    "efs:describe_mount_targets": {
        "MountTargets": [
            {"MountTargetId": "fsmt-0123456789abcdef0", "SubnetId": "subnet-1", "LifeCycleState": "available"}
        ]
    },
    "efs:describe_access_points": {
        "AccessPoints": [
            {"AccessPointId": "fsap-1", "FileSystemId": "fs-1", "LifeCycleState": "available", "Tags": OURS}
        ]
    },
    "fsx:describe_file_systems": {
        "FileSystems": [
            {
                "FileSystemId": "fs-0123456789abcdef2",
                "FileSystemType": "LUSTRE",
                "Lifecycle": "AVAILABLE",
                "SubnetIds": ["subnet-1"],
                "StorageCapacity": 2400,
                "LustreConfiguration": {"PerUnitStorageThroughput": 500},
                "Tags": OURS,
            },
            {
                "FileSystemId": "fs-8",
                "FileSystemType": "LUSTRE",
                "Lifecycle": "AVAILABLE",
                "SubnetIds": ["subnet-1"],
                "StorageCapacity": 1200,
                "Tags": FOREIGN,
            },
        ]
    },
    "iam:get_role": {"Role": {"RoleName": "r", "Tags": OURS}},
    "iam:list_role_policies": {"PolicyNames": ["put-results"]},
    "iam:list_attached_role_policies": {"AttachedPolicies": [{"PolicyArn": ARN, "PolicyName": "P"}]},
    "logs:describe_log_groups": {
        "logGroups": [{"logGroupName": MARKS.log_groups[0], "arn": "arn:aws:logs:us-east-2:1:log-group:g:*"}]
    },
    "logs:list_tags_for_resource": {"tags": {}},
}


class Recorder:
    """Answers from ANSWERS, and remembers what was asked."""

    def __init__(self, **instead: Any) -> None:
        self.answers = ANSWERS | instead
        self.calls: list[tuple[str, str, dict[str, Any]]] = []

    def __call__(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        self.calls.append((service, operation, parameters))
        answer = self.answers.get(f"{service}:{operation}", {})
        if isinstance(answer, AwsError):
            raise answer
        found: dict[str, Any] = answer
        return found


CHECK = """
import json, sys
import botocore.session
from botocore import xform_name
from botocore.validate import validate_parameters
session, wrong = botocore.session.get_session(), []

def unknown(value, shape, where):
    if shape.type_name == "structure":
        for key, inner in value.items():
            if key not in shape.members:
                wrong.append(f"{where}: no {key} in {sorted(shape.members)}")
            else:
                unknown(inner, shape.members[key], f"{where}.{key}")
    elif shape.type_name == "list":
        for inner in value:
            unknown(inner, shape.member, where)

for service, operation, parameters, answer in json.load(sys.stdin):
    model = session.get_service_model(service)
    names = {xform_name(name): name for name in model.operation_names}
    if operation not in names:
        wrong.append(f"{service}: no operation {operation}")
        continue
    found = model.operation_model(names[operation])
    try:
        validate_parameters(parameters, found.input_shape)
    except Exception as error:
        wrong.append(f"{service}:{operation}: {error}")
    if answer:
        unknown(answer, found.output_shape, f"{service}:{operation}")
print(json.dumps(wrong))
"""


def judged_by_botocore(calls: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    asked = [[*call, ANSWERS.get(f"{call[0]}:{call[1]}")] for call in calls]
    env = {**os.environ, "PYTHONPATH": str(packages(REQUIREMENTS, "aws")), "AWS_DEFAULT_REGION": "us-east-2"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHECK],
        input=json.dumps(asked),
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    wrong: list[str] = json.loads(done.stdout)
    return wrong


@pytest.fixture(scope="module")
def listed() -> tuple[Recorder, tuple[Thing, ...]]:
    recorder = Recorder()
    return recorder, aws_things.listed(recorder, MARKS)


def test_every_question_and_every_word_of_an_answer_that_is_read_exists_in_the_services_own_models(
    listed: tuple[Recorder, tuple[Thing, ...]],
) -> None:
    assert judged_by_botocore(listed[0].calls) == []


def test_every_delete_is_one_that_the_service_takes(listed: tuple[Recorder, tuple[Thing, ...]]) -> None:
    recorder, found = Recorder(), listed[1]
    for thing in found:
        aws_things.remove(recorder, thing)
    egress = Thing("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule", "sgr-2", {"securityGroupId": "sg-1"})
    aws_things.remove(recorder, egress)
    assert {thing.type for thing in (*found, egress)} == set(KINDS), "a type that is never listed is never found"
    assert judged_by_botocore(recorder.calls) == []


def test_what_has_ended_and_what_carries_other_tags_is_not_ours(listed: tuple[Recorder, tuple[Thing, ...]]) -> None:
    ids = {thing.id for thing in listed[1]}
    assert not ids & {"nat-0", "i-0", "fs-9", "fs-8"}, "a deleted gateway is listed by EC2 for an hour"
    assert "arn:lb/2" not in ids, "another VPC's"
    assert "sg-0" not in ids, "the default group cannot be deleted, and goes with its VPC"
    assert "eni-2" not in ids, "in use it belongs to something that is listed itself"


def test_a_lustre_that_is_left_costs_by_its_size_and_throughput(listed: tuple[Recorder, tuple[Thing, ...]]) -> None:
    (files,) = (thing for thing in listed[1] if thing.type == things.LUSTRE)
    assert things.usd_per_hour(files) == pytest.approx(1.55, abs=0.01), (
        "the dearest thing beside nodes must not look free"
    )


def test_side_doors_say_who_made_them(listed: tuple[Recorder, tuple[Thing, ...]]) -> None:
    made = {thing.id: thing.service for thing in listed[1]}
    assert made["sg-2"] == "EKS"
    assert made["sg-1"] == ""
    assert made["eni-1"]
    assert made[MARKS.log_groups[0]] == "EKS", (
        "its name is the deployment's; without tags it is the one EKS makes again"
    )


def test_what_is_in_a_foreign_cluster_of_our_name_is_not_ours() -> None:
    foreign = EKS_TAGS | {"deployment": "another"}
    recorder = Recorder(
        **{
            "eks:describe_cluster": {"cluster": {"name": CLUSTER, "status": "ACTIVE", "tags": foreign}},
            "eks:describe_addon": {"addon": {"addonName": "vpc-cni", "status": "ACTIVE", "tags": foreign}},
        }
    )
    types = {thing.type for thing in aws_things.listed(recorder, MARKS)}
    assert things.CLUSTER not in types
    assert "aws:eks/addon:Addon" not in types
    assert things.NODE_GROUP in types, "our node group in a cluster that others share is ours"


def test_a_role_of_our_name_without_our_tags_is_not_ours() -> None:
    recorder = Recorder(**{"iam:get_role": {"Role": {"RoleName": "r", "Tags": FOREIGN}}})
    assert things.ROLE not in {thing.type for thing in aws_things.listed(recorder, MARKS)}


def test_an_account_without_anything_answers_with_nothing() -> None:
    gone = AwsError("ResourceNotFoundException", "No cluster found")
    empty: dict[str, Any] = {name: {key: [] for key in answer} for name, answer in ANSWERS.items()}
    recorder = Recorder(**(empty | {"eks:describe_cluster": gone, "iam:get_role": AwsError("NoSuchEntity", "")}))
    assert aws_things.listed(recorder, MARKS) == ()


def test_gpu_groups_are_found_by_their_taint_and_the_projects_tag_whoever_made_them() -> None:
    recorder = Recorder()
    (group,) = aws_things.gpu_groups(recorder)
    assert group.id == f"{CLUSTER}:gpu"
    assert group.facts["createdAt"] == TIME
    assert judged_by_botocore(recorder.calls) == []
    without = {**ANSWERS["eks:describe_nodegroup"]["nodegroup"], "taints": []}
    assert aws_things.gpu_groups(Recorder(**{"eks:describe_nodegroup": {"nodegroup": without}})) == ()


def test_a_route_is_called_what_the_provider_calls_it() -> None:
    assert aws_things.route_id("rtb-1", "0.0.0.0/0") == "r-rtb-11080289494", (
        "CRC-32 (IEEE) of the destination, in decimal"
    )


def test_other_errors_are_not_taken_for_nothing_there() -> None:
    recorder = Recorder(**{"eks:describe_cluster": AwsError("AccessDeniedException", "no")})
    with pytest.raises(AwsError, match="AccessDenied"):
        aws_things.listed(recorder, MARKS)
