"""The pretend cloud's rules: ONE table, one source per row, written before the components that rely on it.

Rows say which inputs can only be set at creation, which names collide and with what words, what refers to what, what keeps a thing
from being deleted, and (as `Behaviour`) what the services do that is more than a comparison of fields. The code reads the table;
a rule that is not here does not exist in the rehearsal. A row with `source=None` is a guess and must stand in docs/unverified.md.

Sources are public: `TF` is the Terraform AWS provider, which pulumi-aws 7 wraps (`ForceNew` / `RequiresReplace` in its schemas),
`PK` is pulumi-kubernetes, `facts/…` are this project's dated notes. Field names are Pulumi's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TF = "hashicorp/terraform-provider-aws internal/service/"
PK = "pulumi/pulumi-kubernetes provider/pkg/provider/"
EC2_ERRORS = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html"
DGD_RULES = "facts/dynamo.md §1.3 (ai-dynamo/dynamo internal/webhook/validation, main 2026-08-21)"


@dataclass(frozen=True, slots=True)
class CreateOnly:
    """A change of one of `fields` replaces the resource. No other field does."""

    type: str
    fields: tuple[str, ...]
    source: str | None
    required: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unique:
    """Two live resources of `type` cannot share the values of `scope`; `error` is what the service says (`{field}` is filled in)."""

    type: str
    scope: tuple[str, ...]
    error: str
    source: str | None


@dataclass(frozen=True, slots=True)
class Doubles:
    """Nothing about this type collides: a repeated create makes a second one, which is billed too."""

    type: str
    source: str | None


@dataclass(frozen=True, slots=True)
class Refers:
    """`field` of `type` must name a live resource of `target` (by id, name or ARN), or the create is refused with `error`."""

    type: str
    field: str
    target: str
    error: str
    source: str | None


@dataclass(frozen=True, slots=True)
class Blocks:
    """`type` cannot be deleted while `by` refers to it in `field`; the provider retries for `retry_s` seconds before it gives up.

    `by` may start with `@`: then it names a relation computed in code (`@interfaces`, `@public-addresses`).
    """

    type: str
    by: str
    field: str
    error: str
    retry_s: float
    source: str | None


@dataclass(frozen=True, slots=True)
class OneOf:
    """`field` of `type`, where given, must be one of `values`."""

    type: str
    field: str
    values: tuple[str, ...]
    source: str | None


@dataclass(frozen=True, slots=True)
class Frozen:
    """The API server refuses a change of `fields`, and the provider does not know that it should replace."""

    type: str
    fields: tuple[str, ...]
    error: str
    source: str | None


@dataclass(frozen=True, slots=True)
class Timeout:
    """How long the provider waits in `op` when the program sets no custom timeout."""

    type: str
    op: str
    seconds: float
    source: str | None


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a service does beyond comparing fields; `key` is what the code and the tests call it."""

    key: str
    says: str
    source: str | None


def label(row: Row) -> str:
    """What docs/unverified.md calls the row."""
    kind = row.type.rpartition(":")[2] if not isinstance(row, Behaviour) else ""
    match row:
        case Behaviour():
            return row.key
        case Refers() | OneOf():
            return f"{type(row).__name__} {kind}.{row.field}"
        case Blocks():
            return f"Blocks {kind} by {row.by.rpartition(':')[2]}"
        case Timeout():
            return f"Timeout {kind} {row.op}"
    return f"{type(row).__name__} {kind}"


Row = CreateOnly | Unique | Doubles | Refers | Blocks | OneOf | Frozen | Timeout | Behaviour

VPC = "aws:ec2/vpc:Vpc"
IGW = "aws:ec2/internetGateway:InternetGateway"
SUBNET = "aws:ec2/subnet:Subnet"
EIP = "aws:ec2/eip:Eip"
NAT = "aws:ec2/natGateway:NatGateway"
ROUTE_TABLE = "aws:ec2/routeTable:RouteTable"
ROUTE = "aws:ec2/route:Route"
ROUTE_TABLE_ASSOCIATION = "aws:ec2/routeTableAssociation:RouteTableAssociation"
VPC_ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
SECURITY_GROUP = "aws:ec2/securityGroup:SecurityGroup"
INGRESS_RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
EGRESS_RULE = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
ROLE = "aws:iam/role:Role"
ROLE_POLICY = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
INLINE_POLICY = "aws:iam/rolePolicy:RolePolicy"
BUCKET = "aws:s3/bucket:Bucket"
BUCKET_ACCESS = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
LOG_GROUP = "aws:cloudwatch/logGroup:LogGroup"
CLUSTER = "aws:eks/cluster:Cluster"
ACCESS_ENTRY = "aws:eks/accessEntry:AccessEntry"
ACCESS_POLICY = "aws:eks/accessPolicyAssociation:AccessPolicyAssociation"
ADDON = "aws:eks/addon:Addon"
POD_IDENTITY = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
LAUNCH_TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
PLACEMENT_GROUP = "aws:ec2/placementGroup:PlacementGroup"
NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"
FILE_SYSTEM = "aws:efs/fileSystem:FileSystem"
MOUNT_TARGET = "aws:efs/mountTarget:MountTarget"
ACCESS_POINT = "aws:efs/accessPoint:AccessPoint"
LUSTRE = "aws:fsx/lustreFileSystem:LustreFileSystem"

NAMESPACE = "kubernetes:core/v1:Namespace"
SECRET = "kubernetes:core/v1:Secret"  # noqa: S105  (a type token)
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
SERVICE_ACCOUNT = "kubernetes:core/v1:ServiceAccount"
SERVICE = "kubernetes:core/v1:Service"
PV = "kubernetes:core/v1:PersistentVolume"
PVC = "kubernetes:core/v1:PersistentVolumeClaim"
STORAGE_CLASS = "kubernetes:storage.k8s.io/v1:StorageClass"
K8S_ROLE = "kubernetes:rbac.authorization.k8s.io/v1:Role"
ROLE_BINDING = "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding"
JOB = "kubernetes:batch/v1:Job"
RELEASE = "kubernetes:helm.sh/v3:Release"
DGD = "kubernetes:nvidia.com/v1beta1:DynamoGraphDeployment"

# Made by the services themselves, never by the program: they are in the store so that what stays behind can be counted.
INSTANCE = "aws:ec2/instance:Instance"
LOAD_BALANCER = "aws:lb/loadBalancer:LoadBalancer"
VOLUME = "aws:ebs/volume:Volume"
NETWORK_INTERFACE = "aws:ec2/networkInterface:NetworkInterface"
MADE = frozenset({INSTANCE, LOAD_BALANCER, VOLUME, NETWORK_INTERFACE})
"""Their types. They can be deleted, and nothing else is asked of them."""

