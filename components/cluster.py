"""The EKS control plane, who may use it, and the add-ons every node needs before it can join.

Deliberately not here: nodes (nodes.py), CoreDNS (nodes.py: it needs a node to become active), the EFS driver (storage.py),
an OIDC provider (Pod Identity does without) and any object inside the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components._addons import create_addon
from components._iam import service_role
from components._tags import named
from components.identity import Identity
from components.network import Network
from recipe.plan import FoundationPlan

_ADMIN_POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
_NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly")
_NODE_ADDONS = ("vpc-cni", "kube-proxy", "eks-pod-identity-agent")


@dataclass(frozen=True, kw_only=True)
class ClusterArgs:
    """What a Cluster is made from."""

    plan: FoundationPlan
    identity: Identity
    network: Network


class Cluster(pulumi.ComponentResource):
    """Control plane, roles, access entries and node add-ons."""

    cluster: aws.eks.Cluster
    """The control plane itself: what objects inside it are `deleted_with`."""
    cluster_name: pulumi.Output[str]
    security_group_id: pulumi.Output[str]
    """The group EKS makes: all protocols from itself, which is what EFA needs."""
    node_role_arn: pulumi.Output[str]
    kubeconfig: pulumi.Output[str]
    """JSON; holds no credential, every client asks `aws eks get-token`."""

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:cluster:Cluster", name, None, opts)
        names, plan, tags, tie = args.plan.names, args.plan.cluster, args.plan.tags, args.identity.tie
        child = pulumi.ResourceOptions(parent=self)

        # EKS would make the group by itself, without retention and never removed.
        logs = aws.cloudwatch.LogGroup(
            f"{name}-logs",
            name=tie(names.log_group),
            retention_in_days=plan.log_retention_days,
            tags=named(tags, names.log_group),
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        role, policies = service_role(
            f"{name}-role",
            tie(names.cluster_role),
            names.cluster_role,
            "eks.amazonaws.com",
            ("AmazonEKSClusterPolicy",),
            tags,
            child,
        )
        node_role, _ = service_role(
            f"{name}-node-role", tie(names.node_role), names.node_role, "ec2.amazonaws.com", _NODE_POLICIES, tags, child
        )
        self.cluster = aws.eks.Cluster(
            f"{name}-eks",
            name=tie(names.cluster),
            version=plan.version,
            role_arn=role.arn,
            vpc_config=aws.eks.ClusterVpcConfigArgs(
                subnet_ids=[args.network.nodes_subnet_id, args.network.control_plane_subnet_id],
                endpoint_private_access=True,
                endpoint_public_access=True,
                public_access_cidrs=list(plan.endpoint_cidrs),
            ),
            kubernetes_network_config=aws.eks.ClusterKubernetesNetworkConfigArgs(service_ipv4_cidr=plan.service_cidr),
            access_config=aws.eks.ClusterAccessConfigArgs(
                authentication_mode="API", bootstrap_cluster_creator_admin_permissions=True
            ),
            # The add-ons below are managed; unmanaged copies of them would have to be adopted first.
            bootstrap_self_managed_addons=False,
            enabled_cluster_log_types=list(plan.log_types),
            upgrade_policy=aws.eks.ClusterUpgradePolicyArgs(support_type="STANDARD"),
            # `pulumi destroy` is how the bill ends: it must not need a second command first.
            deletion_protection=False,
            tags=named(tags, names.cluster),
            opts=pulumi.ResourceOptions(
                parent=self,
                # logs: before EKS writes. policies: EKS needs them to remove its interfaces.
                # network: nothing of a cluster refers to routes, associations and NAT, and they have to outlive it on destroy.
                depends_on=[logs, *policies, args.network],
                delete_before_replace=True,  # its name is fixed, so that a repeated create collides
                # 8 to 16 minutes are usual, in one survey up to 970 s; the provider gives up on a delete after 15 minutes.
                custom_timeouts=pulumi.CustomTimeouts(create="45m", update="90m", delete="45m"),
            ),
        )
        for principal in plan.admin_principals:
            self._admit(f"{name}-admin-{principal.split('iam::')[-1]}", principal, tags)
        for addon in _NODE_ADDONS:
            create_addon(f"{name}-{addon}", addon, self.cluster.name, tags, self)

        self.cluster_name = self.cluster.name
        self.security_group_id = self.cluster.vpc_config.cluster_security_group_id
        self.node_role_arn = node_role.arn
        self.kubeconfig = _kubeconfig(self.cluster, args.plan.recipe.access.region)
        self.register_outputs(
            {
                "clusterName": self.cluster_name,
                "securityGroupId": self.security_group_id,
                "nodeRoleArn": self.node_role_arn,
            }
        )

    def _admit(self, name: str, principal: str, tags: Mapping[str, str]) -> None:
        entry = aws.eks.AccessEntry(
            name,
            cluster_name=self.cluster.name,
            principal_arn=principal,
            type="STANDARD",
            tags=named(tags, principal.rsplit("/", 1)[-1]),
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),  # one entry per principal
        )
        aws.eks.AccessPolicyAssociation(
            f"{name}-policy",
            cluster_name=self.cluster.name,
            principal_arn=entry.principal_arn,
            policy_arn=_ADMIN_POLICY,
            access_scope=aws.eks.AccessPolicyAssociationAccessScopeArgs(type="cluster"),
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )


def _kubeconfig(cluster: aws.eks.Cluster, region: str) -> pulumi.Output[str]:
    credentials = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "aws",
        "args": ["eks", "get-token", "--cluster-name", cluster.name, "--region", region, "--output", "json"],
    }
    authority = cluster.certificate_authority.data
    return pulumi.Output.json_dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "eks",
                    "cluster": {"server": cluster.endpoint, "certificate-authority-data": authority},
                }
            ],
            "users": [{"name": "aws", "user": {"exec": credentials}}],
            "contexts": [{"name": "eks", "context": {"cluster": "eks", "user": "aws"}}],
            "current-context": "eks",
        }
    )
