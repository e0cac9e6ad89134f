"""The weights on FSx for Lustre, on the real engine: up and gone with nothing left; and a running stack that goes there, shrinks, and goes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from ops.edits import Edit
from recipe.timeline import timeline
from rehearsal.session import Result
from tests.recipe.samples import plan

from .conftest import StartLife
from .crash import Crash
from .life import Life, Row, names, said, succeed

pytestmark = pytest.mark.engine

LARGE = {"kind": "fsx-lustre", "size_gib": 4800, "throughput_mb_per_tib": 1000}
SMALL = {"kind": "fsx-lustre", "size_gib": 2400, "throughput_mb_per_tib": 500}


def weights_on(model: dict[str, Any]) -> Edit:
    return {"storage": {"model": model}}


@dataclass
class Whole:
    """One life on Lustre."""

    up: Result
    made: list[Row]
    after_up: list[dict[str, Any]]
    unchanged: Result
    refresh: Result
    destroy: Result
    gone: list[Row]
    left: list[dict[str, Any]]


@pytest.fixture(scope="module")
def whole(start_for_module: StartLife) -> Whole:
    life = start_for_module(clock="events")
    life.edit(weights_on(LARGE))
    up = life.up()
    made, after = life.journal(), life.session.cloud_objects()
    unchanged = life.up("--expect-no-changes")
    refresh = life.run("refresh", "--yes", "--skip-preview", "--expect-no-changes")
    seq = life.seq()
    destroy = life.destroy()
    return Whole(up, made, after, unchanged, refresh, destroy, life.journal(since=seq), life.session.cloud_objects())


def at(rows: list[Row], op: str, name: str) -> Row:
    (row,) = (row for row in rows if row["op"] == op and row["name"] == name and row["outcome"] == "ok")
    return row


def test_it_comes_up_and_stays_as_it_is(whole: Whole) -> None:
    succeed(whole.up)
    succeed(whole.unchanged)
    succeed(whole.refresh)
    (files,) = (one for one in whole.after_up if one["type"].endswith(":LustreFileSystem"))
    assert files["extra"]["weights"], "the download wrote to it and to nothing else"
    assert not any(
        one["extra"].get("weights") for one in whole.after_up if one["type"].endswith("efs/fileSystem:FileSystem")
    )


def test_it_is_made_beside_the_control_plane_and_takes_the_minutes_of_the_plan(whole: Whole) -> None:
    files, control_plane = at(whole.made, "create", "lustre-fsx"), at(whole.made, "create", "cluster-eks")
    assert files["start"] < control_plane["start"] + 60, "after it, ten minutes would be added to every start"
    expected = timeline(plan(storage={"model": LARGE}))
    assert expected.minutes_to_first_token is not None
    took = (max(row["end"] for row in whole.made) - min(row["start"] for row in whole.made)) / 60
    assert took == pytest.approx(expected.minutes_to_first_token, abs=1.5)


def test_it_goes_after_workers_and_claims_its_group_after_it_and_nothing_is_left(whole: Whole) -> None:
    succeed(whole.destroy)
    assert whole.left == [], names(whole.left)
    nodes, files, group = (at(whole.gone, "delete", name) for name in ("gpu-nodes", "lustre-fsx", "lustre-group"))
    assert nodes["end"] <= files["start"], "workers would read from what is gone"
    assert files["end"] <= group["start"], "its interfaces are in the group"


@pytest.mark.slow
def test_a_running_stack_moves_to_lustre_shrinks_and_moves_back_without_new_gpu_nodes(start: StartLife) -> None:
    """Each claim has a name of its own, so that the next one is there before the graph asks for it; the old one goes last."""
    life = start()
    succeed(life.up())

    def move(model: dict[str, Any], graph: str = "update") -> None:
        life.edit(weights_on(model))
        seq = life.seq()
        done = succeed(life.up())
        rows = [row for row in life.journal(since=seq) if row["op"] != "event"]
        assert [row["op"] for row in rows if row["name"] == "serving-graph"] == [graph], said(done)
        assert not [row for row in rows if row["name"] in ("gpu-nodes", "cluster-eks", "files-efs")]
        assert [row["extra"]["state"] for row in life.exists("DynamoGraphDeployment")] == ["successful"]
        succeed(life.run("preview", "--expect-no-changes"))

    move(LARGE)
    move(SMALL)
    (files,) = life.exists("LustreFileSystem")
    assert files["inputs"]["storageCapacity"] == 2400, "FSx does not shrink: it is another one, and the first is gone"
    assert len(claims(life)) == 3
    move({"kind": "efs"})
    assert life.exists("LustreFileSystem") == [], "paid for by the hour"
    assert len(claims(life)) == 3
    succeed(life.destroy())
    assert life.session.cloud_objects() == []


def claims(life: Life) -> list[str]:
    return [one["name"] for one in life.exists("PersistentVolumeClaim")]


@pytest.mark.slow
def test_one_that_was_being_made_when_the_engine_died_is_kept_and_not_made_twice(start: StartLife) -> None:
    """FSx knows no name that would collide: only its tags say whose it is."""
    life = start()
    life.edit(weights_on(SMALL))
    crash = Crash(life)
    crash.kill("LustreFileSystem", "after")
    (files,) = life.exists("LustreFileSystem")
    assert files["id"] in crash.recover().adopted.values()
    succeed(life.up())
    assert [one["id"] for one in life.exists("LustreFileSystem")] == [files["id"]]
    succeed(life.destroy())
    assert life.session.cloud_objects() == []
