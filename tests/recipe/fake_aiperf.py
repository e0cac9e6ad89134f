"""Stands in for AIPerf: takes its arguments, writes its files. What goes wrong is set by the environment.

FAKE_FAIL_AT: which call (1 is the warm-up) ends with exit code 1. FAKE_HANG_AT: which call never ends. FAKE_ERRORS: failed requests of each
call. FAKE_GARBLED: results that are no JSON. Calls are counted, and their arguments kept, in FAKE_CALLS.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path


def main() -> int:
    arguments = sys.argv[1:]
    given = dict(pairwise(arguments))
    calls = Path(os.environ["FAKE_CALLS"])
    with calls.open("a") as file:
        file.write(json.dumps(arguments) + "\n")
    number = len(calls.read_text().splitlines())
    out = Path(given["--artifact-dir"])
    if "--input-file" in given:
        count = len(Path(given["--input-file"]).read_text().splitlines())
    else:
        count = int(given["--request-count"])
    errors = int(os.environ.get("FAKE_ERRORS", "0"))
    with (out / "profile_export.jsonl").open("w") as file:
        for index in range(count):
            file.write(json.dumps(record(index, failed=index < errors)) + "\n")
    if str(number) == os.environ.get("FAKE_HANG_AT"):
        time.sleep(600)
    if str(number) == os.environ.get("FAKE_FAIL_AT"):
        print("│ the connection was reset by the server │")
        return 1
    stats = {"unit": "ms", "avg": 100.0 + number, "p50": 90.0, "p99": 200.0}
    report = {
        "aiperf_version": "0.13.0",
        "time_to_first_token": stats,
        "inter_token_latency": {"unit": "ms", "avg": 10.0, "p99": 12.0},
        "request_latency": {"unit": "ms", "avg": 900.0},
        "output_token_throughput": {"unit": "tokens/sec", "avg": 640.0},
        "goodput": {"unit": "requests/sec", "avg": 2.5},
    }
    text = "{" if os.environ.get("FAKE_GARBLED") else json.dumps(report)
    (out / "profile_export_aiperf.json").write_text(text)
    return 0


def record(index: int, *, failed: bool) -> dict[str, object]:
    metadata = {"benchmark_phase": "profiling", "request_start_ns": 10**9 * index}
    if failed:
        return {"metadata": metadata, "metrics": {}, "error": {"message": "503 Service Unavailable"}}
    values = {
        "time_to_first_token": 100.0 + index,
        "inter_token_latency": 10.0,
        "request_latency": 900.0,
        "input_sequence_length": 4000,
        "output_sequence_length": 500,
    }
    return {"metadata": metadata, "metrics": {name: {"value": value, "unit": ""} for name, value in values.items()}}


if __name__ == "__main__":
    sys.exit(main())
