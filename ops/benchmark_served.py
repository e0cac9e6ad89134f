"""The section "Served (simulated)": the rehearsal with tokens, the four corners live, and the offline replay beside them.

Every figure is of mock engines or of a prediction. What the commands print as JSON is what stands in the section.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import typer

from ops import stacks
from ops.benchmark_page import Figure, Grid, Section
from ops.compare.model import BY_KEY, METRICS
from ops.exits import FAILED, CommandError
from rehearsal.cache import cache_folder

PAIR: Final = ("qwen3-32b-agg", "qwen3-32b-disagg")
WARM_MINUTES: Final = 3
CORNERS_MINUTES: Final = 10
MEMORY_MIB: Final = 6 * 1024
_SAMPLE_SECONDS: Final = 1.0
_TRAFFIC: Final = {"same": "the live trace, three times", "full": "the live trace three times, the whole one twice"}


@dataclass(frozen=True)
class Whole:
    """A command with everything it starts."""

    seconds: float
    peak_mib: float
    """Most memory of the whole tree at one time; shared pages count once where the kernel says so (PSS)."""
    stdout: str


def measure_whole(args: Sequence[str], env: Mapping[str, str] | None = None) -> Whole:
    """Run `python -m ARGS` to its end, looking at its tree once a second. CommandError if it fails."""
    peak, over = 0.0, threading.Event()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as wrong:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", *args], cwd=stacks.ROOT, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=wrong
        )

        def look() -> None:
            nonlocal peak
            while not over.wait(_SAMPLE_SECONDS):
                peak = max(peak, tree_mib(process.pid))

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            code = process.wait()
        except BaseException:
            process.terminate()  # it ends what it started
            process.wait()
            raise
        finally:
            over.set()
            watcher.join()
        seconds = time.perf_counter() - begun
        said.seek(0)
        wrong.seek(0)
        if code:
            raise CommandError(
                f"{' '.join(args)} failed:\n{wrong.read()[-2000:]}", "make that command work first", FAILED
            )
        return Whole(seconds, peak, said.read())


def tree_mib(pid: int) -> float:
    """Memory of a process and all below it."""
    try:
        root = psutil.Process(pid)
        every = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0
    for one in every:
        try:
            total += _bytes(one)
        except (psutil.Error, OSError):
            continue
    return total / 2**20


def _bytes(process: psutil.Process) -> int:
    found = process.memory_full_info() if sys.platform.startswith("linux") else process.memory_info()
    return int(getattr(found, "pss", found.rss))


def served_section(
    where: str, *, profile: str = "small", cold: bool = True, replay: str = "full", settings: Sequence[str] = ()
) -> Section:
    """Measure all of it: about half an hour on two cores. `profile` and `settings` make it small for trying it."""
    figures = []
    if cold:
        _say("rehearsal with serving, its environment set up from nothing, once")
        figures.append(
            Figure(
                what="`make rehearse`, Dynamo's environment set up from nothing",
                values=(_cold().seconds / 60,),
                unit="min",
                digits=1,
            )
        )
    warm = []
    for number in (0, 1, 2):
        _say(f"rehearsal with serving, warm: {number or 'warm-up'}")
        warm.append(measure_whole(["ops", "rehearse", PAIR[1], "--serve"]))
    figures += [
        Figure(
            what="`make rehearse` with serving, warm", values=tuple(one.seconds / 60 for one in warm[1:]),
            unit="min", target=WARM_MINUTES, digits=1,
        ),
        Figure(
            what="its memory, all processes", values=tuple(one.peak_mib for one in warm[1:]), unit="MiB", target=MEMORY_MIB, digits=0
        ),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="dynamo-recipes-benchmark-") as name:
        _say("four corners, live")
        command = ["ops", "bench", *PAIR, "--corners", "--rehearse", "--profile", profile, "--replay", "no", "--json"]
        live = measure_whole([*command, "--out", name, *(part for one in settings for part in ("--set", one))])
        _say(f"offline replay: {replay}")
        # A cache without replays, so that they are made and not read.
        with _cache_of("serving") as cache:
            compared = measure_whole(["ops", "compare", name, "--all", "--json", "--replay", replay], cache)
    found = json.loads(compared.stdout)
    repeats = max(side["repeats"] for row in found["loads"].values() for side in row)
    figures += [
        Figure(
            what=f"four corners live, profile `{profile}`, {repeats} repeats", values=(live.seconds / 60,), unit="min",
            target=CORNERS_MINUTES, digits=1,
        ),
        Figure(what="its memory, all processes", values=(live.peak_mib,), unit="MiB", target=MEMORY_MIB, digits=0),
        Figure(
            what=f"offline replay of the four corners ({_TRAFFIC[replay]})", values=(compared.seconds / 60,), unit="min", digits=1, simulated=True
        ),
        Figure(what="its memory, all processes", values=(compared.peak_mib,), unit="MiB", target=MEMORY_MIB, digits=0),
    ]  # fmt: skip
    return section_of(found, where, figures)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _cold() -> Whole:
    """A rehearsal whose cache has the engine and nothing else; pip's own cache is left out as well."""
    with _cache_of("engine") as cache:
        return measure_whole(["ops", "rehearse", PAIR[1], "--serve"], cache | {"PIP_NO_CACHE_DIR": "1"})


