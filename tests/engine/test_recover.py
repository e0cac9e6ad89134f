"""`ops recover` on the real engine: after a kill -9 at a chosen place, a plain `up` or `destroy` ends well, and nothing exists twice."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from ops import state
from ops.deployed import Pulumi
from ops.exits import CommandError
from rehearsal.cloud.faults import Faults

from .conftest import StartLife
from .crash import Crash, Forgot, refuses
from .life import Life, names, said, succeed

pytestmark = pytest.mark.engine

NO_PENDING: tuple[Any, ...] = ()


@pytest.fixture
def crash(start: StartLife) -> Crash:
    return Crash(start())


def ends_well(crash: Crash) -> None:
    """`up` and `destroy` do what they say, and nothing is left, whatever the engine knows."""
    life = crash.life
    assert state.pending(life.session.export_stack(life.stack)) == NO_PENDING
    succeed(life.up())
    assert life.exists("DynamoGraphDeployment")[0]["extra"]["state"] == "successful"
    assert len(life.exists("NatGateway")) == 1
    assert len(life.exists("NodeGroup")) == 2
    succeed(life.destroy())
    assert names(life.session.cloud_objects()) == []


def test_what_the_cloud_had_accepted_is_taken_into_the_state(crash: Crash) -> None:
    crash.kill("NatGateway", "after")
    (nat,) = crash.life.exists("NatGateway")
    done = crash.recover()
    assert nat["id"] in done.adopted.values()
    assert done.deleted == []
    found = crash.life.state("network-nat")
    assert found is not None
    assert found["id"] == nat["id"]
    assert found["outputs"]["publicIp"], "what the provider computes is in the state, too: the refresh asked for it"
    ends_well(crash)


@pytest.mark.slow
def test_what_the_cloud_had_not_accepted_is_made_by_the_next_up(crash: Crash) -> None:
    crash.kill("NatGateway", "before")
    assert not crash.life.exists("NatGateway")
    done = crash.recover()
    assert any(urn.endswith("::network-nat") for urn in done.dropped)
    ends_well(crash)


def test_gpu_nodes_that_were_being_made_are_waited_for_and_kept(start: StartLife) -> None:
    crash = Crash(start(clock="events"))
    crash.kill("NodeGroup", "after", name="gpu-nodes")
    done = crash.recover()
    assert any(made.endswith("-gpu") for made in done.adopted.values())
    (group,) = [one for one in crash.life.exists("NodeGroup") if one["id"].endswith("-gpu")]
    assert group["status"] == "ACTIVE", "an `up` on nodes that are still coming would fail"
    ends_well(crash)


def test_a_chart_that_helm_calls_pending_is_freed(crash: Crash) -> None:
    crash.kill("Release", "after", name="platform-release")
    done = crash.recover()
    assert any("dynamo-platform" in name for name in done.uninstalled)
    ends_well(crash)


@pytest.mark.slow
def test_without_recover_a_pending_chart_is_in_the_way_for_ever(crash: Crash) -> None:
    crash.kill("Release", "after", name="platform-release")
    succeed(crash.life.session.run(["cancel", "--yes", crash.life.stack]))
    assert "cannot re-use a name that is still in use" in said(crash.life.up())


def test_what_a_blind_up_made_a_second_time_is_deleted(crash: Crash) -> None:
    crash.kill("NatGateway", "after")
    succeed(crash.life.session.run(["cancel", "--yes", crash.life.stack]))
    succeed(crash.life.up())
    assert len(crash.life.exists("NatGateway")) == 2, "this is how money is lost"
    done = crash.recover()
    assert [thing.type.rpartition(":")[2] for thing in done.deleted] == ["NatGateway"]
    assert state.pending(crash.life.session.export_stack(crash.life.stack)) == NO_PENDING
    ends_well(crash)


@pytest.mark.slow
def test_a_destroy_that_was_killed_goes_on(crash: Crash) -> None:
    succeed(crash.life.up())
    crash.kill("Cluster", "after", op="delete")
    crash.recover()
    succeed(crash.life.destroy())
    assert names(crash.life.session.cloud_objects()) == []


@pytest.mark.slow
def test_after_a_killed_destroy_an_up_makes_the_cluster_anew(crash: Crash) -> None:
    succeed(crash.life.up())
    crash.kill("Cluster", "after", op="delete")
    crash.recover()
    ends_well(crash)


@pytest.mark.slow
def test_a_cluster_that_went_without_the_engine_is_no_dead_end(crash: Crash) -> None:
    succeed(crash.life.up())
    assert crash.sweep(engine=Forgot()).clean, "as if somebody had deleted everything by hand"
    crash.recover()
    assert any("is gone, and with it" in line for line in crash.said), (
        "no object in it can be asked for, and releases cannot be deleted"
    )
    ends_well(crash)


# Who may


def test_a_stack_that_is_being_worked_on_is_left_alone(crash: Crash) -> None:
    session = crash.life.session
    seen: list[str] = []
    session.tell(Faults.model_validate({"faults": [{"type": "Vpc", "hold": True}]}))

    def tick() -> None:
        if session.held() and not seen:
            with pytest.raises(CommandError, match="is being worked on: pulumi, process") as refused:
                crash.recover(engine=session_beside(crash.life))
            seen.append(str(refused.value))
            session.kill()

    crash.life.run("up", "--yes", "--skip-preview", on_tick=tick)
    assert seen, "the engine was held while recover looked"


def session_beside(life: Life) -> Any:
    """The session's pulumi for a second command while one runs."""
    env = dict(life.session.env)
    assert shutil.which("pulumi", path=env["PATH"])
    return Pulumi(life.session.project, env)


