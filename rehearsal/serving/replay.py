"""Offline replay: NVIDIA's `aisimulate predict --stack dynamo` for a plan and its traffic. Virtual time, no process that serves, seconds.

    from rehearsal.serving.replay import Fixed, Limits, Trace, replay

    found = replay(plan, Trace.of(requests), Limits(ttft_ms=2000, itl_ms=25))
    found.ttft_ms, found.itl_ms, found.goodput_share, found.gaps

Everything is predicted from NVIDIA's performance database; nothing was measured, here or on a GPU. What the tool is told comes from the
very command lines the live rehearsal gives its mock engines (`rehearsal.serving.commands`), so that both are of one shape. What it has
no word for stands in `Replay.gaps`. With the kv router two runs differ, most on short traces: `attempt` asks for another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import ValidationError

from recipe import catalogue
from recipe.config import Frozen
from recipe.plan import Plan
from recipe.scripts import trace
from rehearsal.cache import cache_folder, run
from rehearsal.errors import SetupError
from rehearsal.serving.commands import DATABASE, Facts, Flags, Pool, commands
from rehearsal.serving.environment import ensure_environment

FORMAT: Final = 1
"""Of what is kept: another number, and everything is computed anew."""
KV_GB_PER_SECOND: Final = 50.0
"""One GPU's share of a p5's EFA: 3,200 Gbit/s over 8 GPUs (facts/aws.md); other GPUs are taken for the same. docs/unverified.md has it."""
TIMEOUT_SECONDS: Final = 900.0
_POLICIES: Final = {"kv": "kv_router", "round-robin": "round_robin"}
_SIGKILL: Final = -9

Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Trace:
    """Requests at their own times. `text`: a trace file in Mooncake's format (recipe/scripts/trace.py)."""

    text: str
    origin: str = "given"
    """Where it is from, in words."""

    @classmethod
    def of(cls, requests: Sequence[trace.Request], origin: str = "given") -> Trace:
        """Of a list of requests."""
        return cls(trace.text_of(requests), origin)


@dataclass(frozen=True)
class Fixed:
    """Requests of one length, `concurrency` of them in flight at any time (all GPUs together)."""

    isl: int
    osl: int
    concurrency: int
    requests: int


Traffic: TypeAlias = Trace | Fixed


@dataclass(frozen=True)
class Limits:
    """What a good request keeps: both (recipe.config.Goodput)."""

    ttft_ms: float
    itl_ms: float


class Replay(Frozen):
    """A prediction. Times in milliseconds; each figure over the requests that were answered, as AIPerf has it."""

    tool: str
    """Name and version of what predicted it."""
    traffic: str
    """In words."""
    requests: int
    answered: int
    seconds: float
    """Virtual time from the first request to the last token."""
    ttft_ms: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_ms: float | None
    """Mean over requests of a request's mean time between tokens; None where every answer is a single token."""
    itl_p99_ms: float | None
    """99th percentile of the same means, as AIPerf's."""
    token_gap_p99_ms: float | None
    """99th percentile over all gaps between two tokens: shows stalls, which means hide."""
    latency_ms: float
    """Whole request, mean."""
    goodput_share: float | None
    """Of all requests, those that keep both limits; None without limits."""
    goodput_rps: float | None
    """Those per second."""
    prefix_reuse: float
    """Share of prompt tokens that were in a cache already."""
    tokens_per_s: float
    """Output."""
    tokens_per_s_gpu: float
    gpus: int
    wall_seconds: float
    """What predicting it took here, once."""
    gaps: tuple[str, ...]
    """What of the plan or the traffic the prediction leaves out."""


