"""What no stack may have: public doors, unencrypted disks, wildcards, privileged pods, GPUs without an end. Exceptions stand here, each with its reason.

`check_plan` looks at what a plan knows, and the planner refuses what it finds. `check_resources` looks at what the program registers
(type, name, inputs), which a plan does not know: tests run it over every stack, `ops diff` over every pull request. Pure.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from recipe.constants import GPU_TAINT_KEY, WIDEST_PREFIX
from recipe.errors import Problem
from recipe.plan import BasePlan, Manifest, Plan

TAGS: Final = ("project", "stack", "deployment", "owner", "ttl-hours")
"""On everything that costs by the hour: by them it is found, asked about and ended."""
MOST_HOPS: Final = 2
Inputs: TypeAlias = Mapping[str, Any]
Registered: TypeAlias = tuple[str, str, Inputs]
"""Type token, logical name, inputs."""


@dataclass(frozen=True)
class Violation:
    """`rule` broken by `where` with `value`."""

    rule: str
    where: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.value}: {self.reason} (rule {self.rule}; exceptions: recipe/policy.py)"


@dataclass(frozen=True)
class Allowed:
    """What is allowed all the same. `where` and `value` are patterns (fnmatch)."""

    rule: str
    where: str
    value: str
    reason: str

    def covers(self, one: Violation) -> bool:
        return (
            one.rule == self.rule
            and fnmatch.fnmatchcase(one.where, self.where)
            and fnmatch.fnmatchcase(one.value, self.value)
        )


_MANAGED: Final = "arn:aws:iam::aws:policy/"
EXCEPTIONS: Final[tuple[Allowed, ...]] = (
    # AWS' managed policies hold wildcards. Each is the one AWS names for its purpose; none of ours would be narrower and stay right.
    Allowed("iam-policy", "cluster-role-*", f"{_MANAGED}AmazonEKSClusterPolicy", "what EKS needs to run a control plane (EKS user guide, cluster IAM role)"),
    Allowed("iam-policy", "*node-role-*", f"{_MANAGED}AmazonEKSWorkerNodePolicy", "what a node needs to join (EKS user guide, node IAM role)"),
    Allowed("iam-policy", "*node-role-*", f"{_MANAGED}AmazonEKS_CNI_Policy", "the CNI on the node gives pods addresses; on the node role, since it runs before Pod Identity does"),
    Allowed("iam-policy", "*node-role-*", f"{_MANAGED}AmazonEC2ContainerRegistryPullOnly", "add-on images; pull only"),
    Allowed("iam-policy", "files-driver-role-*", f"{_MANAGED}service-role/AmazonEFSCSIDriverPolicy", "what the EFS driver needs (aws-efs-csi-driver); bound to its service account by Pod Identity"),
    Allowed("iam-policy", "cluster-admin-*", "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy", "access.admin_principals says in words that they become cluster admins"),
    Allowed("iam-wildcard", "network-s3", "no policy", "a gateway endpoint leads to S3 with the caller's own permissions; image layers lie in buckets of AWS whose names differ by region and service"),
    # Pods
    Allowed("pod-capability", "serving-graph*", "IPC_LOCK", "EFA pins memory (facts/aws.md §4)"),
    Allowed("pod-capability", "serving-graph*", "SYS_PTRACE", "only with serving.kv_transfer.privileged, as upstream's p5 manifest"),
    Allowed("pod-privileged", "serving-graph*", "privileged", "only with serving.kv_transfer.privileged: sources disagree whether IPC_LOCK is enough for EFA (docs/unverified.md)"),
    Allowed("pod-root", "serving-graph*", "runAsUser 0", "only with serving.kv_transfer.privileged: another user's processes do not receive added capabilities"),
    Allowed("pod-root", "weights?job", "runAsUser 0", "only with storage.model.kind fsx-lustre: a new Lustre's root belongs to root; one init container gives it to the download"),
    Allowed("pod-capability", "weights?job", "CHOWN", "the same container's only capability"),
    # Charts are not looked into
    Allowed("chart", "*", "dynamo-platform", "the operator makes Deployments, Services and RBAC for graphs in any namespace; pinned version"),
    Allowed("chart", "*", "nvidia-device-plugin", "privileged on GPU nodes: it hands devices to the kubelet; pinned version"),
    Allowed("chart", "*", "aws-efa-k8s-device-plugin", "host devices on GPU nodes: it hands EFA interfaces to the kubelet; pinned version"),
)  # fmt: skip


# ── what a plan knows ────────────────────────────────────────────────────────────────────────────────────────────────


def check_plan(plan: Plan | BasePlan) -> list[Problem]:
    """What the planner refuses. The recipe's types have refused a missing budget and lifetime before."""
    problems = []
    for index, cidr in enumerate(plan.cluster.endpoint_cidrs):
        if ipaddress.ip_network(cidr).prefixlen < WIDEST_PREFIX:
            reason = f"opens the Kubernetes API to more than a /{WIDEST_PREFIX}"
            problems.append(
                Problem(f"access.endpoint_cidrs[{index}]", cidr, reason, "your own network, like 198.51.100.7/32")
            )
    if not plan.cluster.endpoint_cidrs:
        problems.append(
            Problem("access.endpoint_cidrs", None, "the Kubernetes API needs a list of networks", "name yours")
        )
    if isinstance(plan, Plan):
        problems += _budget(plan)
        for field, key, manifest in plan.objects.created():
            name = "serving-graph" if field == "graph" else f"{field} {key}".strip()
            found = allowed_out(_objects(name, manifest))
            problems += [
                Problem(
                    f"objects.{one.where}",
                    one.value,
                    one.reason,
                    f"an exception in recipe/policy.py, with its reason (rule {one.rule})",
                )
                for one in found
            ]
    return problems


