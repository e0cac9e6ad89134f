"""The VPC: one zone for everything that runs, a second one only because EKS asks for it.

Creates subnets by zone **id**, NAT for the nodes, and a gateway endpoint so that image layers from S3 do not pay for NAT.
Deliberately not here: security groups (EKS makes the one all nodes share; EFS brings its own) and public addresses of nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components._tags import named
from components.identity import Identity
from recipe.plan import FoundationPlan, SubnetPlan


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """What a Network is made from."""

    plan: FoundationPlan
    identity: Identity


class Network(pulumi.ComponentResource):
    """VPC, subnets, routes and NAT."""

    vpc: aws.ec2.Vpc
    """Replaced with the cluster. What else has a fixed name depends on it, so that a new name waits until the old one is free."""
    vpc_id: pulumi.Output[str]
    nodes_subnet_id: pulumi.Output[str]
    """The one subnet of all nodes and of the EFS mount target."""
    control_plane_subnet_id: pulumi.Output[str]
    """In the second zone; nothing but EKS' own interfaces."""

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:network:Network", name, None, opts)
        plan = args.plan.network
        child = pulumi.ResourceOptions(parent=self)

        def tags(what: str) -> dict[str, str]:
            return named(args.plan.tags, f"{args.plan.names.prefix}-{what}")

        vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=args.identity.tie(plan.vpc_cidr),
            enable_dns_support=True,
            enable_dns_hostnames=True,  # the mount target's name and the private API endpoint need both
            tags=tags("vpc"),
            opts=child,
        )

        def subnet(one: SubnetPlan) -> aws.ec2.Subnet:
            return aws.ec2.Subnet(
                f"{name}-{one.kind}",
                vpc_id=vpc.id,
                cidr_block=one.cidr,
                availability_zone_id=one.zone_id,
                map_public_ip_on_launch=False,
                tags=tags(one.kind),
                opts=child,
            )

        public, nodes, control_plane = (subnet(one) for one in (plan.public, plan.nodes, plan.control_plane))

        gateway = aws.ec2.InternetGateway(
            f"{name}-internet",
            vpc_id=vpc.id,
            tags=tags("internet"),
            # The provider would move it to the next VPC, and a VPC cannot go while it has one.
            opts=pulumi.ResourceOptions(parent=self, replace_on_changes=["vpcId"]),
        )
        public_routes = aws.ec2.RouteTable(f"{name}-public-routes", vpc_id=vpc.id, tags=tags("public"), opts=child)
        to_internet = aws.ec2.Route(
            f"{name}-to-internet",
            route_table_id=public_routes.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=gateway.id,
            opts=child,
        )
        public_association = aws.ec2.RouteTableAssociation(
            f"{name}-public-association", subnet_id=public.id, route_table_id=public_routes.id, opts=child
        )
        address = aws.ec2.Eip(
            f"{name}-nat-address",
            domain=args.identity.tie("vpc"),  # the only thing about an address that cannot change
            tags=tags("nat"),
            # An internet gateway cannot be detached while an address of its VPC is mapped.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[gateway]),
        )
        nat = aws.ec2.NatGateway(
            f"{name}-nat",
            allocation_id=address.allocation_id,
            subnet_id=public.id,
            tags=tags("nat"),
            opts=pulumi.ResourceOptions(
                parent=self,
                # NAT works, and can be removed, only while its subnet has a way to the internet.
                depends_on=[to_internet, public_association],
                delete_before_replace=True,  # its address can serve one gateway only
            ),
        )
        node_routes = aws.ec2.RouteTable(f"{name}-node-routes", vpc_id=vpc.id, tags=tags("nodes"), opts=child)
        aws.ec2.Route(
            f"{name}-to-nat",
            route_table_id=node_routes.id,
            destination_cidr_block="0.0.0.0/0",
            nat_gateway_id=nat.id,
            opts=child,
        )
        aws.ec2.RouteTableAssociation(
            f"{name}-nodes-association", subnet_id=nodes.id, route_table_id=node_routes.id, opts=child
        )
        aws.ec2.VpcEndpoint(
            f"{name}-s3",
            vpc_id=vpc.id,
            service_name=f"com.amazonaws.{args.plan.recipe.access.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[node_routes.id],
            tags=tags("s3"),
            opts=child,
        )

        self.vpc_id = vpc.id
        self.nodes_subnet_id = nodes.id
        self.control_plane_subnet_id = control_plane.id
        self.register_outputs(
            {
                "vpcId": vpc.id,
                "nodesSubnetId": nodes.id,
                "controlPlaneSubnetId": control_plane.id,
            }
        )
