"""`ops sweep`: what of a deployment still exists and costs though no state knows it, and its end; `--expired`: what outlived its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ops import deployed, state
from ops.aws import Keeper
from ops.deployed import Engine
from ops.removing import Removed, Say, remove_all, sum_up, table, words
from ops.things import MAKERS, Marks, Thing
from recipe.plan import FoundationPlan

Confirm = Callable[[str], bool]


@dataclass
class Swept:
    """What was found, and what became of it."""

    left: list[Thing] = field(default_factory=list)
    """Of the deployment, unknown to the state."""
    kept: list[Thing] = field(default_factory=list)
    """Of the deployment, and in the state: not ours to delete."""
    removed: Removed | None = None
    """None where nothing was to be deleted, or it was not wanted."""

    @property
    def clean(self) -> bool:
        """Nothing of the deployment is left."""
        remains = self.removed.left if self.removed else self.left
        return not remains and not self.kept


def sweep(
    plan: FoundationPlan,
    engine: Engine,
    account: Keeper,
    say: Say,
    confirm: Confirm,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Swept:
    """List what of the plan's stack exists outside of its state, and delete it where that is confirmed. Raises CommandError: a foreign account."""
    deployed.guard(plan, account)
    marks = Marks.of(plan)
    known = state.Known(deployed.exported_if_any(engine, plan.stack))
    found = Swept()
    things = account.things(marks)
    there = {thing.type for thing in things}
    # What a service made belongs to what it was made for, as long as that can be.
    needed = [thing for thing in things if thing.service and known and MAKERS.get(thing.type) in there]
    found.kept = [thing for thing in things if thing in known or thing in needed]
    found.left = [thing for thing in things if thing not in found.kept]
    if found.kept:
        say(
            f"{sum_up(found.kept)}, in the state of {plan.stack} or made for what is: `pulumi destroy -s {plan.stack}` takes it away"
        )
    if not found.left:
        say(
            f"Nothing of {plan.stack} is left outside of its state."
            if found.kept
            else f"Nothing of {plan.stack} is left."
        )
        return found
    say(f"{sum_up(found.left)}, of {plan.stack} and unknown to its state ($/h, what):")
    for line in table(found.left):
        say(line)
    if confirm(f"Delete all {len(found.left)}?"):
        found.removed = remove_all(account, marks, found.left, say, sleep=sleep)
        for thing, why in found.removed.left.items():
            say(f"  still there: {words(thing)}: {why}")
        say(f"{len(found.removed.gone)} deleted, {len(found.removed.left)} left")
    return found


def as_data(found: Swept) -> dict[str, Any]:
    """What `--json` prints."""
    from ops.things import usd_per_hour

    def rows(things: list[Thing]) -> list[dict[str, Any]]:
        return [
            {"type": t.type, "id": t.id, "name": t.name, "status": t.status, "made_by": t.service or None, "usd_per_hour": usd_per_hour(t)}
            for t in things
        ]  # fmt: skip

    removed = found.removed
    return {
        "left": rows(found.left),
        "in_state": rows(found.kept),
        "deleted": rows(removed.gone) if removed else [],
        "still_there": [{"id": t.id, "type": t.type, "why": why} for t, why in removed.left.items()] if removed else [],
        "clean": found.clean,
    }
