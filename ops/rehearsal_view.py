"""A rehearsal for people: what happens while it runs, and the timeline afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import typer
from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ops.charges import Rates, charges, short, usd, usd_per_hour
from ops.plan_view import console, new_table, show
from ops.spans import GPUS_PAID, Phase, Span, created
from recipe.catalogue import DURATIONS, DURATIONS_DATE
from rehearsal.session import Event

if TYPE_CHECKING:
    from ops.rehearsing import Rehearsal

_NOTABLE_SECONDS: Final = 20.0
"""Shorter operations that cost nothing are counted, not listed."""
_STYLES: Final = {GPUS_PAID: "red", "GPU nodes": "yellow", "graph": "magenta", "ready": "green"}
_BESIDE_BARS: Final = 42
_LONGEST: Final = 160
"""Characters of a message in a progress line; the whole one is in the journal and, when it matters, below."""
_EVENTS: Final = {
    "node-running": "node {name} ({message}) runs",
    "node-terminated": "node {name} ({message}) is gone",
    "graph-pending": "graph {name} waits: {message}",
    "graph-failed": "graph {name} failed: {message}",
    "graph-ready": "graph {name} is ready",
    "node-group-degraded": "node group {name}: {message}",
    "job-failed": "Job {name} failed: {message}",
}
_MARKS: Final = {"create": "+", "update": "~", "delete": "-"}


class Watcher:
    """Shows what happens during one pulumi command, as the pretend cloud writes it into its journal.

    A bar on a terminal, lines anywhere else; both with the virtual minute and what everything costs an hour from then on.
    `since`: virtual seconds at which minutes begin to count.
    """

    def __init__(self, folder: Path, rates: Rates, phase: Phase, total: int, *, since: float = 0.0) -> None:
        self._phase, self._since = phase, since
        self._file, self._rates = folder / "journal.jsonl", rates
        self._screen = console()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}"), TimeElapsedColumn())
        self._bar = Progress(*columns, console=self._screen, transient=True) if self._screen.is_terminal else None
        self._task = self._bar.add_task("", total=total or None) if self._bar else None
        self._seen: list[dict[str, Any]] = []
        self._offset, self._rest = 0, b""
        self._old = len(self._read())
        self._done = 0

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        if error is None:
            self._tell(self._read())

    def __call__(self, event: Event) -> None:
        if event.kind in ("started", "done", "failed"):
            self._tell(self._read())

    def _read(self) -> list[dict[str, Any]]:
        """New whole lines of the journal."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as file:
            file.seek(self._offset)
            *lines, self._rest = (self._rest + file.read()).split(b"\n")
            self._offset = file.tell()
        new = [json.loads(line) for line in lines if line]
        self._seen += new
        return new

    def _tell(self, new: list[dict[str, Any]]) -> None:
        for entry in sorted(new, key=lambda entry: (entry["end"], entry["seq"])):
            self._done += entry["op"] in _MARKS
            found = charges(self._seen, self._rates)
            rate = usd_per_hour(found, entry["end"])
            minute = (entry["end"] - self._since) / 60
            if line := _line(entry, self._rates, self._phase):
                self._say(f"{minute:6.1f} min  {line:<72}  ${rate:>7.2f}/h")
            if self._bar and self._task is not None:
                self._bar.update(self._task, completed=self._done, description=f"{minute:.1f} min, ${rate:.2f}/h")

    def _say(self, line: str) -> None:
        if self._bar:
            self._bar.console.print(Text(line))
        else:
            typer.echo(line)


def _line(entry: Mapping[str, Any], rates: Rates, phase: Phase) -> str | None:
    """A journal line in words; None for what is not worth one."""
    message = entry["message"] if len(entry["message"]) <= _LONGEST else entry["message"][: _LONGEST - 1] + "…"
    if entry["op"] == "event":
        # While everything goes, that a graph has no nodes any more is no news.
        template = _EVENTS.get(entry["type"]) if phase == "up" or entry["type"].startswith("node") else None
        return "* " + template.format(name=entry["name"], message=message) if template else None
    if entry["op"] not in _MARKS:
        return None
    took = entry["end"] - entry["start"]
    what = f"{_MARKS[entry['op']]} {short(entry['type'])} {entry['name']}"
    if entry["outcome"] != "ok":
        return f"! {what}: {entry['outcome']}: {message}"
    if took < _NOTABLE_SECONDS and entry["type"] not in rates.by_type:
        return None
    return f"{what} ({_took(took)})"


