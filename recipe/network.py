"""Address ranges and zones of the VPC."""

from __future__ import annotations

import ipaddress

from recipe import catalogue
from recipe.plan import NetworkPlan, SubnetPlan

_SMALL_PREFIX = 26
"""59 usable addresses: NAT in the public subnet, EKS' network interfaces (at least 6, AWS advises 16) in the second zone."""


def make_network(vpc_cidr: str, gpu_zone: str) -> NetworkPlan:
    """Half of the VPC for nodes (pods get addresses of the VPC), two small subnets from the other half."""
    vpc = ipaddress.ip_network(vpc_cidr)
    first_half, nodes = vpc.subnets(prefixlen_diff=1)
    small = first_half.subnets(new_prefix=_SMALL_PREFIX)
    return NetworkPlan(
        vpc_cidr=vpc_cidr,
        public=SubnetPlan(cidr=str(next(small)), zone_id=gpu_zone, kind="public"),
        nodes=SubnetPlan(cidr=str(nodes), zone_id=gpu_zone, kind="nodes"),
        control_plane=SubnetPlan(cidr=str(next(small)), zone_id=catalogue.second_zone(gpu_zone), kind="control-plane"),
    )


def service_cidr(vpc_cidr: str) -> str:
    """Addresses of Kubernetes services: EKS' own two choices, the one that does not overlap the VPC."""
    preferred = ipaddress.ip_network("172.20.0.0/16")
    return str(preferred if not preferred.overlaps(ipaddress.ip_network(vpc_cidr)) else "10.100.0.0/16")
