"""TensorRT-LLM: settings to the engine's YAML, the YAML to the pods, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recipe.catalogue import GIB, gpu_instance, model
from recipe.engines import ENGINES
from recipe.errors import RecipeError
from recipe.placement import GPU_OVERHEAD_GIB, gpu_memory
from recipe.plan import Manifest, Plan
from tests.recipe.samples import plan, recipe
from tests.recipe.test_graph import TRTLLM, TRTLLM_AGG, component, env, main, pod

MOE: dict[str, Any] = {
    "engine": "trtllm",
    "model": "Qwen/Qwen3-235B-A22B-FP8",
    "mode": "agg",
    "workers": {"worker": {"replicas": 2, "tensor_parallel": 4, "expert_parallel": 4}},
    "engine_tuning": {"context_length": 8192},
    "budget__usd_per_hour": 1000,
}


def config_map(planned: Plan, role: str) -> Manifest:
    return planned.objects.graph_config[role]


def config(role: str, **changes: Any) -> dict[str, Any]:
    """The engine's YAML of a role, for the disaggregated sample on TensorRT-LLM with `changes`."""
    data = config_map(plan(**{**TRTLLM, **changes}), role)["data"]
    read: dict[str, Any] = json.loads(data["engine.yaml"])
    return read


def at(read: dict[str, Any], path: str) -> Any:
    for key in path.split("."):
        read = read[key]
    return read


def args(role: str, **changes: Any) -> list[str]:
    return list(main(plan(**{**TRTLLM, **changes}).objects.graph, role)["args"])


def refused(**changes: Any) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        plan(**{**TRTLLM, **changes})
    return {problem.path: str(problem) for problem in caught.value.problems}


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("setting", "path", "expected"),
    [
        ({"max_batch_size": 96}, "max_batch_size", 96),
        ({"max_batch_tokens": 8192}, "max_num_tokens", 8192),
        ({"context_length": 8192}, "max_seq_len", 8192),
        ({"chunked_prefill": True}, "enable_chunked_prefill", True),
        ({"prefix_caching": True}, "kv_cache_config.enable_block_reuse", True),
        ({"kv_cache_dtype": "fp8"}, "kv_cache_config.dtype", "fp8"),
        ({"gpu_memory_fraction": 0.7}, "kv_cache_config.free_gpu_memory_fraction", 0.7),
        ({"block_size": 32}, "kv_cache_config.tokens_per_block", 32),
        ({"cuda_graphs": True, "max_batch_size": 96}, "cuda_graph_config", {"enable_padding": True, "max_batch_size": 96}),
        ({"cuda_graphs": True}, "cuda_graph_config", {"enable_padding": True}),
        ({"cuda_graphs": False}, "cuda_graph_config", None),
        ({"async_scheduling": True}, "disable_overlap_scheduler", False),
        ({"async_scheduling": False}, "disable_overlap_scheduler", True),
        ({"extra_engine_config": {"cuda_graph_config": {"batch_sizes": [1, 2]}}}, "cuda_graph_config.batch_sizes", [1, 2]),
        ({"extra_engine_config": {"kv_cache_config": {"host_cache_size": 1}}}, "kv_cache_config.host_cache_size", 1),
    ],
)  # fmt: skip
def test_every_setting_reaches_the_engines_yaml(setting: dict[str, Any], path: str, expected: Any) -> None:
    common = ("kv_cache_dtype", "block_size")  # one value for both pools
    changes = {
        f"{'engine_tuning' if key in common else 'workers__decode__tuning'}__{key}": value
        for key, value in setting.items()
    }
    assert at(config("decode", **changes), path) == expected


def test_what_is_unset_is_left_to_the_engine_except_what_the_plan_counts_with() -> None:
    read = config("worker", **TRTLLM_AGG, engine_tuning={"chunked_prefill": True})
    assert set(read) == {
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "enable_attention_dp",
        "enable_chunked_prefill",
        "kv_cache_config",
        "max_seq_len",
    }
    assert read["kv_cache_config"] == {"free_gpu_memory_fraction": 0.9}
    assert read["max_seq_len"] == 32768


