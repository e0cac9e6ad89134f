"""Layouts from a search: put together as the tool does, within the limits, and only what the Plan accepts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ops.tune_file import text
from recipe.config import Recipe, Role, parse
from recipe.planner import make_plan
from recipe.predictions import FILE, Judged, Prediction, is_of, of_plan, read, tuned_gpus
from recipe.tuning import (
    Accepted,
    Answer,
    Layout,
    Pool,
    Question,
    Shape,
    Worker,
    accept,
    contexts,
    first_accepted,
    layouts,
    of_recipe,
)
from tests.recipe.samples import AGG_WORKERS, recipe

QUESTION = Question(
    model="Qwen/Qwen3-32B",
    backend="vllm",
    system="h200_sxm",
    gpus=16,
    isl=4000,
    osl=500,
    ttft_ms=2000,
    itl_ms=30,
    kv_cache_dtype="auto",
)
ANSWER = Answer.model_validate_json((Path(__file__).parent / "tuning_sample.json").read_text(encoding="utf-8"))
"""What aiconfigurator 0.12.0 answered on 2026-11-25, with most of the rows that no layout needs left out."""
H200: dict[str, Any] = {"hardware": {"gpu": "h200"}, "budget__usd_per_hour": 200}


def base(**changes: Any) -> Recipe:
    return recipe(**(H200 | changes))


def layout(mode: Any, batch: int = 16, **pools: tuple[int, int]) -> Layout:
    made: dict[Any, Pool] = {
        role: Pool(replicas=count, shape=Shape(tp=tp, dp=1, ep=1, gpus=tp), batch=1 if role == "prefill" else batch)
        for role, (count, tp) in pools.items()
    }
    return Layout(mode=mode, pools=made, ttft_ms=500, itl_ms=20, tokens_per_s_gpu=100, concurrency=100)


# ── from workers to layouts ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_best_layout_is_the_one_the_tool_itself_finds() -> None:
    best = layouts(QUESTION, ANSWER)[0]
    found = ANSWER.optimum()
    assert found is not None
    mode, free = found
    assert best.mode == mode
    assert best.tokens_per_s_gpu == pytest.approx(free.tokens_per_s_gpu, rel=0.001)
    assert {role: (pool.replicas, pool.shape.tp) for role, pool in best.pools.items()} == {
        role: (pool.replicas, pool.tp) for role, pool in free.pools.items()
    }
    agg = next(one for one in layouts(QUESTION, ANSWER) if one.mode == "agg")
    assert agg.tokens_per_s_gpu == pytest.approx(ANSWER.free["agg"].tokens_per_s_gpu, rel=0.001), "that mode as well"


def test_of_equal_layouts_the_one_with_the_lower_inter_token_latency_is_taken() -> None:
    best = layouts(QUESTION, ANSWER)[0]
    assert best.pools["decode"].batch < ANSWER.free["disagg"].pools["decode"].batch, "prefill limits the rate anyway"
    assert best.itl_ms < ANSWER.free["disagg"].itl_ms


def test_the_shipped_layouts_are_judged_at_their_best_batch_size() -> None:
    disagg = of_recipe(QUESTION, ANSWER, base())
    agg = of_recipe(QUESTION, ANSWER, base(mode="agg", workers=AGG_WORKERS))
    assert disagg is not None
    assert agg is not None
    # The tool's own estimates of both: 448 and 539 (facts: simulation.md, section 5).
    assert disagg.tokens_per_s_gpu == pytest.approx(448, abs=1)
    assert agg.tokens_per_s_gpu == pytest.approx(539, abs=1)
    assert agg.pools["worker"].batch == 32


def test_a_smaller_recipe_is_judged_as_often_as_the_gpus_hold_it() -> None:
    one = base(mode="agg", workers={"worker": {"replicas": 1, "tensor_parallel": 2}})
    found = of_recipe(QUESTION, ANSWER, one)
    assert found is not None
    assert found.pools["worker"].replicas == 8
    assert is_of(found, one), "and it is found again by its layout"


def test_a_recipe_that_keeps_the_limits_at_no_batch_size_has_no_figure() -> None:
    strict = QUESTION.model_copy(update={"itl_ms": 5.0})
    assert of_recipe(strict, ANSWER, base()) is None
    assert layouts(strict, ANSWER) == []


def worker(gpus: int, ttft: float, itl: float, rate: float, batch: int) -> Worker:
    return Worker(
        tp=gpus, dp=1, ep=1, gpus=gpus, batch=batch, ttft_ms=ttft, itl_ms=itl, requests_per_s=rate, concurrency=batch, memory_gb=1
    )  # fmt: skip


def test_the_order_of_the_answer_does_not_matter() -> None:
    slow, fast = worker(1, 0, 20, 9.0, 64), worker(1, 0, 10, 8.0, 32)
    first = worker(1, 500, 0, 0.1, 1)
    for decode in ((slow, fast), (fast, slow)):
        answer = ANSWER.model_copy(update={"agg": (), "prefill": (first,), "decode": decode})
        assert layouts(QUESTION, answer)[0].itl_ms == 10, "prefill limits both, so the smaller batch does"


WORKERS = st.builds(
    worker,
    st.sampled_from((1, 2, 4, 8)),
    st.floats(1, 3000),
    st.floats(1, 60),
    st.floats(0.01, 20),
    st.integers(1, 256),
)


@given(
    agg=st.lists(WORKERS, max_size=4),
    prefill=st.lists(WORKERS, max_size=4),
    decode=st.lists(WORKERS, max_size=6),
    gpus=st.integers(1, 16),
)
def test_no_layout_breaks_a_limit_and_none_is_better_than_the_first(
    agg: list[Worker], prefill: list[Worker], decode: list[Worker], gpus: int
) -> None:
    asked = QUESTION.model_copy(update={"gpus": gpus})
    answer = ANSWER.model_copy(update={"agg": tuple(agg), "prefill": tuple(prefill), "decode": tuple(decode)})
    found = layouts(asked, answer)
    for one in found:
        assert one.ttft_ms <= asked.ttft_ms
        assert one.itl_ms <= asked.itl_ms
        assert sum(pool.replicas * pool.shape.gpus for pool in one.pools.values()) <= gpus
    # Every pair of workers at every pair of counts, without any of the short cuts.
    rates = [
        (row.requests_per_s * (gpus // row.gpus) * (asked.osl - 1), row.itl_ms)
        for row in agg
        if row.gpus <= gpus and row.ttft_ms <= asked.ttft_ms and row.itl_ms <= asked.itl_ms
    ]
    factors = answer.factors
    rates += [
        (
            min(first.requests_per_s * p * factors.prefill, second.requests_per_s * d * factors.decode) * asked.osl,
            second.itl_ms,
        )
        for first in prefill
        if first.ttft_ms * factors.ttft < asked.ttft_ms
        for second in decode
        if second.itl_ms < asked.itl_ms
        for p in range(1, gpus + 1)
        for d in range(1, gpus + 1)
        if p * first.gpus + d * second.gpus <= gpus
    ]
    assert bool(found) == bool(rates)
    if found:
        most = max(rate for rate, _ in rates)
        assert math.isclose(found[0].tokens_per_s_gpu, most / gpus, rel_tol=1e-9)
        least = min(itl for rate, itl in rates if rate == most)
        assert found[0].itl_ms <= least, "of equals the one that answers faster"


# ── what the Plan accepts ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_best_layout_becomes_a_recipe_whose_batch_sizes_are_the_answers() -> None:
    (best,), refused = first_accepted("tuned", base(), QUESTION, layouts(QUESTION, ANSWER))
    assert refused == {}
    assert {role: pool.replicas for role, pool in best.recipe.workers.items()} == {"prefill": 10, "decode": 3}
    assert {role: best.recipe.tuning(role).max_batch_size for role in best.recipe.workers} == {
        role: pool.batch for role, pool in best.layout.pools.items()
    }
    assert best.plan.gpus == 16
    assert all(node.gpus_used == 8 for node in best.plan.placement.gpu_nodes), "whole nodes"
    assert best.recipe.tuning("decode").prefix_caching is False


def test_weights_that_do_not_fit_are_refused_with_the_plans_own_reason() -> None:
    wide = base(hardware={"gpu": "h100"}, model="Qwen/Qwen3-235B-A22B-FP8", engine_tuning={"context_length": 8192})
    said = accept("tuned", wide, QUESTION, layout("agg", worker=(8, 2)))
    assert isinstance(said, str)
    assert "weights do not fit" in said


def test_a_batch_whose_kv_cache_does_not_fit_is_refused_though_the_tool_thinks_it_does() -> None:
    many = accept("tuned", base(), QUESTION, layout("agg", batch=400, worker=(16, 1)))
    assert isinstance(many, str)
    assert "400 requests of 4,250 tokens need a KV cache of 1,700,000" in many
    assert isinstance(accept("tuned", base(), QUESTION, layout("agg", batch=4, worker=(16, 1))), Accepted)


def test_a_batch_that_misses_by_a_hair_gets_a_little_more_of_the_memory() -> None:
    found = {
        batch: accept("tuned", base(), QUESTION, layout("agg", batch=batch, worker=(16, 1))) for batch in range(40, 80)
    }
    shares = [
        one.recipe.engine_tuning.gpu_memory_fraction if isinstance(one, Accepted) else None for one in found.values()
    ]
    assert list(dict.fromkeys(shares)) == [0.9, 0.92, None], "the recipe's own first"


def test_the_next_best_is_taken_where_the_best_is_refused() -> None:
    too_many, fits = layout("agg", batch=400, worker=(16, 1)), layout("agg", batch=8, worker=(8, 2))
    (found,), refused = first_accepted("tuned", base(), QUESTION, [too_many, fits])
    assert found.layout == fits
    assert list(refused) == [str(too_many)], "and why the better one was not is kept for the file"


def test_the_context_is_as_long_as_the_layout_allows() -> None:
    roomy = accept("tuned", base(), QUESTION, layout("agg", batch=4, worker=(8, 2)))
    narrow = accept("tuned", base(hardware={"gpu": "h100"}), QUESTION, layout("agg", batch=1, worker=(16, 1)))
    assert isinstance(roomy, Accepted)
    assert isinstance(narrow, Accepted)
    assert roomy.recipe.engine_tuning.context_length == 131072
    assert 4500 <= (narrow.recipe.engine_tuning.context_length or 0) < 32768, "61 GiB of weights on 80 GB leave little"
    assert min(contexts(base(), QUESTION)) >= 4500, "never less than was asked about"


def test_prompts_that_begin_alike_get_prefix_caching_and_the_router_that_uses_it() -> None:
    long = QUESTION.model_copy(update={"isl": 12000, "osl": 343, "shared_prefixes": True})
    found = accept(
        "tuned", base(router={"mode": "round-robin"}), long, layout("disagg", batch=4, prefill=(6, 2), decode=(2, 2))
    )
    assert isinstance(found, Accepted)
    assert found.recipe.router.mode == "kv"
    assert found.recipe.tuning("prefill").prefix_caching
    assert found.recipe.tuning("decode").prefix_caching is False


def test_more_expensive_gpus_raise_the_cap_and_leave_no_room_for_a_second_stack() -> None:
    found = accept("tuned", base(budget__usd_per_hour=60), QUESTION, layout("agg", batch=4, worker=(8, 2)))
    assert isinstance(found, Accepted)
    assert found.plan.cost.usd_per_hour < found.recipe.budget.usd_per_hour < found.plan.cost.usd_per_hour * 1.25


# ── the shipped table and files ──────────────────────────────────────────────────────────────────────────────────────

ROWS = read()
STACKS = FILE.parent.parent / "stacks"


def test_every_model_gpu_and_traffic_has_a_tuned_stack() -> None:
    models = {"Qwen/Qwen3-32B", "Qwen/Qwen3-32B-FP8", "Qwen/Qwen3-235B-A22B-FP8"}
    wanted = {(model, gpu, kind) for model in models for gpu in ("h100", "h200", "b200") for kind in ("fixed", "trace")}
    have = {
        (row.question.model, row.gpu, row.traffic) for row in ROWS if row.tuned and row.traffic in ("fixed", "trace")
    }
    assert wanted <= have, "none left out"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_tuned_layout_is_as_good_as_the_free_optimum_and_never_below_the_recipe(row: Prediction) -> None:
    assert row.tuned is not None
    kept = {who: replay.goodput_share or 0.0 for who, _, replay in row.replayed()}
    if row.tuned.layout.tokens_per_s_gpu < 0.98 * row.best:
        assert kept["the estimate's best"] < 0.9 * kept["tuned"], (
            "given up only where a replay finds that it does not serve the trace"
        )
    if "recipe" in kept:
        assert kept["tuned"] >= 0.9 * kept["recipe"], "nor clearly below the recipe when both are replayed"
    for other in row.judged:
        assert row.tuned.layout.tokens_per_s_gpu >= 0.98 * other.layout.tokens_per_s_gpu
    assert row.tuned.layout.ttft_ms <= row.question.ttft_ms
    assert row.tuned.layout.itl_ms <= row.question.itl_ms


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_tuned_file_is_the_layout_its_prediction_is_about(row: Prediction) -> None:
    assert row.tuned is not None
    path = STACKS / f"Pulumi.{row.tuned.stack}.yaml"
    content = path.read_text(encoding="utf-8")
    made = parse(yaml.safe_load(content)["config"]["dynamo-recipes:recipe"])
    assert made.hardware.gpu == row.gpu
    assert is_of(row.tuned.layout, made)
    for role, pool in row.tuned.layout.pools.items():
        times = (made.tuning(role).max_batch_size or 0) / pool.batch
        assert times in ((1,) if row.traffic == "fixed" or role == "prefill" else (1, 2, 4)), (
            "room for bursts, for traces only"
        )
    assert "PREDICTED" in content
    assert f"{row.tuned.layout.tokens_per_s_gpu:.1f}" in content, "the file says what was predicted"
    assert row.database in content
    plan = make_plan(row.tuned.stack, made, placeholders=True)
    assert f"about ${plan.cost.usd_per_hour:.0f} an hour" in content
    shown = next(one for one in of_plan(plan) if one.own)
    assert shown.stack == row.tuned.stack
    assert shown.usd_per_million_tokens
    if row.traffic == "trace":
        assert made.router.mode == "kv"
        assert str(row.tuned.layout) in row.replays, "with the router in the loop"


def test_tuned_stacks_are_for_their_own_gpu() -> None:
    assert tuned_gpus(ROWS)["qwen3-32b-tuned-h200"] == ("h200",)


def test_a_changed_layout_has_no_prediction() -> None:
    whole = make_plan("mine", recipe(), placeholders=True)
    assert {one.stack for one in of_plan(whole) if one.own} == {"qwen3-32b-disagg"}, "found by layout, not by name"
    pools: dict[str, Any] = {
        "prefill": {"replicas": 4, "tensor_parallel": 2},
        "decode": {"replicas": 4, "tensor_parallel": 2},
    }
    assert of_plan(make_plan("qwen3-32b-disagg", recipe(workers=pools), placeholders=True)) == ()


def test_a_cap_below_the_predicted_batch_has_no_prediction() -> None:
    """Tuned for long prompts, 8 workers of one GPU stop at 16 requests; the same workers for short ones were judged with 64."""
    row = next(row for row in ROWS if row.tuned and row.tuned.stack == "qwen3-32b-fp8-tuned-trace-b200")
    made = parse(
        yaml.safe_load((STACKS / f"Pulumi.{row.judged[-1].stack}.yaml").read_text())["config"]["dynamo-recipes:recipe"]
    )
    plan = make_plan("other", made, placeholders=True)
    assert {one.traffic for one in of_plan(plan)} == {"12000/343, TTFT 5000, ITL 30"}


def test_what_is_written_is_read_again_as_the_same_plan() -> None:
    (best,), _ = first_accepted("tuned", base(), QUESTION, layouts(QUESTION, ANSWER))
    row = next(one for one in ROWS if one.gpu == "h200" and one.question.model == QUESTION.model)
    row = row.model_copy(update={"judged": (*row.judged[:-1], Judged(stack="tuned", tuned=True, layout=best.layout))})
    again = parse(
        yaml.safe_load(text("tuned", best.recipe, best.plan, [row], "qwen3-32b-disagg"))["config"][
            "dynamo-recipes:recipe"
        ]
    )
    roles: list[Role] = ["prefill", "decode"]
    assert [again.tuning(role) for role in roles] == [best.recipe.tuning(role) for role in roles]
    assert make_plan("tuned", again, placeholders=True).objects.graph == best.plan.objects.graph


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"tp": 2, "dp": 1, "ep": 1, "gpus": 2}, "TP2"),
        ({"tp": 4, "dp": 1, "ep": 4, "gpus": 4}, "TP4 EP4"),
        ({"tp": 1, "dp": 4, "ep": 2, "gpus": 4}, "TP1 DP4 EP2 ETP2"),
    ],
)
def test_a_layout_can_be_read_back_from_what_is_printed(shape: dict[str, int], said: str) -> None:
    assert str(Shape.model_validate(shape)) == said