def replay(
    plan: Plan,
    traffic: Traffic,
    limits: Limits | None = None,
    *,
    attempt: int = 1,
    kv_gb_per_second: float = KV_GB_PER_SECOND,
    say: Say | None = None,
    cached: bool = True,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Replay:
    """What `plan` would do with `traffic`. SetupError: the tool is not there or cannot do it, with its own reason.

    The same question again is answered from the cache (folder `replays`): with the kv router that is a draw which was made once, hence `attempt`.
    """
    config, gaps = question(plan, traffic, kv_gb_per_second)
    text = traffic.text if isinstance(traffic, Trace) else ""
    same = [FORMAT, DATABASE, config, gaps, text, vars(limits) if limits else None, attempt]
    key = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:24]
    kept = cache_folder() / "replays" / f"{key}.json"
    if cached and (found := _read(kept)) is not None:
        return found
    python = ensure_environment()
    begun = time.monotonic()
    answer = _predict(python, config, text, say or (lambda _: None), timeout_seconds)
    found = read_answer(
        answer, traffic, limits, gpus=plan.gpus, gaps=gaps, wall_seconds=round(time.monotonic() - begun, 2)
    )
    if cached:
        _keep(kept, found)
    return found


# ── what the tool is asked ───────────────────────────────────────────────────────────────────────────────────────────


