"""Measures a served model with AIPerf, point by point, and keeps each point at once: on the claim, in S3 where asked, and in the log.

Exit codes: 0 everything measured, 2 wrongly started, 3 the endpoint never answered, 4 the claim takes no results (they are in the log),
5 AIPerf failed, 6 no trace, 7 the deadline came first, 8 measured, but not copied to S3, 143 told to stop. Whatever the code, points that were
measured are kept, and another pod goes on after them.

The log carries every result as lines `@@ NAME PART/PARTS TEXT` (gzip, base64), so that reading the log is all it takes to fetch
them: no exec into a pod, no copy of a volume.
"""

from __future__ import annotations

import base64
import errno
import gzip
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from recipe.scripts import trace
from recipe.scripts.kube import Unreachable, call, finish, say, setting

POLL_SECONDS: Final = 5.0
PROGRESS_SECONDS: Final = 15.0
STOP_SECONDS: Final = 20.0
"""AIPerf's own time to write down what it has, within the pod's 30 seconds of grace."""
MOST_ERRORS: Final = 0.05
"""Share of failed requests above which a point says nothing about the stack."""
LINE_CHARS: Final = 8_000
"""Of a result's line: the container runtime cuts log lines at 16 KiB."""
MOST_LOG_BYTES: Final = 1_000_000
"""Of one result in the log, which the kubelet rotates at 10 MiB. A larger one gives a sample of its requests there; the claim has all."""
SAMPLE: Final = 2_000
COLUMNS: Final = {
    "ttft_ms": "time_to_first_token",
    "itl_ms": "inter_token_latency",
    "latency_ms": "request_latency",
    "isl": "input_sequence_length",
    "osl": "output_sequence_length",
}
"""Of each request, with AIPerf's name."""
KEPT: Final = (
    "profile_export_aiperf.json",
    "profile_export_aiperf.csv",
    "profile_export_console.txt",
    "logs/aiperf.log",
)


class Failed(Exception):
    """A point could not be measured."""


class Stopped(BaseException):
    """The pod is being taken away, or the deadline is there. Not an Exception: nothing in between may catch it."""


