"""How KV travels, as the readiness script sees it: pretend workers with their own metrics pages, and logs from a pretend API server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from recipe.plan import Manifest, Plan
from recipe.scripts import kv_path
from recipe.scripts.metrics import REQUESTS
from tests.recipe.samples import AGG_WORKERS, MOCKER, plan
from tests.recipe.scripts_support import Ended, Reply, Request, Server, run_job, serve
from tests.recipe.test_scripts_readiness import MODELS, READY

VLLM_GOOD = "2026-09-10 10:44:00 NIXL INFO    _api.py:369 Backend LIBFABRIC was instantiated\n"
VLLM_UCX = VLLM_GOOD.replace("LIBFABRIC", "UCX")
EFA_UNUSED = "W0910 nixl_agent.cpp:312] 32 Amazon EFA(s) were detected, but the UCX backend was configured. For best performance, …\n"
TRTLLM = "[TensorRT-LLM][INFO] NixlTransferAgent::NixlTransferAgent using NIXL backend: {}\n"
UCX_SRD = "ucp_context_2 self cfg#1 rma_am(srd/rdmap40s0:1) am(srd/rdmap40s0:1 srd/rdmap62s0:1)\n"
UCX_TCP = "ucp_context_2 inter-node cfg#2 rma_am(tcp/eth0) am(tcp/eth0)\n"
GIB = 2**30


@dataclass
class Pretend:
    """A worker: what its log says, and what its pages count. Each long prompt that reaches it moves a GiB."""

    name: str
    role: str
    log: str = VLLM_GOOD
    counts_requests: bool = True
    nixl: str = "agent_rx_bytes_total"
    engine: str = ""
    """Name of the engine's own counter on the system page."""
    failed: int = 0
    reached: bool = True
    """Whether the router ever sends it anything."""
    requests: int = 3
    moved: int = 5 * GIB
    url: str = ""

    def answer(self, request: Request) -> Reply:
        assert request.path == "/metrics"
        lines = ["# HELP nothing here", "up 1"]
        if self.counts_requests:
            lines += [
                f'{REQUESTS}{{dynamo_endpoint="generate",worker_id="a b"}} {self.requests}',
                f'{REQUESTS}{{dynamo_endpoint="worker_kv_query",worker_id="a b"}} 7',
            ]
        if self.nixl:
            lines.append(f'{self.nixl}{{agent_name="x"}} {self.moved}')
        if self.engine:
            lines.append(f'{self.engine}{{model_name="m"}} {self.moved}')
        if self.failed:
            lines.append(f'vllm:nixl_num_failed_transfers_total{{engine="0"}} {self.failed}')
        return Reply(body="\n".join(lines).encode())

    def pod(self) -> dict[str, Any]:
        port = int(self.url.rpartition(":")[2])
        ports = [{"name": "system", "containerPort": port}, {"name": "nixl", "containerPort": port}]
        return {
            "metadata": {"name": self.name, "labels": {kv_path.TYPE_LABEL: self.role}},
            "spec": {"containers": [{"name": "main", "ports": ports}]},
            "status": {"phase": "Running", "podIP": "127.0.0.1"},
        }


@dataclass
class Graph:
    """Workers behind a frontend that sends prompts around."""

    workers: list[Pretend]
    refuse_long: Reply | None = None
    logs: int = 200
    """Status of the API server's answer to a request for a log."""
    prompts: list[str] = field(default_factory=list)
    _next: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> Reply:
        if "dynamographdeployments" in request.path:
            return Reply(body=READY)
        if "/log" in request.path:
            name = request.path.split("/pods/")[1].split("/")[0]
            log = next(worker.log for worker in self.workers if worker.name == name)
            return Reply(self.logs, log.encode() if self.logs == 200 else {"message": "forbidden"})
        if "/pods" in request.path:
            frontend = {"metadata": {"name": "frontend", "labels": {kv_path.TYPE_LABEL: "frontend"}}, "status": {}}
            return Reply(body={"items": [frontend, *(worker.pod() for worker in self.workers)]})
        if "/events" in request.path:
            return Reply(body={"items": []})
        if "/models" in request.path:
            return Reply(body=MODELS)
        return self.complete(request.body["messages"][0]["content"])

    def complete(self, prompt: str) -> Reply:
        words = len(prompt.split())
        if words > 100:
            self.prompts.append(prompt)
            if self.refuse_long is not None:
                return self.refuse_long
            with self._lock:
                for role in ("prefill", "decode"):
                    self._send_to(role)
        usage = {"prompt_tokens": words}
        return Reply(body={"choices": [{"message": {"content": "Hello."}}], "usage": usage})

    def _send_to(self, role: str) -> None:
        reached = [worker for worker in self.workers if worker.role == role and worker.reached]
        turn = self._next[role] = self._next.get(role, -1) + 1
        worker = reached[turn % len(reached)]
        worker.requests += 1
        worker.moved += GIB


