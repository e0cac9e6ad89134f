"""`make chaos`: the engine killed at every place where that can happen, and everything that can go wrong, on the real engine and the pretend cloud.

A kill point is an operation on a resource type, before or after the cloud accepted it. The pretend cloud holds the operation there, the
engine gets a kill -9, `recover` runs, and the next command goes on to the next point: so a session is one long row of crashes, as bad as
reality. In between some recovered stacks are destroyed at once instead. At the end nothing may be left, whatever the engine knows.

    python -m ops.chaos                        every point of every scenario, every fault; writes docs/chaos.md
    python -m ops.chaos --sample 6 --seed 7    six points drawn with seed 7
    python -m ops.chaos --point 'owned create NatGateway after'
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import typer
import yaml

from ops import deployed, stacks
from ops.aws_pretend import PretendAccount
from ops.charges import short
from ops.exits import CommandError
from ops.recover import evidence_file, recover
from ops.state import pending
from ops.sweep import sweep
from recipe.plan import BasePlan, Plan
from rehearsal.cases import CASES, Case
from rehearsal.cloud import rules
from rehearsal.cloud.faults import Fault, Faults
from rehearsal.engine import ensure_engine
from rehearsal.session import Result, Session

Op = Literal["create", "delete"]
When = Literal["before", "after"]
BY_NAME: Final = ("NodeGroup", "Release", "Job")
"""Kinds whose resources behave differently from one another: each of them is a place of its own."""
TOKEN: Final = "hf_" + "ChaosTokenThatIsNotReal0123456789"
"""In two parts, so that no scanner takes it for a leak."""
CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "AKIA" + "CHAOSNOTREAL0000",
    "AWS_SECRET_ACCESS_KEY": "chaos/not/a/real/" + "secret/key+0123456789ab",
    "AWS_SESSION_TOKEN": "chaosNotARealSession" + "Token0123456789==",
}
DESTROYED_AT_ONCE: Final = 0.08
"""Share of recovered stacks that are destroyed instead of brought up further."""


@dataclass(frozen=True, order=True)
class Point:
    """Where the engine is killed."""

    scenario: str
    op: Op
    what: str
    """Kind of resource, such as NatGateway; of some kinds a resource, as NodeGroup/gpu-nodes."""
    when: When

    def __str__(self) -> str:
        return f"{self.scenario} {self.op} {self.what} {self.when}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """`owned create NatGateway after`. ValueError for anything else."""
        parts = text.split()
        if len(parts) != 4 or parts[1] not in ("create", "delete") or parts[3] not in ("before", "after"):
            raise ValueError(f"{text!r} is no kill point; one looks like: owned create NatGateway after")
        return cls(parts[0], parts[1], parts[2], parts[3])  # type: ignore[arg-type]

    @classmethod
    def of(cls, scenario: str, held: dict[str, str]) -> Self:
        """The point at which an operation is being held."""
        what = place(held["type"], held["name"])
        return cls(scenario, held["op"], what, held["when"])  # type: ignore[arg-type]

    def hold(self) -> Fault:
        """The fault that holds the operation there."""
        kind, name = (self.what, "") if self.what in _TYPE_OF else self.what.split("/")
        return Fault(op=self.op, type=_TYPE_OF[kind], name_contains=name, when=self.when, hold=True, times=None)


def place(typ: str, name: str) -> str:
    """What a resource is called as a place to be killed at: its kind, with the service where two have one of that name."""
    kind = _KIND_OF[typ]
    return f"{kind}/{name}" if kind in BY_NAME else kind


_SHORT: Final = [short(typ) for typ in rules.TYPES]
_KIND_OF: Final = {typ: short(typ) if _SHORT.count(short(typ)) == 1 else typ.partition(":")[2] for typ in rules.TYPES}
_TYPE_OF: Final = {kind: typ for typ, kind in _KIND_OF.items()}


@dataclass
class Campaign:
    """What was tried and what came of it."""

    seed: int
    kills: int = 0
    tried: list[Point] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Everything that should not be, each with the point or fault before it."""
    minutes: float = 0.0
    said: list[str] = field(default_factory=list)
    """What commands printed: searched for secrets."""
    leaks: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Fault, and what named it."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many kill points there are, by scenario and operation."""

    @property
    def survived(self) -> int:
        """Points after which everything was as it should be."""
        return len(set(self.tried) - {point for point in self.tried for line in self.wrong if _is_named(point, line)})


