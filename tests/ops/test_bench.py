"""`ops bench` against a pretend cluster: followed through the API alone, and what was measured is kept whatever happens to pod, Job or desk."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml
from typer.testing import Result

from ops import stacks
from ops.bench import remote
from ops.bench.results import LogReader, load, save
from ops.exits import BAD_INPUT, FAILED, INTERRUPTED, MISSING, OK, CommandError
from ops.planning import planned
from tests.ops.bench_samples import ABOUT, result
from tests.recipe.scripts_support import Reply, Request, serve

Run = Callable[..., Result]
STACK = "qwen3-32b-agg"
ROOT = Path(__file__).parents[2]
KNOWN = ["access.account_id=111122223333", "access.zone_id=use2-az1", "access.endpoint_cidrs=[198.51.100.7/32]"]


def lines(name: str, data: dict[str, Any]) -> list[str]:
    """As the Job's script puts a result into its log."""
    import contextlib
    import io

    from recipe.scripts import bench

    with contextlib.redirect_stdout(io.StringIO()) as said:
        bench.emit(name, data)
    return said.getvalue().splitlines()


def point(repeat: int) -> dict[str, Any]:
    return result(
        {"key": f"r{repeat}", "repeat": repeat, "concurrency_per_gpu": None, "concurrency": None}, 400.0, 14.0
    )


ABOUT_TWO = ABOUT | {"points": [{"key": "r1"}, {"key": "r2"}]}
BEGINNING = ["09:00:00 trace: generated", *lines("run.json", ABOUT_TWO)]
FIRST = ["09:01:00 point 1 of 2, r1: TTFT 400 ms, ITL 14.0 ms", *lines("points/r1.json", point(1))]
SECOND = ["09:02:00 point 2 of 2, r2: TTFT 400 ms, ITL 14.0 ms", *lines("points/r2.json", point(2))]
COMPLETE = lines(
    "status.json", {"state": "complete", "reason": "every point measured", "measured": ["r1", "r2"], "s3": None}
)
CUT = lines(
    "status.json",
    {"state": "cut short", "reason": "r2: AIPerf ended with exit code 1", "measured": ["r1"], "s3": "s3://b/k/"},
)


class Cluster:
    """One namespace with a benchmark Job. Its story is told step by step; `answers` False: nobody answers."""

    def __init__(self, job: str | None = "benchmark-1234abcd-5e1f0a9c") -> None:
        self.job = job
        self.condition: dict[str, Any] | None = None
        self.pods: list[dict[str, Any]] = []
        self.logs: dict[str, list[str] | None] = {}
        self.answers = True
        self.refuses = 0
        self.asked: list[str] = []

    def pod(self, name: str, state: dict[str, Any], log: list[str] | None = None, **status: Any) -> None:
        container = {"name": "main", "state": state, "image": "", "imageID": "", "ready": True, "restartCount": 0}
        made = {
            "metadata": {"name": name, "creationTimestamp": f"2026-11-25T09:0{len(self.logs)}:00Z"},
            "spec": {"containers": []},
            "status": {"phase": "Running", "containerStatuses": [container], **status},
        }
        self.pods = [one for one in self.pods if one["metadata"]["name"] != name] + [made]
        if name not in self.logs or log is not None:
            self.logs[name] = log

    def ends(self, kind: str, reason: str = "", message: str = "") -> None:
        self.condition = {"type": kind, "status": "True", "reason": reason, "message": message}

    def answer(self, request: Request) -> Reply:
        path, _, query = request.path.partition("?")
        self.asked.append(request.path)
        if self.refuses:
            return Reply(self.refuses, {"message": "no"})
        if not self.answers:
            return Reply(503, {"message": "the network is asleep"})
        if path.endswith("/jobs"):
            return Reply(200, {"kind": "JobList", "apiVersion": "batch/v1", "items": self.jobs()})
        if path.endswith("/pods"):
            return Reply(200, {"kind": "PodList", "apiVersion": "v1", "items": self.pods})
        if path.endswith("/log"):
            log = self.logs.get(path.split("/")[-2])
            if log is None:
                return Reply(404, {"message": "not found"})
            tail = int(parse_qs(query).get("tailLines", ["100000"])[0])
            text = "".join(f"{line}\n" for line in log[-tail:])
            return Reply(200, text.encode(), {"Content-Type": "text/plain"})
        return Reply(404, {"message": path})

    def jobs(self) -> list[dict[str, Any]]:
        if self.job is None:
            return []
        status = {"conditions": [self.condition]} if self.condition else {}
        metadata = {"name": self.job, "creationTimestamp": "2026-11-25T09:00:00Z"}
        return [{"metadata": metadata, "spec": {"template": {}}, "status": status}]


RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-11-25T09:00:00Z"}}


def ended(code: int, message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message}}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def api(cluster: Cluster) -> Iterator[str]:
    with serve(cluster.answer) as server:
        yield server.url


AWS = """#!{python}
import sys
file = sys.argv[sys.argv.index("--kubeconfig") + 1]
open(file, "w").write('''{kubeconfig}''')
"""
KUBECONFIG = """{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}],
clusters: [{{name: k, cluster: {{server: "{url}"}}}}], users: [{{name: u, user: {{token: t}}}}]}}"""
PULUMI = """#!{python}
import json, os, signal, sys, time
with open({calls!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + chr(10))
if sys.argv[1] == "whoami":
    print('{{"url": "https://api.pulumi.com"}}')
if sys.argv[1:3] == ["stack", "export"]:
    print('{{"version": 3, "deployment": {{"resources": []}}}}')
if sys.argv[1:3] == ["config", "set"] and os.path.exists({refused!r}) and sys.argv[6].endswith(open({refused!r}).read()):
    sys.exit("error: no")
def interrupted(*_):
    for number in range(5000):
        print("deleting", number, "x" * 100)
    print("all in flight is finished", flush=True)
    sys.exit(1)
if sys.argv[1] == "up":
    signal.signal(signal.SIGINT, interrupted)
    print("Updating (dev)", flush=True)
    while not os.path.exists({go!r}):
        time.sleep(0.02)
    sys.exit(int(open({go!r}).read()))
"""


