"""Layouts by search, the pure part: what is asked, what was found, which layouts follow, which of them the Plan accepts, and the best.

The search itself (aiconfigurator, NVIDIA's performance database) runs elsewhere (`ops.tune_tool`); here is nothing but its answer. It lists
single workers: for each shape and batch size how many requests a second, TTFT, ITL. Layouts are put together from them as the tool does it
(`picking.py` of 0.12.0): prefill and decode pools are matched by rate, each with the tool's own loss factors.

Every number here is a prediction. Nothing was measured on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Final, Literal, cast

from recipe.config import Base, Frozen, Mode, Recipe, Role, Router, Tuning, WorkerPool
from recipe.errors import RecipeError
from recipe.plan import Plan
from recipe.planner import make_plan

Backend = Literal["vllm", "trtllm"]


class Question(Frozen):
    """What the search is asked. The answer is kept under all of it."""

    model: str
    backend: Backend
    system: str
    """The tool's name of the GPU: h200_sxm."""
    gpus: int
    isl: int
    osl: int
    ttft_ms: float
    itl_ms: float
    kv_cache_dtype: Literal["auto", "fp8"]
    shared_prefixes: bool = False
    """Prompts begin alike, as those of a trace: no question to the search, which knows nothing of it, but of the recipe that follows."""

    def searched(self) -> str:
        """What the search is told, as JSON: the answer is kept under it."""
        return self.model_dump_json(exclude={"shared_prefixes"})


class Shape(Frozen):
    """Parallelism of a worker. `gpus` includes what we do not have (pipelines), so that such rows can be told."""

    tp: int
    dp: int
    ep: int
    gpus: int

    def __str__(self) -> str:
        """ETP: GPUs that an expert itself is split over, where there is room for that beside the experts' spread."""
        parts = [f"TP{self.tp}"]
        split = self.tp * self.dp // self.ep
        parts += [f"DP{self.dp}"] if self.dp > 1 else []
        parts += [f"EP{self.ep}"] if self.ep > 1 else []
        parts += [f"ETP{split}"] if self.ep > 1 and split > 1 else []
        return " ".join(parts)


class Worker(Shape):
    """One worker at one batch size, by the tool's estimate. Each copy of the attention layers (dp) has `batch` requests."""

    batch: int
    ttft_ms: float
    itl_ms: float
    requests_per_s: float
    concurrency: float
    memory_gb: float

    @property
    def shape(self) -> Shape:
        return Shape(tp=self.tp, dp=self.dp, ep=self.ep, gpus=self.gpus)


class FreePool(Shape):
    batch: int
    replicas: int


class Free(Frozen):
    """What the tool itself would take, whether our Plan accepts it or not. Tokens/s/GPU of all GPUs asked for."""

    tokens_per_s_gpu: float
    ttft_ms: float
    itl_ms: float
    pools: dict[Role, FreePool]


class Factors(Frozen):
    """The tool's losses: pools that wait for each other, and prompts that queue."""

    prefill: float
    decode: float
    ttft: float


class Answer(Frozen):
    """Everything the search looked at."""

    tool: str
    version: str
    """Of the engine that the performance database is about."""
    free: dict[Mode, Free]
    failed: dict[Mode, str]
    agg: tuple[Worker, ...]
    prefill: tuple[Worker, ...]
    decode: tuple[Worker, ...]
    factors: Factors = Factors(prefill=0.9, decode=0.92, ttft=1.8)
    seconds: float
    memory_mib: int
    on: date | None = None
    """When it was asked."""
    machine: str = ""
    """Where."""

    def optimum(self) -> tuple[Mode, Free] | None:
        """The better of both modes; None where the tool finds nothing within the limits."""
        return max(self.free.items(), key=lambda item: item[1].tokens_per_s_gpu, default=None)


class Pool(Frozen):
    """Workers of one role in a layout."""

    replicas: int
    shape: Shape
    batch: int
    """Requests in one step, for each copy of the attention layers."""

    def __str__(self) -> str:
        return f"{self.replicas} x {self.shape}"


class Layout(Frozen):
    """A layout with what is predicted of it at these batch sizes, under full load."""

    mode: Mode
    pools: dict[Role, Pool]
    ttft_ms: float
    itl_ms: float
    tokens_per_s_gpu: float
    concurrency: float

    def __str__(self) -> str:
        return f"{self.mode} " + " + ".join(
            str(pool) if role == "worker" else f"{pool} {role}" for role, pool in self.pools.items()
        )


