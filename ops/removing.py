"""Deleting what no state knows, in an order that works, and saying what is left and what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ops.aws import AwsError, Keeper
from ops.things import BUSY, KINDS, MACHINES, Marks, Thing, in_order, total, usd_per_hour

Say = Callable[[str], None]
PATIENCE_SECONDS: Final = 30 * 60.0
"""For all of one rank to go: a node group takes minutes, a cluster up to a quarter of an hour (facts/durations.md)."""


@dataclass
class Removed:
    """What became of it."""

    gone: list[Thing] = field(default_factory=list)
    left: dict[Thing, str] = field(default_factory=dict)
    """What is still there, and why in the service's words."""


def remove_all(
    account: Keeper,
    marks: Marks,
    doomed: Sequence[Thing],
    say: Say,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Removed:
    """Delete `doomed`, rank by rank, each rank as soon as the one before it is gone. Nothing but `doomed` is touched."""
    result = Removed()
    for rank in sorted({KINDS[thing.type].rank for thing in doomed}):
        mine = [thing for thing in in_order(doomed) if KINDS[thing.type].rank == rank]
        if result.left and any(KINDS[thing.type].rank <= MACHINES for thing in result.left) and rank > MACHINES:
            # Nodes without a way out hang for hours, and are paid for (facts/aws.md §9).
            result.left |= dict.fromkeys(mine, "waits: nodes or the control plane need it to end")
            continue
        stays = _rank(account, marks, mine, say, patience_seconds, sleep, clock)
        result.left |= stays
        result.gone += [thing for thing in mine if thing not in stays]
    return result


def _rank(
    account: Keeper, marks: Marks, mine: list[Thing], say: Say, patience: float, sleep: Callable[[float], None], clock: Callable[[], float]
) -> dict[Thing, str]:  # fmt: skip
    """Delete things that do not need one another. Returns what is still there at the end, and why."""
    begun, why = clock(), dict.fromkeys(mine, "asked to go, and still there")
    asked: set[tuple[str, str]] = set()
    while True:
        still = {thing.key: thing for thing in account.things(marks)}
        mine = [thing for thing in mine if thing.key in still]
        if not mine or clock() - begun > patience:
            return {thing: why[thing] for thing in mine}
        refused = False
        for thing in mine:
            if still[thing.key].status == "DELETING":
                continue
            try:
                account.remove(thing)
            except AwsError as error:
                why[thing], refused = f"{error.code}: {error.message}", True
            else:
                if thing.key not in asked:
                    say(f"  deleting {words(thing)}")
                asked.add(thing.key)
        if refused and all(thing.key not in asked for thing in mine) and clock() - begun > account.pause_seconds * 6:
            return {thing: why[thing] for thing in mine}  # nobody here is on its way out
        sleep(account.pause_seconds)


def words(thing: Thing) -> str:
    """`NodeGroup dynamo-recipes-…-gpu`, with the id where the name does not say it."""
    kind = thing.type.rpartition(":")[2]
    made = f", made by {thing.service}" if thing.service else ""
    name = f" ({thing.name})" if thing.name and thing.name not in thing.id else ""
    return f"{kind} {thing.id}{name}{made}"


def table(things: Iterable[Thing]) -> list[str]:
    """A line per thing: what it costs an hour, state, what it is."""
    lines = []
    for thing in in_order(things):
        price = usd_per_hour(thing)
        cost = "      ?" if price is None else f"{price:7.2f}" if price >= 0.005 else "      -"
        state = (
            f" [{thing.status.lower()}]"
            if thing.status in BUSY or "FAIL" in thing.status or thing.status == "DEGRADED"
            else ""
        )
        lines.append(f"  {cost}  {words(thing)}{state}")
    return lines


def sum_up(things: Sequence[Thing]) -> str:
    """`7 things, $110.23 an hour`."""
    usd, whole = total(things)
    more = "" if whole else " and what has no known price"
    return f"{len(things)} thing{'s' if len(things) != 1 else ''}, ${usd:.2f} an hour{more}"
