"""Names that several rooms must agree on, each written once."""

from __future__ import annotations

from typing import Final

GPU_RESOURCE: Final = "nvidia.com/gpu"
EFA_RESOURCE: Final = "vpc.amazonaws.com/efa"

GPU_TAINT_KEY: Final = "nvidia.com/gpu"
GPU_TAINT_VALUE: Final = "true"
"""Key and value peers use (facts/aws.md §5). Keeps everything without the toleration below off the GPU nodes."""

GPU_TOLERATION: Final[dict[str, str]] = {"key": GPU_TAINT_KEY, "operator": "Exists", "effect": "NoSchedule"}
"""operator Exists also covers Dynamo's own NodePool, whose taint value differs."""

POOL_LABEL: Final = "dynamo-recipes/pool"
"""Node label. `cpu` on CPU pools, whose stack label says whose; the stack's own prefix on its GPU pool, so that two stacks never share GPUs."""

CPU_POOL: Final = "cpu"

GPU_PRESENT_LABEL: Final = "nvidia.com/gpu.present"
"""What the NVIDIA chart selects nodes by, and we the EFA chart's."""

JOB_LABEL: Final = "dynamo-recipes/job"
"""Label of our Jobs and their pods: weights, admission, readiness or benchmark."""

STACK_LABEL: Final = "dynamo-recipes/stack"
"""Label of every Kubernetes object a stack creates, and of its CPU nodes, so that two stacks on one cluster never share those either."""

GRAPH_LABEL: Final = "nvidia.com/dynamo-graph-deployment-name"
"""Set by the operator on every pod of a graph."""

PLATFORM_NAMESPACE: Final = "dynamo-system"

WIDEST_PREFIX: Final = 8
"""Bits of the widest network that may reach anything from outside: two halves of the internet are the internet."""
