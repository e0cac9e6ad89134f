"""What an edit of the recipe does to a stack that runs: docs/edits.md, row by row, and the edits that replace something, to their end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from ops.edits import BEFORE, EDITS, REMOVED, Edit, all_effects, cells, line
from ops.effects import Effect
from rehearsal.session import ROOT, Result

from .conftest import StartLife
from .life import ENGINE_WORDS, Life, Row, names, succeed

pytestmark = pytest.mark.engine

DOCUMENT = ROOT / "docs" / "edits.md"
FIXED_NAMES = ("gpu-nodes", "cpu-nodes", "cluster-eks", "cluster-logs", "cluster-role", "cluster-node-role", "files-driver-role",
               "files-efs", "gpu-template", "cpu-template", "gpu-placement", "files-group", "serving-graph", "weights-job",
               "serving-ready", "caches-model-volume", "caches-model-claim")  # fmt: skip


@pytest.fixture(scope="module")
def running(start_for_module: StartLife) -> Life:
    """A stack that is up; previews leave it as it is."""
    life = start_for_module()
    life.edit(BEFORE)
    succeed(life.up())
    return life


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, Effect]]:
    """What `ops diff` says of each edit."""
    return all_effects()


@pytest.mark.parametrize("label", EDITS)
def test_an_edit_does_what_the_document_says(running: Life, expected: dict[str, dict[str, Effect]], label: str) -> None:
    said = expected[label]
    row = line((label, *cells(said)))
    assert row in DOCUMENT.read_text(encoding="utf-8").splitlines(), f"docs/edits.md needs the line\n{row}"
    with running.edited(EDITS[label]):
        steps = running.preview()
    real = {urn.rpartition("::")[2] for urn in steps.urns() if _type(urn).startswith(("aws:", "kubernetes:"))}
    assert {name: steps.what(name) for name in real} == {name: ENGINE_WORDS[one.what] for name, one in said.items()}, (
        "what `ops diff` tells a reviewer is not what the engine would do"
    )
    for name in FIXED_NAMES:
        if steps.what(name) == "replace":
            ops = [step["op"] for step in steps.raw if step["urn"].endswith(f"::{name}")]
            assert ops.index("delete-replaced") < ops.index("create-replacement"), (
                f"{name}: two of a name collide: {ops}"
            )


def _type(urn: str) -> str:
    return urn.split("::")[2].rpartition("$")[2]


# To the end, one after the other on one stack


@dataclass
class Done:
    """What an edit did: what the command said and what happened in the cloud."""

    result: Result
    rows: list[Row]
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]

    def did(self, name: str) -> list[str]:
        return [row["op"] for row in self.rows if row["name"] == name and row["op"] != "event"]

    def when(self, op: str, name: str) -> Row:
        return next(row for row in self.rows if (row["op"], row["name"]) == (op, name))


STORY: dict[str, Edit] = {
    "owner and time to live": {"owner": "me@example.com", "budget.ttl_hours": 12},
    "storage size": {"storage": {"model_gib": 200}},
    "node image": {"hardware.ami_release": "1.35.9-20261001"},
    "revision": {"weights.revision": "0" * 40},
    "aggregated": {"mode": "agg", "workers": {"worker": {"replicas": 8, "tensor_parallel": 2}}},
    "other GPUs": {"hardware.gpu": "h200", "hardware.ami_release": REMOVED, "budget.usd_per_hour": 200},
    "capacity block": {
        "hardware.capacity": {"kind": "capacity-block", "reservation_id": "cr-0123456789abcdef1"},
        "hardware.instance_type": "p5en.48xlarge",
    },
    "other zone": {"access.zone_id": "use2-az2"},
    "other name": {"deployment_id": "two"},
    "other range": {"access.vpc_cidr": "172.20.0.0/16"},
}


@pytest.fixture(scope="module")
def story(start_for_module: StartLife) -> dict[str, Done]:
    life, told = start_for_module(), {}
    succeed(life.up())
    for chapter, edit in STORY.items():
        seq, before = life.seq(), life.session.cloud_objects()
        life.edit(edit)
        result = life.up()
        told[chapter] = Done(result, life.journal(since=seq), before, life.session.cloud_objects())
    told["unchanged"] = Done(life.up("--expect-no-changes"), [], [], [])
    told["destroyed"] = Done(life.destroy(), [], [], life.session.cloud_objects())
    return told


@pytest.mark.slow
@pytest.mark.parametrize("chapter", STORY)
def test_an_edited_stack_serves_again(story: dict[str, Done], chapter: str) -> None:
    succeed(story[chapter].result)
    graph = [thing for thing in story[chapter].after if thing["type"].endswith(":DynamoGraphDeployment")]
    assert [thing["extra"]["state"] for thing in graph] == ["successful"]
    assert not [row for row in story[chapter].rows if row["type"] == "node-group-degraded"], (
        "nodes lost their control plane"
    )


@pytest.mark.slow
def test_after_all_edits_nothing_is_left_to_change_and_destroy_leaves_nothing(story: dict[str, Done]) -> None:
    succeed(story["unchanged"].result)
    succeed(story["destroyed"].result)
    assert names(story["destroyed"].after) == []


@pytest.mark.slow
@pytest.mark.parametrize("chapter", ["owner and time to live", "storage size", "revision", "aggregated"])
def test_gpu_nodes_keep_running(story: dict[str, Done], chapter: str) -> None:
    ended = [row for row in story[chapter].rows if row["type"] == "node-terminated"]
    assert ended == [], "GPU nodes that are replaced cost minutes at $110 an hour, and may not come back"


@pytest.mark.slow
def test_another_node_image_rolls_gpu_nodes_in_their_group(story: dict[str, Done]) -> None:
    done = story["node image"]
    assert done.did("gpu-nodes") == ["update"]
    assert sum(row["type"] == "node-terminated" for row in done.rows) == 2
    assert done.did("serving-graph") == []
    assert done.did("cpu-nodes") == [], "the CPU nodes have an image of their own"


@pytest.mark.slow
def test_another_revision_is_a_new_download_before_the_graph_changes(story: dict[str, Done]) -> None:
    done = story["revision"]
    assert done.when("create", "weights-job")["end"] <= done.when("update", "serving-graph")["start"]
    jobs = [[thing["id"] for thing in things if thing["name"] == "weights-job"] for things in (done.before, done.after)]
    assert jobs[0] != jobs[1], "a Job cannot change: its name says what it downloads"
    assert done.did("serving-graph") == ["update"], "the graph rolls, it is not deleted"


@pytest.mark.slow
def test_another_mode_replaces_the_graph_after_admission_and_asks_it_to_prove_itself(story: dict[str, Done]) -> None:
    done = story["aggregated"]
    assert done.did("serving-graph") == ["delete", "create"], "the operator refuses to change the set of components"
    assert done.when("create", "admission-job")["end"] <= done.when("delete", "serving-graph")["start"], (
        "a graph that is refused must not cost the one that serves"
    )
    assert done.when("create", "serving-ready")["start"] >= done.when("create", "serving-graph")["end"]


@pytest.mark.slow
@pytest.mark.parametrize("chapter", ["other GPUs", "capacity block"])
def test_other_gpu_nodes_come_when_the_old_ones_are_gone(story: dict[str, Done], chapter: str) -> None:
    done = story[chapter]
    assert done.did("gpu-nodes") == ["delete", "create"]
    assert done.did("cluster-eks") == []
    assert done.did("weights-job") == [], "the weights are still there"
    assert done.did("serving-ready") in (["delete", "create"], ["create", "delete"]), (
        "the answer of the old nodes is no answer"
    )


@pytest.mark.slow
@pytest.mark.parametrize("chapter", ["other zone", "other name", "other range"])
def test_another_place_is_another_cluster_with_everything_in_it(story: dict[str, Done], chapter: str) -> None:
    done = story[chapter]
    gone = [row for row in done.rows if row["op"] == "delete"]
    assert gone[0]["name"] == "gpu-nodes", "GPU nodes first"
    for outlives in ("network-nat", "network-to-nat", "network-nodes-association", "cluster-vpc-cni", "cluster-eks"):
        assert done.when("delete", "gpu-nodes")["end"] <= done.when("delete", outlives)["start"]
    inside = {row["type"].rpartition(":")[2] for row in gone if row["type"].startswith("kubernetes:")}
    assert inside <= {"Release"}, "objects went with their cluster; charts are uninstalled when GPU nodes are gone"
    assert done.when("create", "cluster-eks")["start"] >= done.when("delete", "cluster-eks")["end"]
    kinds = ("Job", "ConfigMap", "Release", "DynamoGraphDeployment", "PersistentVolumeClaim")
    for kind in kinds:
        old, new = (
            {t["urn"] for t in things if t["type"].endswith(f":{kind}")} for things in (done.before, done.after)
        )
        assert old == new, f"every {kind} is in the new cluster"
    ids = {thing["id"] for thing in done.before if thing["type"].startswith("aws:ec2/")}
    kept = [thing["name"] for thing in done.after if thing["type"].startswith("aws:ec2/") and thing["id"] in ids]
    assert all(name.startswith("gpu-placement") for name in kept), f"still of the old place: {kept}"