def _is_named(point: Point, line: str) -> bool:
    """Whether a line of what went wrong is about the point: several may have been met by one kill, `A, B: recover failed`."""
    return str(point) in line.partition(": ")[0].split(", ")


Say = Callable[[str], None]


class Stack:
    """One stack in a session, driven as a person would, and looked at from outside."""

    def __init__(
        self, session: Session, scenario: str, stack: str, edits: dict[str, Any], campaign: Campaign, say: Say
    ) -> None:
        self.session, self.scenario, self.stack = session, scenario, stack
        self.campaign, self.say = campaign, say
        session.init_stack(stack)
        self.edit(edits)
        self.protected = isinstance(self.plan, BasePlan)
        """A base: everything in it is protected, and it serves nothing."""
        if not self.protected:
            token = session.run(["config", "set", "--secret", "--stack", stack, "hfToken"], input=TOKEN)
            token.expect("set the token")

    def edit(self, edits: dict[str, Any]) -> None:
        file = self.session.project / "stacks" / f"Pulumi.{self.stack}.yaml"
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        recipe = settings["config"][stacks.FULL_KEY]
        settings["config"][stacks.FULL_KEY] = stacks.with_settings(
            recipe, [f"{path}={json.dumps(value)}" for path, value in edits.items()]
        )
        file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")

    @property
    def plan(self) -> Plan | BasePlan:
        return deployed.plan_in(self.stack, self.session.project / "stacks", placeholders=True)

    @property
    def account(self) -> PretendAccount:
        ports = dict(item.split(":") for item in self.session.env["PULUMI_DEBUG_PROVIDERS"].split(","))
        return PretendAccount(self.session.cloud_folder, self.plan.recipe.access.region, ports=ports)

    # Commands

    def run(
        self, command: str, holds: Iterable[Point] = (), *, faults: Faults | None = None
    ) -> tuple[Result, list[Point]]:
        """`up` or `destroy`, killed at the first of `holds` that it comes to: what it was killed at. `faults` instead of that."""
        self.session.tell(faults or Faults(faults=tuple(point.hold() for point in holds)))
        seen = False

        def tick() -> None:
            nonlocal seen
            if not seen and (seen := bool(self.session.held())):
                self.session.kill()

        result = self.session.run(
            [command, "--yes", "--skip-preview", "--stack", self.stack], on_tick=tick, env=CREDENTIALS
        )
        # Read now: more operations may have come to their places before the kill reached the engine.
        met = [Point.of(self.scenario, one) for one in self.session.held()]
        if faults is None:
            self.session.tell(Faults())
        self.campaign.said += [result.stdout, result.stderr]
        return result, list(dict.fromkeys(met))

    def named(self, case: Case, result: Result) -> str:
        """Who says what went wrong and what to do: the doctor, by what is there and by what was printed; else nobody."""
        from ops import doctor

        text = f"{result.stdout}\n{result.stderr}"
        plan = self.plan
        assert isinstance(plan, Plan), "faults are tried on stacks that serve a model"
        report = doctor.examine(plan, {}, self.account, said=text, rehearsed=True, online=False)
        self.campaign.said.append(doctor.text(report))
        self.session.tell(Faults())
        keys = [finding.symptom.key for finding in report.findings if finding.fix]
        return (
            f"the doctor: {case.symptom}"
            if case.symptom in keys
            else f"nothing (the doctor: {', '.join(keys) or 'well'})"
        )

    def recover(self) -> None:
        recover(
            self.plan,
            self.session,
            self.account,
            self.campaign.said.append,
            lambda _: True,
            evidence_file(self.session.root, self.stack),
            sleep=lambda _: time.sleep(0.05),
        )

    def sweep(self) -> bool:
        said = self.campaign.said.append
        return sweep(
            self.plan, self.session, self.account, said, lambda _: True, sleep=lambda _: time.sleep(0.05)
        ).clean

    # What must hold

    def twice(self) -> list[str]:
        """What exists more than once for one resource, and more GPU node groups than the plan has."""
        urns = [str(one["urn"]) for one in self.session.cloud_objects() if one["urn"] and one["status"] != "DELETING"]
        doubles = sorted({urn.rpartition("::")[2] for urn in urns if urns.count(urn) > 1})
        groups = [one["id"] for one in self.session.cloud_objects() if one["type"].endswith(":NodeGroup")]
        gpu = [group for group in groups if group.endswith("-gpu")]
        return [f"{name} exists twice" for name in doubles] + ([f"{len(gpu)} GPU node groups"] if len(gpu) > 1 else [])

    def exists(self) -> list[str]:
        """What exists of the stack, whatever the engine knows; where it is alone, whatever a service made as well."""
        alone = self.scenario == "owned"
        mine = f"urn:pulumi:{self.stack}::"
        found = [
            one
            for one in self.session.cloud_objects()
            if str(one["urn"]).startswith(mine) or (alone and not one["urn"])
        ]
        return [f"{short(one['type'])} {one['id']}" for one in found]

    def resources(self) -> list[dict[str, Any]]:
        return [one for one in self.session.resources(self.stack) if one["type"] != "pulumi:pulumi:Stack"]


