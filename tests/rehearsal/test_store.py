"""The store on disk: whole or not at all, without secrets, the same after a restart. And the faults file."""

from __future__ import annotations

import base64
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from rehearsal.clock import ManualClock
from rehearsal.cloud import Cloud, CloudError, Fault, Faults
from rehearsal.cloud import rules as r

from .conftest import Start
from .world import World

TOKEN = "hf_abcdefGHIJKL0123456789"  # not one


def _written(world: World) -> str:
    return "".join(p.read_text(encoding="utf-8") for p in world.cloud.store.folder.iterdir())


def test_no_secret_value_is_ever_written(before_gpus: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    world = before_gpus()
    seen: list[str] = []
    replace = os.replace

    def watch(source: str, target: str) -> None:
        seen.append(Path(source).read_text(encoding="utf-8"))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    world.kube(
        r.SECRET,
        "token",
        "token",
        stringData={"HF_TOKEN": TOKEN, "pin": "123"},
        data={"B": base64.b64encode(b"other-secret").decode()},
    )
    world.kube(r.CONFIG_MAP, "leak", "leak", data={"oops": f"token={TOKEN}"})
    world.change("token", **{**world.made["token"][2], "stringData": {"HF_TOKEN": TOKEN + "2"}})
    text = _written(world) + "".join(seen)
    for secret in (
        TOKEN,
        base64.b64encode(TOKEN.encode()).decode(),
        "other-secret",
        base64.b64encode(b"other-secret").decode(),
        '"123"',
    ):
        assert secret not in text, f"{secret} is on disk"
    assert world.out("token")["stringData"] == {"HF_TOKEN": TOKEN + "2"}, "the engine still gets the real value"


def test_a_secret_named_by_the_caller_is_not_written_either(before_gpus: Start) -> None:
    world = before_gpus()
    world.cloud.protect(TOKEN)
    world.refused(r.CONFIG_MAP, "x", metadata={"name": "x", "namespace": TOKEN}, data={})
    assert TOKEN not in _written(world)


def test_a_secret_read_back_after_a_restart_shows_no_change(before_gpus: Start, tmp_path: Path) -> None:
    world = before_gpus()
    world.kube(r.SECRET, "token", "token", stringData={"HF_TOKEN": TOKEN})
    other = world.copy(tmp_path / "again")
    typ, made, inputs, _ = other.made["token"]
    found = other.cloud.read(typ, made)
    assert found is not None
    assert TOKEN not in json.dumps(found[1])
    assert not other.cloud.diff(typ, made, found[1], found[2], inputs).changes


def test_a_restart_changes_nothing(whole: Start, tmp_path: Path) -> None:
    world = whole()
    other = world.copy(tmp_path / "again")
    assert other.clock.now() == world.clock.now(), "virtual time goes on where it was"
    assert other.cloud.left() == world.cloud.left()
    assert other.cloud.timeline() == world.cloud.timeline()
    assert other.cloud.gpu_time() == world.cloud.gpu_time()


def test_what_the_cloud_accepted_exists_though_its_caller_died(empty: World, tmp_path: Path) -> None:
    empty.network()
    role = empty.role("cluster-role", "AmazonEKSClusterPolicy")

    class Killed(BaseException):
        pass

    def die(_seconds: float) -> None:
        raise Killed

    empty.clock.wait = die  # type: ignore[method-assign, assignment]
    with pytest.raises(Killed):
        empty.make(
            r.CLUSTER,
            "cluster",
            name="q",
            roleArn=role,
            vpcConfig={"subnetIds": [empty.id("nodes"), empty.id("second")]},
        )
    other = empty.copy(tmp_path / "again")
    assert other.cloud.read(r.CLUSTER, "q"), "the orphan is in the cloud, and in nobody's state"
    assert "already exists" in other.refused(
        r.CLUSTER, "cluster", name="q", roleArn=role, vpcConfig={"subnetIds": [other.id("nodes"), other.id("second")]}
    )


def test_ids_look_real_and_are_the_same_in_every_run(tmp_path: Path) -> None:
    first, second = World(tmp_path / "a").network(), World(tmp_path / "b").network()
    assert [first.id(n) for n in first.made] == [second.id(n) for n in second.made]
    assert first.id("vpc").startswith("vpc-0")
    assert len(first.id("vpc")) == len("vpc-0a1b2c3d4e5f67890")


def test_the_journal_has_a_line_for_every_operation(empty: World) -> None:
    empty.network()
    empty.refused(r.NAT, "broken", subnetId="subnet-none")
    lines = [json.loads(line) for line in (empty.cloud.store.folder / "journal.jsonl").read_text().splitlines()]
    assert {"seq", "start", "end", "op", "type", "name", "urn", "id", "outcome", "message"} <= lines[0].keys()
    assert [e["seq"] for e in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["outcome"] == "refused"
    assert "InvalidSubnetID.NotFound" in lines[-1]["message"]


def test_a_torn_last_line_of_the_journal_does_not_hide_the_others(empty: World) -> None:
    empty.network()
    file = empty.cloud.store.folder / "journal.jsonl"
    with file.open("a") as journal:
        journal.write('{"seq": 99, "op"')
    again = Cloud(empty.cloud.store.folder, ManualClock())
    assert len(again.timeline()) == len(empty.cloud.timeline())


def test_a_full_disk_is_said_plainly_and_leaves_the_old_snapshot(empty: World, monkeypatch: pytest.MonkeyPatch) -> None:
    empty.network()
    before = (empty.cloud.store.folder / "cloud.json").read_text()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CloudError, match=r"No space left on device; free space and repeat the command"):
        empty.make(r.EIP, "another", domain="vpc")
    assert (empty.cloud.store.folder / "cloud.json").read_text() == before
    assert not list(empty.cloud.store.folder.glob(".cloud-*")), "nothing half written stays"


def test_a_broken_snapshot_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "cloud.json").write_text("{")
    with pytest.raises(CloudError, match="remove the folder to start afresh"):
        Cloud(tmp_path, ManualClock())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ('{"faults": [{"op": "destroy", "type": "Cluster"}]}', "faults.0.op"),
        ('{"faults": [{"type": "Cluster", "tims": 1}]}', "faults.0.tims"),
        ('{"capacity": {"p5.48xlarge": -1}}', "capacity.p5.48xlarge"),
    ],
)
def test_a_wrong_faults_file_is_refused_with_the_place(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "faults.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=says) as refused:
        Faults.load(file)
    assert str(file) in str(refused.value)


def test_a_missing_faults_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such faults file"):
        Faults.load(tmp_path / "none.json")


def test_a_fault_strikes_as_often_as_it_says_also_across_a_restart(empty: World, tmp_path: Path) -> None:
    faults = Faults(faults=(Fault(type="Vpc", error="Throttling: Rate exceeded", times=2, delay_s=3),))
    world = World(tmp_path / "faulty", faults)
    assert "Throttling" in world.refused(r.VPC, "vpc", cidrBlock="10.0.0.0/16")
    assert world.clock.now() == 3
    again = world.copy(tmp_path / "again", faults)
    assert "Throttling" in again.refused(r.VPC, "vpc", cidrBlock="10.0.0.0/16")
    again.make(r.VPC, "vpc", cidrBlock="10.0.0.0/16")
