"""The table of predictions, `predictions.json` beside this file: written by `python -m ops tune`, read by plan, diff, compare and the docs.

A row is one question (model, GPU, traffic, limits) with the layouts that were judged under it. A plan finds its own row by its layout, not by
its name, so a stack whose workers somebody changes loses its prediction instead of keeping a wrong one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from recipe.catalogue import DYNAMO_DEFAULT, gpu_instance, versions
from recipe.config import Frozen, Recipe
from recipe.plan import Plan
from recipe.tuning import Layout, Question, Shape

FILE: Final = Path(__file__).parent / "predictions.json"


class Judged(Frozen):
    """A layout with its prediction, and whose it is: a stack's name."""

    stack: str
    tuned: bool
    layout: Layout


class Replayed(Frozen):
    """Offline replay of the trace with the router in the loop: what the search leaves out. ms; predicted as well."""

    tool: str
    ttft_ms: float
    ttft_p99_ms: float
    itl_ms: float | None
    goodput_share: float | None
    prefix_reuse: float
    tokens_per_s_gpu: float

    @classmethod
    def of(cls, found: Any) -> Replayed:
        """Of a `rehearsal.serving.replay.Replay`, which this room may not import."""
        return cls(**{name: getattr(found, name) for name in cls.model_fields})


class Prediction(Frozen):
    """One question and what came of it."""

    gpu: str
    traffic: str
    """fixed or trace in the shipped table; the user's own words otherwise."""
    question: Question
    judged: tuple[Judged, ...]
    """The shipped layouts of the model, then the tuned one. A layout that cannot keep the limits is not here."""
    out_of_limits: tuple[str, ...] = ()
    """Stacks of the model whose layout keeps the limits at no batch size."""
    optimum: dict[str, float]
    """Tokens/s/GPU of the tool's own search, by mode."""
    optimum_layout: dict[str, str]
    tool: str
    database: str
    """Engine and version that the performance database was measured with."""
    refused: dict[str, str] = Field(default_factory=dict)
    """Better layouts that the Plan does not take, and why."""
    replays: dict[str, Replayed] = Field(default_factory=dict)
    """By layout, where a trace was given."""
    on: date
    machine: str
    seconds: float
    memory_mib: int

    @property
    def tuned(self) -> Judged | None:
        """The layout that was found."""
        return next((one for one in self.judged if one.tuned), None)

    @property
    def recipe(self) -> Judged | None:
        """The best of the shipped layouts."""
        own = [one for one in self.judged if not one.tuned]
        return max(own, key=lambda one: one.layout.tokens_per_s_gpu, default=None)

    @property
    def best(self) -> float:
        """Of the free search, either mode."""
        return max(self.optimum.values(), default=0.0)

    @property
    def key(self) -> str:
        """One row of this each."""
        return f"{self.question.model} {self.gpu} {self.question.gpus} {self.question.isl}/{self.question.osl} {self.question.ttft_ms:g}/{self.question.itl_ms:g}"

    def replay_of(self, layout: str) -> tuple[str, Replayed] | None:
        """The layout's replay with the batch it does best with, as it was chosen: in whole per cent, the smallest of equals."""
        mine = [(name, one) for name, one in self.replays.items() if name.partition(" with ")[0] == layout]
        return max(mine, key=lambda pair: round(pair[1].goodput_share or 0.0, 2), default=None)

    def replayed(self) -> Iterator[tuple[str, str, Replayed]]:
        """Whose, layout and replay of what matters: the shipped layouts, the estimate's best where it was not taken, and what was."""
        if self.tuned is None or not self.replays:
            return
        # What was replayed first is what the estimate is for.
        whose = {next(iter(self.replays)): "the estimate's best"}
        whose |= {str(one.layout): "recipe" for one in self.judged if not one.tuned}
        for layout, who in (whose | {str(self.tuned.layout): "tuned"}).items():
            if found := self.replay_of(layout):
                yield who, *found

    def gap(self) -> str | None:
        """What to say where the database is of another engine version than ours."""
        ours = versions(DYNAMO_DEFAULT).engines[self.question.backend].version
        if ours == self.database.partition(" ")[2]:
            return None
        return f"the database knows {self.database}, Dynamo {DYNAMO_DEFAULT} runs {ours}"


KNOWN_GAPS: Final = (
    "predicted, nothing measured: aiconfigurator's estimates of a saturated cluster, without prefix reuse and KV routing",
    "live mock engines and offline replay disagree on whether agg or disagg has the lower TTFT: no verdict between the two from this table",
)


def read() -> tuple[Prediction, ...]:
    """The table; empty where there is none."""
    path = FILE
    return _read(path, path.stat().st_mtime_ns) if path.exists() else ()


@cache
def _read(path: Path, _changed: int) -> tuple[Prediction, ...]:
    return tuple(Prediction.model_validate(row) for row in json.loads(path.read_text(encoding="utf-8")))