def _budget(plan: Plan) -> Iterator[Problem]:
    """No GPU without a cap and an end: said by types, and held here for whoever changes the types."""
    budget = plan.recipe.budget
    if plan.gpu_pool and not (0 < plan.cost.usd_per_hour <= budget.usd_per_hour or not plan.cost.usd_per_hour):
        yield Problem(
            "budget.usd_per_hour",
            budget.usd_per_hour,
            f"GPUs for ${plan.cost.usd_per_hour:.2f} an hour are above it",
            "raise the cap, or ask for less",
        )
    if plan.gpu_pool and plan.tags.get("ttl-hours") != str(budget.ttl_hours):
        yield Problem("budget.ttl_hours", budget.ttl_hours, "GPU nodes do not carry it as a tag", "tag them")


# ── what the program registers ───────────────────────────────────────────────────────────────────────────────────────


def check_resources(resources: Iterable[Registered]) -> list[Violation]:
    """What is broken and no exception covers."""
    return allowed_out(every_violation(resources))


def every_violation(resources: Iterable[Registered]) -> Iterator[Violation]:
    """What is broken, exceptions or not."""
    for typ, name, inputs in resources:
        if typ == "kubernetes:helm.sh/v3:Release":
            yield Violation("chart", name, str(inputs.get("chart")), "a chart of others, which is not looked into")
        elif typ.startswith("kubernetes:"):
            yield from _objects(name, inputs)
        elif typ.startswith("aws:"):
            rule = RULES.get(typ)
            if rule is None:
                yield Violation(
                    "unknown-type", name, typ, "nobody has said what is to be looked at here: add a row to RULES"
                )
            else:
                yield from rule(name, inputs)


def allowed_out(found: Iterable[Violation]) -> list[Violation]:
    """Those that no exception covers."""
    return [one for one in found if not any(exception.covers(one) for exception in EXCEPTIONS)]


def _nothing(_name: str, _inputs: Inputs) -> Iterator[Violation]:
    yield from ()


def _tagged(name: str, inputs: Inputs, where: str = "tags") -> Iterator[Violation]:
    missing = [tag for tag in TAGS if tag not in (inputs.get(where) or {})]
    if missing:
        yield Violation("tags", name, ", ".join(missing), "what costs by the hour is found and ended by its tags")


