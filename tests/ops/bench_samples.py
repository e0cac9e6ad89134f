"""Folders of results as `ops bench` leaves them, with chosen figures."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from ops.compare.model import Comparison
from ops.compare.replayed import Replayed, put_together, side_of_replays
from recipe.benchmark import FORMAT
from rehearsal.serving.replay import Replay

ABOUT: dict[str, Any] = {
    "format": FORMAT,
    "stack": "qwen3-32b-agg",
    "profile": "small",
    "kind": "trace",
    "run": "1-abc-nodes",
    "started_at": "2026-11-25T09:00:00Z",
    "traffic": {"kind": "trace", "seed": 100, "warmup": 1, "scale": 0.01, "pace": 1.0, "max_input_tokens": None},
    "trace": {"origin": "generated", "digest": "0123456789abcdef", "requests": 4, "seconds": 33.0},
    "goodput": {"ttft_ms": 2000, "itl_ms": 25},
    "points": [],
    "model": "Qwen/Qwen3-32B",
    "aiperf": "0.13.0",
    "about": {
        "engine": "vllm",
        "mode": "agg",
        "router": "round-robin",
        "gpu": "h100",
        "instance_type": "p5.48xlarge",
        "gpus": 16,
        "workers": [{"role": "worker", "replicas": 8, "gpus": 2, "tensor_parallel": 2}],
        "versions": {"dynamo": "1.6.1", "vllm": "0.31.0"},
        "usd_per_hour": 113.55,
        "prices": [{"what": "GPU nodes", "as_of": "2026-01-19", "usd_per_hour": 110.08}],
        "simulated": None,
    },
}
DISAGG = [
    {"role": "prefill", "replicas": 6, "gpus": 2, "tensor_parallel": 2},
    {"role": "decode", "replicas": 2, "gpus": 2, "tensor_parallel": 2},
]


def folder(
    root: Path,
    name: str = "run",
    *,
    ttft: tuple[float, ...] = (400.0, 410.0),
    itl: tuple[float, ...] = (14.0, 14.2),
    mode: str = "agg",
    router: str = "round-robin",
    loads: tuple[float | None, ...] = (None,),
    state: str = "complete",
    **changes: Any,
) -> Path:
    """Results of one run; `path__to__key=value` changes run.json."""
    about = copy.deepcopy(ABOUT)
    about["stack"] = f"qwen3-32b-{mode}"
    about["about"] |= {"mode": mode, "router": router}
    if mode == "disagg":
        about["about"]["workers"] = DISAGG
    if loads != (None,):
        about["kind"] = "fixed"
        about["traffic"] = {"kind": "fixed", "isl": 4000, "osl": 500, "concurrency_per_gpu": list(loads), "seed": 100}
        about.pop("trace")
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        target = about
        for parent in parents:
            target = target[parent]
        target[last] = value
    made = root / name
    (made / "points").mkdir(parents=True)
    for repeat, (first, between) in enumerate(zip(ttft, itl, strict=True), 1):
        for load in loads:
            key = f"r{repeat}" if load is None else f"c{load:g}-r{repeat}"
            point = {"key": key, "repeat": repeat, "concurrency_per_gpu": load, "seed": repeat}
            point |= {"concurrency": None if load is None else round(load * about["about"]["gpus"])}
            about["points"].append(point)
            text = json.dumps(result(point, first * (1 if load is None else 1 + load / 10), between))
            (made / "points" / f"{key}.json").write_text(text)
    (made / "run.json").write_text(json.dumps(about))
    status = {
        "state": state,
        "reason": "every point measured" if state == "complete" else "AIPerf ended with exit code 1",
    }
    (made / "status.json").write_text(json.dumps(status))
    return made


def result(point: dict[str, Any], ttft: float, itl: float) -> dict[str, Any]:
    """A point whose requests have those means."""
    spread = (0.5, 0.8, 1.2, 1.5)
    latency = ttft + 342 * itl
    throughput = 640.0 if point["concurrency_per_gpu"] is None else 400.0 * point["concurrency_per_gpu"] ** 0.5
    return {
        "point": point,
        "seconds": 60.0,
        "errors": 0,
        "error_kinds": [],
        "aiperf": "0.13.0",
        "metrics": {
            "time_to_first_token": {"unit": "ms", "avg": ttft, "p50": ttft * 0.9, "p99": ttft * 3},
            "inter_token_latency": {"unit": "ms", "avg": itl, "p99": itl * 1.5},
            "request_latency": {"unit": "ms", "avg": latency},
            "output_token_throughput": {"unit": "tokens/sec", "avg": throughput},
            "goodput": {"unit": "requests/sec", "avg": 1000 / ttft},
        },
        "requests": {
            "start_ms": [0.0, 1.0, 2.0, 3.0],
            "ttft_ms": [ttft * one for one in spread],
            "itl_ms": [itl * one for one in spread],
            "latency_ms": [latency] * 4,
            "isl": [4000] * 4,
            "osl": [343] * 4,
        },
    }


def corners(root: Path, **changes: Any) -> list[Path]:
    """The four, with the router worth 150 ms of TTFT and disaggregation 4 ms of ITL."""
    return [
        folder(root, "agg-rr", **changes),
        folder(root, "agg-kv", router="kv", ttft=(250.0, 258.0), **changes),
        folder(root, "disagg-rr", mode="disagg", ttft=(402.0, 408.0), itl=(10.0, 10.1), **changes),
        folder(root, "disagg-kv", mode="disagg", router="kv", ttft=(252.0, 257.0), itl=(10.0, 10.1), **changes),
    ]


def answer(ttft: float, itl: float = 14.0) -> Replay:
    """A prediction with those means."""
    return Replay(
        tool="aisimulate", traffic="the same requests", requests=4, answered=4, seconds=60.0, ttft_ms=ttft, ttft_p50_ms=ttft,
        ttft_p99_ms=ttft, itl_ms=itl, itl_p99_ms=itl, token_gap_p99_ms=itl, latency_ms=ttft + 342 * itl, goodput_share=1.0,
        goodput_rps=1000 / ttft, prefix_reuse=0.1, tokens_per_s=640.0, tokens_per_s_gpu=40.0, gpus=16, wall_seconds=1.0, gaps=("a gap",),
    )  # fmt: skip


def beside(found: Comparison) -> Replayed:
    """Predictions for `corners`: the kv router makes TTFT worse by half, disaggregation ITL better as it does live."""
    row = tuple(
        side_of_replays(
            run,
            "trace",
            [answer(600.0 if run.stack["router"] == "kv" else 400.0, 10.0 if run.stack["mode"] == "disagg" else 14.0)]
            * 2,
        )
        for run in found.runs
    )
    return put_together(found, {"trace": row}, {"trace": "the same requests"}, ["a gap"], 8.0)
