"""A deployment's things on AWS: listed by tag, by name and by what they hang on, and deleted one by one.

Everything goes through `call` (`AwsAccount.call`): service, operation and parameters by their boto3 names.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from ops import things as kinds
from ops.aws import AwsError
from ops.things import Marks, Thing
from recipe.config import PROJECT

Found = dict[str, Any]


class Call(Protocol):
    def __call__(self, service: str, operation: str, **parameters: Any) -> Found: ...


GONE: Final = (
    "NotFound",
    "NoSuchEntity",
    "DoesNotExist",
    "Malformed",
    "FileSystemNotFound",
    "MountTargetNotFound",
    "AccessPointNotFound",
)
"""Parts of the codes with which services say that something does not exist (any more)."""
_ENDED: Final = ("deleted", "terminated", "shutting-down", "failed")
_STATES: Final = {
    "pending": "CREATING", "creating": "CREATING", "pendingAcceptance": "CREATING", "deleting": "DELETING", "updating": "UPDATING",
    "available": "ACTIVE", "in-use": "ACTIVE", "running": "ACTIVE", "active": "ACTIVE", "provisioning": "CREATING",
}  # fmt: skip


def gone(error: AwsError) -> bool:
    """Whether the error says that the thing does not exist."""
    return any(word in error.code for word in GONE)


def listed(call: Call, marks: Marks) -> tuple[Thing, ...]:
    """Everything of the deployment. Raises AwsError."""
    lister = _Lister(call, marks)
    return tuple({thing.key: thing for part in lister.parts() for thing in part}.values())


def gpu_groups(call: Call) -> tuple[Thing, ...]:
    """Node groups with GPUs that carry the project's tag, in every cluster of the region."""
    found = []
    for cluster in call("eks", "list_clusters")["clusters"]:
        for name in call("eks", "list_nodegroups", clusterName=cluster)["nodegroups"]:
            group = call("eks", "describe_nodegroup", clusterName=cluster, nodegroupName=name)["nodegroup"]
            if _tags(group, "tags").get("project") == PROJECT and kinds.has_gpus(group):
                facts = {
                    "clusterName": cluster,
                    "nodeGroupName": name,
                    "tags": _tags(group, "tags"),
                    "createdAt": group["createdAt"],
                }
                found.append(Thing(kinds.NODE_GROUP, f"{cluster}:{name}", facts, group["status"]))
    return tuple(found)


def _tags(found: Found, key: str = "Tags") -> dict[str, str]:
    listed = found.get(key) or {}
    if isinstance(listed, dict):  # EKS and CloudWatch Logs
        return dict(listed)
    return {tag["Key"]: tag["Value"] for tag in listed}


def _status(word: str | None) -> str:
    return _STATES.get(word or "active", (word or "active").upper())


