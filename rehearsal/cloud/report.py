"""What the journal and the store say afterwards: the timeline, what is left, and what the GPUs did. Pure over the journal's lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import rules
from .store import Store

# What costs by the hour, dearest first; the rest costs by use or nothing.
_COSTS = (
    rules.INSTANCE,
    rules.NODE_GROUP,
    rules.CLUSTER,
    rules.NAT,
    rules.LOAD_BALANCER,
    rules.VOLUME,
    rules.EIP,
    rules.LUSTRE,
    rules.FILE_SYSTEM,
)


KEPT_ON_PURPOSE = (rules.BUCKET, rules.BUCKET_ACCESS)
"""What the program makes with retain_on_delete: results outlive the stack. It costs by what is stored, a few cents a month."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the timeline, in virtual minutes since the store was made."""

    start_minutes: float
    end_minutes: float
    op: str
    type: str
    name: str
    outcome: str
    message: str


@dataclass(frozen=True, slots=True)
class Left:
    """Something that still exists. `urn` is empty for what a service made by itself; `kept`: on purpose, so nothing was forgotten."""

    type: str
    id: str
    name: str
    urn: str
    costs_by_the_hour: bool
    kept: bool = False


@dataclass(frozen=True, slots=True)
class GpuTime:
    """Node minutes: GPU nodes running, and running while no graph was ready. `gone_at_minutes`: when the last one ended, if all have."""

    node_minutes: float
    idle_node_minutes: float
    gpu_minutes: float
    first_ready_minutes: float | None
    gone_at_minutes: float | None


def timeline(journal: Iterable[Mapping[str, Any]]) -> list[Step]:
    """Operations and events by start; operations that took no time and failed nothing stay in."""
    steps = [
        Step(e["start"] / 60, e["end"] / 60, e["op"], e["type"], e["name"], e["outcome"], e["message"]) for e in journal if e["op"] != "check"
    ]  # fmt: skip
    return sorted(steps, key=lambda s: (s.start_minutes, s.end_minutes))


def left(store: Store) -> list[Left]:
    """What still exists, what costs by the hour first."""
    found = [
        Left(r.type, r.id, r.name, r.urn, r.type in _COSTS, r.type in KEPT_ON_PURPOSE) for r in store.records.values()
    ]
    return sorted(found, key=lambda x: (_COSTS.index(x.type) if x.type in _COSTS else len(_COSTS), x.type, x.id))


def gpu_time(journal: Iterable[Mapping[str, Any]], now: float) -> GpuTime:
    """Integrate over the journal's events up to `now` (virtual seconds)."""
    events = sorted((e for e in journal if e["op"] == "event"), key=lambda e: (e["start"], e["seq"]))
    running: dict[str, int] = {}
    ready: set[str] = set()
    seconds = idle = gpu = 0.0
    first: float | None = None
    gone: float | None = None
    last = 0.0

    def advance(to: float) -> None:
        nonlocal seconds, idle, gpu, last
        span = max(0.0, to - last)
        seconds += span * len(running)
        gpu += span * sum(running.values())
        idle += span * len(running) if not ready else 0.0
        last = max(last, to)

    for event in events:
        advance(event["start"])
        match event["type"]:
            case "node-running" if event.get("gpus"):
                running[event["id"]] = event["gpus"]
                gone = None
            case "node-terminated" if event.get("gpus"):
                running.pop(event["id"], None)
                gone = event["start"] if not running else None
            case "graph-ready":
                ready.add(event["name"])
                first = event["start"] if first is None else first
            case "graph-not-ready" | "graph-failed":
                ready.discard(event["name"])
    advance(now)
    return GpuTime(
        seconds / 60, idle / 60, gpu / 60, None if first is None else first / 60, None if gone is None else gone / 60
    )
