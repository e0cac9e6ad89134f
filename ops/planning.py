"""`ops plan`: from a stack file to a plan on the screen, as JSON, or as files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from ops import stacks
from ops.exits import BAD_INPUT, CommandError
from ops.plan_data import as_data, commands, problems_as_data, warnings
from recipe.config import Base, Recipe, parse_any
from recipe.errors import RecipeError
from recipe.plan import BasePlan, Plan
from recipe.planner import make_plan
from recipe.stack_file import read_base

Emit = Callable[[Any], None]


@dataclass(frozen=True)
class Planned:
    """A stack's plan with placeholders where the user's own values are unset, and the commands that set them."""

    recipe: Recipe | Base
    plan: Plan | BasePlan
    fixes: dict[str, str]

    @property
    def model(self) -> Plan:
        """The plan of a stack that serves a model. Raises CommandError for a base."""
        if isinstance(self.plan, BasePlan):
            stack = self.plan.stack
            on_it = f"name a stack on it: MODEL_STACK --set foundation.kind=base --set foundation.stack={stack}"
            raise CommandError(f"{stack} is a base, which serves no model", on_it, BAD_INPUT)
        return self.plan


def planned(stack: str, settings: list[str]) -> Planned:
    """Load, change, parse and plan `stack`. Raises CommandError or RecipeError."""
    found = stacks.load(stack)
    recipe = parse_any(stacks.with_settings(found.raw, settings), f"stacks/{found.path.name}")
    base = read_base(recipe, found.path.parent)
    plan = make_plan(stack, recipe, placeholders=True, base=base)
    return Planned(recipe, plan, commands(plan, recipe, base))


def plan_one(
    stack: str, settings: list[str], *, as_json: bool, manifests: Path | None, emit: Emit, cold_start: bool = False
) -> None:
    """One stack, in full."""
    try:
        found = planned(stack, settings)
    except (RecipeError, CommandError) as error:
        if not as_json:
            raise
        emit({"stack": stack} | _as_data(error))
        raise typer.Exit(BAD_INPUT) from None
    written = _write(found.plan, manifests)
    today = datetime.now(UTC).date()
    if as_json:
        emit(as_data(found.plan, found.fixes, today))
        return
    from ops.plan_view import render, show

    show(render(found.plan, found.fixes, warnings(found.plan, today), whole_start=cold_start))
    if manifests is not None:
        typer.echo(f"\n{len(written)} files written to {manifests}")


def plan_all(settings: list[str], *, as_json: bool, as_markdown: bool, manifests: Path | None, emit: Emit) -> None:
    """Every stack with a file, on every GPU it fits. A broken one does not hide the others, but decides the exit code."""
    from ops.overview import based, footnotes, markdown, overview, overview_data

    found = overview(settings)
    for row in found.rows:
        if row.variant.own:
            _write(row.plan, manifests / row.plan.stack if manifests else None)
    if as_json:
        today = datetime.now(UTC).date()
        emit(overview_data(found, today) + [{"stack": stack} | _as_data(wrong) for stack, wrong in found.bad.items()])
    elif as_markdown:
        typer.echo(markdown(found), nl=False)
    else:
        from ops.plan_view import overview_view, show

        show(overview_view(found.rows, [*footnotes(found), *map(based, found.bases)], found.misfits))
    if not as_json:
        for wrong in found.bad.values():
            typer.echo(str(wrong), err=True)
    if found.bad:
        raise typer.Exit(BAD_INPUT)


def cold_starts(*, as_json: bool, as_markdown: bool, emit: Emit) -> None:
    """Every stack with GPU nodes as its file is: its cold starts, ours beside upstream's order."""
    from ops import cold_start
    from recipe.cold_start import compare

    plans = cold_start.plans_of_files()
    if as_json:
        emit(
            [
                {"stack": plan.stack, "starts": [cold_start.compared_data(one) for one in compare(plan)]}
                for plan in plans
            ]
        )
    elif as_markdown:
        typer.echo(cold_start.markdown(plans), nl=False)
    else:
        from ops.plan_view import cold_starts_view, show

        show(cold_starts_view(plans))


def _as_data(error: RecipeError | CommandError) -> dict[str, Any]:
    if isinstance(error, RecipeError):
        return problems_as_data(error)
    return {"problems": [{"path": "stack", "value": None, "reason": error.message, "fix": error.next_step}]}


def _write(plan: Plan | BasePlan, folder: Path | None) -> tuple[Path, ...]:
    if folder is None:
        return ()
    from ops.manifests import write

    return write(plan, folder)
