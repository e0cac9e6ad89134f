"""`ops rehearse`: the arithmetic over a journal, bad input, and (marked engine) whole runs as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import Result

from ops import stacks
from ops.charges import Rates, charges, usd, usd_per_hour
from ops.exits import BAD_INPUT, FAILED, INTERRUPTED, MISSING, OK
from ops.planning import planned
from ops.rehearsal_view import Watcher
from ops.spans import GPUS_PAID, gpus, spans
from recipe import catalogue
from recipe.timeline import timeline
from rehearsal.cloud import rules
from rehearsal.engine import Engine
from rehearsal.errors import SetupError
from rehearsal.session import Event
from tests.ops.conftest import STACK
from tests.recipe.samples import gpu_pool, plan

Run = Callable[..., Result]
GPU_HOUR = 60.0


class Journal:
    """Journal lines, in virtual minutes."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def op(
        self, op: str, type: str, name: str, start: float, end: float, component: str = "", outcome: str = "ok"
    ) -> Journal:
        urn = f"urn:pulumi:dev::dynamo-recipes::dynamo-recipes:x:{component}${type}::{name}"
        return self._add(op=op, type=type, name=name, start=start, end=end, urn=urn, outcome=outcome, id=name)

    def event(self, kind: str, name: str, at: float, message: str = "", **more: Any) -> Journal:
        return self._add(
            op="event",
            type=kind,
            name=name,
            start=at,
            end=at,
            urn="",
            outcome="",
            message=message,
            **{"id": name, **more},
        )

    def _add(self, *, start: float, end: float, message: str = "", **line: Any) -> Journal:
        self.lines.append(
            {"seq": len(self.lines) + 1, "start": start * 60, "end": end * 60, "message": message, **line}
        )
        return self


RATES = Rates(by_type={rules.CLUSTER: 0.10}, by_instance={"p5.48xlarge": GPU_HOUR})


@pytest.fixture
def life() -> tuple[list[dict[str, Any]], int]:
    """A cluster from minute 10, a GPU node from 20, the graph ready at 40, the node gone at 45; and the end of up."""
    journal = Journal()
    journal.op("create", rules.PLACEMENT_GROUP, "placement", 0, 0.01, "GpuPool")
    journal.op("create", rules.CLUSTER, "eks", 0, 10, "Cluster")
    journal.event("node-running", "gpu-0", 20, "p5.48xlarge", gpus=8)
    journal.op("create", rules.NODE_GROUP, "gpu", 19, 26, "GpuPool")
    journal.op("create", rules.DGD, "graph", 26, 26.1, "Serving")
    journal.event("graph-ready", "graph", 40)
    journal.op("create", rules.JOB, "ready", 26, 41, "Serving")
    up_ends = len(journal.lines)
    journal.event("node-terminated", "gpu-0", 45, "p5.48xlarge", gpus=8)
    journal.op("delete", rules.NODE_GROUP, "gpu", 41, 46, "GpuPool")
    journal.op("delete", rules.CLUSTER, "eks", 46, 50, "Cluster")
    return journal.lines, up_ends


def test_a_thing_costs_from_when_it_is_there_until_it_is_gone(life: tuple[list[dict[str, Any]], int]) -> None:
    found = charges(life[0], RATES)
    assert usd_per_hour(found, 15 * 60) == pytest.approx(0.10)
    assert usd_per_hour(found, 30 * 60) == pytest.approx(0.10 + GPU_HOUR)
    assert usd_per_hour(found, 47 * 60) == pytest.approx(0.10), (
        "the node costs until it is gone, not until its group is"
    )
    assert usd(found, 0, 50 * 60) == pytest.approx(25 / 60 * GPU_HOUR + 40 / 60 * 0.10)


