"""What was predicted of the layouts of the runs, beside what was measured: recipe and tuned, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, Final

from pydantic import ValidationError
from rich.console import RenderableType
from rich.text import Text

from ops.bench.results import Run
from recipe.catalogue import GPU_INSTANCES
from recipe.config import Recipe
from recipe.predictions import Shown, gaps, of_recipe, read

_TITLE: Final = "Predicted, not measured: under full load within the limits"


def predictions(runs: Sequence[Run]) -> dict[str, tuple[Shown, ...]]:
    """By the name of the run; runs whose layout was never judged are not here."""
    return {run.name: found for run in runs if (found := _of(run))}


def _of(run: Run) -> tuple[Shown, ...]:
    recipe = _recipe(run)
    instance = GPU_INSTANCES.get(run.stack["instance_type"])
    if recipe is None or instance is None:
        return ()
    nodes = -(-run.gpus // instance.gpus)
    return of_recipe(run.about["stack"], recipe, nodes * instance.gpus, run.usd_per_hour, read())


def _recipe(run: Run) -> Recipe | None:
    """As the results have it, without what is nobody's business. None: results of another version of this program."""
    try:
        return Recipe.model_validate({"budget": {"usd_per_hour": 1, "ttl_hours": 1}} | run.stack.get("recipe", {}))
    except ValidationError:
        return None


def _found(runs: Sequence[Run]) -> tuple[list[Shown], list[str]]:
    """Every line once, and what the predictions do not know."""
    rows = list(dict.fromkeys(row for found in predictions(runs).values() for row in found))
    weak = [gap for run in runs if (recipe := _recipe(run)) for gap in gaps(recipe.model, recipe.engine)]
    return rows, list(dict.fromkeys(weak))


def section(runs: Sequence[Run]) -> Iterator[RenderableType]:
    """The table for a terminal; nothing where nothing is known."""
    from ops.plan_view import predicted

    rows, weak = _found(runs)
    if rows:
        yield Text(f"\n{_TITLE}", style="bold")
        yield from predicted(rows, weak)


def html(runs: Sequence[Run]) -> str:
    """The same for the page."""
    from ops.plan_view import PREDICTED_HEAD, predicted_cells

    rows, weak = _found(runs)
    if not rows:
        return ""
    head = "".join(f"<th>{escape(title)}</th>" for title in PREDICTED_HEAD)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in predicted_cells(row))}</tr>" for row in rows)
    sources = "; ".join(dict.fromkeys(row.source for row in rows))
    return (
        f'<h2>{_TITLE}</h2><p class="simulated"><b>Predicted</b> by {escape(sources)}. No GPU was measured.</p>'
        f"<table><tr>{head}</tr>{lines}</table>" + "".join(f"<p><small>{escape(gap)}</small></p>" for gap in weak)
    )


def as_data(runs: Sequence[Run]) -> dict[str, Any]:
    """For --json, by run."""
    return {name: [row.model_dump(mode="json") for row in found] for name, found in predictions(runs).items()}
