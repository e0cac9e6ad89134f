"""The AWS half: what EC2, EKS, EFS, IAM and CloudWatch Logs do with a request. Rules come from `rules`; here are their consequences."""

from __future__ import annotations

import base64
import copy
import hashlib
import ipaddress
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from recipe import catalogue

from . import rules
from .machines import zone_id, zone_name
from .rules import (
    ACCESS_ENTRY,
    ACCESS_POINT,
    ACCESS_POLICY,
    ADDON,
    BUCKET,
    BUCKET_ACCESS,
    CLUSTER,
    EGRESS_RULE,
    EIP,
    FILE_SYSTEM,
    IGW,
    INGRESS_RULE,
    INLINE_POLICY,
    INSTANCE,
    LAUNCH_TEMPLATE,
    LOAD_BALANCER,
    LOG_GROUP,
    LUSTRE,
    MOUNT_TARGET,
    NAT,
    NETWORK_INTERFACE,
    NODE_GROUP,
    PLACEMENT_GROUP,
    POD_IDENTITY,
    ROLE,
    ROLE_POLICY,
    ROUTE,
    ROUTE_TABLE,
    ROUTE_TABLE_ASSOCIATION,
    SECURITY_GROUP,
    SUBNET,
    VOLUME,
    VPC,
    VPC_ENDPOINT,
)  # fmt: skip
from .store import Record
from .values import UNKNOWN, CloudError, Inputs, Unfinished, get, has_unknown, many, within

if TYPE_CHECKING:
    from .cloud import Call, Cloud

_PREFIX = {
    VPC: "vpc-", IGW: "igw-", SUBNET: "subnet-", EIP: "eipalloc-", NAT: "nat-", ROUTE_TABLE: "rtb-", ROUTE_TABLE_ASSOCIATION: "rtbassoc-", VPC_ENDPOINT: "vpce-",
    SECURITY_GROUP: "sg-", INGRESS_RULE: "sgr-", EGRESS_RULE: "sgr-", LAUNCH_TEMPLATE: "lt-", FILE_SYSTEM: "fs-", MOUNT_TARGET: "fsmt-", ACCESS_POINT: "fsap-",
    LUSTRE: "fs-",
    POD_IDENTITY: "a-", ROUTE: "r-", ROLE_POLICY: "",
}  # fmt: skip
_NAMED = {
    ROLE: "name",
    LOG_GROUP: "name",
    CLUSTER: "name",
    PLACEMENT_GROUP: "name",
    BUCKET: "bucket",
    BUCKET_ACCESS: "bucket",
}
NAME_FIELD = {
    **{k: v for k, v in _NAMED.items() if k != BUCKET_ACCESS},
    INLINE_POLICY: "name",
    LAUNCH_TEMPLATE: "name",
    SECURITY_GROUP: "name",
    NODE_GROUP: "nodeGroupName",
}
_ARN = {
    VPC: ("ec2", "vpc/{id}"), IGW: ("ec2", "internet-gateway/{id}"), SUBNET: ("ec2", "subnet/{id}"), EIP: ("ec2", "elastic-ip/{id}"),
    NAT: ("ec2", "natgateway/{id}"), ROUTE_TABLE: ("ec2", "route-table/{id}"), VPC_ENDPOINT: ("ec2", "vpc-endpoint/{id}"), SECURITY_GROUP: ("ec2", "security-group/{id}"),
    INGRESS_RULE: ("ec2", "security-group-rule/{id}"), EGRESS_RULE: ("ec2", "security-group-rule/{id}"), LAUNCH_TEMPLATE: ("ec2", "launch-template/{id}"),
    PLACEMENT_GROUP: ("ec2", "placement-group/{id}"), LOG_GROUP: ("logs", "log-group:{id}"), CLUSTER: ("eks", "cluster/{id}"),
    FILE_SYSTEM: ("elasticfilesystem", "file-system/{id}"), ACCESS_POINT: ("elasticfilesystem", "access-point/{id}"),
    LUSTRE: ("fsx", "file-system/{id}"),
}  # fmt: skip
_UNTAGGED = {ROUTE, ROUTE_TABLE_ASSOCIATION, ROLE_POLICY, INLINE_POLICY, BUCKET_ACCESS, ACCESS_POLICY, MOUNT_TARGET}
_VERB = {CLUSTER: "EKS Cluster", NODE_GROUP: "EKS Node Group", ADDON: "EKS Add-On", ROLE: "IAM Role", LAUNCH_TEMPLATE: "EC2 Launch Template", SUBNET: "EC2 Subnet",
         FILE_SYSTEM: "EFS File System", MOUNT_TARGET: "EFS Mount Target", LUSTRE: "FSx for Lustre File System", NAT: "EC2 NAT Gateway", LOG_GROUP: "CloudWatch Logs Log Group"}  # fmt: skip
# Add-ons with a Deployment need a node; the others are DaemonSets, which are content with none.
_NEEDS_NODE = frozenset({"coredns", "aws-efs-csi-driver", "aws-ebs-csi-driver", "aws-fsx-csi-driver", "metrics-server"})


