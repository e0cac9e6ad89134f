"""`ops rehearse`: preview, up, what exists, destroy, what is left - the real program on the real engine, against the pretend cloud."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import yaml

from ops import stacks
from ops.charges import Rates, charges, short, usd, usd_per_hour
from ops.exits import BAD_INPUT, FAILED, OK, CommandError
from ops.planning import planned
from ops.rehearsal_view import Watcher, report
from ops.releasing import release
from ops.spans import Gpus, Span, created, gpus, spans
from recipe.catalogue import DURATIONS, DURATIONS_DATE
from recipe.config import RECIPE_KEY
from recipe.plan import BasePlan, Plan
from rehearsal.cloud import report as cloud_report
from rehearsal.cloud.faults import Faults
from rehearsal.cloud.report import Left
from rehearsal.cloud.store import Store
from rehearsal.engine import Engine, ensure_engine
from rehearsal.session import REHEARSED_SECRET, Result, Session

if TYPE_CHECKING:
    from ops.control_plane import Proof
    from ops.serving import Served


@dataclass
class BaseLife:
    """What became of the base under a rehearsed stack: up before it, destroyed after it."""

    plan: BasePlan
    created: int = 0
    up_minutes: float = 0.0
    destroy_minutes: float | None = None
    last: int = 0
    """Sequence number of the last journal line of its `up`."""
    until: float = 0.0
    """Virtual seconds when it was up: the stack's own time begins."""
    things: frozenset[tuple[str, str]] = frozenset()
    """Type and id of what then existed."""


@dataclass
class Rehearsal:
    """What came of it. Every figure is simulated. On a base, they are the stack's own: its time begins when the base is up."""

    plan: Plan
    engine: Engine
    rates: Rates
    base: BaseLife | None = None
    previewed: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """What went wrong, in the engine's words."""
    up_ends: int = 0
    """Sequence number of the last journal line of `up`."""
    journal: list[dict[str, Any]] = field(default_factory=list)
    existed: dict[str, int] = field(default_factory=dict)
    """After `up`: how many of each kind, services' own things included."""
    destroyed: bool = False
    left: list[Left] = field(default_factory=list)
    kept: list[Left] = field(default_factory=list)
    """What is there on purpose: a bucket of results."""
    wall_seconds: float = 0.0
    proof: Proof | None = None
    """What a real control plane said, where it was asked."""
    served: Served | None = None
    """What the graph answered, where it was served."""

    @property
    def ok(self) -> bool:
        proved = self.proof is None or self.proof.ok
        return proved and not self.failures and not (self.destroyed and self.left)

    @property
    def now(self) -> float:
        """Virtual seconds at the end."""
        return max((entry["end"] for entry in self.journal), default=0.0)

    @property
    def up_end(self) -> float:
        """Virtual seconds at the end of `up`."""
        return max((entry["end"] for entry in self.journal if entry["seq"] <= self.up_ends), default=0.0)

    def gpus(self) -> Gpus:
        return gpus(self.journal, self.up_ends, self.now)

    def running_gpus(self) -> int:
        """GPUs of the nodes that run at the end of `up`."""
        up = [entry for entry in self.journal if entry["seq"] <= self.up_ends and entry["op"] == "event"]
        sign = {"node-running": 1, "node-terminated": -1}
        return sum(sign.get(entry["type"], 0) * entry.get("gpus", 0) for entry in up)

    def spans(self) -> list[Span]:
        return spans(self.journal, self.up_ends)

    def usd_idle(self) -> float:
        """The GPU nodes' price for their idle time."""
        if self.plan.gpu_pool is None:
            return 0.0
        return self.gpus().idle_node_minutes / 60 * self.rates.by_instance[self.plan.gpu_pool.instance_type]

    def as_data(self) -> dict[str, Any]:
        """What `--json` writes. Keys are a contract; new ones may come, none goes."""
        found, spent = self.gpus(), charges(self.journal, self.rates)
        made = created(self.journal)
        ours = sum(bool(one.urn) for one in (*self.left, *self.kept))
        return {
            "simulated": True,
            "stack": self.plan.stack,
            "ok": self.ok,
            "failures": self.failures,
            "engine": self.engine.version,
            "previewed": self.previewed,
            "created": made,
            "deleted": made - ours,
            "left": len(self.left),
            "left_resources": [asdict(one) for one in self.left],
            "kept_on_purpose": [asdict(one) for one in self.kept],
            "destroyed": self.destroyed,
            "existed": self.existed,
            "gpus": self.running_gpus(),
            "minutes_to_ready": _rounded(found.minutes_to_ready),
            "minutes_up": _rounded(self.up_end / 60),
            "minutes_destroy": _rounded((self.now - self.up_end) / 60),
            "minutes_until_gpus_gone": _rounded(found.gone_after_minutes),
            "gpu_idle_minutes": _rounded(found.idle_gpu_minutes),
            "gpu_node_idle_minutes": _rounded(found.idle_node_minutes),
            "gpu_node_idle_minutes_before_ready": _rounded(found.idle_before_ready_node_minutes),
            "usd_idle": round(self.usd_idle(), 2),
            "usd_spent": round(usd(spent, 0, self.now), 2),
            "usd_per_hour": round(usd_per_hour(spent, self.up_end), 2),
            "timeline": [asdict(span) for span in self.spans()],
            "steps": [asdict(step) for step in cloud_report.timeline(self.journal)],
            "durations": {
                "as_of": DURATIONS_DATE,
                "assumptions": [row.key for row in DURATIONS.values() if row.assumption],
            },
            "base": self.base
            and {
                "stack": self.base.plan.stack,
                "created": self.base.created,
                "minutes_up": _rounded(self.base.up_minutes),
                "minutes_destroy": _rounded(self.base.destroy_minutes),
                "usd_per_hour": self.base.plan.cost.usd_per_hour,
            },
            "wall_seconds": round(self.wall_seconds, 1),
            "control_plane": self.proof and self.proof.as_data(),
            "serving": self.served and self.served.as_data(),
        }

    def read(self, session: Session) -> None:
        """Take over the journal as it is now, without what happened before the stack's own time began."""
        lines, base = session.journal(), self.base
        if base is not None:
            shifted = ({**line, "start": line["start"] - base.until, "end": line["end"] - base.until} for line in lines)
            lines = [line for line in shifted if line["seq"] > base.last]
        self.journal = lines


