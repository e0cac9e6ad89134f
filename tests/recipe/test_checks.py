"""What is wrong with a recipe before a plan is made of it: what is unset, what contradicts itself, what nobody knows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.recipe.samples import AGG_WORKERS, STACK, plan
from tests.recipe.test_planner import refused


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"model": "Qwen/Qwen3-32b"}, "model", "did you mean Qwen/Qwen3-32B?"),
        ({"workers": AGG_WORKERS}, "workers", "prefill, decode"),
        ({"workers__decode__expert_parallel": 2}, "workers.decode.expert_parallel", "no experts"),
        ({"workers__decode__expert_parallel": 8}, "workers.decode.expert_parallel", "does not divide"),
        (
            {"workers__decode__tuning": {"block_size": 32}},
            "workers.decode.tuning.block_size",
            "engine_tuning.block_size",
        ),
        ({"engine_tuning__context_length": 200_000}, "engine_tuning.context_length", "131072"),
        ({"router": {"mode": "round-robin", "temperature": 0.5}}, "router.temperature", "no effect"),
        ({"hardware__capacity": {"kind": "spot"}}, "hardware.capacity.kind", "accept_interruption"),
        ({"hardware": {"gpu": "h100", "instance_type": "p5en.48xlarge"}}, "hardware.instance_type", "p5.48xlarge"),
        (
            {"hardware": {"gpu": "h100", "instance_type": "p5.48xlarg"}},
            "hardware.instance_type",
            "did you mean p5.48xlarge?",
        ),
        (
            {
                "hardware": {
                    "gpu": "h100",
                    "placement_group": True,
                    "capacity": {"kind": "odcr", "reservation_id": "cr-0123456789abcdef0"},
                }
            },
            "hardware.placement_group",
            "InsufficientInstanceCapacity",
        ),
        ({"access__zone_id": "usw2-az1"}, "access.zone_id", "access.region: us-west-2"),
        ({"access__region": "us-eastt-2"}, "access.region", "did you mean us-east-2?"),
        ({"versions": {"dynamo": "1.5"}}, "versions.dynamo", "1.6.1"),
        ({"versions": {"engine": "0.30.0"}}, "versions", "runs vllm 0.31.0, the recipe expects 0.30.0"),
        ({"versions": {"nvidia_device_plugin": "0.19.0"}}, "versions", "EFA"),
        ({"versions": {"driver": 570}}, "versions", "needs NVIDIA driver 580 or newer, the nodes have 570"),
        ({"engine": "trtllm"}, "workers.prefill.tuning.max_batch_tokens", "chunked_prefill: true"),
        ({"workers__decode__data_parallel": 2}, "workers.decode.data_parallel", "replicas: 4"),
        ({"workers__decode__tuning": {"kv_cache_dtype": "fp8"}}, "workers", "engine_tuning.kv_cache_dtype"),
        (
            {
                "model": "Qwen/Qwen3-235B-A22B-FP8",
                "mode": "agg",
                "workers": {"worker": {"replicas": 1, "tensor_parallel": 8}},
            },
            "workers.worker.expert_parallel",
            "8: whole experts on each GPU",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_way_out(changes: dict[str, Any], path: str, says: str) -> None:
    found = [str(problem) for problem in refused(**changes) if problem.path == path]
    assert any(says in message for message in found), f"a problem at {path} must say {says!r}; there is {found}"


def test_zone_and_gpu_mistakes_come_together() -> None:
    paths = {
        problem.path
        for problem in refused(
            access__zone_id="usw2-az1", model="Qwen/Qwen3-33B", hardware__cpu={"instance_type": "m7i.huge"}
        )
    }
    assert {"access.zone_id", "model", "hardware.cpu.instance_type"} <= paths


# ── what only the user knows ─────────────────────────────────────────────────────────────────────────────────────────

UNSET: dict[str, Any] = {"access": {"region": "us-east-2"}}


def test_a_real_run_asks_for_what_only_the_user_knows_with_the_exact_commands() -> None:
    fixes = {problem.path: problem.fix for problem in refused(**UNSET)}
    assert set(fixes) == {"access.account_id", "access.zone_id", "access.endpoint_cidrs"}
    assert all(fix.startswith(f"pulumi config set -s {STACK} --path ") for fix in fixes.values()), (
        "a command to copy, not advice"
    )


def test_a_plan_without_credentials_uses_documentation_values_and_says_so() -> None:
    made = plan(placeholders=True, **UNSET)
    assert made.placeholders == ("access.account_id", "access.zone_id", "access.endpoint_cidrs")
    assert made.recipe.access.account_id == "123456789012"
    assert made.cluster.endpoint_cidrs == ("203.0.113.0/24",), "TEST-NET-3 (RFC 5737)"
    assert sum("placeholder" in warning for warning in made.warnings) == 3