def crash_along(stack: Stack, op: Op, points: Sequence[Point], rng: random.Random) -> bool:
    """`up` (create) or `destroy` (delete) with a kill at each of `points` that it comes to. Whether it ended well."""
    campaign, command = stack.campaign, "up" if op == "create" else "destroy"
    left = {point for point in points if point.op == op and point.scenario == stack.scenario}
    while True:
        begun = time.monotonic()
        result, hit = stack.run(command, left)
        if not hit:
            break
        campaign.kills += 1
        campaign.tried += hit
        left -= set(hit)
        if not _put_right(stack, hit, f"{time.monotonic() - begun:.0f} s"):
            return False
        if op == "create" and not stack.protected and rng.random() < DESTROYED_AT_ONCE and not _destroyed(stack, hit):
            return False
    if not result.ok:
        campaign.wrong.append(_failed(campaign, f"{command} failed", result))
    elif op == "create":
        _at_the_top(stack)
    return result.ok


def _put_right(stack: Stack, hit: list[Point], took: str) -> bool:
    where = ", ".join(map(str, hit))
    begun = time.monotonic()
    try:
        stack.recover()
    except Exception as error:  # whatever it is, the campaign tells where
        stack.campaign.wrong.append(f"{where}: recover failed: {type(error).__name__}: {error}")
        return False
    stack.campaign.wrong += [f"{where}: after recover {wrong}" for wrong in stack.twice()]
    stack.say(f"{stack.campaign.kills:4}  {where} ({took}, recovered in {time.monotonic() - begun:.0f} s)")
    return True


def _destroyed(stack: Stack, hit: list[Point]) -> bool:
    """A recovered stack destroyed at once: as good an end as going on."""
    result, _ = stack.run("destroy")
    left = stack.exists()
    where = ", ".join(map(str, hit))
    if not result.ok or left:
        stack.campaign.wrong.append(
            f"{where}: destroy at once: {_failed(stack.campaign, 'failed', result) if not result.ok else ''} left: {left}"
        )
        return False
    stack.say(f"      destroyed at once after {where}: nothing left")
    return True


def _at_the_top(stack: Stack) -> None:
    """After an `up` that ended: it serves, and another one would change nothing."""
    graphs = [one for one in stack.session.cloud_objects() if one["type"].endswith(":DynamoGraphDeployment")]
    if not stack.protected and [one["extra"].get("state") for one in graphs] != ["successful"]:
        stack.campaign.wrong.append(
            f"{_last(stack.campaign)}: up ended and the graph is {graphs and graphs[0]['extra'].get('state')}"
        )
    result = stack.session.run(["preview", "--stack", stack.stack, "--expect-no-changes"], env=CREDENTIALS)
    stack.campaign.said += [result.stdout, result.stderr]
    if not result.ok:
        stack.campaign.wrong.append(_failed(stack.campaign, "another up would change something", result))