def _rounded(minutes: float | None) -> float | None:
    return None if minutes is None else round(minutes, 2)


def rehearse(
    stack: str,
    settings: list[str],
    *,
    json_file: Path | None,
    keep: bool,
    faults: Path | None,
    control_plane: bool = False,
    serve: bool | None = None,
) -> int:
    """The whole life of a stack, after `control_plane` on a real one first. Returns the exit code.

    `serve`: whether what is up also answers (ops.serving); None does so where it can be set up.
    """
    plan = planned(stack, settings).model
    _check_faults(faults)
    _check_writable(json_file)
    engine = ensure_engine()
    serving = serve is not False and not plan.paused and _prepare_serving(serve)
    begun = time.monotonic()
    outcome = Rehearsal(plan, engine, Rates.of(plan), BaseLife(plan.base) if plan.base else None)
    typer.echo(
        f"Simulated: pulumi {engine.version} runs the program of {stack} against a pretend cloud. Nothing is created, nothing is paid."
    )
    if control_plane:
        from ops import control_plane as on_control_plane  # here alone: it brings the Kubernetes client

        outcome.proof = on_control_plane.prove(plan)
        on_control_plane.show(outcome.proof)
    with Session(keep=keep, faults=faults, engine=engine) as session:
        try:
            _prepare(session, plan, settings)
            if outcome.base is None:
                _live(session, outcome, destroy_after_failure=not keep, serve=serving)
            else:
                _live_on(outcome.base, session, outcome, keep=keep, serve=serving)
            outcome.wall_seconds = time.monotonic() - begun
        except KeyboardInterrupt:
            if keep:
                _say_how_to_go_on(session, stack)
            kept = "kept" if keep else "removed"
            raise KeyboardInterrupt(
                f"rehearsal interrupted: engine and pretend cloud are stopped, the session's folder is {kept}"
            ) from None
        report(outcome)
        if json_file is not None:
            _write_json(json_file, outcome.as_data())
        if keep:
            _say_how_to_go_on(session, stack)
    return OK if outcome.ok else FAILED