class Bin:
    """`aws` and `pulumi` on PATH. `pulumi up` ends with the code that `ends` writes."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.go, self.file = folder / "bin", folder / "go", folder / "pulumi-calls"
        self.folder.mkdir()
        self._script("aws", AWS.format(python=sys.executable, kubeconfig=KUBECONFIG.format(url=url)))
        self._script(
            "pulumi",
            PULUMI.format(
                python=sys.executable, calls=str(self.file), go=str(self.go), refused=str(folder / "refused")
            ),
        )

    def _script(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def ends(self, code: int) -> None:
        staged = self.go.with_suffix(".new")
        staged.write_text(str(code))
        staged.rename(self.go)

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []


@pytest.fixture
def tools(tmp_path: Path, api: str, monkeypatch: pytest.MonkeyPatch) -> Bin:
    made = Bin(tmp_path, api)
    monkeypatch.setenv("PATH", str(made.folder), prepend=os.pathsep)
    monkeypatch.setenv("DYNAMO_RECIPES_POLL_SECONDS", "0.05")
    return made


@pytest.fixture
def known(folder: Path) -> None:
    """The stack file with what only the user knows."""
    import yaml

    raw = stacks.with_settings(stacks.load(STACK, ROOT / "stacks").raw, KNOWN)
    (folder / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump({"config": {stacks.FULL_KEY: raw}}))


def tell(*steps: Callable[[], None], every: float = 0.4) -> threading.Thread:
    """The story, one step after another."""

    def run() -> None:
        for step in steps:
            time.sleep(every)
            step()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.fixture
def bench(run: Run, tools: Bin, known: None, tmp_path: Path) -> Callable[..., Result]:
    def bench(*args: str) -> Result:
        return run("bench", STACK, "--out", tmp_path / "results", "--profile", "small", *args)

    return bench


def begun(how: str, tmp_path: Path) -> subprocess.Popen[str]:
    """`ops bench STACK` with that option, in a process of its own: for signals."""
    code = f"from pathlib import Path; from ops import stacks; stacks.FOLDER = Path({str(stacks.FOLDER)!r}); from ops.app import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "bench", STACK, how, "--out", str(tmp_path / "results")],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def job_name() -> str:
    """What the plan calls the Job, on some nodes."""
    plan = planned(STACK, ["benchmark.run=small"]).model
    assert plan.benchmark
    return plan.benchmark.job.partition("$")[0] + "5e1f0a9c"


def results(tmp_path: Path) -> Path:
    return tmp_path / "results" / str(ABOUT["stack"]) / str(ABOUT["profile"]) / str(ABOUT["run"])


# ── it gets there ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_benchmark_is_part_of_an_up_and_its_results_are_fetched_before_it_ends(
    bench: Run, cluster: Cluster, tools: Bin, tmp_path: Path
) -> None:
    cluster.job = job_name()
    seen: list[bool] = []

    def still_up() -> None:
        give_up = time.monotonic() + 20
        while not (results(tmp_path) / "points" / "r1.json").exists() and time.monotonic() < give_up:
            time.sleep(0.05)
        seen.append((results(tmp_path) / "points" / "r1.json").exists())

    story = tell(
        lambda: cluster.pod("p", RUNNING, [*BEGINNING, *FIRST]),
        still_up,
        lambda: cluster.pod("p", ended(0), [*BEGINNING, *FIRST, *SECOND, *COMPLETE]),
        lambda: cluster.ends("Complete"),
        lambda: tools.ends(0),
    )
    done = bench("--yes", "--json")
    story.join()
    assert done.exit_code == OK, done.output
    assert seen == [True], "a point is safe here as soon as it is measured"
    assert load(results(tmp_path)).complete
    data = json.loads(done.stdout)
    assert data["loads"]["trace"]["figures"]["ttft_ms"]["values"] == [400.0, 400.0]
    assert "point 1 of 2, r1: TTFT 400 ms" in done.stderr, "progress, live"
    key = "dynamo-recipes:recipe.benchmark.run"
    assert tools.calls() == [
        ["config", "set", "--stack", STACK, "--path", key, "small"],
        ["up", "--yes", "--skip-preview", "--stack", STACK, "--non-interactive", "--color", "never"],
        ["config", "rm", "--stack", STACK, "--path", key],
    ], "the next plain `up` must not measure again"


def test_nothing_is_executed_in_a_pod(bench: Run, cluster: Cluster, tools: Bin) -> None:
    cluster.job = job_name()
    cluster.pod("p", ended(0), [*BEGINNING, *FIRST, *SECOND, *COMPLETE])
    cluster.ends("Complete")
    bench("--attach")
    assert cluster.asked
    assert not any(part in asked for asked in cluster.asked for part in ("/exec", "/portforward", "/attach"))


def test_attaching_fetches_what_ended_long_ago_without_any_pulumi(
    bench: Run, cluster: Cluster, tools: Bin, tmp_path: Path
) -> None:
    cluster.pod("p", ended(0), [*BEGINNING, *FIRST, *SECOND, *COMPLETE])
    cluster.ends("Complete")
    done = bench("--attach")
    assert done.exit_code == OK, done.output
    assert tools.calls() == []
    assert load(results(tmp_path)).complete


def test_a_new_attempt_and_a_reprint_are_counted_in_the_stack_file(bench: Run, cluster: Cluster, tools: Bin) -> None:
    tools.ends(1)
    bench("--yes", "--again", "--reprint")
    set_ = {call[5].rpartition(".")[2]: call[6] for call in tools.calls() if call[:2] == ["config", "set"]}
    assert set_ == {"run": "small", "attempt": "2", "reprint": "1"}


def test_a_setting_that_fails_leaves_no_benchmark_for_the_next_plain_up(bench: Run, tools: Bin, tmp_path: Path) -> None:
    (tmp_path / "refused").write_text("attempt")
    done = bench("--yes", "--again")
    assert done.exit_code == FAILED
    assert "`pulumi config set` failed" in done.output
    assert [call[:2] for call in tools.calls()] == [["config", "set"], ["config", "set"], ["config", "rm"]]


def test_ctrl_c_lets_pulumi_finish_what_is_in_flight(cluster: Cluster, tools: Bin, known: None, tmp_path: Path) -> None:
    """It talks all the while: more than a pipe holds, and for longer than it would be waited for if somebody were impatient."""
    process = begun("--yes", tmp_path)
    try:
        assert process.stderr is not None
        while "Updating" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == INTERRUPTED, said[-2000:]
    assert "pulumi: all in flight is finished" in said
    assert said.index("so that nothing is left half made") < said.index("all in flight is finished")


# ── it does not ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_aiperf_failing_half_way_leaves_the_points_before_and_an_exit_code(
    bench: Run, cluster: Cluster, tools: Bin, tmp_path: Path
) -> None:
    cluster.job = job_name()
    cluster.pod("p", ended(5, "r2: AIPerf ended with exit code 1"), [*BEGINNING, *FIRST, *CUT])
    cluster.ends("Failed", "PodFailurePolicy", "Container main failed with exit code 5")
    tools.ends(255)
    done = bench("--yes")
    assert done.exit_code == FAILED
    assert "Cut short: r2: AIPerf ended with exit code 1. 1 points kept: r1." in done.stderr
    assert "Also at s3://b/k/" in done.stderr
    assert [one.key for one in load(results(tmp_path)).points] == ["r1"]


def test_an_eviction_hands_over_to_the_next_pod(bench: Run, cluster: Cluster, tools: Bin, tmp_path: Path) -> None:
    disrupted = [
        {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    ]
    story = tell(
        lambda: cluster.pod("one", RUNNING, [*BEGINNING, *FIRST]),
        lambda: cluster.pod("one", ended(143), conditions=disrupted),
        lambda: cluster.logs.update({"one": None}),
        lambda: cluster.pod("two", RUNNING, [*BEGINNING, "09:03:00 point 1 of 2, r1: measured before"]),
        lambda: cluster.pod("two", ended(0), [*BEGINNING, *FIRST, *SECOND, *COMPLETE]),
        lambda: cluster.ends("Complete"),
    )
    done = bench("--attach")
    story.join()
    assert done.exit_code == OK, done.output
    assert "pod one: evicted (EvictionByEvictionAPI: drained)" in done.stderr
    assert load(results(tmp_path)).complete


def test_a_pod_that_is_gone_with_its_log_leaves_what_was_seen_of_it(
    bench: Run, cluster: Cluster, tools: Bin, tmp_path: Path
) -> None:

    def gone() -> None:
        cluster.pods.clear()
        cluster.logs.clear()
        cluster.ends("Failed", "BackoffLimitExceeded", "node gone")

    story = tell(lambda: cluster.pod("p", RUNNING, [*BEGINNING, *FIRST]), lambda: time.sleep(2), gone)
    done = bench("--attach")
    story.join()
    assert done.exit_code == FAILED
    found = load(results(tmp_path))
    assert [one.key for one in found.points] == ["r1"]
    assert found.status["reason"] == "BackoffLimitExceeded: node gone"
    assert not found.complete


def test_a_benchmark_without_any_result_says_what_its_job_said(bench: Run, cluster: Cluster, tools: Bin) -> None:
    cluster.pod("p", ended(3, "http://f does not serve Qwen"), ["09:00:00 waiting"])
    cluster.ends("Failed", "PodFailurePolicy")
    done = bench("--attach")
    assert done.exit_code == FAILED
    assert "pod p: ended with exit code 3 (http://f does not serve Qwen)" in done.stderr


def test_an_up_that_fails_before_the_benchmark_is_no_result(bench: Run, cluster: Cluster, tools: Bin) -> None:
    cluster.job = None
    tools.ends(255)
    done = bench("--yes")
    assert done.exit_code == FAILED
    assert "`pulumi up` ended with 255" in done.stderr
    assert tools.calls()[-1][:2] == ["config", "rm"], "the next `up` would measure a stack that failed"


def test_another_benchmarks_job_is_not_taken_for_this_one(bench: Run, cluster: Cluster, tools: Bin) -> None:
    cluster.pod("p", ended(0), [*BEGINNING, *FIRST, *SECOND, *COMPLETE])
    cluster.ends("Complete")  # of an earlier profile: another hash
    tools.ends(0)
    done = bench("--yes")
    assert done.exit_code == FAILED, "old figures would stand for new ones"


def test_a_network_that_sleeps_is_waited_for(bench: Run, cluster: Cluster, tools: Bin, tmp_path: Path) -> None:
    cluster.pod("p", RUNNING, BEGINNING)
    story = tell(
        lambda: setattr(cluster, "answers", False),
        lambda: cluster.pod("p", ended(0), [*BEGINNING, *FIRST, *SECOND, *COMPLETE]),
        lambda: cluster.ends("Complete"),
        lambda: setattr(cluster, "answers", True),
    )
    done = bench("--attach")
    story.join()
    assert done.exit_code == OK, done.output
    assert load(results(tmp_path)).complete


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_stay_refused_end_it_with_the_reason(
    bench: Run, cluster: Cluster, tools: Bin, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "REFUSED_SECONDS", 0.2)
    cluster.refuses = status
    done = bench("--attach")
    assert done.exit_code == FAILED, done.output
    assert f"the cluster refuses your credentials: {status}" in done.output
    assert "Traceback" not in done.output


def test_a_result_with_more_lines_than_a_look_reads_comes_while_the_job_runs(
    cluster: Cluster, api: str, tmp_path: Path
) -> None:
    """The line that tells of the point is above all the lines of its result."""
    from kubernetes import client

    big = [f"@@ points/r1.json {number}/60 x" for number in range(1, 61)]
    cluster.pod("p", RUNNING, [*BEGINNING, "point 1 of 2, r1: TTFT 400 ms", *big])
    with client.ApiClient(client.Configuration(host=api)) as made:
        follower = remote.Follower(made, "ns", None, tmp_path, lambda _: None)
        follower.look()
    assert any("/log" in asked and "tailLines" not in asked for asked in cluster.asked), "the whole log is never read"


def test_a_desk_that_was_asleep_fetches_what_it_missed(
    cluster: Cluster, tools: Bin, known: None, tmp_path: Path
) -> None:
    cluster.pod("p", RUNNING, BEGINNING)
    process = begun("--attach", tmp_path)
    try:
        give_up = time.monotonic() + 30
        while not any(asked.startswith("/api/v1") and "/log" in asked for asked in cluster.asked):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        cluster.pod("p", ended(0), [*BEGINNING, *FIRST, *SECOND, *COMPLETE])
        cluster.ends("Complete")
        time.sleep(1)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == OK, said
    assert load(results(tmp_path)).complete


def test_attaching_to_nothing_says_what_to_run(bench: Run, cluster: Cluster, tools: Bin) -> None:
    cluster.job = None
    done = bench("--attach")
    assert done.exit_code == FAILED
    assert f"{STACK} runs no benchmark" in done.output


# ── and away again ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def empty_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pretend account of the stack's number with nothing in it."""
    books = tmp_path / "cloud"
    books.mkdir()
    (books / "faults.json").write_text(json.dumps({"account": {"account": "111122223333"}}))
    monkeypatch.setenv("DYNAMO_RECIPES_PRETEND_CLOUD", str(books))
    return books


