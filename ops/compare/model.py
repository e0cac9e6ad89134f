"""The comparison itself, pure over results that were read: what may be compared, figures with their spread, and what decided.

A verdict is about two switches, the router (kv or round-robin) and disaggregation (agg or disagg), and about nothing else. Where runs differ in
more, it says so and decides nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ops.bench.results import Point, Run
from ops.exits import BAD_INPUT, CommandError

if TYPE_CHECKING:
    from ops.compare.replayed import Replayed

Factor = Literal["router", "disaggregation"]
LEAST_NOISE: Final = 0.02
"""Share of a figure below which no difference counts, however well two repeats happen to agree."""


@dataclass(frozen=True)
class Metric:
    """One figure of a point."""

    key: str
    title: str
    unit: str
    better: Literal["lower", "higher"]
    of: Callable[[Run, Point], float | None]
    digits: int = 0


def _aggregate(name: str, key: str = "avg") -> Callable[[Run, Point], float | None]:
    def of(_: Run, point: Point) -> float | None:
        found = point.metrics.get(name, {}).get(key)
        return None if found is None else float(found)

    return of


def _per_gpu(run: Run, point: Point) -> float | None:
    throughput = _aggregate("output_token_throughput")(run, point)
    return None if throughput is None else throughput / max(1, run.gpus)


def _usd(run: Run, point: Point) -> float | None:
    throughput = _aggregate("output_token_throughput")(run, point)
    return run.usd_per_hour / (throughput * 3600) * 1e6 if throughput else None


METRICS: Final = (
    Metric("ttft_ms", "TTFT mean", "ms", "lower", _aggregate("time_to_first_token")),
    Metric("ttft_p50_ms", "TTFT p50", "ms", "lower", _aggregate("time_to_first_token", "p50")),
    Metric("ttft_p99_ms", "TTFT p99", "ms", "lower", _aggregate("time_to_first_token", "p99")),
    Metric("itl_ms", "ITL mean", "ms", "lower", _aggregate("inter_token_latency"), 1),
    Metric("itl_p99_ms", "ITL p99", "ms", "lower", _aggregate("inter_token_latency", "p99"), 1),
    Metric("latency_ms", "request latency", "ms", "lower", _aggregate("request_latency")),
    Metric("goodput_rps", "goodput", "requests/s", "higher", _aggregate("goodput"), 2),
    Metric("tokens_per_s_gpu", "output per GPU", "tokens/s", "higher", _per_gpu, 1),
    Metric("usd_per_million", "$ per million output tokens", "$", "lower", _usd, 2),
)
DECIDING: Final = ("ttft_ms", "itl_ms", "latency_ms", "goodput_rps")
"""What a verdict is given about."""
BY_KEY: Final = {metric.key: metric for metric in METRICS}


@dataclass(frozen=True)
class Figure:
    """A metric over the repeats."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Largest minus smallest; 0 for a single value, of which nothing is known."""
        return max(self.values) - min(self.values)


@dataclass(frozen=True)
class Side:
    """One run at one load."""

    run: Run
    load: str
    repeats: int
    errors: int
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Pair:
    """A switch turned while the other one stays at `other`."""

    other: str
    change: float
    share: float | None
    """Of the value before. None: that one is 0."""


@dataclass(frozen=True)
class Effect:
    """What one switch does to one metric at one load: other setting minus first, both as means over whatever else varies."""

    factor: Factor
    load: str
    metric: str
    change: float
    share: float | None
    """Of the first setting's value. None: that one is 0."""
    noise: float | None
    """A change up to this may be chance. None: one repeat each, so nothing is known."""
    from_: str
    to: str
    pairs: tuple[Pair, ...]
    """What `change` is the mean of."""

    @property
    def depends(self) -> bool:
        """Up at one setting of the other switch and down at the other, both beyond chance: the mean of those is nobody's."""
        noise = self.noise
        return (
            noise is not None
            and any(pair.change > noise for pair in self.pairs)
            and any(pair.change < -noise for pair in self.pairs)
        )

    @property
    def decided(self) -> bool:
        return self.noise is not None and abs(self.change) > self.noise and not self.depends

    def better(self, change: float) -> bool:
        """Whether a change of this sign is one to want."""
        return (change < 0) == (BY_KEY[self.metric].better == "lower")


