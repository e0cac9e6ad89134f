"""TensorRT-LLM 1.3.0rc29 as `dynamo.trtllm` of Dynamo 1.6.1 runs it.

Flags of Dynamo: `dynamo/trtllm/backend_args.py` of the wheel ai-dynamo 1.6.1. Keys of the engine's YAML: TensorRT-LLM's
`tensorrt_llm/llmapi/llm_args.py`@0004396, and upstream's recipes (facts/dynamo.md §4).

Everything the engine knows stands in the YAML and nowhere else: it wins over the flag of the same meaning
(`update_llm_args_with_extra_dict`), so a value in both places, as in upstream's 32B-FP8 recipes, is one of them unheeded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

from recipe.config import Recipe, Role, merged
from recipe.engines.worker import CONFIG_FILE, CONFIG_MOUNT, EngineWorker, check_steps, publishes_kv_events, yarn
from recipe.errors import Problem
from recipe.placement import context_tokens

DEFAULT_STEP_TOKENS: Final = 8192
"""`max_num_tokens` where nobody sets it (BaseLlmArgs)."""
MOE_STEP_TOKENS: Final = 8192
"""Tokens given to DEEPGEMM at once; more are split (upstream's Blackwell recipes)."""

_SETTINGS: Final[dict[str, str]] = {
    "model": "model",
    "tensor_parallel_size": "workers.<role>.tensor_parallel",
    "moe_tensor_parallel_size": "workers.<role>.expert_parallel",
    "moe_expert_parallel_size": "workers.<role>.expert_parallel",
    "enable_attention_dp": "workers.<role>.data_parallel",
    "enable_chunked_prefill": "chunked_prefill",
    "max_batch_size": "max_batch_size",
    "max_num_tokens": "max_batch_tokens",
    "max_seq_len": "context_length",
    "kv_cache_config.enable_block_reuse": "prefix_caching",
    "kv_cache_config.free_gpu_memory_fraction": "gpu_memory_fraction",
    "kv_cache_config.dtype": "kv_cache_dtype",
    "kv_cache_config.tokens_per_block": "block_size",
    "cache_transceiver_config.backend": "serving.kv_transfer.backend",
    "disable_overlap_scheduler": "async_scheduling",
    "pipeline_parallel_size": "workers.<role>.tensor_parallel (the plan places workers of one node only)",
}
"""Keys of the YAML that a recipe has a setting for. `cuda_graph_config` is not here: its sizes may be given."""

_UNHEEDED: Final[dict[str, str]] = {
    "--tensor-parallel-size": "workers.<role>.tensor_parallel",
    "--pipeline-parallel-size": "workers.<role>.tensor_parallel",
    "--expert-parallel-size": "workers.<role>.expert_parallel",
    "--enable-attention-dp": "workers.<role>.data_parallel",
    "--max-batch-size": "max_batch_size",
    "--max-num-tokens": "max_batch_tokens",
    "--max-seq-len": "context_length",
    "--free-gpu-memory-fraction": "gpu_memory_fraction",
    "--extra-engine-args": "extra_engine_config",
}
"""Flags that the YAML wins over, or that would take its place."""


class Trtllm:
    """The TensorRT-LLM engine."""

    command: tuple[str, ...] = ("python3", "-m", "dynamo.trtllm")
    on_gpus = True
    framework: Literal["trtllm"] = "trtllm"
    default_memory_fraction: float = 0.90
    """`--free-gpu-memory-fraction` of Dynamo, and TensorRT-LLM's own."""
    keeps_compiled: bool = False
    """Nothing of it may go to the compilation cache: the operator does not support that for TensorRT-LLM (facts/dynamo.md §1.1)."""

    def usable_gib(self, total_gib: float, taken_gib: float, fraction: float) -> float:
        """The fraction is of what is free once the weights are loaded, and the KV cache gets all of it."""
        free = total_gib - taken_gib
        return taken_gib + free * fraction if free > 0 else total_gib

    def args(self, worker: EngineWorker) -> tuple[str, ...]:
        """What Dynamo itself wants to know; the rest is in `config`."""
        return (*self._args(worker), *worker.recipe.tuning(worker.role).extra_args)

    def _args(self, worker: EngineWorker) -> Iterator[str]:
        # A path, not the id: a download by revision leaves no refs/main, so the id would be looked up on the network.
        yield from ("--model", worker.snapshot_path, "--served-model-name", worker.model.id)
        yield from ("--extra-engine-args", f"{CONFIG_MOUNT}/{CONFIG_FILE}")
        if worker.role != "worker":
            yield from ("--disaggregation-mode", worker.role)
        tuning = worker.recipe.tuning(worker.role)
        if tuning.block_size is not None:
            # What Dynamo counts in where the engine does not report its own block size.
            yield from ("--kv-block-size", str(tuning.block_size))
        if worker.kv_transfer:
            yield from worker.kv_transfer.args
        if self.publishes_kv_events(worker.recipe, worker.role):
            yield "--publish-kv-events"  # off by default: a kv router would route blindly, as in upstream's 235B recipes

    def config(self, worker: EngineWorker) -> dict[str, Any]:
        """The engine's YAML as plain data, the recipe's own keys last."""
        parts = (self._parallelism(worker), self._scheduling(worker), self._memory(worker), self._model(worker))
        own = {key: value for part in parts for key, value in part.items()}
        if worker.kv_transfer:
            own |= worker.kv_transfer.engine_config
        return merged(own, worker.recipe.tuning(worker.role).extra_engine_config)

    def env(self, worker: EngineWorker) -> dict[str, str]:
        """As upstream sets them: both for its 32B recipes, none for 235B."""
        if worker.model.is_moe:
            return {}
        return {
            "TRTLLM_ENABLE_PDL": "1",  # kernels start while the one before ends; from SM90 on also the default
            # Weights one layer after the other: less memory at the peak of loading.
            "TRT_LLM_DISABLE_LOAD_WEIGHTS_IN_PARALLEL": "True",
        }

    def publishes_kv_events(self, recipe: Recipe, role: Role) -> bool:
        """Only workers that see prompts first; without block reuse there is nothing to tell (`llm_worker.py` warns)."""
        return publishes_kv_events(recipe, role)

    def check(self, recipe: Recipe) -> list[Problem]:
        """Layouts it does not have, and settings that would be silently unheeded."""
        problems = check_steps(recipe, chunks=False, step_tokens=DEFAULT_STEP_TOKENS)
        for role, pool in recipe.workers.items():
            path = f"workers.{role}"
            if pool.data_parallel > 1 and pool.tensor_parallel > 1:
                reason = "TensorRT-LLM either splits attention over all GPUs of a worker or repeats it on each of them"
                fix = f"tensor_parallel: 1 with data_parallel: {pool.gpus}, or the other way round"
                problems.append(Problem(f"{path}.data_parallel", pool.data_parallel, reason, fix))
            if role == "prefill" and recipe.tuning(role).async_scheduling:
                reason = "TensorRT-LLM's overlap scheduler must be off where only prefill runs"
                problems.append(
                    Problem(
                        f"{path}.tuning.async_scheduling",
                        True,
                        reason,
                        "set it in workers.decode.tuning, not in engine_tuning",
                    )
                )
        for where, tuning in _tunings(recipe):
            problems += _check_escapes(where, tuning.extra_args, tuning.extra_engine_config)
        return problems

    def _parallelism(self, worker: EngineWorker) -> dict[str, Any]:
        pool = worker.recipe.workers[worker.role]
        config: dict[str, Any] = {
            # With attention DP, TensorRT-LLM counts the copies as its tensor parallel group.
            "tensor_parallel_size": pool.gpus,
            "pipeline_parallel_size": 1,
            "enable_attention_dp": pool.data_parallel > 1,
        }
        if worker.model.is_moe:
            config["moe_tensor_parallel_size"] = pool.gpus // pool.expert_parallel
            config["moe_expert_parallel_size"] = pool.expert_parallel
        return config

    def _scheduling(self, worker: EngineWorker) -> dict[str, Any]:
        tuning = worker.recipe.tuning(worker.role)
        config: dict[str, Any] = {"enable_chunked_prefill": bool(tuning.chunked_prefill)}
        if tuning.max_batch_size is not None:
            config["max_batch_size"] = tuning.max_batch_size
        if tuning.max_batch_tokens is not None:
            config["max_num_tokens"] = tuning.max_batch_tokens
        if tuning.cuda_graphs:
            sizes = {} if tuning.max_batch_size is None else {"max_batch_size": tuning.max_batch_size}
            config["cuda_graph_config"] = {"enable_padding": True, **sizes}
        elif tuning.cuda_graphs is False:
            config["cuda_graph_config"] = None
        overlap = False if worker.role == "prefill" else tuning.async_scheduling
        if overlap is not None:
            config["disable_overlap_scheduler"] = not overlap
        return config

    def _memory(self, worker: EngineWorker) -> dict[str, Any]:
        tuning = worker.recipe.tuning(worker.role)
        cache: dict[str, Any] = {"free_gpu_memory_fraction": tuning.gpu_memory_fraction or self.default_memory_fraction}
        reuse = tuning.prefix_caching
        if reuse is None and worker.role == "decode":
            reuse = False  # its blocks come from prefill workers and are never asked for twice; upstream does the same
        if reuse is not None:
            cache["enable_block_reuse"] = reuse
        if tuning.kv_cache_dtype is not None:
            cache["dtype"] = tuning.kv_cache_dtype
        if tuning.block_size is not None:
            cache["tokens_per_block"] = tuning.block_size
        return {"kv_cache_config": cache}

    def _model(self, worker: EngineWorker) -> dict[str, Any]:
        # Said even where the recipe does not: the plan counted the KV cache for exactly this length.
        context = context_tokens(worker.recipe, worker.model, worker.role)
        config: dict[str, Any] = {"max_seq_len": context}
        if context > worker.model.native_context_tokens:
            config["model_kwargs"] = yarn(worker.model)
        if worker.model.is_moe and worker.gpu and worker.gpu.gpu_architecture == "blackwell":
            # The default CUTLASS crashes on SM100, DEEPGEMM on SM90 (ai-dynamo/dynamo#8327, #8410).
            config["moe_config"] = {"backend": "DEEPGEMM", "max_num_tokens": MOE_STEP_TOKENS}
        return config


def _tunings(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    yield "engine_tuning", recipe.engine_tuning
    for role, pool in recipe.workers.items():
        yield f"workers.{role}.tuning", pool.tuning


def _check_escapes(where: str, args: tuple[str, ...], config: dict[str, Any]) -> Iterator[Problem]:
    for argument in args:
        flag = argument.partition("=")[0]
        if flag in _UNHEEDED:
            reason = "the engine's YAML wins over this flag, so it would change nothing"
            yield Problem(f"{where}.extra_args", argument, reason, f"use {_UNHEEDED[flag]}")
    for path, value in _leaves(config):
        if path in _SETTINGS:
            reason = "the recipe has a setting for it, which the plan's arithmetic knows"
            yield Problem(f"{where}.extra_engine_config.{path}", value, reason, f"use {_SETTINGS[path]}")
        elif not isinstance(value, dict) and any(known.startswith(f"{path}.") for known in _SETTINGS):
            reason = "it would take the place of everything that is rendered below it"
            yield Problem(
                f"{where}.extra_engine_config.{path}", value, reason, "give it as an object with the keys to add"
            )


def _leaves(config: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        path = f"{above}{key}"
        yield path, value
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}.")