class _Lister:
    def __init__(self, call: Call, marks: Marks) -> None:
        self._call, self._marks = call, marks
        self._filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in marks.tags.items()]
        self._vpcs: list[str] = []

    def parts(self) -> Iterator[Iterator[Thing]]:
        yield self._network()
        yield self._compute()
        yield self._inside_vpcs()
        yield self._eks()
        yield self._efs()
        yield self._fsx()
        yield self._iam()
        yield self._logs()

    def _ec2(self, operation: str, key: str, **more: Any) -> list[Found]:
        filters = more or {"Filters": self._filters}
        found: list[Found] = self._call("ec2", operation, **filters)[key]
        return found

    def _network(self) -> Iterator[Thing]:
        for vpc in self._ec2("describe_vpcs", "Vpcs"):
            self._vpcs.append(vpc["VpcId"])
            yield Thing("aws:ec2/vpc:Vpc", vpc["VpcId"], {"tags": _tags(vpc), "cidrBlock": vpc.get("CidrBlock")})
        for gateway in self._ec2("describe_internet_gateways", "InternetGateways"):
            vpcs = [one["VpcId"] for one in gateway.get("Attachments", ())]
            facts = {"tags": _tags(gateway), "vpcId": vpcs[0] if vpcs else None}
            yield Thing("aws:ec2/internetGateway:InternetGateway", gateway["InternetGatewayId"], facts)
        for subnet in self._ec2("describe_subnets", "Subnets"):
            facts = {"tags": _tags(subnet), "vpcId": subnet["VpcId"], "cidrBlock": subnet["CidrBlock"]}
            yield Thing("aws:ec2/subnet:Subnet", subnet["SubnetId"], facts)
        for address in self._ec2("describe_addresses", "Addresses"):
            yield Thing("aws:ec2/eip:Eip", address["AllocationId"], {"tags": _tags(address)})
        # The one operation of EC2 whose parameter is called Filter.
        for nat in self._ec2("describe_nat_gateways", "NatGateways", Filter=self._filters):
            if nat["State"] not in _ENDED:
                facts = {"tags": _tags(nat), "subnetId": nat["SubnetId"]}
                yield Thing("aws:ec2/natGateway:NatGateway", nat["NatGatewayId"], facts, _status(nat["State"]))
        for table in self._ec2("describe_route_tables", "RouteTables"):
            yield from self._route_table(table)
        for endpoint in self._ec2("describe_vpc_endpoints", "VpcEndpoints"):
            if endpoint["State"].lower() not in _ENDED:
                facts = {"tags": _tags(endpoint), "vpcId": endpoint["VpcId"], "serviceName": endpoint["ServiceName"]}
                status = _status(endpoint["State"].lower())
                yield Thing("aws:ec2/vpcEndpoint:VpcEndpoint", endpoint["VpcEndpointId"], facts, status)
        for group in self._ec2("describe_security_groups", "SecurityGroups"):
            if group["GroupName"] != "default":  # goes with its VPC, and not before
                yield _security_group(group)
        for rule in self._ec2("describe_security_group_rules", "SecurityGroupRules"):
            way = "Egress" if rule["IsEgress"] else "Ingress"
            typ = f"aws:vpc/securityGroup{way}Rule:SecurityGroup{way}Rule"
            facts = {"tags": _tags(rule), "securityGroupId": rule["GroupId"]}
            yield Thing(typ, rule["SecurityGroupRuleId"], facts)

    @staticmethod
    def _route_table(table: Found) -> Iterator[Thing]:
        made = table["RouteTableId"]
        yield Thing("aws:ec2/routeTable:RouteTable", made, {"tags": _tags(table), "vpcId": table["VpcId"]})
        for link in table.get("Associations", ()):
            if not link.get("Main"):
                facts = {"routeTableId": made, "subnetId": link.get("SubnetId")}
                typ = "aws:ec2/routeTableAssociation:RouteTableAssociation"
                yield Thing(typ, link["RouteTableAssociationId"], facts)
        for route in table.get("Routes", ()):
            if route.get("Origin") == "CreateRoute" and (cidr := route.get("DestinationCidrBlock")):
                facts = {"routeTableId": made, "destinationCidrBlock": cidr}
                yield Thing("aws:ec2/route:Route", route_id(made, cidr), facts)

    def _compute(self) -> Iterator[Thing]:
        for template in self._ec2("describe_launch_templates", "LaunchTemplates"):
            facts = {"tags": _tags(template), "name": template["LaunchTemplateName"]}
            yield Thing("aws:ec2/launchTemplate:LaunchTemplate", template["LaunchTemplateId"], facts)
        for group in self._ec2("describe_placement_groups", "PlacementGroups"):
            if group["State"] not in _ENDED:
                facts = {"tags": _tags(group), "name": group["GroupName"]}
                yield Thing("aws:ec2/placementGroup:PlacementGroup", group["GroupName"], facts, _status(group["State"]))
        for reservation in self._ec2("describe_instances", "Reservations"):
            for instance in reservation["Instances"]:
                if (state := instance["State"]["Name"]) not in _ENDED:
                    facts = {"tags": _tags(instance), "instanceType": instance["InstanceType"]}
                    status = "DELETING" if state == "stopping" else _status(state)
                    yield Thing(kinds.INSTANCE, instance["InstanceId"], facts, status, "Auto Scaling")
        for volume in self._ec2("describe_volumes", "Volumes"):
            yield _volume(volume, "a node's")
        for one in self._ec2("describe_network_interfaces", "NetworkInterfaces"):
            yield from _interface(one)
        if not self._marks.owns_cluster:
            return
        owned = [{"Name": f"tag:kubernetes.io/cluster/{self._marks.cluster}", "Values": ["owned"]}]
        for volume in self._ec2("describe_volumes", "Volumes", Filters=owned):
            yield _volume(volume, "a claim's")

    def _inside_vpcs(self) -> Iterator[Thing]:
        """The side doors: what services put into our VPCs, and what is left of them when those are gone."""
        if not self._vpcs:
            return
        inside = [{"Name": "vpc-id", "Values": self._vpcs}]
        for group in self._ec2("describe_security_groups", "SecurityGroups", Filters=inside):
            if group["GroupName"] != "default":
                yield _security_group(group)
        for one in self._ec2("describe_network_interfaces", "NetworkInterfaces", Filters=inside):
            yield from _interface(one)
        for balancer in self._call("elbv2", "describe_load_balancers")["LoadBalancers"]:
            if balancer.get("VpcId") in self._vpcs:
                facts = {"name": balancer["LoadBalancerName"], "vpcId": balancer["VpcId"]}
                yield Thing(kinds.LOAD_BALANCER, balancer["LoadBalancerArn"], facts, service="a Service")
        for classic in self._call("elb", "describe_load_balancers")["LoadBalancerDescriptions"]:
            if classic.get("VPCId") in self._vpcs:
                facts = {"name": classic["LoadBalancerName"], "vpcId": classic["VPCId"]}
                yield Thing(kinds.LOAD_BALANCER, classic["LoadBalancerName"], facts, service="a Service")

    def _eks(self) -> Iterator[Thing]:
        name = self._marks.cluster
        cluster = self._one("eks", "describe_cluster", "cluster", name=name)
        if cluster is None:
            return
        ours = self._marks.on(_tags(cluster, "tags"))
        if ours:
            facts: dict[str, Any] = {"tags": _tags(cluster, "tags"), "name": name}
            yield Thing(kinds.CLUSTER, name, facts, cluster["status"])
        inner: list[tuple[str, Found, str, str]] = []
        for group in self._call("eks", "list_nodegroups", clusterName=name)["nodegroups"]:
            if found := self._one("eks", "describe_nodegroup", "nodegroup", clusterName=name, nodegroupName=group):
                facts = {"nodeGroupName": group, "createdAt": found.get("createdAt")}
                inner.append((kinds.NODE_GROUP, found | {"facts": facts}, f"{name}:{group}", found["status"]))
        for addon in self._call("eks", "list_addons", clusterName=name)["addons"]:
            found = self._one("eks", "describe_addon", "addon", clusterName=name, addonName=addon)
            if found is not None:
                facts = {"addonName": addon}
                inner.append(("aws:eks/addon:Addon", found | {"facts": facts}, f"{name}:{addon}", found["status"]))
        for summary in self._call("eks", "list_pod_identity_associations", clusterName=name)["associations"]:
            who = {"clusterName": name, "associationId": summary["associationId"]}
            if found := self._one("eks", "describe_pod_identity_association", "association", **who):
                facts = {key: summary[key] for key in ("namespace", "serviceAccount")}
                typ = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
                inner.append((typ, found | {"facts": facts}, summary["associationId"], "ACTIVE"))
        for principal in self._call("eks", "list_access_entries", clusterName=name)["accessEntries"]:
            found = self._one("eks", "describe_access_entry", "accessEntry", clusterName=name, principalArn=principal)
            if found is None:
                continue
            entry = found | {"facts": {"principalArn": principal}}
            inner.append(("aws:eks/accessEntry:AccessEntry", entry, f"{name}:{principal}", "ACTIVE"))
            policies = self._call("eks", "list_associated_access_policies", clusterName=name, principalArn=principal)
            for policy in policies["associatedAccessPolicies"]:
                facts = {"principalArn": principal, "policyArn": policy["policyArn"]}
                typ = "aws:eks/accessPolicyAssociation:AccessPolicyAssociation"
                inner.append((typ, entry | {"facts": facts}, f"{name}#{principal}#{policy['policyArn']}", "ACTIVE"))
        for typ, found, made, status in inner:
            tags = _tags(found, "tags")
            if ours or self._marks.on(tags):
                yield Thing(typ, made, {"clusterName": name, "tags": tags, **found["facts"]}, status)

    def _efs(self) -> Iterator[Thing]:
        for system in self._call("efs", "describe_file_systems")["FileSystems"]:
            made = system["FileSystemId"]
            ours = self._marks.on(_tags(system))
            if ours:
                size = system.get("SizeInBytes", {}).get("Value", 0)
                facts = {"tags": _tags(system), "creationToken": system["CreationToken"], "bytes": size}
                yield Thing(kinds.FILE_SYSTEM, made, facts, _status(system["LifeCycleState"]))
                for target in self._call("efs", "describe_mount_targets", FileSystemId=made)["MountTargets"]:
                    facts = {"fileSystemId": made, "subnetId": target["SubnetId"]}
                    status = _status(target["LifeCycleState"])
                    yield Thing("aws:efs/mountTarget:MountTarget", target["MountTargetId"], facts, status)
        for point in self._call("efs", "describe_access_points")["AccessPoints"]:
            if self._marks.on(_tags(point)):  # also on a file system of another stack
                facts = {"tags": _tags(point), "fileSystemId": point["FileSystemId"]}
                status = _status(point["LifeCycleState"])
                yield Thing("aws:efs/accessPoint:AccessPoint", point["AccessPointId"], facts, status)

    def _fsx(self) -> Iterator[Thing]:
        for system in self._call("fsx", "describe_file_systems")["FileSystems"]:
            if system["FileSystemType"] == "LUSTRE" and self._marks.on(_tags(system)):
                tier = system.get("LustreConfiguration", {}).get("PerUnitStorageThroughput")
                facts = {
                    "tags": _tags(system),
                    "subnetIds": system["SubnetIds"][0],  # Lustre has one; the provider takes it as text
                    "storageCapacity": system["StorageCapacity"],
                    "perUnitStorageThroughput": tier,
                }
                yield Thing(kinds.LUSTRE, system["FileSystemId"], facts, _status(system["Lifecycle"].lower()))

    def _iam(self) -> Iterator[Thing]:
        for name in self._marks.roles:
            role = self._one("iam", "get_role", "Role", RoleName=name)
            if role is None or not self._marks.on(_tags(role)):
                continue
            yield Thing(kinds.ROLE, name, {"name": name, "tags": _tags(role)})
            for policy in self._call("iam", "list_attached_role_policies", RoleName=name)["AttachedPolicies"]:
                arn = policy["PolicyArn"]
                facts = {"role": name, "policyArn": arn}
                yield Thing("aws:iam/rolePolicyAttachment:RolePolicyAttachment", f"{name}/{arn}", facts)
            for inline in self._call("iam", "list_role_policies", RoleName=name)["PolicyNames"]:
                yield Thing("aws:iam/rolePolicy:RolePolicy", f"{name}:{inline}", {"role": name, "name": inline})

    def _logs(self) -> Iterator[Thing]:
        for name in self._marks.log_groups:
            for group in self._call("logs", "describe_log_groups", logGroupNamePrefix=name)["logGroups"]:
                if group["logGroupName"] != name:
                    continue
                tags = self._call("logs", "list_tags_for_resource", resourceArn=group["arn"].removesuffix(":*"))["tags"]
                # EKS makes it again, untagged, when it still logs; the name has the deployment id in it.
                if not tags or self._marks.on(tags):
                    yield Thing(kinds.LOG_GROUP, name, {"name": name, "tags": tags}, service="" if tags else "EKS")

    def _one(self, service: str, operation: str, key: str, **parameters: Any) -> Found | None:
        try:
            found: Found = self._call(service, operation, **parameters)[key]
        except AwsError as error:
            if gone(error):
                return None
            raise
        return found


