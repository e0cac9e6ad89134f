"""Node groups, each with its own launch template: CPU nodes for everything, then GPU nodes for workers only.

Groups and templates have fixed names, so that a create repeated after a crash collides instead of doubling what costs by the
hour. Deliberately not here: scaling (the recipe says how many), device plugins (devices.py), and when GPU nodes may start
(model.py passes what they wait for).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components._addons import create_addon
from components._tags import named
from components.identity import Identity
from components.site import Site
from recipe.catalogue import Nic
from recipe.constants import GPU_TAINT_KEY, GPU_TAINT_VALUE
from recipe.plan import FoundationPlan, NodePool, Plan

_TAGGED_WITH_INSTANCE = ("instance", "volume", "network-interface")
"""A node group's own tags do not reach these; what a failed teardown leaves behind is found by them."""
_FROZEN_TAGS = [
    path
    for key in ("owner", "ttl-hours")
    # The template's own as well: the provider previews a new version, hence new nodes, for any change of a template.
    for path in (f'tagSpecifications[*].tags["{key}"]', f'tags["{key}"]')
]
"""Templates and instances keep the values they were made with: a longer TTL must not make a new version, which rolls GPU nodes."""
_ROOT_DEVICE = "/dev/xvda"
"""Root volume of the AL2023 images; another name would add a second volume."""


@dataclass(frozen=True, kw_only=True)
class PoolArgs:
    """What both pools are made from."""

    plan: FoundationPlan
    identity: Identity
    site: Site


@dataclass(frozen=True, kw_only=True)
class CpuPoolArgs(PoolArgs):
    """What a CpuPool is made from."""

    dns: bool
    """CoreDNS beside the nodes; False where the cluster has it already."""


@dataclass(frozen=True, kw_only=True)
class GpuPoolArgs(PoolArgs):
    """What a GpuPool is made from."""

    plan: Plan
    wait_for: Sequence[pulumi.Resource]
    """Everything that has to be right before GPUs are paid for. Only the node group waits, not its template."""


class CpuPool(pulumi.ComponentResource):
    """CPU nodes and, in a cluster of one's own, CoreDNS, which needs one of them to become active."""

    node_group: aws.eks.NodeGroup
    generation: pulumi.Output[str]
    """Another one for every node group that is created, also under the same name."""

    def __init__(self, name: str, args: CpuPoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:nodes:CpuPool", name, None, opts)
        pool, names, tags = args.plan.cpu_pool, args.plan.names, args.plan.tags
        template = aws.ec2.LaunchTemplate(
            f"{name}-template",
            name=args.identity.tie(names.cpu_launch_template),
            instance_type=pool.instance_type,
            block_device_mappings=[_root_volume(pool)],
            metadata_options=_imds(),
            tag_specifications=_tag_specifications(named(tags, names.cpu_node_group)),
            user_data=_user_data(pool),
            update_default_version=True,
            tags=named(tags, names.cpu_launch_template),
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True, ignore_changes=_FROZEN_TAGS),
        )
        self.node_group = aws.eks.NodeGroup(
            f"{name}-nodes",
            node_group_name=args.identity.tie(names.cpu_node_group),
            cluster_name=args.site.cluster_name,
            node_role_arn=args.site.node_role_arn,
            subnet_ids=[args.site.subnet_id],
            version=args.plan.cluster.version,
            ami_type=pool.ami_type,
            release_version=pool.ami_release,
            capacity_type="ON_DEMAND",
            launch_template=_newest(template),
            scaling_config=_fixed_size(pool),
            update_config=aws.eks.NodeGroupUpdateConfigArgs(max_unavailable=1),
            labels=pool.labels,
            tags=named(tags, names.cpu_node_group),
            opts=_group_options(self, pool, args.site.outlives_nodes),
        )
        if args.dns:
            # Without a node it stays degraded, and its create fails after 20 minutes.
            create_addon(f"{name}-coredns", "coredns", args.site.cluster_name, tags, self, [self.node_group])
        self.generation = _generation(self.node_group)
        self.register_outputs({"nodeGroup": self.node_group.node_group_name})


