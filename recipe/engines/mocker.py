"""Dynamo's mock engine, `dynamo.mocker` of Dynamo 1.6.1: everything but the computing, on CPU nodes.

It keeps the books of a KV cache, publishes its events, takes the time a step would take, and answers with random tokens. Router,
discovery, disaggregation and the operator are the real ones. Flags: `dynamo/mocker/args.py` of the wheel ai-dynamo 1.6.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from recipe.catalogue import DType
from recipe.config import Recipe, Role, Tuning
from recipe.engines.worker import EngineWorker, publishes_kv_events
from recipe.errors import Problem
from recipe.placement import context_tokens

BLOCKS: Final = 16384
"""KV blocks of a worker: what the mocker takes where no timing model sizes the cache (`--num-gpu-blocks-override`, args.py)."""
BLOCK_SIZE: Final = 64
"""Tokens in one, where the recipe is silent (its default for `--engine-type vllm`)."""

_TUNES: Final = (
    "context_length",
    "block_size",
    "kv_cache_dtype",
    "prefix_caching",
    "max_batch_size",
    "max_batch_tokens",
    "extra_args",
)
"""Settings it has a flag for."""


class Mocker:
    """The mock engine."""

    command: tuple[str, ...] = ("python3", "-m", "dynamo.mocker")
    on_gpus = False
    framework = None
    """The CRD's enum has no word for it; upstream's own graph for the mocker leaves the field out."""
    keeps_compiled: bool = False
    default_memory_fraction: float = 1.0

    def usable_gib(self, total_gib: float, taken_gib: float, fraction: float) -> float:  # noqa: ARG002 - the protocol's
        """Never asked: there is no GPU memory to divide."""
        return total_gib * fraction

    def config(self, worker: EngineWorker) -> dict[str, Any] | None:  # noqa: ARG002 - the protocol's
        """Flags say everything."""
        return None

    def args(self, worker: EngineWorker) -> tuple[str, ...]:
        """Flags in a fixed order: model, role, cache, scheduling, then the recipe's own."""
        return (
            *("--model-path", worker.snapshot_path, "--model-name", worker.model.id),
            *self._role(worker),
            *self._cache(worker),
            *self._scheduling(worker),
            *worker.recipe.tuning(worker.role).extra_args,
        )

    def env(self, worker: EngineWorker) -> dict[str, str]:  # noqa: ARG002 - the protocol's
        """The event plane: unset it is zmq by the frontend's help, but NATS under Kubernetes by the mocker's, and nobody installs NATS here."""
        return {"DYN_EVENT_PLANE": "zmq"}

    def publishes_kv_events(self, recipe: Recipe, role: Role) -> bool:
        """As `build_runtime_config` decides it: with prefix caching, and not from decode workers."""
        return publishes_kv_events(recipe, role)

    def check(self, recipe: Recipe) -> list[Problem]:
        """It has no GPUs to split a model over, and no flag for much of what an engine can be told."""
        problems: list[Problem] = []
        for role, pool in recipe.workers.items():
            for key in ("tensor_parallel", "data_parallel", "expert_parallel"):
                if getattr(pool, key) != 1:
                    reason = "the mocker has no GPUs to split a model over"
                    problems.append(Problem(f"workers.{role}.{key}", getattr(pool, key), reason, "1"))
            if "shared_memory_gib" in pool.model_fields_set:
                reason = "the mocker shares no memory between processes"
                problems.append(
                    Problem(f"workers.{role}.shared_memory_gib", pool.shared_memory_gib, reason, "leave it out")
                )
            problems += _without_flag(f"workers.{role}.tuning", pool.tuning)
        return problems + _without_flag("engine_tuning", recipe.engine_tuning)

    def _role(self, worker: EngineWorker) -> Iterator[str]:
        if worker.role != "worker":
            yield from ("--disaggregation-mode", worker.role)

    def _cache(self, worker: EngineWorker) -> Iterator[str]:
        tuning = worker.recipe.tuning(worker.role)
        yield from ("--max-model-len", str(context_tokens(worker.recipe, worker.model, worker.role)))
        # Said even where they are the defaults: the plan counts the cache with them, and the router in the same blocks.
        yield from ("--num-gpu-blocks-override", str(BLOCKS), "--block-size", str(block_size(worker.recipe)))
        # Left to itself it takes hidden size / heads for the size of a head, which for Qwen3 is 80 instead of 128 (utils/kv_cache.py).
        dtype: DType = "fp8" if tuning.kv_cache_dtype == "fp8" else "bfloat16"
        yield from ("--kv-bytes-per-token", str(worker.model.kv_bytes_per_token(dtype)))
        prefix_caching = tuning.prefix_caching
        if prefix_caching is None and worker.role == "decode":
            prefix_caching = False  # as the real engines' decode workers: a twin keeps the same books
        if prefix_caching is not None:
            yield "--enable-prefix-caching" if prefix_caching else "--no-enable-prefix-caching"

    def _scheduling(self, worker: EngineWorker) -> Iterator[str]:
        tuning = worker.recipe.tuning(worker.role)
        if tuning.max_batch_size is not None:
            yield from ("--max-num-seqs", str(tuning.max_batch_size))
        if tuning.max_batch_tokens is not None:
            yield from ("--max-num-batched-tokens", str(tuning.max_batch_tokens))


def block_size(recipe: Recipe) -> int:
    """Tokens in a KV block."""
    return recipe.engine_tuning.block_size or BLOCK_SIZE


def kv_tokens(recipe: Recipe) -> int:
    """Tokens a worker's pretended cache holds."""
    return BLOCKS * block_size(recipe)


def _without_flag(path: str, tuning: Tuning) -> list[Problem]:
    known = ", ".join(_TUNES)
    return [
        Problem(f"{path}.{name}", value, "the mocker has no such setting", f"leave it out; it has: {known}")
        for name, value in tuning
        if value not in (None, (), {}) and name not in _TUNES
    ]
