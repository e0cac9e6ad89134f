"""The real search with one small question: it fits the memory, and answers what the code takes for granted."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import tune_tool
from recipe.tuning import Question, layouts
from rehearsal.tuning import AICONFIGURATOR, ensure_environment

pytestmark = [pytest.mark.slow, pytest.mark.tuning]


def test_a_small_question_is_answered_offline_within_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = ensure_environment()
    monkeypatch.setattr(tune_tool, "ensure_environment", lambda: python)
    monkeypatch.setenv("DYNAMO_RECIPES_CACHE", str(tmp_path))  # so that it is asked, whatever is kept
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nothing answers there
    question = Question(
        model="Qwen/Qwen3-32B-FP8", backend="trtllm", system="h200_sxm", gpus=2, isl=1000, osl=100, ttft_ms=1000, itl_ms=30, kv_cache_dtype="fp8"
    )  # fmt: skip
    answer = tune_tool.ask(question)
    assert answer.tool == AICONFIGURATOR
    assert answer.failed == {}
    assert answer.memory_mib < 2048
    assert (answer.factors.prefill, answer.factors.decode, answer.factors.ttft) == (0.9, 0.92, 1.8)
    found = answer.optimum()
    assert found is not None
    assert layouts(question, answer)[0].tokens_per_s_gpu == pytest.approx(found[1].tokens_per_s_gpu, rel=0.001)