class Bench:
    """One run of one profile."""

    def __init__(self) -> None:
        self.spec: dict[str, Any] = json.loads(Path(setting("BENCH_FILE")).read_text(encoding="utf-8"))
        self.url, self.run_name = setting("FRONTEND_URL"), setting("RUN")
        self.deadline = time.monotonic() + float(setting("DEADLINE_SECONDS"))
        self.ready_seconds = float(setting("READY_SECONDS", "600"))
        self.name = f"{self.spec['stack']}/{self.spec['profile']}/{self.run_name}"
        self.folder = Path(setting("RESULTS")) / self.name
        self.work = Path(setting("WORK", tempfile.gettempdir())) / "bench"
        self.aiperf: list[str] = json.loads(setting("AIPERF", json.dumps([sys.executable, "-m", "aiperf"])))
        self.workers = max(2, int(float(setting("WORKERS", "8"))))
        self.measured: list[str] = []
        self.claim_problem = ""
        self.bucket_problem = ""
        self.trace_file: Path | None = None
        self.child: subprocess.Popen[bytes] | None = None

    def run(self) -> NoReturn:
        """Everything, and the verdict."""
        signal.signal(signal.SIGTERM, self.stop)
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        points = self.spec["points"]
        try:
            self.prepare_trace()
            self.keep("run.json", self.about())
            done = {point["key"]: found for point in points if (found := self.earlier(point))}
            if len(done) < len(points):
                self.wait_ready()
                self.warm_up()
            for number, point in enumerate(points, 1):
                said = f"point {number} of {len(points)}, {point['key']}"
                if found := done.get(point["key"]):
                    say(f"{said}: measured before")
                else:
                    say(f"{said}: {described(point, self.spec)}")
                    found = self.measure(point)
                    say(f"{said}: {summary(found)}")
                self.keep(f"points/{point['key']}.json", found)
                self.measured.append(point["key"])
        except Failed as failed:
            self.end(5, str(failed))
        except Stopped as stopped:
            self.end(7 if stopped.args == ("deadline",) else 143, f"{stopped.args[0]}: cut short")
        if self.claim_problem:
            self.end(4, f"the claim takes no results ({self.claim_problem}): they are in this log only")
        if self.bucket_problem:
            self.end(8, f"measured, but not copied to s3://{self.spec['bucket']['name']}: {self.bucket_problem}")
        self.end(0, "every point measured")

    def stop(self, *_: object) -> None:
        """SIGTERM: evicted, preempted, deleted."""
        raise Stopped("the pod was told to stop")

    def end(self, code: int, reason: str) -> NoReturn:
        """Says what there is, whatever the code, and ends."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        wanted = [point["key"] for point in self.spec["points"]]
        status = {
            "state": "complete" if len(self.measured) == len(wanted) else "cut short",
            "code": code,
            "reason": reason,
            "measured": self.measured,
            "missing": [key for key in wanted if key not in self.measured],
            "claim": None if self.claim_problem else str(self.folder),
            "s3": None if self.bucket_problem else self.s3_uri(),
        }
        self.keep("status.json", status)
        shutil.rmtree(self.work, ignore_errors=True)
        kept = f"{len(self.measured)} of {len(wanted)} points kept: {' '.join(self.measured) or 'none'}"
        finish(code, f"{self.name}: {reason}; {kept}")

    # ── before ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def about(self) -> dict[str, Any]:
        """run.json: what was measured, on what, for how much."""
        known = {key: value for key, value in self.spec.items() if key != "trace_source"}
        if timing := os.environ.get("SIMULATED"):
            known["about"] = known["about"] | {"simulated": timing}
        return known | {"run": self.run_name, "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}

    def prepare_trace(self) -> None:
        """The trace as a file for AIPerf, and in the spec what it is like."""
        source = self.spec.get("trace_source")
        if source is None:
            return
        origin, requests = "generated", None
        if source["source"] == "mooncake":
            try:
                requests, origin = trace.read(self.published(source)), "mooncake"
            except (OSError, ValueError) as error:
                if not source["fallback"]:
                    self.end(6, f"the trace cannot be had: {error}")
                origin = f"generated, because the published trace could not be had: {error}"
                say(f"no published trace ({error}): going on with a generated one of its shape")
        if requests is None:
            requests = trace.cut(
                trace.generated(source["seed"], source["scale"]), pace=source["pace"], longest=source["longest"]
            )
        else:
            requests = trace.cut(requests, scale=source["scale"], pace=source["pace"], longest=source["longest"])
        if not requests:
            self.end(6, "no request of the trace is short enough: max_input_tokens")
        self.trace_file = self.work / "trace.jsonl"
        self.trace_file.write_text(trace.text_of(requests), encoding="utf-8")
        like = vars(trace.shape(requests))
        self.spec["trace"] = {"origin": origin, "digest": trace.digest(requests), **like}
        for point in self.spec["points"]:
            point["requests"] = len(requests)
        say(f"trace: {origin}: " + ", ".join(f"{key} {value}" for key, value in like.items()))

    def published(self, source: dict[str, Any]) -> str:
        """The published trace's text, from the claim if it is there. OSError, ValueError: it is not to be had, or another one."""
        stored = Path(setting("RESULTS")) / "traces" / source["file"]
        with suppress(OSError):
            kept = stored.read_bytes()
            if len(kept) == source["bytes"]:
                return str(kept, "utf-8")
        with urllib.request.urlopen(source["url"], timeout=60) as response:  # noqa: S310 - https, from our own manifest
            data: bytes = response.read()
        if len(data) != source["bytes"]:
            raise ValueError(f"{source['url']} has {len(data)} bytes instead of {source['bytes']}")
        with suppress(OSError):
            write(stored, data)
        return str(data, "utf-8")

    def wait_ready(self) -> None:
        """Until the model is listed and one completion came back."""
        give_up = time.monotonic() + self.ready_seconds
        body = {"model": self.spec["model"], "max_tokens": 4, "messages": [{"role": "user", "content": "Say hello."}]}
        while True:
            try:
                status, listed = call("GET", f"{self.url}/v1/models", timeout_seconds=10)
                models = [one.get("id") for one in listed.get("data", []) if isinstance(one, dict)]
                why = f"it lists {models or listed.get('message') or status}"
                if self.spec["model"] in models:
                    status, answer = call("POST", f"{self.url}/v1/chat/completions", body, timeout_seconds=120)
                    if status == 200 and answer.get("choices"):
                        return
                    why = f"a completion ended with {status}: {str(answer)[:300]}"
            except Unreachable as error:
                why = str(error)
            if time.monotonic() > give_up:
                self.end(3, f"{self.url} does not serve {self.spec['model']} after {self.ready_seconds:.0f} s: {why}")
            self.check_deadline()
            say(f"waiting for {self.url}: {why}")
            time.sleep(min(POLL_SECONDS, self.ready_seconds / 4))

    def warm_up(self) -> None:
        """Requests that do not count. One that fails is a failure: nothing behind it would do better."""
        warm = self.spec["warmup"]
        if warm["requests"]:
            say(
                f"warm-up: {warm['requests']} requests of {warm['isl']}/{warm['osl']} tokens, {warm['concurrency']} in flight"
            )
            load = synthetic(warm["isl"], warm["osl"], warm["concurrency"], warm["requests"], warm["seed"])
            self.profile(self.work / "warmup", load, None)

    def earlier(self, point: dict[str, Any]) -> dict[str, Any] | None:
        """The point's result if an earlier pod of this run has measured it."""
        path = self.folder / "points" / f"{point['key']}.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(found, dict) and found.get("point", {}).get("key") == point["key"] and "requests" in found:
                if found.get("trace") == self.trace_digest:
                    return found
                # An earlier pod had the published trace and this one does not, or the other way round.
                say(f"{path} is of another trace: measuring again")
            else:
                say(f"{path} is no result: measuring again")
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            say(f"{path} cannot be read ({error}): measuring again")
        return None

    # ── one point ────────────────────────────────────────────────────────────────────────────────────────────────────

    def measure(self, point: dict[str, Any]) -> dict[str, Any]:
        """AIPerf, and what came of it. Raises Failed and Stopped."""
        if self.trace_file:
            load = ["--input-file", str(self.trace_file), "--custom-dataset-type", "mooncake_trace", "--fixed-schedule"]
            load += ["--random-seed", str(point["seed"])]
        else:
            traffic = self.spec["traffic"]
            load = synthetic(traffic["isl"], traffic["osl"], point["concurrency"], point["requests"], point["seed"])
        limits = self.spec["goodput"]
        load += ["--goodput", f"time_to_first_token:{limits['ttft_ms']:g} inter_token_latency:{limits['itl_ms']:g}"]
        out = self.work / point["key"]
        begun, started = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            self.profile(out, load, point["requests"])
            found = outcome(out) | {
                "point": point,
                "started_at": started,
                "seconds": round(time.monotonic() - begun, 1),
                "trace": self.trace_digest,
            }
        except Failed as failed:
            self.save_artifacts(point, out)
            raise Failed(f"{point['key']}: {failed}") from None
        failed_share = found["errors"] / max(1, found["errors"] + len(found["requests"]["ttft_ms"]))
        self.save_artifacts(point, out)
        shutil.rmtree(out, ignore_errors=True)
        if failed_share > MOST_ERRORS:
            said = "; ".join(found["error_kinds"]) or "AIPerf names no reason"
            raise Failed(f"{point['key']}: {found['errors']} of {point['requests']} requests failed: {said}")
        return found

    def profile(self, out: Path, load: list[str], progress_of: int | None) -> None:
        """One run of AIPerf into `out`."""
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        command = [
            *self.aiperf, "profile", "--model", self.spec["model"], "--url", self.url, "--endpoint-type", "chat", "--streaming",
            "--tokenizer", self.spec["tokenizer"], "--tokenizer-revision", self.spec["revision"],
            # Counting tokens again would cost AIPerf the CPU it needs, and the engine knows.
            "--use-server-token-count",
            "--extra-inputs", "ignore_eos:true", "--request-timeout-seconds", "1200",
            "--workers-max", str(self.workers), "--record-processors", str(max(1, self.workers // 4)),
            "--no-gpu-telemetry", "--no-server-metrics", "--ui", "none", "--artifact-dir", str(out), *load,
        ]  # fmt: skip
        log = out / "aiperf.out"
        with log.open("wb") as said, counting(out / "profile_export.jsonl", progress_of):
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                code = self.wait_child()
            finally:
                self.end_child()
        if code:
            tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:]
            for line in tail:
                say(f"  aiperf: {line[:500]}")
            raise Failed(f"AIPerf ended with exit code {code}: {telling(tail)}")

    def wait_child(self) -> int:
        assert self.child is not None
        while True:
            with suppress(subprocess.TimeoutExpired):
                return self.child.wait(1.0)
            self.check_deadline()

    def end_child(self) -> None:
        """AIPerf and all its processes are gone: they are one session."""
        if self.child is None:
            return
        if self.child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child = None

    def check_deadline(self) -> None:
        if time.monotonic() > self.deadline:
            raise Stopped("deadline")

    # ── keeping ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def keep(self, name: str, data: dict[str, Any]) -> None:
        """A result on the claim, in S3 where asked, and in the log."""
        raw = json.dumps(data).encode()
        self.store(name, raw)
        emit(name, data)

    def store(self, name: str, raw: bytes) -> None:
        if not self.claim_problem:
            try:
                write(self.folder / name, raw)
            except OSError as error:
                self.claim_problem = problem_of(error)
                say(f"{self.folder / name} cannot be written: {self.claim_problem}. Going on: results stay in this log")
        if (bucket := self.spec.get("bucket")) and not self.bucket_problem:
            try:
                client(bucket["region"]).put_object(
                    Bucket=bucket["name"], Key=f"{bucket['prefix']}{self.name}/{name}", Body=raw
                )
            except Exception as error:  # botocore's have no common base with the network's
                self.bucket_problem = f"{type(error).__name__}: {error}"
                say(f"not copied to s3://{bucket['name']}: {self.bucket_problem}")

    def save_artifacts(self, point: dict[str, Any], out: Path) -> None:
        """AIPerf's own files. Not the prompts (inputs.json), which are as large as the traffic and follow from the seed."""
        for name in KEPT:
            path = out / name
            if path.exists():
                self.store(f"points/{point['key']}/{Path(name).name}", path.read_bytes())
        records = out / "profile_export.jsonl"
        if records.exists():
            self.store(f"points/{point['key']}/{records.name}.gz", gzip.compress(records.read_bytes(), 6, mtime=0))

    @property
    def trace_digest(self) -> str | None:
        """Of the trace that is sent; None: a fixed profile. In each point, because points of two traces make no run."""
        found: str | None = self.spec.get("trace", {}).get("digest")
        return found

    def s3_uri(self) -> str | None:
        bucket = self.spec.get("bucket")
        return f"s3://{bucket['name']}/{bucket['prefix']}{self.name}/" if bucket else None


# ── small things ─────────────────────────────────────────────────────────────────────────────────────────────────────


def synthetic(isl: int, osl: int, concurrency: int, requests: int, seed: int) -> list[str]:
    """AIPerf's arguments for prompts of one length, each of which is sent once."""
    return [
        "--isl", str(isl), "--isl-stddev", "0", "--osl", str(osl), "--osl-stddev", "0", "--extra-inputs", f"min_tokens:{osl}",
        "--concurrency", str(concurrency), "--request-count", str(requests), "--num-dataset-entries", str(requests),
        "--random-seed", str(seed),
    ]  # fmt: skip


def outcome(out: Path) -> dict[str, Any]:
    """What AIPerf wrote: its aggregates, and the figures of each request in columns. Raises Failed where it cannot be read."""
    try:
        report = json.loads((out / "profile_export_aiperf.json").read_text(encoding="utf-8"))
        lines = (out / "profile_export.jsonl").read_text(encoding="utf-8").splitlines()
        records = [record for record in map(json.loads, lines) if record["metadata"]["benchmark_phase"] == "profiling"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"AIPerf's results cannot be read: {error!r}") from None
    good = [record for record in records if not record.get("error")]
    columns: dict[str, list[float | None]] = {name: [] for name in ("start_ms", *COLUMNS)}
    first = min((record["metadata"]["request_start_ns"] for record in records), default=0)
    for record in good:
        columns["start_ms"].append(round((record["metadata"]["request_start_ns"] - first) / 1e6, 1))
        for name, metric in COLUMNS.items():
            value = record["metrics"].get(metric, {}).get("value")
            columns[name].append(None if value is None else round(value, 2))
    if not good:
        raise Failed("AIPerf finished without one answered request")
    kinds: dict[str, int] = {}
    for record in records:
        if told := record.get("error"):
            said = told.get("message") or told.get("type") if isinstance(told, dict) else told
            kinds[str(said)[:200]] = kinds.get(str(said)[:200], 0) + 1
    metrics = {
        name: {key: round(one, 4) if isinstance(one, float) else one for key, one in value.items()}
        for name, value in report.items()
        if isinstance(value, dict) and "unit" in value and not name.startswith(("http_", "active_", "effective_"))
    }
    return {
        "metrics": metrics,
        "requests": columns,
        "errors": len(records) - len(good),
        "error_kinds": [f"{count} × {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1])[:3]],
        "aiperf": report.get("aiperf_version"),
    }


def emit(name: str, data: dict[str, Any]) -> None:
    """`data` into the log, in lines that `@@` marks."""
    packed = gzip.compress(json.dumps(data, separators=(",", ":")).encode(), 9, mtime=0)
    if len(packed) > MOST_LOG_BYTES and "requests" in data:
        step = -(-len(data["requests"]["ttft_ms"]) // SAMPLE)
        sample = {column: values[::step] for column, values in data["requests"].items()}
        packed = gzip.compress(json.dumps(data | {"requests": sample, "sampled": step}).encode(), 9, mtime=0)
    text = base64.b64encode(packed).decode()
    parts = [text[at : at + LINE_CHARS] for at in range(0, len(text), LINE_CHARS)]
    for number, part in enumerate(parts, 1):
        print(f"@@ {name} {number}/{len(parts)} {part}", flush=True)  # noqa: T201 - a pod's log is its standard output


def write(path: Path, data: bytes) -> None:
    """All or nothing: a reader never sees half a result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def problem_of(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"it is full: {error.strerror}" if full else str(error.strerror or error)


def client(region: str) -> Any:
    """S3, with the credentials that Pod Identity gives. botocore comes with the Job's packages."""
    session = importlib.import_module("botocore.session")
    return session.get_session().create_client("s3", region_name=region)


@contextmanager
def counting(records: Path, total: int | None) -> Iterator[None]:
    """Says now and then how many requests have ended; nothing for a warm-up."""
    stop = threading.Event()
    every = float(os.environ.get("PROGRESS_SECONDS", PROGRESS_SECONDS))

    def watch() -> None:
        done = offset = 0
        while not stop.wait(every):
            with suppress(OSError), records.open("rb") as file:
                file.seek(offset)
                new = file.read()
                offset += len(new)
                if found := new.count(b"\n"):
                    done += found
                    say(f"  {done} of {total} requests")

    thread = threading.Thread(target=watch, daemon=True)
    if total:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if total:
            thread.join()


def described(point: dict[str, Any], spec: dict[str, Any]) -> str:
    traffic = spec["traffic"]
    if spec["kind"] == "fixed":
        load = f"{point['concurrency']} in flight ({point['concurrency_per_gpu']:g} per GPU), {traffic['isl']}/{traffic['osl']} tokens"
    else:
        load = f"the trace at its own times, {spec['trace']['seconds']:.0f} s"
    return f"{load}, {point['requests']} requests, seed {point['seed']}"


def summary(found: dict[str, Any]) -> str:
    """A point's figures on one line."""
    metrics = found["metrics"]

    def value(name: str, key: str = "avg") -> float:
        return float(metrics.get(name, {}).get(key) or 0.0)

    return (
        f"TTFT {value('time_to_first_token'):.0f} ms, ITL {value('inter_token_latency'):.1f} ms, "
        f"{value('output_token_throughput'):.0f} tokens/s, goodput {value('goodput'):.2f} requests/s, {found['errors']} errors, {found['seconds']} s"
    )


def telling(lines: list[str]) -> str:
    """The last line of an output that has words in it."""
    words = [line.strip(" │╭╰─╮╯") for line in lines]
    return next(
        (line[:300] for line in reversed(words) if any(char.isalpha() for char in line) and "Log File" not in line),
        "it said nothing",
    )


if __name__ == "__main__":
    try:
        Bench().run()
    except OSError as trouble:
        finish(4, f"no room to work in: {trouble}")