def _template(name: str, inputs: Inputs) -> Iterator[Violation]:
    options = inputs.get("metadataOptions") or {}
    if options.get("httpTokens") != "required":
        yield Violation(
            "imds",
            name,
            f"httpTokens {options.get('httpTokens')}",
            "IMDSv1 gives a node's role to whoever can make it fetch a URL",
        )
    if int(options.get("httpPutResponseHopLimit") or 1) > MOST_HOPS:
        yield Violation(
            "imds",
            name,
            f"hop limit {options['httpPutResponseHopLimit']}",
            f"at most {MOST_HOPS}: pods without the host's network need two",
        )
    mappings = inputs.get("blockDeviceMappings") or ()
    if not mappings:
        yield Violation("encryption", name, "no blockDeviceMappings", "the image's own volume is not encrypted")
    for mapping in mappings:
        if str((mapping.get("ebs") or {}).get("encrypted")).lower() != "true":
            yield Violation("encryption", name, str(mapping.get("deviceName")), "volumes are encrypted")
    for kind in ("instance", "volume", "network-interface"):
        said = [spec for spec in inputs.get("tagSpecifications") or () if spec.get("resourceType") == kind]
        yield from _tagged(f"{name} {kind}", said[0] if said else {})
    for interface in inputs.get("networkInterfaces") or ():
        if str(interface.get("associatePublicIpAddress")).lower() == "true":
            yield Violation("public", name, "associatePublicIpAddress", "nodes have no public address")


def _node_group(name: str, inputs: Inputs) -> Iterator[Violation]:
    yield from _tagged(name, inputs)
    if "remoteAccess" in inputs:
        yield Violation("public", name, "remoteAccess", "nobody logs in to nodes by SSH")
    gpus = any(taint.get("key") == GPU_TAINT_KEY for taint in inputs.get("taints") or ())
    if gpus and not str((inputs.get("tags") or {}).get("ttl-hours", "")).isdigit():
        yield Violation("gpu-without-end", name, "ttl-hours", "no GPU without a lifetime")


def _cluster(name: str, inputs: Inputs) -> Iterator[Violation]:
    config = inputs.get("vpcConfig") or {}
    cidrs = config.get("publicAccessCidrs") or ()
    if config.get("endpointPublicAccess", True) and not cidrs:
        yield Violation(
            "public", name, "publicAccessCidrs", "EKS opens a public endpoint to everyone where no list is given"
        )
    for cidr in cidrs:
        if ipaddress.ip_network(cidr).prefixlen < WIDEST_PREFIX:
            yield Violation("public", name, cidr, f"a list of networks, none wider than a /{WIDEST_PREFIX}")
    if config.get("endpointPrivateAccess") is not True:
        yield Violation("public", name, "endpointPrivateAccess", "nodes reach their control plane without the internet")
    if "audit" not in (inputs.get("enabledClusterLogTypes") or ()):
        yield Violation("audit", name, "enabledClusterLogTypes", "who did what in the cluster is kept")
    yield from _tagged(name, inputs)
    # Secrets: since Kubernetes 1.28 EKS encrypts all API data with a key of AWS' own (EKS user guide, envelope encryption).
    if tuple(map(int, str(inputs.get("version") or "0.0").split("."))) < (1, 28):
        yield Violation(
            "encryption", name, f"version {inputs.get('version')}", "EKS encrypts API data by itself from 1.28 on"
        )


def _file_system(name: str, inputs: Inputs) -> Iterator[Violation]:
    if inputs.get("encrypted") is not True:
        yield Violation("encryption", name, "encrypted", "file systems are encrypted")
    yield from _tagged(name, inputs)


def _lustre(name: str, inputs: Inputs) -> Iterator[Violation]:
    # FSx encrypts every Lustre at rest, with a key of AWS' own where none is given (FSx user guide, encryption at rest).
    if inputs.get("deploymentType") != "PERSISTENT_2":
        yield Violation("encryption", name, str(inputs.get("deploymentType")), "encrypted in transit as well, and kept")
    if inputs.get("skipFinalBackup") is not True or inputs.get("automaticBackupRetentionDays"):
        yield Violation("left-behind", name, "backups", "a destroy leaves nothing that is paid for")
    yield from _tagged(name, inputs)


