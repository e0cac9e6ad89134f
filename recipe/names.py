"""Physical names: deterministic, within every service's limit, the same for everyone who asks.

They carry project, stack and deployment id, so that a create repeated after a crash collides instead of doubling.
"""

from __future__ import annotations

import hashlib
import re

from recipe.config import PROJECT
from recipe.errors import Problem
from recipe.plan import Names

STACK_NAME = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]")

LABEL_LIMIT = 63
"""Kubernetes: label values and DNS labels (service, namespace)."""
IAM_ROLE_LIMIT = 64
NODE_GROUP_LIMIT = 63
CREATION_TOKEN_LIMIT = 64
"""EFS: `CreationToken`."""
_LONGEST_SUFFIX = len("-efs-csi")
_PREFIX_LIMIT = min(LABEL_LIMIT, IAM_ROLE_LIMIT, NODE_GROUP_LIMIT, CREATION_TOKEN_LIMIT) - _LONGEST_SUFFIX


def digest(text: str, length: int = 8) -> str:
    """The first `length` hex digits of a SHA-256: the same on every machine and in every run."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def fit(name: str, limit: int) -> str:
    """`name`, or where it is longer than `limit` its beginning and a hash of the whole."""
    return name if len(name) <= limit else f"{name[: limit - 7].rstrip('-')}-{digest(name, 6)}"


def check_stack(stack: str) -> list[Problem]:
    """Problems of a stack name: it becomes a namespace, labels and part of AWS names."""
    if STACK_NAME.fullmatch(stack):
        return []
    fix = "2 to 40 lower-case letters, digits and dashes, a letter first, like qwen3-32b-disagg (no dots: the operator refuses them)"
    return [Problem("stack", stack, "cannot become a namespace and a label", fix)]


def make_names(stack: str, deployment_id: str) -> Names:
    """All names of one deployment of one stack."""
    prefix = fit(f"{PROJECT}-{stack}-{deployment_id}", _PREFIX_LIMIT)
    namespace = stack
    # The operator labels pods with `<namespace>-<graph>` (facts/dynamo.md, "Observed"), a label value.
    graph = fit(stack, LABEL_LIMIT - 1 - len(namespace))
    return Names(
        prefix=prefix,
        cluster=prefix,
        cluster_role=f"{prefix}-cluster",
        node_role=f"{prefix}-node",
        efs_role=f"{prefix}-efs-csi",
        benchmark_role=f"{prefix}-bench",
        log_group=f"/aws/eks/{prefix}/cluster",
        cpu_node_group=f"{prefix}-cpu",
        cpu_launch_template=f"{prefix}-cpu",
        gpu_node_group=f"{prefix}-gpu",
        gpu_launch_template=f"{prefix}-gpu",
        placement_group=f"{prefix}-gpu",
        efs_security_group=f"{prefix}-efs",
        efs_creation_token=f"{prefix}-efs",
        lustre=f"{prefix}-lustre",
        namespace=namespace,
        graph=graph,
        frontend_service=f"{graph}-frontend",
    )


_OF_A_FOUNDATION = (
    "cluster",
    "cluster_role",
    "node_role",
    "efs_role",
    "log_group",
    "efs_security_group",
    "efs_creation_token",
)


def on_base(own: Names, base: Names) -> Names:
    """The names of a stack on a base: what the base has made is called as the base calls it, the rest carries this stack."""
    return own.model_copy(update={name: getattr(base, name) for name in _OF_A_FOUNDATION})
