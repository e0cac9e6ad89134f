"""The benchmark script as its pod runs it, against a small server and a stand-in for AIPerf: what is kept when something goes wrong."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ops.bench.results import LogReader, load
from recipe.plan import Objects
from recipe.scripts import bench
from tests.recipe.samples import plan
from tests.recipe.scripts_support import Ended, Reply, Request, Server, run_job, serve

MODEL = plan().model.id
FAKE = Path(__file__).parent / "fake_aiperf.py"
FIXED = {"kind": "fixed", "isl": 4000, "osl": 500, "concurrency_per_gpu": [1, 2], "requests_per_slot": 1}


def objects(profile: dict[str, Any] | None = None, **benchmark: Any) -> Objects:
    wanted = {"run": "mine", "profiles": {"mine": profile or FIXED}, **benchmark}
    return plan(benchmark=wanted).objects


def answer(request: Request) -> Reply:
    if request.path == "/v1/models":
        return Reply(200, {"data": [{"id": MODEL}]})
    return Reply(200, {"choices": [{"message": {"content": "hello"}}]})


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(answer) as running:
        yield running


class Desk:
    """Runs the Job in a folder, as often as asked."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.results = folder / "claim"

    def env(self, **env: str) -> dict[str, str]:
        own = {
            "FRONTEND_URL": self.url,
            "RUN": "1-abc-nodes",
            "RESULTS": str(self.results),
            "WORK": str(self.folder),
            "AIPERF": json.dumps([sys.executable, str(FAKE)]),
            "FAKE_CALLS": str(self.folder / "calls"),
            "PROGRESS_SECONDS": "0.05",
            "READY_SECONDS": "1",
            "PYTHONPATH": "",
        }
        return own | env

    def run(self, made: Objects, **env: str) -> Ended:
        assert made.benchmark_job, "asked for"
        assert made.benchmark_config
        return run_job(made.benchmark_job, made.benchmark_config, self.folder, **self.env(**env))

    @property
    def run_folder(self) -> Path:
        return self.results / "qwen3-32b-disagg" / "mine" / "1-abc-nodes"

    def read(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run_folder / name).read_text())
        return found

    def calls(self) -> list[list[str]]:
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def desk(tmp_path: Path, server: Server) -> Desk:
    return Desk(tmp_path, server.url)


def from_log(log: str) -> dict[str, dict[str, Any]]:
    reader = LogReader()
    return dict(found for line in log.splitlines() if (found := reader.feed(line)))


# ── it gets there ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_point_is_measured_and_the_log_alone_carries_all_of_it(desk: Desk) -> None:
    ended = desk.run(objects())
    assert ended.code == 0, ended.log
    logged = from_log(ended.log)
    keys = ["c1-r1", "c2-r1", "c1-r2", "c2-r2"]
    assert set(logged) == {"run.json", "status.json", *(f"points/{key}.json" for key in keys)}
    for name, data in logged.items():
        assert desk.read(name) == data, "whoever reads the log must not need the claim"
    assert logged["status.json"]["state"] == "complete"
    assert logged["points/c2-r1.json"]["requests"]["isl"] == [4000] * 32
    assert "4 of 4 points kept" in ended.message
    assert load(desk.run_folder).complete, "the desk's reader takes what the script writes"


def test_the_load_is_per_gpu_and_no_prompt_is_sent_twice(desk: Desk) -> None:
    desk.run(objects())
    warmup, *points = [dict(pairwise(call)) for call in desk.calls()]
    assert [point["--concurrency"] for point in points] == ["16", "32", "16", "32"], "1 and 2 for each of 16 GPUs"
    seeds = [call["--random-seed"] for call in (warmup, *points)]
    assert len(set(seeds)) == len(seeds), "equal prompts would come from the prefix cache"
    for call in (warmup, *points):
        assert call["--num-dataset-entries"] == call["--request-count"], "fewer prompts than requests repeat"


def test_what_aiperf_wrote_stays_on_the_claim_without_the_prompts(desk: Desk) -> None:
    desk.run(objects())
    folder = desk.run_folder / "points" / "c1-r1"
    assert {path.name for path in folder.iterdir()} == {"profile_export_aiperf.json", "profile_export.jsonl.gz"}
    assert gzip.decompress((folder / "profile_export.jsonl.gz").read_bytes()).count(b"\n") == 16


def test_a_second_pod_goes_on_where_the_first_one_ended(desk: Desk) -> None:
    first = desk.run(objects(), FAKE_FAIL_AT="3")
    assert first.code == 5
    again = desk.run(objects())
    assert again.code == 0, again.log
    assert "c1-r1: measured before" in again.log
    assert len(desk.calls()) == 3 + 1 + 3, "one warm-up and three points more, not four"
    assert len(from_log(again.log)) == 6, "the last pod's log carries everything, also what an earlier one measured"


