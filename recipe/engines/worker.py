"""What an engine is told about the workers it runs as, and what engines have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from recipe import catalogue
from recipe.catalogue import GpuInstance, Model
from recipe.config import Recipe, Role
from recipe.errors import Problem
from recipe.kv_transfer import KvTransferBundle
from recipe.placement import context_tokens

CONFIG_MOUNT: Final = "/engine-config"
"""Where workers see their engine's own configuration file, if it has one."""
CONFIG_FILE: Final = "engine.yaml"


@dataclass(frozen=True)
class EngineWorker:
    """The workers of one role."""

    recipe: Recipe
    role: Role
    model: Model
    gpu: GpuInstance | None
    """The type of the GPU nodes; None for an engine without GPUs."""
    snapshot_path: str
    """Directory of the verified weights."""
    cache_path: str
    """Directory for what the engine compiles, on the compilation cache; empty for an engine that compiles nothing."""
    kv_transfer: KvTransferBundle | None


def publishes_kv_events(recipe: Recipe, role: Role) -> bool:
    """Whether the router wants events of this role and there are any: prompts arrive there first, and blocks are kept."""
    return recipe.router.mode == "kv" and role != "decode" and recipe.tuning(role).prefix_caching is not False


def yarn(model: Model) -> dict[str, Any]:
    """Changes to the model's configuration that stretch its context (model card; upstream recipe disagg-kv-router)."""
    scaling = {
        "rope_type": "yarn",
        "factor": model.yarn_factor,
        "original_max_position_embeddings": model.native_context_tokens,
    }
    return {"rope_scaling": scaling, "max_position_embeddings": model.yarn_context_tokens}


def check_steps(recipe: Recipe, *, chunks: bool, step_tokens: int | None) -> list[Problem]:
    """Prompts that fit no step, and batches with more requests than a step has tokens.

    `chunks`: whether the engine splits long prompts unless told; `step_tokens`: its tokens per step unless told, None where
    it chooses them itself.
    """
    problems: list[Problem] = []
    model = catalogue.MODELS.get(recipe.model)
    for role in recipe.workers:
        tuning = recipe.tuning(role)
        tokens = tuning.max_batch_tokens or step_tokens
        path = f"workers.{role}.tuning"
        if tokens is not None and tuning.max_batch_size is not None and tuning.max_batch_size > tokens:
            reason = f"a step of {tokens} tokens has no place for so many requests"
            problems.append(Problem(f"{path}.max_batch_size", tuning.max_batch_size, reason, f"at most {tokens}"))
        splits = chunks if tuning.chunked_prefill is None else tuning.chunked_prefill
        if role == "decode" or splits or model is None or tokens is None:
            continue  # decode gets its prompts computed
        context = context_tokens(recipe, model, role)
        if context > tokens:
            reason = f"a prompt of up to {context:,} tokens must fit one step of {tokens:,} without chunked_prefill"
            fix = f"chunked_prefill: true, or max_batch_tokens at least {context}, or context_length at most {tokens}"
            problems.append(Problem(f"{path}.max_batch_tokens", tokens, reason, fix))
    return problems
