"""Items of the timeline: which part of the stack took from when to when, read from the pretend cloud's journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from ops.charges import EXISTS, Journal
from rehearsal.cloud import report, rules

Phase = Literal["up", "destroy"]

ITEMS: Final[dict[str, str]] = {
    "Network": "network",
    "Cluster": "cluster",
    "CpuPool": "CPU nodes",
    "FileSystem": "storage",
    "Caches": "storage",
    "Weights": "weights",
    "WeightsHead": "weights",
    "Platform": "platform",
    "Devices": "device plugins",
    "Admission": "admission",
    "GpuPool": "GPU nodes",
    "Serving": "graph",
    "Results": "results bucket",
    "Benchmark": "benchmark",
}
"""Item by the component whose resource it is. What `Serving` waits with at the end is an item of its own."""
READY: Final = "ready"


GPUS_PAID: Final = "GPUs paid for"
_BRIEF_SECONDS: Final = 5.0
"""An item's shorter steps are left out where it has longer ones: a placement group made in minute 0 does not make the GPU nodes start there."""


@dataclass(frozen=True)
class Span:
    """One item in one phase, in virtual minutes (two digits) since the pretend cloud was made. `busy`: when something of it was in progress."""

    phase: Phase
    item: str
    start_minutes: float
    end_minutes: float
    busy: tuple[tuple[float, float], ...]


def spans(journal: Journal, up_ends: int) -> list[Span]:
    """The items in the order in which they start. `up_ends`: sequence number of the last line of `up`."""
    steps: dict[tuple[Phase, str], list[tuple[float, float]]] = {}
    running: dict[str, float] = {}
    up_end = max((entry["end"] for entry in journal if entry["seq"] <= up_ends), default=0.0)
    end = max((entry["end"] for entry in journal), default=0.0)
    for entry in journal:
        phase: Phase = "up" if entry["seq"] <= up_ends else "destroy"
        wanted = ("create", "update") if phase == "up" else ("delete",)
        if entry["op"] in wanted and (item := item_of(entry)):
            steps.setdefault((phase, item), []).append((entry["start"], entry["end"]))
        elif entry["op"] == "event" and entry["type"] == "graph-ready" and (begun := steps.get(("up", "graph"))):
            # The graph's create ends when the API server has taken it; its pods start only then.
            begun.append((begun[0][0], entry["start"]))
        elif entry["op"] == "event" and entry.get("gpus") and entry["type"] in ("node-running", "node-terminated"):
            since = running.pop(entry["id"], None)
            if entry["type"] == "node-running":
                running[entry["id"]] = entry["start"]
            elif since is not None:
                _paid(steps, since, entry["start"], up_end)
    for since in running.values():
        _paid(steps, since, end, up_end)
    found = [_span(phase, item, mine) for (phase, item), mine in steps.items()]
    return sorted(found, key=lambda span: (span.phase == "destroy", span.start_minutes, span.end_minutes))


def _paid(steps: dict[tuple[Phase, str], list[tuple[float, float]]], since: float, until: float, up_end: float) -> None:
    """A GPU node's time, cut where `up` ends."""
    if since < up_end:
        steps.setdefault(("up", GPUS_PAID), []).append((since, min(until, up_end)))
    if until > up_end:
        steps.setdefault(("destroy", GPUS_PAID), []).append((max(since, up_end), until))


def _span(phase: Phase, item: str, steps: list[tuple[float, float]]) -> Span:
    steps = [step for step in steps if step[1] - step[0] >= _BRIEF_SECONDS] or steps
    busy: list[tuple[float, float]] = []
    for start, end in sorted(steps):
        if busy and start <= busy[-1][1]:
            busy[-1] = (busy[-1][0], max(busy[-1][1], end))
        else:
            busy.append((start, end))
    minutes = tuple((round(start / 60, 2), round(end / 60, 2)) for start, end in busy)
    return Span(phase, item, minutes[0][0], minutes[-1][1], minutes)


def item_of(entry: Any) -> str | None:
    """The item a journal line belongs to; None for what is of no interest in a timeline."""
    # urn:pulumi:stack::project::<parent's type>$<type>::name
    parents = entry["urn"].split("::")[2].split("$")[:-1] if entry["urn"].count("::") >= 3 else []
    component = parents[-1].rpartition(":")[2] if parents else ""
    if component == "Serving":
        return {rules.JOB: READY, rules.DGD: "graph"}.get(entry["type"])
    return ITEMS.get(component)


@dataclass(frozen=True)
class Gpus:
    """What the GPUs did, in virtual minutes. Idle: running while no graph was ready, or while everything is being destroyed."""

    minutes_to_ready: float | None
    """From the first create to the first completion that came back (the readiness Job's end)."""
    node_minutes: float
    idle_node_minutes: float
    idle_gpu_minutes: float
    idle_before_ready_node_minutes: float
    gone_after_minutes: float | None
    """From the beginning of destroy until the last GPU node was gone."""


def gpus(journal: Journal, up_ends: int, now: float) -> Gpus:
    """`now`: virtual seconds at the end."""
    whole = report.gpu_time(journal, now)
    ready = _last_end(
        journal, lambda entry: item_of(entry) == READY and entry["op"] == "create" and entry["outcome"] == "ok"
    )
    up = [entry for entry in journal if entry["seq"] <= up_ends]
    up_end = max((entry["end"] for entry in up), default=0.0)
    before = report.gpu_time(up, up_end)
    idle = before.idle_node_minutes + whole.node_minutes - before.node_minutes
    per_node = whole.gpu_minutes / whole.node_minutes if whole.node_minutes else 0.0
    begun = min(
        (entry["start"] for entry in journal if entry["seq"] > up_ends and entry["op"] == "delete"), default=up_end
    )
    gone = whole.gone_at_minutes
    return Gpus(
        minutes_to_ready=None if ready is None else ready / 60,
        node_minutes=whole.node_minutes,
        idle_node_minutes=idle,
        idle_gpu_minutes=idle * per_node,
        idle_before_ready_node_minutes=before.idle_node_minutes,
        gone_after_minutes=None if gone is None else gone - begun / 60,
    )


def _last_end(journal: Journal, wanted: Callable[[Any], bool]) -> float | None:
    return max((entry["end"] for entry in journal if wanted(entry)), default=None)


def created(journal: Journal) -> int:
    """How many resources the program's creates brought into being."""
    return sum(entry["op"] == "create" and entry["outcome"] in EXISTS for entry in journal)
