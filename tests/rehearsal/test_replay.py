"""The offline replay: what the tool is asked for a plan, and how its answer is read. The tool itself runs in tests/serving."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ops.planning import planned
from recipe.plan import Plan
from recipe.scripts import trace
from rehearsal.errors import SetupError
from rehearsal.serving import replay as module
from rehearsal.serving.replay import Fixed, Limits, Trace, percentile, question, read_answer, replay, why_not

SAMPLE: dict[str, Any] = json.loads((Path(__file__).parent / "replay_sample.json").read_text(encoding="utf-8"))
"""Of prediction.json of aisimulate 0.13.0.dev202610130000000070: four answered requests and one that was turned away."""
TRACE = Trace.of(trace.generated(1, 0.0005), "generated")
LIMITS = Limits(ttft_ms=390, itl_ms=25)


def model(stack: str, *settings: str) -> Plan:
    return planned(stack, list(settings)).model


def read(limits: Limits | None = LIMITS) -> module.Replay:
    return read_answer(SAMPLE, TRACE, limits, gpus=16)


def test_the_tool_is_asked_for_the_shape_the_live_rehearsal_serves() -> None:
    config, _ = question(model("qwen3-32b-disagg"), TRACE)
    engine = config["engine"]
    assert (engine["mode"], engine["hardware"], engine["backend"]) == ("disaggregated", "h100_sxm", "vllm")
    prefill, decode = engine["workers"]["prefill"], engine["workers"]["decode"]
    assert prefill["parallelism"] == {"replicas": 6, "tensor": 2}
    assert decode["parallelism"] == {"replicas": 2, "tensor": 2}
    assert decode["kv_cache"]["prefix_caching"] is False
    assert "prefix_caching" not in prefill["kv_cache"], "left to the tool, whose own is on"
    assert prefill["kv_cache"]["bytes_per_token"] == 262_144
    assert config["router"] == {"policy": "kv_router"}


def test_the_context_is_named_because_longer_requests_would_be_dropped_without_a_word() -> None:
    for stack in ("qwen3-32b-agg", "qwen3-32b-disagg"):
        workers = question(model(stack), TRACE)[0]["engine"]["workers"]
        assert {one["context_length"] for one in workers.values()} == {131_072}


def test_gpu_router_and_experts_follow_the_stack() -> None:
    config, _ = question(
        model("qwen3-235b-a22b-fp8-agg", "hardware.gpu=h200", "budget.usd_per_hour=200"), Fixed(4000, 200, 32, 64)
    )
    assert config["engine"]["hardware"] == "h200_sxm"
    assert config["engine"]["workers"]["aggregated"]["parallelism"]["moe_expert"] == 4
    assert config["traffic"]["load"] == {"type": "concurrency", "concurrency": 32}
    assert "kv_transfer" not in config["engine"], "one pool hands nothing over"
    assert question(model("qwen3-32b-agg"), TRACE)[0]["router"] == {"policy": "round_robin"}


def test_what_the_tool_has_no_word_for_is_said() -> None:
    _, gaps = question(model("qwen3-32b-fp8-disagg"), TRACE)
    assert any("fp8" in one for one in gaps), gaps
    assert any("TensorRT-LLM" in one for one in gaps), gaps
    assert any("KV transfer" in one for one in gaps), gaps
    assert question(model("qwen3-32b-agg"), TRACE)[1] == (), "nothing is left out of the plain case"
    _, gaps = question(model("qwen3-32b-disagg", "router.temperature=0.5"), TRACE)
    assert any("temperature" in one for one in gaps), gaps


def test_a_stack_without_gpus_is_refused() -> None:
    with pytest.raises(SetupError, match="no GPU to predict"):
        question(model("mocker-cpu"), TRACE)


def test_figures_are_of_answered_requests_and_those_turned_away_are_named() -> None:
    found = read()
    done = SAMPLE["per_request"][:4]
    assert (found.requests, found.answered) == (5, 4)
    assert found.ttft_ms == pytest.approx(sum(one["ttft_ms"] for one in done) / 4, abs=0.001)
    assert any("1 of 5 requests were turned away" in gap for gap in found.gaps)
    assert found.tokens_per_s_gpu == pytest.approx(found.tokens_per_s / 16, abs=0.001)


def test_goodput_counts_requests_within_both_limits_of_all_that_were_sent() -> None:
    done = SAMPLE["per_request"][:4]
    good = sum(one["ttft_ms"] <= 390 and one["itl_ms"] <= 25 for one in done)
    assert 0 < good < 4, "the sample has both kinds"
    assert read().goodput_share == good / 5, "one that was turned away is not good"
    assert read(Limits(ttft_ms=390, itl_ms=0.1)).goodput_share == 0
    assert read(None).goodput_share is None


def test_percentiles_are_as_numpy_has_them() -> None:
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile([10.0], 99) == 10
    assert percentile([0, 100], 99) == 99


@pytest.mark.parametrize(
    ("errors", "code", "said"),
    [
        ("ValueError: no KV budget: non-KV memory exceeds", 1, "does not fit the GPUs"),
        ("router.overlap\n  Extra inputs are not permitted [type=extra_forbidden]", 2, "refuses a key"),
        ("aisimulate: execution process exited with status -9", 1, "out of memory"),
        ("", -9, "out of memory"),
        ("something else", 3, "exit code 3"),
    ],
)
def test_every_way_to_fail_is_named(errors: str, code: int, said: str) -> None:
    message, fix = why_not(code, errors)
    assert said in message
    assert fix


def test_an_answer_of_another_form_is_an_error_and_no_figure() -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        read_answer({"summary": {}}, TRACE, None, gpus=1)


class _Tool:
    """A stand-in for the tool: counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, *_: object) -> dict[str, Any]:
        self.runs += 1
        return SAMPLE


def test_the_same_question_is_answered_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = _Tool()
    monkeypatch.setenv("DYNAMO_RECIPES_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_predict", tool)
    monkeypatch.setattr(module, "ensure_environment", lambda: Path(sys.executable))
    plan = model("qwen3-32b-agg")
    assert replay(plan, TRACE, LIMITS) == replay(plan, TRACE, LIMITS)
    assert tool.runs == 1
    replay(plan, TRACE, Limits(ttft_ms=1, itl_ms=1))
    replay(plan, TRACE, LIMITS, attempt=2)
    replay(model("qwen3-32b-agg", "router={mode: kv}"), TRACE, LIMITS)
    assert tool.runs == 4, "other limits, another attempt, another router: other questions"
    for kept in (tmp_path / "replays").glob("*.json"):
        kept.write_text("torn", encoding="utf-8")
    replay(plan, TRACE, LIMITS)
    assert tool.runs == 5, "what cannot be read is asked anew"


def test_a_tool_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="aisimulate cannot be run"):
        module._predict(tmp_path / "bin" / "python", {}, "", lambda _: None, 5)


def test_a_tool_that_hangs_is_ended(tmp_path: Path) -> None:
    tool = tmp_path / "aisimulate"
    tool.write_text("#!/bin/sh\nsleep 60\n", encoding="utf-8")
    tool.chmod(0o755)
    with pytest.raises(SetupError, match="not done after"):
        module._predict(tmp_path / "python", {}, "", lambda _: None, 0.2)