_DEPENDS = "DependencyViolation: "
_MIN = 60.0

ROWS: tuple[Row, ...] = (
    # ---- network ----------------------------------------------------------------------------------------------------------
    CreateOnly(VPC, ("cidrBlock", "ipv4IpamPoolId", "ipv4NetmaskLength"), TF + "ec2/vpc_.go"),
    Doubles(VPC, "facts/rehearsal.md §4: only fixed names collide; TF ec2/vpc_.go has no unique field"),
    Blocks(VPC, SUBNET, "vpcId", _DEPENDS + "The vpc '{id}' has dependencies and cannot be deleted.", 5 * _MIN,
           "gruntwork-io/cloud-nuke issue #345 (text); " + TF + "ec2/vpc_.go (retries for vpcDeletedTimeout)"),
    Blocks(VPC, IGW, "vpcId", _DEPENDS + "The vpc '{id}' has dependencies and cannot be deleted.", 5 * _MIN, "gruntwork-io/cloud-nuke issue #345"),
    Blocks(VPC, ROUTE_TABLE, "vpcId", _DEPENDS + "The vpc '{id}' has dependencies and cannot be deleted.", 5 * _MIN,
           "https://docs.aws.amazon.com/vpc/latest/userguide/delete-vpc.html"),
    Blocks(VPC, VPC_ENDPOINT, "vpcId", _DEPENDS + "The vpc '{id}' has dependencies and cannot be deleted.", 5 * _MIN,
           "https://docs.aws.amazon.com/vpc/latest/userguide/delete-vpc.html"),
    Blocks(VPC, SECURITY_GROUP, "vpcId", _DEPENDS + "The vpc '{id}' has dependencies and cannot be deleted.", 5 * _MIN,
           "facts/aws.md §9: the EKS-made cluster security group blocks the VPC (METR PR #576)"),
    CreateOnly(IGW, (), TF + "ec2/vpc_internet_gateway.go (vpc_id is changed in place)"),
    Refers(IGW, "vpcId", VPC, "InvalidVpcID.NotFound: The vpc ID '{value}' does not exist", EC2_ERRORS),
    Blocks(IGW, "@public-addresses", "", _DEPENDS + "Network {vpcId} has some mapped public address(es). Please unmap those public address(es) before "
           "detaching the gateway.", 20 * _MIN, "hashicorp/terraform issue #1303; " + TF + "ec2/vpc_internet_gateway.go (20 min)"),
    CreateOnly(SUBNET, ("availabilityZone", "availabilityZoneId", "cidrBlock", "ipv4IpamPoolId", "ipv4NetmaskLength", "ipv6IpamPoolId", "ipv6Native",
               "ipv6NetmaskLength", "outpostArn", "vpcId"), TF + "ec2/vpc_subnet.go", ("vpcId",)),
    Refers(SUBNET, "vpcId", VPC, "InvalidVpcID.NotFound: The vpc ID '{value}' does not exist", EC2_ERRORS),
    Unique(SUBNET, ("vpcId", "cidrBlock"), "InvalidSubnet.Conflict: The CIDR '{cidrBlock}' conflicts with another subnet", "kubernetes/kops issue #2376"),
    Blocks(SUBNET, "@interfaces", "subnetId", _DEPENDS + "The subnet '{id}' has dependencies and cannot be deleted.", 20 * _MIN,
           TF + "ec2/vpc_subnet.go (20 min); facts/aws.md §9 (ENIs of nodes, NAT, EFS, control plane)"),
    CreateOnly(EIP, ("address", "domain", "ipamPoolId", "networkBorderGroup", "publicIpv4Pool"), TF + "ec2/ec2_eip.go"),
    Doubles(EIP, "facts/rehearsal.md §5"),
    Blocks(EIP, NAT, "allocationId", "AuthFailure: You do not have permission to access the specified resource.", 0,
           "eformat/sno-for-100 issue #5 (the release fails until the NAT gateway is gone)"),
    CreateOnly(NAT, ("allocationId", "connectivityType", "privateIp", "secondaryPrivateIpAddressCount", "subnetId"), TF + "ec2/vpc_nat_gateway.go"),
    Doubles(NAT, "facts/rehearsal.md §5: a repeated up creates a second NAT gateway"),
    Refers(NAT, "subnetId", SUBNET, "InvalidSubnetID.NotFound: The subnet ID '{value}' does not exist", EC2_ERRORS),
    Refers(NAT, "allocationId", EIP, "InvalidAllocationID.NotFound: The allocation ID '{value}' does not exist", EC2_ERRORS),
    CreateOnly(ROUTE_TABLE, ("vpcId",), TF + "ec2/vpc_route_table.go", ("vpcId",)),
    Doubles(ROUTE_TABLE, "facts/rehearsal.md §4"),
    Refers(ROUTE_TABLE, "vpcId", VPC, "InvalidVpcID.NotFound: The vpc ID '{value}' does not exist", EC2_ERRORS),
    Behaviour("route-table.disassociates", "Deleting a route table ends its associations first: nothing keeps it from going, also while nodes use it.",
              TF + "ec2/vpc_route_table.go (resourceRouteTableDelete)"),
    CreateOnly(ROUTE, ("routeTableId", "destinationCidrBlock", "destinationIpv6CidrBlock", "destinationPrefixListId"), TF + "ec2/vpc_route.go", ("routeTableId",)),
    Unique(ROUTE, ("routeTableId", "destinationCidrBlock"), "RouteAlreadyExists: The route identified by {destinationCidrBlock} already exists.", EC2_ERRORS),
    Refers(ROUTE, "routeTableId", ROUTE_TABLE, "InvalidRouteTableID.NotFound: The routeTable ID '{value}' does not exist", EC2_ERRORS),
    Refers(ROUTE, "natGatewayId", NAT, "InvalidNatGatewayID.NotFound: The natGateway ID '{value}' does not exist", EC2_ERRORS),
    Refers(ROUTE, "gatewayId", IGW, "InvalidGatewayID.NotFound: The gateway ID '{value}' does not exist", EC2_ERRORS),
    CreateOnly(ROUTE_TABLE_ASSOCIATION, ("gatewayId", "subnetId"), TF + "ec2/vpc_route_table_association.go (route_table_id is changed in place)", ("routeTableId",)),
    Unique(ROUTE_TABLE_ASSOCIATION, ("subnetId",), "Resource.AlreadyAssociated: the specified association for subnet {subnetId} conflicts with an existing association",
           EC2_ERRORS),
    Refers(ROUTE_TABLE_ASSOCIATION, "routeTableId", ROUTE_TABLE, "InvalidRouteTableID.NotFound: The routeTable ID '{value}' does not exist", EC2_ERRORS),
    Refers(ROUTE_TABLE_ASSOCIATION, "subnetId", SUBNET, "InvalidSubnetID.NotFound: The subnet ID '{value}' does not exist", EC2_ERRORS),
    CreateOnly(VPC_ENDPOINT, ("vpcId", "serviceName", "vpcEndpointType", "serviceRegion", "resourceConfigurationArn", "serviceNetworkArn"),
               TF + "ec2/vpc_endpoint.go", ("vpcId",)),
    Doubles(VPC_ENDPOINT, None),
    Refers(VPC_ENDPOINT, "vpcId", VPC, "InvalidVpcID.NotFound: The vpc ID '{value}' does not exist", EC2_ERRORS),
    CreateOnly(SECURITY_GROUP, ("description", "name", "namePrefix", "vpcId"), TF + "ec2/vpc_security_group.go"),
    Unique(SECURITY_GROUP, ("vpcId", "name"), "InvalidGroup.Duplicate: The security group '{name}' already exists for VPC '{vpcId}'", "hashicorp/terraform issue #15428"),
    Refers(SECURITY_GROUP, "vpcId", VPC, "InvalidVpcID.NotFound: The vpc ID '{value}' does not exist", EC2_ERRORS),
    Blocks(SECURITY_GROUP, "@interfaces", "securityGroups", _DEPENDS + "resource {id} has a dependent object", 15 * _MIN,
           "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteSecurityGroup.html; terraform-provider-aws issue #1671; " + TF + "ec2/vpc_security_group.go"),
    Blocks(SECURITY_GROUP, INGRESS_RULE, "referencedSecurityGroupId", _DEPENDS + "resource {id} has a dependent object", 15 * _MIN,
           "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteSecurityGroup.html (referenced by another group)"),
    Blocks(SECURITY_GROUP, EGRESS_RULE, "referencedSecurityGroupId", _DEPENDS + "resource {id} has a dependent object", 15 * _MIN,
           "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteSecurityGroup.html (referenced by another group)"),
    CreateOnly(INGRESS_RULE, ("securityGroupId",), TF + "ec2/vpc_security_group_ingress_rule.go (a change of the kind of source also replaces)", ("ipProtocol", "securityGroupId")),
    CreateOnly(EGRESS_RULE, ("securityGroupId",), TF + "ec2/vpc_security_group_ingress_rule.go (same resource, other direction)", ("ipProtocol", "securityGroupId")),
    Unique(INGRESS_RULE, ("securityGroupId", "ipProtocol", "fromPort", "toPort", "cidrIpv4", "cidrIpv6", "prefixListId", "referencedSecurityGroupId"),
           "InvalidPermission.Duplicate: the specified rule already exists", EC2_ERRORS),
    Unique(EGRESS_RULE, ("securityGroupId", "ipProtocol", "fromPort", "toPort", "cidrIpv4", "cidrIpv6", "prefixListId", "referencedSecurityGroupId"),
           "InvalidPermission.Duplicate: the specified rule already exists", EC2_ERRORS),
    Refers(INGRESS_RULE, "securityGroupId", SECURITY_GROUP, "InvalidGroup.NotFound: The security group '{value}' does not exist", EC2_ERRORS),
    Refers(INGRESS_RULE, "referencedSecurityGroupId", SECURITY_GROUP, "InvalidGroup.NotFound: The security group '{value}' does not exist", EC2_ERRORS),
    Refers(EGRESS_RULE, "securityGroupId", SECURITY_GROUP, "InvalidGroup.NotFound: The security group '{value}' does not exist", EC2_ERRORS),
    # ---- identity, logs ---------------------------------------------------------------------------------------------------
    CreateOnly(ROLE, ("name", "namePrefix", "path"), TF + "iam/role.go", ("assumeRolePolicy",)),
    Unique(ROLE, ("name",), "EntityAlreadyExists: Role with name {name} already exists.", "hashicorp/terraform issue #20394"),
    Blocks(ROLE, ROLE_POLICY, "role", "DeleteConflict: Cannot delete entity, must detach all policies first.", 2 * _MIN, "hashicorp/terraform-provider-aws issue #40059"),
    Blocks(ROLE, NODE_GROUP, "nodeRoleArn", "DeleteConflict: Cannot delete entity, must remove roles from instance profile first.", 2 * _MIN, None),
    CreateOnly(INLINE_POLICY, ("name", "namePrefix", "role"), TF + "iam/role_policy.go", ("role", "policy")),
    Refers(INLINE_POLICY, "role", ROLE, "NoSuchEntity: The role with name {value} cannot be found.", "https://docs.aws.amazon.com/IAM/latest/APIReference/API_PutRolePolicy.html"),
    Blocks(ROLE, INLINE_POLICY, "role", "DeleteConflict: Cannot delete entity, must delete policies first.", 2 * _MIN,
           "https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteRole.html"),
    CreateOnly(BUCKET, ("bucket", "bucketPrefix", "objectLockEnabled"), TF + "s3/bucket.go"),
    Unique(BUCKET, ("bucket",), "BucketAlreadyOwnedByYou: Your previous request to create the named bucket succeeded and you already own it.",
           "https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html (us-east-1 answers 200 instead)"),
    CreateOnly(BUCKET_ACCESS, ("bucket",), TF + "s3/bucket_public_access_block.go", ("bucket",)),
    Refers(BUCKET_ACCESS, "bucket", BUCKET, "NoSuchBucket: The specified bucket does not exist", "https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutPublicAccessBlock.html"),
    CreateOnly(ROLE_POLICY, ("role", "policyArn"), TF + "iam/role_policy_attachment.go", ("role", "policyArn")),
    Refers(ROLE_POLICY, "role", ROLE, "NoSuchEntity: The role with name {value} cannot be found.", "https://docs.aws.amazon.com/IAM/latest/APIReference/API_AttachRolePolicy.html"),
    CreateOnly(LOG_GROUP, ("name", "namePrefix", "logGroupClass"), TF + "logs/group.go"),
    Unique(LOG_GROUP, ("name",), "ResourceAlreadyExistsException: The specified log group already exists", "terraform-aws-modules/terraform-aws-eks issue #411"),
    Behaviour("cluster.log-group", "A cluster that logs makes its log group anew when that was deleted before the cluster; the new one stays behind.",
              "cloudposse/terraform-aws-eks-cluster issue #67"),
    # ---- cluster ----------------------------------------------------------------------------------------------------------
    CreateOnly(CLUSTER, ("name", "roleArn", "bootstrapSelfManagedAddons", "accessConfig.bootstrapClusterCreatorAdminPermissions",
               "kubernetesNetworkConfig.ipFamily", "kubernetesNetworkConfig.serviceIpv4Cidr", "outpostConfig", "remoteNetworkConfig"),
               TF + "eks/cluster.go", ("roleArn", "vpcConfig")),
    Unique(CLUSTER, ("name",), "ResourceInUseException: Cluster already exists with name: {name}", "terraform-aws-modules/terraform-aws-eks issue #1262"),
    Refers(CLUSTER, "roleArn", ROLE, "InvalidParameterException: roleArn, {value}, does not exist", TF + "eks/cluster.go"),
    Refers(CLUSTER, "vpcConfig.subnetIds", SUBNET, "InvalidParameterException: The subnet ID '{value}' does not exist", EC2_ERRORS),
    Blocks(CLUSTER, NODE_GROUP, "clusterName", "ResourceInUseException: Cluster has nodegroups attached", 0, "rebuy-de/aws-nuke issue #465"),
    Behaviour("cluster.two-zones", "InvalidParameterException: Subnets specified must be in at least two different AZs", "awsdocs/amazon-eks-user-guide PR #795"),
    Behaviour("cluster.role-policy", "InvalidParameterException: The provided role doesn't have the Amazon EKS Managed Policies associated with it. Please ensure the following "
              "policy is attached: arn:aws:iam::aws:policy/AmazonEKSClusterPolicy", TF + "eks/cluster.go"),
    Behaviour("cluster.takes-its-own", "With the cluster go its add-ons, access entries, associations, security group and every Kubernetes object.", "facts/aws.md §9; facts/rehearsal.md §3"),
    Behaviour("cluster.group-in-use", "The group EKS made stays behind when a rule of another group still refers to it, and then blocks the VPC.",
              "facts/aws.md §9 (METR PR #576); https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteSecurityGroup.html"),
    Behaviour("cluster.leaves-behind", "Load balancers and EBS volumes made for Services and claims outlive the cluster.", "facts/aws.md §6, §9"),
    OneOf(CLUSTER, "accessConfig.authenticationMode", ("API", "API_AND_CONFIG_MAP", "CONFIG_MAP"), "https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateAccessConfigRequest.html"),
    CreateOnly(ACCESS_ENTRY, ("clusterName", "principalArn", "type"), TF + "eks/access_entry.go", ("clusterName", "principalArn")),
    Unique(ACCESS_ENTRY, ("clusterName", "principalArn"), "ResourceInUseException: The specified access entry resource is already in use on this cluster.",
           "terraform-aws-modules/terraform-aws-eks issue #3293"),
    Refers(ACCESS_ENTRY, "clusterName", CLUSTER, "ResourceNotFoundException: No cluster found for name: {value}.", TF + "eks/cluster.go"),
    CreateOnly(ACCESS_POLICY, ("accessScope", "clusterName", "policyArn", "principalArn"), TF + "eks/access_policy_association.go",
               ("accessScope", "clusterName", "policyArn", "principalArn")),
    Refers(ACCESS_POLICY, "clusterName", CLUSTER, "ResourceNotFoundException: No cluster found for name: {value}.", TF + "eks/cluster.go"),
    Behaviour("access-policy.needs-entry", "ResourceNotFoundException: The specified principalArn could not be found. You must create an access entry first.",
              TF + "eks/access_policy_association.go"),
    Behaviour("access.first-out", "Without the entry (or the creator's bootstrap right) every Kubernetes call is Unauthorized.", "terraform-aws-modules/terraform-aws-eks issue #3005 (facts/aws.md §7)"),
    CreateOnly(ADDON, ("addonName", "clusterName"), TF + "eks/addon.go", ("addonName", "clusterName")),
    Unique(ADDON, ("clusterName", "addonName"), "ResourceInUseException: Addon already exists.", "crossplane-contrib/provider-aws issue #1310"),
    Refers(ADDON, "clusterName", CLUSTER, "ResourceNotFoundException: No cluster found for name: {value}.", TF + "eks/cluster.go"),
    OneOf(ADDON, "addonName", ("vpc-cni", "kube-proxy", "coredns", "eks-pod-identity-agent", "aws-ebs-csi-driver", "aws-efs-csi-driver", "aws-fsx-csi-driver",
          "metrics-server", "eks-node-monitoring-agent"), "facts/aws.md §7"),
    Behaviour("addon.coredns", "Add-ons with a Deployment stay CREATING/DEGRADED until a node can run them; the provider gives up after 20 minutes.",
              "maddevsio/aws-eks-base issue #112; " + TF + "eks/addon.go (20 min); facts/durations.md"),
    Timeout(ADDON, "create", 20 * _MIN, TF + "eks/addon.go"),
    Timeout(ADDON, "delete", 40 * _MIN, TF + "eks/addon.go"),
    CreateOnly(POD_IDENTITY, ("clusterName", "namespace", "serviceAccount"), TF + "eks/pod_identity_association.go", ("clusterName", "namespace", "roleArn", "serviceAccount")),
    Unique(POD_IDENTITY, ("clusterName", "namespace", "serviceAccount"), "ResourceInUseException: Association already exists", "crossplane-contrib/provider-upjet-aws issue #1437"),
    Refers(POD_IDENTITY, "clusterName", CLUSTER, "ResourceNotFoundException: No cluster found for name: {value}.", TF + "eks/cluster.go"),
    Refers(POD_IDENTITY, "roleArn", ROLE, "InvalidParameterException: Role provided in the request does not exist.", TF + "eks/pod_identity_association.go"),
    Behaviour("pod-identity.at-pod-creation", "Credentials are injected when a pod is created: the association must exist before the add-on's pods.", "facts/aws.md §7; issue 3"),
    # ---- nodes ------------------------------------------------------------------------------------------------------------
    CreateOnly(LAUNCH_TEMPLATE, ("name", "namePrefix"), TF + "ec2/ec2_launch_template.go (every other change is a new version)"),
    Unique(LAUNCH_TEMPLATE, ("name",), "InvalidLaunchTemplateName.AlreadyExistsException: Launch template name already in use.",
           "github-aws-runners/terraform-aws-github-runner issue #1382"),
    CreateOnly(PLACEMENT_GROUP, ("name", "partitionCount", "spreadLevel", "strategy"), TF + "ec2/ec2_placement_group.go", ("strategy",)),
    Unique(PLACEMENT_GROUP, ("name",), "InvalidPlacementGroup.Duplicate: The Placement Group '{name}' already exists.", EC2_ERRORS),
    OneOf(PLACEMENT_GROUP, "strategy", ("cluster", "partition", "spread"), TF + "ec2/ec2_placement_group.go"),
    Blocks(PLACEMENT_GROUP, INSTANCE, "placementGroup", "InvalidPlacementGroup.InUse: The placement group '{id}' is in use and may not be deleted.", 0, EC2_ERRORS),
    CreateOnly(NODE_GROUP, ("amiType", "capacityType", "clusterName", "diskSize", "instanceTypes", "launchTemplate.id", "launchTemplate.name", "nodeGroupName",
               "nodeGroupNamePrefix", "nodeRoleArn", "remoteAccess", "subnetIds"), TF + "eks/node_group.go", ("clusterName", "nodeRoleArn", "scalingConfig", "subnetIds")),
    Unique(NODE_GROUP, ("clusterName", "nodeGroupName"), "ResourceInUseException: NodeGroup already exists with name {nodeGroupName} and cluster name {clusterName}",
           "pulumi/pulumi-eks issue #294; terraform-aws-modules/terraform-aws-eks issue #1191"),
    Refers(NODE_GROUP, "clusterName", CLUSTER, "ResourceNotFoundException: No cluster found for name: {value}.", TF + "eks/cluster.go"),
    Refers(NODE_GROUP, "nodeRoleArn", ROLE, "InvalidParameterException: The role {value} does not exist", None),
    Refers(NODE_GROUP, "subnetIds", SUBNET, "InvalidParameterException: The subnet ID '{value}' does not exist", EC2_ERRORS),
    Refers(NODE_GROUP, "launchTemplate.id", LAUNCH_TEMPLATE, "InvalidLaunchTemplateId.NotFound: The specified launch template, with template ID {value}, does not exist.", EC2_ERRORS),
    OneOf(NODE_GROUP, "amiType", ("AL2_x86_64", "AL2_x86_64_GPU", "AL2_ARM_64", "CUSTOM", "BOTTLEROCKET_ARM_64", "BOTTLEROCKET_x86_64", "BOTTLEROCKET_ARM_64_NVIDIA",
          "BOTTLEROCKET_x86_64_NVIDIA", "AL2023_x86_64_STANDARD", "AL2023_ARM_64_STANDARD", "AL2023_x86_64_NEURON", "AL2023_x86_64_NVIDIA", "AL2023_ARM_64_NVIDIA"),
          "https://docs.aws.amazon.com/eks/latest/APIReference/API_Nodegroup.html"),
    OneOf(NODE_GROUP, "capacityType", ("ON_DEMAND", "SPOT", "CAPACITY_BLOCK"), "https://docs.aws.amazon.com/eks/latest/APIReference/API_Nodegroup.html"),
    Timeout(NODE_GROUP, "create", 60 * _MIN, TF + "eks/node_group.go"),
    Timeout(NODE_GROUP, "update", 60 * _MIN, TF + "eks/node_group.go"),
    Timeout(NODE_GROUP, "delete", 60 * _MIN, TF + "eks/node_group.go"),
    Timeout(CLUSTER, "create", 30 * _MIN, TF + "eks/cluster.go"),
    Timeout(CLUSTER, "delete", 15 * _MIN, TF + "eks/cluster.go"),
    Behaviour("node-group.capacity", "Without capacity the group goes to CREATE_FAILED with AsgInstanceLaunchFailures, and exists: the provider has set the id before it waits.",
              "aws/containers-roadmap issue #2204; terraform-provider-aws issue #39904 (text); " + TF + "eks/node_group.go (SetId before wait)"),
    Behaviour("node-group.gives-up", "EKS itself declares CREATE_FAILED after about 21 minutes; before that the provider's own timeout ends the wait in CREATING.",
              "terraform-aws-modules/terraform-aws-eks issue #1910 (one report)"),
    Behaviour("node-group.late", "The Auto Scaling group goes on trying after the provider gave up: instances may be launched, and billed, later.", "facts/aws.md §3; issue 3"),
    Behaviour("node-group.retry", "An update of a group that is not ACTIVE finds it ACTIVE if its instances came, and else waits for them once more.", None),
    Behaviour("node-group.quota", "VcpuLimitExceeded - You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance bucket that the "
              "specified instance type belongs to.", EC2_ERRORS + "; the group ends like one without capacity"),
    Behaviour("node-group.unsupported", "Unsupported - Your requested instance type ({machine}) is not supported in your requested Availability Zone ({zone}).",
              EC2_ERRORS + "; https://repost.aws/knowledge-center/ec2-instance-type-not-supported-az-error (text)"),
    Behaviour("node-group.needs-cni", "Nodes are not Ready before vpc-cni runs.", "facts/aws.md §7 (before compute)"),
    Behaviour("node-group.needs-route", "Nodes of a private subnet without a way out cannot join: NodeCreationFailure: Instances failed to join the kubernetes cluster.",
              "lightspin-tech/eks-creation-engine issue #6; terraform-aws-modules/terraform-aws-eks issue #2149 (text)"),
    Behaviour("node-group.needs-policies", "The node role needs AmazonEKSWorkerNodePolicy, or the instances do not join.", "https://docs.aws.amazon.com/eks/latest/userguide/create-node-role.html"),
    Behaviour("node-group.degraded", "Routes, NAT or associations deleted before the nodes: the group hangs in DEGRADED while its instances are billed.",
              "aws-samples/appmod-blueprints PR #582 (facts/durations.md)"),
    Behaviour("launch-template.no-subnet", "InvalidRequestException: Launch template should not specify a subnet in its network interfaces.", "facts/aws.md §1"),
    Behaviour("launch-template.no-profile", "InvalidRequestException: Launch template should not specify an IAM instance profile.", "facts/aws.md §1"),
    Behaviour("launch-template.groups-on-interfaces", "InvalidParameterCombination: Network interfaces and instance-level security groups may not be specified on the same request", "facts/aws.md §1"),
    Behaviour("launch-template.no-public-ip", "InvalidParameterCombination: The associatePublicIPAddress parameter cannot be specified when launching with multiple network interfaces.", "facts/aws.md §1"),
    Behaviour("launch-template.first-interface", "The interface of card 0, device 0 must be of type interface (or efa), never efa-only; cards and devices are not used twice.", "facts/aws.md §1"),
    Behaviour("launch-template.one-type", "InvalidRequestException: the instance type stands in the launch template or in the node group, not in both.", "facts/aws.md §1"),
    Behaviour("launch-template.disk", "InvalidParameterException: Disk size must be specified within the launch template.", "facts/aws.md §1"),
    Behaviour("capacity-block.template", "A CAPACITY_BLOCK group needs a template with market type capacity-block, the reservation's id and the instance type.", "facts/aws.md §3"),
    Behaviour("capacity-block.no-placement-group", "A forced placement group makes reservations and capacity blocks fail with InsufficientInstanceCapacity.", "facts/aws.md §3"),
    Behaviour("instance.type-exists", "InvalidParameterException: The following supplied instance types do not exist: [{type}]", None),
    Behaviour("api.expired", "operation error: api error ExpiredToken: The security token included in the request is expired: every call fails until the command runs with others.",
              "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html (sessions end); aws/aws-sdk-go-v2 (text)"),
    Behaviour("interface.left", "What the CNI or EFA made on a node may outlive it: the interface stays in its subnet, available, and holds subnet and group.",
              "facts/aws.md §9 (aws/amazon-vpc-cni-k8s issue #1223, pulumi-eks #194, aws-k8s-tester PR #534)"),
    Behaviour("subnet.zone-of-region", "InvalidParameterValue: Value ({zone}) for parameter availabilityZoneId is invalid.", EC2_ERRORS),
    Behaviour("subnet.in-vpc", "InvalidSubnet.Range: The CIDR '{cidr}' is invalid.", EC2_ERRORS),
    # ---- storage ----------------------------------------------------------------------------------------------------------
    CreateOnly(FILE_SYSTEM, ("availabilityZoneName", "creationToken", "encrypted", "kmsKeyId", "performanceMode"), TF + "efs/file_system.go"),
    Unique(FILE_SYSTEM, ("creationToken",), "FileSystemAlreadyExists: File system '{other}' already exists with creation token '{creationToken}'", "hashicorp/nomad PR #7352"),
    OneOf(FILE_SYSTEM, "throughputMode", ("bursting", "provisioned", "elastic"), "https://docs.aws.amazon.com/efs/latest/ug/API_CreateFileSystem.html"),
    OneOf(FILE_SYSTEM, "performanceMode", ("generalPurpose", "maxIO"), "https://docs.aws.amazon.com/efs/latest/ug/API_CreateFileSystem.html"),
    Blocks(FILE_SYSTEM, MOUNT_TARGET, "fileSystemId", "FileSystemInUse: file system '{id}' has mount targets", 0, "https://docs.aws.amazon.com/efs/latest/ug/API_DeleteFileSystem.html"),
    Blocks(FILE_SYSTEM, ACCESS_POINT, "fileSystemId", "FileSystemInUse: file system '{id}' has access points", 0, "https://docs.aws.amazon.com/efs/latest/ug/delete-efs-fs.html"),
    CreateOnly(MOUNT_TARGET, ("fileSystemId", "ipAddress", "subnetId"), TF + "efs/mount_target.go", ("fileSystemId", "subnetId")),
    Unique(MOUNT_TARGET, ("fileSystemId", "@zone"), "MountTargetConflict: mount target already exists in this AZ", "hashicorp/terraform-provider-aws issue #2525"),
    Refers(MOUNT_TARGET, "fileSystemId", FILE_SYSTEM, "FileSystemNotFound: File system '{value}' does not exist.", "https://docs.aws.amazon.com/efs/latest/ug/API_CreateMountTarget.html"),
    Refers(MOUNT_TARGET, "subnetId", SUBNET, "SubnetNotFound: The subnet ID '{value}' does not exist", "https://docs.aws.amazon.com/efs/latest/ug/API_CreateMountTarget.html"),
    Refers(MOUNT_TARGET, "securityGroups", SECURITY_GROUP, "SecurityGroupNotFound: The security group '{value}' does not exist",
           "https://docs.aws.amazon.com/efs/latest/ug/API_CreateMountTarget.html"),
    CreateOnly(ACCESS_POINT, ("fileSystemId", "posixUser", "rootDirectory"), TF + "efs/access_point.go", ("fileSystemId",)),
    Doubles(ACCESS_POINT, "https://docs.aws.amazon.com/efs/latest/ug/API_CreateAccessPoint.html (only the client token is unique)"),
    Refers(ACCESS_POINT, "fileSystemId", FILE_SYSTEM, "FileSystemNotFound: File system '{value}' does not exist.", "https://docs.aws.amazon.com/efs/latest/ug/API_CreateAccessPoint.html"),
    CreateOnly(LUSTRE, ("backupId", "copyTagsToBackups", "deploymentType", "driveCacheType", "efaEnabled", "exportPath", "importPath", "importedFileChunkSize", "kmsKeyId",
               "securityGroupIds", "storageType", "subnetIds"), TF + "fsx/lustre_file_system.go (throughput is changed in place; for a smaller size see lustre.shrink)", ("subnetIds",)),
    Doubles(LUSTRE, TF + "fsx/lustre_file_system.go (ClientRequestToken: another one for each create)"),
    OneOf(LUSTRE, "deploymentType", ("SCRATCH_1", "SCRATCH_2", "PERSISTENT_1", "PERSISTENT_2"), "https://docs.aws.amazon.com/fsx/latest/APIReference/API_CreateFileSystemLustreConfiguration.html"),
    OneOf(LUSTRE, "storageType", ("SSD", "HDD", "INTELLIGENT_TIERING"), "https://docs.aws.amazon.com/fsx/latest/APIReference/API_CreateFileSystem.html"),
    OneOf(LUSTRE, "dataCompressionType", ("NONE", "LZ4"), "https://docs.aws.amazon.com/fsx/latest/APIReference/API_CreateFileSystemLustreConfiguration.html"),
    Refers(LUSTRE, "subnetIds", SUBNET, "InvalidNetworkSettings: The subnet ID '{value}' does not exist", "https://docs.aws.amazon.com/fsx/latest/APIReference/API_CreateFileSystem.html"),
    Refers(LUSTRE, "securityGroupIds", SECURITY_GROUP, "InvalidNetworkSettings: The security group ID '{value}' does not exist", "https://docs.aws.amazon.com/fsx/latest/APIReference/API_CreateFileSystem.html"),
    Behaviour("lustre.size", "BadRequest: {size} GiB at {tier} MB/s per TiB: PERSISTENT_2 on SSD has 1200, 2400 or a multiple of 2400 GiB, and 125, 250, 500 or 1000 MB/s per TiB.",
              "https://docs.aws.amazon.com/fsx/latest/APIReference/API_CreateFileSystem.html (StorageCapacity); API_CreateFileSystemLustreConfiguration.html (PerUnitStorageThroughput)"),
    Behaviour("lustre.shrink", "A smaller storageCapacity replaces the file system, a larger one does not.", TF + "fsx/lustre_file_system.go (CustomizeDiff)"),
    Behaviour("lustre.own-ports", "InvalidNetworkSettings: The file system cannot be created because the default security group in the subnet provided or the provided security groups "
              "do not permit Lustre LNET network traffic on port 988", "https://docs.aws.amazon.com/fsx/latest/LustreGuide/cannot-create-fs.html"),
    Behaviour("lustre.ports", "Could not mount \"{dns}@tcp:/{mount}\": its security groups let nobody in from this node on 988 and 1018-1023.",
              "https://docs.aws.amazon.com/fsx/latest/LustreGuide/limit-access-security-groups.html; kubernetes-sigs/aws-fsx-csi-driver pkg/driver/node.go (text)"),
    Behaviour("lustre.driver", "A static volume needs the add-on aws-fsx-csi-driver, its id, dnsname and mountname, and no permission: only the calls that make, grow and delete go to AWS.",
              "kubernetes-sigs/aws-fsx-csi-driver docs/install.md (permissions to create and delete), examples/kubernetes/static_provisioning"),
    Behaviour("mount-target.dns", "Mounting works about 90 s after the mount target is there (DNS).", "facts/durations.md (AWS EFS guide)"),
    # ---- Kubernetes -------------------------------------------------------------------------------------------------------
    CreateOnly(NAMESPACE, ("metadata.name",), PK + "diff.go"),
    CreateOnly(SECRET, ("metadata.name", "metadata.namespace", "type", "stringData", "data"), PK + "diff.go (unless enableSecretMutable)"),
    CreateOnly(CONFIG_MAP, ("metadata.name", "metadata.namespace", "binaryData", "data"), PK + "diff.go (unless enableConfigMapMutable)"),
    CreateOnly(SERVICE_ACCOUNT, ("metadata.name", "metadata.namespace"), PK + "diff.go"),
    CreateOnly(SERVICE, ("metadata.name", "metadata.namespace", "spec.clusterIP"), PK + "diff.go"),
    CreateOnly(PV, ("metadata.name", "spec.csi", "spec.nfs", "spec.hostPath", "spec.local"), PK + "diff.go"),
    CreateOnly(PVC, ("metadata.name", "metadata.namespace", "spec"), PK + "diff.go"),
    CreateOnly(STORAGE_CLASS, ("metadata.name", "parameters", "provisioner"), PK + "diff.go"),
    Frozen(STORAGE_CLASS, ("reclaimPolicy", "volumeBindingMode"), "Forbidden: updates to {field} are forbidden.", "kubernetes/kubernetes pkg/apis/storage/validation/validation.go"),
    CreateOnly(K8S_ROLE, ("metadata.name", "metadata.namespace"), PK + "diff.go"),
    CreateOnly(ROLE_BINDING, ("metadata.name", "metadata.namespace", "roleRef"), PK + "diff.go"),
    CreateOnly(JOB, ("metadata.name", "metadata.namespace", "spec.completions", "spec.parallelism", "spec.selector", "spec.template"), PK + "diff.go"),
    CreateOnly(DGD, ("metadata.name", "metadata.namespace"), PK + "diff.go (a custom resource has no other; replace_on_changes is the program's)"),
    CreateOnly(RELEASE, ("name", "namespace"), PK + "helm_release.go (Diff: forceNewFields)", ("chart",)),
    Frozen(DGD, ("spec.backendFramework", "spec.topologyConstraint", "spec.experimental.kvTransferPolicy"),
           'admission webhook "vdynamographdeployment.kb.io" denied the request: {field} is immutable', DGD_RULES),
    Behaviour("k8s.delete-before-replace", "Where the name is given and stays, the provider deletes before it creates; for a Release it never does.",
              PK + "provider.go, helm_release.go (Diff)"),
    Behaviour("aws.create-before-delete", "The pretender never asks for delete-before-replace: the bridge does so only for a name it would have made itself "
              "(nameRequiresDeleteBeforeReplace), and the program must say it for every fixed name.", "pulumi/pulumi-terraform-bridge pkg/tfbridge/provider.go, schema.go"),
    Behaviour("k8s.unique", '{plural} "{name}" already exists', "facts/pulumi.md §10 (AlreadyExists since 4.29, upsertExistingObjects)"),
    Behaviour("k8s.schema", "Unknown fields, wrong types and missing fields of Kubernetes' own kinds are refused (rehearsal/cloud/schema.py), and what its validation refuses (validation.py).",
              "kubernetes/kubernetes pkg/apis/*/validation; held against a real API server by tests/cluster/test_agreement.py"),
    Behaviour("k8s.immutable", "Forbidden: field is immutable when `immutable` is set", "a real API server 1.35 (tests/cluster/test_agreement.py)"),
    Behaviour("k8s.namespace", 'namespaces "{namespace}" not found', "https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/"),
    Behaviour("namespace.takes-its-own", "Deleting a namespace deletes all in it, in the background; it is gone when the last finalizer and the last pod are. "
              "Until then nothing new is accepted in it.", "kubernetes/kubernetes pkg/controller/namespace/deletion/namespaced_resources_deleter.go"),
    Behaviour("weights.kept", "A download Job that finds its verified snapshot on the file system only looks at sizes, whichever volume leads there.",
              "recipe/scripts/download.py (already_verified)"),
    Behaviour("k8s.unreachable", "Nothing in a cluster can be read or changed when the cluster is gone or not ACTIVE; deletes honour deleteUnreachable.", "facts/pulumi.md §10"),
    Behaviour("k8s.token", "configured Kubernetes cluster is unreachable: getting credentials: exec: executable aws failed with exit code 254: a kubeconfig's token comes from the same credentials.",
              "pulumi/pulumi-kubernetes (client-go exec plugin: text); components/cluster.py (kubeconfig)"),
    Behaviour("k8s.stuck", "A finalizer nobody removes keeps an object Terminating, and the delete waits until its time is over.",
              "https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/; facts/aws.md §9"),
    Behaviour("csi.late", "driver name efs.csi.aws.com not found in the list of registered CSI drivers: until the driver's pods run, no claim of it can be used, add-on ACTIVE or not.",
              "kubernetes/kubernetes pkg/volume/csi/csi_plugin.go (text); kubernetes-sigs/aws-efs-csi-driver issues"),
    Behaviour("weights.truncated", "A file that is shorter than the hub says is found by its size, downloaded again, and ends the Job when it stays so.",
              "recipe/scripts/download.py (Damaged); huggingface/huggingface_hub (Consistency check failed)"),
    Behaviour("dgd.crd", "The CRD exists once the operator's init container ran, that is once the platform Release is deployed; it stays when the Release goes.", "facts/dynamo.md §2"),
    Behaviour("dgd.admission", "Checks of the API types and the webhook.", DGD_RULES + "; §1.1"),
    Behaviour("dgd.topology", "component topology is immutable: components cannot be added, removed or renamed, nor their type or multinode changed", DGD_RULES),
    Behaviour("dgd.finalizer", "nvidia.com/finalizer needs a live operator to go.", "facts/dynamo.md §1.4, aicr issue #406"),
    Behaviour("dgd.ready", "Ready needs the operator, claims Bound and mountable, secrets, device plugins, and nodes with room for every worker.", "facts/dynamo.md §1.4; issue 3"),
    Behaviour("dgd.not-awaited", "Custom resources are not awaited unless pulumi.com/waitFor says so.", "facts/pulumi.md §10"),
    Behaviour("release.chart", "A Release needs the chart's repository and version (a chart without either cannot be found, or is whatever is newest).", "facts/pulumi.md §10 (Check loads the chart)"),
    Behaviour("release.no-upsert", "upsertExistingObjects does not reach a Release: Helm refuses a name that is still in use.", "pulumi/pulumi-kubernetes issue #2116; helm/helm pkg/action/install.go (availableName)"),
    Behaviour("release.pending", "Helm's client marks a release: killed while it waits, it leaves pending-install. Then an upgrade says that another operation "
              "(install/upgrade/rollback) is in progress, an install that the name is in use; an uninstall works.",
              "helm/helm pkg/action/upgrade.go (errPending), install.go (availableName), uninstall.go; helm/helm issue #4558"),
    Behaviour("k8s.read-unreachable", "failed to read resource state due to unreachable cluster. If the cluster was deleted, you can remove this resource from Pulumi "
              'state by rerunning the operation with the PULUMI_K8S_DELETE_UNREACHABLE environment variable set to "true"', PK + "provider.go (Read)"),
    Behaviour("job.read", "Reading a Job that is not complete reports an initialization error, so the next update waits for it.", "pulumi/pulumi-kubernetes provider/pkg/await/job.go (jobInitAwaiter.Read)"),
    Behaviour("release.one-platform", "Only one cluster-wide operator per cluster: the chart's template fails otherwise.", "facts/dynamo.md §2"),
    Behaviour("release.operator-pod", "The operator asks for 512m CPU and 1 Gi; the Release waits for it.", "facts/dynamo.md §2"),
    Behaviour("pvc.wait", "A claim of an Immediate class is awaited for 5 minutes.", "facts/pulumi.md §10"),
    Behaviour("pvc.bind", "Class, volume name, capacity and access modes must match; the volume's file system and access point must exist, its driver run.", "issue 3; facts/aws.md §6, §7"),
    Behaviour("pvc.in-use", "kubernetes.io/pvc-protection and pv-protection keep a claim in use, and a bound volume, from going.", "https://kubernetes.io/docs/concepts/storage/persistent-volumes/"),
    Behaviour("device-plugins", "A node has nvidia.com/gpu and vpc.amazonaws.com/efa only when the plugin's pods run on it; the EFA chart's default tolerations lack nvidia.com/gpu.", "facts/aws.md §5"),
    Behaviour("job.awaited", "Jobs are awaited to Complete; a failed one is recorded with the reason; replaceUnready makes it anew.", "facts/pulumi.md §10"),
    Behaviour("pod.scheduling", "Requests, nodeSelector, required node affinity and taints decide; the message is the scheduler's.", "kubernetes/kubernetes pkg/scheduler"),
    Timeout(LUSTRE, "create", 30 * _MIN, TF + "fsx/lustre_file_system.go"),
    Timeout(LUSTRE, "update", 30 * _MIN, TF + "fsx/lustre_file_system.go"),
    Timeout(LUSTRE, "delete", 30 * _MIN, TF + "fsx/lustre_file_system.go"),
    Timeout(JOB, "create", 10 * _MIN, "facts/pulumi.md §10"),
    Timeout(PVC, "create", 5 * _MIN, "facts/pulumi.md §10"),
    Timeout(DGD, "create", 10 * _MIN, "facts/pulumi.md §10"),
    Timeout(DGD, "delete", 10 * _MIN, "facts/pulumi.md §10"),
    Timeout(NAMESPACE, "delete", 10 * _MIN, "facts/pulumi.md §10"),
    Timeout(PVC, "delete", 10 * _MIN, "facts/pulumi.md §10"),
    Timeout(PV, "delete", 10 * _MIN, "facts/pulumi.md §10"),
    Timeout(RELEASE, "create", 5 * _MIN, "pulumi-kubernetes helm.v3.Release: timeout, default 300 s"),
)  # fmt: skip