def nothing_left(stack: Stack) -> None:
    """After a `destroy` that ended: nothing exists, nothing is in the state, and a sweep agrees."""
    campaign = stack.campaign
    exists = stack.exists()
    campaign.leaks += len(exists)
    if exists:
        campaign.wrong.append(f"{_last(campaign)}: after destroy there is {', '.join(exists)}")
    exported = stack.session.export_stack(stack.stack)
    if pending(exported) or stack.resources():
        campaign.wrong.append(f"{_last(campaign)}: after destroy the state is not empty")
    with suppress(CommandError):
        if stack.sweep():
            return
    campaign.wrong.append(f"{_last(campaign)}: the sweep is not clean")


def _last(campaign: Campaign) -> str:
    return str(campaign.tried[-1]) if campaign.tried else "start"


def _failed(campaign: Campaign, what: str, result: Result) -> str:
    said = "; ".join(result.errors[-3:]) or result.stderr.strip()[-600:] or result.stdout.strip()[-600:]
    return f"{_last(campaign)}: {what}: {said}"


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def forms(secret: str) -> list[str]:
    """A text as it is, and as it looks inside base64 at each of the three places where it may begin there."""
    import base64

    inside = [base64.b64encode(b"?" * offset + secret.encode()).decode()[4:-4] for offset in range(3)]
    return [secret, *inside]


def secrets_in(folder: Path, said: Iterable[str]) -> list[str]:
    """Where the token or a credential stands in clear: files of a session, and what was printed."""
    wanted = [form for secret in (TOKEN, *CREDENTIALS.values()) for form in forms(secret)]
    found = []
    for file in folder.rglob("*"):
        inside = file.relative_to(folder).parts
        if file.is_symlink() or not file.is_file() or (inside[0] == "project" and "stacks" not in inside):
            continue
        content = file.read_bytes()
        if any(form.encode() in content for form in wanted):
            found.append(str(file.relative_to(folder)))
    if any(form in text for text in said for form in wanted):
        found.append("output of commands")
    return sorted(found)


# ── scenarios ────────────────────────────────────────────────────────────────────────────────────────────────────────

_ADMIN: Final = {"access.admin_principals": ["arn:aws:iam::123456789012:role/admin"]}
"""So that access entries are made, too."""
_LUSTRE: Final = {"storage.model": {"kind": "fsx-lustre", "size_gib": 2400, "throughput_mb_per_tib": 500}}
"""So that FSx for Lustre is made, too. The other caches are on EFS either way, and the weights of the stack on a base."""
SCENARIOS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "owned": ("qwen3-32b-disagg", {**_ADMIN, **_LUSTRE, "weights.token": True}),
    "base": ("base", _ADMIN),
    "on-base": ("qwen3-32b-disagg", {"foundation.kind": "base", "foundation.stack": "base", "weights.token": True}),
}
"""Stack and edits by scenario; a stack on a base comes after it and goes before it."""
CHAINS: Final = (("owned",), ("base", "on-base"))
"""Scenarios that live in one session."""


@contextmanager
def _session(chain: Sequence[str], campaign: Campaign, say: Say, **how: Any) -> Iterator[list[Stack]]:
    with Session(**how) as session:
        yield [Stack(session, name, *SCENARIOS[name], campaign, say) for name in chain]


def _release(stack: Stack) -> None:
    """As `ops release-base` does it, once no stack is on the base."""
    if stack.protected:
        command = ["state", "unprotect", "--all", "--yes", "--stack", stack.stack]
        stack.session.run(command).expect(f"take the protection off {stack.stack}")


