"""Whose time is over: by creation time and tag alone, and what is done then. The engine and the account are made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ops import expiry
from ops.aws import Identity, Part, Reservation
from ops.exits import CommandError
from ops.expiry import Place, nodes_of, say_when
from ops.planning import planned
from ops.things import NODE_GROUP, Marks, Thing
from recipe.checks import PLACEHOLDER_ACCOUNT

STACK = "qwen3-32b-disagg"
PLAN = planned(STACK, []).model
HOURS = PLAN.recipe.budget.ttl_hours
MADE = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)


def group(stack: str = STACK, **tags: str) -> Thing:
    found = {**PLAN.tags, "stack": stack, **tags}
    cluster = PLAN.names.cluster
    facts = {"clusterName": cluster, "nodeGroupName": "gpu", "tags": found, "createdAt": MADE.isoformat()}
    return Thing(NODE_GROUP, f"{cluster}:{stack}-gpu", facts)


@dataclass
class FakeAccount:
    groups: list[Thing]
    number: str = PLACEHOLDER_ACCOUNT
    region: str = "us-east-2"
    pause_seconds: float = 0.0
    removed: list[str] = field(default_factory=list)

    def identity(self) -> Identity:
        return Identity(self.number, "arn")

    def gpu_groups(self) -> tuple[Thing, ...]:
        return tuple(self.groups)

    def things(self, marks: Marks) -> tuple[Thing, ...]:
        return tuple(one for one in self.groups if marks.on(one.facts["tags"]))

    def remove(self, thing: Thing) -> None:
        self.removed.append(thing.id)
        self.groups.remove(thing)

    def reservation(self, reservation_id: str) -> Reservation | None:
        return None

    def cluster(self, name: str) -> Part | None:
        return Part(name, "ACTIVE")

    def now(self) -> datetime:
        return MADE


@dataclass(frozen=True)
class Ran:
    ok: bool
    stdout: str = ""
    stderr: str = ""


@dataclass
class FakeEngine:
    """Knows the stack or not; its destroy takes the account's node groups away or fails."""

    account: FakeAccount
    knows: bool = True
    destroys: bool = True
    says: str = "no"
    unreadable: bool = False
    asked: list[Sequence[str]] = field(default_factory=list)

    def run(self, args: Sequence[str], **_how: Any) -> Ran:
        self.asked.append(args)
        if list(args[:2]) == ["stack", "export"] and self.unreadable:
            return Ran(False, stderr="error: incorrect passphrase")
        if list(args[:2]) == ["stack", "export"]:
            empty = '{"version": 3, "deployment": {"resources": []}}'
            return Ran(True, empty) if self.knows else Ran(False, stderr="no stack named 'x' found")
        if args[0] == "whoami":
            return Ran(True, '{"url": "https://api.pulumi.com"}')
        if args[0] == "destroy" and self.destroys:
            self.account.groups.clear()
        return Ran(args[0] != "destroy" or self.destroys, stderr=self.says)


def expire(account: FakeAccount, engine: FakeEngine, after: timedelta, *, yes: bool = True) -> tuple[int, list[str]]:
    said: list[str] = []
    place = Place(PLACEHOLDER_ACCOUNT, "us-east-2", (PLAN,))
    failed = expiry.expire(
        place, engine, account, said.append, lambda _: yes, lambda _: Path("/nonexistent/evidence"), now=MADE + after  # type: ignore[arg-type]
    )  # fmt: skip
    return failed, said


def commands(engine: FakeEngine) -> list[str]:
    return [args[0] for args in engine.asked if args[0] in ("destroy", "up")]


def test_a_stack_within_its_time_is_left_alone() -> None:
    account = FakeAccount([group()])
    engine = FakeEngine(account)
    failed, said = expire(account, engine, timedelta(hours=HOURS) - timedelta(minutes=1))
    assert (failed, commands(engine)) == (0, [])
    assert "0 h 01 min left" in said[0]


def test_a_stack_that_outlived_its_time_is_destroyed() -> None:
    account = FakeAccount([group()])
    engine = FakeEngine(account)
    failed, said = expire(account, engine, timedelta(hours=HOURS))
    assert (failed, commands(engine)) == (0, ["destroy"])
    assert account.groups == []
    assert account.removed == [], "the engine took it away, so its state knows"
    assert "their time was over" in said[0]


def test_without_a_yes_nothing_is_destroyed() -> None:
    account = FakeAccount([group()])
    engine = FakeEngine(account)
    failed, _ = expire(account, engine, timedelta(days=30), yes=False)
    assert (failed, commands(engine)) == (0, [])


