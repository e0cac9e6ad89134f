"""Device plugins: without them the kubelet offers neither `nvidia.com/gpu` nor `vpc.amazonaws.com/efa`.

The AL2023 NVIDIA image brings driver, container toolkit and the host's part of EFA, but no plugin. Deliberately not here: the
GPU Operator and DRA (docs/decisions, 99).
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components._objects import create_release
from components.cluster import Cluster
from components.identity import Identity
from recipe.plan import FoundationPlan


@dataclass(frozen=True, kw_only=True)
class DevicesArgs:
    """What Devices are made from."""

    plan: FoundationPlan
    identity: Identity
    cluster: Cluster


class Devices(pulumi.ComponentResource):
    """One release per device plugin, none without GPUs. Their DaemonSets wait for GPU nodes at no cost."""

    def __init__(self, name: str, args: DevicesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:devices:Devices", name, None, opts)
        for chart in args.plan.devices:
            create_release(
                f"{name}-{chart.release}",
                chart,
                args.identity,
                pulumi.ResourceOptions(parent=self, depends_on=[args.cluster]),
            )
        self.register_outputs({"releases": [chart.release for chart in args.plan.devices]})
