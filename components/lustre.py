"""On request, an FSx for Lustre for the weights, and the driver that mounts it: AWS' half, as `FileSystem` of storage.py is EFS'.

Deliberately not here: its volume and claim (storage.py, `Caches`), and whose the root of it is (weights.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components._addons import create_addon
from components._tags import named
from components.cluster import Cluster
from components.network import Network
from components.nodes import CpuPool
from recipe.plan import FoundationPlan, Late

_LUSTRE = ((988, 988), (1018, 1023))
"""Ports, all TCP (FSx for Lustre user guide, file system access control with Amazon VPC)."""


@dataclass(frozen=True, kw_only=True)
class LustreArgs:
    """What a Lustre is made from."""

    plan: FoundationPlan
    """With a Lustre in its storage."""
    network: Network
    cluster: Cluster
    nodes: CpuPool


class Lustre(pulumi.ComponentResource):
    """An FSx for Lustre for the weights, and the driver that mounts it.

    Deliberately without a role for the driver: its controller calls AWS to make, grow and delete file systems for claims, and none of
    our claims asks for that; its node part only mounts.
    """

    late: dict[str, pulumi.Output[str]]
    """What stands as `${name}` in the manifest of its volume."""

    def __init__(self, name: str, args: LustreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:lustre:Lustre", name, None, opts)
        names, plan, tags = args.plan.names, args.plan.storage.lustre, args.plan.tags
        assert plan is not None, "made only where the plan has one"
        child = pulumi.ResourceOptions(parent=self)

        group = aws.ec2.SecurityGroup(
            f"{name}-group",
            name=names.lustre,
            description="Lustre from the nodes and among its servers",
            vpc_id=args.network.vpc_id,
            tags=named(tags, names.lustre),
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),  # a name is unique in its VPC
        )

        def rule(suffix: str, source: pulumi.Input[str], first: int, last: int) -> aws.vpc.SecurityGroupIngressRule:
            return aws.vpc.SecurityGroupIngressRule(
                f"{name}-{suffix}-{first}",
                security_group_id=group.id,
                referenced_security_group_id=source,
                ip_protocol="tcp",
                from_port=first,
                to_port=last,
                description=f"Lustre {suffix.replace('-', ' ')}",
                # The port too: two rules of one group are told apart by their tags (`ops recover`).
                tags=named(tags, f"{names.lustre}-{suffix}-{first}"),
                opts=child,
            )

        among = [rule("among-servers", group.id, *ports) for ports in _LUSTRE]
        files = aws.fsx.LustreFileSystem(
            f"{name}-fsx",
            deployment_type="PERSISTENT_2",
            storage_type="SSD",
            storage_capacity=plan.size_gib,
            per_unit_storage_throughput=plan.throughput_mb_per_tib,
            subnet_ids=args.network.nodes_subnet_id,
            security_group_ids=[group.id],
            # Weights in bfloat16 and fp8 hardly shrink, and each read would be unpacked.
            data_compression_type="NONE",
            # What is on it can be downloaded again, and a backup would outlive the stack.
            automatic_backup_retention_days=0,
            skip_final_backup=True,
            tags=named(tags, names.lustre),
            # among: FSx refuses to be made where its servers do not reach each other.
            opts=pulumi.ResourceOptions(parent=self, depends_on=among),
        )
        for ports in _LUSTRE:
            rule("from-nodes", args.cluster.security_group_id, *ports)
        self.late = {Late.LUSTRE: files.id, Late.LUSTRE_DNS: files.dns_name, Late.LUSTRE_MOUNT: files.mount_name}
        driver = create_addon(
            f"{name}-driver",
            "aws-fsx-csi-driver",
            args.cluster.cluster_name,
            tags,
            self,
            # cluster: its add-ons hold the Pod Identity agent, without which this one is refused. nodes: it becomes active on one.
            [args.cluster, args.nodes.node_group],
        )
        self.register_outputs({"fileSystemId": files.id, "driver": driver.arn})