# ── layouts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def layouts(question: Question, answer: Answer, shapes: dict[Role, Shape] | None = None) -> list[Layout]:
    """Every layout within the limits on the GPUs asked for, the best first: tokens/s/GPU, then lower ITL, then fewer workers.

    `shapes`: only layouts whose roles have exactly these.
    """
    found = [*_agg(question, answer, shapes), *_disagg(question, answer, shapes)]
    return sorted(found, key=lambda one: (-round(one.tokens_per_s_gpu, 3), one.itl_ms, _workers(one)))


_CLOSE: Final = 0.9
"""Share of the highest rate below which a smaller batch is not worth a look."""


def _workers(layout: Layout) -> int:
    return sum(pool.replicas for pool in layout.pools.values())


def _agg(question: Question, answer: Answer, shapes: dict[Role, Shape] | None) -> Iterator[Layout]:
    if shapes is not None and set(shapes) != {"worker"}:
        return
    for row in answer.agg:
        replicas = question.gpus // row.gpus
        if not replicas or (shapes and row.shape != shapes["worker"]):
            continue
        if row.ttft_ms > question.ttft_ms or row.itl_ms > question.itl_ms:
            continue
        yield Layout(
            mode="agg",
            pools={"worker": Pool(replicas=replicas, shape=row.shape, batch=row.batch)},
            ttft_ms=row.ttft_ms,
            itl_ms=row.itl_ms,
            # The tool counts the first token of an answer for disagg and not for agg.
            tokens_per_s_gpu=row.requests_per_s * (question.osl - 1) * replicas / question.gpus,
            concurrency=row.concurrency * replicas,
        )


def _disagg(question: Question, answer: Answer, shapes: dict[Role, Shape] | None) -> Iterator[Layout]:
    if shapes is not None and set(shapes) != {"prefill", "decode"}:
        return
    factors = answer.factors
    prefills = [row for row in answer.prefill if row.ttft_ms * factors.ttft < question.ttft_ms]
    decodes: dict[Shape, list[Worker]] = {}
    for row in answer.decode:
        if row.itl_ms < question.itl_ms:
            decodes.setdefault(row.shape, []).append(row)
    for prefill in prefills:
        if shapes and prefill.shape != shapes["prefill"]:
            continue
        for shape, rows in decodes.items():
            if shapes and shape != shapes["decode"]:
                continue
            rows = sorted(rows, key=lambda row: row.itl_ms)
            for first, second in _counts(question.gpus, prefill.gpus, shape.gpus):
                yield from _matched(question, factors, (prefill, first), (rows, second))