def _security_group(group: Found) -> Thing:
    tags = _tags(group)
    facts = {"tags": tags, "vpcId": group.get("VpcId"), "name": group["GroupName"]}
    made_by = "EKS" if "aws:eks:cluster-name" in tags else "" if "project" in tags else "a service"
    return Thing(kinds.SECURITY_GROUP, group["GroupId"], facts, service=made_by)


def _interface(one: Found) -> Iterator[Thing]:
    facts = {"tags": _tags(one, "TagSet"), "name": one.get("Description", ""), "vpcId": one.get("VpcId")}
    # In use it belongs to something that is listed itself, or to a service that takes it away.
    if one["Status"] == "available":
        yield Thing(kinds.INTERFACE, one["NetworkInterfaceId"], facts, service="a service")


def _volume(volume: Found, whose: str) -> Thing:
    facts = {"tags": _tags(volume), "gb": volume["Size"]}
    return Thing(kinds.VOLUME, volume["VolumeId"], facts, _status(volume["State"]), whose)


def route_id(table: str, cidr: str) -> str:
    """What the provider calls a route: `r-` with its table and the CRC-32 of its destination (hashicorp/terraform-provider-aws
    internal/service/ec2/vpc_route.go routeCreateID)."""
    return f"r-{table}{zlib.crc32(cidr.encode())}"