def test_a_run_that_is_complete_is_only_printed_again(desk: Desk) -> None:
    desk.run(objects())
    before = len(desk.calls())
    again = desk.run(objects(reprint=1))
    assert again.code == 0
    assert len(desk.calls()) == before, "GPUs would be measured for what is known"
    assert len(from_log(again.log)) == 6


def test_a_trace_comes_at_its_own_times_and_is_the_same_for_everybody(desk: Desk) -> None:
    made = objects({"kind": "trace", "source": "generated", "scale": 0.002, "repeats": 2})
    assert desk.run(made).code == 0
    _, first, second = [dict(pairwise(call)) for call in desk.calls()]
    assert first["--custom-dataset-type"] == "mooncake_trace"
    assert any("--fixed-schedule" in call for call in desk.calls()[1:])
    assert first["--random-seed"] != second["--random-seed"]
    described = desk.read("run.json")["trace"]
    assert described["origin"] == "generated"
    assert described["requests"] == 24 == len(desk.read("points/r1.json")["requests"]["isl"])


# ── it does not ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_endpoint_that_never_serves_the_model_is_named(tmp_path: Path) -> None:
    with serve(lambda _: Reply(200, {"data": [{"id": "another"}]})) as server:
        ended = Desk(tmp_path, server.url).run(objects())
    assert ended.code == 3
    assert "does not serve Qwen/Qwen3-32B after 1 s: it lists ['another']" in ended.message
    assert from_log(ended.log)["status.json"]["missing"] == ["c1-r1", "c2-r1", "c1-r2", "c2-r2"]


def test_an_endpoint_that_nobody_answers_is_named(tmp_path: Path) -> None:
    ended = Desk(tmp_path, "http://127.0.0.1:9").run(objects())
    assert ended.code == 3
    assert "Connection refused" in ended.message


def test_aiperf_failing_half_way_keeps_what_was_measured_and_names_it(desk: Desk) -> None:
    ended = desk.run(objects(), FAKE_FAIL_AT="3")
    assert ended.code == 5
    assert "c2-r1: AIPerf ended with exit code 1: the connection was reset by the server" in ended.message
    assert "1 of 4 points kept: c1-r1" in ended.message
    status = from_log(ended.log)["status.json"]
    assert (status["state"], status["measured"], status["missing"]) == (
        "cut short",
        ["c1-r1"],
        ["c2-r1", "c1-r2", "c2-r2"],
    )
    assert (desk.run_folder / "points" / "c2-r1" / "profile_export.jsonl.gz").exists(), "half a point explains itself"
    assert not (desk.run_folder / "points" / "c2-r1.json").exists(), "and is no point"


def test_a_point_whose_requests_failed_is_none(desk: Desk) -> None:
    ended = desk.run(objects(), FAKE_ERRORS="3")
    assert ended.code == 5
    assert "c1-r1: 3 of 16 requests failed: 3 × 503 Service Unavailable" in ended.message


def test_a_few_failed_requests_are_counted_and_in_no_figure(desk: Desk) -> None:
    ended = desk.run(objects({**FIXED, "concurrency_per_gpu": [2]}), FAKE_ERRORS="1")
    assert ended.code == 0, ended.log
    found = desk.read("points/c2-r1.json")
    assert (found["errors"], len(found["requests"]["ttft_ms"])) == (1, 31)


def test_results_of_aiperf_that_cannot_be_read_are_a_failure(desk: Desk) -> None:
    ended = desk.run(objects(), FAKE_GARBLED="1")
    assert ended.code == 5
    assert "AIPerf's results cannot be read" in ended.message


def test_a_result_on_the_claim_that_cannot_be_read_is_measured_again(desk: Desk) -> None:
    desk.run(objects())
    (desk.run_folder / "points" / "c1-r1.json").write_text('{"point": ')
    before = len(desk.calls())
    again = desk.run(objects())
    assert again.code == 0
    assert "measuring again" in again.log
    assert len(desk.calls()) == before + 2, "a warm-up and the one point"


def test_a_claim_that_takes_nothing_leaves_everything_in_the_log(desk: Desk) -> None:
    desk.results.write_text("a file where the folder should be")
    ended = desk.run(objects())
    assert ended.code == 4
    assert "they are in this log only" in ended.message
    logged = from_log(ended.log)
    assert len(logged) == 6, "hours of GPUs must not be lost to a disk"
    assert logged["status.json"]["claim"] is None


