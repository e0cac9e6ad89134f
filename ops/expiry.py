"""`ops sweep --expired`: GPU nodes that outlived their stack's time, and Capacity Blocks that are about to end.

A stack's time ends `ttl-hours` (a tag) after its GPU node group was created: no tag changes with time, so no `up` sees a difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from ops import deployed
from ops.aws import EC2_STOPS, EKS_TAKES_NODES, AwsError, Keeper, Reservation
from ops.deployed import Engine, Ran
from ops.exits import CommandError
from ops.recover import recover
from ops.removing import Say, remove_all, words
from ops.sweep import sweep
from ops.things import Marks, Thing
from recipe.config import CapacityBlock
from recipe.errors import RecipeError
from recipe.plan import BasePlan, Plan

Confirm = Callable[[str], bool]
LOCK_PATIENCE: Final = timedelta(hours=2)
"""An older lock is taken for one that a crash left: the longest `up` takes less."""
LOOKS: Final = timedelta(minutes=70)
"""Between two looks of the hourly workflow, with room for a late one: a warning that is due before the next look is said now."""


@dataclass(frozen=True)
class Nodes:
    """One stack's GPU nodes. `expires` None: the tag is missing or no number, and nobody can say when their time is over."""

    group: Thing
    stack: str
    deployment: str
    created: datetime
    expires: datetime | None
    block_ends: datetime | None = None

    def over(self, now: datetime) -> bool:
        """Whether their time is over."""
        by_tag = self.expires is not None and now >= self.expires
        return by_tag or (self.block_ends is not None and now >= self.block_ends - EC2_STOPS)


def nodes_of(group: Thing, block: Reservation | None = None) -> Nodes:
    """What a node group's own tags say."""
    tags = group.facts.get("tags") or {}
    created = datetime.fromisoformat(str(group.facts["createdAt"]))
    hours = str(tags.get("ttl-hours", ""))
    expires = created + timedelta(hours=int(hours)) if hours.isdigit() else None
    ends = block.end if block and block.block else None
    return Nodes(group, str(tags.get("stack", "")), str(tags.get("deployment", "")), created, expires, ends)


def say_when(nodes: Nodes, now: datetime) -> str:
    """One line: whose nodes, since when, and how long they may stay."""
    who = f"{nodes.stack} ({nodes.deployment}): GPU nodes since {nodes.created:%Y-%m-%d %H:%M}"
    if nodes.block_ends is not None and now >= nodes.block_ends - EKS_TAKES_NODES - LOOKS:
        left = (nodes.block_ends - now).total_seconds() / 60
        if now >= nodes.block_ends - EC2_STOPS:
            what = "EC2 ends them now"
        elif now >= nodes.block_ends - EKS_TAKES_NODES:
            what = "EKS takes them away, and 10 minutes later EC2 ends them"
        else:
            what = f"EKS takes them away at {nodes.block_ends - EKS_TAKES_NODES:%H:%M} UTC, and 10 minutes later EC2 ends them"
        return f"{who}: their Capacity Block ends in {left:.0f} minutes: {what}. Bring results home"
    if nodes.expires is None:
        return f"{who}: no ttl-hours tag says how long they may stay"
    if now >= nodes.expires:
        return f"{who}: their time was over {_span(now - nodes.expires)} ago"
    return f"{who}: {_span(nodes.expires - now)} left"


