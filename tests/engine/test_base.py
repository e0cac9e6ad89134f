"""A base and two model stacks on it, on the real engine: they come, stand beside each other, and go; the base goes last."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.edits import Edit, edited, record
from ops.effects import effects
from rehearsal.session import Result

from .conftest import StartLife
from .life import ENGINE_WORDS as WORDS
from .life import RECIPE, Life, Row, faults_file, names, said, succeed

pytestmark = pytest.mark.engine

ON_BASE = {"foundation": {"kind": "base"}}
SECOND = "second"
SMALLER = {
    "mode": "agg",
    "workers": {"worker": {"replicas": 4, "tensor_parallel": 2}},
    "router": {"mode": "round-robin"},
}
"""The second stack's layout: another one, so that one stack's nodes are not mistaken for the other's."""


def begin(start: StartLife, **how: Any) -> tuple[Life, Life, Life]:
    """The base and two stacks on it, none of them up. The second has the first one's file and another layout."""
    first = start(**how)
    session = first.session
    base = Life(session, "base")
    first.edit(ON_BASE)
    settings = yaml.safe_load(first.file.read_text(encoding="utf-8"))
    settings["config"][RECIPE] |= SMALLER | {"engine_tuning": {}}
    (session.project / "stacks" / f"Pulumi.{SECOND}.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    session.run(["stack", "init", SECOND]).expect("make the second stack")
    return base, first, Life(session, SECOND)


def release(life: Life) -> subprocess.CompletedProcess[str]:
    """The command, as a user runs it in the project's folder."""
    command = [sys.executable, "-m", "ops", "release-base", "base"]
    session = life.session
    return subprocess.run(command, cwd=session.project, env=session.env, capture_output=True, text=True, check=False)


def things(life: Life) -> list[str]:
    return names(life.session.cloud_objects())


@dataclass
class Story:
    """What each command said, and what existed after it."""

    results: dict[str, Result] = field(default_factory=dict)
    after: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    released: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    state: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, chapter: str, life: Life, *command: str) -> None:
        seq = life.seq()
        self.results[chapter] = life.run(*command)
        self.after[chapter] = life.session.cloud_objects()
        self.rows[chapter] = life.journal(since=seq)

    def took(self, chapter: str, name: str) -> float:
        row = next(row for row in self.rows[chapter] if row["name"] == name and row["op"] == "create")
        return float(row["end"] - row["start"])


UNCHANGED = {"same", "read"}
"""A StackReference is read again where the other stack's outputs are others."""
UP, DESTROY, SAME = (
    ("up", "--yes", "--skip-preview"),
    ("destroy", "--yes", "--skip-preview"),
    ("preview", "--expect-no-changes"),
)


@pytest.fixture(scope="module")
def story(start_for_module: StartLife) -> Story:
    told = Story()
    base, first, second = begin(start_for_module, clock="events")
    told.tell("base up", base, *UP)
    told.tell("first up", first, *UP)
    told.tell("second up", second, *UP)
    for name, life in (("base", base), ("first", first), ("second", second)):
        told.tell(f"{name} same", life, *SAME)
    told.tell("base destroy refused", base, *DESTROY)
    told.released["both on it"] = release(base)
    told.tell("first destroy", first, *DESTROY)
    told.released["one on it"] = release(base)
    told.tell("second same again", second, *SAME)
    told.tell("base same again", base, *SAME)
    told.tell("second destroy", second, *DESTROY)
    told.tell("base destroy still refused", base, *DESTROY)
    told.released["none on it"] = release(base)
    told.tell("base destroy", base, *DESTROY)
    told.state = [one for life in (base, first, second) for one in life.session.resources(life.stack)]
    return told


def graphs(objects: list[dict[str, Any]]) -> dict[str, str]:
    return {one["id"]: one["extra"]["state"] for one in objects if one["type"].endswith(":DynamoGraphDeployment")}


@pytest.mark.parametrize(
    "chapter", ["base up", "first up", "second up", "first destroy", "second destroy", "base destroy"]
)
def test_each_comes_and_goes(story: Story, chapter: str) -> None:
    succeed(story.results[chapter])


