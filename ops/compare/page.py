"""The comparison as one HTML file: it holds everything it shows, asks nobody for anything, and prints."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from ops.compare import charts, predicted
from ops.compare.charts import Series, axis
from ops.compare.model import BY_KEY, METRICS, Comparison, Figure, Side, distribution
from ops.compare.view import agreement_rows

if TYPE_CHECKING:
    from ops.compare.replayed import Replayed

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
.simulated { background: #fff4d6; border-left: 4px solid #b3861b; padding: .6em 1em; }
.verdict li { margin: .3em 0; }
.warning { color: #8a3d00; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25em .7em; border-bottom: 1px solid #e3e6e9; }
th:first-child, td:first-child { text-align: left; }
td small { color: #68717a; }
.charts { display: flex; flex-wrap: wrap; gap: 1.5em; }
svg { max-width: 100%; height: auto; }
pre { background: #f5f6f7; padding: .8em; overflow-x: auto; }
"""
_STEPS: Final = 200
"""Points of a distribution's line."""


def page(found: Comparison, title: str = "Comparison of benchmarks") -> str:
    """The whole file."""
    parts = [f"<h1>{escape(title)}</h1>"]
    if found.simulated:
        parts.append(
            f'<p class="simulated"><b>Simulated.</b> No GPU was measured. Times come from {escape(found.simulated)}.</p>'
        )
    parts.append(
        "<h2>Verdict</h2><ul class='verdict'>" + "".join(f"<li>{escape(one)}</li>" for one in found.verdict) + "</ul>"
    )
    parts += [f'<p class="warning">{escape(one)}</p>' for one in found.warnings]
    for load in found.loads:
        parts.append(f"<h2>{escape(_heading(load))}</h2>{_table(found, load)}")
    if found.replay is not None:
        parts.append(_replay(found.replay))
    parts.append(predicted.html(found.runs))
    parts.append('<h2>Charts</h2><div class="charts">' + "".join(_charts(found)) + "</div>")
    parts.append("<h2>What was measured</h2>" + _about(found))
    body = "\n".join(parts)
    # No request may leave this page, whatever somebody puts into a name.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def _heading(load: str) -> str:
    return "The trace at its own times" if load == "trace" else f"{load} in flight"


def _table(found: Comparison, load: str) -> str:
    return _sides(found.sides[load])


def _sides(sides: Sequence[Side]) -> str:
    head = "".join(f"<th>{escape(metric.title)}<br><small>{escape(metric.unit)}</small></th>" for metric in METRICS)
    rows = []
    for side in sides:
        cells = "".join(_cell(side.figures.get(metric.key), metric.digits) for metric in METRICS)
        rows.append(f"<tr><td>{escape(side.run.name)} <small>× {side.repeats}</small></td>{cells}</tr>")
    return f"<table><tr><th>run</th>{head}</tr>{''.join(rows)}</table>"


def _replay(found: Replayed) -> str:
    """Predictions, and where they contradict what ran."""
    intro = (
        f"<b>Predicted</b> by {escape(found.tool)} in virtual time, from NVIDIA's performance database. "
        "Nothing was served, no GPU was measured."
    )
    parts = [f'<h2>Offline replay (predicted)</h2><p class="simulated">{intro}</p>']
    parts += [f"<h3>{escape(found.traffic[load])}</h3>{_sides(row)}" for load, row in found.sides.items()]
    if found.agreements:
        head = "".join(f"<th>{title}</th>" for title in ("switch", "load", "figure", "live", "offline", "signs"))
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in agreement_rows(found)
        )
        parts.append(f"<h3>Live against offline</h3><table><tr>{head}</tr>{rows}</table>")
    parts.append("<ul>" + "".join(f"<li>{escape(one)}</li>" for one in found.sentences()) + "</ul>")
    parts += [f"<p><small>Not in the prediction: {escape(one)}</small></p>" for one in found.notes]
    return "\n".join(parts)


def _cell(figure: Figure | None, digits: int) -> str:
    if figure is None:
        return "<td>–</td>"
    spread = f" <small>±{figure.spread / 2:,.{digits}f}</small>" if len(figure.values) > 1 else ""
    return f"<td>{figure.mean:,.{digits}f}{spread}</td>"


