"""Pulumi's AWS inputs as AWS' own APIs and as CloudFormation take them: a table, one row per resource type.

Names are the same but for the first letter, except where a row says so (facts/aws-checks.md, Name mapping). A key that a row
does not place goes along under its own name, so that the models refuse it: nothing is left out silently.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from recipe.names import digest
from tests.program.recorder import Registered, Run

Names = Mapping[str, str | Callable[[Any], dict[str, Any]] | None]
"""By dotted path of Pulumi's keys (no list indices): another name, a function that gives keys and values, or None: not sent."""
Call = tuple[str, str, dict[str, Any]]
"""Service, operation, input: as botocore names them."""


def pascal(name: str) -> str:
    return name[:1].upper() + name[1:]


def camel(name: str) -> str:
    return name


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def tags_as_list(value: Any) -> dict[str, Any]:
    return {"Tags": tag_list(value)}


def tags_as_map(value: Any) -> dict[str, Any]:
    return {"tags": value}


def tagged(kind: str) -> Callable[[Any], dict[str, Any]]:
    """EC2: tags go with the request, by the kind of what is made."""
    return lambda value: {"TagSpecifications": [{"ResourceType": kind, "Tags": tag_list(value)}]}


def boolean(name: str) -> Callable[[Any], dict[str, Any]]:
    """Pulumi's launch template takes true and false as text."""
    return lambda value: {name: {"true": True, "false": False}[value]}


def as_text(name: str) -> Callable[[Any], dict[str, Any]]:
    """CloudFormation: numeric ids are text."""
    return lambda value: {name: str(value)}


def log_types(value: Any) -> dict[str, Any]:
    return {"logging": {"clusterLogging": [{"types": value, "enabled": True}]}}


@dataclass(frozen=True)
class Row:
    """One resource type. `id`: an identifier as AWS makes them, for those who refer to it."""

    service: str
    operation: str
    case: Callable[[str], str]
    id: str
    names: Names = field(default_factory=dict)
    apart: Mapping[str, Callable[[dict[str, Any], str], Call]] = field(default_factory=dict)
    """Keys that go in a call of their own: from all inputs and the example id."""
    formation: str | None = None
    """CloudFormation's type; None where it is a property of another resource."""
    formation_names: Names = field(default_factory=dict)
    """Where CloudFormation differs from the API, apart from tags, which are nearly always a list there."""
    formation_id: str | None = None
    """Attribute to refer to it by; None: Ref."""


def modify_vpc(key: str) -> Callable[[dict[str, Any], str], Call]:
    return lambda inputs, id_: ("ec2", "ModifyVpcAttribute", {"VpcId": id_, pascal(key): {"Value": inputs[key]}})


def modify_subnet(inputs: dict[str, Any], id_: str) -> Call:
    return (
        "ec2",
        "ModifySubnetAttribute",
        {"SubnetId": id_, "MapPublicIpOnLaunch": {"Value": inputs["mapPublicIpOnLaunch"]}},
    )


def attach_gateway(inputs: dict[str, Any], id_: str) -> Call:
    return "ec2", "AttachInternetGateway", {"InternetGatewayId": id_, "VpcId": inputs["vpcId"]}


def put_retention(inputs: dict[str, Any], id_: str) -> Call:
    return (
        "logs",
        "PutRetentionPolicy",
        {"logGroupName": inputs["name"], "retentionInDays": inputs["retentionInDays"]},
    )


def update_addon(inputs: dict[str, Any], id_: str) -> Call:
    wanted = {key: inputs[key] for key in ("clusterName", "addonName")}
    return "eks", "UpdateAddon", wanted | {"resolveConflicts": inputs["resolveConflictsOnUpdate"]}


def newest_is_default(inputs: dict[str, Any], id_: str) -> Call:
    return "ec2", "ModifyLaunchTemplate", {"LaunchTemplateId": id_, "DefaultVersion": "1"}