def test_two_stacks_serve_beside_each_other(story: Story) -> None:
    ready = {"qwen3-32b-disagg/qwen3-32b-disagg": "successful", f"{SECOND}/{SECOND}": "successful"}
    assert graphs(story.after["second up"]) == ready
    assert not [row for row in story.rows["second up"] if row["type"] in ("graph-not-ready", "node-terminated")], (
        "the second must not disturb the first"
    )


def test_they_share_no_node(story: Story) -> None:
    placed: dict[str, set[str]] = {}
    for one in story.after["second up"]:
        if one["type"].rpartition(":")[2] in ("DynamoGraphDeployment", "Release"):
            owner = one["id"].split("/")[0]
            placed.setdefault(owner, set()).update(one["extra"].get("placed", {}).values())
    first, second = placed["qwen3-32b-disagg"], placed[SECOND]
    assert len(first) == 3, "two GPU nodes and one for the frontend"
    assert len(second) == 2, "one GPU node and one for the frontend"
    assert not first & second
    assert not placed["dynamo-system"] & (first | second), "the operator is on the base's nodes"


def test_the_second_stack_finds_the_weights_and_only_verifies_them(story: Story) -> None:
    assert story.took("first up", "weights-job") > 180, "it downloads"
    assert story.took("second up", "weights-job") < 60, "minutes of download, and of dollars for EFS, for what is there"


def test_a_stack_on_a_base_is_up_sooner_than_a_cluster_is_made(story: Story) -> None:
    def minutes(chapter: str) -> float:
        rows = story.rows[chapter]
        return float(max(row["end"] for row in rows) - min(row["start"] for row in rows)) / 60

    assert minutes("base up") > 12
    assert minutes("second up") < 30
    ready = next(row for row in story.rows["second up"] if row["name"] == "gpu-nodes" and row["op"] == "create")
    begun = min(row["start"] for row in story.rows["second up"])
    assert (ready["start"] - begun) / 60 < 5, "GPU nodes are asked for within minutes"


@pytest.mark.parametrize("chapter", ["base same", "first same", "second same", "second same again", "base same again"])
def test_nothing_that_is_up_wants_to_change(story: Story, chapter: str) -> None:
    assert set(succeed(story.results[chapter]).changes) <= UNCHANGED, said(story.results[chapter])


def identities(objects: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(one["type"], one["id"]) for one in objects}


def test_after_the_first_is_destroyed_the_rest_is_as_without_it(story: Story) -> None:
    assert [one["urn"] or one["id"] for one in story.after["first destroy"] if "qwen3-32b-disagg" in str(one)] == [], (
        "whatever stays of it is paid for by somebody who does not know of it"
    )
    assert graphs(story.after["first destroy"]) == {f"{SECOND}/{SECOND}": "successful"}
    assert identities(story.after["base up"]) <= identities(story.after["first destroy"]), "the base is untouched"


def test_only_the_base_is_left_when_both_are_gone(story: Story) -> None:
    assert identities(story.after["second destroy"]) == identities(story.after["base up"])
    (files,) = (one for one in story.after["second destroy"] if one["type"].endswith(":FileSystem"))
    assert files["extra"]["weights"], "the weights stay"


def test_gpu_nodes_go_first_and_the_namespace_takes_the_rest(story: Story) -> None:
    gone = [row for row in story.rows["first destroy"] if row["op"] == "delete"]
    assert gone[0]["name"] == "gpu-nodes", "nothing may hold up what is paid for by the hour"
    when = {row["name"]: row for row in gone}
    inside = {name for name, row in when.items() if row["type"].startswith("kubernetes:")}
    volumes = {f"caches-{purpose}-volume" for purpose in ("model", "compilation", "perf")}
    assert inside == volumes | {"caches-namespace", "caches-class"}
    for earlier, later in (
        ("gpu-nodes", "caches-namespace"),
        ("caches-namespace", "caches-model-volume"),
        ("caches-namespace", "cpu-nodes"),
    ):
        assert when[earlier]["end"] <= when[later]["start"], f"{later} went before {earlier} was gone"


