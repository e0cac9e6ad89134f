"""vLLM 0.31 as `dynamo.vllm` of Dynamo 1.6.1 runs it.

Flags of Dynamo: `dynamo/vllm/args.py` and `backend_args.py` of the wheel ai-dynamo 1.6.1. Flags of vLLM: as in upstream's recipes
(facts/dynamo.md §4).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final, Literal

from recipe.catalogue import Model
from recipe.config import Recipe, Role
from recipe.engines.worker import EngineWorker
from recipe.errors import Problem
from recipe.placement import DEFAULT_MEMORY_FRACTION, context_tokens

KV_EVENTS_PORT: Final = 20080
"""Where a worker publishes cache events inside its pod (upstream recipe qwen3-32b/vllm/disagg-kv-router)."""


class Vllm:
    """The vLLM engine."""

    command: tuple[str, ...] = ("python3", "-m", "dynamo.vllm")
    on_gpus = True
    framework: Literal["vllm"] = "vllm"

    def args(self, worker: EngineWorker) -> tuple[str, ...]:
        """Flags in a fixed order: model, parallelism, memory, scheduling, routing, then the recipe's own."""
        return (
            *self._model(worker),
            *self._parallelism(worker),
            *self._memory(worker),
            *self._scheduling(worker),
            *self._kv(worker),
            "--no-enable-log-requests",  # prompts do not belong in logs
            *worker.recipe.tuning(worker.role).extra_args,
        )

    def env(self, worker: EngineWorker) -> dict[str, str]:
        """Where vLLM keeps compiled graphs."""
        return {"VLLM_CACHE_ROOT": worker.cache_path}

    def publishes_kv_events(self, recipe: Recipe, role: Role) -> bool:
        """Only workers that see prompts first; without prefix caching Dynamo drops the events (`create_kv_events_config`)."""
        return recipe.router.mode == "kv" and role != "decode" and recipe.tuning(role).prefix_caching is not False

    def check(self, recipe: Recipe) -> list[Problem]:
        """vLLM spreads experts over the whole tensor parallel group or not at all."""
        return [
            Problem(
                f"workers.{role}.expert_parallel",
                pool.expert_parallel,
                f"vLLM has one switch: experts go over all {pool.tensor_parallel} GPUs of tensor_parallel, or none",
                f"1 or {pool.tensor_parallel}",
            )
            for role, pool in recipe.workers.items()
            if pool.expert_parallel not in (1, pool.tensor_parallel)
        ]

    def _model(self, worker: EngineWorker) -> Iterator[str]:
        # A path, not the id: a download by revision leaves no refs/main, so the id would be looked up on the network.
        yield from ("--model", worker.snapshot_path, "--served-model-name", worker.model.id)
        # Said even where the recipe does not: the plan counted the KV cache for exactly this length.
        context = context_tokens(worker.recipe, worker.model, worker.role)
        yield from ("--max-model-len", str(context))
        if context > worker.model.native_context_tokens:
            yield from ("--hf-overrides", yarn(worker.model))

    def _parallelism(self, worker: EngineWorker) -> Iterator[str]:
        pool = worker.recipe.workers[worker.role]
        yield from ("--tensor-parallel-size", str(pool.tensor_parallel))
        if pool.expert_parallel > 1:
            yield "--enable-expert-parallel"
        if worker.role != "worker":
            yield from ("--disaggregation-mode", worker.role)

    def _memory(self, worker: EngineWorker) -> Iterator[str]:
        tuning = worker.recipe.tuning(worker.role)
        yield from ("--gpu-memory-utilization", f"{tuning.gpu_memory_fraction or DEFAULT_MEMORY_FRACTION:g}")
        if tuning.block_size is not None:
            yield from ("--block-size", str(tuning.block_size))
        if tuning.kv_cache_dtype is not None:
            yield from ("--kv-cache-dtype", tuning.kv_cache_dtype)
        prefix_caching = tuning.prefix_caching
        if prefix_caching is None and worker.role == "decode":
            prefix_caching = (
                False  # its blocks come from prefill workers and are never asked for twice; upstream does the same
            )
        if prefix_caching is not None:
            yield "--enable-prefix-caching" if prefix_caching else "--no-enable-prefix-caching"

    def _scheduling(self, worker: EngineWorker) -> Iterator[str]:
        tuning = worker.recipe.tuning(worker.role)
        if tuning.async_scheduling is not None:
            yield "--async-scheduling" if tuning.async_scheduling else "--no-async-scheduling"
        if tuning.max_batch_size is not None:
            yield from ("--max-num-seqs", str(tuning.max_batch_size))
        if tuning.max_batch_tokens is not None:
            yield from ("--max-num-batched-tokens", str(tuning.max_batch_tokens))

    def _kv(self, worker: EngineWorker) -> Iterator[str]:
        if worker.kv_transfer:
            yield from worker.kv_transfer.args
        if self.publishes_kv_events(worker.recipe, worker.role):
            events = {
                "publisher": "zmq",
                "topic": "kv-events",
                "endpoint": f"tcp://*:{KV_EVENTS_PORT}",
                "enable_kv_cache_events": True,
            }
            yield from ("--kv-events-config", json.dumps(events, separators=(",", ":")))


def yarn(model: Model) -> str:
    """Overrides of the model's configuration that stretch its context (model card; upstream recipe disagg-kv-router)."""
    scaling = {
        "rope_type": "yarn",
        "factor": model.yarn_factor,
        "original_max_position_embeddings": model.native_context_tokens,
    }
    overrides = {"rope_scaling": scaling, "max_position_embeddings": model.yarn_context_tokens}
    return json.dumps(overrides, separators=(",", ":"))
