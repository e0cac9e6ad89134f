"""The section "The whole trace, replayed (predicted)": the recipe pair on all four corners and the tuned stack, on every GPU.

Nothing serves and nothing was measured: NVIDIA's offline replay of the whole conversation trace, with the router in the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
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
            found = replay(plan, whole, LIMITS)
            made.append(found)
            rows.append(_row(stack, plan, found))
        grids.append(Grid(title=f"{model} on {gpu}, 16 GPUs", head=HEAD, rows=tuple(rows)))
    gaps = dict.fromkeys(gap for found in made for gap in found.gaps)
    return Section(
        title="The whole trace, replayed offline (predicted)",
        measured=f"{where} Predicted by {made[0].tool}, nothing was served: {made[0].requests:,} requests, {whole.origin}.",
        grids=tuple(grids),
        text=(
            (
                f"Goodput: requests within TTFT {LIMITS.ttft_ms:g} ms and ITL {LIMITS.itl_ms:g} ms, of all. One run each; with the kv router two runs differ by "
                "about a per cent. Live mock engines and this replay have disagreed on whether agg or disagg has the lower TTFT (see above)."
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


def _row(stack: str, plan: Plan, found: Replay) -> tuple[str, ...]:
    layout = " + ".join(f"{one.replicas} x TP{one.tensor_parallel} {one.role}" for one in plan.workers)
    return (
        f"`{stack}`",
        plan.recipe.router.mode,
        layout,
        f"{found.ttft_p50_ms:,.0f}",
        f"{found.ttft_p99_ms:,.0f}",
        f"{found.itl_p99_ms:,.1f}" if found.itl_p99_ms is not None else "–",
        f"{found.goodput_share:.0%}" if found.goodput_share is not None else "–",
        f"{found.goodput_rps:.2f}" if found.goodput_rps is not None else "–",
        f"{found.prefix_reuse:.0%}",
    )