def _subnet(name: str, inputs: Inputs) -> Iterator[Violation]:
    if inputs.get("mapPublicIpOnLaunch"):
        yield Violation("public", name, "mapPublicIpOnLaunch", "nothing gets a public address by itself")


def _ingress(name: str, inputs: Inputs) -> Iterator[Violation]:
    for key in ("cidrIpv4", "cidrIpv6"):
        cidr = inputs.get(key)
        if cidr and ipaddress.ip_network(cidr).prefixlen < WIDEST_PREFIX:
            yield Violation("public", name, str(cidr), "no door of a security group is open to the internet")


def _security_group(name: str, inputs: Inputs) -> Iterator[Violation]:
    for rule in inputs.get("ingress") or ():
        for cidr in [*(rule.get("cidrBlocks") or ()), *(rule.get("ipv6CidrBlocks") or ())]:
            yield from _ingress(name, {"cidrIpv6" if ":" in cidr else "cidrIpv4": cidr})


def _role(name: str, inputs: Inputs) -> Iterator[Violation]:
    if inputs.get("inlinePolicies") or inputs.get("managedPolicyArns"):
        yield Violation(
            "iam-policy", name, "inlinePolicies", "policies are attached one by one, where they can be read"
        )
    for statement in _statements(inputs.get("assumeRolePolicy")):
        principal = statement.get("Principal")
        if not isinstance(principal, Mapping) or set(principal) != {"Service"} or "*" in json.dumps(principal):
            yield Violation("iam-trust", name, json.dumps(principal), "only AWS services assume the stack's roles")
        yield from _wild(name, statement, ("Action",))


def _attachment(name: str, inputs: Inputs) -> Iterator[Violation]:
    yield Violation("iam-policy", name, str(inputs.get("policyArn")), "a policy nobody has given a reason for")


def _policy(name: str, inputs: Inputs) -> Iterator[Violation]:
    for statement in _statements(inputs.get("policy")):
        yield from _wild(name, statement, ("Action", "NotAction", "Resource", "NotResource"))


def _endpoint(name: str, inputs: Inputs) -> Iterator[Violation]:
    if not inputs.get("policy"):
        yield Violation("iam-wildcard", name, "no policy", "an endpoint without a policy lets everything through")
    yield from _policy(name, inputs)


def _statements(document: Any) -> list[Mapping[str, Any]]:
    found = json.loads(document) if isinstance(document, str) else document or {}
    statements = found.get("Statement", [])
    return statements if isinstance(statements, list) else [statements]


def _wild(name: str, statement: Mapping[str, Any], keys: Iterable[str]) -> Iterator[Violation]:
    if statement.get("Effect") != "Allow":
        return
    for key in keys:
        values = statement.get(key) or ()
        for value in [values] if isinstance(values, str) else values:
            if "*" in value:
                yield Violation("iam-wildcard", name, f"{key} {value}", "every wildcard has its reason")


def _volume(name: str, inputs: Inputs) -> Iterator[Violation]:
    if inputs.get("encrypted") is not True:
        yield Violation("encryption", name, "encrypted", "volumes are encrypted")
    yield from _tagged(name, inputs)


