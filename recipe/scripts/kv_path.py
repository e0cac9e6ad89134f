"""How the KV cache really travels in a disaggregated graph: a long prompt through every worker, then their logs and counters.

NIXL that quietly took UCX, or UCX that quietly took TCP, answers as well, only 100 s later under load: nothing else would notice
(facts/dynamo.md §5.2). What is seen to be wrong is a failure. What cannot be seen is a warning: nobody has yet held these lines and names
against a running graph on AWS (docs/unverified.md).
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from recipe.scripts.endpoint import Endpoint
from recipe.scripts.kube import Kube, Unreachable, say
from recipe.scripts.metrics import REQUESTS, Sample, scrape, total

TYPE_LABEL = "nvidia.com/dynamo-component-type"
SYSTEM_PORT, NIXL_PORT = 9090, 19090
"""Of a worker: Dynamo's own metrics, and NIXL's counters (facts/dynamo.md §1.4)."""
NIXL_BYTES = ("agent_tx_bytes_total", "agent_rx_bytes_total", "agent_tx_bytes", "agent_rx_bytes")
"""Sent and received, with the names of NIXL's newer and older exporters."""
ENGINE_BYTES = ("vllm:nixl_bytes_transferred_sum",)
ENGINE_FAILURES = ("vllm:nixl_num_failed_transfers_total", "vllm:nixl_num_failed_transfers")
LOG_BYTES = 32 * 1024**2
"""Of a worker's log to read, from its beginning: agents are made while the engine starts."""

INSTANTIATED = re.compile(r"Backend (\w+) was instantiated")
"""NIXL's Python binding says so of each backend (vLLM)."""
EFA_UNUSED = "Amazon EFA(s) were detected, but the UCX backend was configured"
"""NIXL's own warning (src/core/nixl_agent.cpp)."""
TRTLLM_USES = re.compile(r"NixlTransferAgent.*using NIXL backend: (\w+)")
"""TensorRT-LLM of the agent that moves the cache. Its `Backend UCX was instantiated` is another agent's and means nothing."""
UCX_TCP = re.compile(r"\bucp_\S+.*cfg#\d+.*\btcp/")
UCX_FABRIC = re.compile(r"\b(srd|rc|rc_\w+|dc|dc_\w+)/")
"""UCX's table of what it chose, where its log level shows it (info)."""