def test_each_pool_is_tuned_by_itself() -> None:
    changes = {"workers__prefill__tuning": {"max_batch_size": 1}, "workers__decode__tuning": {"max_batch_size": 128}}
    assert config("prefill", **changes)["max_batch_size"] == 1
    assert config("decode", **changes)["max_batch_size"] == 128


def test_the_overlap_scheduler_is_off_where_only_prefill_runs() -> None:
    assert config("prefill")["disable_overlap_scheduler"] is True, "TensorRT-LLM's context workers do not have it"
    assert "disable_overlap_scheduler" not in config("decode")
    found = refused(engine_tuning__async_scheduling=True)
    assert "workers.decode.tuning" in found["workers.prefill.tuning.async_scheduling"]


def test_decode_workers_keep_no_blocks_for_reuse_unless_asked() -> None:
    assert at(config("decode"), "kv_cache_config.enable_block_reuse") is False
    assert at(config("decode", workers__decode__tuning__prefix_caching=True), "kv_cache_config.enable_block_reuse")
    assert "enable_block_reuse" not in config("prefill")["kv_cache_config"]


def test_yarn_only_beyond_the_native_length() -> None:
    assert "model_kwargs" not in config("prefill", engine_tuning__context_length=32768)
    assert at(config("prefill"), "model_kwargs.rope_scaling.factor") == 4.0


# ── parallelism ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("expert_parallel", "split"), [(1, 4), (2, 2), (4, 1)])
def test_experts_are_spread_and_split_over_the_workers_gpus(expert_parallel: int, split: int) -> None:
    workers = {"worker": {"replicas": 2, "tensor_parallel": 4, "expert_parallel": expert_parallel}}
    read = config("worker", **{**MOE, "workers": workers})
    assert (read["moe_expert_parallel_size"], read["moe_tensor_parallel_size"]) == (expert_parallel, split)


def test_a_dense_model_has_no_experts_to_name() -> None:
    assert not [key for key in config("prefill") if key.startswith("moe_")]


def test_copies_of_the_attention_are_attention_dp_over_all_gpus() -> None:
    workers = {
        "worker": {"replicas": 2, "tensor_parallel": 1, "data_parallel": 8, "expert_parallel": 8, "memory_gib": 900}
    }
    read = config("worker", **{**MOE, "workers": workers})
    assert (read["tensor_parallel_size"], read["enable_attention_dp"]) == (8, True)
    workers["worker"] |= {"tensor_parallel": 2, "data_parallel": 4}
    assert (
        "tensor_parallel: 1 with data_parallel: 8"
        in refused(**{**MOE, "workers": workers})["workers.worker.data_parallel"]
    )


@pytest.mark.parametrize(("gpu", "deepgemm"), [("h100", False), ("h200", False), ("b200", True)])
def test_deepgemm_runs_the_experts_on_blackwell_only(gpu: str, deepgemm: bool) -> None:
    read = config("worker", **MOE, hardware__gpu=gpu)
    assert (read.get("moe_config", {}).get("backend") == "DEEPGEMM") is deepgemm, (
        "it crashes on SM90, and the default crashes on SM100 (ai-dynamo/dynamo#8327)"
    )
    assert "moe_config" not in config("prefill", hardware__gpu=gpu, budget__usd_per_hour=1000)


# ── command line and pods ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_yaml_is_the_only_place_for_what_the_engine_knows() -> None:
    given = args("decode", engine_tuning__max_batch_size=64)
    assert {arg for arg in given if arg.startswith("--")} == {
        "--model",
        "--served-model-name",
        "--extra-engine-args",
        "--disaggregation-mode",
        "--kv-block-size",
    }, "the YAML wins over a flag of the same meaning, so a second copy could only mislead"


