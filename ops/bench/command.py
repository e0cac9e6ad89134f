"""`ops bench`: from a stack's name to measured figures, on AWS or in the rehearsal."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from ops import stacks
from ops.bench import local
from ops.bench.remote import POLL_SECONDS, Follower, cluster_access
from ops.bench.results import FOLDER, kept, load
from ops.exits import BAD_INPUT, FAILED, MISSING, OK, CommandError
from ops.planning import Planned, planned
from recipe.config import PROJECT, RECIPE_KEY
from recipe.plan import Plan

if TYPE_CHECKING:
    from ops.compare.replayed import Much

DEFAULT_PROFILE: Final = "fixed"
REHEARSAL_PROFILE: Final = "small"
_REACH_SECONDS: Final = 20.0
"""Between attempts to reach a cluster that `up` is still making."""

Emit = Callable[[Any], None]


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line."""

    profile: str | None
    settings: tuple[str, ...]
    out: Path
    rehearse: bool
    attach: bool
    again: bool
    reprint: bool
    yes: bool
    as_json: bool
    destroy: bool = False
    """Take everything away afterwards, whatever happens (ops/bench/ending.py)."""
    resume: bool = False
    max_minutes: float | None = None
    max_usd: float | None = None
    replay: Much = "no"
    """Offline replay beside the four corners."""

    @property
    def name(self) -> str:
        """Of the profile. The usual one takes about an hour, which no rehearsal should."""
        return self.profile or (REHEARSAL_PROFILE if self.rehearse else DEFAULT_PROFILE)


def bench(stack: str, wish: Wish, emit: Emit) -> int:
    """One stack. Returns the exit code."""
    local.check_out(wish.out)
    _check_model(stack)
    code, folder = rehearsed(stack, wish) if wish.rehearse else on_aws(stack, wish)
    if code and folder is None and wish.destroy:
        return code  # why was said, and nothing is left to show
    return show_result(code, folder, emit=emit if wish.as_json else None)


def _check_model(stack: str) -> None:
    """Before the profile is put into its recipe: a base has no place for one, which would be said of a key nobody wrote."""
    raw = stacks.load(stack).raw
    if isinstance(raw, dict) and raw.get("kind") == "base":
        _ = planned(stack, []).model


def show_result(code: int, folder: Path | None, *, emit: Emit | None) -> int:
    """What there is, whatever came of the run; the exit code."""
    from ops.compare.view import one_run, run_as_data
    from ops.plan_view import show

    try:
        if folder is None:
            raise CommandError("the benchmark left no results", "see what the Job says above", FAILED)
        run = load(folder)
    except CommandError as error:
        if emit:
            emit({"complete": False, "folder": str(folder) if folder else None, "problem": error.message})
        else:
            typer.echo(str(error), err=True)
        return FAILED
    if emit:
        emit(run_as_data(run))
    else:
        typer.echo("")
        show(*one_run(run))
        typer.echo(f"\n{folder}")
    if code and run.complete and (reason := run.status.get("reason")):
        typer.echo(f"\n{reason}", err=True)  # measured, but not kept everywhere
    if not run.complete:
        reason = run.status.get("reason") or "; ".join(run.problems)
        where = f"\nAlso at {run.status['s3']}" if run.status.get("s3") else ""
        typer.echo(f"\nCut short: {reason}. {kept([point.key for point in run.points])}.{where}", err=True)
    return OK if run.complete and code == 0 else FAILED


def _say(line: str) -> None:
    typer.echo(f"  {line}", err=True)


# ── the rehearsal ────────────────────────────────────────────────────────────────────────────────────────────────────


def rehearsed(stack: str, wish: Wish) -> tuple[int, Path]:
    """The real AIPerf against the real frontend with mock engines."""
    attempt = 1
    while True:
        plan = planned(stack, [*wish.settings, *_settings(wish, attempt)]).model
        assert plan.benchmark, "asked for"
        folder = wish.out / stack / plan.benchmark.profile / f"{plan.benchmark.run}-{local.REHEARSED}"
        if not (wish.again and folder.exists()):
            break
        attempt += 1
    typer.echo(
        f"Simulated: AIPerf measures Dynamo's own frontend with mock engines, as {stack} ({plan.recipe.mode}, {plan.recipe.router.mode}) is rendered. "
        f"Profile {wish.name}; results in {folder}",
        err=True,
    )
    code, folder = local.measure(plan, wish.out, _say)
    return local.exit_code(code), folder


