"""The last part of a rehearsal's `up`: tokens. The graph in the pretend cloud, served by Dynamo's own frontend and router on this machine.

Mock engines stand in for GPUs, so every time is simulated; `timing` says by what.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import typer

from recipe.plan import Plan
from recipe.scripts.endpoint import Endpoint
from recipe.scripts.kube import Unreachable
from recipe.scripts.metrics import scrape
from rehearsal.cloud import rules
from rehearsal.errors import SetupError
from rehearsal.serving import Answer, Facts, Serving, ask, ensure_environment, serve
from rehearsal.serving.probe import ADMISSIONS, NoAnswer

PROMPT: Final = (
    " ".join(f"Item {number} costs {number * 7 % 100} dollars." for number in range(200)) + " What is the sum?"
)
"""About 2,000 tokens for the tokenizer made here: a first token then takes what prefill takes, not what the network takes."""
TOKENS: Final = 32
_SNIPPET: Final = 40


@dataclass(frozen=True)
class Served:
    """What came of it. Times are simulated."""

    failure: str | None = None
    """Why nothing was answered; then the rest is empty."""
    workers: int = 0
    timing: str = ""
    model: str = ""
    answer: Answer | None = None
    served_by: tuple[str, ...] = ()
    """The workers whose own counters went up with the streamed completion."""
    admissions: dict[str, int] = field(default_factory=dict)
    """How often the frontend's router sent it to a worker of which kind; empty where the router does not count (round-robin)."""
    endpoint_check: str = ""
    """What the readiness Job's own check said."""
    start_seconds: float = 0.0
    memory_mib: float = 0.0

    def as_data(self) -> dict[str, Any]:
        """For `--json`."""
        return {"simulated": True, **asdict(self)}


def prepare(*, wanted: bool | None) -> bool:
    """Set up what serving needs. False where it is not wanted, or cannot be and nobody insisted: then one line says why.

    `wanted`: True insists (SetupError), None takes what there is, False does without.
    """
    if wanted is False:
        return False
    try:
        ensure_environment()
    except SetupError as error:
        if wanted:
            raise
        first = error.message.partition("\n")[0].rstrip(":")
        typer.echo(f"Without serving: {first}. --serve makes it a failure, SERVE=0 leaves it out.", err=True)
        return False
    return True


def serve_and_ask(plan: Plan, objects: Iterable[Mapping[str, Any]]) -> Served | None:
    """Serve the graph among the pretend cloud's `objects`; None where there is none (paused)."""
    graph, configs = in_cloud(objects, plan.objects.graph["metadata"])
    if graph is None:
        return None
    typer.echo("\nserving (simulated): Dynamo's own frontend and router on this machine, mock engines instead of GPUs")
    began = time.monotonic()
    try:
        with serve(graph, Facts(Facts.of(plan).gpu, configs)) as serving:
            served = _asked(serving)
    except (SetupError, NoAnswer, Unreachable) as error:
        served = Served(failure=f"serving failed: {getattr(error, 'message', error)}")
        typer.echo(f"  {served.failure}", err=True)
    else:
        for line in said(served):
            typer.echo(f"  {line}")
    typer.echo(f"  this took really {time.monotonic() - began:.0f} s")
    return served


def in_cloud(
    objects: Iterable[Mapping[str, Any]], wanted: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, dict[str, Any]]]:
    """The graph with the name and namespace of the metadata `wanted`, and that namespace's ConfigMaps by name."""
    graph, configs = None, {}
    for record in objects:
        if record["type"] not in (rules.DGD, rules.CONFIG_MAP):
            continue
        metadata = record["inputs"]["metadata"]
        if metadata.get("namespace") != wanted["namespace"]:
            continue  # another stack's, on the same base
        if record["type"] == rules.CONFIG_MAP:
            configs[metadata["name"]] = dict(record["inputs"])
        elif metadata["name"] == wanted["name"]:
            graph = dict(record["inputs"])
    return graph, configs


def _asked(serving: Serving) -> Served:
    endpoint = Endpoint(serving.url, serving.model)
    began = time.monotonic()
    try:
        trouble = endpoint.unlisted() or endpoint.complete()
    except Unreachable as error:
        trouble = str(error)
    if trouble is not None:
        return Served(failure=f"serving failed: {trouble}", workers=len(serving.workers), timing=serving.timing)
    check = f"{serving.model} answers at {serving.url} (first completion after {time.monotonic() - began:.1f} s)"
    before, admitted = serving.requests(), _admissions(serving.url)
    answer = ask(serving.url, serving.model, PROMPT, tokens=TOKENS)
    after, now = serving.requests(), _admissions(serving.url)
    return Served(
        workers=len(serving.workers),
        timing=serving.timing,
        model=serving.model,
        answer=answer,
        # Prefill first: that is the way a request takes.
        served_by=tuple(sorted((name for name, count in after.items() if count > before[name]), key=_as_it_goes)),
        admissions={
            kind: count - admitted.get(kind, 0) for kind, count in now.items() if count > admitted.get(kind, 0)
        },
        endpoint_check=check,
        start_seconds=round(serving.start_seconds, 1),
        memory_mib=round(serving.memory_mib()),
    )


def _admissions(url: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for sample in scrape(f"{url}/metrics"):
        if sample.name == ADMISSIONS:
            kind = sample.labels.get("worker_type", "worker")
            found[kind] = found.get(kind, 0) + round(sample.value)
    return found


def _as_it_goes(worker: str) -> tuple[bool, str]:
    return not worker.startswith("prefill"), worker


def said(served: Served) -> Sequence[str]:
    """A few lines for a person."""
    if served.failure is not None or served.answer is None:
        return [served.failure or "nothing was asked"]
    answer = served.answer
    text = " ".join(answer.text.split())[:_SNIPPET]
    counted = ", ".join(f"{count} to {kind}" for kind, count in sorted(served.admissions.items(), reverse=True))
    pace = "" if answer.itl_ms is None else f", then one every {answer.itl_ms:.1f} ms"
    return [
        f"{served.workers} workers registered and warm after {served.start_seconds:.1f} s, {served.memory_mib:.0f} MiB in all",
        f"the readiness Job's own check: {served.endpoint_check}",
        f"a prompt of {answer.prompt_tokens} tokens: first token after {answer.ttft_ms:.0f} ms{pace}",
        f"{answer.tokens} tokens, random ones: {text}…",
        f"served by {' and '.join(served.served_by)}" + (f"; the router admitted {counted}" if counted else ""),
        f"simulated times: {served.timing}",
    ]
