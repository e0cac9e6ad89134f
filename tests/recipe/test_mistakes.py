"""Mistakes people make in a stack file, and what they are told: where it is, what it says, why it is wrong, and what works.

A row changes the shipped stack as a person would, by `--set` or by an edit of the file. Where the message names a value that
works, the row puts that value in and the plan must accept it: a fix that does not work is worse than none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ops import stacks
from ops.app import app
from ops.exits import BAD_INPUT
from recipe.config import parse
from recipe.errors import Problem, RecipeError
from recipe.planner import make_plan

STACK = "qwen3-32b-disagg"


@dataclass(frozen=True)
class Mistake:
    """`change`: settings as for `--set`, several with ` ; ` between. The one problem they make, unless `also` names more paths."""

    change: str
    path: str
    value: Any
    why: str
    fix: str
    works: str | None = None
    """Settings that follow the fix. None: the way out is to remove the line, or it is not one value."""
    also: tuple[str, ...] = ()
    stack: str = STACK

    def __str__(self) -> str:
        return f"{self.stack}: {self.change}"


def mistakes(*rows: tuple[Any, ...] | Mistake) -> tuple[Mistake, ...]:
    return tuple(row if isinstance(row, Mistake) else Mistake(*row) for row in rows)


WIDE = "the stack costs $168.61 an hour"
CR = "cr-0123456789abcdef0"
TYPOS = mistakes(
    ("hardwear.gpu=h200", "hardwear", {"gpu": "h200"}, "unknown key", "did you mean hardware?"),
    ("modle=Qwen/Qwen3-32B", "modle", "Qwen/Qwen3-32B", "unknown key", "did you mean model?"),
    ("Mode=agg", "Mode", "agg", "unknown key", "did you mean mode?"),
    ("workers.decode.tensor_paralel=2", "workers.decode.tensor_paralel", 2, "unknown key", "did you mean tensor_parallel?"),
    ("workers.prefill.memory=320Gi", "workers.prefill.memory", "320Gi", "unknown key", "did you mean memory_gib?"),
    ("engine_tuning.blocksize=64", "engine_tuning.blocksize", 64, "unknown key", "did you mean block_size?"),
    ("router.temprature=1", "router.temprature", 1, "unknown key", "did you mean temperature?"),
    ("hardware.gpus=16", "hardware.gpus", 16, "unknown key", "did you mean gpu?"),
    ("hardware.cpu.node=2", "hardware.cpu.node", 2, "unknown key", "did you mean nodes?"),
    ("weights.hf_token=true", "weights.hf_token", True, "unknown key", "did you mean token?"),
    ("access.zone=use2-az1", "access.zone", "use2-az1", "unknown key", "did you mean zone_id?"),
    ("serving.frontend.port=8080", "serving.frontend.port", 8080, "unknown key", "known: cpu, memory_gib, replicas"),
    ("serving.kv_transfer.priviledged=true", "serving.kv_transfer.priviledged", True, "unknown key", "did you mean privileged?"),
    ("model=Qwen/Qwen3-32b", "model", "Qwen/Qwen3-32b", "not in the catalogue", "did you mean Qwen/Qwen3-32B?", "model=Qwen/Qwen3-32B"),
    ("model=Qwen3-32B", "model", "Qwen3-32B", "not in the catalogue", "did you mean Qwen/Qwen3-32B?", "model=Qwen/Qwen3-32B"),
    ("engine=vLLM", "engine", "vLLM", "not one of the choices", "did you mean vllm?", "engine=vllm"),
    ("engine=sglang", "engine", "sglang", "not one of the choices", "vllm", "engine=vllm"),
    ("mode=disaggregated", "mode", "disaggregated", "not one of the choices", "did you mean disagg?", "mode=disagg"),
    ("router.mode=round_robin", "router.mode", "round_robin", "not one of the choices", "did you mean round-robin?", "router.mode=round-robin"),
    ("hardware.gpu=H100", "hardware.gpu", "H100", "not one of the choices", "did you mean h100?", "hardware.gpu=h100"),
    ("hardware.gpu=p5", "hardware.gpu", "p5", "not one of the choices", "b200, h100, h200", "hardware.gpu=h100"),
    ("hardware.capacity.kind=ondemand", "hardware.capacity.kind", "ondemand", "not one of the choices", "did you mean on-demand?", "hardware.capacity.kind=on-demand"),
    ("hardware.instance_type=p5.48xlarg", "hardware.instance_type", "p5.48xlarg", "not in the catalogue", "did you mean p5.48xlarge?", "hardware.instance_type=p5.48xlarge"),
    ("hardware.cpu.instance_type=m7i.8xl", "hardware.cpu.instance_type", "m7i.8xl", "not in the catalogue", "did you mean m7i.8xlarge?", "hardware.cpu.instance_type=m7i.8xlarge"),
    ("access.region=us-east-2a", "access.region", "us-east-2a", "not a region", "did you mean us-east-2?", "access.region=us-east-2"),
    ("storage.kind=ebs", "storage.kind", "ebs", "not one of the choices", "efs", "storage.kind=efs"),
    (
        "workers.prefil={replicas: 1, tensor_parallel: 2}",
        "workers.prefil", "prefil", "not one of the choices", "did you mean prefill?",
    ),
)  # fmt: skip
OTHER_PLACES = mistakes(
    ("gpu=h200", "gpu", "h200", "unknown key", "belongs elsewhere: hardware.gpu"),
    ("region=us-east-2", "region", "us-east-2", "unknown key", "belongs elsewhere: access.region"),
    ("replicas=2", "replicas", 2, "unknown key", "belongs elsewhere: workers.ROLE.replicas"),
    ("workers.decode.gpu_memory_fraction=0.8", "workers.decode.gpu_memory_fraction", 0.8, "unknown key", "workers.ROLE.tuning.gpu_memory_fraction"),
    ("workers.prefill.tp=2", "workers.prefill.tp", 2, "unknown key", "here it is tensor_parallel"),
    ("engine_tuning.max_num_seqs=256", "engine_tuning.max_num_seqs", 256, "unknown key", "here it is max_batch_size", "engine_tuning.max_batch_size=256"),
    ("engine_tuning.max_model_len=4096", "engine_tuning.max_model_len", 4096, "unknown key", "here it is context_length", "engine_tuning.context_length=4096"),
    ("workers.decode.gpu_memory_utilization=0.8", "workers.decode.gpu_memory_utilization", 0.8, "unknown key", "engine_tuning.gpu_memory_fraction"),
    (f"hardware.capacity.reservation_id={CR}", "hardware.capacity.reservation_id", CR, "unknown key", "only with kind: odcr or capacity-block"),
)  # fmt: skip
KINDS = mistakes(
    ("model=32", "model", 32, "is a number, not text", 'in quotes: "32"'),
    ("model=", "model", None, "no value", "give it one"),
    ("access=", "access", None, "no value", "remove the line"),
    ("budget=130", "budget", 130, "not keys with values", "ttl_hours, usd_per_hour"),
    ("hardware.cpu=2", "hardware.cpu", 2, "not keys with values", "nodes", "hardware.cpu.nodes=2"),
    ("workers.prefill=6", "workers.prefill", 6, "not keys with values", "replicas"),
    ("workers=[]", "workers", [], "not keys with values", "decode, prefill"),
    ("hardware.capacity=spot", "hardware.capacity", "spot", "not keys with values", "kind: spot"),
    ("hardware.capacity={}", "hardware.capacity.kind", None, "required", "capacity-block, odcr, on-demand, spot", "hardware.capacity={kind: on-demand}"),
    ("workers.prefill.replicas=six", "workers.prefill.replicas", "six", "not a whole number", "like 8"),
    ("workers.prefill.replicas=6.5", "workers.prefill.replicas", 6.5, "not a whole number", "whole number"),
    ("workers.prefill.tensor_parallel='2'", "workers.prefill.tensor_parallel", "2", "text, not a number", "without quotes: 2", "workers.prefill.tensor_parallel=2"),
    ("engine_tuning.prefix_caching=maybe", "engine_tuning.prefix_caching", "maybe", "neither true nor false", "true or false", "engine_tuning.prefix_caching=true"),
    ("weights.token=hf_abcdef", "weights.token", "hf_abcdef", "neither true nor false", "true or false", "weights.token=true"),
    ("hardware.placement_group=cluster", "hardware.placement_group", "cluster", "neither true nor false", "true or false", "hardware.placement_group=true"),
    ("versions.kubernetes=1.35", "versions.kubernetes", 1.35, "is a number, not text", 'in quotes: "1.35"', "versions.kubernetes='1.35'"),
    ("access.endpoint_cidrs=198.51.100.7/32", "access.endpoint_cidrs", "198.51.100.7/32", "not a list", '["198.51.100.7/32"]', 'access.endpoint_cidrs=["198.51.100.7/32"]'),
    (
        "engine_tuning.extra_args=--load-format runai_streamer", "engine_tuning.extra_args", "--load-format runai_streamer",
        "not a list", '["--load-format", "runai_streamer"]', 'engine_tuning.extra_args=["--load-format", "runai_streamer"]',
    ),
    ("engine_tuning.extra_args=[--seed, 7]", "engine_tuning.extra_args.1", 7, "is a number, not text", 'in quotes: "7"', "engine_tuning.extra_args=[--seed, '7']"),
)  # fmt: skip
UNITS = mistakes(
    ("workers.prefill.memory_gib=320Gi", "workers.prefill.memory_gib", "320Gi", "not a whole number", ": 320", "workers.prefill.memory_gib=320"),
    ("workers.prefill.cpu=500m", "workers.prefill.cpu", "500m", "not a number", ": 0.5", "workers.prefill.cpu=0.5"),
    ("storage.model_gib=1Ti", "storage.model_gib", "1Ti", "not a whole number", ": 1024", "storage.model_gib=1024"),
    ("hardware.create_timeout_minutes=1h", "hardware.create_timeout_minutes", "1h", "not a whole number", ": 60", "hardware.create_timeout_minutes=60"),
    ("serving.ready_timeout_minutes=40m", "serving.ready_timeout_minutes", "40m", "not a whole number", ": 40", "serving.ready_timeout_minutes=40"),
    ("budget.ttl_hours=2d", "budget.ttl_hours", "2d", "not a whole number", ": 48", "budget.ttl_hours=48"),
    ("budget.usd_per_hour=$130", "budget.usd_per_hour", "$130", "not a number", ": 130", "budget.usd_per_hour=130"),
    ("engine_tuning.context_length=128k", "engine_tuning.context_length", "128k", "not a whole number", ": 131072", "engine_tuning.context_length=131072"),
    ("engine_tuning.gpu_memory_fraction=90%", "engine_tuning.gpu_memory_fraction", "90%", "not a number", ": 0.9", "engine_tuning.gpu_memory_fraction=0.9"),
    ("engine_tuning.gpu_memory_fraction=90", "engine_tuning.gpu_memory_fraction", 90, "too large", "at most 0.98", "engine_tuning.gpu_memory_fraction=0.98"),
)  # fmt: skip
RANGES = mistakes(
    ("workers.prefill.replicas=0", "workers.prefill.replicas", 0, "too small", "at least 1", "workers.prefill.replicas=1"),
    ("workers.prefill.tensor_parallel=3", "workers.prefill.tensor_parallel", 3, "not one of the choices", "1, 2, 4, 8"),
    ("workers.prefill.tensor_parallel=16", "workers.prefill.tensor_parallel", 16, "not one of the choices", "1, 2, 4, 8"),
    ("engine_tuning.block_size=48", "engine_tuning.block_size", 48, "not one of the choices", "16, 32, 64, 128", "engine_tuning.block_size=32"),
    ("engine_tuning.kv_cache_dtype=fp16", "engine_tuning.kv_cache_dtype", "fp16", "not one of the choices", "auto, fp8", "engine_tuning.kv_cache_dtype=auto"),
    ("engine_tuning.context_length=512", "engine_tuning.context_length", 512, "too small", "at least 1024", "engine_tuning.context_length=1024"),
    ("engine_tuning.context_length=200000", "engine_tuning.context_length", 200000, "131072 tokens with YaRN", "at most 131072", "engine_tuning.context_length=131072"),
    ("router.overlap_credit=-1", "router.overlap_credit", -1, "too small", "at least 0", "router.overlap_credit=0"),
    ("hardware.root_disk_gib=50", "hardware.root_disk_gib", 50, "too small", "at least 100", "hardware.root_disk_gib=100"),
    ("budget.ttl_hours=0", "budget.ttl_hours", 0, "too small", "at least 1", "budget.ttl_hours=1"),
    ("weights.timeout_minutes=2", "weights.timeout_minutes", 2, "too small", "at least 5", "weights.timeout_minutes=5"),
)  # fmt: skip
NAMES = mistakes(
    ("weights.revision=main", "weights.revision", "main", "not a commit hash", "40 hex digits"),
    ("weights.revision=9216db5", "weights.revision", "9216db5", "not a commit hash", "40 hex digits"),
    ("deployment_id=My-Deployment", "deployment_id", "My-Deployment", "lower-case", "main", "deployment_id=main"),
    ("owner='<me>'", "owner", "<me>", "a tag holds", "you@example.com", "owner=you@example.com"),
    ("access.account_id=1234", "access.account_id", 1234, "12 digits", "aws sts get-caller-identity"),
    ("access.account_id=1234-5678-9012", "access.account_id", "1234-5678-9012", "12 digits", "aws sts get-caller-identity"),
    ("access.zone_id=us-east-2a", "access.zone_id", "us-east-2a", "not an AZ id", "use2-az1", "access.zone_id=use2-az1"),
    ("access.zone_id=usw2-az1", "access.zone_id", "usw2-az1", "a zone of us-west-2", "access.region: us-west-2", "access.zone_id=usw2-az1 ; access.region=us-west-2"),
    ("access.zone_id=use2-az9", "access.zone_id", "use2-az9", "no known zone", "use2-az3", "access.zone_id=use2-az3"),
    ("access.zone_id=use1-az3 ; access.region=us-east-1", "access.zone_id", "use1-az3", "EKS does not take", "use1-az2", "access.zone_id=use1-az2 ; access.region=us-east-1"),
    ("access.endpoint_cidrs=[0.0.0.0/0]", "access.endpoint_cidrs.0", "0.0.0.0/0", "everyone", "198.51.100.7/32", "access.endpoint_cidrs=[198.51.100.7/32]"),
    ("access.endpoint_cidrs=[10.0.0.0/8]", "access.endpoint_cidrs.0", "10.0.0.0/8", "private", "checkip.amazonaws.com"),
    ("access.endpoint_cidrs=[198.51.100.7/24]", "access.endpoint_cidrs.0", "198.51.100.7/24", "host bits", "198.51.100.7/32", "access.endpoint_cidrs=[198.51.100.7/32]"),
    ("access.endpoint_cidrs=['2001:db8::/32']", "access.endpoint_cidrs.0", "2001:db8::/32", "IPv4", "198.51.100.7/32"),
    ("access.endpoint_cidrs=[198.51.100.7/32, 198.51.100.7/32]", "access.endpoint_cidrs", ["198.51.100.7/32"] * 2, "twice", "once", "access.endpoint_cidrs=[198.51.100.7/32]"),
    ("access.vpc_cidr=10.0.0.0/24", "access.vpc_cidr", "10.0.0.0/24", "/16 and /20", "10.42.0.0/16", "access.vpc_cidr=10.42.0.0/16"),
    ("access.vpc_cidr=127.0.0.0/16", "access.vpc_cidr", "127.0.0.0/16", "private range", "10.42.0.0/16", "access.vpc_cidr=10.42.0.0/16"),
    ("access.vpc_cidr=10.42.0.1/16", "access.vpc_cidr", "10.42.0.1/16", "host bits", "10.42.0.0/16", "access.vpc_cidr=10.42.0.0/16"),
    (
        "access.admin_principals=['arn:aws:sts::111122223333:assumed-role/ops/me']", "access.admin_principals.0",
        "arn:aws:sts::111122223333:assumed-role/ops/me", "not the ARN of an IAM role", "arn:aws:iam::",
    ),
    ("hardware.capacity={kind: odcr, reservation_id: r-0123}", "hardware.capacity.reservation_id", "r-0123", "not a capacity reservation id", CR),
    ("hardware.ami_release=latest", "hardware.ami_release", "latest", "not the release of an EKS AMI", "1.35.7-20260903", "hardware.ami_release=1.35.7-20260903"),
    ("hardware.ami_release=1.34.7-20260512", "hardware.ami_release", "1.34.7-20260512", "Kubernetes 1.35", "1.35.7-20260903", "hardware.ami_release=1.35.7-20260903"),
    ("versions.dynamo=latest", "versions.dynamo", "latest", "not in the catalogue", "1.6.1", "versions.dynamo=1.6.1"),
    ("versions.kubernetes='1.36'", "versions.kubernetes", "1.36", "not in the catalogue", "did you mean 1.35?", "versions.kubernetes='1.35'"),
)  # fmt: skip
TOGETHER = mistakes(
    ("mode=agg", "workers", ["decode", "prefill"], "mode agg has the pool worker", "worker"),
    ("workers={prefill: {replicas: 6, tensor_parallel: 2}}", "workers", ["prefill"], "prefill and decode", "prefill, decode"),
    ("router.mode=round-robin ; router.temperature=0.5", "router.temperature", 0.5, "no effect with mode round-robin", "router.mode: kv", "router.mode=kv ; router.temperature=0.5"),
    ("router.mode=round-robin ; router.overlap_credit=1", "router.overlap_credit", 1.0, "no effect with mode round-robin", "router.mode: kv", "router.mode=kv ; router.overlap_credit=1"),
    ("workers.decode.tuning.block_size=32", "workers.decode.tuning.block_size", 32, "same blocks for all pools", "engine_tuning.block_size", "engine_tuning.block_size=32"),
    ("workers.prefill.expert_parallel=2", "workers.prefill.expert_parallel", 2, "has no experts", "expert_parallel: 1", "workers.prefill.expert_parallel=1"),
    ("hardware.capacity.kind=spot", "hardware.capacity.kind", "spot", "interruption", "accept_interruption: true", "hardware.capacity={kind: spot, accept_interruption: true}"),
    ("hardware.capacity.kind=odcr ; hardware.placement_group=true", "hardware.placement_group", True, "InsufficientInstanceCapacity", "unset", "hardware.capacity.kind=odcr"),
    ("hardware.instance_type=p5en.48xlarge", "hardware.instance_type", "p5en.48xlarge", "has h200, but hardware.gpu is h100", "p5.48xlarge", "hardware.instance_type=p5.48xlarge"),
    ("workers.prefill.shared_memory_gib=320", "workers.prefill.shared_memory_gib", 320, "counts against memory_gib", "less than memory_gib", "workers.prefill.shared_memory_gib=319"),
)  # fmt: skip
ROOM = mistakes(
    ("budget.usd_per_hour=100", "budget.usd_per_hour", 100.0, "the stack costs $113.55 an hour", "at least 113.55", "budget.usd_per_hour=113.55"),
    ("hardware.gpu=b200", "budget.usd_per_hour", 130.0, "the stack costs $231.33", "p6-b200.48xlarge", "hardware.gpu=b200 ; budget.usd_per_hour=231.33"),
    ("workers.prefill.replicas=7", "budget.usd_per_hour", 130.0, WIDE, "3 for $165.12 an hour", "workers.prefill.replicas=7 ; budget.usd_per_hour=168.61"),
    (
        "workers.decode.tensor_parallel=1", "workers.decode.tensor_parallel", 1, "61.0 GiB weights + 6 GiB overhead", "tensor_parallel: 2",
        "workers.decode.tensor_parallel=2",
    ),
    Mistake(
        "engine_tuning.gpu_memory_fraction=0.5", "workers.prefill.tensor_parallel", 2, "39.8 GiB usable", "kv_cache_dtype: fp8",
        "engine_tuning.gpu_memory_fraction=0.9", also=("workers.decode.tensor_parallel",),
    ),
    (
        "model=Qwen/Qwen3-235B-A22B-FP8 ; workers.decode.tuning.prefix_caching=", "workers.prefill.tensor_parallel", 2, "weights do not fit",
        "h200 or b200", None, ("workers.decode.tensor_parallel",),
    ),
    ("workers.prefill.cpu=96", "workers.prefill.cpu", 96, "190 CPUs", "at most 47", "workers.prefill.cpu=47"),
    ("workers.prefill.memory_gib=1024", "workers.prefill.memory_gib", 1024, "1881 GiB", "at most 470", "workers.prefill.memory_gib=470"),
    ("serving.frontend.cpu=40", "hardware.cpu", "m7i.8xlarge", "frontend-0 (40 CPU", "m7i.12xlarge", "serving.frontend.cpu=40 ; hardware.cpu.instance_type=m7i.12xlarge"),
    ("weights.memory_gib=512", "hardware.cpu", "m7i.8xlarge", "weights Job (2 CPU, 512.0 GiB)", "ask for less"),
    ("serving.frontend.replicas=7", "hardware.cpu", "m7i.8xlarge", "frontend-6", "more hardware.cpu.nodes than 2", "serving.frontend.replicas=7 ; hardware.cpu.nodes=3"),
)  # fmt: skip
FP8, FP8_DISAGG, BIG, MOCKER = "qwen3-32b-fp8-agg", "qwen3-32b-fp8-disagg", "qwen3-235b-a22b-fp8-agg", "mocker-cpu"
ESCAPE = "engine_tuning.extra_engine_config"
ENGINES = (
    Mistake(f"{ESCAPE}={{max_batch_size: 8}}", f"{ESCAPE}.max_batch_size", 8, "has a setting for it", "max_batch_size", "engine_tuning.max_batch_size=8", stack=FP8),
    Mistake(f"{ESCAPE}={{kv_cache_config: 1}}", f"{ESCAPE}.kv_cache_config", 1, "take the place of everything", "as an object", stack=FP8),
    Mistake(f"{ESCAPE}=hello", ESCAPE, "hello", "not keys with values", "keys and values below it", stack=FP8),
    Mistake("engine_tuning.extra_args=[--max-batch-size, '8']", "engine_tuning.extra_args", "--max-batch-size", "YAML wins", "max_batch_size", stack=FP8),
    Mistake("engine_tuning.cuda_graph=true", "engine_tuning.cuda_graph", True, "unknown key", "did you mean cuda_graphs?", stack=FP8),
    Mistake("engine_tuning.max_num_tokens=8192", "engine_tuning.max_num_tokens", 8192, "unknown key", "here it is max_batch_tokens", stack=FP8),
    Mistake(
        "workers.prefill.tuning.kv_cache_dtype=auto", "workers", {"prefill": "auto", "decode": "fp8"}, "exchange KV blocks",
        "engine_tuning.kv_cache_dtype", stack=FP8_DISAGG,
    ),
    Mistake("serving.kv_transfer.backend=nixl", "serving.kv_transfer.backend", "nixl", "not one of the choices", "libfabric", "serving.kv_transfer.backend=libfabric", stack=FP8_DISAGG),
    Mistake("workers.worker.expert_parallel=8", "workers.worker.expert_parallel", 8, "4 GPUs", "a divisor of 4", "workers.worker.expert_parallel=4", stack=BIG),
    Mistake("hardware.gpu=h100", "hardware.gpu", "h100", "CPU nodes only", "leave it out", "hardware.gpu=", stack=MOCKER),
    Mistake("engine=moker", "engine", "moker", "not one of the choices", "did you mean mocker?", "engine=mocker", stack=MOCKER),
    Mistake("hardware.paused=true", "hardware.paused", True, "CPU nodes only", "leave it out", stack=MOCKER),
    Mistake("hardware.gpu=", "hardware.gpu", None, "engine vllm needs GPUs", "h100, h200, b200", "hardware.gpu=h100"),
    Mistake("serving.kv_transfer.backend=ucx", "serving.kv_transfer.backend", "ucx", "falls back to TCP", "libfabric", "serving.kv_transfer.backend=libfabric"),
    Mistake(f"{ESCAPE}={{a: 1}}", ESCAPE, ["a"], "vLLM has no engine YAML", "extra_args"),
    Mistake("workers.decode.data_parallel=2", "workers.decode.data_parallel", 2, "has no experts to share", "replicas: 4"),
    Mistake("versions.driver=570", "versions", "1.6.1 on 1.35", "needs NVIDIA driver 580 or newer, the nodes have 570", "unset"),
    Mistake("versions.nvidia_device_plugin=0.19.0", "versions", "1.6.1 on 1.35", "takes the EFA devices over", "unset"),
    Mistake("hardware.paused=for now", "hardware.paused", "for now", "neither true nor false", "true or false", "hardware.paused=true"),
)  # fmt: skip
ALL = (*TYPOS, *OTHER_PLACES, *KINDS, *UNITS, *RANGES, *NAMES, *TOGETHER, *ROOM, *ENGINES)


def planned(change: str, stack: str = STACK) -> None:
    raw = stacks.with_settings(stacks.load(stack).raw, change.split(" ; "))
    make_plan(stack, parse(raw), placeholders=True)


def problems_of(change: str, stack: str = STACK) -> tuple[Problem, ...]:
    with pytest.raises(RecipeError) as caught:
        planned(change, stack)
    return caught.value.problems


def test_there_are_at_least_sixty_different_mistakes() -> None:
    assert len({str(row) for row in ALL}) == len(ALL) >= 60


@pytest.mark.parametrize("row", ALL, ids=str)
def test_a_mistake_is_named_with_its_path_its_value_the_reason_and_what_works(row: Mistake) -> None:
    found = problems_of(row.change, row.stack)
    assert [one.path for one in found] == [row.path, *row.also], "the place in the file, and nothing that is not wrong"
    first = found[0]
    assert first.value == row.value, "the value shows a reader that this is the line"
    assert row.why in first.reason
    assert row.fix in first.fix, "what would work"
    for one in found:
        assert "Input should" not in one.reason, "pydantic's words are for programmers"
        assert len(one.fix) > 0


@pytest.mark.parametrize("row", [row for row in ALL if row.works], ids=str)
def test_following_the_fix_works(row: Mistake) -> None:
    assert row.works is not None
    planned(row.works, row.stack)


def test_every_mistake_in_a_typo_is_answered_with_a_name() -> None:
    for row in TYPOS:
        (one,) = problems_of(row.change)
        assert "did you mean" in one.fix or "known: " in one.fix, f"{row}: a reader would have to guess"


@pytest.mark.parametrize("row", ALL, ids=str)
def test_the_command_says_it_and_ends_with_bad_input(row: Mistake) -> None:
    settings = [word for setting in row.change.split(" ; ") for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["plan", row.stack, *settings, "--json"])
    assert result.exit_code == BAD_INPUT, result.output
    assert [one["path"] for one in json.loads(result.stdout)["problems"]] == [row.path, *row.also]
    assert not result.exception or isinstance(result.exception, SystemExit), "never a traceback"


@pytest.mark.parametrize("row", [TYPOS[0], KINDS[0], UNITS[0], NAMES[0], TOGETHER[0], ROOM[0]], ids=str)
def test_a_process_prints_the_message_and_no_traceback(row: Mistake) -> None:
    command = [sys.executable, "-m", "ops", "plan", STACK]
    for setting in row.change.split(" ; "):
        command += ["--set", setting]
    done = subprocess.run(command, cwd=stacks.ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (BAD_INPUT, "")
    assert row.path in done.stderr
    assert row.fix in done.stderr
    assert "Traceback" not in done.stderr


# ── edits that are no YAML, or not the recipe's shape ────────────────────────────────────────────────────────────────

EDITS = (
    ("    model: Qwen/Qwen3-32B", "", "model: required, but missing"),
    ("    budget:", "    budgte:", "did you mean budget?"),
    ("      ttl_hours: 8", "", "add ttl_hours: below budget:"),
    ("    mode: disagg", "    mode: disagg\n    mode: agg", "the key 'mode' stands here twice"),
    ("    engine: vllm", "    engine vllm", "line 15"),
    ("    engine: vllm", "\tengine: vllm", "line 15"),
    ("      gpu: h100", "        gpu: h100", "not valid YAML"),
    ("    engine: vllm", "    engine: [vllm", "not valid YAML"),
    ("  dynamo-recipes:recipe:", "  dynamo-recipe:recipe:", "there is dynamo-recipe:recipe"),
    ("config:", "confg:", "no config: dynamo-recipes:recipe"),
)


@pytest.mark.parametrize(("old", "new", "says"), EDITS)
def test_a_broken_file_is_named_with_the_line_or_the_key(
    old: str, new: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = stacks.load(STACK).path.read_text(encoding="utf-8").splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith(old))
    lines[at] = new
    (tmp_path / f"Pulumi.{STACK}.yaml").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(stacks, "FOLDER", tmp_path)
    result = CliRunner().invoke(app, ["plan", STACK])
    assert result.exit_code == BAD_INPUT, result.output
    assert says.replace("line 15", f"line {at + 1}") in result.stderr or (
        # A parser may notice a missing colon one line later.
        "line 15" in says and f"line {at + 2}" in result.stderr
    ), result.stderr
    assert "Traceback" not in result.stderr


def test_all_mistakes_come_at_once_even_when_one_is_a_typo() -> None:
    change = "hardwear=1 ; workers.decode.replicas=many ; budget.ttl_hours=8h ; access.zone_id=us-east-2a ; weights.revision=main"
    assert {one.path for one in problems_of(change)} == {
        "hardwear",
        "workers.decode.replicas",
        "budget.ttl_hours",
        "access.zone_id",
        "weights.revision",
    }