def test_what_was_refused_costs_nothing_and_what_is_unfinished_does() -> None:
    journal = Journal()
    journal.op("create", rules.CLUSTER, "refused", 0, 1, outcome="refused")
    journal.op("create", rules.CLUSTER, "unfinished", 0, 1, outcome="unfinished")
    assert [charge.start for charge in charges(journal.lines, RATES)] == [60.0]


def test_a_failed_delete_does_not_stop_the_cost(life: tuple[list[dict[str, Any]], int]) -> None:
    lines = [*life[0][:-1], {**life[0][-1], "outcome": "unfinished"}]
    assert charges(lines, RATES)[0].end is None


def test_the_rates_add_up_to_the_plans() -> None:
    found = plan()
    rates = Rates.of(found)
    gpu, cpu = gpu_pool(found), found.cpu_pool
    total = sum(rates.by_type.values()) + sum(pool.count * rates.by_instance[pool.instance_type] for pool in (gpu, cpu))
    assert total == pytest.approx(found.cost.usd_per_hour, abs=0.01), "two answers to one question"


def test_items_start_with_what_takes_time_and_the_graph_ends_when_it_is_ready(
    life: tuple[list[dict[str, Any]], int],
) -> None:
    found = {(span.phase, span.item): (span.start_minutes, span.end_minutes) for span in spans(*life)}
    assert found == {
        ("up", "cluster"): (0, 10),
        ("up", "GPU nodes"): (19, 26),  # not minute 0, where their placement group was made
        ("up", GPUS_PAID): (20, 41),
        ("up", "graph"): (26, 40),
        ("up", "ready"): (26, 41),
        ("destroy", "GPU nodes"): (41, 46),
        ("destroy", GPUS_PAID): (41, 45),
        ("destroy", "cluster"): (46, 50),
    }


def test_gpus_are_idle_until_the_graph_is_ready_and_while_they_are_taken_away(
    life: tuple[list[dict[str, Any]], int],
) -> None:
    found = gpus(*life, now=50 * 60)
    assert found.minutes_to_ready == pytest.approx(41)
    assert found.idle_before_ready_node_minutes == pytest.approx(20)
    assert found.idle_node_minutes == pytest.approx(20 + 4)
    assert found.idle_gpu_minutes == pytest.approx(8 * 24)
    assert found.gone_after_minutes == pytest.approx(4)


def test_a_life_without_gpus_has_no_first_token_and_no_idle_time() -> None:
    journal = Journal().op("create", rules.CLUSTER, "eks", 0, 10, "Cluster")
    found = gpus(journal.lines, 1, now=600)
    assert (found.minutes_to_ready, found.idle_gpu_minutes, found.gone_after_minutes) == (None, 0, None)


def test_progress_shows_the_minute_what_happened_and_what_it_costs_from_then_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], life: tuple[list[dict[str, Any]], int]
) -> None:
    with Watcher(tmp_path, RATES, "up", 3) as watch:
        text = "".join(json.dumps(line) + "\n" for line in life[0][: life[1]])
        (tmp_path / "journal.jsonl").write_text(text[:200])
        watch(Event("done", 1, 0))  # in the middle of a line
        (tmp_path / "journal.jsonl").write_text(text)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("$")[-1].split("/")[0].strip() for line in lines] == ["0.10", "60.10", "60.10", "60.10", "60.10"]
    assert "10.0 min  + Cluster eks (10.0 min)" in lines[0]
    assert "node gpu-0 (p5.48xlarge) runs" in lines[1]
    assert "graph graph is ready" in lines[3]


