"""Every stack there is, on every GPU it fits: stacks join by having a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ops import stacks
from recipe.config import Recipe, parse
from recipe.engines import engine_for
from recipe.errors import RecipeError
from recipe.plan import Plan
from recipe.planner import make_plan

GPUS = ("h100", "h200", "b200")
# What a variant costs is not the question here.
_NO_BUDGET = "budget.usd_per_hour=100000"


@dataclass(frozen=True)
class Variant:
    """A stack file with a GPU, or as it is where its engine needs none."""

    stack: str
    gpu: str | None

    def __str__(self) -> str:
        return f"{self.stack}-{self.gpu or 'cpu'}"

    def recipe(self, *settings: str) -> Recipe:
        found = stacks.load(self.stack)
        on = [f"hardware.gpu={self.gpu}"] if self.gpu else []
        return parse(stacks.with_settings(found.raw, [*on, _NO_BUDGET, *settings]), found.path.name)

    def plan(self, name: str | None = None, *settings: str) -> Plan:
        """The plan, for a stack called `name`."""
        return make_plan(name or self.stack, self.recipe(*settings), placeholders=True)


def needs_gpus(stack: str) -> bool:
    """Whether the stack's engine computes."""
    engine = engine_for(Variant(stack, None).recipe().engine)[0]
    return engine is None or engine.on_gpus


@cache
def variants() -> tuple[Variant, ...]:
    """Those the planner accepts. A stack that fits no GPU at all is a mistake, and an error here."""
    found = []
    for stack in stacks.names():
        fits = []
        for gpu in GPUS if needs_gpus(stack) else (None,):
            try:
                (one := Variant(stack, gpu)).plan()
            except RecipeError:
                continue
            fits.append(one)
        assert fits, f"{stack} is refused on everything there is"
        found += fits
    return tuple(found)


def each_stack() -> tuple[Variant, ...]:
    """One variant of every stack: the first GPU that fits."""
    first: dict[str, Variant] = {}
    for one in variants():
        first.setdefault(one.stack, one)
    return tuple(first.values())
