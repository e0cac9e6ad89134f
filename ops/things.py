"""What exists in an account and belongs to one deployment: how it is told apart, what it costs, in which order it can go.

One table, one row per type. Pure: who lists and deletes is in aws_things.py (AWS) and aws_pretend.py (the pretend cloud).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from recipe import catalogue
from recipe.constants import GPU_TAINT_KEY
from recipe.cost import HOURS_PER_MONTH
from recipe.plan import FoundationPlan, Plan

TAGS: Final = ("project", "stack", "deployment")
"""Tags that together say whose a thing is. Nothing without all three is ever adopted or deleted."""
BUSY: Final = ("CREATING", "UPDATING", "DELETING")
"""States that end by themselves."""
FAILED: Final = ("CREATE_FAILED", "FAILED")
"""States of a thing that nothing can be done with but to delete it."""

INSTANCE: Final = "aws:ec2/instance:Instance"
NODE_GROUP: Final = "aws:eks/nodeGroup:NodeGroup"
CLUSTER: Final = "aws:eks/cluster:Cluster"
VOLUME: Final = "aws:ebs/volume:Volume"
INTERFACE: Final = "aws:ec2/networkInterface:NetworkInterface"
LOAD_BALANCER: Final = "aws:lb/loadBalancer:LoadBalancer"
FILE_SYSTEM: Final = "aws:efs/fileSystem:FileSystem"
LUSTRE: Final = "aws:fsx/lustreFileSystem:LustreFileSystem"
SECURITY_GROUP: Final = "aws:ec2/securityGroup:SecurityGroup"
LOG_GROUP: Final = "aws:cloudwatch/logGroup:LogGroup"
ROLE: Final = "aws:iam/role:Role"
RELEASE: Final = "kubernetes:helm.sh/v3:Release"


@dataclass(frozen=True)
class Marks:
    """Whose things are meant: their tags, and the names of what is found by name."""

    tags: Mapping[str, str]
    cluster: str
    """The cluster it runs in: its own, or a base's."""
    owns_cluster: bool
    roles: tuple[str, ...] = ()
    log_groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: FoundationPlan) -> Marks:
        names = plan.names
        tags = {key: plan.tags[key] for key in TAGS}
        if isinstance(plan, Plan) and plan.base is not None:  # what is found by name is the base's
            return cls(tags, names.cluster, owns_cluster=False, roles=(names.benchmark_role,))
        roles = (names.cluster_role, names.node_role, names.efs_role, names.benchmark_role)
        return cls(tags, names.cluster, owns_cluster=True, roles=roles, log_groups=(names.log_group,))

    def on(self, tags: Mapping[str, str]) -> bool:
        """Whether these are the tags of a thing that is meant."""
        return all(tags.get(key) == value for key, value in self.tags.items())


@dataclass(frozen=True)
class Thing:
    """Something that exists. `type` and `id` are Pulumi's; `facts` are its inputs as far as the service tells them, by Pulumi's names."""

    type: str
    id: str
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    status: str = "ACTIVE"
    service: str = ""
    """The service that made it by itself; empty for what a program made."""

    @property
    def name(self) -> str:
        tags = self.facts.get("tags") or {}
        return str(tags.get("Name") or self.facts.get("name") or self.facts.get("nodeGroupName") or "")

    @property
    def key(self) -> tuple[str, str]:
        return self.type, self.id


@dataclass(frozen=True)
class Kind:
    """`rank`: what has a lower one has to be gone first. `by`: the inputs that name exactly one (`tags`: every tag that was asked for)."""

    rank: int
    by: tuple[str, ...] = ()

    @property
    def unique(self) -> bool:
        """Whether the service itself allows only one of that name."""
        return bool(self.by) and "tags" not in self.by