Rule: TypeAlias = Callable[[str, Inputs], Iterator[Violation]]
RULES: Final[dict[str, Rule]] = {
    "aws:ec2/launchTemplate:LaunchTemplate": _template,
    "aws:eks/nodeGroup:NodeGroup": _node_group,
    "aws:eks/cluster:Cluster": _cluster,
    "aws:efs/fileSystem:FileSystem": _file_system,
    "aws:fsx/lustreFileSystem:LustreFileSystem": _lustre,
    "aws:ebs/volume:Volume": _volume,
    "aws:ec2/subnet:Subnet": _subnet,
    "aws:ec2/securityGroup:SecurityGroup": _security_group,
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _ingress,
    "aws:iam/role:Role": _role,
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": _attachment,
    "aws:iam/rolePolicy:RolePolicy": _policy,
    "aws:iam/policy:Policy": _policy,
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": _attachment,
    "aws:ec2/vpcEndpoint:VpcEndpoint": _endpoint,
    "aws:ec2/natGateway:NatGateway": _tagged,
    "aws:ec2/eip:Eip": _tagged,
    # Nothing of them is public, a key, or billed by the hour. Log groups are encrypted by CloudWatch itself (CloudWatch Logs user guide).
    **dict.fromkeys(
        (
            "aws:ec2/vpc:Vpc", "aws:ec2/internetGateway:InternetGateway", "aws:ec2/routeTable:RouteTable", "aws:ec2/route:Route",
            "aws:ec2/routeTableAssociation:RouteTableAssociation", "aws:ec2/placementGroup:PlacementGroup", "aws:cloudwatch/logGroup:LogGroup",
            "aws:eks/accessEntry:AccessEntry", "aws:eks/addon:Addon", "aws:eks/podIdentityAssociation:PodIdentityAssociation",
            "aws:efs/mountTarget:MountTarget", "aws:efs/accessPoint:AccessPoint", "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
        ),
        _nothing,
    ),
}  # fmt: skip
"""By type, what is looked at. A type without a row is a violation itself."""


# ── Kubernetes objects ───────────────────────────────────────────────────────────────────────────────────────────────


def _objects(name: str, manifest: Manifest | Inputs) -> Iterator[Violation]:
    kind = manifest.get("kind", "")
    if kind in ("ClusterRole", "ClusterRoleBinding"):
        yield Violation("rbac", name, str(kind), "permissions stay inside the stack's namespace")
    for rule in manifest.get("rules") or () if kind in ("Role", "ClusterRole") else ():
        if any("*" in (rule.get(key) or ()) for key in ("verbs", "resources", "apiGroups")):
            yield Violation("rbac", name, json.dumps(rule), "every wildcard has its reason")
    if kind == "Service" and (manifest.get("spec") or {}).get("type") in ("LoadBalancer", "NodePort"):
        yield Violation(
            "public",
            name,
            str(manifest["spec"]["type"]),
            "the endpoint is inside the cluster; a load balancer owns AWS things nobody deletes",
        )
    for where, spec in _pod_specs(name, manifest):
        yield from _pod(where, spec)


def _pod_specs(name: str, manifest: Inputs) -> Iterator[tuple[str, Inputs]]:
    spec = manifest.get("spec") or {}
    match manifest.get("kind"):
        case "Pod":
            yield name, spec
        case "Job" | "Deployment" | "DaemonSet" | "StatefulSet":
            yield name, (spec.get("template") or {}).get("spec") or {}
        case "DynamoGraphDeployment":
            for component in spec.get("components") or ():
                yield f"{name} {component.get('name')}", (component.get("podTemplate") or {}).get("spec") or {}


def _pod(where: str, spec: Inputs) -> Iterator[Violation]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield Violation("pod-host", where, key, "pods stay in namespaces of their own")
    for volume in spec.get("volumes") or ():
        if "hostPath" in volume:
            yield Violation(
                "pod-host", where, f"hostPath {volume['hostPath'].get('path')}", "pods do not see the node's disk"
            )
    contexts = [spec.get("securityContext") or {}]
    contexts += [
        one.get("securityContext") or {} for key in ("containers", "initContainers") for one in spec.get(key) or ()
    ]
    for context in contexts:
        if context.get("privileged"):
            yield Violation("pod-privileged", where, "privileged", "no privileged pod without its reason")
        if context.get("runAsUser") == 0:
            yield Violation("pod-root", where, "runAsUser 0", "no root without its reason")
        for capability in (context.get("capabilities") or {}).get("add") or ():
            yield Violation("pod-capability", where, str(capability), "no capability without its reason")