@pytest.mark.slow
def test_nobody_is_recovered_into_a_foreign_account(crash: Crash) -> None:
    crash.kill("NatGateway", "after")
    before = state.pending(crash.life.session.export_stack(crash.life.stack))
    crash.life.session.tell(Faults.model_validate({"account": {"account": "999999999999"}}))
    with pytest.raises(CommandError, match="belongs to account"):
        crash.recover()
    assert state.pending(crash.life.session.export_stack(crash.life.stack)) == before


@pytest.mark.slow
def test_what_is_not_to_be_deleted_stays_and_the_reason_why_that_matters_is_said(crash: Crash) -> None:
    crash.kill("NatGateway", "after")
    succeed(crash.life.session.run(["cancel", "--yes", crash.life.stack]))
    succeed(crash.life.up())
    assert crash.recover(confirm=refuses).deleted == []
    assert len(crash.life.exists("NatGateway")) == 2
    assert any("a second time" in line for line in crash.said)


# Files


def test_an_empty_metadata_file_that_blinds_the_engine_is_removed(start: StartLife) -> None:
    life = start()
    crash = Crash(life)
    life.session.env["PULUMI_BACKEND_URL"] = life.session.env["PULUMI_BACKEND_URL"].partition("?")[0]
    crash.kill("NatGateway", "after")
    folder = state.backend_folder(life.session.env["PULUMI_BACKEND_URL"])
    assert folder is not None
    (file,) = [path for path in folder.glob("stacks/**/*.json") if path.name == f"{life.stack}.json"]
    file.with_name(f"{file.name}.attrs").write_bytes(b"")
    blind = life.run("stack", "export")
    assert not blind.ok, "that is what the engine makes of it"
    done = crash.recover()
    assert done.repaired
    ends_well(crash)


@pytest.mark.slow
def test_what_was_under_way_is_not_forgotten_when_recover_itself_does_not_end(crash: Crash) -> None:
    crash.kill("NatGateway", "after")

    class NoRefresh:
        def run(self, args: Any, **how: Any) -> Any:
            return crash.life.session.run(["refresh", "--no-such-flag"] if args[0] == "refresh" else args, **how)

    with pytest.raises(CommandError, match="could not ask the providers"):
        crash.recover(engine=NoRefresh())
    assert state.pending(crash.life.session.export_stack(crash.life.stack)) == NO_PENDING, (
        "the engine drops them on import"
    )
    assert crash.evidence.exists(), "so they are written down: nobody else knows what may exist"
    crash.recover()
    assert not crash.evidence.exists()
    found = crash.life.state("network-nat")
    assert found is not None
    assert found["outputs"]["publicIp"], "the refresh was made up for"
    ends_well(crash)