# ── bad input, without the engine ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "name one stack"),
        ((STACK, "other"), "name one stack"),
        (("qwen3-32b-disag",), f"did you mean {STACK}?"),
        ((STACK, "--set", "hardware.gpu=h10"), "did you mean h100?"),
        ((STACK, "--json", "/nowhere/x.json"), "/nowhere/x.json cannot be written"),
        ((STACK, "--faults", "/nowhere/f.json"), "/nowhere/f.json: no such faults file"),
        ((STACK, "--folder", "/nowhere"), "name one stack"),
        (("--shell", "--folder", "/nowhere"), "/nowhere is not a kept rehearsal"),
        (("--shell", "--set", "a=b"), "--set, --json and --control-plane go with a STACK"),
    ],
)
def test_bad_input_is_refused_before_anything_is_started(
    run: Run, args: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the engine must not be looked for: that may take minutes")

    monkeypatch.setattr("ops.rehearsing.ensure_engine", never)
    result = run("rehearse", *args)
    assert result.exit_code == BAD_INPUT, result.output
    assert said in result.stderr
    assert "Next: " in result.stderr or "did you mean h100?" in result.stderr


def test_a_base_alone_is_not_rehearsed_and_the_message_says_what_is(run: Run) -> None:
    result = run("rehearse", "base")
    assert result.exit_code == BAD_INPUT
    assert "--set foundation.kind=base --set foundation.stack=base" in result.stderr


@pytest.mark.parametrize("args", [(STACK,), ("--shell",)])
def test_without_an_engine_and_a_way_to_build_one_the_message_says_what_to_install(
    run: Run, args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise SetupError("the Pulumi engine could not be built", "install the Pulumi CLI")

    monkeypatch.setattr("ops.rehearsing.ensure_engine", none)
    result = run("rehearse", *args)
    assert result.exit_code == MISSING
    assert result.stderr == "the Pulumi engine could not be built\nNext: install the Pulumi CLI\n"


# ── whole runs ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Ran:
    """How a rehearsal as a process of its own ended."""

    exit_code: int
    stdout: str
    stderr: str
    temp: Path
    data: dict[str, Any]

    def leftovers(self) -> list[Path]:
        return list(self.temp.glob("dynamo-recipes-*"))


Start = Callable[..., Ran]


@pytest.fixture
def start(tmp_path: Path, engine: Engine) -> Start:
    """`python -m ops rehearse …` as a process; its temporary folders go below `temp`. `interrupt_at`: Ctrl-C at a line with that."""
    temp = tmp_path / "temp"
    temp.mkdir()
    env = {**os.environ, "TMPDIR": str(temp), "PATH": os.pathsep.join([*map(str, engine.bin_dirs), os.environ["PATH"]])}

    def start(*args: str | Path, interrupt_at: str = "", stdin: str = "") -> Ran:
        file = tmp_path / "out.json"
        with_json = [] if "--shell" in args else ["--json", str(file)]
        command = [sys.executable, "-m", "ops", "rehearse", *with_json, *map(str, args)]
        seen: list[str] = []
        errors: list[str] = []
        children: list[psutil.Process] = []
        with subprocess.Popen(
            command, cwd=stacks.ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdin
            assert process.stdout
            assert process.stderr
            reader = threading.Thread(target=errors.extend, args=(process.stderr,))
            reader.start()
            process.stdin.write(stdin)
            process.stdin.close()
            for line in process.stdout:
                seen.append(line)
                if interrupt_at and interrupt_at in line:
                    children = psutil.Process(process.pid).children(recursive=True)
                    process.send_signal(signal.SIGINT)
                    interrupt_at = ""
            reader.join()
        code = process.returncode
        _, alive = psutil.wait_procs(children, timeout=5)
        assert alive == [], "nothing may run on after the command has ended"
        data = json.loads(file.read_text()) if file.exists() else {}
        return Ran(code, "".join(seen), "".join(errors), temp, data)

    return start


@pytest.mark.engine
def test_a_rehearsal_goes_up_and_back_to_nothing_and_says_what_it_would_have_cost(start: Start) -> None:
    ran = start(STACK)
    assert ran.exit_code == OK, ran.stdout + ran.stderr
    data = ran.data
    assert data["simulated"] is True
    assert (data["left"], data["left_resources"]) == (0, [])
    assert data["created"] == data["deleted"] > 60
    assert data["gpus"] == 16
    assert data["usd_per_hour"] == pytest.approx(plan().cost.usd_per_hour, abs=0.02), (
        "the plan's price is what runs after up"
    )
    computed = timeline(plan()).minutes_to_first_token
    assert data["minutes_to_ready"] == pytest.approx(computed, rel=0.02), (
        "the plan's arithmetic follows the same durations"
    )
    idle = timeline(plan()).gpu_idle
    assert idle is not None
    until_ready = idle.seconds - catalogue.duration("readiness.job").seconds
    assert data["gpu_node_idle_minutes_before_ready"] == pytest.approx(2 * until_ready / 60, rel=0.02), (
        "and so do its idle GPU minutes, of both nodes"
    )
    assert data["minutes_until_gpus_gone"] < data["minutes_destroy"], "GPUs go first"
    assert data["gpu_idle_minutes"] > 0
    assert data["usd_idle"] == pytest.approx(data["gpu_node_idle_minutes"] / 60 * 55.06, rel=0.01)
    up = {span["item"]: span for span in data["timeline"] if span["phase"] == "up"}
    wanted = {
        "network",
        "cluster",
        "CPU nodes",
        "storage",
        "weights",
        "platform",
        "device plugins",
        "admission",
        "GPU nodes",
        "graph",
        "ready",
    }
    assert set(up) == wanted | {GPUS_PAID}
    for cheap in ("weights", "platform", "admission"):
        assert up[cheap]["end_minutes"] <= up["GPU nodes"]["start_minutes"], (
            f"GPUs are paid for while {cheap} may still fail"
        )
    for shown in (
        "preview",
        "up",
        "destroy",
        "Left in the pretend cloud: nothing",
        "first token",
        "(simulated)",
        "GPUs gone",
    ):
        assert shown in ran.stdout
    assert ran.leftovers() == []
    assert data["serving"] is None, "SERVE=0 leaves it out"
    assert "\nserving" not in ran.stdout


ON_BASE = ("--set", "foundation.kind=base")


@pytest.mark.engine
def test_a_stack_on_a_base_is_rehearsed_with_its_base_around_it(start: Start) -> None:
    ran = start(STACK, *ON_BASE)
    assert ran.exit_code == OK, ran.stdout + ran.stderr
    data = ran.data
    assert (data["left"], data["left_resources"]) == (0, []), "the base goes as well"
    assert data["base"]["stack"] == "base"
    assert data["base"]["created"] > 40
    assert data["created"] == data["deleted"] < 30, "the stack's own; the base's are counted beside"
    assert min(span["start_minutes"] for span in data["timeline"]) == 0, "its time begins when the base is up"
    assert data["minutes_to_ready"] < 30 < data["base"]["minutes_up"] + data["minutes_to_ready"]
    assert data["usd_per_hour"] == pytest.approx(plan().cost.usd_per_hour, abs=0.3), "without what the base costs"
    steps = ["up of the base, base", "preview", "up", "destroy", "release and destroy of the base, base"]
    lines = [line for line in ran.stdout.splitlines() if line in steps]
    assert lines == steps
    assert "No stack refers to base" in ran.stdout


@pytest.mark.engine
@pytest.mark.slow
def test_what_does_not_go_keeps_its_base_and_is_said(start: Start, tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({"faults": [{"op": "delete", "type": "Namespace", "times": None, "error": "no"}]}))
    ran = start(STACK, *ON_BASE, "--faults", faults)
    assert ran.exit_code == FAILED
    assert "base is the base of qwen3-32b-disagg" in ran.stdout
    assert data_left(ran) >= {"Namespace", "Cluster"}


def data_left(ran: Ran) -> set[str]:
    return {one["type"].rpartition(":")[2] for one in ran.data["left_resources"]}


@pytest.mark.engine
def test_a_rehearsal_without_gpus_has_its_minutes_and_no_word_about_idle_ones(start: Start) -> None:
    ran = start("mocker-cpu")
    assert ran.exit_code == OK, ran.stdout + ran.stderr
    data = ran.data
    assert (data["left"], data["gpus"], data["gpu_idle_minutes"], data["usd_idle"]) == (0, 0, 0, 0)
    assert data["usd_per_hour"] == pytest.approx(planned("mocker-cpu", []).plan.cost.usd_per_hour, abs=0.01)
    assert 10 < data["minutes_to_ready"] < 25
    items = {span["item"]: span for span in data["timeline"] if span["phase"] == "up"}
    assert not {"GPU nodes", "device plugins", GPUS_PAID} & set(items)
    assert items["weights"]["end_minutes"] - items["weights"]["start_minutes"] < 1, "17 MB, not 65 GB"
    assert "GPUs paid for and idle" not in ran.stdout


@pytest.mark.engine
@pytest.mark.slow
def test_without_gpu_capacity_it_fails_with_the_engines_words_and_still_leaves_nothing(
    start: Start, tmp_path: Path
) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({"capacity": {"p5.48xlarge": 0}}))
    ran = start(STACK, "--faults", faults)
    assert ran.exit_code == FAILED
    assert any("InsufficientInstanceCapacity" in failure for failure in ran.data["failures"])
    assert ran.data["destroyed"] is True
    assert ran.data["left"] == 0
    assert ran.data["minutes_to_ready"] is None
    assert "Next: " in ran.stdout, "what to do about it"
    assert "Traceback" not in ran.stdout + ran.stderr


@pytest.mark.engine
@pytest.mark.slow
def test_what_a_failed_up_leaves_is_kept_on_request_and_a_shell_goes_on_with_it(start: Start, tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({"capacity": {"p5.48xlarge": 0}}))
    ran = start(STACK, "--faults", faults, "--keep")
    assert ran.exit_code == FAILED
    assert ran.data["destroyed"] is False
    assert ran.data["left"] > 0
    (folder,) = ran.leftovers()
    assert f"--folder {folder}" in ran.stdout, "how to go on must be there to be copied"
    ended = start("--shell", "--folder", folder, "--", "pulumi", "destroy", "--yes", "-s", STACK)
    assert ended.exit_code == OK, ended.stderr
    assert "0 things exist in the pretend cloud" in ended.stderr


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.parametrize("at", ["preview", "+ Cluster"])
def test_ctrl_c_stops_everything_and_says_so(start: Start, at: str) -> None:
    ran = start(STACK, interrupt_at=at)
    assert ran.exit_code == INTERRUPTED
    assert "rehearsal interrupted" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.leftovers() == []
    assert ran.data == {}, "no report of half a rehearsal"


@pytest.mark.engine
@pytest.mark.slow
def test_in_the_shell_plain_pulumi_works_on_the_pretend_cloud(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = start("--shell", "--", "pulumi", "preview", "-s", STACK)
    assert ran.exit_code == OK, ran.stderr
    assert "to create" in ran.stdout
    monkeypatch.setenv("SHELL", "/bin/sh")
    typed = start("--shell", stdin="pulumi stack ls\n")
    assert typed.exit_code == OK
    assert STACK in typed.stdout
    failed = start("--shell", "--", "pulumi", "preview", "-s", "nowhere")
    assert failed.exit_code not in (OK, None), "a script must see that its command failed"


@pytest.mark.engine
@pytest.mark.slow
def test_settings_and_a_wanted_token_reach_the_program(start: Start) -> None:
    ran = start(STACK, "--set", "hardware.gpu=h200", "--set", "budget.usd_per_hour=200", "--set", "weights.token=true")
    assert ran.exit_code == OK, ran.stdout + ran.stderr
    assert "p5en.48xlarge" in ran.stdout
    assert ran.data["existed"]["Secret"] == 1
    assert "rehearsed-secret" not in ran.stdout + ran.stderr + json.dumps(ran.data)