_DATA = "LaunchTemplateData."
_TEMPLATE_NAMES: Final[Names] = {
    "name": "LaunchTemplateName",
    "tags": tagged("launch-template"),
    **{
        key: f"{_DATA}{pascal(key)}"
        for key in (
            "instanceType", "networkInterfaces", "blockDeviceMappings", "metadataOptions", "userData", "placement",
            "instanceMarketOptions", "capacityReservationSpecification", "tagSpecifications",
        )
    },
    "vpcSecurityGroupIds": f"{_DATA}SecurityGroupIds",
    "networkInterfaces.securityGroups": "Groups",
    "networkInterfaces.deleteOnTermination": boolean("DeleteOnTermination"),
    "blockDeviceMappings.ebs.encrypted": boolean("Encrypted"),
    "blockDeviceMappings.ebs.deleteOnTermination": boolean("DeleteOnTermination"),
    "tagSpecifications.tags": tags_as_list,
}  # fmt: skip

ROWS: Final[dict[str, Row]] = {
    "aws:ec2/vpc:Vpc": Row(
        "ec2", "CreateVpc", pascal, "vpc-0123456789abcdef0", {"tags": tagged("vpc")},
        {key: modify_vpc(key) for key in ("enableDnsSupport", "enableDnsHostnames")}, "AWS::EC2::VPC",
    ),
    "aws:ec2/subnet:Subnet": Row(
        "ec2", "CreateSubnet", pascal, "subnet-0123456789abcdef0", {"tags": tagged("subnet")},
        {"mapPublicIpOnLaunch": modify_subnet}, "AWS::EC2::Subnet",
    ),
    "aws:ec2/internetGateway:InternetGateway": Row(
        "ec2", "CreateInternetGateway", pascal, "igw-0123456789abcdef0", {"tags": tagged("internet-gateway")},
        {"vpcId": attach_gateway}, "AWS::EC2::InternetGateway",
        {"vpcId": None},  # AWS::EC2::VPCGatewayAttachment, below
    ),
    "aws:ec2/eip:Eip": Row(
        "ec2", "AllocateAddress", pascal, "eipalloc-0123456789abcdef0", {"tags": tagged("elastic-ip")},
        formation="AWS::EC2::EIP", formation_id="AllocationId",
    ),
    "aws:ec2/natGateway:NatGateway": Row(
        "ec2", "CreateNatGateway", pascal, "nat-0123456789abcdef0", {"tags": tagged("natgateway")}, formation="AWS::EC2::NatGateway",
    ),
    "aws:ec2/routeTable:RouteTable": Row(
        "ec2", "CreateRouteTable", pascal, "rtb-0123456789abcdef0", {"tags": tagged("route-table")}, formation="AWS::EC2::RouteTable",
    ),
    "aws:ec2/route:Route": Row("ec2", "CreateRoute", pascal, "r-rtb-0123456789abcdef0", formation="AWS::EC2::Route"),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": Row(
        "ec2", "AssociateRouteTable", pascal, "rtbassoc-0123456789abcdef0", formation="AWS::EC2::SubnetRouteTableAssociation",
    ),
    "aws:ec2/vpcEndpoint:VpcEndpoint": Row(
        "ec2", "CreateVpcEndpoint", pascal, "vpce-0123456789abcdef0", {"tags": tagged("vpc-endpoint")}, formation="AWS::EC2::VPCEndpoint",
    ),
    "aws:ec2/securityGroup:SecurityGroup": Row(
        "ec2", "CreateSecurityGroup", pascal, "sg-0123456789abcdef0", {"name": "GroupName", "tags": tagged("security-group")},
        formation="AWS::EC2::SecurityGroup", formation_names={"description": "GroupDescription"}, formation_id="GroupId",
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": Row(
        "ec2", "AuthorizeSecurityGroupIngress", pascal, "sgr-0123456789abcdef0",
        {
            "securityGroupId": "GroupId", "tags": tagged("security-group-rule"),
            **{key: f"IpPermissions.{pascal(key)}" for key in ("ipProtocol", "fromPort", "toPort")},
            "referencedSecurityGroupId": "IpPermissions.UserIdGroupPairs.GroupId",
            "description": "IpPermissions.UserIdGroupPairs.Description",
        },
        formation="AWS::EC2::SecurityGroupIngress",
        formation_names={
            **{key: pascal(key) for key in ("ipProtocol", "fromPort", "toPort", "description")},
            "referencedSecurityGroupId": "SourceSecurityGroupId",
            "tags": None,  # CloudFormation cannot tag a rule
        },
    ),
    "aws:ec2/launchTemplate:LaunchTemplate": Row(
        "ec2", "CreateLaunchTemplate", pascal, "lt-0123456789abcdef0", _TEMPLATE_NAMES, {"updateDefaultVersion": newest_is_default},
        "AWS::EC2::LaunchTemplate", {"updateDefaultVersion": None, "tags": tagged("launch-template")},
    ),
    "aws:ec2/placementGroup:PlacementGroup": Row(
        "ec2", "CreatePlacementGroup", pascal, "pg-0123456789abcdef0", {"name": "GroupName", "tags": tagged("placement-group")},
        formation="AWS::EC2::PlacementGroup",
        formation_names={"name": None},  # CloudFormation names it itself
    ),
    "aws:eks/cluster:Cluster": Row(
        "eks", "CreateCluster", camel, "", {"vpcConfig": "resourcesVpcConfig", "enabledClusterLogTypes": log_types, "tags": tags_as_map},
        formation="AWS::EKS::Cluster",
        formation_names={
            "enabledClusterLogTypes": lambda value: {"Logging": {"ClusterLogging": {"EnabledTypes": [{"Type": one} for one in value]}}},
        },
    ),
    "aws:eks/nodeGroup:NodeGroup": Row(
        "eks", "CreateNodegroup", camel, "",
        {"nodeGroupName": "nodegroupName", "nodeRoleArn": "nodeRole", "subnetIds": "subnets", "tags": tags_as_map},
        formation="AWS::EKS::Nodegroup", formation_names={"tags": lambda value: {"Tags": value}},
    ),
    "aws:eks/addon:Addon": Row(
        "eks", "CreateAddon", camel, "", {"resolveConflictsOnCreate": "resolveConflicts", "tags": tags_as_map},
        {"resolveConflictsOnUpdate": update_addon}, "AWS::EKS::Addon",
        # One value for both there.
        {"resolveConflictsOnUpdate": None},
    ),
    "aws:eks/accessEntry:AccessEntry": Row(
        "eks", "CreateAccessEntry", camel, "", {"tags": tags_as_map}, formation="AWS::EKS::AccessEntry",
    ),
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": Row("eks", "AssociateAccessPolicy", camel, ""),
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": Row(
        "eks", "CreatePodIdentityAssociation", camel, "", {"tags": tags_as_map},
        formation="AWS::EKS::PodIdentityAssociation",
    ),
    "aws:iam/role:Role": Row(
        "iam", "CreateRole", pascal, "", {"name": "RoleName", "assumeRolePolicy": "AssumeRolePolicyDocument", "tags": tags_as_list},
        formation="AWS::IAM::Role",
        formation_names={"assumeRolePolicy": lambda value: {"AssumeRolePolicyDocument": json.loads(value)}},
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Row("iam", "AttachRolePolicy", pascal, "", {"role": "RoleName"}),
    "aws:cloudwatch/logGroup:LogGroup": Row(
        "logs", "CreateLogGroup", camel, "", {"name": "logGroupName", "tags": tags_as_map}, {"retentionInDays": put_retention},
        "AWS::Logs::LogGroup",
    ),
    "aws:efs/fileSystem:FileSystem": Row(
        "efs", "CreateFileSystem", pascal, "fs-0123456789abcdef0", {"tags": tags_as_list}, formation="AWS::EFS::FileSystem",
        formation_names={"tags": lambda value: {"FileSystemTags": tag_list(value)}, "creationToken": None},  # it makes its own token
    ),
    "aws:efs/mountTarget:MountTarget": Row(
        "efs", "CreateMountTarget", pascal, "fsmt-0123456789abcdef0", formation="AWS::EFS::MountTarget",
    ),
    "aws:efs/accessPoint:AccessPoint": Row(
        "efs", "CreateAccessPoint", pascal, "fsap-0123456789abcdef0", {"tags": tags_as_list}, formation="AWS::EFS::AccessPoint",
        formation_names={
            "tags": lambda value: {"AccessPointTags": tag_list(value)},
            **{
                path: as_text(pascal(path.rpartition(".")[2]))
                for path in ("posixUser.uid", "posixUser.gid", "rootDirectory.creationInfo.ownerUid", "rootDirectory.creationInfo.ownerGid")
            },
        },
    ),
}  # fmt: skip

