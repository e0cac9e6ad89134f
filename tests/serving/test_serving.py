"""A rendered graph, answered by Dynamo's own frontend and router with its mock engine. Times are simulated; routing is not."""

from __future__ import annotations

import copy
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ops.planning import planned
from ops.serving import in_cloud, serve_and_ask
from ops.variants import each_stack
from recipe.plan import Plan
from recipe.scripts.endpoint import Endpoint
from recipe.scripts.metrics import scrape, total
from rehearsal.cloud import rules
from rehearsal.errors import SetupError
from rehearsal.serving import Facts, Serving, ask, serve
from tests.recipe.samples import AGG_WORKERS, plan
from tests.recipe.scripts_support import Reply, Request, run_job
from tests.recipe.scripts_support import serve as answers
from tests.recipe.test_scripts_kv_path import VLLM_GOOD
from tests.recipe.test_scripts_readiness import READY

LONG = "The quick brown fox jumps over the lazy dog. " * 300


def gone_up(serving: Serving, before: dict[str, int]) -> set[str]:
    return {name for name, count in serving.requests().items() if count > before[name]}


# ── every stack ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stack", [one.stack for one in each_stack()])
def test_what_is_rendered_for_each_stack_answers_with_tokens(stack: str, environment: Path) -> None:
    made = planned(stack, []).model
    with serve(made.objects.graph, made) as serving:
        wanted = {one.component: one.replicas for one in made.workers}
        have = [worker.component for worker in serving.workers]
        assert {component: have.count(component) for component in wanted} == wanted
        assert serving.model == made.model.id
        assert Endpoint(serving.url, serving.model).complete() is None, "the readiness Job's own question"
        before = serving.requests()
        answer = ask(serving.url, serving.model, LONG, tokens=8)
        assert answer.tokens == 8, "streamed, one piece per token"
        roles = {worker.role for worker in serving.workers if worker.name in gone_up(serving, before)}
        assert roles == {one.role for one in made.workers}, "a request takes the way of the mode"
        assert "formula" in serving.timing or "performance database" in serving.timing


# ── what the graph says is what runs ─────────────────────────────────────────────────────────────────────────────────


def test_block_size_and_context_are_the_graphs(serving: Serving, disagg: Plan) -> None:
    page = scrape(f"{serving.url}/metrics")
    tuning = disagg.recipe.engine_tuning
    assert total(page, "dynamo_frontend_model_kv_cache_block_size") == tuning.block_size
    assert total(page, "dynamo_frontend_model_context_length") == tuning.context_length


def test_the_kv_router_sends_a_prefix_where_it_is(serving: Serving) -> None:
    """Which it knows from the prefill workers' events: nothing else tells it what they hold."""
    prefix = "A prompt that nobody else in this tier sends. " * 200
    took = []
    for number in range(4):
        before = serving.requests()
        ask(serving.url, serving.model, f"{prefix} {number}", tokens=2)
        took.append({name for name in gone_up(serving, before) if name.startswith("prefill")})
    assert len(took[0]) == 1
    assert took[1:] == took[:1] * 3, "five others were as idle"


def test_a_round_robin_router_takes_turns(environment: Path) -> None:
    made = plan(mode="agg", workers=AGG_WORKERS, router__mode="round-robin")
    with serve(made.objects.graph, made) as serving:
        before = serving.requests()
        for _ in range(8):
            ask(serving.url, serving.model, tokens=2)
        assert {name: count - before[name] for name, count in serving.requests().items()} == {
            f"worker-{number}": 1 for number in range(8)
        }


def test_replicas_of_the_frontend_all_answer(environment: Path) -> None:
    made = plan(serving__frontend__replicas=2, serving__frontend__cpu=4)
    with serve(made.objects.graph, made) as serving:
        assert len(serving.urls) == 2
        assert {ask(url, serving.model, tokens=3).tokens for url in serving.urls} == {3}


def test_a_flag_that_the_real_frontend_does_not_know_is_a_failure_with_its_words(
    environment: Path, disagg: Plan
) -> None:
    wrong = copy.deepcopy(disagg.objects.graph)
    frontend = next(one for one in wrong["spec"]["components"] if one["type"] == "frontend")
    frontend["podTemplate"]["spec"]["containers"][0]["args"] = ["--router-mode", "kv", "--router-reset-states"]
    with pytest.raises(SetupError, match="router-reset-states"), serve(wrong, disagg):
        pass


