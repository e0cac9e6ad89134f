"""Offline replay beside live figures: the same traffic, and the whole trace, predicted for every run; and where the two disagree.

Live, Dynamo's own frontend and mock engines serve real HTTP; offline, NVIDIA's tool steps through the same schedule in virtual time.
Both take their times from one database, and still they have disagreed about disaggregation. So nothing is averaged here and nothing
chosen: each switch stands with both changes, and whether they point the same way.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from ops import stacks
from ops.bench.results import Run
from ops.compare.model import (
    BY_KEY,
    DECIDING,
    Comparison,
    Effect,
    Figure,
    Side,
    effects_of,
    pairs_data,
    percent,
    rounded,
)
from ops.exits import CommandError
from recipe.benchmark import PUBLISHED_TRACE
from recipe.config import Recipe, parse_any
from recipe.errors import RecipeError
from recipe.plan import Plan
from recipe.planner import make_plan
from recipe.scripts import trace
from recipe.stack_file import StackFileError, read_base
from rehearsal.cache import cache_folder
from rehearsal.errors import SetupError
from rehearsal.serving.replay import Fixed, Limits, Replay, Trace, Traffic, replay

Much: TypeAlias = Literal["no", "same", "full"]
FULL: Final = "whole trace"
"""As a load, beside those that ran live."""
ATTEMPTS: Final = 3
"""Of each prediction of traffic that ran live: with the kv router they differ, by several percent on 90 requests."""
FULL_ATTEMPTS: Final = 2
"""Of the whole trace, about 20 seconds each."""
_FETCH_SECONDS: Final = 10.0
Word: TypeAlias = Literal["agree", "disagree", "undecided"]
Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Agreement:
    """One switch, one figure, one load: what both say of it."""

    live: Effect
    offline: Effect

    @property
    def word(self) -> Word:
        """Undecided where one of them is within its own repeats."""
        if not (self.live.decided and self.offline.decided):
            return "undecided"
        return "agree" if (self.live.change < 0) == (self.offline.change < 0) else "disagree"


@dataclass(frozen=True)
class Replayed:
    """What was predicted for the runs of a comparison."""

    tool: str
    sides: dict[str, tuple[Side, ...]]
    """By load, in the order of the runs; FULL among them where the whole trace was asked for."""
    effects: tuple[Effect, ...]
    agreements: tuple[Agreement, ...]
    """Of the loads that ran live."""
    levels: tuple[tuple[str, str, str, float], ...]
    """Load, run, metric, and the offline figure against the live one as a share: +0.1 is 10 % higher."""
    traffic: dict[str, str]
    """By load, in words."""
    notes: tuple[str, ...]
    """What predictions leave out, and what could not be predicted."""
    wall_seconds: float
    """What all predictions took, when they were made."""
    live_simulated: bool = True
    """Whether what ran was mock engines; else GPUs."""

    def sentences(self) -> tuple[str, ...]:
        """The agreement in words: first by switch, then what stands against what."""
        said = []
        rest = "Neither is evidence of a GPU." if self.live_simulated else "What was measured counts."
        for factor in ("router", "disaggregation"):
            mine = [one for one in self.agreements if one.live.factor == factor]
            if mine:
                counts = ", ".join(
                    f"{word} {sum(one.word == word for one in mine)}" for word in ("agree", "disagree", "undecided")
                )
                said.append(f"{factor}: of {len(mine)} figures live and offline {counts}.")
        for one in self.agreements:
            if one.word == "disagree":
                where = "" if one.live.load == "trace" else f" at {one.live.load}"
                said.append(
                    f"Disagreement: {one.live.factor}, {BY_KEY[one.live.metric].title}{where}: live {percent(one.live)}, "
                    f"offline {percent(one.offline)}. {rest}"
                )
        return tuple(said)


def replayed(found: Comparison, much: Much, say: Say = lambda _: None) -> Replayed | None:
    """Predictions for every run of `found`. None where there is none to be had: then `say` was told why."""
    if much == "no":
        return None
    try:
        return _replayed(found, much, say)
    except (SetupError, CommandError, RecipeError, StackFileError) as error:
        say(f"no offline replay: {error}")
        return None


def _replayed(found: Comparison, much: Much, say: Say) -> Replayed:
    plans = [plan_of(run) for run in found.runs]
    limits = Limits(**found.runs[0].about["goodput"])
    loads: dict[str, tuple[Traffic | None, int]] = {}
    notes: list[str] = []
    for load in found.loads:
        loads[load] = traffic_of(found.runs[0], load), ATTEMPTS
        if loads[load][0] is None:
            notes.append(f"{load}: not predicted, because the trace that ran is not at hand")
    if much == "full":
        loads[FULL] = whole_trace(say), FULL_ATTEMPTS
    every: dict[str, tuple[Side, ...]] = {}
    words: dict[str, str] = {}
    spent = 0.0
    for load, (traffic, attempts) in loads.items():
        if traffic is None:
            continue
        row = []
        for run, plan in zip(found.runs, plans, strict=True):
            say(f"offline replay of {load}: {run.name}")
            answers = [replay(plan, traffic, limits, attempt=number, say=say) for number in range(1, attempts + 1)]
            row.append(side_of_replays(run, load, answers))
            words[load] = answers[0].traffic
            notes += [f"{run.name}: {gap}" for gap in answers[0].gaps]
            spent += sum(one.wall_seconds for one in answers)
        every[load] = tuple(row)
    if not every:
        raise CommandError("none of the traffic is at hand", "`--replay full` predicts the whole trace")
    return put_together(found, every, words, notes, spent)


def put_together(
    found: Comparison, sides: dict[str, tuple[Side, ...]], traffic: dict[str, str], notes: Sequence[str], seconds: float
) -> Replayed:
    """Pure: predictions and live figures beside each other."""
    from rehearsal.serving.commands import DATABASE

    effects = tuple(effects_of(sides))
    offline = {(one.factor, one.load, one.metric): one for one in effects}
    agreements = [
        Agreement(live, other)
        for live in found.effects
        if (other := offline.get((live.factor, live.load, live.metric))) is not None
    ]
    levels = [
        (load, side.run.name, key, side.figures[key].mean / live.figures[key].mean - 1)
        for load, row in sides.items()
        if load in found.sides
        for side, live in zip(row, found.sides[load], strict=True)
        for key in DECIDING
        if key in side.figures and key in live.figures and live.figures[key].mean
    ]
    return Replayed(
        DATABASE,
        sides,
        effects,
        tuple(agreements),
        tuple(levels),
        traffic,
        tuple(dict.fromkeys(notes)),
        round(seconds, 1),
        live_simulated=bool(found.simulated),
    )


def side_of_replays(run: Run, load: str, answers: Sequence[Replay]) -> Side:
    """Predictions as one side of a comparison, by the names live figures have."""
    found: dict[str, tuple[float, ...]] = {}
    for key in (
        "ttft_ms",
        "ttft_p50_ms",
        "ttft_p99_ms",
        "itl_ms",
        "itl_p99_ms",
        "latency_ms",
        "goodput_rps",
        "tokens_per_s_gpu",
    ):
        values = [value for one in answers if (value := getattr(one, key)) is not None]
        if values:
            found[key] = tuple(values)
    rates = [one.tokens_per_s for one in answers if one.tokens_per_s]
    if rates:
        found["usd_per_million"] = tuple(run.usd_per_hour / (rate * 3600) * 1e6 for rate in rates)
    errors = sum(one.requests - one.answered for one in answers)
    return Side(run, load, len(answers), errors, {key: Figure(values) for key, values in found.items()})


# ── what is replayed ─────────────────────────────────────────────────────────────────────────────────────────────────


def plan_of(run: Run) -> Plan:
    """The plan that was measured, out of the recipe in its results; what results do not hold (access, budget) is the stack file's."""
    stack = str(run.about["stack"])
    file = stacks.load(stack)
    recorded = run.stack.get("recipe")
    if not isinstance(file.raw, dict) or not isinstance(recorded, dict):
        raise CommandError(f"the results of {run.name} hold no recipe", "run the benchmark again")
    recipe = parse_any(file.raw | recorded, str(run.folder / "run.json"))
    if not isinstance(recipe, Recipe):
        raise CommandError(f"{stack} is a base now", "name results of a stack that serves a model")
    return make_plan(stack, recipe, placeholders=True, base=read_base(recipe, file.path.parent))


