"""`ops compare`: only like with like, every figure with its spread, and a verdict that claims no more than the runs show."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import Result

from ops.bench.results import load
from ops.compare import charts
from ops.compare.model import Comparison, compare
from ops.compare.page import page
from ops.compare.view import table
from ops.exits import BAD_INPUT, OK
from tests.ops.bench_samples import beside, corners, folder

Run = Callable[..., Result]


def comparison(*paths: Path) -> Comparison:
    return compare([load(path) for path in paths])


# ── like with like ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"traffic__scale": 0.02}, "share of the trace 0.02 instead of 0.01"),
        ({"traffic__seed": 7}, "seed 7 instead of 100"),
        ({"trace__digest": "f" * 16}, "trace ffffffffffffffff instead of 0123456789abcdef"),
        ({"about__gpu": "h200"}, "GPU h200 instead of h100"),
        ({"about__gpus": 8}, "GPUs for the same trace 8 instead of 16"),
        ({"aiperf": "0.12.0"}, "AIPerf 0.12.0 instead of 0.13.0"),
        ({"goodput__itl_ms": 50}, "goodput limits ttft_ms 2000, itl_ms 50 instead of ttft_ms 2000, itl_ms 25"),
        ({"about__simulated": "a formula"}, "one is measured and the other simulated"),
    ],
)
def test_unlike_is_refused_with_what_differs(run: Run, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    done = run("compare", folder(tmp_path, "one"), folder(tmp_path, "other", mode="disagg", **changes))
    assert done.exit_code == BAD_INPUT
    assert said in done.output


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"traffic__isl": 2000}, "input tokens (ISL) 2000 instead of 4000"),
        ({"traffic__osl": 200}, "output tokens (OSL) 200 instead of 500"),
        ({"loads": (2.0, 6.0)}, "concurrency per GPU 2/6 instead of 1/2"),
    ],
)
def test_other_lengths_and_another_load_per_gpu_are_refused(
    run: Run, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """Upstream's own pair compares 2 with 6 requests per GPU (facts/dynamo.md §6)."""
    one = folder(tmp_path, "one", loads=(1.0, 2.0))
    other = folder(tmp_path, "other", **({"loads": (1.0, 2.0)} | changes))
    done = run("compare", one, other)
    assert done.exit_code == BAD_INPUT
    assert said in done.output


def test_a_fixed_load_per_gpu_compares_stacks_of_another_size(tmp_path: Path) -> None:
    found = comparison(
        folder(tmp_path, "one", loads=(1.0,)), folder(tmp_path, "other", loads=(1.0,), about__gpus=8, router="kv")
    )
    assert found.loads == ("1 per GPU",)
    assert any("another number of GPUs" in warning for warning in found.warnings)


def test_one_run_is_nothing_to_compare(run: Run, tmp_path: Path) -> None:
    assert run("compare", folder(tmp_path)).exit_code == BAD_INPUT


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_figures_are_per_gpu_and_per_million_tokens_with_the_repeats_spread(tmp_path: Path) -> None:
    found = comparison(folder(tmp_path, "one"), folder(tmp_path, "other", router="kv"))
    figures = found.sides["trace"][0].figures
    assert figures["ttft_ms"].mean == 405
    assert figures["ttft_ms"].spread == 10
    assert figures["tokens_per_s_gpu"].mean == 640 / 16
    assert figures["usd_per_million"].mean == pytest.approx(113.55 / (640 * 3600) * 1e6)


def test_a_run_that_was_cut_short_is_compared_on_what_both_have_and_named(tmp_path: Path) -> None:
    whole = folder(tmp_path, "whole", loads=(1.0, 2.0))
    short = folder(tmp_path, "short", loads=(1.0, 2.0), router="kv", state="cut short")
    for file in (short / "points").glob("c2-*"):
        file.unlink()
    found = comparison(whole, short)
    assert found.loads == ("1 per GPU",)
    assert any("was cut short: AIPerf ended with exit code 1" in warning for warning in found.warnings)
    assert any("left out, because another run lacks it: 2 per GPU" in warning for warning in found.warnings)