def _settings(wish: Wish, attempt: int) -> list[str]:
    return [f"benchmark.run={wish.name}", f"benchmark.attempt={attempt}"]


# ── AWS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def on_aws(stack: str, wish: Wish) -> tuple[int, Path | None]:
    """The stack measured, and with --destroy taken away afterwards."""
    from ops.bench import ending

    if wish.resume:
        return ending.resumed(stack, wish)
    return ending.measured(stack, wish) if wish.destroy else measure_on_aws(stack, wish)


@dataclass(frozen=True)
class Prepared:
    """A benchmark that may begin. `pulumi`: the CLI; empty where none is needed."""

    plan: Plan
    attempt: int
    reprint: int
    pulumi: str


def prepare(stack: str, wish: Wish) -> Prepared:
    """Everything that is checked and asked before anything is changed. Raises CommandError: it cannot be, or is not wanted."""
    if wish.settings:
        fix = "`pulumi config set --path recipe.KEY VALUE` first: what is measured is what the stack file says"
        raise CommandError("--set goes with --rehearse", fix, BAD_INPUT)
    before = planned(stack, []).model.recipe.benchmark  # validated: a stack file may say anything
    attempt, reprint = before.attempt + int(wish.again), before.reprint + int(wish.reprint)
    found = planned(
        stack, [f"benchmark.run={wish.name}", f"benchmark.attempt={attempt}", f"benchmark.reprint={reprint}"]
    )
    _check_known(found)
    if wish.attach:
        return Prepared(found.model, attempt, reprint, "")
    pulumi = shutil.which("pulumi")
    if pulumi is None:
        raise CommandError("there is no `pulumi` on PATH", "install the Pulumi CLI (README, prerequisites)", MISSING)
    _confirm(found.model, wish)
    return Prepared(found.model, attempt, reprint, pulumi)


def measure_on_aws(stack: str, wish: Wish) -> tuple[int, Path | None]:
    """`pulumi up` with the benchmark in the stack, and its Job followed from here meanwhile."""
    ready = prepare(stack, wish)
    plan, pulumi = ready.plan, ready.pulumi
    if wish.attach:
        with cluster_access(plan) as api:
            follower = Follower(api, plan.names.namespace, None, wish.out, _say)
            follower.follow(_poll(), until=lambda: follower.answered and follower.seen_job is None)
            if follower.seen_job is None:
                raise CommandError(f"{stack} runs no benchmark", f"python -m ops bench {stack}", FAILED)
        follower.finish()
        return (OK if follower.ended == "Complete" else FAILED), follower.folder
    settings = {"run": wish.name}
    settings |= {"attempt": str(ready.attempt)} if wish.again else {}
    settings |= {"reprint": str(ready.reprint)} if wish.reprint else {}
    try:
        for key, value in settings.items():
            path = f"{PROJECT}:{RECIPE_KEY}.benchmark.{key}"
            _pulumi(pulumi, ["config", "set", "--stack", stack, "--path", path, value])
        return _up(pulumi, plan, wish)
    finally:
        # The next `up` takes the Job away again; results are on the claim, in the bucket and here. Its numbers stay in the stack file.
        with contextlib.suppress(CommandError):
            _pulumi(pulumi, ["config", "rm", "--stack", stack, "--path", f"{PROJECT}:{RECIPE_KEY}.benchmark.run"])


def _check_known(found: Planned) -> None:
    if found.fixes:
        commands = "\n  ".join(found.fixes.values())
        raise CommandError(
            "the stack lacks what only you know (the rehearsal needs none of it: --rehearse)",
            f"\n  {commands}",
            BAD_INPUT,
        )