def run_faults(cases: Sequence[Case], campaign: Campaign, say: Say) -> None:
    """Each of `cases`: the command fails, something names the reason and the next step, and a destroy leaves nothing."""
    for chain, mine in ((CHAINS[0], [c for c in cases if not c.on_base]), (CHAINS[1], [c for c in cases if c.on_base])):
        if not mine:
            continue
        with _session(chain, campaign, say, clock="off") as stacks_:
            *bases, stack = stacks_
            for base in bases:
                base.run("up")[0].expect(f"bring {base.stack} up")
            for case in mine:
                begun = time.monotonic()
                named = _strike(stack, case)
                campaign.faults.append((case.name, named))
                say(f"{len(campaign.faults):4}  {case.name}: {named} ({time.monotonic() - begun:.0f} s)")
            for base in bases:
                _release(base)
                base.run("destroy")
                nothing_left(base)
            found = secrets_in(stack.session.root, campaign.said)
            campaign.wrong += [f"faults: a secret stands in {where}" for where in found]
            campaign.said.clear()


def _strike(stack: Stack, case: Case) -> str:
    """One fault, from an empty account to an empty account. What named it."""
    wrong, faults = stack.campaign.wrong, Faults.model_validate(case.as_file())
    if case.stage != "up":
        result, _ = stack.run("up")
        if not result.ok:
            wrong.append(f"{case.name}: up before it: {_failed(stack.campaign, 'failed', result)}")
    paused = {"hardware.paused": True}
    if case.stage == "pause":
        stack.edit(paused)
    result, _ = stack.run("destroy" if case.stage == "destroy" else "up", faults=faults)
    named = "nothing" if result.ok else stack.named(case, result)
    if named.startswith("nothing"):
        wrong.append(f"{case.name}: {'nothing failed' if result.ok else 'nobody names it'}: {result.errors[-2:]}")
    if case.stage == "pause":
        stack.edit({"hardware.paused": False})
    result, _ = stack.run("destroy")
    if not result.ok and stack.sweep() is not None:  # what the doctor says where a network does not go
        result, _ = stack.run("destroy")
    if not result.ok:
        wrong.append(f"{case.name}: destroy afterwards: {_failed(stack.campaign, 'failed', result)}")
    if left := stack.exists():
        stack.campaign.leaks += len(left)
        wrong.append(f"{case.name}: after destroy there is {', '.join(left)}")
    return named


def run_outputs(campaign: Campaign, say: Say, edits: Mapping[str, Any] | None = None) -> None:
    """What we write for others (ops/chaos_outputs.py), made with the token set and credentials at hand, and searched for them."""
    from ops import chaos_outputs

    begun = time.monotonic()
    name, own = SCENARIOS["owned"]
    with Session(clock="off") as session:
        stack = Stack(session, "owned", name, {**own, **(edits or {})}, campaign, say)
        secrets = CREDENTIALS | {"HF_TOKEN": TOKEN, "HUGGING_FACE_HUB_TOKEN": TOKEN}
        campaign.wrong += [f"outputs: {why}" for why in chaos_outputs.write(session, stack.stack, secrets)]
        found = secrets_in(session.root, campaign.said)
        campaign.wrong += [f"outputs: a secret stands in {where}" for where in found]
        campaign.said.clear()
    say(f"      {len(chaos_outputs.MADE)} files for others searched for secrets ({time.monotonic() - begun:.0f} s)")


def all_points(scenarios: Iterable[str] = tuple(SCENARIOS)) -> list[Point]:
    """Every kill point of the scenarios, by what the program registers."""
    found: set[Point] = set()
    for chain in CHAINS:
        if not set(chain) & set(scenarios):
            continue
        with _session(chain, Campaign(0), lambda _: None, clock="off") as stacks_:
            for stack in stacks_:
                result, _ = stack.run("up")
                result.expect(f"bring {stack.stack} up")
                found |= set(_points(stack))
    return sorted(point for point in found if point.scenario in scenarios)