LISTS: Final = {"IpPermissions", "UserIdGroupPairs"}
"""Parts of a dotted API name that are lists of one."""
MAPS: Final = {"tags", "labels"}
"""Keys below these are values, not names."""
ARN: Final = "arn:aws:iam::123456789012:role/"


def api_calls(inputs: Mapping[str, Any], type_: str) -> list[Call]:
    """The calls the provider makes to create it, from inputs whose references are resolved."""
    row = ROWS[type_]
    rest = {key: value for key, value in inputs.items() if key not in row.apart}
    made = [(row.service, row.operation, convert(rest, row.names, row.case))]
    return made + [row.apart[key](dict(inputs), row.id) for key in inputs if key in row.apart]


def formation_properties(inputs: Mapping[str, Any], type_: str) -> dict[str, Any]:
    """Properties of the CloudFormation resource. `inputs` may hold Ref and Fn::GetAtt in place of texts."""
    row = ROWS[type_]
    properties: dict[str, Any] = convert(inputs, {**row.names, "tags": tags_as_list, **row.formation_names}, pascal)
    return properties


def convert(value: Any, names: Names, case: Callable[[str], str], path: str = "") -> Any:
    """`value` with every key by its API name."""
    if isinstance(value, list):
        return [convert(one, names, case, path) for one in value]
    if not isinstance(value, Mapping) or is_reference(value):
        return value
    made: dict[str, Any] = {}
    for key, inner in value.items():
        here = f"{path}.{key}".lstrip(".")
        wanted = names.get(here, case(key))
        if wanted is None:
            continue
        if callable(wanted):
            made.update({case(name): one for name, one in wanted(inner).items()})
            continue
        kept = inner if key in MAPS else convert(inner, names, case, here)
        *parents, last = wanted.split(".")
        at: Any = made
        for parent in map(case, parents):
            at = at.setdefault(parent, [{}])[0] if parent in LISTS else at.setdefault(parent, {})
        at[case(last)] = kept
    return made