def _charts(found: Comparison) -> list[str]:
    made = []
    last = found.loads[-1]
    where = "" if len(found.loads) == 1 else f", {last}"
    for column, what in (("ttft_ms", "TTFT"), ("itl_ms", "ITL")):
        values = [distribution(run, last, column) for run in found.runs]
        everything = [value for one in values for value in one]
        if not everything:
            continue
        x, y = (
            axis(f"{what}, ms (logarithmic)", everything, log=True),
            axis("share of requests, %", [0, 100], zero=True),
        )
        series = [Series(run.name, _cumulative(one)) for run, one in zip(found.runs, values, strict=True) if one]
        made.append(charts.lines(f"{what} of every request{where}", x, charts.Axis(y.title, 0, 100), series))
    made.append(_against_throughput(found))
    made.append(_bars(found, "usd_per_million", "Dollars per million output tokens"))
    made.append(_bars(found, "goodput_rps", "Goodput: requests a second within both limits"))
    return [chart for chart in made if chart]


def _cumulative(values: list[float]) -> tuple[tuple[float, float], ...]:
    """Share of requests up to each of some values."""
    count = len(values)
    steps = sorted({round(step * (count - 1) / _STEPS) for step in range(_STEPS + 1)})
    return tuple((values[index], 100 * (index + 1) / count) for index in steps)


def _against_throughput(found: Comparison) -> str:
    series = []
    for number, run in enumerate(found.runs):
        points, marks = [], []
        for load in found.loads:
            figures = found.sides[load][number].figures
            if "tokens_per_s_gpu" in figures and "latency_ms" in figures:
                points.append((figures["tokens_per_s_gpu"].mean, figures["latency_ms"].mean))
                marks.append("" if load == "trace" else load.removesuffix(" per GPU"))
        if points:
            series.append(Series(run.name, tuple(points), tuple(marks)))
    if not series:
        return ""
    numbers = "" if found.loads == ("trace",) else "; numbers: requests in flight per GPU"
    what = f"output tokens a second per GPU{numbers}"
    x = axis(what, [a for one in series for a, _ in one.points])
    y = axis("mean request latency, ms", [b for one in series for _, b in one.points])
    return charts.lines("Latency against throughput", x, y, series, dots=True)


def _bars(found: Comparison, key: str, title: str) -> str:
    groups = []
    for load in found.loads:
        figures = [(side.run.name, side.figures[key]) for side in found.sides[load] if key in side.figures]
        groups.append((load, [(name, one.mean, min(one.values), max(one.values)) for name, one in figures]))
    values = [high for _, group in groups for _, _, _, high in group]
    if not values:
        return ""
    return charts.bars(title, axis(BY_KEY[key].unit, [*values, 0], zero=True), groups)


def _about(found: Comparison) -> str:
    rows = []
    for run in found.runs:
        stack = run.stack
        workers = ", ".join(
            f"{one['replicas']} × {one['role']} of {one['gpus'] or one['tensor_parallel']}" for one in stack["workers"]
        )
        versions = ", ".join(
            f"{name} {version}" for name, version in stack["versions"].items() if name in ("dynamo", stack["engine"])
        )
        rows.append(
            f"<tr><td>{escape(run.name)}</td><td>{escape(str(run.about['model']))}</td><td>{escape(workers)}</td>"
            f"<td>{run.gpus} × {escape(str(stack['gpu'] or stack['instance_type']))}</td><td>{run.usd_per_hour:,.2f}</td>"
            f"<td>{escape(versions)}, AIPerf {escape(str(run.about['aiperf']))}</td><td>{escape(str(run.about.get('started_at', '')))}</td></tr>"
        )
    limits = found.runs[0].about["goodput"]
    head = "<tr><th>run</th><th>model</th><th>workers × GPUs</th><th>GPUs</th><th>$ an hour</th><th>versions</th><th>started</th></tr>"
    dates = sorted({str(line["as_of"]) for run in found.runs for line in run.stack["prices"] if line["as_of"]})
    return (
        f"<table>{head}{''.join(rows)}</table><p>Goodput limits: TTFT {limits['ttft_ms']:g} ms and ITL {limits['itl_ms']:g} ms. ± is half the range over "
        f"the repeats. Dollars are the whole stack's list price an hour (prices of {escape(', '.join(dates))}), divided by what came out.</p>"
    )