@dataclass(frozen=True)
class Comparison:
    """Everything that is said of the runs."""

    runs: tuple[Run, ...]
    loads: tuple[str, ...]
    sides: dict[str, tuple[Side, ...]]
    """By load, in the order of the runs."""
    effects: tuple[Effect, ...]
    verdict: tuple[str, ...]
    missing_corners: tuple[tuple[str, str], ...]
    """(mode, router) without which router and disaggregation cannot be told apart."""
    warnings: tuple[str, ...]
    replay: Replayed | None = None
    """Predictions beside the figures, where they were asked for (ops/compare/replayed.py)."""

    @property
    def simulated(self) -> str | None:
        return next((run.simulated for run in self.runs if run.simulated), None)


def compare(runs: Sequence[Run]) -> Comparison:
    """Raises CommandError where the runs are not of the same traffic, with every reason."""
    if reasons := unlike(runs):
        listed = "\n".join(f"  {reason}" for reason in reasons)
        raise CommandError(
            f"these runs cannot be compared:\n{listed}",
            "run the same profile on both: `ops bench STACK --profile NAME`",
            BAD_INPUT,
        )
    loads = [load for load in runs[0].loads if all(load in run.loads for run in runs)]
    if not loads:
        raise CommandError(
            "the runs have no point in common", "finish them: `ops bench STACK --profile NAME`", BAD_INPUT
        )
    sides = {load: tuple(side_of(run, load) for run in runs) for load in loads}
    effects = tuple(effects_of(sides))
    corners = {_corner(run) for run in runs}
    missing = _missing(corners)
    return Comparison(
        runs=tuple(runs),
        loads=tuple(loads),
        sides=sides,
        effects=effects,
        verdict=tuple(_verdict(runs, effects, corners, missing)),
        missing_corners=missing,
        warnings=tuple(_warnings(runs, loads)),
    )


# ── may they be compared ─────────────────────────────────────────────────────────────────────────────────────────────

_TRAFFIC: Final = {
    "kind": "kind of profile",
    "isl": "input tokens (ISL)",
    "osl": "output tokens (OSL)",
    "concurrency_per_gpu": "concurrency per GPU",
    "requests_per_slot": "requests for each one in flight",
    "seed": "seed",
    "warmup": "warm-up",
    "scale": "share of the trace",
    "pace": "pace of the trace",
    "max_input_tokens": "longest prompt sent",
}


def unlike(runs: Sequence[Run]) -> list[str]:
    """Why the runs cannot be compared; empty where they can."""
    reasons = []
    first = runs[0]
    for other in runs[1:]:
        reasons += [f"{other.name}: {reason}" for reason in _unlike(first, other)]
    return list(dict.fromkeys(reasons))


def _unlike(one: Run, other: Run) -> list[str]:
    def differ(what: str, first: Any, second: Any) -> list[str]:
        return [f"{what} {_shown(second)} instead of {_shown(first)}"] if first != second else []

    reasons = []
    mine, theirs = one.about["traffic"], other.about["traffic"]
    for key, title in _TRAFFIC.items():
        reasons += differ(title, mine.get(key), theirs.get(key))
    reasons += differ("goodput limits", one.about["goodput"], other.about["goodput"])
    reasons += differ("AIPerf", one.about["aiperf"], other.about["aiperf"])
    reasons += differ(
        "GPU", one.stack["gpu"] or one.stack["instance_type"], other.stack["gpu"] or other.stack["instance_type"]
    )
    if bool(one.simulated) != bool(other.simulated):
        reasons.append("one is measured and the other simulated")
    if mine.get("kind") == "trace" == theirs.get("kind"):
        traces = one.about.get("trace") or {}, other.about.get("trace") or {}
        reasons += differ("trace", traces[0].get("digest"), traces[1].get("digest"))
        # A trace comes at its own rate, so on more GPUs it is another load on each.
        reasons += differ("GPUs for the same trace", one.gpus, other.gpus)
    return reasons


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner:g}" for key, inner in value.items())
    if isinstance(value, list):
        return "/".join(f"{one:g}" for one in value)
    return "none" if value is None else str(value)


def _warnings(runs: Sequence[Run], loads: Sequence[str]) -> list[str]:
    said = []
    for run in runs:
        if not run.complete:
            said.append(f"{run.name} was cut short: {run.status.get('reason')}")
        said += [f"{run.name}: {problem}" for problem in run.problems]
        if lost := [load for load in run.loads if load not in loads]:
            said.append(f"{run.name}: left out, because another run lacks it: {', '.join(lost)}")
        errors = sum(point.errors for point in run.points)
        if errors:
            said.append(f"{run.name}: {errors} requests failed and are in no figure")
        origin = str((run.about.get("trace") or {}).get("origin", ""))
        if "could not be had" in origin:
            said.append(f"{run.name}: the trace is {origin}")
    timings = list(dict.fromkeys(run.simulated for run in runs if run.simulated))
    if len(timings) > 1:
        said.append("simulated by different timing: " + " | ".join(timings))
    said += [f"{what}: {' | '.join(values)}" for what, values in _differing(runs).items()]
    return said


