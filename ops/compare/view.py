"""The comparison for a terminal, and as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ops.bench.results import Run
from ops.compare.model import BY_KEY, METRICS, Comparison, Figure, Side, pairs_data, percent, rounded, side_of
from ops.plan_view import new_table

if TYPE_CHECKING:
    from ops.compare.replayed import Replayed


def render(found: Comparison) -> Iterator[RenderableType]:
    """Everything, in order."""
    if found.simulated:
        yield Text(f"Simulated: no GPU was measured. Times come from {found.simulated}.", style="yellow")
    for load in found.loads:
        yield Text(f"\n{'The trace at its own times' if load == 'trace' else f'{load} in flight'}", style="bold")
        yield table(found.sides[load])
    if found.replay is not None:
        yield from _replay(found.replay)
    yield Text("\nVerdict", style="bold")
    for sentence in found.verdict:
        yield Text(f"- {sentence}")
    for warning in found.warnings:
        yield Text(f"! {warning}", style="yellow")


def _replay(found: Replayed) -> Iterator[RenderableType]:
    for load, row in found.sides.items():
        yield Text(f"\nOffline replay (predicted), {found.traffic[load]}", style="bold")
        yield table(row, first="predicted")
    if found.agreements:
        yield Text("\nLive against offline", style="bold")
        made = new_table("switch", "load", "figure", "live", "offline", "signs", right=("live", "offline"))
        for cells in agreement_rows(found):
            made.add_row(*cells)
        yield made
    for sentence in found.sentences():
        yield Text(f"- {sentence}")
    for note in found.notes:
        yield Text(f"  not in the prediction: {note}", style="dim")


def agreement_rows(found: Replayed) -> list[tuple[str, ...]]:
    """Switch, load, figure, live change, offline change, word."""
    return [
        (
            one.live.factor,
            one.live.load,
            BY_KEY[one.live.metric].title,
            percent(one.live),
            percent(one.offline),
            one.word,
        )
        for one in found.agreements
    ]


def one_run(run: Run) -> Iterator[RenderableType]:
    """A single run's figures, as `ops bench` ends with."""
    if run.simulated:
        yield Text(f"Simulated: no GPU was measured. Times come from {run.simulated}.", style="yellow")
    rows = [side_of(run, load) for load in run.loads]
    yield table(rows, first="load", name=lambda side: side.load)
    for problem in run.problems:
        yield Text(f"! {problem}", style="yellow")


@dataclass(frozen=True)
class Figures:
    """A row per side where that fits; in a narrow terminal a row per figure, and as many blocks of sides as it takes. No figure is ever cut."""

    sides: tuple[Side, ...]
    first: str
    name: Callable[[Side], str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = _wide(self.sides, self.first, self.name)
        if Measurement.get(console, options.update(max_width=_ANY_WIDTH), wide).maximum <= options.max_width:
            yield wide
            return
        for number, side in enumerate(self.sides, 1):
            yield Text(f"{number}: {self.name(side)}")
        rows = [
            (
                f"{metric.title}, {metric.unit}".replace("tokens, $", "tokens"),
                [_cell(side.figures.get(metric.key), metric.digits) for side in self.sides],
            )
            for metric in METRICS
        ]
        rows.append(("repeats", [str(side.repeats) for side in self.sides]))
        widths = [max(len(cells[index]) for _, cells in rows) for index in range(len(self.sides))]
        block = max(1, (options.max_width - _TITLE_WIDTH) // (max(widths) + 2))
        for start in range(0, len(widths), block):
            made = new_table()
            made.add_column(self.first, overflow="fold")
            for number, width in enumerate(widths[start : start + block], start + 1):
                made.add_column(str(number), justify="right", no_wrap=True, min_width=width)
            for title, cells in rows:
                made.add_row(title, *cells[start : start + block])
            yield made


_ANY_WIDTH: Final = 1000
_TITLE_WIDTH: Final = 34
"""Of a figure's title and the lines beside it."""


def table(sides: Any, first: str = "run", name: Any = lambda side: side.run.name) -> Figures:
    """Figures by side; ± is half the range over the repeats."""
    return Figures(tuple(sides), first, name)


def _wide(sides: Sequence[Side], first: str, name: Callable[[Side], str]) -> Table:
    figures = [f"{metric.title}\n{metric.unit}" for metric in METRICS]
    made = new_table(first, *figures, "repeats", right=(*figures, "repeats"))
    for side in sides:
        cells = (_cell(side.figures.get(metric.key), metric.digits) for metric in METRICS)
        made.add_row(name(side), *cells, str(side.repeats))
    return made


def _cell(figure: Figure | None, digits: int) -> str:
    if figure is None:
        return "-"
    spread = f" ±{figure.spread / 2:,.{digits}f}" if len(figure.values) > 1 else ""
    return f"{figure.mean:,.{digits}f}{spread}"


def as_data(found: Comparison) -> dict[str, Any]:
    """What `--json` prints. Keys are a contract; new ones may come, none goes."""
    return {
        "simulated": found.simulated,
        "goodput_limits": found.runs[0].about["goodput"],
        "runs": [_run(run) for run in found.runs],
        "loads": {load: [_side_data(side) for side in sides] for load, sides in found.sides.items()},
        "effects": [
            {
                "factor": one.factor,
                "load": one.load,
                "metric": one.metric,
                "from": one.from_,
                "to": one.to,
                "change": round(one.change, 4),
                "share": rounded(one.share),
                "noise": one.noise if one.noise is None else round(one.noise, 4),
                "decided": one.decided,
                "better": one.better(one.change),
                "depends": one.depends,
                "pairs": pairs_data(one),
            }
            for one in found.effects
        ],
        "verdict": list(found.verdict),
        "missing_corners": [{"mode": mode, "router": router} for mode, router in found.missing_corners],
        "warnings": list(found.warnings),
        "replay": _replay_data(found.replay),
    }


def _replay_data(found: Replayed | None) -> dict[str, Any] | None:
    if found is None:
        return None
    from ops.compare.replayed import as_data as data

    return data(found, _side_data)


def _run(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "folder": str(run.folder),
        "stack": run.about["stack"],
        "profile": run.about["profile"],
        "mode": run.stack["mode"],
        "router": run.stack["router"],
        "gpus": run.gpus,
        "gpu": run.stack["gpu"],
        "usd_per_hour": run.usd_per_hour,
        "complete": run.complete,
    }


def run_as_data(run: Run) -> dict[str, Any]:
    """One run, as `ops bench --json` prints it."""
    return _run(run) | {
        "simulated": run.simulated,
        "status": run.status,
        "loads": {load: _side_data(side_of(run, load)) for load in run.loads},
    }


def _side_data(side: Side) -> dict[str, Any]:
    return {
        "run": side.run.name,
        "repeats": side.repeats,
        "errors": side.errors,
        "figures": {
            key: {"mean": round(one.mean, 4), "values": [round(value, 4) for value in one.values]}
            for key, one in side.figures.items()
        },
    }
