"""A state after a crash: what is put into it, what is taken out, whose lock it was, and what mends a broken file. No engine, no account."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from ops import state
from ops.things import Thing
from recipe.config import PROJECT

STACK = "a-stack"
NAT = "aws:ec2/natGateway:NatGateway"
ATTACHMENT = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"


def urn(typ: str, name: str) -> str:
    return f"urn:pulumi:{STACK}::{PROJECT}::{typ}::{name}"


def resource(typ: str, name: str, made: str | None = None, **more: Any) -> dict[str, Any]:
    found = {"urn": urn(typ, name), "type": typ, "custom": True, "inputs": {}, **more}
    return found | ({"id": made} if made else {})


def exported(*resources: dict[str, Any], pending: tuple[tuple[str, dict[str, Any]], ...] = ()) -> dict[str, Any]:
    operations = [{"type": op, "resource": one} for op, one in pending]
    return {"version": 3, "deployment": {"resources": list(resources), "pending_operations": operations}}


# What was under way


def test_a_create_whose_thing_was_found_stands_in_the_state_with_its_id() -> None:
    nat = resource(NAT, "nat", inputs={"subnetId": "subnet-1"})
    after = state.settled(exported(pending=(("creating", nat),)), {nat["urn"]: "nat-1"})
    found = state.resources(after)
    assert [(one["urn"], one["id"]) for one in found] == [(nat["urn"], "nat-1")]
    assert found[0]["outputs"] == {"subnetId": "subnet-1", "id": "nat-1"}, (
        "the provider reads some things by more than their id"
    )
    assert not state.pending(after), "or the next command warns for ever"


def test_a_create_of_which_nothing_came_is_forgotten() -> None:
    after = state.settled(exported(pending=(("creating", resource(NAT, "nat")),)), {})
    assert not state.resources(after)
    assert not state.pending(after)


def test_what_was_made_again_meanwhile_does_not_stand_there_twice() -> None:
    second = resource(NAT, "nat", "nat-2")
    after = state.settled(exported(second, pending=(("creating", resource(NAT, "nat")),)), {second["urn"]: "nat-1"})
    assert [one["id"] for one in state.resources(after)] == ["nat-2"], (
        "two resources of one name make the state unreadable"
    )


def test_the_exported_state_itself_is_left_as_it_was() -> None:
    before = exported(pending=(("creating", resource(NAT, "nat")),))
    copy = json.dumps(before)
    state.settled(before, {urn(NAT, "nat"): "nat-1"})
    assert json.dumps(before) == copy, "it is what is written back when the providers cannot be asked"


def test_only_what_stands_in_the_state_can_be_refreshed() -> None:
    deleting, gone = resource(NAT, "going", "nat-1"), resource(NAT, "never")
    before = exported(deleting, pending=(("deleting", deleting), ("creating", gone)))
    assert state.refreshable(state.settled(before, {}), state.pending(before)) == [deleting["urn"]]


@pytest.mark.parametrize(
    ("typ", "inputs", "made"),
    [
        ("kubernetes:batch/v1:Job", {"metadata": {"name": "job", "namespace": "ns"}}, "ns/job"),
        ("kubernetes:core/v1:Namespace", {"metadata": {"name": "ns"}}, "ns"),
        ("kubernetes:helm.sh/v3:Release", {"name": "platform", "namespace": "dynamo"}, "dynamo/platform"),
        ("kubernetes:core/v1:Secret", {"metadata": {}}, None),
    ],
)
def test_an_object_is_called_what_the_provider_calls_it(typ: str, inputs: dict[str, Any], made: str | None) -> None:
    assert state.object_id({"type": typ, "inputs": inputs}) == made


# What is known


def test_a_second_one_of_the_same_tags_is_not_known() -> None:
    tags = {"Name": "nat", "stack": STACK}
    first = resource(NAT, "nat", "nat-1", inputs={"subnetId": "subnet-1", "tags": tags})
    known = state.Known(exported(first))
    assert Thing(NAT, "nat-1", {"subnetId": "subnet-1", "tags": tags}) in known
    assert Thing(NAT, "nat-2", {"subnetId": "subnet-1", "tags": tags}) not in known, "it is paid for twice"


def test_what_can_exist_only_once_is_known_whatever_its_id() -> None:
    inputs = {"role": "node", "policyArn": "arn:aws:iam::aws:policy/P"}
    known = state.Known(exported(resource(ATTACHMENT, "policy", "node-20260101", inputs=inputs)))
    assert Thing(ATTACHMENT, "node/arn:aws:iam::aws:policy/P", inputs) in known, (
        "a sweep would take a policy off a role in use"
    )
    assert Thing(ATTACHMENT, "other", inputs | {"role": "other"}) not in known


def test_a_state_of_components_only_knows_nothing_that_exists() -> None:
    assert not state.Known(exported({"urn": urn("x:y:Z", "c"), "type": "x:y:Z"}))
    assert not state.Known(None)


# A cluster that is gone


def test_objects_of_a_lost_cluster_go_with_every_reference_to_them() -> None:
    job = resource("kubernetes:batch/v1:Job", "job", "ns/job")
    group = resource("aws:eks/nodeGroup:NodeGroup", "gpu", "c:gpu", dependencies=[job["urn"], urn(NAT, "nat")],
                     propertyDependencies={"a": [job["urn"]], "b": None}, deletedWith=job["urn"])  # fmt: skip
    before = exported(job, group)
    left = state.resources(state.without(before, state.in_cluster(before)))
    assert [one["urn"] for one in left] == [group["urn"]]
    assert job["urn"] not in json.dumps(left), "a reference to what is not there makes the state invalid"
    assert left[0]["dependencies"] == [urn(NAT, "nat")]


# The file backend


def checkpoint(folder: Path, name: str, content: str) -> Path:
    file = folder / "stacks" / PROJECT / f"{STACK}.json{name}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def test_an_empty_metadata_file_is_removed_and_the_state_stays(tmp_path: Path) -> None:
    kept, empty = checkpoint(tmp_path, "", '{"version": 3}'), checkpoint(tmp_path, ".attrs", "")
    found = state.damage(tmp_path, STACK)
    assert len(found) == 1
    found[0].mend()
    assert kept.exists()
    assert not empty.exists()
    assert state.damage(tmp_path, STACK) == []


def test_a_truncated_state_is_replaced_by_the_one_before_it_and_kept(tmp_path: Path) -> None:
    torn = checkpoint(tmp_path, "", '{"version": 3, "chec')
    checkpoint(tmp_path, ".bak", '{"version": 3}')
    (found,) = state.damage(tmp_path, STACK)
    found.mend()
    assert json.loads(torn.read_text(encoding="utf-8")) == {"version": 3}
    assert torn.with_name(f"{torn.name}.broken").exists(), "nothing is thrown away before somebody has looked"


def test_a_full_disk_while_mending_leaves_the_state_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = checkpoint(tmp_path, "", '{"version": 3, "chec')
    checkpoint(tmp_path, ".bak", '{"version": 3}')
    (found,) = state.damage(tmp_path, STACK)
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if data == b'{"version": 3}':
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        found.mend()
    assert torn.exists(), "without the file there would be no such stack, and nobody would notice"
    assert len(state.damage(tmp_path, STACK)) == 1, "so it can be mended again"


def test_a_state_without_a_readable_copy_is_not_guessed(tmp_path: Path) -> None:
    checkpoint(tmp_path, "", "")
    (found,) = state.damage(tmp_path, STACK)
    with pytest.raises(OSError, match="both no JSON"):
        found.mend()


def test_a_sound_state_is_left_alone(tmp_path: Path) -> None:
    checkpoint(tmp_path, "", "{}")
    checkpoint(tmp_path, ".attrs", "{}")
    assert state.damage(tmp_path, STACK) == []
    assert state.damage(tmp_path / "none", STACK) == []


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("file:///data/state?metadata=skip", Path("/data/state/.pulumi")),
        ("file://~", Path.home() / ".pulumi"),
        ("file:///a%20b", Path("/a b/.pulumi")),
        ("s3://bucket?region=us-east-2", None),
        ("https://api.pulumi.com", None),
    ],
)
def test_only_a_file_backend_has_a_folder(url: str, folder: Path | None) -> None:
    assert state.backend_folder(url) == folder


def lock(folder: Path, pid: int, host: str) -> None:
    file = folder / "locks" / "organization" / PROJECT / STACK / f"{pid}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"pid": pid, "username": "me", "hostname": host, "timestamp": "2026-11-25T09:00:07Z"}
    file.write_text(json.dumps(content), encoding="utf-8")


def test_whether_the_holder_of_a_lock_still_works_is_looked_at_and_not_guessed_for_another_machine(
    tmp_path: Path,
) -> None:
    lock(tmp_path, 2**22 + 1, socket.gethostname())
    assert [one.alive for one in state.locks(tmp_path, STACK)] == [False]
    lock(tmp_path, os.getpid(), "elsewhere")
    assert None in [one.alive for one in state.locks(tmp_path, STACK)]


def test_a_process_that_only_got_the_number_of_the_holder_holds_nothing(tmp_path: Path) -> None:
    lock(tmp_path, os.getpid(), socket.gethostname())
    assert [one.alive for one in state.locks(tmp_path, STACK)] == [False], "this is a test, and no pulumi"
