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
from recipe.placement import context_tokens
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
KV_PROMPT_WORDS: Final = 2200
"""Length of the prompts that show how KV travels: at least 2,000 tokens, half a gigabyte of cache for Qwen3-32B."""
KV_ROUNDS: Final = 5
"""How often as many of them are sent as there are workers, until each had one."""
KV_SECONDS: Final = 300
"""For all of that: over TCP one of them alone takes about 100 (facts/dynamo.md §5.2)."""


def readiness_account(context: RenderContext) -> tuple[Manifest, Manifest, Manifest]:
    """May read this graph, list the pods and events of this namespace, and read logs where KV travels between pods."""
    graph = {
        "apiGroups": ["nvidia.com"],
        "resources": ["dynamographdeployments"],
        "resourceNames": [context.names.graph],
        "verbs": ["get"],
    }
    rules = [graph, {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["list"]}]
    if _kv_settings(context):
        # The workers' names are not known before they run, so it is all logs of the namespace.
        rules.append({"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]})
    return account(context, ACCOUNT, rules)


def _kv_settings(context: RenderContext) -> dict[str, str]:
    """What `recipe/scripts/kv_path.py` is told; empty where no KV travels between pods."""
    if context.recipe.mode == "agg" or context.gpu is None:
        return {}
    shortest = min(context_tokens(context.recipe, context.model, role) for role in context.recipe.workers)
    return {
        "KV_ENGINE": context.recipe.engine,
        "KV_BACKEND": context.recipe.serving.kv_transfer.backend.upper(),
        "KV_PROMPT_WORDS": str(min(KV_PROMPT_WORDS, shortest // 2)),
        "KV_ROUNDS": str(KV_ROUNDS),
        "KV_SECONDS": str(KV_SECONDS),
    }


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
            modules=("readiness", "kv_path", "endpoint", "metrics", "kube"),
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
            }
            | _kv_settings(context),
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