def is_reference(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) in ({"Ref"}, {"Fn::GetAtt"})


# ── references between resources ─────────────────────────────────────────────────────────────────────────────────────


def resolved(value: Any, run: Run, refer: Callable[[Registered, str], Any]) -> Any:
    """`value` with the mocks' made-up ids and ARNs replaced by what `refer` gives for a resource and an attribute."""
    if isinstance(value, Mapping):
        return {key: resolved(inner, run, refer) for key, inner in value.items()}
    if isinstance(value, list):
        return [resolved(inner, run, refer) for inner in value]
    if not isinstance(value, str):
        return value
    if value == "sg-cluster":
        return refer(run.only("aws:eks/cluster:Cluster"), "group")
    if value == "eipalloc-1":
        return refer(run.only("aws:ec2/eip:Eip"), "id")
    if value.startswith("arn:mock:"):
        return refer(run.named(value.removeprefix("arn:mock:").split("/")[0]), "arn")
    if value.endswith("-id"):
        found = [one for one in run.custom if one.name == value.removesuffix("-id")]
        return refer(found[0], "id") if len(found) == 1 else value
    return value


def example(one: Registered, attribute: str) -> str:
    """What AWS would have answered."""
    if attribute == "arn":
        return f"{ARN}{one.inputs['name']}"
    return "sg-0fedcba9876543210" if attribute == "group" else ROWS[one.type].id


