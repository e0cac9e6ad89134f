"""The cold start for people and for programs: the critical path with its money, the knobs, ours beside upstream's order.

Everything here is computed by `recipe/timeline.py` and `recipe/cold_start.py`, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from recipe import catalogue
from recipe.cold_start import MOST_SHARE, QUARTER, STARTS, Compared, compare, knobs, node_holders, storages
from recipe.plan import Plan
from recipe.timeline import HEAD, GpuIdle, Timeline, timeline

REMADE_BY: Final = "python -m ops plan --all --cold-start --markdown"
HEADER: Final = (
    "stack",
    "start",
    "minutes",
    "upstream's order",
    "idle GPU minutes",
    "idle GPU $",
    "upstream's",
    "ratio",
    "ratio beyond boot",
    "share of the way",
    "share beyond boot",
)
SAID: Final = (
    "computed, not measured: on the durations of recipe/catalogue/durations.py, which the rehearsal's clock runs on as well; prices as in the plan",
    "idle GPU: GPU nodes are paid for and no token has come. Beyond boot: without what they take until they are active, the same in every order",
    "upstream's order: GPU nodes with the cluster, then platform, download, graph, with its loader and a plain image pull (`UPSTREAM` in recipe/timeline.py)",
)


# ── one stack ────────────────────────────────────────────────────────────────────────────────────────────────────────


def path_rows(found: Timeline) -> Iterator[tuple[str, ...]]:
    """Step, minutes from and to, minutes, $, and what is paid for most of it; ~ where an assumption is in it."""
    for step in found.critical_path:
        assumed = any(catalogue.duration(key).assumption for key in step.rows if key != HEAD)
        dearest = next(iter(found.billed(step)), None)
        billed = dearest.what if dearest else "nothing yet"
        more = len(found.billed(step)) - 1
        yield (
            step.name,
            f"{step.start / 60:.1f}–{step.end / 60:.1f}",
            f"{'~' if assumed else ''}{step.minutes:.1f}",
            f"{found.usd_of(step):.2f}",
            f"{billed}{f' and {more} more' if more > 0 else ''}",
        )


def idle_line(idle: GpuIdle, found: Timeline) -> str:
    """What GPUs cost before the first token, and where it goes."""
    parts = (
        ("boot", idle.boot),
        ("waiting", idle.waiting),
        ("image", idle.image),
        ("weights", idle.loading),
        ("engine", idle.engine),
    )
    where = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in parts)
    return (
        f"GPU nodes are paid for {idle.seconds / 60:.1f} minutes before the first token, ${idle.usd(idle.seconds):.2f}: {where} "
        f"({found.gpu_idle_share:.0%} of the way)"
    )


def knob_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Knob, as it is, the other one, and what that changes."""
    for one in knobs(plan):
        yield one.key, one.now, one.other, f"{one.minutes:+.1f}", f"{one.idle_usd:+.2f}", f"{one.usd:+.2f}", one.why


def storage_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Storage, minutes to make it, seconds to read, $ of GPUs and of reads at each start, $ an hour."""
    for one in storages(plan):
        yield (
            one.what, f"{one.made_in:.0f}", f"{one.loading:.0f}", f"{one.gpu_usd:.2f}", f"{one.read_usd:.2f}", f"{one.usd_per_hour:.2f}",
        )  # fmt: skip


def data(plan: Plan) -> dict[str, Any]:
    """Of `computed` in `ops plan --json`."""
    found = timeline(plan)
    idle = found.gpu_idle
    return {
        "usd_to_first_token": None if not found.serves else round(found.usd, 2),
        "gpu_idle_wall_minutes": None if idle is None else round(idle.seconds / 60, 1),
        "gpu_idle_usd": None if idle is None else round(idle.usd(idle.seconds), 2),
        "gpu_idle_seconds_by_part": None
        if idle is None
        else {name: round(getattr(idle, name), 1) for name in ("boot", "waiting", "image", "loading", "engine")},
        "critical_path": [
            {
                "step": step.name,
                "from_minutes": round(step.start / 60, 1),
                "to_minutes": round(step.end / 60, 1),
                "minutes": round(step.minutes, 1),
                "usd": round(found.usd_of(step), 2),
                "billed": [rate.what for rate in found.billed(step)],
                "durations": list(step.rows),
                "assumed": any(catalogue.duration(key).assumption for key in step.rows if key != HEAD),
            }
            for step in found.critical_path
        ],
        "sources": {key: found.source(key) for step in found.critical_path for key in step.rows if key != HEAD},
        "knobs": [
            {
                "key": one.key, "now": one.now, "other": one.other, "minutes": round(one.minutes, 1),
                "gpu_idle_usd": round(one.idle_usd, 2), "usd": round(one.usd, 2), "why": one.why,
            }
            for one in knobs(plan)
        ],
        "starts": [compared_data(one) for one in compare(plan)],
        "gpu_nodes_need": list(node_holders(plan)),
    }  # fmt: skip


def compared_data(one: Compared) -> dict[str, Any]:
    """One start, ours and upstream's order."""

    def side(found: Timeline) -> dict[str, Any]:
        idle = found.gpu_idle
        assert idle is not None, "compared only where there are GPU nodes"
        return {
            "minutes": round(found.steps[-1].end / 60, 1),
            "gpu_idle_wall_minutes": round(idle.seconds / 60, 1),
            "gpu_idle_usd": round(idle.usd(idle.seconds), 2),
            "gpu_idle_usd_beyond_boot": round(idle.usd(idle.beyond_boot), 2),
        }

    return {
        "start": one.start,
        "ours": side(one.ours),
        "upstream": side(one.upstream),
        "ratio": round(one.ratio(beyond_boot=False), 2),
        "ratio_beyond_boot": round(one.ratio(beyond_boot=True), 2),
        "share": round(one.share(beyond_boot=False), 2),
        "share_beyond_boot": round(one.share(beyond_boot=True), 2),
    }