def _points(stack: Stack) -> Iterator[Point]:
    for one in stack.resources():
        if not one.get("custom") or one["type"].startswith("pulumi:"):
            continue
        what = place(one["type"], one["urn"].rpartition("::")[2])
        # What goes with its cluster is never deleted by itself.
        ops: tuple[Op, ...] = ("create",) if one.get("deletedWith") else ("create", "delete")
        for op in ops:
            yield from (Point(stack.scenario, op, what, "before"), Point(stack.scenario, op, what, "after"))


def run_points(
    points: Sequence[Point], campaign: Campaign, say: Say, *, clock: Literal["events", "off"] = "off"
) -> None:
    """Every one of `points` once, in as few sessions as there are chains of scenarios in them.

    A point can be passed by while the engine is killed at another one, and what was taken in then is not made again: such a one gets a
    session of its own afterwards.
    """
    rng = random.Random(campaign.seed)
    for left in (list(points), None):
        missed = [point for point in points if point not in campaign.tried] if left is None else left
        for chain in CHAINS:
            if mine := [point for point in missed if point.scenario in chain]:
                _run_chain(chain, mine, campaign, say, rng, clock)
    campaign.wrong += [f"{point}: it was not met" for point in points if point not in campaign.tried]


def _run_chain(
    chain: Sequence[str], points: Sequence[Point], campaign: Campaign, say: Say, rng: random.Random, clock: Literal["events", "off"]
) -> None:  # fmt: skip
    with _session(chain, campaign, say, clock=clock) as stacks_:
        if all(crash_along(stack, "create", points, rng) for stack in stacks_):
            for stack in reversed(stacks_):
                _release(stack)
                if not crash_along(stack, "delete", points, rng):
                    break
                nothing_left(stack)
        session = stacks_[0].session
        found = secrets_in(session.root, campaign.said)
        campaign.wrong += [f"{'+'.join(chain)}: a secret stands in {where}" for where in found]
        campaign.said.clear()
        if rest := session.cloud_objects():
            campaign.leaks = max(campaign.leaks, len(rest))


# ── the campaign ─────────────────────────────────────────────────────────────────────────────────────────────────────

REPORT: Final = stacks.ROOT / "docs" / "chaos.md"
TARGET_POINTS, TARGET_FAULTS = 120, 40


