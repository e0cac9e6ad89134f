"""A tuned stack as a file for people: the question, the answer and the prediction in comments, then the recipe."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

import yaml

from recipe.config import PROJECT, RECIPE_KEY, Recipe
from recipe.plan import Plan
from recipe.predictions import KNOWN_GAPS, Prediction

_WIDTH: Final = 125
_COMMENTS: Final = {
    "replicas": "workers of this role",
    "tensor_parallel": "GPUs the layers of a worker are split over",
    "data_parallel": "copies of the attention layers in a worker, each with requests of its own",
    "expert_parallel": "GPUs a worker's whole experts are spread over",
    "max_batch_size": "requests in one step (of each copy): from the answer, or with room for bursts where a replay says so. More is more throughput and a higher inter-token latency",
    "context_length": "prompt + answer, tokens: the longest that the recipe has or the traffic wants, and that fits",
    "gpu_memory_fraction": "vLLM: of the whole GPU; TensorRT-LLM: of what is free after loading",
    "max_batch_tokens": "tokens in one step",
    "prefix_caching": "shared prefixes are computed once; decode workers get their KV cache from prefill",
    "usd_per_hour": "the plan is refused above it",
    "gpu": "what the search was about: on another GPU the prediction is of nothing",
}
"""By key, said where it first stands."""
_ORDER: Final = (
    "model",
    "engine",
    "mode",
    "workers",
    "engine_tuning",
    "router",
    "hardware",
    "storage",
    "weights",
    "serving",
)
_REST: Final = ("budget", "access")


def text(stack: str, recipe: Recipe, plan: Plan, rows: list[Prediction], base: str) -> str:
    """The whole file. `rows`: one for each GPU it is for; `base`: the stack whose other settings it keeps."""
    return "\n".join([*_head(stack, plan, rows, base), *_body(recipe), ""])


def _head(stack: str, plan: Plan, rows: list[Prediction], base: str) -> Iterator[str]:
    first = rows[0]
    question, tuned = first.question, first.tuned
    assert tuned is not None
    yield "# yaml-language-server: $schema=schema.json"
    yield "#"
    yield from _wrapped(
        f"{question.model} on {question.gpus} GPUs ({', '.join(row.gpu for row in rows)}), a layout found by search: {tuned.layout}. "
        f"Everything else is as in {base}."
    )
    yield "#"
    yield from _wrapped(
        f"The question: the most output tokens a second and GPU for prompts of {question.isl:,} and answers of {question.osl:,} tokens, with TTFT at "
        f"most {question.ttft_ms:g} ms and ITL at most {question.itl_ms:g} ms, KV cache {question.kv_cache_dtype}."
    )
    yield from _wrapped(
        f"Asked: aiconfigurator {first.tool}, its database of {first.database}, on {first.on}. PREDICTED, nothing of it was measured on a GPU:"
    )
    yield "#"
    yield f"#   {'':30} {'tokens/s/GPU':>12} {'TTFT ms':>8} {'ITL ms':>7}"
    for row in rows:
        assert row.tuned is not None
        for name, one in (
            (f"{row.gpu}: this", row.tuned),
            (f"{row.gpu}: {row.recipe.stack}" if row.recipe else "", row.recipe),
        ):
            if one:
                layout = one.layout
                yield f"#   {name:30} {layout.tokens_per_s_gpu:12.1f} {layout.ttft_ms:8.0f} {layout.itl_ms:7.1f}"
        if not row.recipe:
            yield f"#   {row.gpu}: no shipped layout keeps these limits"
        yield f"#   {row.gpu + ': best of a free search':30} {row.best:12.1f}"
    for row in rows:
        for who, name, replay in row.replayed():
            goodput = "" if replay.goodput_share is None else f", goodput {replay.goodput_share:.0%}"
            yield from _wrapped(
                f"Replayed offline with the router in the loop ({replay.tool}), {row.gpu}, {who}: {name}: TTFT {replay.ttft_ms:.0f} ms, "
                f"p99 {replay.ttft_p99_ms:.0f}, ITL {replay.itl_ms or 0:.1f} ms, prefix reuse {replay.prefix_reuse:.0%}{goodput}. Predicted as well."
            )
    yield "#"
    if gap := first.gap():
        yield from _wrapped(f"Known gaps: {gap}; {'; '.join(KNOWN_GAPS)}. docs/tuning.md says more.")
    for better, why in list(first.refused.items())[:3]:
        yield from _wrapped(f"Better on paper and refused by the plan: {better}: {why}.")
    yield "#"
    width = len(f"python -m ops plan {stack}") + 4
    cost = f"about ${plan.cost.usd_per_hour:.0f} an hour from the moment the GPU nodes start"
    for command, what in (
        (f"python -m ops plan {stack}", "what this becomes: nodes, placement, $/h. Needs no account."),
        (f"pulumi up -s {stack}", f"the real thing, {cost}."),
        (f"pulumi destroy -s {stack}", "and nothing is left."),
    ):
        yield f"#   {command:{width}}{what}"
    yield "#"
    yield from _wrapped(
        f"Written by `python -m ops tune {base}`; write it again rather than change the layout, or the prediction is no longer of it."
    )


def _wrapped(sentence: str) -> Iterator[str]:
    for line in textwrap.wrap(sentence, _WIDTH - 2, break_on_hyphens=False, break_long_words=False):
        yield f"# {line}"


def _body(recipe: Recipe) -> Iterator[str]:
    data = _data(recipe)
    yield "config:"
    yield f"  {PROJECT}:{RECIPE_KEY}:"
    named = [*_ORDER, *sorted(set(data) - {*_ORDER, *_REST}), *_REST]
    blank, said = False, set[str]()
    for key in named:
        if key not in data:
            continue
        lines = yaml.safe_dump({key: data[key]}, sort_keys=False, default_flow_style=False, width=200).splitlines()
        if blank or len(lines) > 1:
            yield ""
        blank = len(lines) > 1
        for line in lines:
            name = line.strip().partition(":")[0]
            comment = _COMMENTS.get(name) if name not in said else None
            said.add(name)
            yield f"    {line}{f' # {comment}' if comment else ''}"


def _data(recipe: Recipe) -> dict[str, Any]:
    """What the recipe says beyond the defaults, unset settings left out."""
    data: dict[str, Any] = recipe.model_dump(mode="json", exclude_defaults=True)
    data["engine_tuning"] = _without_none(data.get("engine_tuning", {}))
    for pool in data["workers"].values():
        if "tuning" in pool:
            pool["tuning"] = _without_none(pool["tuning"])
    data["hardware"].setdefault("capacity", {"kind": recipe.hardware.capacity.kind})
    data.setdefault("access", {})["region"] = recipe.access.region
    data.setdefault("router", {})["mode"] = recipe.router.mode
    data["weights"] = {"wait": recipe.weights.wait} | data.get("weights", {})
    return data


def _without_none(tuning: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tuning.items() if value is not None}