# ── deleting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def remove(call: Call, thing: Thing) -> None:
    """Ask AWS to delete `thing`; some are gone only a while later. Raises AwsError, also where it does not exist."""
    _REMOVE[thing.type](call, thing)


def _simply(
    service: str, operation: str, parameter: str, fact: str = "", *, many: bool = False
) -> Callable[[Call, Thing], None]:
    """A delete by id, or by another `fact`; `many`: the operation takes a list."""

    def run(call: Call, thing: Thing) -> None:
        named = thing.facts[fact] if fact else thing.id
        call(service, operation, **{parameter: [named] if many else named})

    return run


def _in_cluster(operation: str, **facts: str) -> Callable[[Call, Thing], None]:
    def run(call: Call, thing: Thing) -> None:
        named = {parameter: thing.facts[fact] for parameter, fact in facts.items()}
        call("eks", operation, clusterName=thing.facts["clusterName"], **named)

    return run


def _load_balancer(call: Call, thing: Thing) -> None:
    if thing.id.startswith("arn:"):
        call("elbv2", "delete_load_balancer", LoadBalancerArn=thing.id)
    else:
        call("elb", "delete_load_balancer", LoadBalancerName=thing.id)


def _association(call: Call, thing: Thing) -> None:
    call("eks", "delete_pod_identity_association", clusterName=thing.facts["clusterName"], associationId=thing.id)