def test_the_graph_as_the_pretend_cloud_keeps_it_serves_too(environment: Path) -> None:
    made = planned("qwen3-32b-fp8-disagg", []).model  # its engine is configured by ConfigMaps
    kinds = {"DynamoGraphDeployment": rules.DGD, "ConfigMap": rules.CONFIG_MAP}
    records = [{"type": kinds.get(one["kind"], one["kind"]), "inputs": one} for one in made.objects.all()]
    graph, configs = in_cloud(records, made.objects.graph["metadata"])
    assert graph is not None
    assert configs
    served = serve_and_ask(made, records)
    assert served is not None
    assert served.failure is None
    assert served.answer is not None
    assert {name.rpartition("-")[0] for name in served.served_by} == {"prefill", "decode"}


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_times_follow_the_timing_model_and_say_which(serving: Serving, disagg: Plan) -> None:
    short = min(ask(serving.url, serving.model, f"Hello {number}.", tokens=2).ttft_ms for number in range(3))
    long = ask(serving.url, serving.model, f"Unheard of. {LONG * 2}", tokens=2)
    assert long.prompt_tokens > 5000
    assert long.ttft_ms > 4 * short, "prefill takes time, and more for more tokens"
    assert re.search(r"h100_sxm, TP 2, engine vllm \d", serving.timing)


def test_another_gpu_has_other_times(environment: Path) -> None:
    made = plan(hardware__gpu="b200", budget__usd_per_hour=1000, access__region="us-east-1", access__zone_id="use1-az1")
    with serve(made.objects.graph, made) as serving:
        assert "b200_sxm" in serving.timing


def test_without_a_timing_model_the_formula_is_named(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rehearsal.serving.commands.SYSTEMS", {"h100": "no_such_gpu"})
    made = plan()
    with serve(made.objects.graph, Facts.of(made)) as serving:
        assert serving.timing.startswith("the mock engine's own formula")
        assert "no timing model: " in serving.timing, "silence would let a figure pass for the GPU's"
        assert ask(serving.url, serving.model, tokens=2).tokens == 2


# ── the readiness Job against it ─────────────────────────────────────────────────────────────────────────────────────


def test_the_readiness_jobs_prompts_reach_every_worker_of_a_real_router(
    serving: Serving, disagg: Plan, tmp_path: Path
) -> None:
    """Its names of Dynamo's counters are checked here; its names of NIXL's lines and counters are not: no GPU, no NIXL."""

    def pod(worker: Any) -> dict[str, Any]:
        port = int(worker.metrics_url.split(":")[2].partition("/")[0])
        return {
            "metadata": {"name": worker.name, "labels": {"nvidia.com/dynamo-component-type": worker.role}},
            "spec": {"containers": [{"name": "main", "ports": [{"name": "system", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIP": "127.0.0.1"},
        }

    def api(request: Request) -> Reply:
        if "/log" in request.path:
            return Reply(body=VLLM_GOOD.encode())
        items = [pod(worker) for worker in serving.workers] if "/pods" in request.path else []
        return Reply(body=READY if "dynamographdeployments" in request.path else {"items": items})

    objects = disagg.objects
    with answers(api) as server:
        ended = run_job(
            objects.readiness_job,
            objects.readiness_config,
            tmp_path,
            KUBERNETES_API=server.url,
            FRONTEND_URL=serving.url,
            DEADLINE_SECONDS="60",
            POLL_SECONDS="0.2",
        )
    assert ended.code == 0, ended.log
    assert "8 of 8 workers served" in ended.message
    assert int(re.findall(r"prompts of (\d+) to", ended.log)[0]) >= 2000
    assert "no worker counts the bytes it moves" in ended.message


# ── several at once ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_at_once_do_not_see_each_other(serving: Serving, environment: Path) -> None:
    made = plan(mode="agg", workers={"worker": {"replicas": 2, "tensor_parallel": 2}}, hardware__gpu="h100")
    with serve(made.objects.graph, made) as other:
        before = serving.requests()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: ask(other.url, other.model, tokens=2), range(8)))
        assert serving.requests() == before
        with urllib.request.urlopen(f"{other.url}/health") as health:
            seen = health.read().decode()
        assert seen.count('"endpoint":"generate"') == 2
    assert ask(serving.url, serving.model, tokens=2).tokens == 2, "the end of one is not the end of the other"


def test_eight_workers_fit_a_laptop(serving: Serving) -> None:
    assert len(serving.workers) == 8
    assert serving.memory_mib() < 6 * 1024