def traffic_of(run: Run, load: str) -> Traffic | None:
    """What was sent. None: a trace that cannot be made again here."""
    said: dict[str, Any] = run.about["traffic"]
    if said["kind"] == "fixed":
        flight = next(point.concurrency for point in run.points if point.load == load) or 1
        return Fixed(said["isl"], said["osl"], flight, int(said["requests_per_slot"]) * flight)
    wanted = (run.about.get("trace") or {}).get("digest")
    requests = trace.cut(
        trace.generated(said["seed"], said["scale"]), pace=said["pace"], longest=said["max_input_tokens"]
    )
    if trace.digest(requests) == wanted:
        return Trace.of(requests, "generated, the one that ran live")
    published = _published()
    if published is not None:
        requests = trace.cut(published, scale=said["scale"], pace=said["pace"], longest=said["max_input_tokens"])
        if trace.digest(requests) == wanted:
            return Trace.of(requests, "Mooncake's conversation trace, as it ran live")
    return None


def whole_trace(say: Say) -> Trace:
    """Mooncake's conversation trace, 12,031 requests; where it cannot be had, a generated one of its shape, which says so."""
    published = _published()
    longest = trace.LONGEST_INPUT
    if published is not None:
        return Trace.of(trace.cut(published, longest=longest), "Mooncake's conversation trace")
    say("no published trace: a generated one of its shape stands in")
    return Trace.of(
        trace.generated(100), "generated in the shape of Mooncake's conversation trace, which could not be had"
    )


