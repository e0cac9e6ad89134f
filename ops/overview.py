"""`ops plan --all`: what every stack would be and cost on every GPU it fits, as rows, as JSON and as docs/stacks.md."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from ops import stacks
from ops.exits import CommandError
from ops.plan_data import as_data, commands, problems_as_data
from ops.stacks import StackFile
from ops.variants import Variant, of_file
from recipe import catalogue
from recipe.catalogue import DURATIONS, DURATIONS_DATE, PRICE_REGION
from recipe.config import Base, Recipe, parse_any
from recipe.cost import stands_in
from recipe.errors import RecipeError
from recipe.plan import BasePlan, Plan
from recipe.planner import make_plan
from recipe.timeline import timeline
from recipe.tuning import shapes_of

REMADE_BY: Final = "python -m ops plan --all --markdown > docs/stacks.md"


@dataclass(frozen=True)
class Row:
    """A stack on a GPU it fits."""

    variant: Variant
    recipe: Recipe
    plan: Plan

    @property
    def nodes(self) -> str:
        pool = self.plan.gpu_pool
        return f"{pool.count} × {pool.instance_type}" if pool else "none: paused" if self.plan.paused else "none"

    @property
    def serving(self) -> str:
        """`6 prefill TP2 + 2 decode TP2`."""
        shapes = shapes_of(self.plan.recipe)
        return " + ".join(f"{pool.replicas} {pool.role} {shapes[pool.role]}" for pool in self.plan.workers)

    @property
    def minutes(self) -> str:
        """Expected minutes to the first completion; a dash while paused."""
        found = timeline(self.plan).minutes_to_first_token
        return "–" if found is None else f"{found:.0f}"

    @property
    def usd_per_hour(self) -> str:
        """With a ~ where another type's price stands for that of the GPU nodes, which nobody knows."""
        pool = self.plan.gpu_pool
        guessed = pool is not None and stands_in(self.plan.recipe, catalogue.gpu_instance(pool.instance_type))
        return f"{'~' if guessed else ''}{self.plan.cost.usd_per_hour:,.2f}"

    @property
    def over_cap(self) -> bool:
        """It costs more than the file's budget allows: `up` is refused until that is raised."""
        cap = self.variant.raw["budget"]["usd_per_hour"]
        return not self.variant.own and self.plan.cost.usd_per_hour > float(cap)

    @property
    def gpu(self) -> str:
        if self.variant.gpu is None:
            return "none"
        return f"{self.variant.gpu}{' *' if self.variant.own else ' †' if self.over_cap else ''}"


@dataclass(frozen=True)
class Overview:
    """`bases`: foundations of model stacks. `bad`: stacks whose file is refused as it is. `misfits`: GPUs that a good stack does not fit."""

    rows: tuple[Row, ...]
    bases: tuple[BasePlan, ...]
    bad: dict[str, RecipeError | CommandError]
    misfits: tuple[tuple[Variant, RecipeError], ...]


def overview(settings: list[str]) -> Overview:
    """Every stack with a file, on every GPU of the catalogue. A broken file does not hide the others."""
    rows: list[Row] = []
    bases: list[BasePlan] = []
    bad: dict[str, RecipeError | CommandError] = {}
    misfits: list[tuple[Variant, RecipeError]] = []
    for stack in stacks.names():
        try:
            file = stacks.load(stack)
            if stacks.is_base(file.raw):
                bases.append(_base(file))
                continue
            candidates = of_file(file, settings)
            # As the file is, first: whoever breaks it is told about that and not about GPUs it does not name.
            own = next(_row(one) for one in candidates if one.own)
        except (RecipeError, CommandError) as error:
            bad[stack] = error
            continue
        for one in candidates:
            try:
                rows.append(own if one.own else _row(one))
            except RecipeError as error:
                misfits.append((one, error))
    return Overview(tuple(rows), tuple(bases), bad, tuple(misfits))


def _base(file: StackFile) -> BasePlan:
    """As the file is: `--set` speaks of models."""
    recipe = parse_any(file.raw, f"stacks/{file.path.name}")
    assert isinstance(recipe, Base)
    return make_plan(file.stack, recipe, placeholders=True)


def _row(variant: Variant) -> Row:
    recipe = variant.recipe(cap=variant.own)
    base = variant.base(recipe)
    return Row(variant, recipe, make_plan(variant.stack, recipe, placeholders=True, base=base))


def overview_data(found: Overview, today: date) -> list[dict[str, Any]]:
    """A plan for each row, then what is refused."""
    rows = [
        as_data(row.plan, commands(row.plan, row.recipe, row.variant.base(row.recipe)), today)
        | {"own_gpu": row.variant.own, "over_cap": row.over_cap}
        for row in found.rows
    ]
    misfits = [
        {"stack": one.stack, "gpu": one.gpu, "does_not_fit": problems_as_data(error)["problems"]}
        for one, error in found.misfits
    ]
    bases = [as_data(plan, commands(plan, plan.recipe), today) for plan in found.bases]
    return [*rows, *misfits, *bases]


def footnotes(found: Overview) -> list[str]:
    """What a reader has to know of the figures."""
    assumed = sum(row.assumption for row in DURATIONS.values())
    minutes = (
        "minutes from `pulumi up` in an empty account to the first completion: computed, not measured, from "
        f"{len(DURATIONS)} durations of {DURATIONS_DATE}, {assumed} of them assumptions (recipe/catalogue/durations.py)"
    )
    notes = [
        "* the GPU the stack file names; another one is `hardware.gpu` in the file, or `--set hardware.gpu=…`",
        minutes,
        f"$ an hour while the GPU nodes run, at list prices of {PRICE_REGION} (`python -m ops plan STACK` shows each with source and date; ~: another type's stands for one that nobody knows)",
    ]
    if any(row.over_cap for row in found.rows):
        notes.insert(1, "† costs more than the file's budget.usd_per_hour: raise that as well")
    return notes


def based(plan: BasePlan) -> str:
    """A base in one sentence."""
    nodes = f"{plan.cpu_pool.count} × {plan.cpu_pool.instance_type}"
    return (
        f"`{plan.stack}` is no model but a base that model stacks can share: {nodes}, ${plan.cost.usd_per_hour:.2f} an hour beside them, "
        "who then save their own control plane, NAT gateway and address, and the minutes to make them"
    )


def markdown(found: Overview) -> str:
    """docs/stacks.md, whole."""
    head = (
        "stack",
        "model",
        "engine",
        "workers",
        "GPU",
        "GPU nodes",
        "GPUs",
        "$/h",
        "minutes to first token (computed)",
    )
    lines = [
        "# Stacks",
        "",
        f"<!-- Written by `{REMADE_BY}`; do not edit. -->",
        "",
        "Every stack on every GPU it fits, from the plan alone. Nothing here was measured.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * 6}{'---:|' * 3}",
    ]
    for row in found.rows:
        plan = row.plan
        cells = (
            f"[`{plan.stack}`](../stacks/Pulumi.{plan.stack}.yaml)", plan.model.id, f"{plan.recipe.engine} {plan.recipe.mode}",
            row.serving, _literal(row.gpu), row.nodes, str(plan.gpus), row.usd_per_hour, row.minutes,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {_literal(note)}" for note in footnotes(found))]
    lines += [f"- {_literal(based(plan))}" for plan in found.bases]
    if found.misfits:
        lines += ["", "## What does not fit", ""]
        lines += [f"- `{one.stack}` on {one.gpu}: {error.problems[0].reason}" for one, error in found.misfits]
    return "\n".join(lines) + "\n"


def _literal(text: str) -> str:
    return text.replace("*", "\\*")