# ── the verdict ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_with_four_corners_each_switch_gets_what_it_did(tmp_path: Path) -> None:
    found = comparison(*corners(tmp_path))
    said = {sentence.partition(":")[0]: sentence for sentence in found.verdict}
    assert said["TTFT mean"].startswith("TTFT mean: router decided: round-robin → kv -37%")
    assert "disaggregation makes no difference beyond the repeats' own" in said["TTFT mean"]
    assert said["ITL mean"].startswith("ITL mean: disaggregation decided: agg → disagg -29%")
    assert found.missing_corners == ()


def test_a_switch_that_helps_here_and_hurts_there_is_said_of_each_and_not_averaged(run: Run, tmp_path: Path) -> None:
    """Goodput of the sample is 1000 / TTFT, so both figures turn with it."""
    paths = [
        folder(tmp_path, "agg-rr", ttft=(400.0, 404.0)),
        folder(tmp_path, "agg-kv", router="kv", ttft=(500.0, 505.0)),
        folder(tmp_path, "disagg-rr", mode="disagg", ttft=(600.0, 606.0)),
        folder(tmp_path, "disagg-kv", mode="disagg", router="kv", ttft=(300.0, 303.0)),
    ]
    found = comparison(*paths)
    said = {sentence.partition(":")[0]: sentence for sentence in found.verdict}
    assert said["TTFT mean"] == (
        "TTFT mean: what router does depends on the other switch: round-robin → kv +25% with agg (worse), -50% with disagg; "
        "what disaggregation does depends on the other switch: agg → disagg +50% with round-robin (worse), -40% with kv."
    )
    (effect,) = [
        one
        for one in json.loads(run("compare", *paths, "--json").stdout)["effects"]
        if (one["factor"], one["metric"]) == ("router", "ttft_ms")
    ]
    assert (effect["depends"], effect["decided"]) == (True, False)
    assert {pair["with"]: pair["share"] for pair in effect["pairs"]} == {"agg": 0.25, "disagg": -0.5}


def test_the_recipes_own_pair_cannot_say_which_switch_it_was(run: Run, tmp_path: Path) -> None:
    agg, _, _, disagg = corners(tmp_path)
    found = comparison(agg, disagg)
    assert found.effects == (), "the pair turns both switches at once"
    assert (
        "cannot be told from these runs. Measure agg with kv and disagg with round-robin as well." in found.verdict[0]
    )
    done = run("compare", agg, disagg)
    assert done.exit_code == OK
    assert "python -m ops compare --corners qwen3-32b-agg qwen3-32b-disagg" in done.output


def test_a_difference_within_the_repeats_is_noise(tmp_path: Path) -> None:
    found = comparison(
        folder(tmp_path, "one", ttft=(400.0, 430.0)), folder(tmp_path, "other", router="kv", ttft=(405.0, 400.0))
    )
    (said,) = [sentence for sentence in found.verdict if sentence.startswith("TTFT mean")]
    assert said.startswith("TTFT mean: noise: round-robin → kv -3%")


def test_repeats_that_happen_to_agree_do_not_make_two_percent_a_result(tmp_path: Path) -> None:
    found = comparison(
        folder(tmp_path, "one", ttft=(400.0, 400.0)), folder(tmp_path, "other", router="kv", ttft=(396.0, 396.0))
    )
    assert any(sentence.startswith("TTFT mean: noise") for sentence in found.verdict)


def test_from_nothing_there_is_no_percentage(run: Run, tmp_path: Path) -> None:
    """Goodput of 0 is what a stack over its limits has; "+0%" would say that nothing changed."""
    paths = corners(tmp_path)
    for path in paths:
        for number, file in enumerate(sorted((path / "points").glob("*.json"))):
            data = json.loads(file.read_text())
            data["metrics"]["goodput"]["avg"] = 0.0 if path.name.endswith("rr") else 2.0 + number / 100
            file.write_text(json.dumps(data))
    (said,) = (one for one in comparison(*paths).verdict if one.startswith("goodput"))
    assert "round-robin → kv +2.0" in said
    assert "+0%" not in said
    (effect,) = (
        one
        for one in json.loads(run("compare", *paths, "--json").stdout)["effects"]
        if (one["factor"], one["metric"]) == ("router", "goodput_rps")
    )
    assert effect["share"] is None
    assert [pair["share"] for pair in effect["pairs"]] == [None, None]


