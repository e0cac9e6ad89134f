"""The section of offline replays: which stacks stand in it, and that it says what it is."""

from __future__ import annotations

import pytest

from ops import benchmark_replays
from ops.benchmark_replays import HEAD, replays_section
from ops.variants import GPUS
from recipe.plan import Plan
from rehearsal.serving.replay import Limits, Replay, Trace

ANSWER = Replay(
    tool="aisimulate 0", traffic="a trace", requests=2, answered=2, seconds=1, ttft_ms=1, ttft_p50_ms=1, ttft_p99_ms=1, itl_ms=1, itl_p99_ms=1,
    token_gap_p99_ms=1, latency_ms=1, goodput_share=0.5, goodput_rps=1, prefix_reuse=0.1, tokens_per_s=1, tokens_per_s_gpu=1, gpus=16, wall_seconds=1,
    gaps=("the moon",),
)  # fmt: skip


def test_every_gpu_has_the_four_corners_and_its_own_tuned_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    attempts: list[tuple[str, int]] = []

    def answer(plan: Plan, _traffic: Trace, _limits: Limits, *, attempt: int) -> Replay:
        attempts.append((plan.recipe.router.mode, attempt))
        asked.append(f"{plan.stack} {plan.recipe.router.mode} {plan.recipe.hardware.gpu}")
        return ANSWER

    monkeypatch.setattr(benchmark_replays, "replay", answer)
    made = replays_section("then.", Trace("", "a made-up trace"))
    assert len(made.grids) == len(GPUS)
    for gpu, grid in zip(GPUS, made.grids, strict=True):
        assert all(len(row) == len(HEAD) for row in grid.rows)
        mine = [one for one in asked if one.endswith(gpu)]
        for corner in ("agg round-robin", "agg kv", "disagg round-robin", "disagg kv"):
            assert f"qwen3-32b-{corner} {gpu}" in mine
        assert f"qwen3-32b-tuned-trace-{gpu} kv {gpu}" in mine, "tuned beside the recipe"
    text = made.markdown()
    assert "predicted" in text
    assert "a made-up trace" in text
    assert set(attempts) == {("round-robin", 1), ("kv", 1), ("kv", 2), ("kv", 3)}, (
        "what differs from run to run is repeated"
    )
    assert "1 ±0" in text, "and its spread said"
    assert "not in it: the moon" in text, "what the prediction leaves out is said"