# ── all stacks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def compared_rows(plans: Iterable[Plan]) -> Iterator[tuple[str, ...]]:
    """A row for each stack with GPU nodes and each start, as `HEADER` says."""
    for plan in plans:
        for one in compare(plan):
            ours, theirs = one.ours.gpu_idle, one.upstream.gpu_idle
            assert ours is not None, "compared only where there are GPU nodes"
            assert theirs is not None, "compared only where there are GPU nodes"
            yield (
                plan.stack,
                STARTS[one.start],
                f"{one.ours.steps[-1].end / 60:.1f}",
                f"{one.upstream.steps[-1].end / 60:.1f}",
                f"{ours.seconds / 60:.1f}",
                f"{ours.usd(ours.seconds):.2f}",
                f"{theirs.usd(theirs.seconds):.2f}",
                f"{one.ratio(beyond_boot=False):.2f}",
                f"{one.ratio(beyond_boot=True):.2f}",
                f"{one.share(beyond_boot=False):.0%}",
                f"{one.share(beyond_boot=True):.0%}",
            )


def verdicts(plans: Sequence[Plan]) -> tuple[str, ...]:
    """The targets of issue 8, and which stacks meet them: of all idle GPU time, and beyond the nodes' own boot."""
    found = [(plan.stack, one) for plan in plans for one in compare(plan)]
    nothing = [(stack, one) for stack, one in found if one.start == "nothing"]
    base = [(stack, one) for stack, one in found if one.start == "base"]

    def line(what: str, values: Iterable[tuple[str, float]], most: float) -> str:
        rows = list(values)
        met = [stack for stack, value in rows if value <= most]
        names = f": {', '.join(met)}" if met else ""
        missed = "" if len(met) == len(rows) else "**missed**, "
        return f"{what}: {missed}met by {len(met)} of {len(rows)} stacks{names}"

    later = {
        stack: minutes
        for stack, one in base
        if (minutes := (one.ours.steps[-1].end - one.upstream.steps[-1].end) / 60) > 0
    }
    said = ", ".join(f"{stack} {minutes:.1f}" for stack, minutes in later.items())
    return (
        line(
            f"idle GPU $ ≤ {QUARTER} of upstream's, from nothing",
            ((stack, one.ratio(beyond_boot=False)) for stack, one in nothing),
            QUARTER,
        ),
        line("the same beyond boot", ((stack, one.ratio(beyond_boot=True)) for stack, one in nothing), QUARTER),
        line(
            f"share of the way with idle GPUs ≤ {MOST_SHARE:.0%}, from a base",
            ((stack, one.share(beyond_boot=False)) for stack, one in base),
            MOST_SHARE,
        ),
        line("the same beyond boot", ((stack, one.share(beyond_boot=True)) for stack, one in base), MOST_SHARE),
        *(
            [
                f"minutes later than upstream's order, from a base, because GPU nodes wait until the weights are there: {said}"
            ]
            if later
            else []
        ),
    )


def markdown(plans: Sequence[Plan]) -> str:
    """The table and what has to be known of it, for docs/cold-start.md and docs/benchmarks.md."""
    lines = [f"| {' | '.join(HEADER)} |", f"|{'---|' * 2}{'---:|' * (len(HEADER) - 2)}"]
    lines += [f"| `{row[0]}` | {' | '.join(row[1:])} |" for row in compared_rows(plans)]
    lines += ["", *(f"- {note}" for note in SAID), *(f"- {verdict}" for verdict in verdicts(plans))]
    return "\n".join(lines) + "\n"


def plans_of_files() -> list[Plan]:
    """Every model stack as its file is. A broken one is left out: `ops plan --all` tells of it.

    So are the tuned ones (`ops tune`): another layout of a model on the list, 18 stacks whose steps are the same. `ops plan STACK --cold-start` has each.
    """
    from ops.overview import overview
    from recipe.predictions import tuned_gpus

    tuned = tuned_gpus()
    rows = [row for row in overview([]).rows if row.variant.stack not in tuned]
    return [row.plan for row in rows if row.variant.own and row.plan.gpu_pool]
