"""vLLM 0.31 as `dynamo.vllm` of Dynamo 1.6.1 runs it.

Flags of Dynamo: `dynamo/vllm/args.py` and `backend_args.py` of the wheel ai-dynamo 1.6.1. Flags of vLLM: as in upstream's recipes
(facts/dynamo.md §4).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, Literal

from recipe.config import Recipe, Role
from recipe.engines.worker import EngineWorker, check_steps, publishes_kv_events, yarn
from recipe.errors import Problem
from recipe.placement import context_tokens

KV_EVENTS_PORT: Final = 20080
"""Where a worker publishes cache events inside its pod (upstream recipe qwen3-32b/vllm/disagg-kv-router)."""


class Vllm:
    """The vLLM engine."""

    command: tuple[str, ...] = ("python3", "-m", "dynamo.vllm")
    on_gpus = True
    framework: Literal["vllm"] = "vllm"
    default_memory_fraction: float = 0.90
    """Of every recipe of upstream for vLLM (facts/dynamo.md §4)."""
    keeps_compiled: bool = True
    """What torch.compile made, below VLLM_CACHE_ROOT."""

    def usable_gib(self, total_gib: float, taken_gib: float, fraction: float) -> float:  # noqa: ARG002 - TensorRT-LLM needs it
        """The fraction is of the whole memory, weights included."""
        return total_gib * fraction

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

    def config(self, worker: EngineWorker) -> dict[str, Any] | None:  # noqa: ARG002 - TensorRT-LLM needs it
        """None: flags say everything."""
        return None

    def publishes_kv_events(self, recipe: Recipe, role: Role) -> bool:
        """Only workers that see prompts first; without prefix caching Dynamo drops the events (`create_kv_events_config`)."""
        return publishes_kv_events(recipe, role)

    def check(self, recipe: Recipe) -> list[Problem]:
        """Layouts it does not have, and settings of another engine."""
        problems = check_steps(recipe, chunks=True, step_tokens=None)
        for role, pool in recipe.workers.items():
            if pool.expert_parallel not in (1, pool.gpus):
                reason = f"vLLM has one switch: experts go over all {pool.gpus} GPUs of a worker, or none"
                fix = f"1 or {pool.gpus}"
                problems.append(Problem(f"workers.{role}.expert_parallel", pool.expert_parallel, reason, fix))
        tunings = {"engine_tuning": recipe.engine_tuning} | {
            f"workers.{role}.tuning": pool.tuning for role, pool in recipe.workers.items()
        }
        problems += [
            Problem(
                f"{path}.extra_engine_config",
                sorted(tuning.extra_engine_config),
                "vLLM has no engine YAML",
                "the same as flags, in extra_args",
            )
            for path, tuning in tunings.items()
            if tuning.extra_engine_config
        ]
        if recipe.mode == "disagg" and recipe.serving.kv_transfer.backend == "ucx":
            reason = "over EFA vLLM's UCX falls back to TCP, and a first token takes about 100 s"
            problems.append(Problem("serving.kv_transfer.backend", "ucx", reason, "libfabric"))
        return problems

    def _model(self, worker: EngineWorker) -> Iterator[str]:
        # A path, not the id: a download by revision leaves no refs/main, so the id would be looked up on the network.
        yield from ("--model", worker.snapshot_path, "--served-model-name", worker.model.id)
        # Said even where the recipe does not: the plan counted the KV cache for exactly this length.
        context = context_tokens(worker.recipe, worker.model, worker.role)
        yield from ("--max-model-len", str(context))
        yield from self._loader(worker)
        if context > worker.model.native_context_tokens:
            yield from ("--hf-overrides", json.dumps(yarn(worker.model), separators=(",", ":")))

    def _loader(self, worker: EngineWorker) -> Iterator[str]:
        """Run:ai's model streamer, which Dynamo's vLLM image holds (ai-dynamo/dynamo #4848, which uses these flags)."""
        weights = worker.recipe.weights
        own = any(
            argument.split("=")[0] == "--load-format" for argument in worker.recipe.tuning(worker.role).extra_args
        )
        if weights.loader == "default" or own:
            return
        # distributed: each rank reads its part and they exchange them, instead of each reading everything.
        distributed = {"distributed": True} if worker.recipe.workers[worker.role].tensor_parallel > 1 else {}
        config = {"concurrency": weights.loader_concurrency, **distributed}
        yield from ("--load-format", "runai_streamer")
        yield from ("--model-loader-extra-config", json.dumps(config, separators=(",", ":")))

    def _parallelism(self, worker: EngineWorker) -> Iterator[str]:
        pool = worker.recipe.workers[worker.role]
        yield from ("--tensor-parallel-size", str(pool.tensor_parallel))
        if pool.data_parallel > 1:
            yield from ("--data-parallel-size", str(pool.data_parallel))
        if pool.expert_parallel > 1:
            yield "--enable-expert-parallel"
        if worker.role != "worker":
            yield from ("--disaggregation-mode", worker.role)

    def _memory(self, worker: EngineWorker) -> Iterator[str]:
        tuning = worker.recipe.tuning(worker.role)
        yield from ("--gpu-memory-utilization", f"{tuning.gpu_memory_fraction or self.default_memory_fraction:g}")
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
        if tuning.chunked_prefill is not None:
            yield "--enable-chunked-prefill" if tuning.chunked_prefill else "--no-enable-chunked-prefill"
        if tuning.cuda_graphs is not None:
            yield "--no-enforce-eager" if tuning.cuda_graphs else "--enforce-eager"

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