@pytest.mark.parametrize("chapter", ["base destroy refused", "base destroy still refused"])
def test_a_base_is_not_destroyed_while_it_is_protected(story: Story, chapter: str) -> None:
    assert not story.results[chapter].ok
    assert "because it is protected" in said(story.results[chapter])
    assert [row for row in story.rows[chapter] if row["op"] == "delete"] == [], (
        "the engine goes on past protected resources"
    )


@pytest.mark.parametrize(
    ("when", "named", "others"),
    [("both on it", {"qwen3-32b-disagg", SECOND}, set()), ("one on it", {SECOND}, {"qwen3-32b-disagg"})],
)
def test_a_base_is_not_released_while_a_stack_is_on_it(
    story: Story, when: str, named: set[str], others: set[str]
) -> None:
    refused = story.released[when]
    assert refused.returncode == 1
    assert all(f"pulumi destroy -s {name}" in refused.stderr for name in named), refused.stderr
    assert not any(name in refused.stderr for name in others), "a stack that is gone needs no mention"
    assert "Traceback" not in refused.stderr


def test_a_released_base_is_destroyed_and_nothing_is_left(story: Story) -> None:
    assert story.released["none on it"].returncode == 0, story.released["none on it"].stderr
    assert story.after["base destroy"] == []
    assert story.state == []


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────────


def up(*lives: Life) -> None:
    for life in lives:
        succeed(life.up())


def running_gpus(life: Life) -> int:
    return sum(bool(node["extra"]["gpus"]) for node in life.exists("Instance"))


def test_a_stack_whose_base_is_not_up_is_refused_before_anything_is_made(start: StartLife) -> None:
    _base, first, _second = begin(start)
    failed = first.up()
    assert not failed.ok
    assert "base" in said(failed)
    assert "Traceback" not in said(failed)
    assert first.journal("create") == []


@pytest.mark.parametrize("command", [("preview",), UP], ids=["preview", "up"])
def test_a_file_that_says_something_else_than_what_runs_is_refused_before_anything_changes(
    start: StartLife, command: tuple[str, ...]
) -> None:
    base, first, second = begin(start)
    base.edit({"versions": {"kubernetes": "1.34"}})
    up(base, first)
    base.edit({"versions": {"kubernetes": "1.35"}})
    first.edit({"hardware.root_disk_gib": 300})
    seq = first.seq()
    for life in (first, second):
        failed = life.run(*command)
        assert not failed.ok
        text = said(failed)
        assert "kubernetes: runs 1.34, planned 1.35" in text
        assert "`pulumi up -s base` first" in text
        assert "Traceback" not in text, "an answer is no crash"
    assert [row for row in first.journal(since=seq) if row["op"] != "event"] == [], (
        "half of an update is worse than none"
    )


@pytest.mark.slow
def test_an_edit_of_the_base_that_is_in_place_leaves_stacks_alone(start: StartLife) -> None:
    base, first, _second = begin(start)
    up(base, first)
    base.edit({"hardware": {"cpu": {"nodes": 3}}, "owner": "me@example.com"})
    up(base)
    assert set(succeed(first.run("preview", "--expect-no-changes")).changes) <= UNCHANGED


@pytest.mark.slow
def test_an_edit_that_would_replace_a_base_is_refused(start: StartLife) -> None:
    base, _first, _second = begin(start)
    up(base)
    before = things(base)
    base.edit({"access.zone_id": "use2-az2"})
    failed = base.up()
    assert not failed.ok
    assert "marked for protection" in said(failed)
    assert things(base) == before


@pytest.mark.slow
def test_a_base_whose_nodes_failed_is_released_and_made_again(start: StartLife, tmp_path: Path) -> None:
    fault = {"type": "NodeGroup", "when": "after", "error": "InsufficientInstanceCapacity"}
    base, first, _second = begin(start, faults=faults_file(tmp_path, fault))
    assert not base.up().ok
    assert not base.up().ok, "EKS never mends such a group, and the replacement is refused"
    released = release(base)
    assert released.returncode == 0, released.stderr
    up(base, first)


