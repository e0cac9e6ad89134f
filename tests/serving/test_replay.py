"""The offline replay with the real tool, on a trace of twelve requests."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from recipe.plan import Plan
from recipe.scripts import trace
from rehearsal.serving.replay import Limits, Trace, replay


@pytest.mark.usefixtures("environment")
def test_a_small_trace_is_predicted_whole_and_nothing_is_left(
    disagg: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = set(psutil.Process().children(recursive=True))
    found = replay(disagg, Trace.of(trace.generated(100, 0.001), "generated"), Limits(2000, 25), cached=False)
    assert (found.requests, found.answered) == (12, 12), "the longest fits the context the graph gives its workers"
    assert 0 < found.ttft_p50_ms <= found.ttft_p99_ms
    assert found.itl_ms is not None
    assert 5 < found.itl_ms < 50, "of the timing model, for 2 × H100 a worker"
    assert found.goodput_share is not None
    assert found.tokens_per_s_gpu == pytest.approx(found.tokens_per_s / 16, abs=0.01)
    assert set(psutil.Process().children(recursive=True)) <= before, "it leaves processes"
    assert not list(tmp_path.iterdir()), "it leaves files"
