"""Runs in aiconfigurator's environment, never imported here: a question on standard input as JSON, the answer on standard output.

Beside what the search itself picks (the free optimum of each mode) the answer holds every worker it looked at, so that any layout made of
them can be judged afterwards without asking again. The tables of the two pools of a disaggregated layout are inside the tool; they are
read by listening to the one function that makes them (aiconfigurator 0.12.0, `sdk/sweep.py`).
"""

import contextlib
import importlib.metadata
import json
import logging
import resource
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

MEMORY_BYTES = 2 * 1024**3


def main() -> None:
    """One question, one answer."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    question = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        answer = search(question)
    json.dump(answer, sys.stdout)


def search(question: dict[str, Any]) -> dict[str, Any]:
    """Both modes: what the tool picks, and all it looked at."""
    from aiconfigurator.sdk import common as common_types
    from aiconfigurator.sdk import picking, sweep
    from aiconfigurator.sdk.task_v2 import Task

    started = time.monotonic()
    seen: dict[str, list[dict[str, Any]]] = {"prefill": [], "decode": []}
    own = sweep._get_disagg_worker_candidates

    def listening(**arguments: Any) -> Any:
        table = own(**arguments)
        seen[arguments["role"]] += [worker(row) for row in table.to_dict("records")]
        return table

    sweep._get_disagg_worker_candidates = listening
    backend, system, model = question["backend"], question["system"], question["model"]
    common: dict[str, Any] = {
        "isl": question["isl"],
        "osl": question["osl"],
        "ttft": question["ttft_ms"],
        "tpot": question["itl_ms"],
        "total_gpus": question["gpus"],
        "database_mode": "SILICON",
    }
    kv_cache = question["kv_cache_dtype"]
    quant: dict[str, Any] = (
        {} if kv_cache == "auto" else {"kvcache_quant_mode": common_types.KVCacheQuantMode[kv_cache]}
    )
    tasks: dict[str, Callable[[], Any]] = {
        "agg": lambda: Task(
            serving_mode="agg", model_path=model, system_name=system, backend_name=backend, **common, **quant
        ),
        "disagg": lambda: Task(
            serving_mode="disagg",
            **{
                f"{role}_{key}": value
                for role in ("prefill", "decode")
                for key, value in {
                    "model_path": model,
                    "system_name": system,
                    "backend_name": backend,
                    **quant,
                }.items()
            },
            **common,
        ),
    }
    found: dict[str, Any] = {"free": {}, "failed": {}, "agg": [], "version": None}
    for mode, make in tasks.items():
        if mode == "disagg" and question["gpus"] < 2:
            continue
        sys.stderr.write(f"searching {mode}\n")
        sys.stderr.flush()
        try:
            task = make()
            found["version"] = task.primary_backend_version
            frame = task.run()
            if mode == "agg":
                found["agg"] = [worker(row) for row in frame.to_dict("records")]
            else:
                found["factors"] = {
                    "prefill": task.rate_match_prefill_degradation,
                    "decode": task.rate_match_decode_degradation,
                    "ttft": task.autoscale_ttft_correction_factor,
                }
            picked = picking.pick_default(
                frame, question["gpus"], mode, target_tpot=question["itl_ms"], top_n=1, strict_sla=True
            )
            if len(picked["best_config_df"]):
                found["free"][mode] = best(picked["best_config_df"].to_dict("records")[0], mode)
        except Exception as error:  # the tool raises whatever it likes; the other mode's answer stands
            found["failed"][mode] = f"{type(error).__name__}: {error}"[:300]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return found | {
        "prefill": seen["prefill"],
        "decode": seen["decode"],
        "tool": importlib.metadata.version("aiconfigurator"),
        "seconds": round(time.monotonic() - started, 1),
        "memory_mib": usage.ru_maxrss // 1024,
    }


def shape(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Parallelism of a worker."""
    tp, dp = int(row[f"{prefix}tp"]), int(row[f"{prefix}dp"])
    return {"tp": tp, "dp": dp, "ep": int(row[f"{prefix}moe_ep"]), "gpus": tp * dp * int(row[f"{prefix}pp"])}


def worker(row: dict[str, Any]) -> dict[str, Any]:
    """One worker of a pool with one batch size; `batch` counts for each copy of the attention layers."""
    return shape(row) | {
        "batch": int(row["bs"]),
        "ttft_ms": float(row["ttft"]),
        "itl_ms": float(row["tpot"]),
        "requests_per_s": float(row["seq/s"]),
        "concurrency": float(row["concurrency"]),
        "memory_gb": float(row["memory"]),
    }


def best(row: dict[str, Any], mode: str) -> dict[str, Any]:
    """What the tool would take: tokens per second and GPU of the whole cluster, and the layout."""
    pools = {"worker": ""} if mode == "agg" else {"prefill": "(p)", "decode": "(d)"}
    return {
        "tokens_per_s_gpu": float(row["tokens/s/gpu_cluster"]),
        "ttft_ms": float(row["ttft"]),
        "itl_ms": float(row["tpot"]),
        "pools": {
            role: shape(row, prefix)
            | {"batch": int(row[f"{prefix}bs"]), "replicas": int(row.get(f"{prefix}workers", 1))}
            for role, prefix in pools.items()
        },
    }


if __name__ == "__main__":
    main()