def write(rows: tuple[Prediction, ...]) -> None:
    """Sorted, one value per line: a diff shows what changed."""
    data: list[dict[str, Any]] = [
        row.model_dump(mode="json") for row in sorted(rows, key=lambda row: (row.question.model, row.traffic, row.gpu))
    ]
    FILE.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def replaced(rows: tuple[Prediction, ...], new: Prediction) -> tuple[Prediction, ...]:
    """`rows` with `new` in the place of the same question."""
    return (*(row for row in rows if row.key != new.key), new)


def tuned_gpus(rows: tuple[Prediction, ...] | None = None) -> dict[str, tuple[str, ...]]:
    """Each tuned stack and the GPUs it was found for: on others it is only a layout like any other."""
    found: dict[str, tuple[str, ...]] = {}
    for row in read() if rows is None else rows:
        if row.tuned:
            found[row.tuned.stack] = (*found.get(row.tuned.stack, ()), row.gpu)
    return found


# ── a plan's own predictions ─────────────────────────────────────────────────────────────────────────────────────────


class Shown(Frozen):
    """One line of the table in the plan."""

    traffic: str
    stack: str
    tuned: bool
    own: bool
    """This plan's own layout."""
    layout: str
    ttft_ms: float
    itl_ms: float
    tokens_per_s_gpu: float
    goodput_per_s: float
    """Requests a second within the limits: all of them, at the load that the limits allow."""
    usd_per_million_tokens: float | None
    """Output tokens, by the plan's $/h; None where other nodes would be paid."""
    source: str


def of_plan(plan: Plan, rows: tuple[Prediction, ...] | None = None) -> tuple[Shown, ...]:
    """What is predicted of this plan's layout, and of the layouts beside it. Empty where its layout was never judged."""
    if plan.gpu_pool is None:
        return ()
    pool = plan.gpu_pool
    paid = pool.count * gpu_instance(pool.instance_type).gpus
    return of_recipe(plan.stack, plan.recipe, paid, plan.cost.usd_per_hour, read() if rows is None else rows)


def of_recipe(
    stack: str, recipe: Recipe, gpus_paid: int, usd_per_hour: float, rows: tuple[Prediction, ...]
) -> tuple[Shown, ...]:
    """The same of a recipe on nodes with so many GPUs."""
    found: list[Shown] = []
    # What the stack was searched for comes first.
    for row in sorted(rows, key=lambda row: row.tuned is None or row.tuned.stack != stack):
        question = row.question
        if (question.model, question.backend, row.gpu) != (recipe.model, recipe.engine, recipe.hardware.gpu):
            continue
        same = [one for one in row.judged if is_of(one.layout, recipe) and reaches(recipe, one.layout)]
        if not same:
            continue
        own = next((one for one in same if one.stack == stack), same[0])
        best = row.recipe
        usd = usd_per_hour if question.gpus == gpus_paid else None
        beside = [one for one in row.judged if one is own or one.tuned or one is best]
        found += [_shown(row, one, usd, own=one is own) for one in beside]
    return tuple(found)


def _shown(row: Prediction, one: Judged, usd_per_hour: float | None, *, own: bool) -> Shown:
    question, layout = row.question, one.layout
    per_second = layout.tokens_per_s_gpu * question.gpus
    return Shown(
        traffic=f"{question.isl}/{question.osl}, TTFT {question.ttft_ms:g}, ITL {question.itl_ms:g}",
        stack=one.stack,
        tuned=one.tuned,
        own=own,
        layout=str(layout),
        ttft_ms=round(layout.ttft_ms, 1),
        itl_ms=round(layout.itl_ms, 1),
        tokens_per_s_gpu=round(layout.tokens_per_s_gpu, 1),
        goodput_per_s=round(per_second / question.osl, 2),
        usd_per_million_tokens=None if usd_per_hour is None else round(usd_per_hour / (per_second * 3600 / 1e6), 2),
        source=f"aiconfigurator {row.tool}, {row.database}, {row.on}",
    )


def is_of(layout: Layout, recipe: Recipe) -> bool:
    """Whether the recipe's pools are the layout's, or a whole part of it (a recipe may use fewer GPUs than were asked about)."""
    if layout.mode != recipe.mode or set(layout.pools) != set(recipe.workers):
        return False
    times: set[float] = set()
    for role, pool in layout.pools.items():
        own = recipe.workers[role]
        shape = Shape(tp=own.tensor_parallel, dp=own.data_parallel, ep=own.expert_parallel, gpus=own.gpus)
        if shape != pool.shape:
            return False
        times.add(pool.replicas / own.replicas)
    return len(times) == 1 and times.pop() >= 1


def reaches(recipe: Recipe, layout: Layout) -> bool:
    """Whether the recipe's max_batch_size lets as many requests in as the prediction is for."""
    caps = {role: recipe.tuning(role).max_batch_size for role in recipe.workers}
    return all((cap := caps[role]) is None or cap >= pool.batch for role, pool in layout.pools.items())


def gaps(model: str, engine: str) -> tuple[str, ...]:
    """Where predictions of this model and engine are weak: belongs beside whatever `of_plan` and `of_recipe` show."""
    rows = [row for row in read() if (row.question.model, row.question.backend) == (model, engine)]
    said = [gap for row in rows if (gap := row.gap())]
    return (*dict.fromkeys(said), *KNOWN_GAPS)