def test_one_run_each_decides_nothing(tmp_path: Path) -> None:
    one = folder(tmp_path, "one", ttft=(400.0,), itl=(14.0,))
    other = folder(tmp_path, "other", router="kv", ttft=(200.0,), itl=(14.0,))
    found = comparison(one, other)
    assert "one run each, so nothing is known of the noise" in found.verdict[0]


@pytest.mark.parametrize(
    "changes", [{"about__engine": "trtllm"}, {"model": "Qwen/Qwen3-32B-FP8"}, {"about__versions": {"dynamo": "1.5.1"}}]
)
def test_what_differs_in_more_than_the_two_switches_is_attributed_to_neither(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    found = comparison(folder(tmp_path, "one"), folder(tmp_path, "other", router="kv", **changes))
    assert len(found.verdict) == 1
    assert "nothing can be said of router and disaggregation alone" in found.verdict[0]


def test_simulated_figures_are_marked_everywhere_and_no_evidence_for_disaggregation(run: Run, tmp_path: Path) -> None:
    paths = corners(tmp_path, about__simulated="NVIDIA's performance database")
    found = comparison(*paths)
    assert "no evidence for real GPUs" in found.verdict[-1]
    assert "Simulated: no GPU was measured" in run("compare", *paths).output
    assert json.loads(run("compare", *paths, "--json").stdout)["simulated"] == "NVIDIA's performance database"
    assert "<b>Simulated.</b> No GPU was measured" in page(found)


# ── output ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("columns", [60, 80, 100, 250])
def test_no_figure_is_cut_however_narrow_the_terminal(columns: int, tmp_path: Path) -> None:
    found = comparison(*corners(tmp_path))
    screen = Console(width=columns, file=io.StringIO(), force_terminal=False)
    with screen.capture() as captured:
        screen.print(table(found.sides["trace"]))
    said = captured.get()
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= columns
    for cell in ("405 ±5", "1,215 ±15", "10.1 ±0.0", "qwen3-32b-disagg, kv"):
        assert cell in said


def test_json_holds_every_figure_and_the_verdict(run: Run, tmp_path: Path) -> None:
    data = json.loads(run("compare", *corners(tmp_path), "--json").stdout)
    assert [one["name"] for one in data["runs"]] == [
        "qwen3-32b-agg, round-robin",
        "qwen3-32b-agg, kv",
        "qwen3-32b-disagg, round-robin",
        "qwen3-32b-disagg, kv",
    ]
    assert data["loads"]["trace"][0]["figures"]["ttft_ms"] == {"mean": 405.0, "values": [400.0, 410.0]}
    assert {effect["factor"] for effect in data["effects"]} == {"router", "disaggregation"}
    assert data["verdict"]


def test_a_folder_above_means_the_newest_run_below_and_all_means_all(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "results"
    paths = corners(root)
    for number, path in enumerate(paths):
        os.utime(path / "run.json", (number, number))
    data = json.loads(run("compare", root, paths[0], "--json").stdout)
    assert [Path(one["folder"]).name for one in data["runs"]] == ["disagg-kv", "agg-rr"]
    assert len(json.loads(run("compare", root, "--all", "--json").stdout)["runs"]) == 4


def test_what_cannot_be_read_is_named_and_its_neighbours_are_used(run: Run, tmp_path: Path) -> None:
    one, other = folder(tmp_path, "one"), folder(tmp_path, "other", router="kv")
    (other / "points" / "r2.json").write_text("{")
    done = run("compare", one, other)
    assert done.exit_code == OK
    assert "r2.json cannot be read" in re.sub(r"\s+", " ", done.output)
    (other / "points" / "r1.json").write_text("{")
    done = run("compare", one, other)
    assert done.exit_code == BAD_INPUT
    assert "holds no measured point" in done.output


@pytest.mark.parametrize(
    ("file", "path", "value", "said"),
    [
        ("points/r1.json", "metrics", [], "metrics: Input should be a valid dictionary"),
        ("points/r1.json", "metrics.goodput", None, "metrics.goodput"),
        ("points/r1.json", "metrics.goodput.avg", math.nan, "metrics.goodput.avg: Input should be a finite number"),
        ("points/r1.json", "point.concurrency_per_gpu", "2", "point.concurrency_per_gpu"),
        ("points/r1.json", "trace", "of another pod", "r1.json is of another trace"),
        ("run.json", "points", None, "points: Input should be a valid list"),
        ("run.json", "traffic", None, "traffic: "),
        ("run.json", "about", {}, "about.engine: Field required"),
        ("run.json", "about.usd_per_hour", None, "about.usd_per_hour"),
        ("status.json", "state", None, "status.json cannot be read: state"),
    ],
)
def test_damaged_results_are_named_and_never_a_figure(
    run: Run, tmp_path: Path, file: str, path: str, value: Any, said: str
) -> None:
    one, other = folder(tmp_path, "one"), folder(tmp_path, "other", router="kv")
    data = json.loads((other / file).read_text())
    *parents, last = path.split(".")
    target = data
    for parent in parents:
        target = target[parent]
    target[last] = value
    (other / file).write_text(json.dumps(data))
    done = run("compare", one, other)
    assert said in re.sub(r"\s+", " ", done.output)
    assert done.exit_code == (BAD_INPUT if file == "run.json" else OK)
    assert "nan" not in done.stdout.lower()


def test_another_format_is_refused(run: Run, tmp_path: Path) -> None:
    done = run("compare", folder(tmp_path, "one"), folder(tmp_path, "other", format=99))
    assert done.exit_code == BAD_INPUT
    assert "format 99" in done.output


def test_corners_print_what_to_run_and_set(run: Run) -> None:
    done = run("compare", "--corners", "qwen3-32b-agg", "qwen3-32b-disagg", "--profile", "mooncake")
    assert done.exit_code == OK, done.output
    lines = done.stdout.splitlines()
    assert sum(line.startswith("python -m ops bench") for line in lines) == 4
    assert "pulumi config set -s qwen3-32b-agg --path recipe.router.mode kv" in lines
    assert "pulumi config set -s qwen3-32b-disagg --path recipe.router.mode round-robin" in lines


def test_corners_are_commands_and_no_json(run: Run) -> None:
    done = run("compare", "--corners", "qwen3-32b-agg", "qwen3-32b-disagg", "--json")
    assert done.exit_code == BAD_INPUT
    assert "leave out --json" in done.output


def test_the_same_run_twice_is_one(run: Run, tmp_path: Path) -> None:
    one = folder(tmp_path)
    done = run("compare", one, one / ".." / one.name)
    assert done.exit_code == BAD_INPUT
    assert "two runs at least" in done.output


def test_all_leaves_rehearsed_runs_out_beside_measured_ones(run: Run, tmp_path: Path) -> None:
    corners(tmp_path)
    folder(tmp_path, "1-abc-rehearsed", about__simulated="a formula")
    done = run("compare", tmp_path, "--all", "--json")
    assert done.exit_code == OK, done.output
    assert len(json.loads(done.stdout)["runs"]) == 4


def test_corners_need_a_pair_that_differs_in_mode(run: Run) -> None:
    done = run("compare", "--corners", "qwen3-32b-agg", "qwen3-32b-agg")
    assert done.exit_code == BAD_INPUT
    done = run("compare", "--corners", "qwen3-32b-agg", "qwen3-32b-fp8-disagg")
    assert "different models" in done.output


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    text = page(comparison(*corners(tmp_path)))
    assert not re.search(r"<(script|link|img|iframe|object)\b|url\(|@import|\bsrc=|\bhref=", text)
    assert "default-src 'none'" in text
    assert text.count("<svg") == 5, "TTFT, ITL, latency against throughput, cost, goodput"


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    text = page(comparison(folder(tmp_path, "one", stack=evil), folder(tmp_path, "other", router="kv")))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(("low", "high"), [(3.0, 3.0), (0.5, 99_000.0), (10.0, 11.0)])
@pytest.mark.parametrize("log", [True, False])
def test_an_axis_holds_its_values_and_has_a_few_round_ticks(low: float, high: float, log: bool) -> None:
    made = charts.axis("x", [low, high], log=log)
    assert 0 <= made.at(low) <= made.at(high) <= 1
    ticks = made.ticks()
    assert 1 <= len(ticks) <= 11
    assert all(math.isfinite(tick) for tick in ticks)


def browser() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no browser: `make browser` installs Debian's chromium where it may (apt-get install -y chromium)")
    return found


@pytest.mark.slow
def test_a_real_browser_shows_the_page_without_a_complaint(tmp_path: Path) -> None:
    paths = corners(tmp_path / "fixed", loads=(1.0, 2.0, 4.0))
    file, shot = tmp_path / "page.html", tmp_path / "page.png"
    found = comparison(*paths)
    file.write_text(page(replace(found, replay=beside(found))), encoding="utf-8")
    command = [browser(), "--headless", "--disable-gpu", "--no-first-run"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    # Whatever the page asked the network for would end here, and in the log.
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--window-size=1200,2600"]

    def looked_at(profile: str, *how: str) -> str:
        """A profile for each look: children of the one before may still hold theirs, and a browser that finds it held only asks them."""
        done = subprocess.run(
            [*command, f"--user-data-dir={tmp_path / profile}", *how, file.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stderr

    complaints = [
        line for line in looked_at("first", "--dump-dom").splitlines() if "CONSOLE" in line or "ERR_NAME" in line
    ]
    assert complaints == [], "Content-Security-Policy, a broken tag, or a request"
    said = looked_at("second", f"--screenshot={shot}")
    assert shot.is_file(), said[-2000:]
    pixels = colours(shot)
    for number, name in enumerate(("agg, round-robin", "agg, kv", "disagg, round-robin", "disagg, kv")):
        colour = charts.COLOURS[number]
        wanted = (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))
        assert pixels.get(wanted, 0) > 200, f"nothing of {name} is drawn"


def colours(png: Path) -> dict[tuple[int, int, int], int]:
    """How often each colour occurs in an 8-bit RGB or RGBA picture."""
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, kind = int.from_bytes(data[16:20]), int.from_bytes(data[20:24]), data[24], data[25]
    assert (depth, kind in (2, 6)) == (8, True)
    packed, at = b"", 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        packed += data[at + 8 : at + 8 + size] if data[at + 4 : at + 8] == b"IDAT" else b""
        at += size + 12
    raw, step = zlib.decompress(packed), 3 if kind == 2 else 4
    found: dict[tuple[int, int, int], int] = {}
    above = bytearray(width * step)
    for row in range(height):
        start = row * (width * step + 1)
        line = _unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + width * step]), above, step)
        for pixel in range(0, len(line), step):
            colour = (line[pixel], line[pixel + 1], line[pixel + 2])
            found[colour] = found.get(colour, 0) + 1
        above = line
    return found


def _unfiltered(kind: int, line: bytearray, above: bytearray, step: int) -> bytearray:
    """A row of a picture without PNG's filter (https://www.w3.org/TR/png-3/#9Filters)."""
    for at in range(len(line)):
        left = line[at - step] if at >= step else 0
        corner = above[at - step] if at >= step else 0
        up = above[at]
        match kind:
            case 1:
                guess = left
            case 2:
                guess = up
            case 3:
                guess = (left + up) // 2
            case 4:
                guess = min((left, up, corner), key=lambda one: abs(left + up - corner - one))
            case _:
                guess = 0
        line[at] = (line[at] + guess) & 0xFF
    return line