CREATE_ONLY = {r.type: r for r in ROWS if isinstance(r, CreateOnly)}
UNIQUE = {r.type: r for r in ROWS if isinstance(r, Unique)}
BEHAVIOUR = {r.key: r for r in ROWS if isinstance(r, Behaviour)}
TYPES = frozenset(CREATE_ONLY)
CLUSTER_SCOPED = frozenset({NAMESPACE, PV, STORAGE_CLASS})


def refers(typ: str) -> list[Refers]:
    return [r for r in ROWS if isinstance(r, Refers) and r.type == typ]


def blocks(typ: str) -> list[Blocks]:
    return [r for r in ROWS if isinstance(r, Blocks) and r.type == typ]


def one_of(typ: str) -> list[OneOf]:
    return [r for r in ROWS if isinstance(r, OneOf) and r.type == typ]


def frozen(typ: str) -> list[Frozen]:
    return [r for r in ROWS if isinstance(r, Frozen) and r.type == typ]


def timeout_s(typ: str, op: str, asked: float | None) -> float:
    """Seconds the provider waits: what the program asked, else the provider's default (10 minutes where no row says more)."""
    if asked:
        return asked
    return next((r.seconds for r in ROWS if isinstance(r, Timeout) and r.type == typ and r.op == op), 10 * _MIN)


def shrinks(typ: str, path: str, old: object, new: object) -> bool:
    """`lustre.shrink`: whether a change of `path` makes it smaller than what can be changed in place."""
    return (
        typ == LUSTRE
        and path == "storageCapacity"
        and isinstance(old, int | float)
        and isinstance(new, int | float)
        and new < old
    )


LUSTRE_PORTS = ((988, 988), (1018, 1023))


def lets_in(rule: Mapping[str, object], first: int, last: int) -> bool:
    """Whether an ingress rule opens these TCP ports."""
    if rule.get("ipProtocol") == "-1":
        return True
    opened = (rule.get("fromPort"), rule.get("toPort"))
    return (
        rule.get("ipProtocol") == "tcp"
        and all(isinstance(port, int | float) for port in opened)
        and bool(float(str(opened[0])) <= first and last <= float(str(opened[1])))
    )


def says(key: str) -> str:
    """The words of behaviour `key`; a rule the code uses without a row is a programming error."""
    return BEHAVIOUR[key].says
