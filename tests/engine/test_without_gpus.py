"""Whole lives without GPU nodes on the real engine: the mocker from nothing and back, and a stack that is paused and resumed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from rehearsal.session import Result

from .conftest import StartLife
from .life import STACK, Life, Row, Steps, names, said, succeed

pytestmark = pytest.mark.engine


def graphs(things: list[dict[str, Any]]) -> list[str]:
    return [thing["extra"]["state"] for thing in things if thing["type"].endswith(":DynamoGraphDeployment")]


def gpu_nodes(things: list[dict[str, Any]]) -> int:
    return sum(bool(thing["type"].endswith(":Instance") and thing["extra"]["gpus"]) for thing in things)


# ── mocker-cpu ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Whole:
    """One life of mocker-cpu."""

    preview: Result
    up: Result
    after_up: list[dict[str, Any]]
    outputs: dict[str, Any]
    gpu_hours: list[Row]
    unchanged: Result
    refresh: Result
    destroy: Result
    left: list[dict[str, Any]]


@pytest.fixture(scope="module")
def mocker(start_for_module: StartLife) -> Whole:
    life = start_for_module("mocker-cpu")
    preview, up = life.run("preview"), succeed(life.up())
    return Whole(
        preview=preview,
        up=up,
        after_up=life.session.cloud_objects(),
        outputs=json.loads(life.run("stack", "output", "--json").stdout),
        gpu_hours=life.gpu_hours_began(),
        unchanged=life.up("--expect-no-changes"),
        refresh=life.run("refresh", "--yes", "--skip-preview", "--expect-no-changes"),
        destroy=life.destroy(),
        left=life.session.cloud_objects(),
    )


def test_the_mocker_serves_without_any_gpu(mocker: Whole) -> None:
    assert graphs(mocker.after_up) == ["successful"]
    assert mocker.gpu_hours == []
    nodes = [thing["inputs"]["instanceType"] for thing in mocker.after_up if thing["type"].endswith(":Instance")]
    assert nodes == ["m7i.xlarge"] * 2
    assert mocker.outputs["gpus"] == 0
    assert mocker.outputs["usdPerHour"] < 1


def test_the_mockers_preview_counts_what_up_makes(mocker: Whole) -> None:
    assert succeed(mocker.preview).changes == {"create": sum(mocker.up.changes.values())}


def test_an_unchanged_mocker_has_no_changes(mocker: Whole) -> None:
    assert set(succeed(mocker.unchanged).changes) == {"same"}
    assert set(succeed(mocker.refresh).changes) == {"same"}


def test_the_mocker_leaves_nothing(mocker: Whole) -> None:
    succeed(mocker.destroy)
    assert names(mocker.left) == []


# ── pause and resume ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Chapter:
    """One `up` after an edit."""

    result: Result
    rows: list[Row]
    after: list[dict[str, Any]]
    outputs: dict[str, Any] = field(default_factory=dict)

    def did(self) -> dict[str, list[str]]:
        """What was done to each resource, by its logical name."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row["op"] in ("create", "update", "delete"):
                found.setdefault(row["name"], []).append(row["op"])
        return found

    def when(self, op: str, name: str) -> Row:
        return next(row for row in self.rows if (row["op"], row["name"]) == (op, name))


@dataclass
class Story:
    before: list[dict[str, Any]]
    paused: Chapter
    unchanged: Chapter
    resumed: Chapter
    destroyed: Chapter
    preview: Steps


@pytest.fixture(scope="module")
def story(start_for_module: StartLife) -> Story:
    life = start_for_module()
    succeed(life.up())

    def chapter(result: Result, since: int) -> Chapter:
        outputs = json.loads(life.run("stack", "output", "--json").stdout or "{}")
        return Chapter(result, life.journal(since=since), life.session.cloud_objects(), outputs)

    before = life.session.cloud_objects()
    _set_paused(life, "true")
    preview, since = life.preview(), life.seq()
    paused, since = chapter(life.up(), since), life.seq()
    unchanged, since = chapter(life.up("--expect-no-changes"), since), life.seq()
    _set_paused(life, "false")
    resumed, since = chapter(life.up(), since), life.seq()
    return Story(before, paused, unchanged, resumed, chapter(life.destroy(), since), preview)


def _set_paused(life: Life, value: str) -> None:
    """By the command that README and plan print."""
    succeed(life.session.run(["config", "set", "-s", STACK, "--path", "recipe.hardware.paused", value]))


def test_a_pause_ends_the_gpu_bill_and_keeps_everything_else(story: Story) -> None:
    succeed(story.paused.result)
    assert gpu_nodes(story.before) == 2
    assert gpu_nodes(story.paused.after) == 0
    assert graphs(story.paused.after) == []
    gone = Counter(thing["name"] for thing in story.before if thing.get("urn")) - Counter(
        thing["name"] for thing in story.paused.after if thing.get("urn")
    )
    assert {name.partition("-")[0] for name in gone} == {"gpu", "serving"}
    touched = {name for name, ops in story.paused.did().items() if name.partition("-")[0] not in ("gpu", "serving")}
    assert touched == set(), "cluster, CPU nodes, caches, weights and platform stay as they are"


def test_a_pause_takes_the_graph_away_before_its_nodes(story: Story) -> None:
    assert story.paused.when("delete", "serving-graph")["end"] <= story.paused.when("delete", "gpu-nodes")["start"], (
        "pods that are asked to end can say goodbye"
    )


def test_the_preview_of_a_pause_shows_exactly_what_goes(story: Story) -> None:
    changed = {name: what for name, what in story.preview.changed().items() if name != STACK}
    assert set(changed.values()) == {"delete"}
    assert {name.partition("-")[0] for name in changed} == {"gpu", "serving"}


def test_a_paused_stack_is_at_rest_and_cheap(story: Story) -> None:
    assert set(succeed(story.unchanged.result).changes) == {"same"}
    assert story.paused.outputs["gpus"] == 0
    assert story.paused.outputs["usdPerHour"] < 5
    assert "endpoint" not in story.paused.outputs


def test_resuming_is_one_up_that_makes_gpu_nodes_and_graph_and_nothing_else(story: Story) -> None:
    succeed(story.resumed.result)
    assert graphs(story.resumed.after) == ["successful"]
    assert gpu_nodes(story.resumed.after) == 2
    assert names(story.resumed.after) == names(story.before)
    did = story.resumed.did()
    assert {name.partition("-")[0] for name in did} == {"gpu", "serving"}
    assert "weights-job" not in did, "the weights are on the cache"


def test_new_gpu_nodes_prove_themselves_after_a_pause(story: Story) -> None:
    before, after = (
        {thing["id"] for thing in things if thing["name"] == "serving-ready"}
        for things in (story.before, story.resumed.after)
    )
    assert before != after, "the answer of the old nodes is no answer"


def test_after_a_pause_destroy_leaves_nothing(story: Story) -> None:
    succeed(story.destroyed.result)
    assert names(story.destroyed.after) == []


def test_a_stack_may_begin_paused_and_is_destroyed_without_ever_having_had_a_gpu(start: StartLife) -> None:
    life = start()
    life.edit({"hardware.paused": True})
    up = succeed(life.up())
    assert "paused: $" in said(up), "what it costs meanwhile is said"
    assert life.gpu_hours_began() == []
    assert [job["extra"]["phase"] for job in life.exists("Job", "weights-job")] == ["complete"]
    succeed(life.destroy())
    assert names(life.session.cloud_objects()) == []