def commands(tools: Bin) -> list[str]:
    return [call[0] for call in tools.calls() if call[0] in ("up", "destroy")]


def test_with_destroy_results_are_home_and_the_stack_is_gone(
    bench: Run, cluster: Cluster, tools: Bin, tmp_path: Path, empty_account: Path
) -> None:
    cluster.job = job_name()
    cluster.pod("p", ended(0), [*BEGINNING, *FIRST, *SECOND, *COMPLETE])
    cluster.ends("Complete")
    story = tell(lambda: tools.ends(0), every=1.5)
    done = bench("--yes", "--destroy")
    story.join()
    assert done.exit_code == OK, done.output
    assert commands(tools) == ["up", "destroy"]
    assert load(results(tmp_path)).complete
    assert "nothing is left" in done.stderr


def test_an_up_that_fails_is_destroyed_as_well_and_is_no_success(
    bench: Run, cluster: Cluster, tools: Bin, empty_account: Path
) -> None:
    cluster.job = None
    tools.ends(255)
    done = bench("--yes", "--destroy")
    assert done.exit_code == FAILED
    assert commands(tools) == ["up", "destroy"]


def test_a_budget_ends_up_in_the_middle(bench: Run, cluster: Cluster, tools: Bin, empty_account: Path) -> None:
    cluster.job = None
    done = bench("--yes", "--destroy", "--max-usd", "0.03")
    assert done.exit_code == FAILED
    assert "the limit of $0.03 is reached" in done.stderr
    assert commands(tools) == ["up", "destroy"]