def _prepare(session: Session, plan: Plan, settings: list[str]) -> None:
    """Make the stack in the session, with `--set` in the session's copy of its file and a pretend token where one is wanted."""
    stack = plan.stack
    session.init_stack(stack)
    if settings:
        file = session.project / "stacks" / f"Pulumi.{stack}.yaml"
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        key = next(key for key in (stacks.FULL_KEY, RECIPE_KEY) if key in document["config"])
        document["config"][key] = stacks.with_settings(document["config"][key], settings)
        file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    if plan.objects.token_secret is not None:
        # Through standard input: an argument would show in the process list, and this is how it is done with a real one.
        command = ["config", "set", "--secret", "--stack", stack, "hfToken"]
        session.run(command, input=REHEARSED_SECRET).expect("set a pretend token")


def _prepare_serving(wanted: bool | None) -> bool:
    from ops import serving  # only then: nobody else waits for what it imports

    return serving.prepare(wanted=wanted)


def _live_on(base: BaseLife, session: Session, outcome: Rehearsal, *, keep: bool, serve: bool) -> None:
    """The base, the stack's life on it, and the base's end."""
    stack = base.plan.stack
    typer.echo(f"\nup of the base, {stack}")
    session.init_stack(stack)
    with Watcher(session.cloud_folder, outcome.rates, "up", 0) as watch:
        went = session.run(["up", "--yes", "--skip-preview", "--stack", stack], on_event=watch)
    lines = session.journal()
    base.created = created(lines)
    base.last = max((line["seq"] for line in lines), default=0)
    base.until = max((line["end"] for line in lines), default=0.0)
    base.up_minutes = base.until / 60
    base.things = frozenset((one.type, one.id) for one in left(session))
    if went.ok:
        _live(session, outcome, destroy_after_failure=not keep, serve=serve)
        if outcome.destroyed and (beside := [one for one in outcome.left if (one.type, one.id) not in base.things]):
            outcome.failures.append(f"destroy left {len(beside)} things of {outcome.plan.stack}: {beside[0].name} …")
    else:
        outcome.failures += _errors(f"up of the base {stack}", went)
    if keep and outcome.failures:
        return
    began = max((line["end"] for line in session.journal()), default=0.0)
    typer.echo(f"\nrelease and destroy of the base, {stack}")
    try:
        release(stack, lambda args: session.run(args).expect(f"run {args[0]} {args[1]}").stdout)
    except CommandError as refused:  # what did not go is on the base
        outcome.failures.append(str(refused))
        return
    with Watcher(session.cloud_folder, outcome.rates, "destroy", 0, since=began) as watch:
        gone = session.run(["destroy", "--yes", "--skip-preview", "--stack", stack], on_event=watch)
    base.destroy_minutes = (max((line["end"] for line in session.journal()), default=0.0) - began) / 60
    outcome.destroyed = True
    outcome.left = left(session)
    if not gone.ok:
        outcome.failures += _errors(f"destroy of the base {stack}", gone)


def _live(session: Session, outcome: Rehearsal, *, destroy_after_failure: bool, serve: bool) -> None:
    stack = outcome.plan.stack
    since = outcome.base.until if outcome.base else 0.0
    typer.echo("\npreview")
    previewed = session.run(["preview", "--stack", stack])
    outcome.previewed = previewed.changes
    if not previewed.ok:
        outcome.failures += _errors("preview", previewed)
        outcome.destroyed = True
        _count(session, outcome)
        return
    total = previewed.changes.get("create", 0)
    typer.echo(f"  would create {total} resources (components and providers among them)")

    typer.echo("\nup")
    with Watcher(session.cloud_folder, outcome.rates, "up", total, since=since) as watch:
        went = session.run(["up", "--yes", "--skip-preview", "--stack", stack], on_event=watch)
    outcome.read(session)
    outcome.up_ends = max((entry["seq"] for entry in outcome.journal), default=0)
    outcome.existed = dict(Counter(short(record["type"]) for record in session.cloud_objects()))
    if not went.ok:
        outcome.failures += _errors("up", went)
        for failure in outcome.failures:
            typer.echo(f"  {failure}", err=True)
        if not destroy_after_failure:
            _count(session, outcome)
            return
    elif serve:
        from ops import serving

        outcome.served = serving.serve_and_ask(outcome.plan, session.cloud_objects())
        if outcome.served is not None and outcome.served.failure is not None:
            outcome.failures.append(outcome.served.failure)

    typer.echo("\ndestroy")
    with Watcher(session.cloud_folder, outcome.rates, "destroy", total, since=since) as watch:
        gone = session.run(["destroy", "--yes", "--skip-preview", "--stack", stack], on_event=watch)
    outcome.destroyed = True
    outcome.read(session)
    _count(session, outcome)
    if not gone.ok:
        outcome.failures += _errors("destroy", gone)