class GpuPool(pulumi.ComponentResource):
    """GPU nodes: tainted, labelled for this stack only, with the EFA interfaces of their type."""

    node_group: aws.eks.NodeGroup
    generation: pulumi.Output[str]
    """Another one for every node group that is created, also under the same name."""

    def __init__(self, name: str, args: GpuPoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:nodes:GpuPool", name, None, opts)
        pool, names, tags = args.plan.gpu_pool, args.plan.names, args.plan.tags
        assert pool is not None, "made only where the plan has GPU nodes"
        fixed = pulumi.ResourceOptions(parent=self, delete_before_replace=True)
        placement = None
        if pool.placement_group:
            group = aws.ec2.PlacementGroup(
                f"{name}-placement",
                name=args.identity.tie(names.placement_group),
                strategy="cluster",
                tags=named(tags, names.placement_group),
                opts=fixed,
            )
            placement = aws.ec2.LaunchTemplatePlacementArgs(group_name=group.name)
        template = aws.ec2.LaunchTemplate(
            f"{name}-template",
            name=args.identity.tie(names.gpu_launch_template),
            instance_type=pool.instance_type,
            network_interfaces=[_interface(nic, args.site.security_group_id) for nic in pool.nics],
            instance_market_options=(
                aws.ec2.LaunchTemplateInstanceMarketOptionsArgs(market_type=pool.market_type)
                if pool.market_type
                else None
            ),
            capacity_reservation_specification=_reservation(pool.reservation_id) if pool.reservation_id else None,
            placement=placement,
            block_device_mappings=[_root_volume(pool)],
            metadata_options=_imds(),
            tag_specifications=_tag_specifications(named(tags, names.gpu_node_group)),
            user_data=_user_data(pool),
            update_default_version=True,
            tags=named(tags, names.gpu_launch_template),
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True, ignore_changes=_FROZEN_TAGS),
        )
        self.node_group = aws.eks.NodeGroup(
            f"{name}-nodes",
            node_group_name=args.identity.tie(names.gpu_node_group),
            cluster_name=args.site.cluster_name,
            node_role_arn=args.site.node_role_arn,
            subnet_ids=[args.site.subnet_id],
            version=args.plan.cluster.version,
            ami_type=pool.ami_type,
            release_version=pool.ami_release,
            capacity_type=pool.capacity_type,
            launch_template=_newest(template),
            scaling_config=_fixed_size(pool),
            # MINIMAL takes a node away before it starts the next: there is no spare GPU node to be had.
            update_config=aws.eks.NodeGroupUpdateConfigArgs(max_unavailable=1, update_strategy="MINIMAL"),
            taints=[aws.eks.NodeGroupTaintArgs(key=GPU_TAINT_KEY, value=GPU_TAINT_VALUE, effect="NO_SCHEDULE")],
            labels=pool.labels,
            tags=named(tags, names.gpu_node_group),
            opts=pulumi.ResourceOptions.merge(
                _group_options(self, pool, [*args.site.outlives_nodes, *args.wait_for]),
                # Rolled node by node instead, half of the graph would wait on paid nodes for the other half, and EKS rolls
                # back onto the old type when there is none of the new one.
                pulumi.ResourceOptions(replacement_trigger=pool.instance_type),
            ),
        )
        self.generation = _generation(self.node_group)
        self.register_outputs({"nodeGroup": self.node_group.node_group_name, "generation": self.generation})


def _generation(group: aws.eks.NodeGroup) -> pulumi.Output[str]:
    # EKS ends the ARN with an id of its own; the first part of it is enough to tell two apart.
    return group.arn.apply(lambda arn: arn.rsplit("/", 1)[-1][:8])


def _group_options(
    parent: pulumi.Resource, plan: NodePool, depends_on: Sequence[pulumi.Resource]
) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions(
        parent=parent,
        # Among them the site's: without routes and NAT, nodes that still drain lose the control plane and their group hangs.
        depends_on=depends_on,
        delete_before_replace=True,
        # EKS never mends a group whose create failed: the next `up` makes another. What AWS delivered late is kept by a
        # `pulumi refresh` before it, which finds the group active.
        replace_on_changes=["#initerror"],
        # Waiting for capacity is the recipe's to limit. Rolling updates and drains keep the provider's own hour.
        custom_timeouts=pulumi.CustomTimeouts(create=f"{plan.create_timeout_minutes}m"),
    )


def _newest(template: aws.ec2.LaunchTemplate) -> aws.eks.NodeGroupLaunchTemplateArgs:
    return aws.eks.NodeGroupLaunchTemplateArgs(id=template.id, version=template.latest_version.apply(str))


def _fixed_size(plan: NodePool) -> aws.eks.NodeGroupScalingConfigArgs:
    return aws.eks.NodeGroupScalingConfigArgs(min_size=plan.count, desired_size=plan.count, max_size=plan.count)


def _root_volume(plan: NodePool) -> aws.ec2.LaunchTemplateBlockDeviceMappingArgs:
    return aws.ec2.LaunchTemplateBlockDeviceMappingArgs(
        device_name=_ROOT_DEVICE,
        ebs=aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
            volume_type="gp3", volume_size=plan.disk_gib, encrypted="true", delete_on_termination="true"
        ),
    )


def _imds() -> aws.ec2.LaunchTemplateMetadataOptionsArgs:
    # Two hops, so that pods without host network (the EFS driver's) still learn their zone; tokens are always required.
    return aws.ec2.LaunchTemplateMetadataOptionsArgs(
        http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=2
    )


def _tag_specifications(tags: Mapping[str, str]) -> list[aws.ec2.LaunchTemplateTagSpecificationArgs]:
    return [aws.ec2.LaunchTemplateTagSpecificationArgs(resource_type=kind, tags=tags) for kind in _TAGGED_WITH_INSTANCE]


def _user_data(plan: NodePool) -> str | None:
    return base64.b64encode(plan.user_data.encode()).decode() if plan.user_data else None


def _interface(nic: Nic, security_group: pulumi.Input[str]) -> aws.ec2.LaunchTemplateNetworkInterfaceArgs:
    return aws.ec2.LaunchTemplateNetworkInterfaceArgs(
        network_card_index=nic.card,
        device_index=nic.device,
        interface_type=nic.type,
        # A template that lists interfaces gets no group from EKS, and none of its interfaces is removed by default.
        security_groups=[security_group],
        delete_on_termination="true",
    )


def _reservation(reservation_id: str) -> aws.ec2.LaunchTemplateCapacityReservationSpecificationArgs:
    return aws.ec2.LaunchTemplateCapacityReservationSpecificationArgs(
        capacity_reservation_target=aws.ec2.LaunchTemplateCapacityReservationSpecificationCapacityReservationTargetArgs(
            capacity_reservation_id=reservation_id
        )
    )
