"""Engine settings to command lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recipe.engines import ENGINES, engine_for
from tests.recipe.samples import AGG_WORKERS, plan, recipe
from tests.recipe.test_graph import main


def args(role: str, **changes: Any) -> list[str]:
    return list(main(plan(**changes).objects.graph, role)["args"])


def value(given: list[str], flag: str) -> str:
    return given[given.index(flag) + 1]


AGG: dict[str, Any] = {"mode": "agg", "workers": AGG_WORKERS}


def test_an_engine_without_manifests_is_named_with_those_that_have_them() -> None:
    engine, (problem,) = engine_for("sglang")
    assert engine is None
    assert problem.path == "engine"
    assert "vllm" in problem.fix
    assert "trtllm" in problem.fix
    assert engine_for("vllm") == (ENGINES["vllm"], [])


def test_weights_are_given_as_a_path_and_served_under_the_models_name() -> None:
    planned = plan()
    given = args("decode")
    assert value(given, "--model") == planned.model.snapshot_path, "an id would be looked up: there is no refs/main"
    assert value(given, "--served-model-name") == "Qwen/Qwen3-32B"


def test_the_context_is_what_the_plan_counted_the_cache_for_even_where_unset() -> None:
    assert value(args("prefill", engine_tuning__context_length=...), "--max-model-len") == "32768"
    assert value(args("prefill", engine_tuning__context_length=65536), "--max-model-len") == "65536"


def test_yarn_only_beyond_the_native_length() -> None:
    assert "--hf-overrides" not in args("prefill", engine_tuning__context_length=32768)
    overrides = json.loads(value(args("prefill", engine_tuning__context_length=32769), "--hf-overrides"))
    assert overrides == {
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        "max_position_embeddings": 131072,
    }


def test_each_worker_is_told_its_role() -> None:
    assert value(args("prefill"), "--disaggregation-mode") == "prefill"
    assert value(args("decode"), "--disaggregation-mode") == "decode"
    assert "--disaggregation-mode" not in args("worker", **AGG)


def test_decode_workers_of_a_disaggregated_graph_keep_no_prefixes_unless_asked() -> None:
    assert "--no-enable-prefix-caching" in args("decode")
    assert "--enable-prefix-caching" in args("decode", workers__decode__tuning__prefix_caching=True)
    assert not {"--no-enable-prefix-caching", "--enable-prefix-caching"} & set(args("prefill"))
    assert not {"--no-enable-prefix-caching", "--enable-prefix-caching"} & set(args("worker", **AGG))


def test_cache_events_come_from_the_workers_that_see_prompts_first_and_only_for_a_kv_router() -> None:
    events = json.loads(value(args("prefill"), "--kv-events-config"))
    assert events["enable_kv_cache_events"] is True, "the engine's default is false: a kv router would route blindly"
    assert "--kv-events-config" not in args("decode")
    assert "--kv-events-config" in args("worker", **AGG)
    assert "--kv-events-config" not in args("worker", **AGG, router__mode="round-robin")
    assert "--kv-events-config" not in args("prefill", engine_tuning__prefix_caching=False)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"kv_cache_dtype": "fp8"}, ["--kv-cache-dtype", "fp8"]),
        ({"async_scheduling": True}, ["--async-scheduling"]),
        ({"async_scheduling": False}, ["--no-async-scheduling"]),
        ({"max_batch_size": 96}, ["--max-num-seqs", "96"]),
        ({"max_batch_tokens": 8192}, ["--max-num-batched-tokens", "8192"]),
        ({"gpu_memory_fraction": 0.85}, ["--gpu-memory-utilization", "0.85"]),
        ({"block_size": 128}, ["--block-size", "128"]),
        ({"prefix_caching": True}, ["--enable-prefix-caching"]),
        ({"chunked_prefill": True}, ["--enable-chunked-prefill"]),
        ({"chunked_prefill": False}, ["--no-enable-chunked-prefill"]),
        ({"cuda_graphs": True}, ["--no-enforce-eager"]),
        ({"cuda_graphs": False}, ["--enforce-eager"]),
    ],
)
def test_every_setting_reaches_the_command_line(setting: dict[str, Any], expected: list[str]) -> None:
    given = args("prefill", **{f"engine_tuning__{key}": wanted for key, wanted in setting.items()})
    assert any(given[at : at + len(expected)] == expected for at in range(len(given))), given


def test_what_is_unset_is_left_to_the_engine_except_what_the_plan_counts_with() -> None:
    given = args("prefill", engine_tuning={}, workers__prefill__tensor_parallel=2)
    assert not {"--block-size", "--max-num-seqs", "--max-num-batched-tokens", "--kv-cache-dtype"} & set(given)
    assert value(given, "--gpu-memory-utilization") == "0.9", "the plan's memory arithmetic assumes it"


def test_a_pools_own_tuning_wins_and_extra_args_come_last() -> None:
    given = args(
        "decode",
        engine_tuning__max_batch_size=64,
        workers__decode__tuning={"max_batch_size": 256, "extra_args": ["--seed", "7"]},
        engine_tuning__extra_args=["--enforce-eager"],
    )
    assert value(given, "--max-num-seqs") == "256"
    assert given[-3:] == ["--enforce-eager", "--seed", "7"], "argparse takes the last: the user's word counts"


def test_experts_are_spread_over_the_whole_group_or_not_at_all() -> None:
    (problem,) = ENGINES["vllm"].check(
        recipe(workers__decode={"replicas": 1, "tensor_parallel": 4, "expert_parallel": 2})
    )
    assert problem.path == "workers.decode.expert_parallel"
    moe: dict[str, Any] = {
        "model": "Qwen/Qwen3-235B-A22B-FP8",
        "mode": "agg",
        "hardware__gpu": "h200",
        "budget__usd_per_hour": 1000,
        "engine_tuning__context_length": ...,
    }
    pools = {"worker": {"replicas": 2, "tensor_parallel": 4, "expert_parallel": 4}}
    assert "--enable-expert-parallel" in args("worker", **moe, workers=pools)
    assert "--enable-expert-parallel" not in args("worker", **AGG)
    pools = {"worker": {"replicas": 1, "tensor_parallel": 4, "data_parallel": 2, "expert_parallel": 8}}
    given = args("worker", **moe, workers=pools)
    assert value(given, "--data-parallel-size") == "2"
    assert "--enable-expert-parallel" in given, "over all 8 GPUs of the worker"


def test_what_is_another_engines_is_refused_with_what_to_use() -> None:
    found = {
        problem.path: str(problem)
        for problem in ENGINES["vllm"].check(
            recipe(
                engine_tuning__extra_engine_config={"stream_interval": 4},
                serving__kv_transfer__backend="ucx",
            )
        )
    }
    assert set(found) == {"engine_tuning.extra_engine_config", "serving.kv_transfer.backend"}
    assert "extra_args" in found["engine_tuning.extra_engine_config"]
    assert "libfabric" in found["serving.kv_transfer.backend"]


def test_a_prompt_that_fits_no_step_is_refused_before_the_engine_would() -> None:
    (problem,) = ENGINES["vllm"].check(
        recipe(engine_tuning__chunked_prefill=False, engine_tuning__max_batch_tokens=8192)
    )
    assert problem.path == "workers.prefill.tuning.max_batch_tokens", "decode gets its prompts computed"
    assert "131072" in problem.fix
    (problem, _) = ENGINES["vllm"].check(recipe(engine_tuning__max_batch_size=512, engine_tuning__max_batch_tokens=256))
    assert problem.path == "workers.prefill.tuning.max_batch_size"