@pytest.mark.slow
def test_another_deployment_id_takes_the_stack_down_and_up_again_beside_the_base(start: StartLife) -> None:
    base, first, _second = begin(start)
    up(base)
    before = identities(base.session.cloud_objects())
    up(first)
    seq = first.seq()
    first.edit({"deployment_id": "two"})
    up(first)
    gone = [row["name"] for row in first.journal("delete", since=seq)]
    assert gone[0] == "gpu-nodes"
    assert "caches-namespace" in gone
    assert "serving-graph" not in gone, "it went with its namespace"
    assert list(graphs(first.session.cloud_objects()).values()) == ["successful"]
    assert set(succeed(first.run("preview", "--expect-no-changes")).changes) <= UNCHANGED
    succeed(first.destroy())
    assert identities(base.session.cloud_objects()) == before


def test_gpus_are_gone_also_where_the_namespace_does_not_want_to(start: StartLife, tmp_path: Path) -> None:
    fault = {"op": "delete", "type": "Namespace", "error": "the server is currently unable to handle the request"}
    base, first, _second = begin(start, faults=faults_file(tmp_path, fault))
    up(base, first)
    failed = first.destroy()
    assert not failed.ok
    assert running_gpus(first) == 0, "a finalizer or an API server must not cost $110 an hour"
    assert release(base).returncode == 1, "a stack that is half destroyed is still on the base"
    succeed(first.destroy())
    assert not [one for one in first.session.cloud_objects() if "qwen3-32b-disagg" in str(one)]


@pytest.mark.slow
def test_objects_that_are_there_already_are_never_adopted(start: StartLife) -> None:
    """As with a state that was lost, or a stack of that name in another backend: they are somebody's who is not asked."""
    base, first, _second = begin(start)
    up(base, first)
    session, before = first.session, things(first)
    session.run(["stack", "rm", "--force", "--yes", "--preserve-config", first.stack]).expect("lose the state")
    session.run(["stack", "init", first.stack]).expect("make the stack again")
    seq = first.seq()
    failed = first.up()
    assert not failed.ok
    assert "already exists" in said(failed)
    assert things(first) == before
    assert first.journal("update", since=seq) == []


# What `ops diff` says of a stack on a base

ON_BASE_EDITS: dict[str, Edit] = {
    "more pods": {"workers.prefill.replicas": 5},
    "other GPUs": {"hardware.gpu": "h200", "budget.usd_per_hour": 200},
    "another mode": {"mode": "agg", "workers": {"worker": {"replicas": 8, "tensor_parallel": 2}}},
    "another name": {"deployment_id": "two"},
    "no base any more": {"foundation": {"kind": "created"}},
}


@pytest.mark.slow
def test_ops_diff_says_of_a_stack_on_a_base_what_the_engine_would_do(start: StartLife) -> None:
    base, first, _ = begin(start)
    succeed(base.up())
    succeed(first.up())
    recipes = {
        life.stack: yaml.safe_load(life.file.read_text(encoding="utf-8"))["config"][RECIPE] for life in (base, first)
    }
    edits = {"": {}, **ON_BASE_EDITS}
    jobs = [
        {"key": name, "stack": first.stack, "recipe": edited(recipes[first.stack], edit)}
        for name, edit in edits.items()
    ]
    recorded = record(jobs, recipes=recipes)["recordings"]
    for name, edit in ON_BASE_EDITS.items():
        said = {
            one.name: WORDS[one.what]
            for one in effects(recorded[""]["resources"], recorded[name]["resources"]).values()
        }
        with first.edited(edit):
            steps = first.preview()
        real = {
            urn.rpartition("::")[2] for urn in steps.urns() if re.search(r"[$:](aws|kubernetes):[^:]+:\w+::[^:]+$", urn)
        }
        assert {one: steps.what(one) for one in real} == said, name
