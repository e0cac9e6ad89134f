"""The graph itself, and the Job that says whether it serves.

Deliberately not here: anything behind the graph (the operator makes pods and services) and a way in from outside: the
endpoint is a cluster-internal service, reached by port-forward, because a load balancer would own AWS things nobody deletes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components._objects import create, create_account, create_job, fill
from components.nodes import CpuPool, GpuPool
from recipe.plan import Late, Manifest, Plan


@dataclass(frozen=True, kw_only=True)
class ServingArgs:
    """What a Serving is made from."""

    plan: Plan
    namespace: pulumi.Resource
    nodes: GpuPool | CpuPool
    """Where the workers run: on GPU nodes where the plan has any."""
    wait_for: Sequence[pulumi.Resource]
    """Besides the nodes: devices, platform, caches, weights: without any of them the graph could never become ready."""


class Serving(pulumi.ComponentResource):
    """The DynamoGraphDeployment and its readiness Job."""

    def __init__(self, name: str, args: ServingArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:serving:Serving", name, None, opts)
        objects = args.plan.objects
        inside = pulumi.ResourceOptions(parent=self, depends_on=[args.namespace])
        # Another content is another name, so the new one can exist before the graph asks for it, and the old one goes when
        # the graph no longer does. Deleted first, the graph would have to be deleted with it, and its workers meanwhile.
        beside = pulumi.ResourceOptions(parent=self, depends_on=[args.namespace], delete_before_replace=False)
        configs = [create(f"{name}-{role}-config", manifest, beside) for role, manifest in objects.graph_config.items()]
        graph = create(
            f"{name}-graph",
            objects.graph,
            pulumi.ResourceOptions(
                parent=self,
                depends_on=[args.nodes, *args.wait_for, *configs],
                # The operator refuses to change these; everything else rolls out in place (facts/dynamo.md §1.3).
                replacement_trigger=immutable_part(objects.graph),
            ),
        )
        rights = (objects.readiness_account, objects.readiness_role, objects.readiness_binding)
        account = create_account(name, rights, self, args.namespace)
        config = create(f"{name}-config", objects.readiness_config, inside)
        ready = create_job(
            f"{name}-ready",
            fill(objects.readiness_job, dict.fromkeys((Late.GPU_NODES, Late.CPU_NODES), args.nodes.generation)),
            pulumi.ResourceOptions(
                parent=self,
                depends_on=[graph, *account, config],
                # Its name says when the graph is another one; other nodes have to prove themselves as well.
                replacement_trigger=(args.plan.gpu_pool or args.plan.cpu_pool).model_dump(mode="json"),
            ),
        )
        self.register_outputs({"graph": objects.graph["metadata"]["name"], "ready": ready.id})


def immutable_part(graph: Manifest) -> dict[str, object]:
    """What of a graph's spec the operator holds immutable: its framework, and which components of which type it has."""
    spec = graph["spec"]
    return {
        "backendFramework": spec.get("backendFramework", ""),
        "components": sorted([component["name"], component["type"]] for component in spec["components"]),
    }