def workers(**changes: Any) -> list[Pretend]:
    """Two prefill and one decode worker, all alike."""
    roles = ("prefill", "prefill", "decode")
    return [Pretend(f"graph-{role}-{number}", role, **changes) for number, role in enumerate(roles)]


@contextmanager
def running(graph: Graph) -> Iterator[Server]:
    with ExitStack() as stack:
        for worker in graph.workers:
            worker.url = stack.enter_context(serve(worker.answer)).url
        yield stack.enter_context(serve(graph.answer))


def look(folder: Path, graph: Graph, made: Plan | None = None, **env: str) -> Ended:
    objects = (made or plan()).objects
    with running(graph) as server:
        settings = {
            "KUBERNETES_API": server.url,
            "FRONTEND_URL": server.url,
            "POLL_SECONDS": "0.02",
            "DEADLINE_SECONDS": "30",
        }
        job: Manifest = objects.readiness_job
        return run_job(job, objects.readiness_config, folder, **(settings | env))


def trtllm(**changes: Any) -> Plan:
    """The 32B stack with TensorRT-LLM."""
    return plan(engine="trtllm", engine_tuning={"context_length": 8192}, **changes)


# ── the way it should be ─────────────────────────────────────────────────────────────────────────────────────────────


def test_yes_says_by_which_way_kv_travels_and_how_much(tmp_path: Path) -> None:
    graph = Graph(workers())
    ended = look(tmp_path, graph)
    assert ended.code == 0, ended.log
    assert "3 of 3 workers served a prompt of about 2200 tokens, 3 say LIBFABRIC" in ended.message
    assert "6.00 GiB moved" in ended.message, "three prompts through two pools; what had moved before does not count"
    assert "warning" not in ended.message
    assert {len(prompt.split()) > 2000 for prompt in graph.prompts} == {True}
    beginnings = {prompt[:30] for prompt in graph.prompts}
    assert len(beginnings) == len(graph.prompts), "a prefix in a cache would not be transferred"


def test_prompts_go_on_until_every_worker_had_one(tmp_path: Path) -> None:
    many = [Pretend(f"graph-prefill-{number}", "prefill") for number in range(2)]
    many += [Pretend(f"graph-decode-{number}", "decode") for number in range(4)]
    unlucky = Graph(many)
    unlucky._next = {"decode": 1}
    assert look(tmp_path, unlucky).code == 0
    assert all(worker.requests > 3 for worker in many)


def test_a_worker_that_is_never_reached_is_named_and_the_rounds_are_bounded(tmp_path: Path) -> None:
    graph = Graph(workers())
    graph.workers[1].reached = False
    ended = look(tmp_path, graph)
    assert ended.code == 0, "it may be the router's choice"
    assert "no long prompt reached graph-prefill-1 in 5 rounds" in ended.message
    assert len(graph.prompts) == 5 * 3


@pytest.mark.parametrize("name", ["agent_tx_bytes_total", "agent_rx_bytes", "vllm:nixl_bytes_transferred_sum"])
def test_bytes_are_counted_by_whoever_counts_them(tmp_path: Path, name: str) -> None:
    counter = {"nixl": "", "engine": name} if name.startswith("vllm") else {"nixl": name}
    assert "6.00 GiB moved" in look(tmp_path, Graph(workers(**counter))).message


def test_a_second_agent_of_another_backend_is_no_proof_of_anything(tmp_path: Path) -> None:
    ended = look(tmp_path, Graph(workers(log=VLLM_UCX + VLLM_GOOD + EFA_UNUSED)))
    assert ended.code == 0, "something else in the process made it; the connector's own is there"
    assert "which of them moves the cache is not known" in ended.message


# ── another way ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("log", "named"),
    [
        (VLLM_UCX, "its log says backend UCX"),
        (VLLM_UCX + EFA_UNUSED, "its log says backend UCX"),
        (EFA_UNUSED, "Amazon EFA(s) were detected"),
    ],
)
def test_ucx_where_libfabric_was_wanted_is_a_failure_with_the_line_that_says_so(
    tmp_path: Path, log: str, named: str
) -> None:
    graph = Graph(workers())
    graph.workers[2].log = log
    ended = look(tmp_path, graph)
    assert ended.code == 1
    assert "KV does not travel by LIBFABRIC on 1 of 3 workers: graph-decode-2" in ended.message
    assert named in ended.message
    assert "kubectl" in ended.message, "the next step"