def _confirm(plan: Plan, wish: Wish) -> None:
    if wish.yes:
        return
    question = (
        f"This runs `pulumi up` for {plan.stack}: what is missing of it is created, and measured as {wish.name}. "
        f"While it stands, {plan.stack} costs ${plan.cost.usd_per_hour:.2f} an hour"
        f"{'. Afterwards ALL of it is destroyed, its caches too, whatever happens' if wish.destroy else ', also afterwards'}. Go on?"
    )
    if not os.isatty(0):
        raise CommandError(question.removesuffix(" Go on?"), "give --yes", BAD_INPUT)
    if not typer.confirm(question, err=True):
        raise CommandError("nothing was done", "python -m ops plan STACK shows what it would cost", FAILED)


def _pulumi(pulumi: str, arguments: Sequence[str]) -> None:
    done = subprocess.run([pulumi, *arguments], cwd=stacks.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise CommandError(f"`pulumi {' '.join(arguments[:2])}` failed: {said}", "mend what it names", FAILED)


def _poll() -> float:
    """Shorter in tests."""
    return float(os.environ.get("DYNAMO_RECIPES_POLL_SECONDS", POLL_SECONDS))


def _up(pulumi: str, plan: Plan, wish: Wish) -> tuple[int, Path | None]:
    assert plan.benchmark
    prefix = plan.benchmark.job.partition("$")[0]
    command = [pulumi, "up", "--yes", "--skip-preview", "--stack", plan.stack, "--non-interactive", "--color", "never"]
    # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
    process = subprocess.Popen(
        command,
        cwd=stacks.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    watcher = _Watcher(plan, prefix, wish.out, lambda: process.poll() is not None)
    watcher.start()
    try:
        code = _heard(process)
    except BaseException:
        process.send_signal(signal.SIGINT)
        _try_say(
            "\npulumi finishes what is in flight, so that nothing is left half made"
            f"{'' if wish.destroy else '; Ctrl-C once more ends it at once'}. "
            f"A benchmark that has begun goes on in the cluster. To fetch it: python -m ops bench {plan.stack} --attach"
        )
        _heard(process)  # to its end: pulumi would block on a pipe that nobody reads
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
            _try_say(
                f"\npulumi was ended in the middle of its work. Before anything else: python -m ops recover {plan.stack}"
            )
        if process.stdout is not None:
            process.stdout.close()
        watcher.stopped.set()
        watcher.join()
    follower = watcher.follower
    if follower is None:
        raise CommandError(
            f"`pulumi up` ended with {code}, and the cluster could not be reached: {watcher.problem or 'no benchmark was seen'}",
            f"mend it, then: python -m ops bench {plan.stack} --attach",
            FAILED,
        )
    follower.finish()
    if code and follower.ended != "Failed":
        typer.echo(f"`pulumi up` ended with {code}: see above", err=True)
    return (OK if code == 0 and follower.ended == "Complete" else FAILED), follower.folder


def _heard(process: subprocess.Popen[str]) -> int:
    """All that it says, passed on, until it ends; its exit code."""
    assert process.stdout is not None
    for line in process.stdout:
        _try_say(f"  pulumi: {line.rstrip()}")
    return process.wait()


def _try_say(line: str) -> None:
    """A terminal that is gone must not end pulumi in the middle of something."""
    with contextlib.suppress(OSError):
        typer.echo(line, err=True)


class _Watcher(threading.Thread):
    """Follows the Job beside `pulumi up`, from the moment the cluster can be reached."""

    def __init__(self, plan: Plan, prefix: str, out: Path, up_ended: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self.plan, self.prefix, self.out, self.up_ended = plan, prefix, out, up_ended
        self.follower: Follower | None = None
        self.problem = ""
        self.stopped = threading.Event()

    def run(self) -> None:
        try:
            while True:
                last = self.up_ended() or self.stopped.is_set()
                try:
                    with cluster_access(self.plan) as api:
                        self.follower = Follower(api, self.plan.names.namespace, self.prefix, self.out, _say)
                        # `up` ends after the Job, so what is there then is all there will be.
                        self.follower.follow(_poll(), until=lambda: self.up_ended() or self.stopped.is_set())
                        return
                except CommandError as error:
                    self.problem = error.message
                if last:
                    return
                self.stopped.wait(min(_REACH_SECONDS, 4 * _poll()))
        except Exception as error:  # shown by whoever waits for the thread
            self.problem = f"{type(error).__name__}: {error}"


# ── corners ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Corner:
    """One of the four: a stack, with another router than its own where that is what is missing."""

    stack: str
    mode: str
    router: str
    settings: tuple[str, ...]


def corners(one: str, other: str, settings: Sequence[str] = ()) -> tuple[Corner, ...]:
    """agg and disagg, each with round-robin and kv. CommandError where the two stacks are not such a pair."""
    plans = [planned(stack, list(settings)).model for stack in (one, other)]
    modes = {plan.recipe.mode for plan in plans}
    if modes != {"agg", "disagg"}:
        named = " and ".join(f"{plan.stack} is {plan.recipe.mode}" for plan in plans)
        raise CommandError(
            f"{named}: corners need one of each mode", "name an agg and a disagg stack of one model", BAD_INPUT
        )
    equal: dict[str, set[str]] = {
        "models": {plan.model.id for plan in plans},
        "engines": {str(plan.recipe.engine) for plan in plans},
        "GPUs": {str(plan.recipe.hardware.gpu) for plan in plans},
    }
    for what, values in equal.items():
        if len(values) > 1:
            raise CommandError(
                f"the stacks have different {what}: {', '.join(sorted(values))}",
                "name a pair that has the same",
                BAD_INPUT,
            )
    found = []
    for plan in sorted(plans, key=lambda plan: plan.recipe.mode):
        for router in ("round-robin", "kv"):
            own = plan.recipe.router.mode == router
            # The whole section: what only goes with kv would be refused with round-robin.
            changed = () if own else (f"router={{mode: {router}}}",)
            found.append(Corner(plan.stack, plan.recipe.mode, router, (*settings, *changed)))
    return tuple(found)


def corner_commands(one: str, other: str, profile: str | None) -> str:
    """What to run on AWS for all four, in an order that changes a running stack once each."""
    lines = [
        "# The four corners. Another router is an update of the running stack; `bench` ends when it serves and is measured."
    ]
    name = f" --profile {profile}" if profile else ""
    for mode_stack in dict.fromkeys(corner.stack for corner in corners(one, other)):
        mine = sorted(
            (corner for corner in corners(one, other) if corner.stack == mode_stack),
            key=lambda corner: len(corner.settings),
        )
        for corner in mine:
            lines.append(f"pulumi config set -s {corner.stack} --path recipe.router.mode {corner.router}")
            lines.append(f"python -m ops bench {corner.stack}{name}    # {corner.mode}, {corner.router}")
        lines.append(f"pulumi config set -s {mode_stack} --path recipe.router.mode {mine[0].router}    # as it was")
        lines.append(f"pulumi destroy -s {mode_stack}")
    folders = " ".join(f"{FOLDER}/{stack}/{profile or DEFAULT_PROFILE}" for stack in (one, other))
    lines.append(f"python -m ops compare {folders} --all --html corners.html")
    return "\n".join(lines)


def all_corners(one: str, other: str, wish: Wish, emit: Emit, html: Path | None) -> int:
    """Measure the four in the rehearsal, and compare them."""
    from ops.compare.command import compare_folders

    local.check_out(wish.out)
    begun = time.monotonic()
    folders = []
    for number, corner in enumerate(corners(one, other, wish.settings), 1):
        typer.echo(f"\nCorner {number} of 4: {corner.mode}, {corner.router}", err=True)
        own = Wish(**{**vars(wish), "settings": corner.settings})
        code, folder = rehearsed(corner.stack, own)
        if code:
            show_result(code, folder, emit=None)
            return code
        folders.append(folder)
    typer.echo(f"\nFour corners in {(time.monotonic() - begun) / 60:.1f} minutes", err=True)
    return compare_folders(folders, as_json=wish.as_json, html=html, emit=emit, replay=wish.replay)
