"""Every Kubernetes object of a stack, from one context."""

from __future__ import annotations

from recipe.admission import admission_account, admission_job
from recipe.context import RenderContext
from recipe.graph import make_graph, make_graph_config
from recipe.plan import Manifest, Objects
from recipe.readiness import readiness_account, readiness_job
from recipe.storage_objects import lustre_class, storage_class, volume, volume_claim
from recipe.weights import head_job, token_secret, weights_job

__all__ = ["RenderContext", "build_objects"]


def build_objects(context: RenderContext) -> Objects:
    """All objects in wire form. Values only the cloud knows stand in them as `recipe.plan.Late` names them."""
    graph_config = make_graph_config(context)
    graph = make_graph(context, graph_config).wire()
    weights_config, weights = weights_job(context)
    head_config, head = head_job(context) or (None, None)
    admission_config, admission = admission_job(context, graph)
    readiness_config, readiness = readiness_job(context, graph)
    admits, admits_role, admits_binding = admission_account(context)
    reads, reads_role, reads_binding = readiness_account(context)
    return Objects(
        namespace=_namespace(context),
        storage_class=storage_class(context),
        lustre_class=lustre_class(context),
        volumes={claim.key: volume(context, claim) for claim in context.storage.claims},
        claims={claim.key: volume_claim(context, claim) for claim in context.storage.claims},
        token_secret=token_secret(context),
        weights_config=weights_config,
        weights_job=weights,
        head_config=head_config,
        head_job=head,
        admission_account=admits,
        admission_role=admits_role,
        admission_binding=admits_binding,
        admission_config=admission_config,
        admission_job=admission,
        graph_config=graph_config,
        graph=graph,
        readiness_account=reads,
        readiness_role=reads_role,
        readiness_binding=reads_binding,
        readiness_config=readiness_config,
        readiness_job=readiness,
    )


def _namespace(context: RenderContext) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": context.names.namespace, "labels": context.labels},
    }