def test_where_the_engine_cannot_the_gpus_are_taken_by_the_api() -> None:
    account = FakeAccount([group()])
    engine = FakeEngine(account, destroys=False)
    failed, said = expire(account, engine, timedelta(hours=HOURS))
    assert account.removed == [group().id], "$110 an hour do not wait for somebody to look"
    assert failed == 1, "the rest of the stack is still there"
    assert any("is not destroyed" in line or "could not" in line for line in said)


def test_a_state_that_cannot_be_read_keeps_no_gpus_running_its_own_or_others() -> None:
    account = FakeAccount([group(), group("somebody-elses")])
    engine = FakeEngine(account, unreadable=True)
    failed, said = expire(account, engine, timedelta(hours=HOURS))
    assert account.removed == [group().id, group("somebody-elses").id]
    assert failed == 1, "of the first stack the rest is still there"
    assert any("passphrase" in line for line in said), "and why is said"


@pytest.mark.parametrize(("minutes", "taken"), [(5, 0), (300, 1)])
def test_who_works_on_the_stack_right_now_is_not_disturbed_and_an_old_lock_is_one_of_a_crash(
    minutes: int, taken: int
) -> None:
    account = FakeAccount([group()])
    since = datetime.now(UTC) - timedelta(minutes=minutes)
    lock = (
        f"error: the stack is currently locked by 1 lock(s). created by me@host (pid 7) at {since:%Y-%m-%dT%H:%M:%SZ}"
    )
    failed, said = expire(account, FakeEngine(account, destroys=False, says=lock), timedelta(hours=HOURS))
    assert failed == 1
    assert len(account.removed) == taken
    assert any("somebody has worked on it" in line for line in said) is not bool(taken)


def test_a_stack_that_this_backend_does_not_know_is_swept() -> None:
    account = FakeAccount([group()])
    engine = FakeEngine(account, knows=False)
    failed, _ = expire(account, engine, timedelta(hours=HOURS))
    assert (failed, account.removed, commands(engine)) == (0, [group().id], [])


def test_nodes_of_a_stack_without_a_file_here_lose_their_gpus_only() -> None:
    account = FakeAccount([group("somebody-elses")])
    engine = FakeEngine(account)
    failed, _ = expire(account, engine, timedelta(hours=HOURS))
    assert (failed, account.removed, commands(engine)) == (0, [group("somebody-elses").id], [])


def test_another_deployment_of_a_stack_is_not_destroyed_as_ours() -> None:
    account = FakeAccount([group(deployment="other")])
    engine = FakeEngine(account)
    expire(account, engine, timedelta(hours=HOURS))
    assert commands(engine) == [], "its state is somebody else's"


def test_a_foreign_account_is_refused() -> None:
    account = FakeAccount([group()], number="999999999999")
    with pytest.raises(CommandError, match="belongs to account"):
        expire(account, FakeEngine(account), timedelta(days=30))
    assert account.removed == []


@pytest.mark.parametrize("hours", ["", "soon", "-3"])
def test_nodes_that_do_not_say_how_long_they_may_stay_are_said_and_kept(hours: str) -> None:
    account = FakeAccount([group(**{"ttl-hours": hours})])
    failed, said = expire(account, FakeEngine(account), timedelta(days=365))
    assert (failed, account.removed) == (0, [])
    assert "no ttl-hours tag" in said[0]


@pytest.mark.parametrize(
    ("minutes", "over", "words"),
    [
        (111, False, "left"),
        (97, False, "EKS takes them away at 09:20 UTC"),
        (41, False, "at 09:20 UTC"),
        (39, False, "EKS takes them away"),
        (29, True, "EC2 ends them now"),
    ],
)
def test_the_end_of_a_capacity_block_is_told_before_eks_acts_and_acted_on_before_ec2_does(
    minutes: int, over: bool, words: str
) -> None:
    end = MADE + timedelta(hours=2)
    block = Reservation("cr-1", "p5.48xlarge", "use2-az1", "active", 2, 0, True, MADE, end)
    nodes = nodes_of(group(), block)
    now = end - timedelta(minutes=minutes)
    assert nodes.over(now) is over
    assert words in say_when(nodes, now)


def test_a_reservation_that_is_no_block_ends_nothing() -> None:
    odcr = Reservation("cr-1", "p5.48xlarge", "use2-az1", "active", 2, 0, False, MADE, MADE + timedelta(minutes=1))
    assert not nodes_of(group(), odcr).over(MADE + timedelta(minutes=5))