def _published() -> list[trace.Request] | None:
    """From the cache, else from where it is published. None where neither has it."""
    kept = cache_folder() / "traces" / str(PUBLISHED_TRACE["file"])
    try:
        if not kept.exists():
            with urllib.request.urlopen(PUBLISHED_TRACE["url"], timeout=_FETCH_SECONDS) as answer:  # noqa: S310 - an https address of ours
                data = answer.read(PUBLISHED_TRACE["bytes"] + 1)
            if len(data) != PUBLISHED_TRACE["bytes"]:
                return None
            kept.parent.mkdir(parents=True, exist_ok=True)
            staged = kept.with_suffix(".new")
            staged.write_bytes(data)
            staged.replace(kept)
        return trace.read(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


# ── as data ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def as_data(found: Replayed, side_data: Callable[[Side], dict[str, Any]]) -> dict[str, Any]:
    """For `--json`."""
    return {
        "predicted_by": found.tool,
        "simulated": True,
        "traffic": found.traffic,
        "loads": {load: [side_data(side) for side in row] for load, row in found.sides.items()},
        "agreements": [
            {
                "factor": one.live.factor,
                "load": one.live.load,
                "metric": one.live.metric,
                "live_share": rounded(one.live.share),
                "offline_share": rounded(one.offline.share),
                "verdict": one.word,
            }
            for one in found.agreements
        ],
        "effects": [
            {
                "factor": one.factor,
                "load": one.load,
                "metric": one.metric,
                "share": rounded(one.share),
                "decided": one.decided,
                "depends": one.depends,
                "pairs": pairs_data(one),
            }
            for one in found.effects
        ],
        "levels": [
            {"load": load, "run": run, "metric": key, "offline_against_live": round(share, 4)}
            for load, run, key, share in found.levels
        ],
        "sentences": list(found.sentences()),
        "notes": list(found.notes),
        "wall_seconds": found.wall_seconds,
    }
