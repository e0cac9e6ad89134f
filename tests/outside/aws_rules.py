"""What neither botocore's models nor cfn-lint know of these inputs (facts/aws-checks.md): rules of our own, each with its source.

On Pulumi's inputs, references resolved to examples.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from recipe import catalogue

Inputs = dict[str, Any]

NIC_TYPES: Final = {
    "interface",
    "efa",
    "efa-only",
}  # EC2 API, LaunchTemplateInstanceNetworkInterfaceSpecificationRequest
PROTOCOLS: Final = {"tcp", "udp", "icmp", "icmpv6", "-1"}  # EC2 API, IpPermission
# EKS user guide, "Amazon EKS add-ons" (names as in describe-addon-versions).
ADDONS: Final = {
    "vpc-cni",
    "kube-proxy",
    "coredns",
    "eks-pod-identity-agent",
    "aws-efs-csi-driver",
    "aws-ebs-csi-driver",
}
# EKS user guide, "Review access policy permissions".
ACCESS_POLICIES: Final = {
    f"arn:aws:eks::aws:cluster-access-policy/AmazonEKS{name}"
    for name in ("AdminPolicy", "ClusterAdminPolicy", "EditPolicy", "ViewPolicy", "AdminViewPolicy")
}
# AWS managed policy reference, by that name; docs/unverified.md has the command that asks AWS.
MANAGED_POLICIES: Final = {
    f"arn:aws:iam::aws:policy/{name}"
    for name in (
        "AmazonEKSClusterPolicy",
        "AmazonEKSWorkerNodePolicy",
        "AmazonEKS_CNI_Policy",
        "AmazonEC2ContainerRegistryPullOnly",
        "service-role/AmazonEFSCSIDriverPolicy",
    )
}
# Service authorisation: who assumes cluster, node and pod roles (EKS user guide, facts/aws.md §7).
SERVICES: Final = {"eks.amazonaws.com", "ec2.amazonaws.com", "pods.eks.amazonaws.com"}


def _launch_template(inputs: Inputs) -> Iterator[str]:
    nics = inputs.get("networkInterfaces", [])
    places = [(nic.get("networkCardIndex", 0), nic.get("deviceIndex", 0)) for nic in nics]
    if len(set(places)) < len(places):
        yield "two interfaces on the same card with the same device index"
    for nic in nics:
        if nic.get("interfaceType", "interface") not in NIC_TYPES:
            yield f"interfaceType {nic['interfaceType']!r} is none of {', '.join(sorted(NIC_TYPES))}"
    if nics and inputs.get("vpcSecurityGroupIds"):
        yield "security groups beside interfaces: EC2 takes them in one place only"
    known = catalogue.GPU_INSTANCES.get(inputs["instanceType"])
    cards = known.network_cards if known else 1
    if any(card >= cards for card, _ in places):
        yield f"a network card that {inputs['instanceType']} does not have ({cards})"
    if len(nics) > cards + 1:
        yield f"{len(nics)} interfaces, {inputs['instanceType']} has {cards} cards"
    if known is None and inputs["instanceType"] not in catalogue.CPU_INSTANCES:
        yield f"{inputs['instanceType']} is not in the catalogue"
    if (text := inputs.get("userData")) is not None:
        try:
            decoded = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            yield "user data is not base64"
        else:
            if not decoded.startswith("MIME-Version: 1.0"):
                yield "user data is no MIME document, which EKS merges its own part into"
    if not 1 <= inputs.get("metadataOptions", {}).get("httpPutResponseHopLimit", 1) <= 64:
        yield "hop limit outside of 1 to 64 (EC2 API)"


def _node_group(inputs: Inputs) -> Iterator[str]:
    size = inputs["scalingConfig"]
    if not size["minSize"] <= size["desiredSize"] <= size["maxSize"]:
        yield "minSize, desiredSize and maxSize are not in order"
    if len({"maxUnavailable", "maxUnavailablePercentage"} & inputs.get("updateConfig", {}).keys()) > 1:
        yield "both maxUnavailable and maxUnavailablePercentage"
    if inputs.get("launchTemplate"):
        for key in {"diskSize", "remoteAccess", "instanceTypes"} & inputs.keys():
            yield f"{key} beside a launch template that says it (EKS user guide, launch-templates)"
    yield from _version(inputs)
    release = inputs.get("releaseVersion")
    if release and not release.startswith(f"{inputs['version']}."):
        yield f"release {release} is not of Kubernetes {inputs['version']}"


def _cluster(inputs: Inputs) -> Iterator[str]:
    if len(inputs["vpcConfig"]["subnetIds"]) < 2:
        yield "EKS asks for subnets in two zones"
    yield from _version(inputs)


def _version(inputs: Inputs) -> Iterator[str]:
    if inputs["version"] not in catalogue.KUBERNETES:
        yield f"Kubernetes {inputs['version']} is not in the catalogue"


def _role(inputs: Inputs) -> Iterator[str]:
    for statement in json.loads(inputs["assumeRolePolicy"])["Statement"]:
        if (service := statement["Principal"].get("Service")) not in SERVICES:
            yield f"service principal {service!r} is none of {', '.join(sorted(SERVICES))}"


def _ingress(inputs: Inputs) -> Iterator[str]:
    if inputs["ipProtocol"] not in PROTOCOLS:
        yield f"protocol {inputs['ipProtocol']!r}"
    if not 0 <= inputs["fromPort"] <= inputs["toPort"] <= 65535:
        yield "ports out of order or range"


def _endpoint(inputs: Inputs) -> Iterator[str]:
    names = {f"com.amazonaws.{region}.{service}" for region in catalogue.REGIONS for service in ("s3", "dynamodb")}
    if inputs["vpcEndpointType"] == "Gateway" and inputs["serviceName"] not in names:
        yield f"no gateway endpoint {inputs['serviceName']} (VPC user guide, gateway endpoints: S3 and DynamoDB)"


def _one_of(key: str, known: set[str]) -> Callable[[Inputs], Iterator[str]]:
    def check(inputs: Inputs) -> Iterator[str]:
        if inputs[key] not in known:
            yield f"{key} {inputs[key]!r} is not among those known here"

    return check


def _access_entry(inputs: Inputs) -> Iterator[str]:
    if inputs["type"] not in {"STANDARD", "EC2_LINUX", "EC2_WINDOWS", "FARGATE_LINUX", "EC2", "HYBRID_LINUX"}:
        yield f"access entry type {inputs['type']!r} (EKS API, CreateAccessEntry)"
    if not inputs["principalArn"].startswith("arn:aws:iam::"):
        yield "the principal is no IAM role or user"


RULES: Final[dict[str, Callable[[Inputs], Iterator[str]]]] = {
    "aws:ec2/launchTemplate:LaunchTemplate": _launch_template,
    "aws:eks/nodeGroup:NodeGroup": _node_group,
    "aws:eks/cluster:Cluster": _cluster,
    "aws:eks/addon:Addon": _one_of("addonName", ADDONS),
    "aws:eks/accessEntry:AccessEntry": _access_entry,
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": _one_of("policyArn", ACCESS_POLICIES),
    "aws:iam/role:Role": _role,
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": _one_of("policyArn", MANAGED_POLICIES),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _ingress,
    "aws:ec2/vpcEndpoint:VpcEndpoint": _endpoint,
}


def broken_rules(type_: str, inputs: Inputs) -> list[str]:
    """What our own rules say against these inputs."""
    try:
        return list(RULES[type_](inputs)) if type_ in RULES else []
    except (KeyError, TypeError):
        return []  # something is missing or of another type: that is for the models to say
