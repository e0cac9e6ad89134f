"""`ops recover`: after the engine was killed, bring its state and what exists together, so that a plain `up` or `destroy` is safe.

What a killed engine leaves (facts/rehearsal.md §5): a lock, operations under way of which it never heard the end, sometimes an empty
metadata file that makes the whole state unreadable, and a chart that Helm calls pending. Whatever the cloud had accepted exists
and costs, and a repeated `up` would make some of it a second time. Here each such thing is looked for by name and tag, and put into the
state as if its create had ended; nothing is guessed, and nothing is touched that does not carry the deployment's own tags.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops import deployed, state
from ops.aws import Keeper
from ops.deployed import Engine
from ops.exits import FAILED, CommandError
from ops.removing import Say, remove_all, sum_up, table, words
from ops.state import KUBERNETES, Lock, Pending
from ops.things import BUSY, KINDS, RELEASE, Marks, Thing, same
from ops.things import FAILED as HOPELESS
from recipe.plan import FoundationPlan

Confirm = Callable[[str], bool]
PATIENCE_SECONDS: Final = 45 * 60.0
"""For what is still being made or deleted to be so: as long as the program gives a control plane."""


@dataclass
class Recovered:
    """What was found and done."""

    adopted: dict[str, str] = field(default_factory=dict)
    """Id by URN."""
    dropped: list[str] = field(default_factory=list)
    """URNs of creates of which nothing came."""
    deleted: list[Thing] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    uninstalled: list[str] = field(default_factory=list)


def recover(
    plan: FoundationPlan,
    engine: Engine,
    account: Keeper,
    say: Say,
    confirm: Confirm,
    evidence: Path,
    *,
    sleep: Callable[[float], None] = time.sleep,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Recovered:
    """Make a plain `up` or `destroy` of the plan's stack safe. Raises CommandError where that is impossible or not wanted.

    `evidence`: a file for what was under way, until all of it is settled (`evidence_file`).
    """
    stack, done = plan.stack, Recovered()
    deployed.guard(plan, account)
    folder = deployed.backend(engine)
    held = _held(plan, folder, confirm)
    if folder is not None:
        # First: the engine clears no lock of a stack whose state it cannot read.
        done.repaired = _repair(folder, stack, say)
    _unlock(plan, engine, held, say)
    marks = Marks.of(plan)
    exported = deployed.exported(engine, stack)
    begun = _begun(evidence, exported)
    things = _at_rest(account, marks, begun, say, sleep, patience_seconds)
    ids = _match(exported, begun, things, say)
    after = state.settled(exported, ids)
    if lost := state.in_cluster(after) if account.cluster(marks.cluster) is None else frozenset():
        say(f"  the cluster {marks.cluster} is gone, and with it {len(lost)} objects that the state still has")
        _reconcile(engine, stack, state.without(after, lost), None)
    elif begun:
        _reconcile(engine, stack, after, state.refreshable(after, begun))
    evidence.unlink(missing_ok=True)
    exported = deployed.exported(engine, stack)
    now_there = _urns(exported)
    done.adopted = {urn: made for urn, made in ids.items() if urn in now_there}
    done.dropped = [one.urn for one in begun if one.op == "creating" and one.urn not in now_there]
    done.uninstalled = _free_releases(engine, stack, exported, say)
    known = state.Known(exported)
    unknown = [thing for thing in account.things(marks) if thing not in known and not _passing(thing)]
    if unknown:
        say(f"{sum_up(unknown)}, of this deployment and unknown to the state:")
        for line in table(unknown):
            say(line)
        if confirm("Delete them? What `up` wants of it, it makes again"):
            removed = remove_all(account, marks, unknown, say, sleep=sleep)
            done.deleted = removed.gone
            if removed.left:
                still = "\n".join(f"  {words(thing)}: {why}" for thing, why in removed.left.items())
                raise CommandError(
                    f"some of it is still there:\n{still}",
                    f"python -m ops recover {stack} again, or python -m ops sweep {stack} after a destroy",
                    FAILED,
                )
        else:
            say("  left as it is: `up` would collide with what has a fixed name, and make the rest a second time")
    return done


def evidence_file(folder: Path, stack: str) -> Path:
    """Where a project in `folder` keeps it."""
    return folder / ".recover" / f"{stack}.json"


# ── lock and checkpoint ──────────────────────────────────────────────────────────────────────────────────────────────


def _held(plan: FoundationPlan, folder: Path | None, confirm: Confirm) -> list[Lock]:
    """Locks that nobody needs any more. Raises CommandError where somebody may."""
    held = state.locks(folder, plan.stack) if folder is not None else []
    if running := [lock for lock in held if lock.alive]:
        lock = running[0]
        raise CommandError(
            f"stack {plan.stack} is being worked on: pulumi, process {lock.pid} of {lock.user}, since {lock.since}",
            f"wait for it, or stop it with Ctrl-C (kill -INT {lock.pid}): then nothing has to be recovered",
            FAILED,
        )
    elsewhere = [lock for lock in held if lock.alive is None]
    if elsewhere or folder is None:
        who = (
            f"{elsewhere[0].user} on {elsewhere[0].host} since {elsewhere[0].since}" if elsewhere else "not known here"
        )
        question = f"A lock of {plan.stack} would be cleared (held by: {who}). Is nobody working on the stack any more?"
        if not confirm(question):
            next_step = "ask who works on the stack, and run this again when it is nobody"
            raise CommandError("nothing was changed", next_step, FAILED)
    return held


def _unlock(plan: FoundationPlan, engine: Engine, held: list[Lock], say: Say) -> None:
    # Without a lock it does nothing; not every backend says whether there is one.
    ran = engine.run(["cancel", "--yes", plan.stack])
    if held and not ran.ok:
        said = deployed.last_words(ran)
        raise CommandError(f"the lock cannot be cleared:\n{said}", f"pulumi cancel {plan.stack}", FAILED)
    if held:
        say(f"lock of {held[0].user} (process {held[0].pid}, ended) cleared")


def _repair(folder: Path, stack: str, say: Say) -> list[str]:
    mended = []
    for one in state.damage(folder, stack):
        try:
            one.mend()
        except OSError as error:
            raise CommandError(
                f"the state of {stack} cannot be mended: {error}",
                f"{folder}/backups holds older ones: `pulumi stack import --stack {stack} --file ONE`, then this again; what exists is found by its tags",
                FAILED,
            ) from None
        say(f"mended: {one.what}")
        mended.append(one.what)
    return mended


# ── what was under way ───────────────────────────────────────────────────────────────────────────────────────────────


def _at_rest(
    account: Keeper, marks: Marks, begun: tuple[Pending, ...], say: Say, sleep: Callable[[float], None], patience: float
) -> tuple[Thing, ...]:  # fmt: skip
    """What exists, once nothing of what was under way is still on its way: `up` would take a thing that is going for one that stays."""
    waited = 0.0
    told: set[tuple[str, str]] = set()
    while True:
        things = account.things(marks)
        busy = [thing for thing in things if thing.status in BUSY and _concerned(thing, begun)]
        if not busy:
            return things
        if waited > patience:
            raise CommandError(
                f"still on their way after {patience / 60:.0f} minutes: {', '.join(map(words, busy))}",
                "look at them in the console, then run this again; nothing was changed",
                FAILED,
            )
        for thing in busy:
            if thing.key not in told:
                say(f"  {words(thing)} is {thing.status.lower()}: waiting for the end of it")
                told.add(thing.key)
        sleep(account.pause_seconds)
        waited += account.pause_seconds


def _concerned(thing: Thing, begun: tuple[Pending, ...]) -> bool:
    return any(one.resource.get("id") == thing.id or same(one.type, one.inputs, thing) for one in begun)


def _match(exported: dict[str, Any], begun: tuple[Pending, ...], things: tuple[Thing, ...], say: Say) -> dict[str, str]:
    """Ids of what came of the creates under way, by URN. What is of no use any more has none: it is deleted as unknown."""
    known, present = state.Known(exported), _urns(exported)
    ids: dict[str, str] = {}
    for one in begun:
        if one.op != "creating":
            continue
        if one.urn in present:
            # A later `up` made it a second time and did not care: what came of the first is no part of the state, ever.
            say(f"  {one.name}: made again by a later `up`; the first one is listed below if it exists")
        elif one.type.startswith(KUBERNETES):
            # Whether it exists the refresh finds out: only the cluster can say.
            if made := state.object_id(one.resource):
                ids[one.urn] = made
        elif one.type in KINDS:
            found = [thing for thing in things if same(one.type, one.inputs, thing) and thing not in known]
            usable = [thing for thing in found if thing.status not in HOPELESS]
            if usable:
                ids[one.urn] = usable[0].id
                say(f"  {one.name}: exists as {usable[0].id}, taken into the state")
            else:
                say(f"  {one.name}: {'it failed' if found else 'nothing came of it'}")
        elif not one.type.startswith("pulumi:"):
            say(
                f"  {one.name}: what came of it cannot be looked up ({one.type}); the next `up` makes it or says that it exists"
            )
    return ids


def _urns(exported: Mapping[str, Any]) -> set[str]:
    return {one["urn"] for one in exported["deployment"].get("resources") or [] if not one.get("delete")}


def _begun(evidence: Path, exported: dict[str, Any]) -> tuple[Pending, ...]:
    """What was under way, by the state or by what an earlier `recover` that did not end found in it.

    The engine drops pending operations when a state is imported, and they are the only list of what may exist. So they are written
    down first, and stay so until the providers have been asked about each.
    """
    found = state.pending(exported)
    if evidence.exists():
        earlier = state.pending(json.loads(evidence.read_text(encoding="utf-8")))
        found += tuple(one for one in earlier if one.urn not in {other.urn for other in found})
    if found:
        evidence.parent.mkdir(parents=True, exist_ok=True)
        written = evidence.with_suffix(".new")
        written.touch(mode=0o600)
        listed = [{"type": one.op, "resource": one.resource} for one in found]
        written.write_text(json.dumps({"deployment": {"pending_operations": listed}}), encoding="utf-8")
        written.replace(evidence)
    return found


def _reconcile(engine: Engine, stack: str, after: dict[str, Any], targets: list[str] | None) -> None:
    """Write the answers into the state, then let the providers fill in what only they know: of `targets`, or where that is None of all."""
    _write(engine, stack, after)
    if targets == []:
        return
    command = ["refresh", "--yes", "--skip-preview", "--stack", stack]
    command += [part for urn in targets or () for part in ("--target", urn)]
    deployed.run(engine, command, "ask the providers what came of it")


def _write(engine: Engine, stack: str, content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(content), encoding="utf-8")
        deployed.run(engine, ["stack", "import", "--stack", stack, "--file", str(file)], f"write the state of {stack}")


# ── charts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _free_releases(engine: Engine, stack: str, exported: dict[str, Any], say: Say) -> list[str]:
    """Helm takes a release whose client was killed for one that is being worked on, for ever. One that was never installed is uninstalled."""
    freed = []
    for one in state.resources(exported):
        if one["type"] != RELEASE:
            continue
        word = str(((one.get("outputs") or {}).get("status") or {}).get("status", ""))
        if word == "pending-install":
            say(f"  release {one['id']}: {word}; uninstalled, `up` installs it again")
            if one.get("protect"):  # of a base; the next `up` protects the new one
                unprotect = ["state", "unprotect", "--yes", "--stack", stack, str(one["urn"])]
                deployed.run(engine, unprotect, f"take the protection off the release {one['id']}")
            target = ["destroy", "--yes", "--skip-preview", "--stack", stack, "--target", str(one["urn"])]
            deployed.run(engine, target, f"uninstall the release {one['id']}")
            freed.append(str(one["id"]))
        elif word.startswith("pending"):
            namespace, _, name = str(one["id"]).rpartition("/")
            say(
                f"  release {one['id']}: {word}. It serves as before; `helm rollback {name} -n {namespace}` frees it for the next `up`"
            )
    return freed


def _passing(thing: Thing) -> bool:
    """On its way out, or made by a service, which takes it away with what it was made for: not for `recover` to judge."""
    return bool(thing.service) or thing.status == "DELETING"