def _differing(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What differs beside router and mode, and would claim a share of any difference."""
    looked: dict[str, Callable[[Run], str]] = {
        "another model": lambda run: str(run.about["model"]),
        "another engine": lambda run: str(run.stack["engine"]),
        "another number of GPUs": lambda run: str(run.gpus),
        "another Dynamo": lambda run: str(run.stack["versions"].get("dynamo")),
    }
    found = {what: list(dict.fromkeys(of(run) for run in runs)) for what, of in looked.items()}
    by_mode: dict[str, set[str]] = {}
    for run in runs:
        layout = ", ".join(
            f"{one['role']} {one['replicas']} × {one['gpus'] or one['tensor_parallel']}" for one in run.stack["workers"]
        )
        by_mode.setdefault(str(run.stack["mode"]), set()).add(layout)
    layouts = [layout for group in by_mode.values() if len(group) > 1 for layout in sorted(group)]
    return {what: values for what, values in (found | {"another layout": layouts}).items() if len(values) > 1}


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def side_of(run: Run, load: str) -> Side:
    points = run.at(load)
    figures = {}
    for metric in METRICS:
        values = tuple(value for point in points if (value := metric.of(run, point)) is not None)
        if values:
            figures[metric.key] = Figure(values)
    return Side(run, load, len(points), sum(point.errors for point in points), figures)


def distribution(run: Run, load: str, column: str) -> list[float]:
    """A column of every request of all repeats, sorted."""
    return sorted(value for point in run.at(load) for value in point.requests.get(column, []) if value is not None)


# ── what decided ─────────────────────────────────────────────────────────────────────────────────────────────────────

ORDER: Final[dict[Factor, tuple[str, str]]] = {"router": ("round-robin", "kv"), "disaggregation": ("agg", "disagg")}


def _corner(run: Run) -> tuple[str, str]:
    return str(run.stack["mode"]), str(run.stack["router"])


def _missing(corners: set[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    modes, routers = {mode for mode, _ in corners}, {router for _, router in corners}
    if len(modes) < 2 or len(routers) < 2:
        return ()
    return tuple(
        (mode, router)
        for mode in ORDER["disaggregation"]
        for router in ORDER["router"]
        if (mode, router) not in corners
    )


def pairs_data(effect: Effect) -> list[dict[str, Any]]:
    """For `--json`."""
    return [
        {"with": pair.other, "change": round(pair.change, 4), "share": rounded(pair.share)} for pair in effect.pairs
    ]


def effects_of(sides: dict[str, tuple[Side, ...]]) -> list[Effect]:
    """Each switch where it was turned with the other one left alone: averaged over the pairs there are."""
    found = []
    factors: tuple[Factor, ...] = ("router", "disaggregation")
    for load, row in sides.items():
        corners: dict[tuple[str, str], list[Side]] = {}
        for side in row:
            corners.setdefault(_corner(side.run), []).append(side)
        for factor in factors:
            off, on = ORDER[factor]
            pairs = {}
            for (mode, router), before in corners.items():
                if (router if factor == "router" else mode) == off:
                    other = (mode, on) if factor == "router" else (on, router)
                    if other in corners:
                        pairs[mode if factor == "router" else router] = (before, corners[other])
            if pairs:
                found += [effect for key in DECIDING if (effect := _effect(factor, load, key, pairs))]
    return found


def _effect(factor: Factor, load: str, key: str, pairs: dict[str, tuple[list[Side], list[Side]]]) -> Effect | None:
    """`pairs`: runs before and after the switch was turned, by the setting of the other switch."""

    def values(sides: list[Side]) -> list[float]:
        return [value for side in sides if key in side.figures for value in side.figures[key].values]

    measured = {other: (values(before), values(after)) for other, (before, after) in pairs.items()}
    if not all(before and after for before, after in measured.values()):
        return None
    means = {other: (statistics.fmean(before), statistics.fmean(after)) for other, (before, after) in measured.items()}
    first = statistics.fmean(before for before, _ in means.values())
    change = statistics.fmean(after - before for before, after in means.values())
    groups = [group for pair in measured.values() for group in pair]
    repeated = all(len(group) > 1 for group in groups)
    # The widest disagreement of equal runs: with two or three repeats there is no honest better estimate.
    noise = max([*(max(group) - min(group) for group in groups), LEAST_NOISE * abs(first)]) if repeated else None
    off, on = ORDER[factor]
    return Effect(
        factor=factor, load=load, metric=key, change=change, share=_share(change, first), noise=noise, from_=off, to=on,
        pairs=tuple(
            Pair(other, after - before, _share(after - before, before)) for other, (before, after) in means.items()
        ),
    )  # fmt: skip


def _share(change: float, first: float) -> float | None:
    return change / first if first else None


def rounded(share: float | None) -> float | None:
    """For `--json`."""
    return None if share is None else round(share, 4)


def percent(effect: Effect) -> str:
    """The change as a share; where there was nothing before, the amount is all that can be said."""
    return _percent(effect.metric, effect)


def _percent(metric: str, of: Effect | Pair) -> str:
    return _amount(metric, of.change, sign=True) if of.share is None else f"{of.share:+.0%}"


def _verdict(
    runs: Sequence[Run], effects: Sequence[Effect], corners: set[tuple[str, str]], missing: tuple[tuple[str, str], ...]
) -> list[str]:
    """Plain sentences, the most important first."""
    said: list[str] = []
    if len(corners) == 1:
        return ["Router and mode are the same in all runs: there is nothing to attribute."]
    differing = _differing(runs)
    if differing:
        named = ", ".join(what.removeprefix("another ") for what in differing)
        return [f"The runs differ in {named} as well, so nothing can be said of router and disaggregation alone."]
    if missing and len(corners) == 2:
        wanted = " and ".join(f"{mode} with {router}" for mode, router in missing)
        reason = "Router and disaggregation changed at once: which of them decided cannot be told from these runs."
        return [f"{reason} Measure {wanted} as well."]
    loads = list(dict.fromkeys(effect.load for effect in effects))
    for load in loads:
        at = f"At {load}: " if len(loads) > 1 else ""
        for key in DECIDING:
            mine = [effect for effect in effects if effect.load == load and effect.metric == key]
            if mine:
                said.append(f"{at}{BY_KEY[key].title}: {_decided(mine)}")
    if missing:
        said.append(
            f"Not measured: {' and '.join(f'{mode} with {router}' for mode, router in missing)}; effects are of the pairs there are."
        )
    if any(run.simulated for run in runs):
        said.append(
            "Simulated: live mock engines and offline replay have disagreed on whether agg or disagg has the lower TTFT "
            "(docs/benchmarking.md), so of disaggregation this is no evidence for real GPUs."
        )
    return said


def _decided(effects: Sequence[Effect]) -> str:
    if any(effect.noise is None for effect in effects):
        return (
            "one run each, so nothing is known of the noise: "
            + "; ".join(map(_change, effects))
            + ". Repeat before believing it."
        )
    real = sorted((effect for effect in effects if effect.decided), key=lambda effect: -abs(effect.change))
    mixed = [effect for effect in effects if effect.depends]
    if not real and not mixed:
        return (
            "noise: "
            + "; ".join(
                f"{_change(effect)}, within the repeats' {_amount(effect.metric, effect.noise)}" for effect in effects
            )
            + "."
        )
    said = []
    if real:
        changes = "; ".join(f"{_change(effect)}{_worse(effect, effect.change)}" for effect in real)
        deciding = real[0].factor
        said.append(
            f"{deciding} decided: {changes}" if len(real) == 1 else f"both count, most of it {deciding}: {changes}"
        )
    said += [_depends(effect) for effect in mixed]
    said += [
        f"{effect.factor} makes no difference beyond the repeats' own"
        for effect in effects
        if not (effect.decided or effect.depends)
    ]
    return "; ".join(said) + "."


def _depends(effect: Effect) -> str:
    each = ", ".join(
        f"{_percent(effect.metric, pair)} with {pair.other}{_worse(effect, pair.change)}" for pair in effect.pairs
    )
    return f"what {effect.factor} does depends on the other switch: {effect.from_} → {effect.to} {each}"


def _worse(effect: Effect, change: float) -> str:
    return "" if effect.better(change) else " (worse)"


def _change(effect: Effect) -> str:
    amount = "" if effect.share is None else f" ({_amount(effect.metric, effect.change, sign=True)})"
    return f"{effect.from_} → {effect.to} {percent(effect)}{amount}"


def _amount(key: str, value: float | None, *, sign: bool = False) -> str:
    metric = BY_KEY[key]
    return f"{value or 0.0:{'+' if sign else ''}.{max(metric.digits, 0)}f} {metric.unit}"
