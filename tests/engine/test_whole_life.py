"""The shipped stack from nothing to a served graph and back, on the real engine against the pretend cloud."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rehearsal.engine import Engine
from rehearsal.session import Session
from tests.engine.life import Life, faults_file, said, succeed

pytestmark = pytest.mark.engine

Start = Callable[..., Life]
TOKEN = "hf_" + "NotARealTokenButLongEnough"
"""In two parts, so that no scanner takes it for a leak."""


@pytest.fixture
def start(engine: Engine, tmp_path: Path) -> Iterator[Start]:
    """A stack in a session of its own, with faults: `start({...}, capacity={...})`."""
    with ExitStack() as open_sessions:

        def make(*faults: dict[str, Any], capacity: dict[str, int] | None = None) -> Life:
            file = faults_file(tmp_path, *faults, capacity=capacity)
            return Life(open_sessions.enter_context(Session(engine=engine, clock="off", faults=file)))

        yield make


def test_a_stack_comes_stays_and_goes_without_a_trace(start: Start) -> None:
    life = start()
    life.preview()
    assert life.session.cloud_objects() == [], "a preview must create nothing"
    succeed(life.up())
    assert len(life.exists("Instance")) == 4, "two GPU and two CPU nodes run"
    for again in (life.up("--expect-no-changes"), life.run("refresh", "--yes", "--expect-no-changes")):
        succeed(again)
    succeed(life.destroy())
    assert life.session.cloud_objects() == [], "the pretend cloud's own count, not the engine's"


def test_gpu_nodes_are_the_last_thing_paid_for_and_the_first_given_back(start: Start) -> None:
    life = start()
    succeed(life.up())
    gpu = life.one("create", "gpu-nodes")
    before = (
        "weights-job", "admission-job", "platform-release", "devices-nvidia-device-plugin", "cpu-coredns", "files-driver",
        "network-nat", "network-to-nat", "network-nodes-association", "files-mount-target", "files-driver-identity",
    )  # fmt: skip
    for name in before:
        done = life.one("create", name)["end"]
        assert done <= gpu["start"], f"{name} ends at {done} s, GPUs are asked for at {gpu['start']} s already"
    assert life.one("create", "cluster-logs")["end"] <= life.one("create", "cluster-eks")["start"]
    after_up = life.seq()
    succeed(life.destroy())
    gone = life.one("delete", "gpu-nodes", after_up)["end"]
    for name in ("network-nat", "network-to-nat", "network-nodes-association", "cluster-eks", "cpu-nodes"):
        assert gone <= life.one("delete", name, after_up)["start"], f"GPU nodes must not lose {name} while they drain"


def test_without_gpu_capacity_nothing_serves_and_both_ways_out_work(start: Start) -> None:
    life = start(
        {"type": "NodeGroup", "name_contains": "gpu", "when": "after", "error": "InsufficientInstanceCapacity"}
    )
    failed = life.up()
    assert not failed.ok
    assert "InsufficientInstanceCapacity" in said(failed), "the message must say why"
    assert life.gpu_hours_began() == [], "no GPU was paid for"
    assert life.exists("DynamoGraphDeployment") == [], "no graph without nodes"
    succeed(life.up())  # capacity is back
    assert len(life.exists("NodeGroup", "gpu-nodes")) == 1, "never two GPU node groups"
    succeed(life.destroy())
    assert life.session.cloud_objects() == []


@pytest.mark.parametrize("retry", ["destroy", "up"])
def test_after_a_failed_delete_of_the_cluster_both_destroy_and_up_work(start: Start, retry: str) -> None:
    life = start({"op": "delete", "type": "Cluster", "error": "InternalFailure: an internal error occurred"})
    succeed(life.up())
    first_ready = life.one("create", "serving-ready")["id"]
    after_up = life.seq()
    assert not life.destroy().ok
    assert life.exists("Cluster"), "it is still there and costs"
    if retry == "up":
        succeed(life.up())
        ready = life.one("create", "serving-ready", after_up)
        assert ready["id"] != first_ready, "the Job that completed on the old nodes must not answer for the new ones"
    succeed(life.destroy())
    assert life.session.cloud_objects() == []


@pytest.mark.parametrize("error", ["401", "disk-full"])
def test_weights_that_do_not_arrive_cost_no_gpu_second(start: Start, error: str) -> None:
    life = start({"type": "Job", "name_contains": "weights", "when": "after", "error": error, "times": None})
    assert not life.up().ok
    assert life.gpu_hours_began() == []
    succeed(life.destroy())
    assert life.session.cloud_objects() == []


@pytest.mark.parametrize("error", ["failed", "ImagePullBackOff", "CrashLoopBackOff"])
def test_a_graph_that_can_never_serve_fails_at_once_and_says_why(start: Start, error: str) -> None:
    life = start({"type": "DynamoGraphDeployment", "when": "after", "error": error, "times": None})
    result = life.up()
    assert not result.ok
    assert error in said(result), "the reason, not a timeout"
    ready = [row for row in life.journal("create") if row["name"] == "serving-ready"]
    assert ready[-1]["end"] - ready[-1]["start"] < 15 * 60, "its deadline is 40 minutes at $113 an hour"
    succeed(life.destroy())
    assert life.session.cloud_objects() == []


def test_a_first_real_preview_asks_for_what_only_the_user_knows(start: Start) -> None:
    life = start()
    del life.session.env["DYNAMO_RECIPES_PLACEHOLDERS"]
    result = life.run("preview")
    assert not result.ok
    assert "pulumi config set -s qwen3-32b-disagg --path recipe.access.account_id" in said(result)
    assert "Traceback" not in said(result)


def test_the_token_is_nowhere_in_clear(start: Start) -> None:
    life = start()
    life.edit({"weights.token": True})
    succeed(life.run("config", "set", "--secret", "hfToken", TOKEN))
    shown = [life.run("preview", "--json"), life.run("preview", "--diff"), life.up(), life.run("stack", "export")]
    shown.append(life.run("stack", "history", "--json"))
    assert life.exists("Secret"), "the token must arrive in the cluster, or this test proves nothing"
    forms = (TOKEN, base64.b64encode(TOKEN.encode()).decode())
    for result in shown:
        succeed(result)
        assert not any(form in said(result) for form in forms), f"in the output of {result.command}"
    leaks = [
        str(file.relative_to(life.session.root))
        for file in life.session.root.rglob("*")
        if file.is_file() and not file.is_symlink() and any(form.encode() in file.read_bytes() for form in forms)
    ]
    assert leaks == [], "state, history, events, store, journal, logs"
    (life.session.root / "planted").write_text(json.dumps({"token": TOKEN}))
    assert TOKEN.encode() in (life.session.root / "planted").read_bytes(), "the search does find what is there"
