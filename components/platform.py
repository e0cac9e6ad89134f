"""Dynamo's platform: the operator, its CRDs and webhooks, from the unmodified chart.

Deliberately not here: anything the operator makes, and the graph itself (serving.py). The CRDs are not part of the chart: an
init container of the operator applies them, so a graph must wait for this release (facts/dynamo.md §2).
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components._objects import create_release
from components.identity import Identity
from components.nodes import CpuPool
from recipe.plan import FoundationPlan


@dataclass(frozen=True, kw_only=True)
class PlatformArgs:
    """What a Platform is made from."""

    plan: FoundationPlan
    identity: Identity
    nodes: CpuPool
    """With CoreDNS: the operator runs there, and its webhook is called by name."""


class Platform(pulumi.ComponentResource):
    """The operator, ready to admit graphs."""

    def __init__(self, name: str, args: PlatformArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:platform:Platform", name, None, opts)
        release = create_release(
            f"{name}-release",
            args.plan.platform,
            args.identity,
            pulumi.ResourceOptions(parent=self, depends_on=[args.nodes]),
        )
        self.register_outputs({"release": release.id})
