"""What `ops tune` shows, and the table of figures for the docs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.text import Text

from ops.plan_view import new_table, show
from ops.tuning import Found, newest, ratio
from recipe.predictions import KNOWN_GAPS, Prediction

_SHIPPED_TARGET: Final = 0.98


def show_found(found: Found, path: Path | None) -> None:
    """For a person: the layouts side by side, what was refused, where the file is."""
    row = found.row
    question = row.question
    table = new_table(
        "predicted",
        "layout",
        "tokens/s/GPU",
        "TTFT ms",
        "ITL ms",
        "in flight",
        right=("tokens/s/GPU", "TTFT ms", "ITL ms", "in flight"),
    )
    for one in row.judged:
        layout = one.layout
        figures = (f"{layout.tokens_per_s_gpu:.1f}", f"{layout.ttft_ms:.0f}", f"{layout.itl_ms:.1f}")
        table.add_row(one.stack, str(layout), *figures, f"{layout.concurrency:.0f}")
    for mode, value in row.optimum.items():
        table.add_row(f"free search, {mode}", row.optimum_layout[mode], f"{value:.1f}", "", "", "")
    for stack in row.out_of_limits:
        table.add_row(stack, "keeps these limits at no batch size", "", "", "", "")
    against, best = ratio(row)
    lines = [
        f"{question.model} on {question.gpus} x {row.gpu}, {question.isl}/{question.osl}, TTFT {question.ttft_ms:g}, ITL {question.itl_ms:g}",
        f"aiconfigurator {row.tool}, {row.database}, {row.seconds:g} s, {row.memory_mib} MiB",
        *([f"tuned / best recipe {against:.2f}"] if against else []),
        *([f"tuned / free optimum {best:.3f}"] if best else []),
        *(f"refused by the plan: {layout}: {why}" for layout, why in row.refused.items()),
        *(
            f"replayed: {layout}: TTFT {one.ttft_ms:.0f} (p99 {one.ttft_p99_ms:.0f}) ms, ITL {one.itl_ms or 0:.1f} ms, "
            f"goodput {one.goodput_share or 0:.0%}, prefix reuse {one.prefix_reuse:.0%} ({one.tool})"
            for layout, one in row.replays.items()
        ),
        *([gap] if (gap := row.gap()) else []),
        *KNOWN_GAPS,
        f"written: {path}" if path else "no layout within the limits is accepted by the plan; nothing was written",
    ]
    show(table, *(Text(line) for line in lines))


def markdown(rows: tuple[Prediction, ...]) -> str:
    """The table of figures, every row."""
    return "\n".join(_lines(rows)) + "\n"


def _lines(rows: tuple[Prediction, ...]) -> Iterator[str]:
    rows = in_order(rows)
    first = rows[0]
    yield "# Tuned layouts: figures"
    yield ""
    yield "Written by `make tuning-figures`. **Every figure is predicted** from NVIDIA's performance database; nothing was measured on a GPU."
    yield ""
    databases = ", ".join(sorted({row.database for row in rows}))
    yield f"aiconfigurator {first.tool}, databases {databases}; searched {newest(rows)} on {first.machine}. "
    for gap in dict.fromkeys(gap for row in rows if (gap := row.gap())):
        yield f"Known gap: {gap}. "
    for gap in KNOWN_GAPS:
        yield f"Known gap: {gap}. "
    yield ""
    yield "Output tokens per second and GPU under the same limits. Recipe: the best of the shipped layouts at its best batch size, on the same number of GPUs. "
    yield "Free: the tool's own best, agg or disagg, whatever our plan thinks of it."
    yield ""
    yield f"| {' | '.join(HEADER)} |"
    yield "|---|---|---|---|---:|---:|---:|---:|---:|---|---|---|"
    yield from (f"| {' | '.join(cells)} |" for cells in table_rows(rows))
    yield ""
    yield summary(rows)
    if replays := list(replay_rows(rows)):
        yield ""
        yield "## Replayed"
        yield ""
        yield REPLAYED_IS
        yield ""
        yield f"| {' | '.join(REPLAYED)} |"
        yield "|---|---|---|---|---:|---:|---:|---:|---:|"
        yield from (f"| {' | '.join(cells)} |" for cells in replays)


HEADER: Final = (
    "Model",
    "GPU",
    "Traffic",
    "Limits TTFT, ITL ms",
    "Recipe",
    "Tuned",
    "Free",
    "Tuned / recipe",
    "Tuned / free",
    "Tuned layout",
    "TTFT, ITL ms",
    "Search",
)


REPLAYED: Final = (
    "Model",
    "GPU",
    "Whose",
    "Layout",
    "Goodput",
    "TTFT mean, ms",
    "TTFT p99, ms",
    "ITL mean, ms",
    "Prefix reuse",
)
REPLAYED_IS: Final = (
    "The first quarter of the generated conversation trace, at its own times, router in the loop: predicted as well. What is shipped, beside the recipe's own "
    "layout with everything else tuned alike, each with the batch it does best with, and beside the estimate's best where that was not taken."
)


def in_order(rows: tuple[Prediction, ...]) -> tuple[Prediction, ...]:
    """By model, traffic and GPU, as tables show them."""
    return tuple(sorted(rows, key=lambda one: (one.question.model, one.traffic, one.gpu)))


def table_rows(rows: tuple[Prediction, ...]) -> Iterator[tuple[str, ...]]:
    """The cells of each row, as `HEADER` says."""
    for row in rows:
        question, tuned, recipe = row.question, row.tuned, row.recipe
        gain, close = ratio(row)
        yield (
            question.model.removeprefix("Qwen/"),
            f"{question.gpus} x {row.gpu}",
            f"{question.isl}/{question.osl}",
            f"{question.ttft_ms:g}, {question.itl_ms:g}",
            f"{recipe.layout.tokens_per_s_gpu:.0f} ({recipe.layout.mode})" if recipe else "none keeps them",
            f"{tuned.layout.tokens_per_s_gpu:.0f}" if tuned else "none",
            f"{row.best:.0f} ({max(row.optimum, key=lambda mode: row.optimum[mode])})" if row.optimum else "none",
            f"{gain:.2f}" if gain else "",
            f"{close:.3f}" if close else "",
            str(tuned.layout) if tuned else "",
            f"{tuned.layout.ttft_ms:.0f}, {tuned.layout.itl_ms:.1f}" if tuned else "",
            f"{row.seconds:.0f} s, {row.memory_mib} MiB",
        )


def replay_rows(rows: tuple[Prediction, ...]) -> Iterator[tuple[str, ...]]:
    """The cells of what was replayed and matters, as `REPLAYED` says."""
    for row in rows:
        for who, name, replay in row.replayed():
            share = "–" if replay.goodput_share is None else f"{replay.goodput_share:.0%}"
            yield (
                row.question.model.removeprefix("Qwen/"),
                f"{row.question.gpus} x {row.gpu}",
                who,
                name,
                share,
                f"{replay.ttft_ms:,.0f}",
                f"{replay.ttft_p99_ms:,.0f}",
                f"{replay.itl_ms:.1f}" if replay.itl_ms is not None else "–",
                f"{replay.prefix_reuse:.0%}",
            )


def summary(rows: tuple[Prediction, ...]) -> str:
    """How much better than the recipes, and how near to the free optimum, over all rows."""
    both = [ratio(row) for row in rows]
    gains, closeness = [gain for gain, _ in both if gain], [close for _, close in both if close]
    if not gains or not closeness:
        return f"{len(rows)} rows."
    mean = math.exp(sum(map(math.log, gains)) / len(gains))
    below = [row for row in rows if (close := ratio(row)[1]) and close < _SHIPPED_TARGET]
    said = (
        f"{len(rows)} rows. Geometric mean of tuned / recipe: **{mean:.3f}** (lowest {min(gains):.3f}); "
        f"lowest tuned / free: **{min(closeness):.3f}** (target {_SHIPPED_TARGET}, met by {len(closeness) - len(below)} of {len(closeness)})."
    )
    for row in below:
        kept = {who: (name, replay.goodput_share or 0.0) for who, name, replay in row.replayed()}
        if (first := kept.get("the estimate's best")) and (own := kept.get("tuned")):
            said += (
                f" {row.question.model.removeprefix('Qwen/')} on {row.gpu} with the trace is below it on purpose: replayed, {first[0]}, the best by the estimate, "
                f"keeps {first[1]:.0%} of the requests within the limits, and what is shipped {own[1]:.0%}."
            )
    return said