def test_long_prompts_that_never_come_back_are_a_failure(tmp_path: Path) -> None:
    graph = Graph(workers(), refuse_long=Reply(500, {"error": "no route to prefill"}))
    ended = look(tmp_path, graph)
    assert ended.code == 1, "short ones do, which is how a graph looks ready that is not"
    assert "no route to prefill" in ended.message


def test_tensorrt_llm_is_asked_for_the_agent_that_moves_the_cache(tmp_path: Path) -> None:
    good = VLLM_UCX + TRTLLM.format("LIBFABRIC")
    assert look(tmp_path, Graph(workers(log=good, nixl="agent_tx_bytes_total")), trtllm()).code == 0, (
        "the other agent it makes always says UCX"
    )
    ended = look(tmp_path, Graph(workers(log=VLLM_GOOD + TRTLLM.format("UCX"))), trtllm())
    assert ended.code == 1
    assert "its log says backend UCX" in ended.message
    mixed = TRTLLM.format("LIBFABRIC") + TRTLLM.format("UCX")
    assert look(tmp_path, Graph(workers(log=mixed)), trtllm()).code == 1, "one rank of a worker is enough to be slow"


def test_ucx_that_was_asked_for_is_what_is_expected(tmp_path: Path) -> None:
    chosen = trtllm(serving={"kv_transfer": {"backend": "ucx"}})
    ended = look(tmp_path, Graph(workers(log=TRTLLM.format("UCX") + UCX_SRD)), chosen)
    assert ended.code == 0, ended.log
    assert "3 say UCX" in ended.message
    assert look(tmp_path, Graph(workers(log=TRTLLM.format("LIBFABRIC"))), chosen).code == 1
    over_tcp = look(tmp_path, Graph(workers(log=TRTLLM.format("UCX") + UCX_TCP)), chosen)
    assert over_tcp.code == 1, "the right backend, the wrong wire"
    assert "tcp/eth0" in over_tcp.message


# ── what cannot be seen ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("graph", "warned"),
    [
        (
            Graph(workers(log="loading weights\n")),
            "no line in the log of graph-prefill-0, graph-prefill-1, graph-decode-2",
        ),
        (Graph(workers(), logs=403), "the log of graph-prefill-0 cannot be read"),
        (Graph(workers(nixl="")), "no worker counts the bytes it moves"),
        (Graph(workers(nixl="agent_rx_last_bytes")), "no worker counts the bytes it moves"),
        (Graph(workers(counts_requests=False)), "is not on its metrics page"),
        (Graph(workers(failed=2)), "failed transfers: graph-prefill-0 2"),
    ],
    ids=["silent-log", "no-log", "no-bytes", "a-gauge-of-the-last-transfer", "no-requests", "failures"],
)
def test_evidence_that_is_missing_is_a_warning_and_not_a_failure(tmp_path: Path, graph: Graph, warned: str) -> None:
    ended = look(tmp_path, graph)
    assert ended.code == 0, "nobody has seen these names on AWS yet"
    assert "warning: " in ended.message
    assert warned in ended.message


def test_workers_that_answer_nobody_are_a_warning(tmp_path: Path) -> None:
    graph = Graph(workers())
    with running(graph) as server:
        pods = [worker.pod() for worker in graph.workers]
        for pod in pods:
            pod["status"]["podIP"] = ""

        def answer(request: Request) -> Reply:
            is_list = "/pods?" in request.path
            return Reply(body={"items": pods}) if is_list else graph.answer(request)

        with serve(answer) as outer:
            objects = plan().objects
            env = {"KUBERNETES_API": outer.url, "FRONTEND_URL": server.url, "POLL_SECONDS": "0.02"}
            ended = run_job(objects.readiness_job, objects.readiness_config, tmp_path, **env)
    assert ended.code == 0, ended.log
    assert "is not known" in ended.message


# ── where there is nothing to look at ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda: plan(mode="agg", workers=AGG_WORKERS), id="agg"),
        pytest.param(lambda: plan(stack="mocker-cpu", **MOCKER), id="mocker"),
    ],
)
def test_nothing_is_asked_for_where_no_kv_travels_between_gpus(made: Any) -> None:
    objects = made().objects
    env = {one["name"] for one in objects.readiness_job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert not [name for name in env if name.startswith("KV_")]
    assert "pods/log" not in str(objects.readiness_role), "an account may do what its Job does, and no more"
    assert "pods/log" in str(plan().objects.readiness_role)
