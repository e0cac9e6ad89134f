"""Offline replay beside live runs: the traffic that ran is what is replayed, and where both disagree it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ops.bench.results import Run, load
from ops.compare import replayed as module
from ops.compare.model import Comparison, compare
from ops.compare.page import page
from ops.compare.replayed import FULL, plan_of, replayed, traffic_of, whole_trace
from ops.compare.view import as_data
from ops.exits import OK
from ops.planning import planned
from recipe.scripts import trace
from rehearsal.errors import SetupError
from rehearsal.serving.replay import Fixed, Replay, Trace
from tests.ops.bench_samples import answer, beside, corners, folder

REQUESTS = trace.generated(100, 0.001)


def recorded(root: Path, name: str = "run", **changes: Any) -> Path:
    """A run of the stack as it is, with a trace that can be made again."""
    mode = str(changes.get("mode", "agg"))
    recipe = planned(f"qwen3-32b-{mode}", [f"router={{mode: {changes.get('router', 'round-robin')}}}"]).model.recipe
    kept = recipe.model_dump(mode="json", exclude={"access", "owner", "benchmark", "budget", "deployment_id"})
    more: dict[str, Any] = {"about__recipe": kept, "traffic__scale": 0.001, "trace__digest": trace.digest(REQUESTS)}
    return folder(root, name, **(more | changes))


def four(root: Path) -> Comparison:
    return compare([load(path) for path in corners(root)])


def test_what_points_the_other_way_is_shown_as_disagreement_and_noise_as_neither(tmp_path: Path) -> None:
    found = beside(four(tmp_path))
    words = {(one.live.factor, one.live.metric): one.word for one in found.agreements}
    assert words["router", "ttft_ms"] == "disagree", "live -37 %, offline +50 %"
    assert words["disaggregation", "itl_ms"] == "agree"
    assert words["disaggregation", "ttft_ms"] == "undecided", "nothing beyond the repeats in either"
    assert any("router, TTFT mean: live -37%, offline +50%" in one for one in found.sentences()), found.sentences()
    assert any("What was measured counts" in one for one in found.sentences()), "these samples are of GPUs"
    simulated = compare([load(path) for path in corners(tmp_path / "simulated", about__simulated="a formula")])
    assert any("Neither is evidence of a GPU" in one for one in beside(simulated).sentences())
    assert any(one.startswith("disaggregation: of 4 figures") for one in found.sentences())


def test_the_level_of_each_figure_is_put_against_the_live_one(tmp_path: Path) -> None:
    levels = {(run, key): share for _, run, key, share in beside(four(tmp_path)).levels}
    assert levels["qwen3-32b-agg, round-robin", "ttft_ms"] == pytest.approx(400 / 405 - 1)
    assert levels["qwen3-32b-disagg, kv", "ttft_ms"] > 1, "600 against 254.5"


def test_terminal_data_and_page_hold_prediction_and_disagreement(tmp_path: Path) -> None:
    found = four(tmp_path)
    assert as_data(found)["replay"] is None
    assert "Offline replay" not in page(found)
    both = replace(found, replay=beside(found))
    data = as_data(both)["replay"]
    assert data["simulated"] is True
    assert {one["verdict"] for one in data["agreements"]} == {"agree", "disagree", "undecided"}
    text = page(both)
    assert "Offline replay (predicted)" in text
    assert "<td>disagree</td>" in text
    assert "Not in the prediction: a gap" in text


def test_the_trace_that_ran_is_made_again_and_another_one_is_not_passed_off_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_published", lambda: None)
    found = traffic_of(load(recorded(tmp_path)), "trace")
    assert isinstance(found, Trace)
    assert trace.digest(trace.read(found.text)) == trace.digest(REQUESTS)
    assert traffic_of(load(recorded(tmp_path, "other", trace__digest="f" * 16)), "trace") is None


def test_a_fixed_load_is_replayed_with_its_requests_in_flight(tmp_path: Path) -> None:
    run = load(folder(tmp_path, loads=(2.0,), traffic__requests_per_slot=3))
    assert traffic_of(run, "2 per GPU") == Fixed(4000, 500, 32, 96), "2 on each of 16 GPUs"


def test_the_plan_is_that_of_the_results_not_of_the_stack_file(tmp_path: Path) -> None:
    plan = plan_of(load(recorded(tmp_path, router="kv")))
    assert planned("qwen3-32b-agg", []).model.recipe.router.mode == "round-robin"
    assert plan.recipe.router.mode == "kv"


def test_a_stand_in_for_the_published_trace_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_published", lambda: None)
    said: list[str] = []
    found = whole_trace(said.append)
    assert len(found.text.splitlines()) == trace.REQUESTS
    assert "could not be had" in found.origin
    assert "no published trace" in said[0]


def test_compare_asks_for_every_run_and_for_the_whole_trace(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, int]] = []

    def predicted(plan: Any, traffic: Trace, _limits: object, *, attempt: int, say: object) -> Replay:
        asked.append((plan.stack, "whole" if "whole" in traffic.origin else "same", attempt))
        return answer(400.0 + attempt)

    monkeypatch.setattr(module, "replay", predicted)
    monkeypatch.setattr(module, "whole_trace", lambda _: Trace("", "whole"))
    one, other = recorded(tmp_path, "one"), recorded(tmp_path, "other", router="kv")
    done = run("compare", one, other, "--json", "--replay", "full")
    assert done.exit_code == OK, done.output
    data = json.loads(done.stdout)["replay"]
    assert list(data["loads"]) == ["trace", FULL]
    assert len(asked) == 2 * (module.ATTEMPTS + module.FULL_ATTEMPTS)


def test_without_the_tool_the_live_figures_still_come_and_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Replay:
        raise SetupError("aisimulate cannot be run", "make serving")

    monkeypatch.setattr(module, "replay", broken)
    said: list[str] = []
    found = compare([load(recorded(tmp_path, "one")), load(recorded(tmp_path, "other", router="kv"))])
    assert replayed(found, "same", said.append) is None
    assert "aisimulate cannot be run" in said[-1]
    without: Run = found.runs[0]
    without.about["about"].pop("recipe")
    assert replayed(found, "same", said.append) is None, "results of an older version"
    assert "hold no recipe" in said[-1]