@dataclass
class Worker:
    """A prefill or decode pod, and what is known of it."""

    name: str
    role: str
    address: str
    ports: dict[str, int]
    served: bool | None = None
    """Whether it took on one of the prompts; None: its metrics do not say."""
    requests_before: float | None = None
    bytes_before: float | None = None
    moved: float | None = None
    """Bytes, since the prompts began; None: nothing counts them."""
    failures: float = 0
    backends: set[str] = field(default_factory=set)
    wrong: str | None = None

    @classmethod
    def of(cls, pod: dict[str, Any]) -> Worker:
        ports = {
            port.get("name", ""): port["containerPort"]
            for container in pod.get("spec", {}).get("containers", [])
            for port in container.get("ports") or []
        }
        role = pod["metadata"].get("labels", {}).get(TYPE_LABEL, "")
        return cls(pod["metadata"]["name"], role, pod.get("status", {}).get("podIP") or "", ports)

    def samples(self, port: str, default: int) -> list[Sample]:
        """A metrics page of it. Raises Unreachable."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return scrape(f"http://{host}:{self.ports.get(port, default)}/metrics")


class KvPath:
    """The check. `backend`: what the recipe wants, LIBFABRIC or UCX."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        endpoint: Endpoint,
        *,
        engine: str,
        backend: str,
        words: int,
        rounds: int,
        seconds: float,
    ) -> None:
        self.kube, self.namespace, self.endpoint = kube, namespace, endpoint
        self.engine, self.backend = engine, backend
        self.words, self.rounds, self.until = words, rounds, time.monotonic() + seconds
        self.warnings: list[str] = []

    def check(self, pods: list[dict[str, Any]]) -> tuple[str | None, str]:
        """(why it is wrong, or None; what is known), with `warnings` for what is not."""
        workers = [Worker.of(pod) for pod in pods]
        workers = [worker for worker in workers if worker.role in ("prefill", "decode")]
        if {worker.role for worker in workers} != {"prefill", "decode"}:
            self.warnings.append(
                f"no pods labelled {TYPE_LABEL} prefill and decode, so how KV travels was not looked at"
            )
            return None, "how KV travels is not known"
        for worker in workers:
            worker.requests_before, worker.bytes_before = self.requests(worker), self.bytes(worker)
        if trouble := self.send_through(workers):
            return trouble, ""
        for worker in workers:
            self.look_at(worker)
        wrong = [worker for worker in workers if worker.wrong]
        if wrong:
            named = "; ".join(f"{worker.name}: {worker.wrong}" for worker in wrong[:3])
            return f"KV does not travel by {self.backend} on {len(wrong)} of {len(workers)} workers: {named}", ""
        return None, self.summary(workers)

    # ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def send_through(self, workers: list[Worker]) -> str | None:
        """Long prompts, several at once so that the router spreads them, until each worker had one. Why not even one came back, or None."""
        tokens: list[int] = []
        trouble: str | None = None
        for number in range(self.rounds):
            left = self.until - time.monotonic()
            if left <= 0:
                break
            timeout = min(left, self.endpoint.timeout_seconds)
            prompts = [self.prompt(f"{number}-{place}") for place in range(len(workers))]
            with ThreadPoolExecutor(len(prompts)) as pool:
                answers = list(pool.map(lambda prompt: self.endpoint.ask(prompt, timeout), prompts))  # noqa: B023
            tokens += [count for failed, count in answers if failed is None]
            trouble = next((failed for failed, _ in answers if failed is not None), trouble)
            for worker in workers:
                now = self.requests(worker)
                if now is not None and worker.requests_before is not None:
                    worker.served = now > worker.requests_before
            if all(worker.served for worker in workers):
                break
        if not tokens:
            return f"a prompt of about {self.words} tokens is never answered: {trouble}"
        if trouble is not None:
            self.warnings.append(f"{len(tokens)} long prompts were answered, and at least one was not: {trouble}")
        say(f"{len(tokens)} prompts of {min(tokens)} to {max(tokens)} tokens went through")
        idle = [worker.name for worker in workers if worker.served is False]
        if idle:
            self.warnings.append(f"no long prompt reached {', '.join(idle)} in {self.rounds} rounds")
        if unknown := [worker.name for worker in workers if worker.served is None]:
            self.warnings.append(
                f"which prompts reached {', '.join(unknown)} is not known: {REQUESTS} is not on its metrics page"
            )
        return None

    def prompt(self, name: str) -> str:
        """Words of one token each; the beginning differs, so that no prefix is cached anywhere."""
        return f"Note {name} of {time.time_ns()}:" + " apple" * self.words + ". Say hello."

    # ── evidence ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def look_at(self, worker: Worker) -> None:
        """Its counters and its log."""
        moved = self.bytes(worker)
        if moved is not None:
            worker.moved = moved - (worker.bytes_before or 0)
        try:
            self.read_log(worker)
        except Unreachable as error:
            self.warnings.append(f"the log of {worker.name} cannot be read: {error}")

    def read_log(self, worker: Worker) -> None:
        """Which backend it says it uses. Raises Unreachable."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{worker.name}/log?container=main&limitBytes={LOG_BYTES}"
        says = TRTLLM_USES if self.engine == "trtllm" else INSTANTIATED
        unused, tcp = False, ""
        for line in self.kube.text(path, timeout_seconds=60):
            if found := says.search(line):
                worker.backends.add(found[1].upper())
            unused = unused or EFA_UNUSED in line
            if UCX_TCP.search(line) and not UCX_FABRIC.search(line):
                tcp = line.strip()
        if worker.backends and self.backend not in worker.backends:
            worker.wrong = f"its log says backend {', '.join(sorted(worker.backends))}"
        elif self.engine == "trtllm" and worker.backends - {self.backend}:
            worker.wrong = f"its ranks use {', '.join(sorted(worker.backends))}"
        elif unused and self.engine != "trtllm" and self.backend != "UCX" and not worker.backends:
            worker.wrong = f'its log says "{EFA_UNUSED}"'
        elif self.backend == "UCX" and tcp:
            worker.wrong = f'its UCX goes over TCP: "{tcp[-200:]}"'

    def requests(self, worker: Worker) -> float | None:
        """How many it has taken on; None where its metrics do not say."""
        try:
            return total(worker.samples("system", SYSTEM_PORT), REQUESTS, dynamo_endpoint="generate")
        except Unreachable:
            return None

    def bytes(self, worker: Worker) -> float | None:
        """KV bytes it has sent or received, by NIXL's counters, else the engine's; None where neither counts."""
        counted = None
        with suppress(Unreachable):
            counted = total(worker.samples("nixl", NIXL_PORT), *NIXL_BYTES)
        try:
            page = worker.samples("system", SYSTEM_PORT)
        except Unreachable:
            return counted
        worker.failures = total(page, *ENGINE_FAILURES) or 0
        return total(page, *ENGINE_BYTES) if counted is None else counted

    # ── what came of it ──────────────────────────────────────────────────────────────────────────────────────────────

    def summary(self, workers: list[Worker]) -> str:
        """One sentence, and a warning for each thing that is not known."""
        said = [worker for worker in workers if self.backend in worker.backends]
        if silent := [worker.name for worker in workers if not worker.backends]:
            self.warnings.append(f"no line in the log of {', '.join(silent)} says which backend NIXL uses")
        mixed = {worker.name: worker.backends for worker in said if worker.backends != {self.backend}}
        for name, backends in mixed.items():
            self.warnings.append(
                f"{name} made {', '.join(sorted(backends))} agents; which of them moves the cache is not known"
            )
        moved = [worker.moved for worker in workers if worker.moved is not None]
        if not moved:
            self.warnings.append("no worker counts the bytes it moves")
        elif sum(moved) <= 0:
            self.warnings.append("the workers' counters say that no bytes moved")
        if failed := {worker.name: worker.failures for worker in workers if worker.failures}:
            listed = ", ".join(f"{name} {count:.0f}" for name, count in failed.items())
            self.warnings.append(f"failed transfers: {listed}")
        served = sum(worker.served is True for worker in workers)
        gib = f"{sum(moved) / 2**30:.2f} GiB moved" if moved else "how much moved is not known"
        return (
            f"KV: {served} of {len(workers)} workers served a prompt of about {self.words} tokens, "
            f"{len(said)} say {self.backend}, {gib}"
        )
