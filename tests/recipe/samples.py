"""Recipes for tests: the shipped disaggregated stack as plain data, with overrides by dotted path."""

from __future__ import annotations

import copy
from typing import Any

from recipe.config import Recipe, parse
from recipe.plan import GpuPool, Plan
from recipe.planner import make_plan

STACK = "qwen3-32b-disagg"

DISAGG: dict[str, Any] = {
    "model": "Qwen/Qwen3-32B",
    "engine": "vllm",
    "mode": "disagg",
    "workers": {"prefill": {"replicas": 6, "tensor_parallel": 2}, "decode": {"replicas": 2, "tensor_parallel": 2}},
    "engine_tuning": {"context_length": 131072, "block_size": 64, "gpu_memory_fraction": 0.9},
    "hardware": {"gpu": "h100"},
    "budget": {"usd_per_hour": 130, "ttl_hours": 8},
    "access": {
        "region": "us-east-2",
        "account_id": "111122223333",
        "zone_id": "use2-az1",
        "endpoint_cidrs": ["198.51.100.7/32"],
    },
}
MOCKER: dict[str, Any] = {
    "engine": "mocker",
    "workers": {
        "prefill": {"replicas": 6, "tensor_parallel": 1, "cpu": 0.5, "memory_gib": 2},
        "decode": {"replicas": 2, "tensor_parallel": 1, "cpu": 0.5, "memory_gib": 2},
    },
    "engine_tuning": {"context_length": 131072, "block_size": 64},
    "hardware": {"cpu": {"instance_type": "m7i.xlarge", "nodes": 2}},
    "serving": {"frontend": {"cpu": 0.5, "memory_gib": 1}},
}
"""Changes that make the mocker's twin of DISAGG."""
AGG_WORKERS = {"worker": {"replicas": 8, "tensor_parallel": 2}}


def raw(**changes: Any) -> dict[str, Any]:
    """DISAGG with `path__to__key=value` replaced; the value `...` removes the key."""
    data = copy.deepcopy(DISAGG)
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        target = data
        for parent in parents:
            target = target.setdefault(parent, {})
        if value is ...:
            target.pop(last, None)
        else:
            target[last] = copy.deepcopy(value)
    return data


def recipe(**changes: Any) -> Recipe:
    """The parsed recipe of `raw(**changes)`."""
    return parse(raw(**changes))


def gpu_pool(made: Plan) -> GpuPool:
    """The GPU nodes of a plan that has some."""
    assert made.gpu_pool is not None, "no GPU nodes are planned"
    return made.gpu_pool


def plan(*, placeholders: bool = False, stack: str = STACK, **changes: Any) -> Plan:
    """The plan of `raw(**changes)`."""
    return make_plan(stack, recipe(**changes), placeholders=placeholders)
