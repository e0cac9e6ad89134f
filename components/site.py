"""Where nodes join a cluster, whoever made it. Creates nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a node group needs of network and cluster."""

    cluster_name: pulumi.Input[str]
    security_group_id: pulumi.Input[str]
    """The group EKS makes: all protocols from itself, which is what EFA needs."""
    node_role_arn: pulumi.Input[str]
    subnet_id: pulumi.Input[str]
    """The one subnet of all nodes and of the EFS mount target."""
    outlives_nodes: Sequence[pulumi.Resource]
    """Routes and NAT, without which nodes that still drain lose the control plane; the role's policies and the add-ons a node
    needs to become Ready. Empty where a base has them: it is protected."""
