"""The section "The whole trace, replayed (predicted)": the recipe pair on all four corners and the tuned stack, on every GPU.

Nothing serves and nothing was measured: NVIDIA's offline replay of the whole conversation trace, with the router in the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Final

import typer

from ops.bench.command import corners
from ops.benchmark_page import Grid, Section
from ops.benchmark_served import PAIR
from ops.compare.replayed import whole_trace
from ops.planning import planned
from ops.tuning import TRACE
from ops.variants import GPUS
from recipe.plan import Plan
from recipe.predictions import read
from rehearsal.serving.replay import Limits, Replay, Trace, replay

LIMITS: Final = Limits(ttft_ms=5000, itl_ms=30)
"""Those that the tuned trace stacks were searched for."""
KV_REPLAYS: Final = 3
"""Of each stack with the kv router, where two replays differ; with round-robin they do not."""
HEAD: Final = (
    "stack",
    "router",
    "layout",
    "TTFT p50, ms",
    "TTFT p99, ms",
    "ITL p99, ms",
    "goodput",
    "good requests/s",
    "prefix reuse",
)


def replays_section(where: str, traffic: Trace | None = None) -> Section:
    """Replay all of it: about five minutes on two cores. `traffic`: another trace, to try it."""
    whole = traffic or whole_trace(_say)
    model = planned(PAIR[0], []).model.model.id
    grids, made = [], []
    for gpu in GPUS:
        rows = []
        for stack, plan in _plans(gpu, model):
            _say(f"{gpu}: {stack}, {plan.recipe.router.mode}")
            attempts = KV_REPLAYS if plan.recipe.router.mode == "kv" else 1
            found = [replay(plan, whole, LIMITS, attempt=number) for number in range(1, attempts + 1)]
            made += found
            rows.append(_row(stack, plan, found))
        grids.append(Grid(title=f"{model} on {gpu}, 16 GPUs", head=HEAD, rows=tuple(rows)))
    gaps = dict.fromkeys(gap for found in made for gap in found.gaps)
    return Section(
        title="The whole trace, replayed offline (predicted)",
        measured=f"{where} Predicted by {made[0].tool}, nothing was served: {made[0].requests:,} requests, {whole.origin}.",
        grids=tuple(grids),
        text=(
            (
                f"Goodput: requests within TTFT {LIMITS.ttft_ms:g} ms and ITL {LIMITS.itl_ms:g} ms, of all. With the kv router {KV_REPLAYS} replays each, mean ± half "
                "of the range; with round-robin two are equal. Live mock engines and this replay have disagreed on whether agg or disagg has the lower TTFT (see above)."
            ),
            "\n".join(f"- not in it: {gap}" for gap in gaps),
        ),
    )


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _plans(gpu: str, model: str) -> Iterator[tuple[str, Plan]]:
    settings = [f"hardware.gpu={gpu}", "budget.usd_per_hour=1000"]  # the files' caps are meant for their own GPU
    for corner in corners(*PAIR, settings):
        yield corner.stack, planned(corner.stack, list(corner.settings)).model
    for row in read():
        if row.tuned and (row.gpu, row.traffic, row.question.model) == (gpu, TRACE.name, model):
            yield row.tuned.stack, planned(row.tuned.stack, []).model


def _row(stack: str, plan: Plan, found: Sequence[Replay]) -> tuple[str, ...]:
    layout = " + ".join(f"{one.replicas} x TP{one.tensor_parallel} {one.role}" for one in plan.workers)

    def cell(of: Callable[[Replay], float | None], style: str = ",.0f") -> str:
        values = [value for one in found if (value := of(one)) is not None]
        if not values:
            return "–"
        half = (max(values) - min(values)) / 2
        return f"{fmean(values):{style}}" + (f" ±{half:{style}}" if len(values) > 1 else "")

    return (
        f"`{stack}`",
        plan.recipe.router.mode,
        layout,
        cell(lambda one: one.ttft_p50_ms),
        cell(lambda one: one.ttft_p99_ms),
        cell(lambda one: one.itl_p99_ms, ",.1f"),
        cell(lambda one: one.goodput_share, ".1%"),
        cell(lambda one: one.goodput_rps, ".2f"),
        cell(lambda one: one.prefix_reuse, ".0%"),
    )