def _span(time: timedelta) -> str:
    minutes = int(time.total_seconds() // 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


@dataclass(frozen=True)
class Place:
    """Stacks with a file that belong to one account and region."""

    account: str
    region: str
    plans: tuple[Plan, ...]


def places(stacks: Iterable[str], say: Say) -> list[Place]:
    """Where to look: by the stack files. One that cannot be planned (no account set, mostly) is said and left out."""
    found: dict[tuple[str, str], list[Plan]] = {}
    for stack in stacks:
        try:
            plan = deployed.plan_of(stack)
        except (RecipeError, CommandError) as error:
            say(f"{stack}: left out: {str(error).splitlines()[0]}")
            continue
        if isinstance(plan, BasePlan):
            continue  # it has no GPU nodes
        access = plan.recipe.access
        found.setdefault((str(access.account_id), access.region), []).append(plan)
    return [Place(account, region, tuple(plans)) for (account, region), plans in sorted(found.items())]


def expire(
    place: Place, engine: Engine, account: Keeper, say: Say, confirm: Confirm, evidence: Callable[[str], Path], *, now: datetime | None = None
) -> int:  # fmt: skip
    """Destroy what outlived its time at one place. Returns how many of it are not gone. Raises CommandError: a foreign account."""
    deployed.guard(place.plans[0], account)
    now = now or account.now()
    failed = 0
    for nodes in sorted(_found(place, account), key=lambda one: (one.stack, one.group.id)):
        say(say_when(nodes, now))
        if not nodes.over(now) or not confirm(f"Destroy {nodes.stack}?"):
            continue
        plan = _plan(place.plans, nodes)
        if plan is None:
            failed += not _gpus_gone(nodes, account, say)
            continue
        end: Literal["gone", "stays", "locked"] = "stays"
        try:
            end = _destroyed(plan, engine, account, say, evidence(nodes.stack))
        except (AwsError, CommandError) as error:  # one stack's trouble must not keep the GPUs of another running
            say(f"  {nodes.stack}: {error}")
        failed += end != "gone"
        if end == "stays":
            _gpus_gone(nodes, account, say)
    return failed


def _found(place: Place, account: Keeper) -> Iterator[Nodes]:
    for group in account.gpu_groups():
        nodes = nodes_of(group)
        plan = _plan(place.plans, nodes)
        capacity = plan.recipe.hardware.capacity if plan else None
        if isinstance(capacity, CapacityBlock) and capacity.reservation_id:
            nodes = nodes_of(group, account.reservation(capacity.reservation_id))
        yield nodes


def _plan(plans: Sequence[Plan], nodes: Nodes) -> Plan | None:
    """The plan these nodes belong to; None where no file says."""
    return next(
        (plan for plan in plans if plan.stack == nodes.stack and Marks.of(plan).on(nodes.group.facts["tags"])), None
    )


def _destroyed(
    plan: Plan, engine: Engine, account: Keeper, say: Say, evidence: Path
) -> Literal["gone", "stays", "locked"]:
    """`pulumi destroy`, after a recover where the first one fails, then a sweep."""
    stack, yes = plan.stack, lambda _: True
    if deployed.exported_if_any(engine, stack) is None:
        say(f"  {stack}: no such stack in this backend; what carries its tags is deleted without it")
        return "gone" if sweep(plan, engine, account, say, yes).clean else "stays"
    command = ["destroy", "--yes", "--skip-preview", "--stack", stack]
    ran = engine.run(command)
    if not ran.ok and (since := _locked_since(ran)) and datetime.now(UTC) - since < LOCK_PATIENCE:
        say(f"  {stack}: somebody has worked on it since {since:%H:%M}; left to them, the next run looks again")
        return "locked"
    if not ran.ok:
        say(f"  destroy failed, recovering:\n{deployed.last_words(ran)}")
        try:
            recover(plan, engine, account, say, yes, evidence)
        except CommandError as error:
            say(f"  {error}")
            return "stays"
        ran = engine.run(command)
    if not ran.ok:
        say(f"  {stack} is not destroyed:\n{deployed.last_words(ran)}")
        return "stays"
    return "gone" if sweep(plan, engine, account, say, yes).clean else "stays"


def _locked_since(ran: Ran) -> datetime | None:
    """When the newest lock was taken that a command met: `created by me@host (pid 7) at 2026-11-25T09:00:07Z`."""
    times = re.findall(r"\(pid \d+\) at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", f"{ran.stdout}\n{ran.stderr}")
    return max((datetime.fromisoformat(time).replace(tzinfo=UTC) for time in times), default=None)


def _gpus_gone(nodes: Nodes, account: Keeper, say: Say) -> bool:
    """The last resort: what costs most, by the API alone. The state learns of it at the next `recover` or refresh."""
    tags = {key: str(value) for key, value in nodes.group.facts["tags"].items()}
    marks = Marks({key: tags.get(key, "") for key in ("project", "stack", "deployment")}, str(nodes.group.facts["clusterName"]), owns_cluster=False)  # fmt: skip
    if not all(marks.tags.values()):
        say(f"  {words(nodes.group)} does not say whose it is: look at it in the console")
        return False
    try:
        removed = remove_all(account, marks, [nodes.group], say)
    except AwsError as error:
        say(f"  still there: {words(nodes.group)}: {error}")
        return False
    for thing, why in removed.left.items():
        say(f"  still there: {words(thing)}: {why}")
    return not removed.left