def test_who_says_no_has_nothing_destroyed(bench: Run, tools: Bin, empty_account: Path) -> None:
    done = bench("--destroy")
    assert done.exit_code == BAD_INPUT
    assert "ALL of it is destroyed" in done.output
    assert commands(tools) == [], "a stack that ran before would be gone for a question"


def test_a_foreign_account_is_refused_before_anything_is_paid(bench: Run, tools: Bin, empty_account: Path) -> None:
    (empty_account / "faults.json").write_text(json.dumps({"account": {"account": "999999999999"}}))
    done = bench("--yes", "--destroy")
    assert done.exit_code == BAD_INPUT
    assert "belongs to account 111122223333" in done.output
    assert commands(tools) == []


def test_there_must_be_a_run_to_resume(bench: Run, tools: Bin, empty_account: Path) -> None:
    done = bench("--resume")
    assert done.exit_code == BAD_INPUT
    assert "holds no run.json" in done.output
    assert commands(tools) == []


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((STACK, "other"), "name one stack"),
        ((STACK, "--profile", "fixd", "--rehearse"), "did you mean fixed?"),
        ((STACK, "--set", "router.mode=kv"), "--set goes with --rehearse"),
        ((STACK, "--rehearse", "--attach"), "--attach and --reprint are for AWS"),
        ((STACK, "--out", "/proc/nowhere"), "/proc/nowhere cannot be written"),
        ((STACK, "--rehearse", "--destroy"), "--destroy and --resume go with neither"),
        ((STACK, "--max-usd", "5"), "go with --destroy"),
        ((STACK, "--corners", "--rehearse"), "--corners needs a pair of stacks"),
        ((STACK, "qwen3-32b-disagg", "--corners"), "on AWS each corner is paid for"),
        (("base", "--rehearse"), "base is a base, which serves no model"),
        ((STACK,), "pulumi config set -s qwen3-32b-agg --path recipe.access.account_id"),
    ],
)
def test_bad_input_is_refused_with_what_would_work(
    run: Run, args: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("bench", *args)
    assert done.exit_code == BAD_INPUT, done.output
    assert said in done.output


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("yes", "benchmark"),
        ("[fixed]", "benchmark"),
        ("{attempt: abc}", "benchmark.attempt"),
        ("{reprint: [1]}", "benchmark.reprint"),
    ],
)
def test_a_bad_section_of_the_stack_file_is_named(bench: Run, tools: Bin, section: str, said: str) -> None:
    file = stacks.FOLDER / f"Pulumi.{STACK}.yaml"
    raw = yaml.safe_load(file.read_text())
    raw["config"]["dynamo-recipes:recipe"]["benchmark"] = yaml.safe_load(section)
    file.write_text(yaml.safe_dump(raw))
    done = bench("--attach")
    assert done.exit_code == BAD_INPUT, done.output
    assert said in done.output
    assert isinstance(done.exception, SystemExit), "a traceback"