def test_weights_are_given_as_a_path_and_served_under_the_models_name() -> None:
    given = args("decode")
    assert given[given.index("--model") + 1].startswith("/model-cache/hub/models--Qwen--Qwen3-32B/snapshots/")
    assert given[given.index("--served-model-name") + 1] == "Qwen/Qwen3-32B"


def test_cache_events_come_from_the_workers_that_see_prompts_first_and_only_for_a_kv_router() -> None:
    assert "--publish-kv-events" in args("prefill"), "off by default: a kv router would route blindly"
    assert "--publish-kv-events" not in args("decode")
    assert "--publish-kv-events" in args("worker", **TRTLLM_AGG)
    assert "--publish-kv-events" not in args("worker", **TRTLLM_AGG, router__mode="round-robin")
    assert "--publish-kv-events" not in args("prefill", engine_tuning__prefix_caching=False)


def test_router_and_engine_count_in_the_same_blocks() -> None:
    planned = plan(**TRTLLM, engine_tuning__block_size=128)
    for name, flag in (("frontend", "--kv-cache-block-size"), ("prefill", "--kv-block-size")):
        given = main(planned.objects.graph, name)["args"]
        assert given[given.index(flag) + 1] == "128"
    assert (
        at(json.loads(config_map(planned, "prefill")["data"]["engine.yaml"]), "kv_cache_config.tokens_per_block") == 128
    )


def test_upstreams_environment_is_set_where_upstream_sets_it() -> None:
    dense = env(main(plan(**TRTLLM).objects.graph, "prefill"))
    assert (dense["TRTLLM_ENABLE_PDL"], dense["TRT_LLM_DISABLE_LOAD_WEIGHTS_IN_PARALLEL"]) == ("1", "True")
    assert "TRT_LLM_DISABLE_LOAD_WEIGHTS_IN_PARALLEL" not in env(main(plan(**MOE).objects.graph, "worker"))


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_pods_mount_the_config_they_are_told_to_read(role: str) -> None:
    planned = plan(**TRTLLM)
    spec, container = pod(planned.objects.graph, role), main(planned.objects.graph, role)
    (volume,) = [one for one in spec["volumes"] if "configMap" in one]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == volume["name"]]
    made = config_map(planned, role)
    assert volume["configMap"]["name"] == made["metadata"]["name"]
    given = container["args"]
    path = given[given.index("--extra-engine-args") + 1]
    assert path.rpartition("/")[0] == mount["mountPath"]
    assert path.rpartition("/")[2] in made["data"]
    assert mount["readOnly"]


def test_nothing_of_it_goes_to_the_compilation_cache() -> None:
    claims = [
        one.get("persistentVolumeClaim", {}).get("claimName")
        for one in pod(plan(**TRTLLM).objects.graph, "decode")["volumes"]
    ]
    assert "compilation-cache" not in claims, "the operator does not support that for TensorRT-LLM"


def test_the_graph_says_which_engine_it_is() -> None:
    assert plan(**TRTLLM).objects.graph["spec"]["backendFramework"] == "trtllm"
    assert (
        "tensorrtllm-runtime:1.6.1"
        in component(plan(**TRTLLM_AGG).objects.graph, "worker")["podTemplate"]["spec"]["containers"][0]["image"]
    )


# ── ConfigMaps ───────────────────────────────────────────────────────────────────────────────────────────────────────


def names(**changes: Any) -> dict[str, str]:
    made = plan(**{**TRTLLM, **changes}).objects.graph_config
    return {role: one["metadata"]["name"] for role, one in made.items()}


def test_another_content_is_another_name_in_the_pod_template_so_workers_roll() -> None:
    before, after = names(), names(workers__decode__tuning__max_batch_size=64)
    assert before["prefill"] == after["prefill"], "what does not change keeps its name"
    assert before["decode"] != after["decode"], "a changed ConfigMap of the same name would change nothing that runs"


