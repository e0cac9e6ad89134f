"""Every stack on every GPU it fits: one enumeration for `ops plan --all`, docs/stacks.md and the tests.

A stack joins by having a file, a GPU by being in the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ops import stacks
from ops.stacks import StackFile
from recipe.catalogue import GPU_INSTANCES
from recipe.config import Base, Recipe, parse
from recipe.errors import RecipeError
from recipe.plan import Plan
from recipe.planner import make_plan
from recipe.predictions import tuned_gpus
from recipe.stack_file import read_base

GPUS: Final = tuple(dict.fromkeys(instance.gpu for instance in GPU_INSTANCES.values()))
_NO_CAP: Final = "budget.usd_per_hour=100000"
"""The file's cap is meant for the file's own GPU."""


@dataclass(frozen=True)
class Variant:
    """A stack file with a GPU."""

    stack: str
    gpu: str | None
    """None: as the file has it, which names no GPU (engine mocker)."""
    own: bool
    """The file as it is: its own GPU and instance type."""
    source: str = field(repr=False)
    raw: Any = field(repr=False, compare=False)
    """The recipe in the file as plain data, `--set` included."""

    def __str__(self) -> str:
        return f"{self.stack}-{self.gpu or 'cpu'}"

    def settings(self) -> list[str]:
        """What makes the file this variant."""
        # An instance type set in the file belongs to the file's GPU.
        return [] if self.own else [f"hardware.gpu={self.gpu}", "hardware.instance_type="]

    def changed(self, *settings: str, cap: bool = False) -> Any:
        """The recipe as plain data; `cap`: with the file's budget. Raises RecipeError."""
        lifted = [] if cap else [_NO_CAP]
        return stacks.with_settings(self.raw, [*self.settings(), *lifted, *settings])

    def recipe(self, *settings: str, cap: bool = False) -> Recipe:
        """The recipe of `changed`. Raises RecipeError."""
        return parse(self.changed(*settings, cap=cap), self.source)

    def plan(self, name: str | None = None, *settings: str) -> Plan:
        """The plan whatever it costs, for a stack called `name`. Raises RecipeError."""
        recipe = self.recipe(*settings)
        return make_plan(name or self.stack, recipe, placeholders=True, base=self.base(recipe))

    def base(self, recipe: Recipe) -> Base | None:
        """What the file of the base says that `recipe` is on. Raises RecipeError."""
        return read_base(recipe, stacks.FOLDER)


def of_file(found: StackFile, settings: Sequence[str] = ()) -> tuple[Variant, ...]:
    """The stack of that file with its own GPU and with every other one, whether they fit or not.

    Raises RecipeError (a setting that cannot be placed).
    """
    raw, source = stacks.with_settings(found.raw, list(settings)), f"stacks/{found.path.name}"
    hardware = raw.get("hardware") if isinstance(raw, dict) else None
    own = hardware.get("gpu") if isinstance(hardware, dict) else None
    gpus: Iterable[str | None] = GPUS if own in GPUS else (None,)
    # A layout that was searched for one GPU says nothing about another.
    if own in (only := tuned_gpus().get(found.stack, ())):
        gpus = only
    return tuple(Variant(found.stack, gpu, gpu == own or gpu is None, source, raw) for gpu in gpus)


def variants() -> tuple[Variant, ...]:
    """Those the planner accepts. A stack that fits no GPU at all is a mistake, and an error here."""
    found: list[Variant] = []
    for stack in stacks.names():
        file = stacks.load(stack)
        if stacks.is_base(file.raw):
            continue
        fits = [one for one in of_file(file) if _fits(one)]
        assert fits, f"{stack} fits none of {', '.join(GPUS)}"
        found += fits
    return tuple(found)


def by_hand() -> tuple[Variant, ...]:
    """Those of stacks that nobody searched for. What a search writes differs in numbers only, so dear tests try these, and the tuned ones
    once where all is checked in one go (tests/cluster/test_stacks.py)."""
    return tuple(one for one in variants() if one.stack not in tuned_gpus())


def each_stack() -> tuple[Variant, ...]:
    """One variant of every stack of `by_hand`: the first GPU that fits."""
    first: dict[str, Variant] = {}
    for one in by_hand():
        first.setdefault(one.stack, one)
    return tuple(first.values())


def _fits(variant: Variant) -> bool:
    try:
        variant.plan()
    except RecipeError:
        return False
    return True