class Aws:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._store = cloud.store

    # ---- computed outputs -------------------------------------------------------------------------------------------------

    def arn(self, service: str, resource: str) -> str:
        region = "" if service == "iam" else self._cloud.region
        return f"arn:aws:{service}:{region}:{self._cloud.account}:{resource}"

    def computed(self, typ: str, id: str, inputs: Inputs) -> Inputs:
        """Outputs that the service makes, beside the inputs. The keys are the same in a preview."""
        # Another one for every create, also of the same name: endpoints and the ids that end ARNs are never given twice.
        token = hashlib.sha256(f"{typ}{id}{self._cloud.store.counter}".encode()).hexdigest()
        out: Inputs = {}
        if typ in _ARN:
            service, resource = _ARN[typ]
            out["arn"] = self.arn(service, resource.format(id=id))
        if typ not in _UNTAGGED:
            out["tagsAll"] = get(inputs, "tags", {})
        if typ not in (ROLE, ROLE_POLICY, INLINE_POLICY):
            out["region"] = self._cloud.region
        if typ in (
            VPC,
            SUBNET,
            IGW,
            ROUTE_TABLE,
            SECURITY_GROUP,
            VPC_ENDPOINT,
            FILE_SYSTEM,
            MOUNT_TARGET,
            ACCESS_POINT,
            LUSTRE,
        ):
            out["ownerId"] = self._cloud.account
        address = f"203.0.113.{1 + int(token[:4], 16) % 250}"  # TEST-NET-3: nobody's
        match typ:
            case rules.VPC:
                main = {k: f"{p}0{token[:16]}" for k, p in (("mainRouteTableId", "rtb-"), ("defaultRouteTableId", "rtb-"), ("defaultSecurityGroupId", "sg-"),
                        ("defaultNetworkAclId", "acl-"), ("dhcpOptionsId", "dopt-"))}  # fmt: skip
                out |= {"enableDnsSupport": True, "enableDnsHostnames": False, "instanceTenancy": "default", **main}
            case rules.SUBNET:
                zone = inputs.get("availabilityZone") or zone_name(
                    self._cloud.region, str(inputs.get("availabilityZoneId"))
                )
                out |= {
                    "availabilityZone": zone,
                    "availabilityZoneId": inputs.get("availabilityZoneId") or zone_id(self._cloud.region, str(zone)),
                }
            case rules.EIP:
                out |= {
                    "allocationId": id,
                    "publicIp": address,
                    "domain": "vpc",
                    "publicDns": f"ec2-{address.replace('.', '-')}.compute.amazonaws.com",
                }
            case rules.NAT:
                eip = self._store.find(EIP, inputs.get("allocationId"))
                out |= {"publicIp": eip.outputs["publicIp"] if eip else "", "privateIp": "10.0.0.10", "networkInterfaceId": f"eni-0{token[:16]}",
                        "associationId": f"eipassoc-0{token[:16]}", "connectivityType": "public"}  # fmt: skip
            case rules.ROUTE:
                out |= {"state": "active", "origin": "CreateRoute"}
            case rules.VPC_ENDPOINT:
                out |= {
                    "state": "available",
                    "prefixListId": f"pl-{token[:8]}",
                    "vpcEndpointType": "Gateway",
                    "cidrBlocks": ["198.51.100.0/24"],
                    "networkInterfaceIds": [],
                }
            case rules.SECURITY_GROUP:
                out |= {"description": "Managed by Pulumi"}
            case rules.INGRESS_RULE | rules.EGRESS_RULE:
                out |= {"securityGroupRuleId": id}
            case rules.ROLE:
                out |= {"arn": self.arn("iam", f"role{get(inputs, 'path', '/')}{id}"), "uniqueId": f"AROA{token[:17].upper()}", "createDate": "2026-11-23T00:00:00Z",
                        "path": "/", "maxSessionDuration": 3600}  # fmt: skip
            case rules.BUCKET:
                out |= {"arn": f"arn:aws:s3:::{id}", "bucketDomainName": f"{id}.s3.amazonaws.com", "bucketRegion": self._cloud.region, "hostedZoneId": "Z0000000000000",
                        "bucketRegionalDomainName": f"{id}.s3.{self._cloud.region}.amazonaws.com", "forceDestroy": False, "objectLockEnabled": False}  # fmt: skip
            case rules.CLUSTER:
                ca = base64.b64encode(
                    f"-----BEGIN CERTIFICATE-----\n{token}\n-----END CERTIFICATE-----\n".encode()
                ).decode()
                issuer = f"https://oidc.eks.{self._cloud.region}.amazonaws.com/id/{token[:32].upper()}"
                out |= {"endpoint": f"https://{token[:32].upper()}.gr7.{self._cloud.region}.eks.amazonaws.com", "certificateAuthority": {"data": ca},
                        "certificateAuthorities": [{"data": ca}], "identities": [{"oidcs": [{"issuer": issuer}]}], "platformVersion": "eks.1", "status": "ACTIVE",
                        "createdAt": "2026-11-23T00:00:00Z", "clusterId": "", "version": get(inputs, "version", "1.35")}  # fmt: skip
            case rules.ADDON:
                out |= {"arn": self.arn("eks", f"addon/{id.replace(':', '/')}/{token[:8]}"), "addonVersion": get(inputs, "addonVersion", "v1.0.0-eksbuild.1"),
                        "createdAt": "2026-11-23T00:00:00Z", "modifiedAt": "2026-11-23T00:00:00Z"}  # fmt: skip
            case rules.ACCESS_ENTRY:
                out |= {"accessEntryArn": self.arn("eks", f"access-entry/{id.partition(':')[0]}/{token[:8]}"), "createdAt": "2026-11-23T00:00:00Z",
                        "modifiedAt": "2026-11-23T00:00:00Z", "userName": inputs.get("principalArn"), "type": "STANDARD"}  # fmt: skip
            case rules.ACCESS_POLICY:
                out |= {"associatedAt": "2026-11-23T00:00:00Z", "modifiedAt": "2026-11-23T00:00:00Z"}
            case rules.POD_IDENTITY:
                out |= {
                    "associationId": id,
                    "associationArn": self.arn("eks", f"podidentityassociation/{inputs.get('clusterName')}/{id}"),
                    "externalId": token[:32],
                }
            case rules.LAUNCH_TEMPLATE:
                out |= {"latestVersion": 1, "defaultVersion": 1}
            case rules.PLACEMENT_GROUP:
                out |= {"placementGroupId": f"pg-0{token[:16]}"}
            case rules.NODE_GROUP:
                name = str(inputs.get("nodeGroupName"))
                out |= {"arn": self.arn("eks", f"nodegroup/{inputs.get('clusterName')}/{name}/{token[:8]}"), "status": "ACTIVE", "capacityType": "ON_DEMAND",
                        "resources": [{"autoscalingGroups": [{"name": f"eks-{name}-{token[:8]}"}], "remoteAccessSecurityGroupId": ""}], "releaseVersion": "", "version": "1.35",
                        "amiType": "AL2023_x86_64_STANDARD"}  # fmt: skip
            case rules.FILE_SYSTEM:
                out |= {"dnsName": f"{id}.efs.{self._cloud.region}.amazonaws.com", "numberOfMountTargets": 0, "creationToken": f"token-{token[:20]}", "name": "",
                        "performanceMode": "generalPurpose", "sizeInBytes": [{"value": 6144}], "throughputMode": "bursting", "encrypted": False}  # fmt: skip
            case rules.MOUNT_TARGET:
                subnet = self._store.find(SUBNET, inputs.get("subnetId"))
                zone = subnet.field("availabilityZone") if subnet else ""
                fs = inputs.get("fileSystemId")
                out |= {"availabilityZoneId": subnet.field("availabilityZoneId") if subnet else "", "availabilityZoneName": zone, "ipAddress": "10.0.1.20",
                        "dnsName": f"{fs}.efs.{self._cloud.region}.amazonaws.com", "mountTargetDnsName": f"{zone}.{fs}.efs.{self._cloud.region}.amazonaws.com",
                        "networkInterfaceId": f"eni-0{token[:16]}", "fileSystemArn": self.arn("elasticfilesystem", f"file-system/{fs}")}  # fmt: skip
            case rules.LUSTRE:
                subnet = self._store.find(SUBNET, inputs.get("subnetIds"))
                out |= {"dnsName": f"{id}.fsx.{self._cloud.region}.amazonaws.com", "mountName": token[:8], "networkInterfaceIds": [f"eni-0{token[:16]}"],
                        "vpcId": subnet.field("vpcId") if subnet else "", "fileSystemTypeVersion": "2.15", "weeklyMaintenanceStartTime": "1:05:00"}  # fmt: skip
            case rules.ACCESS_POINT:
                out |= {"fileSystemArn": self.arn("elasticfilesystem", f"file-system/{inputs.get('fileSystemId')}")}
        return out

    def outputs(self, typ: str, id: str, inputs: Inputs) -> Inputs:
        """Inputs as the service holds them, with everything it adds."""
        out = {**self.computed(typ, id, inputs), **copy.deepcopy(inputs)}
        if typ == CLUSTER:
            vpc = {
                "clusterSecurityGroupId": "",
                "vpcId": "",
                "endpointPrivateAccess": False,
                "endpointPublicAccess": True,
                "publicAccessCidrs": ["0.0.0.0/0"],
            }
            out["vpcConfig"] = {**vpc, **get(inputs, "vpcConfig", {})}
        return out

    def preview(self, typ: str, inputs: Inputs) -> Inputs:
        """What a preview can say: the inputs, and UNKNOWN for all the rest."""
        computed: Inputs = dict.fromkeys(self.computed(typ, "", {}), UNKNOWN)
        computed |= {
            k: v for k, v in (("tagsAll", get(inputs, "tags", {})), ("region", self._cloud.region)) if k in computed
        }
        out = {**computed, **copy.deepcopy(inputs)}
        if typ == CLUSTER:
            out["vpcConfig"] = {"clusterSecurityGroupId": UNKNOWN, "vpcId": UNKNOWN, **get(inputs, "vpcConfig", {})}
        if typ == SUBNET and isinstance(zone := inputs.get("availabilityZoneId"), str):
            out["availabilityZone"] = zone_name(self._cloud.region, zone) or UNKNOWN
        return out

    # ---- creating ---------------------------------------------------------------------------------------------------------

    def check(self, typ: str, inputs: Inputs) -> Iterator[tuple[str, str]]:
        """What can be said of the inputs alone: (property, reason)."""
        if typ == SUBNET:
            zone = inputs.get("availabilityZoneId")
            if isinstance(zone, str) and zone_name(self._cloud.region, zone) is None:
                yield (
                    "availabilityZoneId",
                    rules.says("subnet.zone-of-region").format(zone=zone)
                    + f" (the provider's region is {self._cloud.region})",
                )
        if typ == NODE_GROUP:
            for name in many(inputs.get("instanceTypes")):
                if self._cloud.machines.get(str(name)) is None:
                    yield "instanceTypes", rules.says("instance.type-exists").format(type=name)
        if (
            typ == LAUNCH_TEMPLATE
            and isinstance(name := inputs.get("instanceType"), str)
            and self._cloud.machines.get(name) is None
        ):
            yield "instanceType", rules.says("instance.type-exists").format(type=name)
        size, tier = inputs.get("storageCapacity"), inputs.get("perUnitStorageThroughput")
        if typ == LUSTRE and isinstance(size, int | float) and isinstance(tier, int | float):
            persistent = (inputs.get("deploymentType"), inputs.get("storageType", "SSD")) == ("PERSISTENT_2", "SSD")
            if persistent and not ((size == 1200 or (size > 0 and size % 2400 == 0)) and tier in (125, 250, 500, 1000)):
                yield "storageCapacity", rules.says("lustre.size").format(size=f"{size:g}", tier=f"{tier:g}")
        if typ in (VPC, SUBNET) and isinstance(cidr := inputs.get("cidrBlock"), str):
            try:
                ipaddress.ip_network(cidr)
            except ValueError as error:
                yield "cidrBlock", f"InvalidParameterValue: Value ({cidr}) for parameter cidrBlock is invalid: {error}"

    def make_id(self, typ: str, inputs: Inputs) -> str:
        match typ:
            case _ if typ in _NAMED:
                return str(inputs[_NAMED[typ]])
            case rules.NODE_GROUP:
                return f"{inputs['clusterName']}:{inputs['nodeGroupName']}"
            case rules.ADDON:
                return f"{inputs['clusterName']}:{inputs['addonName']}"
            case rules.ACCESS_ENTRY:
                return f"{inputs['clusterName']}:{inputs['principalArn']}"
            case rules.ACCESS_POLICY:
                return f"{inputs['clusterName']}#{inputs['principalArn']}#{inputs['policyArn']}"
            case rules.INLINE_POLICY:
                return f"{inputs['role']}:{inputs['name']}"
            case rules.ROLE_POLICY:
                return f"{inputs['role']}/{inputs['policyArn']}"
        return self._store.new_id(_PREFIX[typ])

    def refuse(self, typ: str, text: str, verb: str = "creating", name: str = "") -> CloudError:
        label = _VERB.get(typ, typ.rpartition(":")[2])
        return CloudError(f"{verb} {label}{f' ({name})' if name else ''}: {text}")

    def validate(self, call: Call) -> None:
        """Raise CloudError for what the service refuses at once."""
        typ, inputs = call.type, call.inputs
        if unknown := [k for k, v in inputs.items() if has_unknown(v)]:
            raise self.refuse(typ, f"unknown value for {', '.join(unknown)}", name=call.name)
        for row in rules.refers(typ):
            for value in many(get(inputs, row.field)):
                if self._store.find(row.target, value) is None:
                    raise self.refuse(typ, row.error.format(value=value), name=call.name)
        for row2 in rules.one_of(typ):
            value = get(inputs, row2.field)
            if value is not None and value not in row2.values:
                raise self.refuse(
                    typ,
                    f"InvalidParameterException: {row2.field}: {value!r} is not one of {', '.join(row2.values)}",
                    name=call.name,
                )
        if failures := list(self.check(typ, inputs)):
            raise self.refuse(typ, failures[0][1], name=call.name)
        self._collide(call)
        special: dict[str, Callable[[Call], None]] = {
            SUBNET: self._validate_subnet,
            CLUSTER: self._validate_cluster,
            NODE_GROUP: self._validate_node_group,
            ACCESS_POLICY: self._validate_access_policy,
            LAUNCH_TEMPLATE: self._validate_launch_template,
            LUSTRE: self._validate_lustre,
        }
        if typ in special:
            special[typ](call)

    def _scope(self, row: rules.Unique, inputs: Inputs, record: Record | None = None) -> tuple[str, ...] | None:
        values: list[Any] = []
        for path in row.scope:
            if path == "@zone":
                subnet = self._store.find(SUBNET, inputs.get("subnetId"))
                values.append(subnet.field("availabilityZone") if subnet else None)
            else:
                values.append(get(inputs, path) if record is None else record.field(path))
        return (
            tuple(json.dumps(v, sort_keys=True, default=str) for v in values)
            if any(v is not None for v in values)
            else None
        )

    def _collide(self, call: Call) -> None:
        row = rules.UNIQUE.get(call.type)
        if row is None:
            return
        mine = self._scope(row, call.inputs)
        for other in self._store.of(call.type):
            if mine is not None and self._scope(row, other.inputs, other) == mine:
                words = {**other.inputs, **call.inputs, "other": other.id}
                raise self.refuse(
                    call.type, row.error.format(**{k: words.get(k, "") for k in {*words, *row.scope}}), name=call.name
                )

    def _validate_subnet(self, call: Call) -> None:
        cidr = call.inputs.get("cidrBlock")
        vpc = self._store.find(VPC, call.inputs["vpcId"])
        if not cidr or vpc is None:
            return
        mine = ipaddress.ip_network(cidr)
        if not mine.subnet_of(ipaddress.ip_network(vpc.inputs["cidrBlock"])):  # type: ignore[arg-type]
            raise self.refuse(SUBNET, rules.says("subnet.in-vpc").format(cidr=cidr), name=call.name)
        for other in self._store.of(SUBNET):
            if other.inputs["vpcId"] == call.inputs["vpcId"] and mine.overlaps(
                ipaddress.ip_network(other.inputs["cidrBlock"])
            ):
                raise self.refuse(SUBNET, rules.UNIQUE[SUBNET].error.format(cidrBlock=cidr), name=call.name)

    def _validate_cluster(self, call: Call) -> None:
        subnets = [self._store.find(SUBNET, s) for s in many(get(call.inputs, "vpcConfig.subnetIds"))]
        if len({s.field("availabilityZone") for s in subnets if s}) < 2:
            raise self.refuse(CLUSTER, rules.says("cluster.two-zones"), name=call.name)
        # The provider retries this one for the two minutes IAM takes to spread.
        role = self._store.find(ROLE, call.inputs["roleArn"])
        if role and not self._cloud.clock.wait_for(lambda: self._has_policy(role, "AmazonEKSClusterPolicy"), 120):
            raise self.refuse(CLUSTER, rules.says("cluster.role-policy"), name=call.name)

    def _has_policy(self, role: Record, policy: str) -> bool:
        return any(
            p.inputs["role"] == role.id and str(p.inputs["policyArn"]).endswith("/" + policy)
            for p in self._store.of(ROLE_POLICY)
        )

    def _validate_access_policy(self, call: Call) -> None:
        if self._store.find(ACCESS_ENTRY, f"{call.inputs['clusterName']}:{call.inputs['principalArn']}") is None:
            raise self.refuse(ACCESS_POLICY, rules.says("access-policy.needs-entry"), name=call.name)

    def _validate_launch_template(self, call: Call) -> None:
        inputs = call.inputs
        interfaces = many(inputs.get("networkInterfaces"))
        if interfaces and (inputs.get("vpcSecurityGroupIds") or inputs.get("securityGroupNames")):
            raise self.refuse(LAUNCH_TEMPLATE, rules.says("launch-template.groups-on-interfaces"), name=call.name)
        if len(interfaces) > 1 and any("associatePublicIpAddress" in i for i in interfaces):
            raise self.refuse(LAUNCH_TEMPLATE, rules.says("launch-template.no-public-ip"), name=call.name)
        places = [(get(i, "networkCardIndex", 0), get(i, "deviceIndex", 0)) for i in interfaces]
        first = next((i for i, p in zip(interfaces, places, strict=True) if p == (0, 0)), None)
        if interfaces and (len(set(places)) < len(places) or first is None or first.get("interfaceType") == "efa-only"):
            raise self.refuse(
                LAUNCH_TEMPLATE,
                "InvalidParameterCombination: " + rules.says("launch-template.first-interface"),
                name=call.name,
            )
        for group in [g for i in interfaces for g in many(i.get("securityGroups"))] + many(
            inputs.get("vpcSecurityGroupIds")
        ):
            if self._store.find(SECURITY_GROUP, group) is None:
                raise self.refuse(
                    LAUNCH_TEMPLATE,
                    f"InvalidGroup.NotFound: The security group '{group}' does not exist",
                    name=call.name,
                )

    def _validate_lustre(self, call: Call) -> None:
        groups = [str(one) for one in many(call.inputs.get("securityGroupIds"))]
        if not any(self.lets_in(groups, [one], *rules.LUSTRE_PORTS[0]) for one in groups):
            raise self.refuse(LUSTRE, rules.says("lustre.own-ports"), name=call.name)

    def lets_in(self, groups: list[str], sources: list[str], first: int, last: int) -> bool:
        """Whether one of `groups` opens these ports to a member of one of `sources`."""
        return any(
            one.inputs["securityGroupId"] in groups
            and one.inputs.get("referencedSecurityGroupId") in sources
            and rules.lets_in(one.inputs, first, last)
            for one in self._store.of(INGRESS_RULE)
        )

    def template(self, inputs: Inputs) -> Inputs:
        """The launch template a node group uses, or nothing."""
        found = self._store.find(
            LAUNCH_TEMPLATE, get(inputs, "launchTemplate.id") or get(inputs, "launchTemplate.name")
        )
        return found.inputs if found else {}

    def _validate_node_group(self, call: Call) -> None:
        inputs, template = call.inputs, self.template(call.inputs)

        def refuse(key: str) -> CloudError:
            return self.refuse(NODE_GROUP, rules.says(key), name=call.name)

        if any("subnetId" in i for i in many(template.get("networkInterfaces"))):
            raise refuse("launch-template.no-subnet")
        if "iamInstanceProfile" in template:
            raise refuse("launch-template.no-profile")
        if template.get("instanceType") and inputs.get("instanceTypes"):
            raise refuse("launch-template.one-type")
        if template and inputs.get("diskSize"):
            raise refuse("launch-template.disk")
        if inputs.get("capacityType") == "CAPACITY_BLOCK":
            if not (
                get(template, "instanceMarketOptions.marketType") == "capacity-block"
                and get(template, "capacityReservationSpecification.capacityReservationTarget.capacityReservationId")
                and template.get("instanceType")
            ):
                raise refuse("capacity-block.template")
            if get(template, "placement.groupName"):
                raise refuse("capacity-block.no-placement-group")
        scaling = inputs["scalingConfig"]
        if not scaling["minSize"] <= scaling["desiredSize"] <= scaling["maxSize"]:
            raise self.refuse(
                NODE_GROUP,
                f"InvalidParameterException: minSize <= desiredSize <= maxSize does not hold for {scaling}",
                name=call.name,
            )
        cluster = self._store.find(CLUSTER, inputs["clusterName"])
        if cluster and cluster.status != "ACTIVE":
            raise self.refuse(
                NODE_GROUP, f"ResourceInUseException: Cluster '{cluster.id}' is not in ACTIVE status", name=call.name
            )

    def create(self, call: Call) -> tuple[str, Inputs]:
        self.validate(call)
        made = self.make_id(call.type, call.inputs)
        record = self._cloud.accept(call, made, self.outputs(call.type, made, call.inputs))
        match call.type:
            case rules.CLUSTER:
                self._create_cluster(call, record)
            case rules.ADDON:
                self._create_addon(call, record)
            case rules.NODE_GROUP:
                self._create_node_group(call, record)
            case _:
                self._cloud.spend(call, self._cloud.durations.of(call.type, "create"))
                if call.type == MOUNT_TARGET:
                    record.extra["usable_at"] = self._cloud.clock.now() + self._cloud.durations["mount-target.dns"]
        if record.status == "CREATING":
            record.status = "ACTIVE"
        return record.id, copy.deepcopy(record.outputs)

    def _create_cluster(self, call: Call, record: Record) -> None:
        subnet = self._store.find(SUBNET, many(get(call.inputs, "vpcConfig.subnetIds"))[0])
        vpc = subnet.inputs["vpcId"] if subnet else ""
        group = self._made(
            SECURITY_GROUP,
            self._store.new_id("sg-"),
            f"eks-cluster-sg-{record.id}",
            record.id,
            {"vpcId": vpc, "name": f"eks-cluster-sg-{record.id}-1234567890"},
        )
        record.outputs["vpcConfig"] |= {"clusterSecurityGroupId": group.id, "vpcId": vpc}
        self._cloud.save()
        self._cloud.spend(call, self._cloud.durations["Cluster.create"])

    def _made(self, typ: str, id: str, name: str, owner: str, inputs: Inputs, **extra: Any) -> Record:
        """Something a service makes by itself."""
        return self._store.add(
            Record(
                typ,
                id,
                name,
                "",
                inputs,
                dict(inputs),
                self._cloud.clock.now(),
                self._store.next_order(),
                owner=owner,
                extra=extra,
            )
        )

    def _create_addon(self, call: Call, record: Record) -> None:
        name, cluster = call.inputs["addonName"], call.inputs["clusterName"]
        deadline = self._cloud.clock.now() + call.timeout("create")
        if name in _NEEDS_NODE and not self._cloud.clock.wait_for(
            lambda: self._untainted_node(cluster), call.timeout("create")
        ):
            record.status = "CREATE_FAILED"
            record.extra["issues"] = [
                (
                    "InsufficientNumberOfReplicas",
                    "The add-on is unhealthy because it doesn't have the desired number of replicas.",
                )
            ]
            why = (
                f"waiting for EKS Add-On ({record.id}) create: timeout while waiting for state to become 'ACTIVE' (last state: 'DEGRADED'): "
                "InsufficientNumberOfReplicas: The add-on is unhealthy because it doesn't have the desired number of replicas."
            )
            raise Unfinished(record.id, copy.deepcopy(record.outputs), [why])
        spent = min(self._cloud.durations["Addon.create"], max(0.0, deadline - self._cloud.clock.now()))
        late = call.fault is not None and call.fault.error == "late"
        record.extra["pods_at"] = self._cloud.clock.now()
        if (
            late and call.fault is not None
        ):  # ACTIVE says that its Deployment is there, not that the pods on the nodes are
            record.extra["pods_at"] += spent + call.fault.delay_s
            self._cloud.clock.wait(spent)
        else:
            self._cloud.spend(call, spent)

    def _untainted_node(self, cluster: str) -> bool:
        groups = {g.id for g in self._store.of(NODE_GROUP) if not many(g.inputs.get("taints"))}
        return any(i.owner in groups and self.node_ready(i) for i in self.instances(cluster))

    # ---- nodes ------------------------------------------------------------------------------------------------------------

    def instances(self, cluster: str) -> Iterator[Record]:
        return (i for i in self._store.of(INSTANCE) if i.extra["cluster"] == cluster)

    def machine_of(self, group: Inputs) -> Any:
        name = self.template(group).get("instanceType") or next(iter(many(group.get("instanceTypes"))), "t3.medium")
        return self._cloud.machines.get(str(name))

    def way_out(self, subnet_id: str) -> bool:
        """The subnet's route table leads everything to a live NAT or internet gateway."""
        for link in self._store.of(ROUTE_TABLE_ASSOCIATION):
            if link.inputs.get("subnetId") == subnet_id:
                for route in self._store.of(ROUTE):
                    target = self._store.find(NAT, route.inputs.get("natGatewayId")) or self._store.find(
                        IGW, route.inputs.get("gatewayId")
                    )
                    if (
                        route.inputs["routeTableId"] == link.inputs["routeTableId"]
                        and route.inputs.get("destinationCidrBlock") == "0.0.0.0/0"
                        and target
                    ):
                        return target.status == "ACTIVE"
        return False

    def join_problem(self, instance: Record) -> str | None:
        """Why the instance cannot become a node."""
        cluster = self._store.find(CLUSTER, instance.extra["cluster"])
        group = self._store.find(NODE_GROUP, instance.owner)
        if cluster is None or group is None:
            return "no cluster"
        if not self.way_out(instance.inputs["subnetId"]):
            return rules.says("node-group.needs-route")
        role = self._store.find(ROLE, group.inputs["nodeRoleArn"])
        if role is None or not self._has_policy(role, "AmazonEKSWorkerNodePolicy"):
            return rules.says("node-group.needs-policies")
        if get(cluster.inputs, "bootstrapSelfManagedAddons", True) is False:
            cni = self._store.find(ADDON, f"{cluster.id}:vpc-cni")
            if cni is None or cni.status == "CREATING":
                return rules.says("node-group.needs-cni")
        return None

    def node_ready(self, instance: Record) -> bool:
        """Ready once; afterwards it stays so until it is terminated (a lost way out makes a group degraded, not its node gone)."""
        return bool(instance.extra.get("ready"))

    def _launch(self, group: Record, count: int, at: float) -> None:
        machine = self.machine_of(group.inputs)
        template = self.template(group.inputs)
        subnets = many(group.inputs["subnetIds"])
        interfaces = many(template.get("networkInterfaces"))
        groups = [g for i in interfaces for g in many(i.get("securityGroups"))] or many(
            template.get("vpcSecurityGroupIds")
        )
        if not groups and (cluster := self._store.find(CLUSTER, group.inputs["clusterName"])):
            groups = [cluster.outputs["vpcConfig"]["clusterSecurityGroupId"]]
        efa = sum(1 for i in interfaces if str(i.get("interfaceType", "")).startswith("efa"))
        boot = self._cloud.durations["node.gpu.ready" if machine.gpus else "node.cpu.ready"]
        for i in range(count):
            instance = self._store.new_id("i-")
            number = int(instance[-8:], 16)
            inputs = {"instanceType": machine.name, "subnetId": subnets[i % len(subnets)], "securityGroups": sorted(set(groups)), "placementGroup": get(template, "placement.groupName"),
                      "tags": get(group.inputs, "tags", {})}  # fmt: skip
            self._made(
                INSTANCE, instance, f"{group.name}-{i}", group.id, inputs, cluster=group.inputs["clusterName"], gpus=machine.gpus, efa=min(efa, machine.efa),
                node=f"ip-10-0-{number % 250}-{number // 250 % 250}.{self._cloud.region}.compute.internal", launched_at=at, ready_at=at + boot,
            )  # fmt: skip

    def _mine(self, group: Record) -> list[Record]:
        return [i for i in self._store.of(INSTANCE) if i.owner == group.id and "terminate_at" not in i.extra]

    def _room(self, machine: str) -> int | None:
        limit = self._cloud.faults.capacity.get(machine)
        return (
            None
            if limit is None
            else max(0, limit - sum(i.inputs["instanceType"] == machine for i in self._store.of(INSTANCE)))
        )

    def _scale_up(self, call: Call, group: Record, count: int) -> int:
        """Launch `count` more. Returns how many could not be had."""
        fault = call.fault if call.fault and call.fault.error == "InsufficientInstanceCapacity" else None
        machine, start = self.machine_of(group.inputs), self._cloud.clock.now()
        room = 0 if fault or self._refusal(group, count) else self._room(machine.name)
        now = count if room is None else min(count, room)
        at = start + self._cloud.durations["node.launch"] + (call.fault.delay_s if call.fault else 0)
        self._launch(group, now, at)
        if fault and fault.late_s:
            self._launch(group, count - now, start + fault.late_s)
        return count - now

    def _refusal(self, group: Record, count: int) -> str:
        """Why EC2 launches none of `count` more, whatever capacity there is; empty where it would."""
        account, machine = self._cloud.faults.account, self.machine_of(group.inputs)
        subnet = self._store.find(SUBNET, many(group.inputs["subnetIds"])[0])
        if subnet and subnet.field("availabilityZoneId") in account.zones_without.get(machine.name, ()):
            return rules.says("node-group.unsupported").format(
                machine=machine.name, zone=subnet.field("availabilityZone")
            )
        known = catalogue.GPU_INSTANCES.get(machine.name) or catalogue.CPU_INSTANCES.get(machine.name)
        reserved = get(self.template(group.inputs), "capacityReservationSpecification")
        limit = account.quotas.get(known.quota_code) if known and not reserved else None
        if known is None or limit is None:
            return ""
        kin = {
            one.name
            for one in (*catalogue.GPU_INSTANCES.values(), *catalogue.CPU_INSTANCES.values())
            if one.quota_code == known.quota_code
        }
        running = (str(one.inputs["instanceType"]) for one in self._store.of(INSTANCE))
        used = sum(found.vcpu for name in running if name in kin and (found := self._cloud.machines.get(name)))
        return rules.says("node-group.quota").format(limit=f"{limit:g}") if used + count * machine.vcpu > limit else ""

    def _all_ready(self, group: Record) -> bool:
        mine = self._mine(group)
        return len(mine) >= group.inputs["scalingConfig"]["desiredSize"] and all(self.node_ready(i) for i in mine)

    def _await_nodes(self, call: Call, group: Record, op: str) -> None:
        clock, durations = self._cloud.clock, self._cloud.durations
        missing = max(
            0,
            group.inputs["scalingConfig"]["desiredSize"]
            - sum(i.extra["launched_at"] <= clock.now() + durations["node.launch"] for i in self._mine(group)),
        )
        patience, gives_up = call.timeout(op), durations["node-group.gives-up"]
        if clock.wait_for(lambda: self._all_ready(group), min(patience, gives_up)):
            clock.wait(durations["node-group.activate"])
            group.status = group.outputs["status"] = "ACTIVE"
            group.extra.pop("issues", None)
            return
        machine = self.machine_of(group.inputs)
        subnet = self._store.find(SUBNET, many(group.inputs["subnetIds"])[0])
        zone = subnet.field("availabilityZone") if subnet else ""
        asg = group.outputs["resources"][0]["autoscalingGroups"][0]["name"]
        stuck = next((p for i in self._mine(group) if (p := self.join_problem(i))), None)
        if missing:
            why = self._refusal(group, missing) or (f"InsufficientInstanceCapacity - We currently do not have sufficient {machine.name} capacity in the "
                   f"Availability Zone you requested ({zone}).")  # fmt: skip
            said = f"Could not launch On-Demand Instances. {why} Launching EC2 instance failed."
            issue = f"{asg}: AsgInstanceLaunchFailures: {said}"
            group.extra["issues"] = [("AsgInstanceLaunchFailures", said)]
        else:
            group.extra["issues"] = [
                (
                    "NodeCreationFailure",
                    "Instances failed to join the kubernetes cluster" + (f" ({stuck})" if stuck else ""),
                )
            ]
            issue = (
                f"{', '.join(i.id for i in self._mine(group))}: NodeCreationFailure: Instances failed to join the kubernetes cluster"
                + (f" ({stuck})" if stuck else "")
            )
        if patience < gives_up:
            text = f"timeout while waiting for state to become 'ACTIVE' (last state: 'CREATING', timeout: {int(patience // 60)}m{int(patience % 60)}s): {issue}"
        else:
            group.status = group.outputs["status"] = "CREATE_FAILED"
            text = f"unexpected state 'CREATE_FAILED', wanted target 'ACTIVE'. last error: {issue}"
        raise Unfinished(
            group.id, copy.deepcopy(group.outputs), [f"waiting for EKS Node Group ({group.id}) {op}: {text}"]
        )

    def _create_node_group(self, call: Call, record: Record) -> None:
        record.outputs["instanceTypes"] = [self.machine_of(call.inputs).name]
        record.outputs["status"] = "CREATING"
        self._scale_up(call, record, call.inputs["scalingConfig"]["desiredSize"])
        self._cloud.save()
        self._await_nodes(call, record, "create")

    # ---- updating and deleting --------------------------------------------------------------------------------------------

    def update(self, call: Call, record: Record, changed: list[str]) -> Inputs:
        keep = (
            {"latestVersion", "defaultVersion"}
            if call.type == LAUNCH_TEMPLATE
            else {"status"}
            if call.type == NODE_GROUP
            else set()
        )
        old = record.outputs
        record.inputs = copy.deepcopy(call.inputs)
        record.outputs = {**old, **copy.deepcopy(call.inputs)} | {k: old[k] for k in keep}
        for gone in [k for k in old if k not in call.inputs and any(within(p, k) for p in changed)]:
            record.outputs.pop(gone, None)
        if "tagsAll" in old:
            record.outputs["tagsAll"] = get(call.inputs, "tags", {})
        if call.type == CLUSTER:
            record.outputs["vpcConfig"] = {**old["vpcConfig"], **get(call.inputs, "vpcConfig", {})}
        match call.type:
            case rules.LAUNCH_TEMPLATE:
                self._validate_launch_template(call)
                record.outputs["latestVersion"] = old["latestVersion"] + 1
                if call.inputs.get("updateDefaultVersion"):
                    record.outputs["defaultVersion"] = record.outputs["latestVersion"]
                self._cloud.spend(call, self._cloud.durations.of(call.type, "update"))
            case rules.NODE_GROUP:
                self._update_node_group(call, record, changed)
            case _:
                if call.type == ADDON:
                    record.extra["pods_at"] = self._cloud.clock.now()
                self._cloud.spend(call, self._cloud.durations.of(call.type, "update") if changed else 0)
        return copy.deepcopy(record.outputs)

    def _update_node_group(self, call: Call, record: Record, changed: list[str]) -> None:
        self._validate_node_group(call)
        rolls = any(within(p, f) for p in changed for f in ("launchTemplate.version", "releaseVersion", "version"))
        mine = self._mine(record)
        desired = record.inputs["scalingConfig"]["desiredSize"]
        if rolls:  # the nodes are replaced: with the strategy MINIMAL the old ones go first
            self._terminate(mine, self._cloud.durations["node.terminate"])
            self._cloud.clock.wait(self._cloud.durations["node.terminate"])
            mine = []
        elif len(mine) > desired:
            self._terminate(mine[desired:], self._cloud.durations["node.terminate"])
        if len(mine) < desired:
            self._scale_up(call, record, desired - len(mine))
        self._cloud.spend(call, self._cloud.durations["NodeGroup.update"] if changed else 0)
        self._await_nodes(call, record, "update")

    def _terminate(self, instances: list[Record], after: float) -> None:
        for instance in instances:
            instance.extra["terminate_at"] = self._cloud.clock.now() + after

    def blocker(self, record: Record) -> str | None:
        """Why `record` cannot go: the service's words, and who holds it."""
        text, holders = "", []
        for row in rules.blocks(record.type):
            if found := self._holders(row, record):
                text = text or row.error.format(**{**record.inputs, "id": record.id})
                holders += found
        return f"{text} ({', '.join(dict.fromkeys(holders))})" if holders else None

    def _holders(self, row: rules.Blocks, record: Record) -> list[str]:
        if row.by == "@interfaces":
            return [
                f"network interfaces of {who}"
                for who, subnet, groups in self.interfaces()
                if record.id in ([subnet] if row.field == "subnetId" else groups)
            ]
        if row.by == "@public-addresses":
            subnets = {s.id for s in self._store.of(SUBNET) if s.inputs["vpcId"] == record.inputs.get("vpcId")}
            return [who for who, subnet, _ in self.interfaces(public=True) if subnet in subnets]
        names = {record.id, record.outputs.get("arn"), record.field("name")} - {None, ""}
        users = [
            other
            for other in self._store.of(row.by)
            if other is not record and names & {v for v in many(other.field(row.field)) if isinstance(v, str)}
        ]
        if row.by in (INGRESS_RULE, EGRESS_RULE):  # a group may refer to itself
            users = [u for u in users if u.inputs["securityGroupId"] != record.id]
        return [u.name or u.id for u in users]

    def interfaces(self, *, public: bool = False) -> Iterator[tuple[str, str, list[str]]]:
        """Network interfaces there are: (whose, subnet, security groups). `public`: only those with a public address."""
        for nat in self._store.of(NAT):
            yield f"NAT gateway {nat.id}", nat.inputs["subnetId"], []
        for balancer in self._store.of(LOAD_BALANCER):
            for subnet in many(balancer.inputs["subnets"]):
                yield f"load balancer {balancer.id}", subnet, many(balancer.inputs["securityGroups"])
        if public:
            return
        for target in self._store.of(MOUNT_TARGET):
            yield f"mount target {target.id}", target.inputs["subnetId"], many(target.inputs.get("securityGroups"))
        for files in self._store.of(LUSTRE):
            yield f"file system {files.id}", files.inputs["subnetIds"], many(files.inputs.get("securityGroupIds"))
        for instance in self._store.of(INSTANCE):
            if instance.extra["launched_at"] <= self._cloud.clock.now():
                yield f"instance {instance.id}", instance.inputs["subnetId"], many(instance.inputs["securityGroups"])
        for left in self._store.of(NETWORK_INTERFACE):
            yield f"{left.id} (left by {left.owner})", left.inputs["subnetId"], many(left.inputs["securityGroups"])
        for cluster in self._store.of(CLUSTER):
            config = cluster.outputs["vpcConfig"]
            for subnet in many(config.get("subnetIds")):
                yield (
                    f"cluster {cluster.id}",
                    subnet,
                    [config["clusterSecurityGroupId"], *many(config.get("securityGroupIds"))],
                )

    def delete(self, call: Call, record: Record) -> None:
        patience = max((r.retry_s for r in rules.blocks(record.type)), default=0.0)
        if call.timeout_s is not None:
            patience = min(patience, call.timeout_s)
        if not self._cloud.clock.wait_for(lambda: self.blocker(record) is None, patience) and (
            found := self.blocker(record)
        ):
            raise self.refuse(record.type, found, "deleting", record.id)
        call.check_caller()
        before = record.status
        record.status = "DELETING"
        self._cloud.hold(call, "after")
        try:
            match record.type:
                case rules.NODE_GROUP:
                    self._delete_node_group(call, record)
                case _:
                    self._cloud.spend(call, self._cloud.durations.of(record.type, "delete"))
        except BaseException:
            record.status = before
            raise
        if call.fault and call.fault.error == "interface-left":
            self._leave_interface(record)
        self._store.remove(record)
        if record.type == CLUSTER:
            self._take_along(record)
        if record.type == LOG_GROUP:
            self._log_again(record)
        for part, field in (
            (ROUTE_TABLE_ASSOCIATION, "routeTableId"),
            (INGRESS_RULE, "securityGroupId"),
            (EGRESS_RULE, "securityGroupId"),
            (ROUTE, "routeTableId"),
        ):
            for inner in [o for o in self._store.of(part) if o.inputs[field] == record.id]:
                self._store.remove(inner)  # rules go with their group, routes and associations with their table

    def _leave_interface(self, record: Record) -> None:
        """rules `interface.left`."""
        config = record.field("vpcConfig") or {}
        groups = [get(config, "clusterSecurityGroupId")] if config else []
        if cluster := self._store.find(CLUSTER, record.inputs.get("clusterName")):
            groups = [cluster.outputs["vpcConfig"]["clusterSecurityGroupId"]]
        subnet = many(record.inputs.get("subnetIds") or get(config, "subnetIds"))[0]
        self._made(
            NETWORK_INTERFACE, self._store.new_id("eni-"), f"aws-K8S-{record.name}", record.id,
            {"subnetId": subnet, "securityGroups": groups, "description": f"aws-K8S-{record.name}", "status": "available"},
        )  # fmt: skip

    def _delete_node_group(self, call: Call, record: Record) -> None:
        durations, clock = self._cloud.durations, self._cloud.clock
        cut_off = not all(self.way_out(s) for s in many(record.inputs["subnetIds"]))
        drain = durations["NodeGroup.degraded"] if cut_off and self._mine(record) else 0.0
        if drain:
            record.outputs["status"] = "DEGRADED"
            self._cloud.event("node-group-degraded", record.name, rules.says("node-group.degraded"))
        self._terminate(
            [i for i in self._mine(record) if i.extra["launched_at"] <= clock.now()],
            drain + durations["node.terminate"],
        )
        for never in self._mine(
            record
        ):  # asked for, not launched yet: their Auto Scaling group goes, so they never come
            self._store.remove(never)
        self._cloud.save()
        total = drain + max(durations["NodeGroup.delete"], durations["node.terminate"])
        if total > call.timeout("delete"):
            clock.wait(call.timeout("delete"))
            raise self.refuse(
                NODE_GROUP,
                f"timeout while waiting for state to become '' (last state: 'DELETING', timeout: {call.timeout('delete') / 60:.0f}m)",
                "deleting",
                record.id,
            )
        self._cloud.spend(call, total)

    def _take_along(self, cluster: Record) -> None:
        for record in list(self._store.records.values()):
            inside = record.cluster == cluster.id
            attached = (
                record.type in (ADDON, ACCESS_ENTRY, ACCESS_POLICY, POD_IDENTITY)
                and record.inputs["clusterName"] == cluster.id
            )
            made = record.owner == cluster.id and record.type not in (LOAD_BALANCER, VOLUME, NETWORK_INTERFACE)
            if inside or attached or (made and self.blocker(record) is None):
                self._store.remove(record)

    def _log_again(self, group: Record) -> None:
        for cluster in self._store.of(CLUSTER):
            if cluster.inputs.get("enabledClusterLogTypes") and group.id == f"/aws/eks/{cluster.id}/cluster":
                self._made(LOG_GROUP, group.id, group.id, "eks", {"name": group.id})

    # ---- time -------------------------------------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Let instances run, become Ready and end when their time has come."""
        for instance in list(self._store.of(INSTANCE)):
            extra = instance.extra
            if extra["launched_at"] <= now and not extra.get("running"):
                extra["running"] = True
                self._cloud.event(
                    "node-running",
                    instance.name,
                    instance.inputs["instanceType"],
                    at=extra["launched_at"],
                    gpus=extra["gpus"],
                    id=instance.id,
                )
            if extra["ready_at"] <= now and not extra.get("ready") and self.join_problem(instance) is None:
                extra["ready"] = True
                self._cloud.event("node-ready", instance.name, extra["node"], gpus=extra["gpus"], id=instance.id)
            if extra.get("terminate_at", now + 1) <= now:
                self._cloud.event(
                    "node-terminated",
                    instance.name,
                    instance.inputs["instanceType"],
                    at=extra["terminate_at"],
                    gpus=extra["gpus"],
                    id=instance.id,
                )
                self._store.remove(instance)
        for group in self._store.of(NODE_GROUP):
            if group.status == "CREATING" and self._all_ready(group):
                group.status = group.outputs["status"] = "ACTIVE"

    def next_event(self, now: float) -> float | None:
        times = [
            t
            for i in self._store.of(INSTANCE)
            for k in ("launched_at", "ready_at", "terminate_at")
            if (t := i.extra.get(k)) is not None and t > now
        ]
        times += [t for m in self._store.of(MOUNT_TARGET) if (t := m.extra.get("usable_at")) is not None and t > now]
        return min(times, default=None)
