"""The admission Job: the API server must accept the graph before GPU nodes start.

It posts the graph with a server-side dry run, so the CRD's schema, its CEL rules and the operator's webhook all judge it, and
nothing is created.
"""

from __future__ import annotations

import json
from typing import Final

from recipe.context import RenderContext
from recipe.jobs import SCRIPTS_MOUNT, JobSpec, account, build_job
from recipe.plan import Manifest

ACCOUNT: Final = "graph-admission"
GRAPH_FILE: Final = "graph.json"
DEADLINE_SECONDS: Final = 600
"""How long the CRD and the webhook may take to appear after the platform's Release (its own timeout upstream: 900 s)."""


def admission_account(context: RenderContext) -> tuple[Manifest, Manifest, Manifest]:
    """May create graphs in this namespace, which is what a dry run of it needs, and nothing else."""
    rule = {"apiGroups": ["nvidia.com"], "resources": ["dynamographdeployments"], "verbs": ["create"]}
    return account(context, ACCOUNT, [rule])


def admission_job(context: RenderContext, graph: Manifest) -> tuple[Manifest, Manifest]:
    """ConfigMap and Job. A changed graph is a new Job."""
    return build_job(
        context,
        JobSpec(
            purpose="admission",
            modules=("admission", "kube"),
            files={GRAPH_FILE: json.dumps(graph, indent=1)},
            env={"GRAPH_FILE": f"{SCRIPTS_MOUNT}/{GRAPH_FILE}"},
            cpu="100m",
            memory="128Mi",
            deadline_seconds=DEADLINE_SECONDS,
            attempts=3,
            final_exit_codes=(1, 2, 3),
            service_account=ACCOUNT,
        ),
    )
