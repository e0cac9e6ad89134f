"""The caches: one EFS file system, and inside the cluster a volume and a claim for each cache.

`FileSystem` is AWS' half (file system, mount target, access points, driver), `Caches` the cluster's half. What is mounted is made by us and the volumes are static, so that a driver's
controller never owns anything on AWS.
Deliberately not here: an FSx for Lustre, where the weights are on one (lustre.py), what is written to the caches
(weights.py) and EBS volumes (they would outlive the cluster).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components._addons import create_addon
from components._iam import service_role
from components._objects import create, fill
from components._tags import named
from components.cluster import Cluster
from components.identity import Identity
from components.network import Network
from components.nodes import CpuPool
from recipe.plan import FoundationPlan, Late, Plan

_NFS = 2049
_DRIVER_ACCOUNT = "efs-csi-controller-sa"
"""Service account of the add-on's controller, in kube-system."""
_DRIVER_POLICY = "service-role/AmazonEFSCSIDriverPolicy"


@dataclass(frozen=True, kw_only=True)
class FileSystemArgs:
    """What a FileSystem is made from."""

    plan: FoundationPlan
    identity: Identity
    network: Network
    cluster: Cluster
    nodes: CpuPool


class FileSystem(pulumi.ComponentResource):
    """EFS with one access point per cache, and the driver that mounts it."""

    late: dict[str, pulumi.Output[str]]
    """The ids that stand as `${name}` in the manifests of the volumes."""

    def __init__(self, name: str, args: FileSystemArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:storage:FileSystem", name, None, opts)
        names, plan, tags = args.plan.names, args.plan.storage, args.plan.tags
        child = pulumi.ResourceOptions(parent=self)

        files = aws.efs.FileSystem(
            f"{name}-efs",
            creation_token=args.identity.tie(names.efs_creation_token),
            encrypted=True,
            throughput_mode=plan.throughput_mode,
            tags=named(tags, names.efs_creation_token),
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),  # the token collides on purpose
        )
        group = aws.ec2.SecurityGroup(
            f"{name}-group",
            name=names.efs_security_group,
            description="NFS from the nodes",
            vpc_id=args.network.vpc_id,
            tags=named(tags, names.efs_security_group),
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),  # a name is unique in its VPC
        )
        from_nodes = aws.vpc.SecurityGroupIngressRule(
            f"{name}-from-nodes",
            security_group_id=group.id,
            referenced_security_group_id=args.cluster.security_group_id,
            ip_protocol="tcp",
            from_port=_NFS,
            to_port=_NFS,
            description="NFS from the nodes",
            tags=named(tags, names.efs_security_group),
            opts=child,
        )
        aws.efs.MountTarget(
            f"{name}-mount-target",
            file_system_id=files.id,
            subnet_id=args.network.nodes_subnet_id,
            security_groups=[group.id],
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[from_nodes],  # who mounts it must also get through
                delete_before_replace=True,  # one per zone and file system
            ),
        )
        owner = aws.efs.AccessPointRootDirectoryCreationInfoArgs(
            owner_uid=plan.uid, owner_gid=plan.gid, permissions="0755"
        )
        self.late = {Late.FILE_SYSTEM: files.id}
        for claim in plan.on_efs:
            point = aws.efs.AccessPoint(
                f"{name}-{claim.purpose}",
                file_system_id=files.id,
                posix_user=aws.efs.AccessPointPosixUserArgs(uid=plan.uid, gid=plan.gid),
                root_directory=aws.efs.AccessPointRootDirectoryArgs(path=claim.path, creation_info=owner),
                tags=named(tags, claim.name),
                opts=child,
            )
            self.late[Late.access_point(claim.purpose)] = point.id

        role, policies = service_role(
            f"{name}-driver-role",
            args.identity.tie(names.efs_role),
            names.efs_role,
            "pods.eks.amazonaws.com",
            (_DRIVER_POLICY,),
            tags,
            child,
        )
        association = aws.eks.PodIdentityAssociation(
            f"{name}-driver-identity",
            cluster_name=args.cluster.cluster_name,
            namespace="kube-system",
            service_account=_DRIVER_ACCOUNT,
            role_arn=role.arn,
            tags=named(tags, names.efs_role),
            opts=pulumi.ResourceOptions(
                parent=self,
                # policies: the driver must find them in force. cluster: its add-ons hold the Pod Identity agent.
                depends_on=[*policies, args.cluster],
                delete_before_replace=True,  # one per service account
            ),
        )
        driver = create_addon(
            f"{name}-driver",
            "aws-efs-csi-driver",
            args.cluster.cluster_name,
            tags,
            self,
            # association: credentials are injected when a pod is created, so it has to exist before.
            # node_group: the add-on becomes active on a node. Not all of the pool: the driver needs no CoreDNS.
            [association, args.nodes.node_group],
        )
        self.register_outputs({"fileSystemId": files.id, "driver": driver.arn})


@dataclass(frozen=True, kw_only=True)
class CachesArgs:
    """What Caches are made from."""

    plan: Plan
    late: Mapping[str, pulumi.Input[str]]
    """The ids that stand as `${name}` in the manifests of the volumes."""
    storage: Sequence[pulumi.Resource]
    """Driver, its identity and the mount target; empty where a base has them."""
    nodes: CpuPool
    """This stack's, on which pods of the namespace run."""
    shared: bool
    """Whether the cluster is other stacks' as well. If not, everything in it goes with it."""


class Caches(pulumi.ComponentResource):
    """The stack's namespace with its storage class, volumes and claims.

    In a shared cluster the namespace is what is deleted, and all in it goes with it: in the background, as finalizers and pods
    let it, with the API server's own care for claims in use. It goes before volumes, and before the nodes its pods still run on.
    """

    namespace: pulumi.Resource

    def __init__(self, name: str, args: CachesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:storage:Caches", name, None, opts)
        objects, child = args.plan.objects, pulumi.ResourceOptions(parent=self)
        storage_class = create(f"{name}-class", objects.storage_class, child)
        # The class first: a volume and its claim find each other by it.
        classes = [storage_class]
        if objects.lustre_class is not None:
            classes.append(create(f"{name}-lustre-class", objects.lustre_class, child))
        after_class = pulumi.ResourceOptions(parent=self, depends_on=classes, ignore_changes=["spec.capacity"])
        volumes = {
            purpose: create(f"{name}-{purpose}-volume", fill(manifest, args.late), after_class)
            for purpose, manifest in objects.volumes.items()
        }
        outlive = [*volumes.values(), args.nodes] if args.shared else []
        self.namespace = create(
            f"{name}-namespace", objects.namespace, pulumi.ResourceOptions(parent=self, depends_on=outlive)
        )
        for purpose, volume in volumes.items():
            create(
                f"{name}-{purpose}-claim",
                objects.claims[purpose],
                pulumi.ResourceOptions(
                    parent=self,
                    # Driver, its identity and the mount target have to be there first, and, on destroy, longer than the claim.
                    depends_on=[self.namespace, *classes, volume, *args.storage],
                    deleted_with=self.namespace if args.shared else None,
                    # A claim in use cannot be resized, and on EFS a size is a number without effect: not worth a replacement.
                    ignore_changes=["spec.resources"],
                ),
            )
        self.register_outputs({"namespace": objects.namespace["metadata"]["name"]})