def aws_resources(run: Run) -> list[Registered]:
    return [one for one in run.custom if one.type.startswith("aws:")]


# ── CloudFormation ───────────────────────────────────────────────────────────────────────────────────────────────────


def logical(name: str) -> str:
    return "".join(pascal(part) for part in name.replace("_", "-").replace("/", "-").replace(":", "-").split("-"))


class Template:
    """One template for many runs: a resource that is already there, names of stacks aside, is not put in again."""

    def __init__(self) -> None:
        self.resources: dict[str, Any] = {}
        self.whose: dict[str, str] = {}
        """Run by logical id."""

    def add(self, run: Run, label: str, *, stack_name: str = "stack") -> None:
        """Everything of `run` that is not there yet. Names are made the same first, so that only real differences remain."""
        prefix = run.plan.names.prefix

        def same(value: Any) -> Any:
            text = json.dumps(value, sort_keys=True)
            return json.loads(text.replace(prefix, stack_name).replace(run.plan.stack, stack_name))

        for one in aws_resources(run):
            row = ROWS[one.type]
            inputs = resolved(one.inputs, run, self.reference)
            if row.formation:
                properties = same(formation_properties(inputs, one.type))
                self.put(logical(one.name), {"Type": row.formation, "Properties": properties}, label)
            else:
                self._property(run, one, same(inputs), label)
            if one.type == "aws:ec2/internetGateway:InternetGateway":
                attachment = {"VpcId": inputs["vpcId"], "InternetGatewayId": {"Ref": logical(one.name)}}
                kind = "AWS::EC2::VPCGatewayAttachment"
                self.put(f"{logical(one.name)}Attachment", {"Type": kind, "Properties": attachment}, label)

    @staticmethod
    def reference(one: Registered, attribute: str) -> Any:
        """How other resources refer to it."""
        name = logical(one.name)
        if attribute == "arn":
            return {"Fn::GetAtt": [name, "Arn"]}
        if attribute == "group":
            return {"Fn::GetAtt": [name, "ClusterSecurityGroupId"]}
        by = ROWS[one.type].formation_id
        return {"Fn::GetAtt": [name, by]} if by else {"Ref": name}

    def put(self, name: str, resource: Any, label: str) -> None:
        if name in self.resources and self._content(self.resources[name]) != self._content(resource):
            name = f"{name}{digest(json.dumps(resource, sort_keys=True))}"
        self.resources.setdefault(name, resource)
        self.whose.setdefault(name, label)

    @staticmethod
    def _content(resource: Any) -> Any:
        """Without what is added to it afterwards."""
        return resource | {
            "Properties": {
                key: value
                for key, value in resource["Properties"].items()
                if key not in ("ManagedPolicyArns", "AccessPolicies")
            }
        }

    def _property(self, run: Run, one: Registered, inputs: dict[str, Any], label: str) -> None:
        """What CloudFormation has as a list in another resource."""
        if one.type == "aws:iam/rolePolicyAttachment:RolePolicyAttachment":
            owner = next(role for role in run.of("aws:iam/role:Role") if role.inputs["name"] == one.inputs["role"])
            key, value = "ManagedPolicyArns", inputs["policyArn"]
        else:
            entries = run.of("aws:eks/accessEntry:AccessEntry")
            owner = next(entry for entry in entries if entry.inputs["principalArn"] == one.inputs["principalArn"])
            key = "AccessPolicies"
            value = {"PolicyArn": inputs["policyArn"], "AccessScope": convert(inputs["accessScope"], {}, pascal)}
        held = self.resources[logical(owner.name)]["Properties"].setdefault(key, [])
        if value not in held:
            held.append(value)

    def document(self) -> dict[str, Any]:
        return {"AWSTemplateFormatVersion": "2010-09-09", "Resources": self.resources}


def calls_of(run: Run) -> Iterator[tuple[Registered, Call]]:
    """Every call that creates an AWS resource of `run`."""
    for one in aws_resources(run):
        for call in api_calls(resolved(one.inputs, run, example), one.type):
            yield one, call
