"""A stack that may be running: its plan, its engine and its account, as `recover`, `sweep` and what destroys by itself need them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from ops import stacks, state
from ops.aws import Account
from ops.exits import BAD_INPUT, FAILED, MISSING, CommandError
from recipe.config import parse_any
from recipe.plan import BasePlan, FoundationPlan, Plan
from recipe.planner import make_plan
from recipe.stack_file import read_base

PLACEHOLDERS: Final = "DYNAMO_RECIPES_PLACEHOLDERS"
_LONGEST: Final = 600
_LINES: Final = 8
"""Of what the engine said, in a message."""


class Ran(Protocol):
    """How a pulumi command ended."""

    @property
    def ok(self) -> bool: ...
    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...


class Engine(Protocol):
    """`pulumi`, in the project and the environment of one stack. A rehearsal's `Session` is one."""

    def run(self, args: Sequence[str], *, env: Mapping[str, str] | None = None) -> Ran: ...


@dataclass(frozen=True)
class _Ended:
    returncode: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.returncode == 0


@dataclass(frozen=True)
class Pulumi:
    """The `pulumi` on PATH, in the project folder, with the user's own environment."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def run(self, args: Sequence[str], *, env: Mapping[str, str] | None = None) -> Ran:
        command = ["pulumi", *args, "--non-interactive", "--color", "never"]
        whole = {**self.environment, **(env or {})}
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as said,
            tempfile.TemporaryFile("w+", encoding="utf-8") as told,
        ):
            try:
                # A session of its own: Ctrl-C reaches this process alone, which passes it on where that is meant.
                process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    env=whole,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=told,
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise CommandError(
                    "there is no pulumi on PATH",
                    "https://www.pulumi.com/docs/iac/download-install/ says how to get one",
                    MISSING,
                ) from None
            try:
                process.wait()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)  # it finishes what is in flight, and nothing is left half made
                process.wait()
                raise
            said.seek(0)
            told.seek(0)
            return _Ended(process.returncode, said.read(), told.read())


def project_folder() -> Path:
    """Where `pulumi` works: here, where this is a project (a rehearsal's shell), else the checkout."""
    return Path.cwd() if (Path.cwd() / "Pulumi.yaml").exists() else stacks.ROOT


def plan_of(stack: str) -> Plan | BasePlan:
    """The plan of a stack that runs, by its file. Raises CommandError or RecipeError (an account that is not set is one)."""
    return plan_in(stack, stacks.FOLDER, placeholders=os.environ.get(PLACEHOLDERS) == "1")


def plan_in(stack: str, files: Path, *, placeholders: bool) -> Plan | BasePlan:
    """The plan of a stack by its file in the folder `files`."""
    found = stacks.load(stack, files)
    recipe = parse_any(found.raw, f"stacks/{found.path.name}")
    return make_plan(stack, recipe, placeholders=placeholders, base=read_base(recipe, found.path.parent))


def guard(plan: FoundationPlan, account: Account) -> None:
    """Raises CommandError where the credentials lead into another account than the stack's."""
    wanted, found = plan.recipe.access.account_id, account.identity()
    if found.account != wanted:
        raise CommandError(
            f"stack {plan.stack} belongs to account {wanted}, and these credentials ({found.arn}) lead to {found.account}: nothing was looked at or touched",
            f"use credentials of {wanted} (AWS_PROFILE), or mend access.account_id of the stack",
            BAD_INPUT,
        )


def run(engine: Engine, args: Sequence[str], what: str, env: Mapping[str, str] | None = None) -> Ran:
    """Run a pulumi command that has to succeed. Raises CommandError with what it said."""
    ran = engine.run(args, env=env)
    if not ran.ok:
        raise CommandError(
            f"pulumi could not {what}:\n{last_words(ran)}", f"see what `pulumi {' '.join(args)}` says", FAILED
        )
    return ran


def last_words(ran: Ran) -> str:
    """What a command that failed said: its errors, or where it names none the end of it."""
    said = f"{ran.stdout}\n{ran.stderr}".splitlines()
    errors, inside = [], False
    for line in said:
        if start := re.match(r"\s*(error|warning|info|debug): ", line):
            inside = start[1] == "error" and not line.endswith(
                "error: update failed"
            )  # that stands below every failure
        elif not line.startswith(("\t", "    ")):
            inside = False
        if inside:
            errors.append(line)
    lines = [line.strip() for line in errors or said if line.strip()]
    return "\n".join(f"  {line[:_LONGEST]}" for line in lines[-_LINES:])


def backend(engine: Engine) -> Path | None:
    """The folder of the engine's file backend; None where it keeps states elsewhere."""
    said = run(engine, ["whoami", "--json"], "say where it keeps its states").stdout
    return state.backend_folder(str(json.loads(said)["url"]))


def exported(engine: Engine, stack: str) -> dict[str, Any]:
    """The stack's state. Raises CommandError."""
    return dict(json.loads(run(engine, ["stack", "export", "--stack", stack], f"read the state of {stack}").stdout))


def exported_if_any(engine: Engine, stack: str) -> dict[str, Any] | None:
    """The stack's state; None where the backend has no such stack. Raises CommandError."""
    ran = engine.run(["stack", "export", "--stack", stack])
    if ran.ok:
        return dict(json.loads(ran.stdout))
    if "no stack named" in ran.stderr:
        return None
    raise CommandError(
        f"the state of {stack} cannot be read:\n{last_words(ran)}",
        f"python -m ops recover {stack} repairs what a crash broke; `pulumi whoami -v` says which backend was asked",
        FAILED,
    )