def _gateway(call: Call, thing: Thing) -> None:
    if vpc := thing.facts.get("vpcId"):
        call("ec2", "detach_internet_gateway", InternetGatewayId=thing.id, VpcId=vpc)
    call("ec2", "delete_internet_gateway", InternetGatewayId=thing.id)


def _route(call: Call, thing: Thing) -> None:
    table, cidr = thing.facts["routeTableId"], thing.facts["destinationCidrBlock"]
    call("ec2", "delete_route", RouteTableId=table, DestinationCidrBlock=cidr)


def _rule(call: Call, thing: Thing) -> None:
    way = "egress" if "Egress" in thing.type else "ingress"
    group, rules = thing.facts["securityGroupId"], [thing.id]
    call("ec2", f"revoke_security_group_{way}", GroupId=group, SecurityGroupRuleIds=rules)


def _policy(call: Call, thing: Thing) -> None:
    call("iam", "detach_role_policy", RoleName=thing.facts["role"], PolicyArn=thing.facts["policyArn"])


def _inline(call: Call, thing: Thing) -> None:
    call("iam", "delete_role_policy", RoleName=thing.facts["role"], PolicyName=thing.facts["name"])


_REMOVE: Final[dict[str, Callable[[Call, Thing], None]]] = {
    kinds.LOAD_BALANCER: _load_balancer,
    kinds.NODE_GROUP: _in_cluster("delete_nodegroup", nodegroupName="nodeGroupName"),
    kinds.INSTANCE: _simply("ec2", "terminate_instances", "InstanceIds", many=True),
    "aws:eks/addon:Addon": _in_cluster("delete_addon", addonName="addonName"),
    "aws:eks/accessEntry:AccessEntry": _in_cluster("delete_access_entry", principalArn="principalArn"),
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": _in_cluster(
        "disassociate_access_policy", principalArn="principalArn", policyArn="policyArn"
    ),
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": _association,
    kinds.CLUSTER: _simply("eks", "delete_cluster", "name"),
    "aws:ec2/natGateway:NatGateway": _simply("ec2", "delete_nat_gateway", "NatGatewayId"),
    "aws:ec2/vpcEndpoint:VpcEndpoint": _simply("ec2", "delete_vpc_endpoints", "VpcEndpointIds", many=True),
    "aws:efs/mountTarget:MountTarget": _simply("efs", "delete_mount_target", "MountTargetId"),
    "aws:efs/accessPoint:AccessPoint": _simply("efs", "delete_access_point", "AccessPointId"),
    kinds.VOLUME: _simply("ec2", "delete_volume", "VolumeId"),
    kinds.INTERFACE: _simply("ec2", "delete_network_interface", "NetworkInterfaceId"),
    "aws:ec2/eip:Eip": _simply("ec2", "release_address", "AllocationId"),
    # Lustre makes no final backup unless it is asked for one (FSx API, DeleteFileSystemLustreConfiguration).
    kinds.LUSTRE: _simply("fsx", "delete_file_system", "FileSystemId"),
    kinds.FILE_SYSTEM: _simply("efs", "delete_file_system", "FileSystemId"),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _rule,
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _rule,
    kinds.SECURITY_GROUP: _simply("ec2", "delete_security_group", "GroupId"),
    "aws:ec2/route:Route": _route,
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _simply("ec2", "disassociate_route_table", "AssociationId"),
    "aws:ec2/subnet:Subnet": _simply("ec2", "delete_subnet", "SubnetId"),
    "aws:ec2/routeTable:RouteTable": _simply("ec2", "delete_route_table", "RouteTableId"),
    "aws:ec2/internetGateway:InternetGateway": _gateway,
    "aws:ec2/vpc:Vpc": _simply("ec2", "delete_vpc", "VpcId"),
    "aws:ec2/launchTemplate:LaunchTemplate": _simply("ec2", "delete_launch_template", "LaunchTemplateId"),
    "aws:ec2/placementGroup:PlacementGroup": _simply("ec2", "delete_placement_group", "GroupName", "name"),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": _policy,
    "aws:iam/rolePolicy:RolePolicy": _inline,
    kinds.ROLE: _simply("iam", "delete_role", "RoleName"),
    kinds.LOG_GROUP: _simply("logs", "delete_log_group", "logGroupName"),
}
assert _REMOVE.keys() == kinds.KINDS.keys(), "what can be listed can be deleted"
