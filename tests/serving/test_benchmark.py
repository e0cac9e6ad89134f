"""The real AIPerf against the real frontend with mock engines, through `ops bench` as a person runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ops.app import app
from ops.bench.results import load
from ops.exits import OK
from recipe.catalogue import AIPERF

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

STACK = "qwen3-32b-disagg"
TINY = "{t: {kind: trace, source: generated, scale: 0.001, repeats: 1}, f: {kind: fixed, isl: 600, osl: 20, concurrency_per_gpu: [0.25, 0.5], requests_per_slot: 2, repeats: 1}}"


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., tuple[Result, dict[str, Any]]]:
    """`ops bench --rehearse --json`, which must succeed."""

    def bench(profile: str, *args: str) -> tuple[Result, dict[str, Any]]:
        command = ["bench", STACK, "--rehearse", "--json", "--out", str(tmp_path), "--profile", profile]
        done = CliRunner().invoke(app, [*command, "--set", f"benchmark.profiles={TINY}", *args])
        assert done.exit_code == OK, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return done, found

    return bench


def test_a_trace_is_measured_through_the_real_router_and_marked_simulated(
    bench: Callable[..., tuple[Result, dict[str, Any]]],
) -> None:
    done, data = bench("t")
    assert data["complete"]
    assert "performance database" in data["simulated"] or "formula" in data["simulated"]
    figures = data["loads"]["trace"]["figures"]
    assert 1 < figures["ttft_ms"]["mean"] < 60_000
    assert 1 < figures["itl_ms"]["mean"] < 1_000
    run = load(Path(data["folder"]))
    assert run.about["aiperf"] == AIPERF
    (point,) = run.points
    assert len(point.requests["isl"]) == run.about["trace"]["requests"] == 12
    # The engine counts its own tokens: what was asked for, give or take the chat template.
    asked = run.about["trace"]["mean_input"]
    found = [value for value in point.requests["isl"] if value]
    assert sum(found) / len(found) == pytest.approx(asked, rel=0.2)
    assert "Simulated" in done.stderr


def test_fixed_lengths_at_a_load_per_gpu(bench: Callable[..., tuple[Result, dict[str, Any]]]) -> None:
    _, data = bench("f")
    assert list(data["loads"]) == ["0.25 per GPU", "0.5 per GPU"]
    run = load(Path(data["folder"]))
    assert [point.concurrency for point in run.points] == [4, 8], "of 16 GPUs"
    for point in run.points:
        assert [osl for osl in point.requests["osl"] if osl] == pytest.approx([20] * len(point.requests["osl"]), abs=1)
    again, _ = bench("f")
    assert "measured before" in again.stderr, "a second run goes on with what is missing: nothing"