def _counts(gpus: int, prefill: int, decode: int) -> Iterator[tuple[int, int]]:
    """Worker counts that leave no room for another worker of either kind."""
    for first in range(1, gpus // prefill + 1):
        second = (gpus - first * prefill) // decode
        if second and (gpus - first * prefill - second * decode) < prefill:
            yield first, second


def _matched(
    question: Question, factors: Factors, prefill: tuple[Worker, int], decode: tuple[Sequence[Worker], int]
) -> Iterator[Layout]:
    """Both pools at the rate of the slower one. Of the batch sizes that keep the highest rate, the one with the lowest ITL; then smaller ones
    that come close, for where the KV cache is too small. `rows` by rising ITL."""
    (first, first_count), (rows, second_count) = prefill, decode
    limit = first.requests_per_s * first_count * factors.prefill

    def rate(row: Worker) -> float:
        return min(limit, row.requests_per_s * second_count * factors.decode)

    highest = max(map(rate, rows))
    for second in rows:
        if rate(second) < highest * _CLOSE:
            continue
        yield Layout(
            mode="disagg",
            pools={
                "prefill": Pool(replicas=first_count, shape=first.shape, batch=first.batch),
                "decode": Pool(replicas=second_count, shape=second.shape, batch=second.batch),
            },
            ttft_ms=first.ttft_ms * factors.ttft,
            itl_ms=second.itl_ms,
            tokens_per_s_gpu=rate(second) * question.osl / question.gpus,
            concurrency=second.concurrency * second_count,
        )
        if rate(second) >= highest:
            return  # a larger batch only raises ITL


def shapes_of(recipe: Recipe) -> dict[Role, Shape]:
    """Parallelism of each pool of a recipe, as the tool counts it (a dense model has no experts to spread)."""
    return {
        role: Shape(tp=pool.tensor_parallel, dp=pool.data_parallel, ep=pool.expert_parallel, gpus=pool.gpus)
        for role, pool in recipe.workers.items()
    }


def of_recipe(question: Question, answer: Answer, recipe: Recipe) -> Layout | None:
    """A recipe's own layout, as many times as the GPUs hold it, at its best batch sizes within the limits. None: it cannot keep them."""
    gpus = sum(pool.replicas * pool.gpus for pool in recipe.workers.values())
    times = question.gpus // gpus
    if not times:
        return None
    wanted = {role: pool.replicas * times for role, pool in recipe.workers.items()}
    return next((one for one in _fixed(question, answer, recipe) if _replicas(one) == wanted), None)


def _fixed(question: Question, answer: Answer, recipe: Recipe) -> list[Layout]:
    shapes = shapes_of(recipe)
    if recipe.mode == "agg":
        found = layouts(question, answer, shapes)
        times = question.gpus // recipe.workers["worker"].gpus
        replicas = recipe.workers["worker"].replicas
        times -= times % replicas
        return [
            one.model_copy(update={"pools": {"worker": one.pools["worker"].model_copy(update={"replicas": times})}})
            for one in found
        ]
    # Not only counts that fill the GPUs: a recipe may leave some of its nodes unused.
    times = question.gpus // sum(pool.replicas * pool.gpus for pool in recipe.workers.values())
    counts = {role: pool.replicas * times for role, pool in recipe.workers.items()}
    found = []
    for prefill in answer.prefill:
        rows = sorted(
            (row for row in answer.decode if row.shape == shapes["decode"] and row.itl_ms < question.itl_ms),
            key=lambda row: row.itl_ms,
        )
        if prefill.shape != shapes["prefill"] or prefill.ttft_ms * answer.factors.ttft >= question.ttft_ms or not rows:
            continue
        found += _matched(question, answer.factors, (prefill, counts["prefill"]), (rows, counts["decode"]))
    return sorted(found, key=lambda one: -one.tokens_per_s_gpu)


def _replicas(layout: Layout) -> dict[Role, int]:
    return {role: pool.replicas for role, pool in layout.pools.items()}


# ── what the Plan accepts ────────────────────────────────────────────────────────────────────────────────────────────

_MEMORY_GIB: Final = {1: 224, 2: 320, 4: 600, 8: 1200}
"""Memory of a worker by its GPUs, so that eight, four, two or one fill a node of 2 TiB (the recipes' own: 256 to 320, and 600 for four)."""
_BESIDE_SHARED_GIB: Final = 144
"""Of it, what is left beside /dev/shm at the least (EFA wants 128)."""
_FRACTIONS: Final = (0.9, 0.92)
"""Of GPU memory, tried after the recipe's own: the engines' default, and a little more where a batch misses by a hair."""
_ROUND: Final = 1024
_LADDER: Final = (131_072, 65_536, 40_960, 32_768, 24_576, 16_384, 8192)


class Accepted(Frozen):
    """A layout that the Plan takes, as a recipe."""

    layout: Layout
    recipe: Recipe
    plan: Plan


def first_accepted(
    stack: str,
    base: Recipe,
    question: Question,
    found: Sequence[Layout],
    foundation: Base | None = None,
    *,
    many: int = 1,
) -> tuple[list[Accepted], dict[str, str]]:
    """The best `many` layouts that the Plan accepts for `stack`, and why better ones were not taken (the first reason of each layout)."""
    accepted: list[Accepted] = []
    refused: dict[str, str] = {}
    tried: set[str] = set()
    for layout in found:
        if str(layout) in tried:
            continue
        one = accept(stack, base, question, layout, foundation)
        if isinstance(one, Accepted):
            accepted.append(one)
            tried.add(str(layout))
            if len(accepted) == many:
                break
        else:
            refused.setdefault(str(layout), one)
    return accepted, refused


def accept(
    stack: str, base: Recipe, question: Question, layout: Layout, foundation: Base | None = None
) -> Accepted | str:
    """The layout as a recipe with the longest context that fits, or why the Plan takes none."""
    reason = ""
    for fraction in dict.fromkeys((base.engine_tuning.gpu_memory_fraction or _FRACTIONS[0], *_FRACTIONS)):
        for context in contexts(base, question):
            recipe = tuned(base, question, layout, context, fraction)
            try:
                plan = make_plan(stack, recipe, placeholders=True, base=foundation)
            except RecipeError as error:
                reason = error.problems[0].reason
                continue
            if short := _too_little(question, layout, plan):
                reason = short
                break  # the length of a request changes nothing of what fits
            return Accepted(layout=layout, recipe=_with_budget(base, recipe, plan), plan=plan)
    return reason


def with_room(accepted: Accepted, times: int, foundation: Base | None = None) -> Accepted | None:
    """The same layout with `times` the answer's batch in the workers that answer: room for bursts, at a higher ITL while they last.

    Prefill workers keep theirs: one prompt after the other is what their TTFT is of. None where the Plan does not take it.
    """
    if times == 1:
        return accepted
    workers = {
        role: pool
        if role == "prefill" or pool.tuning.max_batch_size is None
        else pool.model_copy(
            update={"tuning": pool.tuning.model_copy(update={"max_batch_size": pool.tuning.max_batch_size * times})}
        )
        for role, pool in accepted.recipe.workers.items()
    }
    recipe = accepted.recipe.model_copy(update={"workers": workers})
    try:
        plan = make_plan(accepted.plan.stack, recipe, placeholders=True, base=foundation)
    except RecipeError:
        return None
    return Accepted(layout=accepted.layout, recipe=recipe, plan=plan)


def contexts(base: Recipe, question: Question) -> list[int]:
    """Context lengths to try, longest first: the recipe's own at most, the question's at least."""
    least = math.ceil((question.isl + question.osl) / _ROUND) * _ROUND
    wanted = _LADDER[0] if question.shared_prefixes else least  # a trace's mean says little of its longest prompts
    most = max(base.engine_tuning.context_length or least, wanted)
    return list(dict.fromkeys([most, *(one for one in _LADDER if least < one < most), least]))


def _too_little(question: Question, layout: Layout, plan: Plan) -> str | None:
    """The plan's own arithmetic of the KV cache against what the batch needs; the tool counts memory differently.

    Requests are at different points of their answers, so half an answer each is what they hold on average.
    """
    for worker in plan.workers:
        pool = layout.pools[worker.role]
        tokens = question.isl + (0 if worker.role == "prefill" else question.osl // 2)
        need = pool.batch * pool.shape.dp * tokens
        if need > worker.kv_cache_tokens:
            return (
                f"{worker.role}: {pool.batch * pool.shape.dp} requests of {tokens:,} tokens need a KV cache of {need:,}, "
                f"{worker.kv_cache_tokens:,} fit"
            )
    return None


def _with_budget(base: Recipe, recipe: Recipe, plan: Plan) -> Recipe:
    """The base's cap where it is enough, else the next ten dollars with some room."""
    cost, cap = plan.cost.usd_per_hour, base.budget.usd_per_hour
    if not cost < cap < cost * 1.25:
        cap = float(math.ceil(cost * 1.05 / 10) * 10)
    return recipe.model_copy(update={"budget": base.budget.model_copy(update={"usd_per_hour": cap})})


_NO_CAP: Final = 100_000.0


def tuned(base: Recipe, question: Question, layout: Layout, context: int, fraction: float) -> Recipe:
    """`base` with another layout. What the search does not know (scheduling, storage, access) stays as it is."""
    common = base.engine_tuning
    trace = question.shared_prefixes
    update: dict[str, object] = {"context_length": context, "gpu_memory_fraction": fraction, "max_batch_size": None}
    if trace:
        update["prefix_caching"] = True
        if base.engine == "trtllm":
            update["chunked_prefill"] = (
                True  # a step as large as the longest prompt would take the memory of the KV cache
            )
    if base.engine == "trtllm":
        step = math.ceil(question.isl / _ROUND) * _ROUND
        update["max_batch_tokens"] = max(
            common.max_batch_tokens or 0, step if trace or common.chunked_prefill else context
        )
    if layout.mode == "disagg" and base.engine == "trtllm":
        update["async_scheduling"] = None  # only decode workers of TensorRT-LLM may have it
    common = common.model_copy(update=update)
    step_tokens = common.max_batch_tokens or 0
    workers: dict[Role, WorkerPool] = {}
    shared = max(pool.shared_memory_gib for pool in base.workers.values())
    for role, pool in layout.pools.items():
        own: dict[str, object] = {"max_batch_size": max(pool.batch, 1)}
        if role == "decode":
            own["prefix_caching"] = False
            if base.engine == "trtllm":
                own["async_scheduling"] = True
        if role == "prefill" and pool.batch > 1:
            own["max_batch_tokens"] = max(math.ceil(pool.batch * question.isl / _ROUND) * _ROUND, step_tokens)
        workers[role] = WorkerPool(
            replicas=pool.replicas,
            tensor_parallel=cast("Literal[1, 2, 4, 8]", pool.shape.tp),
            data_parallel=cast("Literal[1, 2, 4, 8]", pool.shape.dp),
            expert_parallel=cast("Literal[1, 2, 4, 8]", pool.shape.ep),
            memory_gib=max(_MEMORY_GIB.get(pool.shape.gpus, 1200), shared + _BESIDE_SHARED_GIB),
            shared_memory_gib=shared,
            tuning=Tuning.model_validate(own),
        )
    router = Router(mode="kv") if trace else base.router
    return base.model_copy(
        update={
            "mode": layout.mode,
            "workers": workers,
            "engine_tuning": common,
            "router": router,
            "budget": base.budget.model_copy(update={"usd_per_hour": _NO_CAP}),
        }
    )