def test_measured_but_not_kept_everywhere_says_why(cluster: Cluster, bench: Run, tools: Bin, tmp_path: Path) -> None:
    """Exit codes 4 and 8 come with a complete run."""
    status = {
        "state": "complete",
        "code": 4,
        "reason": "the claim takes no results (it is full)",
        "measured": ["r1", "r2"],
    }
    cluster.pod("p", ended(4), [*BEGINNING, *FIRST, *SECOND, *lines("status.json", status)])
    cluster.ends("Failed", "PodFailurePolicy")
    done = bench("--attach")
    assert done.exit_code == FAILED
    assert "the claim takes no results (it is full)" in done.output


def test_nothing_is_paid_for_without_a_yes(bench: Run, tools: Bin) -> None:
    done = bench()
    assert done.exit_code == BAD_INPUT
    assert "costs $113.55 an hour" in done.output
    assert tools.calls() == []


def test_without_pulumi_it_says_so(
    run: Run, known: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tools: Bin
) -> None:
    (tools.folder / "pulumi").unlink()
    monkeypatch.setenv("PATH", str(tools.folder))
    done = run("bench", STACK, "--yes", "--out", tmp_path / "results")
    assert done.exit_code == MISSING


# ── results out of a log ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_result_comes_out_of_its_lines_in_any_order_and_twice() -> None:
    data = {"values": list(range(20_000))}
    parts = lines("points/r1.json", data)
    assert len(parts) > 2
    reader = LogReader()
    assert [reader.feed(line) for line in parts[:-1]] == [None] * (len(parts) - 1)
    assert reader.feed(parts[-1]) == ("points/r1.json", data)
    reader = LogReader()
    found = [one for line in [parts[1], *reversed(parts)] if (one := reader.feed(line))]
    assert found == [("points/r1.json", data)]


@pytest.mark.parametrize(
    "line",
    ["@@ ../../x.json 1/1 AAAA", "@@ points/../../x.json 1/1 AAAA", "@@ run.json 1/1 ****", "@@ run.json one", "@@ "],
)
def test_a_log_writes_nowhere_else_and_garbage_is_passed_over(line: str) -> None:
    assert LogReader().feed(line) is None


def test_a_name_in_a_log_cannot_leave_the_runs_folder() -> None:
    for name in ("../x.json", "points/../x.json", "/etc/x.json", "points/a/b.json"):
        assert [found for line in lines(name, {"a": 1}) if (found := LogReader().feed(line))] == []


def test_a_disk_that_takes_no_results_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    (tmp_path / "points").write_text("a file")
    with pytest.raises(CommandError, match="--out DIR"):
        save(tmp_path, "points/r1.json", {})