def test_a_full_claim_is_called_full() -> None:
    assert bench.problem_of(OSError(errno.ENOSPC, "No space left on device")) == "it is full: No space left on device"


def test_half_a_result_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        Path.open(self, "wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        bench.write(tmp_path / "points" / "c1-r1.json", b"{}")
    assert list((tmp_path / "points").iterdir()) == []


def test_the_deadline_ends_a_point_and_keeps_the_ones_before(desk: Desk) -> None:
    ended = desk.run(objects(), FAKE_HANG_AT="3", DEADLINE_SECONDS="3")
    assert ended.code == 7
    assert "deadline: cut short; 1 of 4 points kept: c1-r1" in ended.message


def test_a_pod_that_is_told_to_stop_says_what_it_has_and_ends_aiperf(desk: Desk) -> None:
    made = objects()
    assert made.benchmark_job
    desk.run(made, FAKE_FAIL_AT="1")  # puts the files where the pod has them
    (desk.folder / "calls").unlink()
    container = made.benchmark_job["spec"]["template"]["spec"]["containers"][0]
    given = {one["name"]: one["value"].replace("/scripts/", f"{desk.folder}/scripts/") for one in container["env"]}
    with (desk.folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *container["command"][1:]],
            cwd=desk.folder / "scripts",
            env={"PATH": os.environ["PATH"], **given, **desk.env(FAKE_HANG_AT="3")},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    give_up = time.monotonic() + 20
    while len(desk.calls()) < 3 and time.monotonic() < give_up:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143, "the kubelet's own code, so that the Job's policy lets another pod go on"
    status = from_log((desk.folder / "log").read_text())["status.json"]
    assert (status["state"], status["measured"]) == ("cut short", ["c1-r1"])
    left = subprocess.run(["pgrep", "-f", str(desk.folder / "bench")], capture_output=True, text=True, check=False)
    assert left.stdout == "", "AIPerf would go on loading the stack"


def test_without_the_published_trace_a_generated_one_stands_in_and_says_so(desk: Desk) -> None:
    made = objects({"kind": "trace", "source": "mooncake", "scale": 0.002})
    ended = desk.run(unreachable(made))
    assert ended.code == 0, ended.log
    assert desk.read("run.json")["trace"]["origin"].startswith(
        "generated, because the published trace could not be had: "
    )


def test_a_point_of_another_trace_is_measured_again(desk: Desk) -> None:
    """A pod that had the published trace, and its successor that had to generate one, would be one complete run."""
    profile = {"kind": "trace", "source": "generated", "scale": 0.001, "repeats": 2}
    first = desk.run(objects(profile))
    assert first.code == 0, first.log
    digest = desk.read("run.json")["trace"]["digest"]
    assert desk.read("points/r1.json")["trace"] == digest
    other = desk.read("points/r1.json") | {"trace": "another"}
    (desk.run_folder / "points" / "r1.json").write_text(json.dumps(other))
    before = len(desk.calls())
    again = desk.run(objects(profile))
    assert again.code == 0, again.log
    assert "is of another trace: measuring again" in again.log
    assert desk.read("points/r1.json")["trace"] == digest
    assert load(desk.run_folder).complete
    assert len(desk.calls()) == before + 2, "the warm-up and the one point, not the other"


def test_without_a_fallback_a_trace_that_cannot_be_had_ends_it_at_once(desk: Desk) -> None:
    made = objects({"kind": "trace", "source": "mooncake", "scale": 0.002, "fallback": False})
    ended = desk.run(unreachable(made))
    assert ended.code == 6
    assert desk.calls() == [], "nothing is measured of a trace nobody asked for"


def unreachable(made: Objects) -> Objects:
    """With the trace's address one where nobody answers."""
    assert made.benchmark_config
    data = made.benchmark_config["data"]
    spec = json.loads(data["bench.json"])
    spec["trace_source"]["url"] = "http://127.0.0.1:9/trace.jsonl"
    config = made.benchmark_config | {"data": data | {"bench.json": json.dumps(spec)}}
    return made.model_copy(update={"benchmark_config": config})


def test_a_result_too_large_for_the_log_is_sampled_there_and_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    import random

    rng = random.Random(1)
    values = [rng.random() for _ in range(400_000)]
    bench.emit("points/r1.json", {"point": {"key": "r1"}, "requests": {"ttft_ms": values}})
    found = from_log(capsys.readouterr().out)["points/r1.json"]
    assert found["sampled"] == 200
    assert len(found["requests"]["ttft_ms"]) == 2000
