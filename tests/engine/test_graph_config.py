"""A changed engine configuration on the real engine: the new ConfigMap first, then the graph in place, then the old one goes."""

from __future__ import annotations

import pytest

from .conftest import StartLife
from .life import Life, Row, succeed

pytestmark = pytest.mark.engine

STACK = "qwen3-32b-fp8-disagg"
EDIT = {"workers.decode.tuning.max_batch_size": 64}


@pytest.fixture(scope="module")
def life(start_for_module: StartLife) -> Life:
    """A TensorRT-LLM stack that is up."""
    life = start_for_module(STACK)
    succeed(life.up())
    return life


@pytest.fixture(scope="module")
def edited(life: Life) -> list[Row]:
    """What the cloud saw of the edit."""
    with life.edited(EDIT):
        steps = life.preview()
    assert steps.what("serving-decode-config") == "replace"
    assert steps.what("serving-graph") == "update", f"the workers would all be deleted: {steps.changed()}"
    seq = life.seq()
    life.edit(EDIT)
    succeed(life.up())
    return life.journal(since=seq)


def did(rows: list[Row], name: str) -> list[str]:
    return [row["op"] for row in rows if row["name"] == name and row["op"] != "event"]


def test_workers_never_lose_the_config_they_run_with(edited: list[Row]) -> None:
    assert did(edited, "serving-decode-config") == ["create", "delete"]
    assert did(edited, "serving-graph") == ["update"]
    made, gone = (
        next(row for row in edited if (row["op"], row["name"]) == (op, "serving-decode-config"))
        for op in ("create", "delete")
    )
    changed = next(row for row in edited if (row["op"], row["name"]) == ("update", "serving-graph"))
    ready = next(row for row in edited if (row["op"], row["name"]) == ("create", "serving-ready"))
    assert made["end"] <= changed["start"], "new pods mount it"
    assert gone["start"] >= ready["end"], "old pods may restart until the new ones serve"


def test_the_other_pool_keeps_its_config(edited: list[Row]) -> None:
    assert did(edited, "serving-prefill-config") == []


def test_another_cluster_has_them_too(life: Life, edited: list[Row]) -> None:
    assert edited
    maps = {one["urn"] for one in life.exists("ConfigMap")}
    life.edit({"deployment_id": "two"})
    succeed(life.up())
    assert {one["urn"] for one in life.exists("ConfigMap")} == maps
    (graph,) = life.exists("DynamoGraphDeployment")
    assert graph["extra"]["state"] == "successful"


def test_nothing_is_left_to_change_and_destroy_leaves_nothing(life: Life, edited: list[Row]) -> None:
    assert edited
    succeed(life.up("--expect-no-changes"))
    succeed(life.destroy())
    assert life.session.cloud_objects() == []