def test_stacks_in_one_namespace_and_roles_never_share_a_name() -> None:
    mine, other = set(names().values()), set(names(stack="qwen3-32b-two").values())
    assert len(mine) == 2
    assert not mine & other, "upstream's llm-config-decode is every recipe's"


def test_the_map_cannot_be_edited_behind_the_plan() -> None:
    made = plan(**TRTLLM).objects
    assert all(one["immutable"] for one in made.graph_config.values())
    assert all(len(one["metadata"]["name"]) <= 253 for one in made.graph_config.values())
    kinds = [one["kind"] for one in made.all()]
    assert kinds.index("DynamoGraphDeployment") > kinds.index("ConfigMap")


def test_vllm_has_none() -> None:
    assert plan().objects.graph_config == {}


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_fraction_is_of_what_is_free_after_loading() -> None:
    made = recipe(engine_tuning__gpu_memory_fraction=0.7)
    qwen, h100 = model("Qwen/Qwen3-32B"), gpu_instance("p5.48xlarge")
    trtllm = gpu_memory(made, ENGINES["trtllm"], qwen, h100, "prefill")
    vllm = gpu_memory(made, ENGINES["vllm"], qwen, h100, "prefill")
    weights = qwen.weight_bytes / GIB / 2
    assert trtllm.kv_gib == pytest.approx((h100.gpu_memory_gib - weights - GPU_OVERHEAD_GIB) * 0.7, abs=0.01)
    assert vllm.kv_gib == pytest.approx(h100.gpu_memory_gib * 0.7 - weights - GPU_OVERHEAD_GIB, abs=0.01)
    assert trtllm.usable_gib == pytest.approx(trtllm.weights_gib + trtllm.overhead_gib + trtllm.kv_gib, abs=0.02)


def test_weights_that_do_not_fit_are_refused_with_the_arithmetic() -> None:
    workers = {"worker": {"replicas": 2, "tensor_parallel": 2}}
    found = refused(**{**MOE, "workers": workers})["workers.worker.tensor_parallel"]
    assert "110.1 GiB weights + 6 GiB overhead > 79.7 GiB usable of 79.7 per H100" in found
    assert "h200" in found


# ── what it refuses ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"engine_tuning__extra_args": ["--max-batch-size", "8"]}, "engine_tuning.extra_args", "use max_batch_size"),
        ({"engine_tuning__extra_args": ["--max-seq-len=8"]}, "engine_tuning.extra_args", "use context_length"),
        (
            {"workers__decode__tuning__extra_engine_config": {"kv_cache_config": {"dtype": "fp8"}}},
            "workers.decode.tuning.extra_engine_config.kv_cache_config.dtype",
            "use kv_cache_dtype",
        ),
        (
            {"engine_tuning__extra_engine_config": {"cache_transceiver_config": {"backend": "UCX"}}},
            "engine_tuning.extra_engine_config.cache_transceiver_config.backend",
            "use serving.kv_transfer.backend",
        ),
        (
            {"engine_tuning__extra_engine_config": {"kv_cache_config": None}},
            "engine_tuning.extra_engine_config.kv_cache_config",
            "as an object",
        ),
        ({"engine_tuning__chunked_prefill": False}, "workers.prefill.tuning.max_batch_tokens", "chunked_prefill: true"),
    ],
)
def test_what_would_be_silently_unheeded_is_refused(changes: dict[str, Any], path: str, says: str) -> None:
    found = refused(**changes)
    assert says in found.get(path, ""), f"there is {found}"


def test_flags_the_schema_does_not_know_are_passed_last() -> None:
    assert args("decode", engine_tuning__extra_args=["--guided-decoding-backend", "xgrammar"])[-2:] == [
        "--guided-decoding-backend",
        "xgrammar",
    ]