def _took(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


# ── afterwards ───────────────────────────────────────────────────────────────────────────────────────────────────────


def report(outcome: Rehearsal) -> None:
    """Everything after the run."""
    show(*_report(outcome))


def _report(outcome: Rehearsal) -> Iterator[RenderableType]:
    plan, spent = outcome.plan, charges(outcome.journal, outcome.rates)
    if outcome.existed:
        yield _title("What existed after up (simulated)")
        yield _existed(outcome.existed)
        rate = usd_per_hour(spent, outcome.up_end)
        planned = f"{plan.gpu_pool.count} × {plan.gpu_pool.instance_type}" if plan.gpu_pool else "none"
        yield Text(f"{outcome.running_gpus()} GPUs run (planned: {planned}), ${rate:.2f} an hour")
    all_spans = outcome.spans()
    phases: tuple[Phase, ...] = ("up", "destroy")
    for phase in phases:
        if mine := [span for span in all_spans if span.phase == phase]:
            yield _title(f"Timeline of {phase}, minutes of the rehearsal's clock (simulated)")
            yield gantt(mine, max(20, min(64, console().width - _BESIDE_BARS)))
    yield _title("Figures (simulated)")
    yield _figures(outcome, usd(spent, 0, outcome.now))
    yield Text()
    assumed = sum(row.assumption for row in DURATIONS.values())
    yield Text(
        f"Simulated throughout: minutes come from {len(DURATIONS)} durations of {DURATIONS_DATE} ({assumed} of them assumptions: recipe/catalogue/durations.py "
        f"has the sources), dollars from the catalogue's prices (`python -m ops plan {plan.stack}` shows dates and sources).",
        style="dim",
    )
    for failure in outcome.failures:
        yield Text(f"\n{failure}", style="red")
    if outcome.failures:
        yield Text(f"Next: {_next_step(outcome)}", style="bold")
    if outcome.left and outcome.destroyed:
        yield _title(f"Left in the pretend cloud: {len(outcome.left)}")
        yield _left(outcome)
    if outcome.kept and outcome.destroyed:
        names = ", ".join(dict.fromkeys(one.id for one in outcome.kept))
        yield Text(f"\nKept on purpose, {len(outcome.kept)} things: the results in {names}")
    if outcome.destroyed:
        yield Text(
            f"\nLeft in the pretend cloud: {len(outcome.left) or 'nothing'} (of {created(outcome.journal) + (outcome.base.created if outcome.base else 0)} created)",
            style="bold",
        )


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _next_step(outcome: Rehearsal) -> str:
    again = f"python -m ops rehearse {outcome.plan.stack}"
    if any("InsufficientInstanceCapacity" in failure for failure in outcome.failures):
        group = f"--cluster-name {outcome.plan.names.cluster} --nodegroup-name {outcome.plan.names.gpu_node_group}"
        return (
            "another access.zone_id, or hardware.capacity of kind odcr or capacity-block. On AWS the group goes on trying and may deliver later, "
            f"billed from then on: `aws eks describe-nodegroup {group}` shows it, `pulumi up` takes it on, `pulumi destroy` takes it away"
        )
    return f"mend what the message names and run it again; `{again} --keep` keeps the session to look into"


def _existed(kinds: Mapping[str, int]) -> Table:
    """Kinds and counts, in three columns."""
    table = Table.grid(padding=(0, 3))
    cells = [f"{count:>3} {kind}" for kind, count in sorted(kinds.items())]
    rows = -(-len(cells) // 3)
    for row in range(rows):
        table.add_row(*cells[row::rows])
    return table


def gantt(items: list[Span], width: int) -> Table:
    """A bar per item; `width` cells for the whole time. Where nothing of an item was in progress, its bar has a gap."""
    first = min(span.start_minutes for span in items)
    length = max(span.end_minutes for span in items) - first or 1.0
    table = new_table("item")
    table.add_column(f"{first:.0f} … {first + length:.0f} min", width=width, no_wrap=True)
    for name in ("from", "to", "busy"):
        table.add_column(name, justify="right")
    for span in items:
        cells = [" "] * width
        for start, end in span.busy:
            begin = min(round((start - first) / length * width), width - 1)
            upto = max(begin + 1, round((end - first) / length * width))
            cells[begin:upto] = "█" * (upto - begin)
        times = (span.start_minutes, span.end_minutes, sum(end - start for start, end in span.busy))
        table.add_row(
            span.item, Text("".join(cells), _STYLES.get(span.item, "cyan")), *(f"{minutes:.1f}" for minutes in times)
        )
    return table


def _figures(outcome: Rehearsal, spent: float) -> Table:
    found = outcome.gpus()
    rows = [("up", f"{outcome.up_end / 60:.1f} min")]
    if found.minutes_to_ready is not None:
        rows.append(
            ("first token", f"minute {found.minutes_to_ready:.1f}: the model is listed and one completion came back")
        )
    if outcome.plan.gpu_pool:
        nodes = f"{found.idle_node_minutes:.1f} node minutes = {found.idle_gpu_minutes:.0f} GPU minutes, ${outcome.usd_idle():.2f}"
        rows.append(
            (
                "GPUs paid for and idle",
                f"{nodes}; before the first token {found.idle_before_ready_node_minutes:.1f} node minutes",
            )
        )
    if found.gone_after_minutes is not None:
        rows.append(("GPUs gone", f"minute {found.gone_after_minutes:.1f} of destroy"))
    if outcome.destroyed:
        rows.append(("destroy", f"{(outcome.now - outcome.up_end) / 60:.1f} min"))
    rows.append(
        (
            "spent, by the hour",
            f"${spent:.2f} for up and destroy, without transfer and EFS I/O (${outcome.plan.cost.usd_once:.2f} per start)",
        )
    )
    if base := outcome.base:
        gone = "" if base.destroy_minutes is None else f", {base.destroy_minutes:.1f} min to destroy"
        cost = f"${base.plan.cost.usd_per_hour:.2f} an hour beside, for all stacks on it"
        rows.append((f"base, {base.plan.stack}", f"{base.up_minutes:.1f} min up before, once{gone}; {cost}"))
    rows.append(("this took really", f"{outcome.wall_seconds:.0f} s"))
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(Text(row[0], style="dim"), row[1])
    return table


def _left(outcome: Rehearsal) -> Table:
    table = new_table("kind", "name", "id", "known to the engine", "costs by the hour")
    for one in outcome.left:
        table.add_row(
            short(one.type),
            one.name,
            one.id,
            "yes" if one.urn else "made by a service",
            "yes" if one.costs_by_the_hour else "",
        )
    return table
