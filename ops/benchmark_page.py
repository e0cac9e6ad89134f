"""docs/benchmarks.md, put together from sections that are measured apart from one another.

A measured section is a file of docs/benchmarks.d: what was found, with date and machine, as it was written then, so measuring one anew leaves the
others as they are. The campaign's figures are read from docs/chaos.md, which has its own writer. What is computed or predicted comes from plans
and the table of predictions each time the page is written.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, ValidationError

from ops import cold_start, stacks, tuning_view
from ops.exits import FAILED, CommandError
from ops.tuning import newest
from recipe import predictions
from recipe.config import Frozen

PAGE: Final = stacks.ROOT / "docs" / "benchmarks.md"
FOLDER: Final = stacks.ROOT / "docs" / "benchmarks.d"
CHAOS: Final = stacks.ROOT / "docs" / "chaos.md"
ORDER: Final = ("commands", "served", "replays")
"""Of the page; a measured section of another name comes after these, what is computed after all of them."""


class Figure(Frozen):
    """One line of a report. `target` is the most it may be; None where there is none."""

    what: str
    values: Annotated[tuple[float, ...], Field(min_length=1)]
    unit: str
    target: float | None = None
    digits: int = 2
    simulated: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "met" if self.median <= self.target else "**missed**"


class Grid(Frozen):
    """A table of a section, cells as they are shown."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Section(Frozen):
    """What one measurement found."""

    title: str
    measured: str
    """Date, machine, load, how often: a sentence."""
    figures: tuple[Figure, ...] = ()
    grids: tuple[Grid, ...] = ()
    text: tuple[str, ...] = ()
    """Paragraphs below the tables."""

    def markdown(self) -> str:
        parts = [f"## {self.title}", self.measured]
        if self.figures:
            parts.append(_table(("what", "median", "range", "target", "verdict"), [_row(one) for one in self.figures]))
        for grid in self.grids:
            parts += [f"### {grid.title}", _table(grid.head, grid.rows)]
        return "\n\n".join([*parts, *self.text])


def _row(figure: Figure) -> tuple[str, ...]:
    shown = [f"{value:.{figure.digits}f}" for value in (figure.median, min(figure.values), max(figure.values))]
    target = f"≤ {figure.target:g} {figure.unit}" if figure.target is not None else ""
    what = f"{figure.what} (simulated)" if figure.simulated else figure.what
    spread = f"{shown[1]}–{shown[2]}" if len(figure.values) > 1 else "one run"
    return what, f"{shown[0]} {figure.unit}", spread, target, figure.verdict


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def keep(name: str, section: Section, folder: Path = FOLDER) -> None:
    """Write one section. CommandError where the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(section.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{folder} cannot be written: {error.strerror}", "make room there", FAILED) from None


def kept(folder: Path = FOLDER) -> dict[str, Section]:
    """Every section there is, in the page's order. CommandError for one that cannot be read."""
    found = {}
    for path in folder.glob("*.json"):
        try:
            found[path.stem] = Section.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise CommandError(
                f"{path} is no section: {error}", f"measure it again: --only {path.stem}", FAILED
            ) from None
    return {name: found[name] for name in sorted(found, key=lambda one: (_place(one), one))}


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


def campaign(path: Path = CHAOS) -> Section | None:
    """The chaos campaign's table, as its own page has it. None where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("| ")]
    begin = next((number for number, row in enumerate(rows) if row[0] == "what"), None)
    if begin is None:
        return None
    table = []
    for row in rows[begin + 1 :]:
        if row[0] == "scenario":
            break
        table.append(row)
    measured = next((line for line in lines if re.match(r"Seed \d+", line)), "")
    return Section(
        title="Doctor and chaos campaign",
        measured=measured,
        grids=(Grid(title="`make chaos`", head=rows[begin], rows=tuple(table)),),
        text=("All of it, and what went wrong: [chaos.md](chaos.md).",),
    )


def tuned_layouts() -> Section:
    """Tuned layouts beside the recipes', from the table of predictions."""
    rows = tuning_view.in_order(predictions.read())
    databases = ", ".join(sorted({row.database for row in rows}))
    return Section(
        title="Tuned layouts (predicted)",
        measured=f"Predicted by aiconfigurator {rows[0].tool} with its databases of {databases}; searched {newest(rows)}. No GPU was measured.",
        grids=(
            Grid(
                title="Output tokens per second and GPU within the same limits",
                head=tuning_view.HEADER,
                rows=tuple(tuning_view.table_rows(rows)),
            ),
            Grid(title="Replayed", head=tuning_view.REPLAYED, rows=tuple(tuning_view.replay_rows(rows))),
        ),
        text=(
            tuning_view.summary(rows),
            tuning_view.REPLAYED_IS,
            "`make tuning-figures` makes both tables again. What they are and what they do not know: [tuning-figures.md](tuning-figures.md), [tuning.md](tuning.md).",
        ),
    )  # fmt: skip


def cold_starts() -> Section:
    """Cold starts of every stack beside upstream's order, from the plans."""
    plans = cold_start.plans_of_files()
    return Section(
        title="Cold start (computed)",
        measured=f"`{cold_start.REMADE_BY}` prints it as well; [cold-start.md](cold-start.md) explains it.",
        grids=(Grid(title="Ours beside upstream's order", head=cold_start.HEADER, rows=tuple(cold_start.compared_rows(plans))),),
        text=("\n".join(f"- {line}" for line in (*cold_start.SAID, *cold_start.verdicts(plans))),),
    )  # fmt: skip


def page(sections: Sequence[Section]) -> str:
    """The whole page."""
    head = "# Benchmarks\n\n<!-- Written by `make benchmark` from docs/benchmarks.d; do not edit. -->"
    return "\n\n".join([head, *(section.markdown() for section in sections)]) + "\n"


def write(out: Path = PAGE, folder: Path = FOLDER, chaos: Path = CHAOS) -> str:
    """Put the page together and write it. Its text."""
    last = campaign(chaos)
    text = page([*kept(folder).values(), tuned_layouts(), cold_starts(), *((last,) if last else ())])
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(
            f"{out} cannot be written: {error.strerror}", "name another file: --out FILE", FAILED
        ) from None
    return text