def question(
    plan: Plan, traffic: Traffic, kv_gb_per_second: float = KV_GB_PER_SECOND
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The tool's configuration, and what of the plan it leaves out. Pure. The trace's file is called trace.jsonl."""
    wanted = commands(plan.objects.graph, Facts.of(plan))
    if not wanted.with_model:
        raise SetupError(
            f"{plan.stack} has no GPU to predict times for",
            "name a stack with GPUs (engine vllm or trtllm, not paused)",
        )
    first = Flags(wanted.pools[0].timing)
    disagg = plan.recipe.mode == "disagg"
    engine: dict[str, Any] = {
        "mode": "disaggregated" if disagg else "aggregated",
        "model": plan.model.id,
        "hardware": first.value("--ais-system"),
        "backend": plan.recipe.engine,
        "workers": {_role(pool): _worker(pool) for pool in wanted.pools},
    }
    chunked = [
        on for pool in wanted.pools if (on := _switch(pool, "chunked-prefill")) is not None
    ]  # of those that see prompts
    if chunked:
        engine["enable_chunked_prefill"] = all(chunked)
    if disagg:
        engine["kv_transfer"] = {"bandwidth_gb_per_second": kv_gb_per_second, "timing_mode": "full_prompt"}
    if isinstance(traffic, Trace):
        source: dict[str, Any] = {
            "source": {"type": "trace", "paths": ["trace.jsonl"], "format": "mooncake", "block_size": trace.BLOCK},
            "load": {"type": "trace_timestamps"},
        }
    else:
        source = {
            "source": {"type": "synthetic", "input_tokens": traffic.isl, "output_tokens": traffic.osl},
            "load": {"type": "concurrency", "concurrency": traffic.concurrency},
            "stop": {"requests": traffic.requests},
        }
    router = {"policy": _POLICIES[plan.recipe.router.mode]}
    gaps = _gaps(plan, wanted.pools, wanted.frontends)
    if disagg:
        gaps.append(
            f"KV transfer is taken to run at {kv_gb_per_second:g} GB/s, EFA's line rate: nobody has measured it"
        )
    return {"engine": engine, "traffic": source, "router": router}, tuple(gaps)


def _role(pool: Pool) -> str:
    return "aggregated" if pool.role == "worker" else pool.role


def _switch(pool: Pool, name: str) -> bool | None:
    return Flags(pool.args).switch(f"enable-{name}")


def _worker(pool: Pool) -> dict[str, Any]:
    """One pool, from what its mock engine is told. What it is not told, the tool decides as the mock engine does."""
    args, timing = Flags(pool.args), Flags(pool.timing)
    parallelism: dict[str, int] = {"replicas": pool.replicas, "tensor": timing.number("--ais-tp-size") or 1}
    for key, flag in (
        ("attention_data", "--ais-attention-dp-size"),
        ("moe_tensor", "--ais-moe-tp-size"),
        ("moe_expert", "--ais-moe-ep-size"),
    ):
        if (number := timing.number(flag)) is not None:
            parallelism[key] = number
    cache: dict[str, Any] = {}
    if (size := args.number("--block-size")) is not None:
        cache["block_size"] = size
    if (bytes_ := args.number("--kv-bytes-per-token")) is not None:
        cache["bytes_per_token"] = bytes_
    if (caching := _switch(pool, "prefix-caching")) is not None:
        cache["prefix_caching"] = caching
    fraction = timing.value("--gpu-memory-utilization") or timing.value("--free-gpu-memory-fraction")
    if fraction is not None:
        cache["capacity"] = {"memory_fraction": float(fraction)}
    worker: dict[str, Any] = {"parallelism": parallelism, "kv_cache": cache}
    # Left out, the tool takes the model's own and turns longer requests away without a word.
    if (context := args.number("--max-model-len")) is not None:
        worker["context_length"] = context
    scheduler = {
        key: number
        for key, flag in (("max_sequences", "--max-num-seqs"), ("max_batched_tokens", "--max-num-batched-tokens"))
        if (number := args.number(flag)) is not None
    }
    return worker | ({"scheduler": scheduler} if scheduler else {})


def _gaps(plan: Plan, pools: Sequence[Pool], frontends: int) -> list[str]:
    """Sentences about what is left out."""
    said = []
    model = catalogue.MODELS.get(plan.model.id)
    for pool in pools:
        told = Flags(pool.args).number("--kv-bytes-per-token")
        if model is not None and told is not None and told < model.kv_bytes_per_token("bfloat16"):
            said.append(
                "KV cache in fp8: its size counts, its speed does not (`--stack dynamo` refuses kvcache_quant_mode)"
            )
    if plan.recipe.engine == "trtllm":
        said.append(
            "TensorRT-LLM's own settings (CUDA graphs, overlap scheduler, attention DP's balancing) have no word here"
        )
    router = plan.recipe.router
    if router.overlap_credit is not None or router.temperature is not None:
        said.append("router.overlap_credit and router.temperature: the tool's router has its own")
    if frontends > 1:
        said.append(f"{frontends} frontends, each with a router of its own: here is one")
    if any(plan.recipe.tuning(pool.role).extra_args for pool in plan.workers):
        said.append("extra_args of the engine")
    return list(dict.fromkeys(said))


# ── running it ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _predict(python: Path, config: dict[str, Any], text: str, say: Say, timeout_seconds: float) -> dict[str, Any]:
    """prediction.json. The tool works in a folder of its own, and nothing of it is left however this ends."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "DYN_"))}
    env = kept | {"HF_HUB_OFFLINE": "1", "DYN_LOG": "error"}  # it would print a line for every routed request
    begun = said = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dynamo-recipes-replay-") as name:
        work = Path(name)
        (work / "trace.jsonl").write_text(text, encoding="utf-8")
        (work / "question.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML

        def tick(_: int) -> None:
            nonlocal said
            now = time.monotonic()
            if now - begun > timeout_seconds:
                raise SetupError(
                    f"the offline replay was not done after {timeout_seconds:.0f} s", "replay less: a smaller scale"
                )
            if now - said >= 10:
                said = now
                say(f"offline replay: {now - begun:.0f} s")

        command: list[str | Path] = [
            python.parent / "aisimulate",
            "predict",
            "--stack",
            "dynamo",
            "-c",
            work / "question.yaml",
        ]
        command += ["--output-dir", work / "out", "--format", "json", "--capture-per-request"]
        try:
            code, _, errors = run(command, work, env, tick)
        except OSError as error:
            raise SetupError(
                f"aisimulate cannot be run: {error}", "make serving: it sets up Dynamo's environment"
            ) from None
        try:
            found: dict[str, Any] = json.loads((work / "out" / "prediction.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = {}
        if code or not found:
            raise SetupError(*why_not(code, errors))
    return found


def why_not(code: int, errors: str) -> tuple[str, str]:
    """What went wrong and what to do, from the tool's exit code and its last words."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", errors).splitlines() if line.strip()]
    lines = [line for line in lines if "execution process exited" not in line and "errors.pydantic.dev" not in line]
    last = " | ".join(lines[-3:])[-600:] or "it said nothing"
    if "no KV budget" in errors:
        return f"the model does not fit the GPUs: {last}", "more tensor parallelism, or a larger GPU"
    if "Extra inputs are not permitted" in errors or "extra_forbidden" in errors:
        return f"aisimulate refuses a key: {last}", f"the question is made for {DATABASE}: is that what is installed?"
    if code == _SIGKILL or "memory_limit" in errors or "MemoryError" in errors or "status -9" in errors:
        return f"the offline replay ran out of memory: {last}", "replay less (a smaller scale), or free memory"
    return f"the offline replay failed (exit code {code}): {last}", "see what it says; `--help`: aisimulate predict"


# ── what it answered ─────────────────────────────────────────────────────────────────────────────────────────────────


def read_answer(
    answer: dict[str, Any],
    traffic: Traffic,
    limits: Limits | None,
    *,
    gpus: int,
    gaps: tuple[str, ...] = (),
    wall_seconds: float = 0.0,
) -> Replay:
    """prediction.json as figures. SetupError where it has none."""
    try:
        summary, every = answer["summary"], answer["per_request"]
        seconds = float(summary["duration_ms"]) / 1000
        done = [one for one in every if one["terminal_status"] not in _LOST and one["ttft_ms"] is not None]
        if not done or seconds <= 0:
            raise SetupError(
                "the offline replay answered no request", "send shorter requests: a smaller max_input_tokens"
            )
        ttft = [float(one["ttft_ms"]) for one in done]
        itl = [float(one["itl_ms"]) for one in done if one["itl_ms"] is not None]
        tokens = float(summary["total_output_tokens"]) / seconds
        good = _good(done, limits) if limits else None
        lost = len(every) - len(done)
        turned_away = (f"{lost} of {len(every)} requests were turned away (too long for a worker), and are in no time",)
        return Replay(
            tool=DATABASE,
            traffic=_words(traffic),
            requests=len(every),
            answered=len(done),
            seconds=round(seconds, 3),
            ttft_ms=_mean(ttft),
            ttft_p50_ms=percentile(ttft, 50),
            ttft_p99_ms=percentile(ttft, 99),
            itl_ms=_mean(itl) if itl else None,
            itl_p99_ms=percentile(itl, 99) if itl else None,
            token_gap_p99_ms=_rounded(summary.get("p99_itl_ms")) if itl else None,
            latency_ms=_mean([float(one["e2e_latency_ms"]) for one in done]),
            goodput_share=None if good is None else round(good / len(every), 4),
            goodput_rps=None if good is None else round(good / seconds, 4),
            prefix_reuse=round(float(summary["prefix_cache_reused_ratio"]), 4),
            tokens_per_s=round(tokens, 2),
            tokens_per_s_gpu=round(tokens / max(1, gpus), 3),
            gpus=gpus,
            wall_seconds=wall_seconds,
            gaps=gaps + (turned_away if lost else ()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SetupError(
            f"the offline replay's answer cannot be read: {error!r}", f"it is read as {DATABASE} writes it"
        ) from None


_LOST: Final = ("rejected", "failed", "cancelled")


def _good(done: Sequence[dict[str, Any]], limits: Limits) -> int:
    return sum(one["ttft_ms"] <= limits.ttft_ms and (one["itl_ms"] or 0.0) <= limits.itl_ms for one in done)


def percentile(values: Sequence[float], share: float) -> float:
    """Linear between neighbours, as numpy and AIPerf have it."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return round(ordered[low] + (ordered[high] - ordered[low]) * (place - low), 3)


def _mean(values: Sequence[float]) -> float:
    return round(statistics.fmean(values), 3)


def _rounded(value: Any) -> float | None:
    return None if value is None else round(float(value), 3)


def _words(traffic: Traffic) -> str:
    if isinstance(traffic, Trace):
        return f"{len(traffic.text.splitlines()):,} requests of a trace at their own times ({traffic.origin})"
    return (
        f"{traffic.requests:,} requests of {traffic.isl:,} in and {traffic.osl:,} out, {traffic.concurrency} in flight"
    )


# ── the cache ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read(path: Path) -> Replay | None:
    try:
        return Replay.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError):
        return None


def _keep(path: Path, found: Replay) -> None:
    """All or nothing; a cache that cannot be written is none."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(found.model_dump_json(), encoding="utf-8")
        staged.replace(path)
    except OSError:
        staged.unlink(missing_ok=True)
