"""The weights on the model cache: a Job downloads one pinned revision, resumes what is there, and verifies what it got.

Deliberately not here: the decision who waits for it (`weights.wait` in the recipe, applied in model.py), and any copy of
the token outside a Kubernetes Secret.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components._objects import create, create_job, fill
from components.nodes import CpuPool
from components.storage import Caches
from recipe.plan import Late, Plan


@dataclass(frozen=True, kw_only=True)
class WeightsArgs:
    """What Weights are made from."""

    plan: Plan
    hf_token: pulumi.Output[str] | None
    """Secret; given exactly when the plan has a token secret."""
    caches: Caches
    nodes: CpuPool
    """With CoreDNS: the Job runs there and resolves the hub's name."""


class Weights(pulumi.ComponentResource):
    """The download Job with its script and, where the recipe asks for one, the token."""

    def __init__(self, name: str, args: WeightsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:weights:Weights", name, None, opts)
        objects = args.plan.objects
        inside = pulumi.ResourceOptions(parent=self, depends_on=[args.caches.namespace])
        config = create(f"{name}-config", objects.weights_config, inside)
        needed: list[pulumi.Resource] = [config, args.caches, args.nodes]
        if objects.token_secret is not None:
            assert args.hf_token is not None, "the plan has a token secret"
            needed.append(create(f"{name}-token", fill(objects.token_secret, {Late.HF_TOKEN: args.hf_token}), inside))
        job = create_job(
            f"{name}-job",
            objects.weights_job,
            # caches: the claim it writes to; through it the driver, its identity and the mount target.
            pulumi.ResourceOptions(parent=self, depends_on=needed),
        )
        self.register_outputs({"job": job.id})


class WeightsHead(pulumi.ComponentResource):
    """The Job that ends when the download is as far from its end as GPU nodes from serving (`weights.wait: overlap`).

    A component of its own, because GPU nodes wait for it and the graph for the whole download.
    """

    def __init__(self, name: str, args: WeightsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:weights:WeightsHead", name, None, opts)
        objects = args.plan.objects
        assert objects.head_config is not None, "made only where the plan has one"
        assert objects.head_job is not None, "made only where the plan has one"
        inside = pulumi.ResourceOptions(parent=self, depends_on=[args.caches.namespace])
        config = create(f"{name}-config", objects.head_config, inside)
        job = create_job(
            f"{name}-job",
            objects.head_job,
            # Beside the download, not after it: it reads how far that is.
            pulumi.ResourceOptions(parent=self, depends_on=[config, args.caches, args.nodes]),
        )
        self.register_outputs({"job": job.id})