MAKERS: Final = {
    INTERFACE: NODE_GROUP, INSTANCE: NODE_GROUP, SECURITY_GROUP: CLUSTER, LOAD_BALANCER: CLUSTER, VOLUME: CLUSTER, LOG_GROUP: CLUSTER,
}  # fmt: skip
"""What services make by themselves, and for what: without it, it is left over, and may hold up the rest of a destroy (facts/aws.md §9)."""
MACHINES: Final = 3
"""Ranks up to this one run on the routes of the rest: while one of them is left, nothing of the rest may go (facts/aws.md §9)."""
KINDS: Final[dict[str, Kind]] = {
    LOAD_BALANCER: Kind(0),
    NODE_GROUP: Kind(1, ("clusterName", "nodeGroupName")),
    INSTANCE: Kind(2),
    "aws:eks/addon:Addon": Kind(2, ("clusterName", "addonName")),
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": Kind(2, ("clusterName", "principalArn", "policyArn")),
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": Kind(2, ("clusterName", "namespace", "serviceAccount")),
    "aws:eks/accessEntry:AccessEntry": Kind(3, ("clusterName", "principalArn")),
    CLUSTER: Kind(MACHINES, ("name",)),
    "aws:ec2/natGateway:NatGateway": Kind(4, ("subnetId", "tags")),
    "aws:ec2/vpcEndpoint:VpcEndpoint": Kind(4, ("vpcId", "serviceName", "tags")),
    "aws:efs/mountTarget:MountTarget": Kind(4, ("fileSystemId", "subnetId")),
    "aws:efs/accessPoint:AccessPoint": Kind(4, ("fileSystemId", "tags")),
    LUSTRE: Kind(4, ("subnetIds", "tags")),
    VOLUME: Kind(4),
    INTERFACE: Kind(5),
    "aws:ec2/eip:Eip": Kind(5, ("tags",)),
    FILE_SYSTEM: Kind(5, ("creationToken",)),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": Kind(6, ("securityGroupId", "tags")),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": Kind(6, ("securityGroupId", "tags")),
    SECURITY_GROUP: Kind(7, ("vpcId", "name")),
    "aws:ec2/route:Route": Kind(7, ("routeTableId", "destinationCidrBlock")),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": Kind(7, ("routeTableId", "subnetId")),
    "aws:ec2/subnet:Subnet": Kind(8, ("vpcId", "cidrBlock")),
    "aws:ec2/routeTable:RouteTable": Kind(8, ("vpcId", "tags")),
    "aws:ec2/internetGateway:InternetGateway": Kind(9, ("tags",)),
    "aws:ec2/vpc:Vpc": Kind(10, ("tags",)),
    "aws:ec2/launchTemplate:LaunchTemplate": Kind(10, ("name",)),
    "aws:ec2/placementGroup:PlacementGroup": Kind(10, ("name",)),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Kind(10, ("role", "policyArn")),
    "aws:iam/rolePolicy:RolePolicy": Kind(10, ("role", "name")),
    ROLE: Kind(11, ("name",)),
    # Last: a cluster that still logs makes its group again.
    LOG_GROUP: Kind(12, ("name",)),
}


def same(typ: str, inputs: Mapping[str, Any], thing: Thing) -> bool:
    """Whether `thing` is what a create with `inputs` made."""
    kind = KINDS.get(typ)
    if kind is None or not kind.by or thing.type != typ:
        return False
    return all(_agree(name, inputs, thing.facts) for name in kind.by)


def _agree(name: str, inputs: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    wanted, found = inputs.get(name), facts.get(name)
    if name == "tags":
        # An untagged request names nothing.
        tags: Mapping[str, Any] = wanted or {}
        return bool(tags) and all((found or {}).get(key) == value for key, value in tags.items())
    return wanted is not None and bool(wanted == found)


def has_gpus(facts: Mapping[str, Any]) -> bool:
    """Whether a node group is one for GPUs: by the taint that only those have."""
    return any(taint.get("key") == GPU_TAINT_KEY for taint in facts.get("taints") or ())


def in_order(things: Iterable[Thing]) -> list[Thing]:
    """As they can be deleted."""
    return sorted(things, key=lambda thing: (KINDS[thing.type].rank, thing.type, thing.id))


def usd_per_hour(thing: Thing) -> float | None:
    """List price of us-east-1; 0 for what costs nothing or by use only, None where no price is known."""
    facts = thing.facts
    match thing.type:
        case _ if thing.type == INSTANCE:
            return _price(str(facts.get("instanceType")))
        case _ if thing.type == CLUSTER:
            return _price("eks/standard")
        case "aws:ec2/natGateway:NatGateway":
            return _price("nat/hour")
        case "aws:ec2/eip:Eip":
            return _price("ipv4/hour")
        case _ if thing.type == VOLUME:
            return _per_month("ebs-gp3/gb-month", float(facts.get("gb") or 0))
        case _ if thing.type == FILE_SYSTEM:
            return _per_month("efs/storage-gb-month", float(facts.get("bytes") or 0) / 1e9)
        case _ if thing.type == LUSTRE:
            tier = int(facts.get("perUnitStorageThroughput") or 0)
            return _per_month(f"fsx-lustre/{tier}", float(facts.get("storageCapacity") or 0))
        case _ if thing.type == LOAD_BALANCER:
            return None
    return 0.0


def _price(name: str) -> float | None:
    try:
        found = catalogue.price(name)
    except catalogue.UnknownName:
        return None
    return found.usd if found else None


def _per_month(name: str, gb: float) -> float | None:
    usd = _price(name)
    return None if usd is None else usd * gb / HOURS_PER_MONTH


def total(things: Iterable[Thing]) -> tuple[float, bool]:
    """Dollars an hour of all of them, and whether each price is known."""
    prices = [usd_per_hour(thing) for thing in things]
    return sum(price or 0.0 for price in prices), None not in prices
