"""The readiness Job: says yes when the model answers, or why not as soon as that is certain.

Waiting for a timeout with 16 GPUs running costs more than everything else in a failed deployment.
"""

from __future__ import annotations

import json
from typing import Final

from recipe.constants import GRAPH_LABEL
from recipe.context import RenderContext
from recipe.jobs import JobSpec, account, build_job
from recipe.names import digest
from recipe.plan import Late, Manifest

ACCOUNT: Final = "graph-readiness"
FRONTEND_PORT: Final = 8000
"""Of the frontend's Service (facts/dynamo.md §1.4)."""
UNSCHEDULABLE_GRACE_SECONDS: Final = 300
"""How long a pod may wait for a place: device plugins register GPUs and EFA a minute or two after a node joins (assumption)."""
IMAGE_GRACE_SECONDS: Final = 120
"""How long an image may fail to pull for a reason that may pass; a reason that cannot pass fails at once."""
CRASH_RESTARTS: Final = 3
"""Restarts of a container after which it is taken to crash for good."""
COMPLETION_ATTEMPTS: Final = 5
"""Chat completions to try once everything is ready: a disaggregated graph can be ready and yet hang (ai-dynamo/dynamo#11914)."""


def readiness_account(context: RenderContext) -> tuple[Manifest, Manifest, Manifest]:
    """May read this graph, and list the pods and events of this namespace."""
    graph = {
        "apiGroups": ["nvidia.com"],
        "resources": ["dynamographdeployments"],
        "resourceNames": [context.names.graph],
        "verbs": ["get"],
    }
    return account(context, ACCOUNT, [graph, {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["list"]}])


def readiness_job(context: RenderContext, graph: Manifest) -> tuple[Manifest, Manifest]:
    """ConfigMap and Job. It waits for one specification of the graph on one set of nodes; another of either is another Job.

    Without the nodes in its name, a Job that completed earlier would answer for new nodes: after a failed delete of the
    cluster the next `up` adopts what is still in it.
    """
    names = context.names
    config, job = build_job(
        context,
        JobSpec(
            purpose="readiness",
            modules=("readiness", "endpoint", "kube"),
            env={
                "NAMESPACE": names.namespace,
                "GRAPH": names.graph,
                "GRAPH_DIGEST": digest(json.dumps(graph["spec"], sort_keys=True)),
                "GRAPH_LABEL": GRAPH_LABEL,
                "FRONTEND_URL": f"http://{names.frontend_service}.{names.namespace}:{FRONTEND_PORT}",
                "MODEL": context.model.id,
                "UNSCHEDULABLE_GRACE_SECONDS": str(UNSCHEDULABLE_GRACE_SECONDS),
                "IMAGE_GRACE_SECONDS": str(IMAGE_GRACE_SECONDS),
                "CRASH_RESTARTS": str(CRASH_RESTARTS),
                "COMPLETION_ATTEMPTS": str(COMPLETION_ATTEMPTS),
            },
            cpu="100m",
            memory="128Mi",
            deadline_seconds=context.recipe.serving.ready_timeout_minutes * 60,
            attempts=3,
            final_exit_codes=(1, 2, 3),
            service_account=ACCOUNT,
        ),
    )
    nodes = Late.CPU_NODES if context.gpu is None else Late.GPU_NODES
    metadata = job["metadata"] | {"name": f"{job['metadata']['name']}-{nodes}"}
    return config, job | {"metadata": metadata}
