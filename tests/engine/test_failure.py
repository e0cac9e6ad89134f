"""What goes wrong, how a user learns of it, what was paid for by then, and how it ends well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .conftest import StartLife
from .crash import Crash
from .life import Life, faults_file, names, said, succeed

pytestmark = pytest.mark.engine

CLUSTER = "dynamo-recipes-qwen3-32b-disagg-main"
NO_CAPACITY = {"type": "NodeGroup", "name_contains": "gpu", "when": "after", "error": "InsufficientInstanceCapacity"}
CLUSTER_STAYS = {"op": "delete", "type": "Cluster", "error": "InternalFailure: try again later"}
GPU_NODES = 2


def start_with(start: StartLife, folder: Path, *faults: Mapping[str, Any], **how: Any) -> Life:
    return start(faults=faults_file(folder, *faults), **how)


def assert_no_gpu_was_paid_for(life: Life) -> None:
    assert life.gpu_hours_began() == [], "GPU nodes ran although nothing could be served"
    assert not [row for row in life.journal("create") if row["name"] == "gpu-nodes"], "they were not even asked for"


def assert_nothing_left(life: Life) -> None:
    succeed(life.destroy())
    assert names(life.session.cloud_objects()) == []


def gpu_groups(life: Life) -> list[dict[str, Any]]:
    return [group for group in life.exists("NodeGroup") if "gpu" in group["id"]]


# No capacity


def test_without_capacity_up_says_what_to_do_and_a_later_up_succeeds(start: StartLife, tmp_path: Path) -> None:
    life = start_with(start, tmp_path, NO_CAPACITY)
    failed = life.up()
    assert not failed.ok
    assert any(f"{CLUSTER}:{CLUSTER}-gpu" in error and "p5.48xlarge capacity" in error for error in failed.errors), (
        "the error names the node group and the reason"
    )
    text = said(failed)
    for hint in (
        "AWS may still deliver",
        f"aws eks describe-nodegroup --region us-east-2 --cluster-name {CLUSTER} --nodegroup-name {CLUSTER}-gpu",
        "`pulumi up -s qwen3-32b-disagg` asks again",
        "`pulumi destroy -s qwen3-32b-disagg` gives everything back",
    ):
        assert hint in text
    assert life.gpu_hours_began() == [], "what does not run is not billed"
    assert not life.exists("DynamoGraphDeployment"), "a graph without nodes would only wait"

    succeed(life.up())
    assert len(gpu_groups(life)) == 1
    assert len(life.gpu_hours_began()) == GPU_NODES
    assert life.exists("DynamoGraphDeployment")[0]["extra"]["state"] == "successful"
    assert_nothing_left(life)


def test_a_stack_that_found_no_capacity_is_destroyed_without_a_rest(start: StartLife, tmp_path: Path) -> None:
    life = start_with(start, tmp_path, {**NO_CAPACITY, "times": None})
    assert not life.up().ok
    assert len(gpu_groups(life)) == 1, "the group without nodes is there, and in the state"
    assert_nothing_left(life)


# Late delivery

LATE = {**NO_CAPACITY, "late_s": 900}
TIMES_OUT = {"hardware.create_timeout_minutes": 10}


def time_out(start: StartLife, folder: Path) -> Life:
    life = start_with(start, folder, LATE)
    life.edit(TIMES_OUT)
    failed = life.up()
    assert not failed.ok
    assert "timeout: 10m0s" in said(failed), "the knob decides how long to wait"
    assert len(gpu_groups(life)) == 1
    return life


@pytest.mark.slow
def test_after_a_timeout_up_ends_with_one_node_group(start: StartLife, tmp_path: Path) -> None:
    life = time_out(start, tmp_path)
    succeed(life.up())
    assert len(gpu_groups(life)) == 1, "two groups would be two bills"
    assert sum(1 for node in life.exists("Instance") if node["extra"]["gpus"]) == GPU_NODES
    assert_nothing_left(life)


@pytest.mark.slow
def test_nodes_that_come_late_are_destroyed(start: StartLife, tmp_path: Path) -> None:
    life = time_out(start, tmp_path)
    assert_nothing_left(life)


# A cluster that does not want to go


def keep_cluster(start: StartLife, folder: Path, **how: Any) -> Life:
    life = start_with(start, folder, CLUSTER_STAYS, **how)
    succeed(life.up())
    failed = life.destroy()
    assert not failed.ok
    assert "InternalFailure: try again later" in said(failed)
    assert not [node for node in life.exists("Instance") if node["extra"]["gpus"]], "the GPUs are gone all the same"
    return life


def test_after_a_failed_cluster_delete_destroy_again_leaves_nothing(start: StartLife, tmp_path: Path) -> None:
    assert_nothing_left(keep_cluster(start, tmp_path))


@pytest.mark.slow
def test_after_a_failed_cluster_delete_up_takes_the_objects_over_and_new_nodes_prove_themselves(
    start: StartLife, tmp_path: Path
) -> None:
    life = keep_cluster(start, tmp_path)
    first = life.one("create", "serving-ready")["id"]
    before = life.seq()
    succeed(life.up())
    assert life.exists("DynamoGraphDeployment")[0]["extra"]["state"] == "successful"
    assert life.one("create", "serving-ready", before)["id"] != first, (
        "the Job that completed on the old nodes must not answer for the new ones"
    )
    assert_nothing_left(life)


# Before GPUs


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            {"type": "Job", "name_contains": "weights", "when": "after", "error": "401"},
            "401 Client Error: Unauthorized",
        ),
        ({"type": "Job", "name_contains": "weights", "when": "after", "error": "disk-full"}, "No space left on device"),
        ({"type": "DynamoGraphDeployment", "error": "spec.components[1]: not so"}, "spec.components[1]: not so"),
    ],
    ids=["no access to the weights", "disk full", "graph refused"],
)
def test_what_can_fail_for_cents_fails_before_gpus(
    start: StartLife, tmp_path: Path, fault: dict[str, Any], words: str
) -> None:
    life = start_with(start, tmp_path, fault)
    failed = life.up()
    assert not failed.ok
    assert any(words in error for error in failed.errors), "the reason is in the error, not in a log to look for"
    assert_no_gpu_was_paid_for(life)


@pytest.mark.slow
def test_a_download_that_failed_is_tried_again_by_the_next_up(start: StartLife, tmp_path: Path) -> None:
    life = start_with(start, tmp_path, {"type": "Job", "name_contains": "weights", "when": "after", "error": "401"})
    assert not life.up().ok
    succeed(life.up())
    assert life.exists("DynamoGraphDeployment")[0]["extra"]["state"] == "successful"
    assert_nothing_left(life)


# With GPUs running

MINUTE = 60.0


@pytest.mark.parametrize(
    ("what", "words", "patience"),
    [
        ("failed", "failed: reconciling the graph failed", 1 * MINUTE),
        ("CrashLoopBackOff", "CrashLoopBackOff", 1 * MINUTE),
        ("ImagePullBackOff", "ImagePullBackOff", 3 * MINUTE),
    ],
)
def test_a_graph_that_cannot_become_ready_ends_up_at_once_with_the_reason(
    start: StartLife, tmp_path: Path, what: str, words: str, patience: float
) -> None:
    life = start_with(start, tmp_path, {"type": "DynamoGraphDeployment", "when": "after", "error": what})
    failed = life.up()
    assert not failed.ok
    assert any(words in error for error in failed.errors)
    ready = next(row for row in life.journal("create") if row["name"] == "serving-ready")
    assert ready["end"] - ready["start"] <= patience, "each minute costs $1.83 by now, and the timeout is 40"


# A crash


def test_after_a_crash_a_repeated_create_collides_instead_of_doubling(start: StartLife) -> None:
    life = start(clock="events")
    # Held there: a kill that follows the clock comes too late now and then, when the group is in the state already.
    Crash(life).kill("NodeGroup", "after", name="gpu-nodes")
    locked = life.up()
    assert not locked.ok
    assert "lock" in said(locked), "the lock of the killed engine says that somebody has to look"
    succeed(life.session.run(["cancel", "--yes", "qwen3-32b-disagg"]))
    again = life.up()
    assert not again.ok, "nothing may pretend that all is well"
    assert "already exists" in said(again), "a fixed name collides"
    assert len(gpu_groups(life)) == 1, "a second group would cost another $110 an hour, known to nobody"
    assert sum(1 for node in life.exists("Instance") if node["extra"]["gpus"]) <= GPU_NODES