def _count(session: Session, outcome: Rehearsal) -> None:
    """What is left over, and what was kept."""
    found = left(session)
    outcome.left = [one for one in found if not one.kept]
    outcome.kept = [one for one in found if one.kept]


def left(session: Session) -> list[Left]:
    """What exists in the pretend cloud by its own books, whatever the engine thinks."""
    return cloud_report.left(Store(session.cloud_folder))


def _errors(step: str, result: Result) -> list[str]:
    # "update failed" stands below every failure and says nothing.
    said = [message for message in dict.fromkeys(result.errors) if message.strip() != "update failed"] or [
        result.stderr.strip() or result.stdout.strip() or "the engine said nothing"
    ]
    return [f"{step} failed: {message}" for message in said]


# ── before and after ─────────────────────────────────────────────────────────────────────────────────────────────────


def _check_faults(file: Path | None) -> None:
    if file is not None:
        try:
            Faults.load(file)
        except ValueError as error:
            raise CommandError(
                str(error), "see rehearsal/cloud/faults.py for what a faults file takes", BAD_INPUT
            ) from None


def _check_writable(file: Path | None) -> None:
    """Now, rather than after the rehearsal."""
    if file is None:
        return
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise CommandError(
            f"{file} cannot be written", "name a file in a folder that exists and may be written to", BAD_INPUT
        )


def _write_json(file: Path, data: dict[str, Any]) -> None:
    """All or nothing."""
    staged: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
        staged = Path(name)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump(data, out, indent=2, ensure_ascii=False)
            out.write("\n")
        staged.chmod(0o644)
        staged.replace(file)
    except OSError as error:
        if staged is not None:
            with suppress(OSError):
                staged.unlink()
        raise CommandError(
            f"{file} cannot be written: {error.strerror}", "free space or name another file", FAILED
        ) from None


def _say_how_to_go_on(session: Session, stack: str) -> None:
    again = f"python -m ops rehearse --shell --folder {session.root}"
    typer.echo(
        f"\nKept: {session.root}\n"
        f"  go on      {again} -- pulumi up -s {stack}\n"
        f"  look       {again} -- pulumi stack -s {stack}\n"
        f"  the cloud  {session.cloud_folder / 'cloud.json'}, {session.cloud_folder / 'journal.jsonl'}\n"
        f"  remove     rm -r {session.root}"
    )


# ── --shell ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def shell(command: Sequence[str], *, folder: Path | None, keep: bool, faults: Path | None) -> int:
    """A shell, or `command`, in which plain `pulumi` works against the pretend cloud. Returns its exit code."""
    _check_faults(faults)
    if folder is not None and not (folder / "cloud").is_dir():
        raise CommandError(
            f"{folder} is not a kept rehearsal", "name the folder that `rehearse --keep` printed", BAD_INPUT
        )
    engine = ensure_engine()
    with Session(root=folder, keep=keep, faults=faults, engine=engine) as session:
        for stack in session.stack_names():
            session.init_stack(stack)
        if not command:
            typer.echo(
                f"Simulated: pulumi {engine.version} against a pretend cloud. Nothing is created, nothing is paid.\n"
                f"  pulumi preview -s {stacks.names()[0]}, pulumi up, pulumi destroy …; leave with exit"
            )
        code = session.interactive(list(command) or [os.environ.get("SHELL") or "/bin/sh"])
        remaining = left(session)
        costly = [one for one in remaining if one.costs_by_the_hour]
        typer.echo(
            f"Simulated: {len(remaining)} things exist in the pretend cloud, {len(costly)} of which would cost by the hour",
            err=True,
        )
        if keep or folder:
            typer.echo(f"Kept: {session.root}; python -m ops rehearse --shell --folder {session.root}", err=True)
    # A shell's own code is that of its last command, which is nobody's failure.
    return code if command else OK