@contextmanager
def _cache_of(*groups: str) -> Iterator[dict[str, str]]:
    """An environment whose cache has only these of our cache's groups."""
    with tempfile.TemporaryDirectory(prefix="dynamo-recipes-cache-") as name:
        for group in groups:
            (Path(name) / group).symlink_to(cache_folder() / group)
        yield {**os.environ, "DYNAMO_RECIPES_CACHE": name}


def section_of(found: Mapping[str, Any], where: str, figures: Sequence[Figure]) -> Section:
    """What `ops compare --json` printed, as a section. Pure."""
    grids = [_sides(f"Live, {load} (simulated)", row) for load, row in found["loads"].items()]
    limits = found["goodput_limits"]
    text = [
        f"Goodput: requests within TTFT {limits['ttft_ms']:g} ms and ITL {limits['itl_ms']:g} ms.",
        f"Times of the live runs come from {found['simulated']}.",
        *_listed("Verdict of the live runs", found["verdict"]),
    ]
    if replay := found.get("replay"):
        grids += [
            _sides(f"Offline replay (predicted), {replay['traffic'][load]}", row)
            for load, row in replay["loads"].items()
        ]
        grids.append(_agreements(replay))
        grids.append(_levels(replay))
        if whole := [one for one in replay["effects"] if one["load"] not in found["loads"]]:
            grids.append(_effects(whole))
            text.append(
                "What the switches do to the whole trace is of the offline replay alone: of disaggregation it is no evidence for GPUs."
            )
        text += [f"Predicted by {replay['predicted_by']}.", *_listed("Live against offline", replay["sentences"])]
        text += _listed("Not in the predictions", replay["notes"])
    else:
        text.append("The offline replay could not be had.")
    return Section(
        title="Served (simulated)", measured=where, figures=tuple(figures), grids=tuple(grids), text=tuple(text)
    )


def _listed(title: str, lines: Sequence[str]) -> list[str]:
    return [f"{title}:", "\n".join(f"- {line}" for line in lines)] if lines else []


def _sides(title: str, row: Sequence[Mapping[str, Any]]) -> Grid:
    shown = [metric for metric in METRICS if any(metric.key in side["figures"] for side in row)]
    head = ("run", *(f"{metric.title}, {metric.unit}" for metric in shown), "repeats")
    return Grid(
        title=title,
        head=head,
        rows=tuple(
            (
                side["run"],
                *(_cell(side["figures"].get(metric.key), metric.digits) for metric in shown),
                str(side["repeats"]),
            )
            for side in row
        ),
    )


def _percent(share: float | None) -> str:
    """None: from 0."""
    return "–" if share is None else f"{share:+.0%}"


def _cell(figure: Mapping[str, Any] | None, digits: int) -> str:
    if figure is None:
        return "–"
    values = figure["values"]
    spread = f" ±{(max(values) - min(values)) / 2:,.{digits}f}" if len(values) > 1 else ""
    return f"{figure['mean']:,.{digits}f}{spread}"


def _agreements(replay: Mapping[str, Any]) -> Grid:
    return Grid(
        title="Live against offline, by switch",
        head=("switch", "load", "figure", "live", "offline", "signs"),
        rows=tuple(
            (one["factor"], one["load"], BY_KEY[one["metric"]].title, _percent(one["live_share"]), _percent(one["offline_share"]), one["verdict"])
            for one in replay["agreements"]
        ),
    )  # fmt: skip


def _levels(replay: Mapping[str, Any]) -> Grid:
    return Grid(
        title="Offline figure against the live one",
        head=("run", "load", "figure", "offline is"),
        rows=tuple(
            (one["run"], one["load"], BY_KEY[one["metric"]].title, f"{one['offline_against_live']:+.0%}")
            for one in replay["levels"]
        ),
    )


def _effects(effects: Sequence[Mapping[str, Any]]) -> Grid:
    return Grid(
        title="What the switches do to the whole trace (predicted)",
        head=("switch", "figure", "change", "by the other switch", "beyond the repeats' own"),
        rows=tuple(
            (
                one["factor"],
                BY_KEY[one["metric"]].title,
                "–" if one["depends"] else _percent(one["share"]),
                ", ".join(f"{pair['with']} {_percent(pair['share'])}" for pair in one["pairs"]),
                "yes, opposite" if one["depends"] else "yes" if one["decided"] else "no",
            )
            for one in effects
        ),
    )