def report(campaign: Campaign, every: int, every_fault: int, machine: str, date: str) -> str:
    """docs/chaos.md."""
    points, faults = set(campaign.tried), campaign.faults
    named = sum(not who.startswith("nothing") for _, who in faults)
    secrets = [line for line in campaign.wrong if "a secret stands in" in line]

    def row(what: str, found: object, target: str, met: bool) -> str:
        return f"| {what} | {found} | {target} | {'met' if met else 'missed'} |"

    lines = [
        "# Chaos",
        "",
        "<!-- Written by `make chaos`; do not edit. -->",
        "",
        f"Seed {campaign.seed}, {date}. {machine}. On the real engine and the pretend cloud; nothing of it was run on AWS.",
        "",
        "| what | found | target | verdict |",
        "|---|---|---|---|",
        row("kill points tried", f"{len(points)} of {every}", f"all, at least {TARGET_POINTS}", TARGET_POINTS <= len(points) == every),
        row("of them survived", campaign.survived, "all", campaign.survived == len(points)),
        row("faults tried", f"{len(faults)} of {every_fault}", f"all, at least {TARGET_FAULTS}", TARGET_FAULTS <= len(faults) == every_fault),
        row("of them named by the doctor, with a next step", named, "all", named == len(faults)),
        row("things left in the cloud", campaign.leaks, "0", campaign.leaks == 0),
        row("places where the token or a credential stands in clear", len(secrets), "0", not secrets),
        f"| minutes | {campaign.minutes:.0f} | report | |",
        "",
        ("A kill point is an operation on a kind of resource, `create` or `delete`, `before` or `after` the cloud accepted it. The operation is held "
        "there, the engine gets a kill -9, `ops recover` runs, and the next command goes on to the next point: "
        f"{campaign.kills} kills, some of which met several operations at once. After some of them, drawn by the seed, the stack is destroyed instead. "
        "Survived: `recover` ended, nothing existed twice, never two GPU node groups, the graph served, another `up` would have changed nothing, "
        "`destroy` and `sweep` left nothing, the state was empty."),
        "",
        ("A fault is one of rehearsal/cases.py: the command fails, `ops doctor` has to name the reason, and a destroy (where a network interface was "
        "left: `ops sweep` and a destroy) has to leave nothing."),
        "",
        ("Token and credentials were searched for, plain and in base64, in every session's state, journal, events and logs, in what commands printed, and in "
        "what is written for others: previews, plan, diff, the workflow's files and log, the pull request's comment, the page of a comparison."),
        "",
        "| scenario | command | kill points | tried |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for scenario in SCENARIOS:
        for op, command in (("create", "up"), ("delete", "destroy")):
            mine = sum(point.scenario == scenario and point.op == op for point in points)
            lines.append(f"| {scenario} | {command} | {campaign.counts.get(f'{scenario} {op}', 0)} | {mine} |")
    if campaign.wrong:
        lines += ["", "## What went wrong", "", *(f"- {line.replace(chr(10), ' ')}" for line in campaign.wrong)]
    return "\n".join(lines) + "\n"


def main(
    seed: Annotated[int | None, typer.Option(help="What is drawn by chance. Without it one is drawn, and printed.")] = None,
    sample: Annotated[int | None, typer.Option(metavar="N", help="N kill points, drawn.")] = None,
    sample_faults: Annotated[int | None, typer.Option(metavar="N", help="N faults, drawn.")] = None,
    point: Annotated[list[str] | None, typer.Option(help="This kill point. Repeatable.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="This fault of rehearsal/cases.py. Repeatable.")] = None,
    clock: Annotated[Literal["events", "off"], typer.Option(help="events: virtual minutes pass, so more is under way at each kill.")] = "off",
    write: Annotated[bool, typer.Option("--write", help="Write docs/chaos.md also after a part of it.")] = False,
) -> None:  # fmt: skip
    """Every kill point and every fault, or those asked for. Exit code 1: something was not as it should be."""
    seed = random.SystemRandom().randrange(10_000) if seed is None else seed
    campaign, rng = Campaign(seed), random.Random(seed)
    typer.echo(f"seed {seed}: `python -m ops.chaos --seed {seed}` with the same options tries the same")
    begun = time.monotonic()
    every = all_points()
    for one in every:
        key = f"{one.scenario} {one.op}"
        campaign.counts[key] = campaign.counts.get(key, 0) + 1
    asked = point is not None or fault is not None
    points = [Point.parse(text) for text in point or ()] if asked else every
    cases = [CASES[name] for name in fault or ()] if asked else list(CASES.values())
    if sample is not None:
        points = rng.sample(points, min(sample, len(points)))
    if sample_faults is not None:
        cases = rng.sample(cases, min(sample_faults, len(cases)))
    typer.echo(f"{len(points)} of {len(every)} kill points, {len(cases)} of {len(CASES)} faults")
    run_points(points, campaign, typer.echo, clock=clock)
    run_faults(cases, campaign, typer.echo)
    run_outputs(campaign, typer.echo)
    campaign.minutes = (time.monotonic() - begun) / 60
    if write or (len(points) == len(every) and len(cases) == len(CASES)):
        from ops import benchmark_page
        from ops.benchmark import machine

        text = report(campaign, len(every), len(CASES), machine(ensure_engine()), datetime.now(UTC).date().isoformat())
        REPORT.write_text(text, encoding="utf-8")
        benchmark_page.write()  # the page with all figures shows these, too
    for line in campaign.wrong:
        typer.echo(f"WRONG: {line}", err=True)
    tried = len(set(campaign.tried))
    typer.echo(
        f"{campaign.survived} of {tried} kill points survived ({campaign.kills} kills), {len(campaign.faults)} faults, "
        f"{campaign.leaks} things left, {len(campaign.wrong)} wrong, {campaign.minutes:.1f} minutes, seed {seed}"
    )
    raise typer.Exit(1 if campaign.wrong or campaign.leaks else 0)


if __name__ == "__main__":
    typer.run(main)
