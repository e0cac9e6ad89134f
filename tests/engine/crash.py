"""Killing the engine at one place, and the commands that put things right afterwards, on the real program in a session."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.aws_pretend import PretendAccount
from ops.deployed import plan_in
from ops.recover import Recovered, evidence_file, recover
from ops.sweep import Swept, sweep
from recipe.plan import BasePlan, Plan
from rehearsal.cloud.faults import Fault, Faults
from rehearsal.session import Result

from .life import Life


def agrees(_question: str) -> bool:
    return True


def refuses(_question: str) -> bool:
    return False


@dataclass(frozen=True)
class _NoStack:
    """What the engine says of a stack that its backend does not have."""

    ok: bool = False
    stdout: str = ""
    stderr: str = "error: no stack named 'qwen3-32b-disagg' found"


class Forgot:
    """An engine whose state was lost."""

    def run(self, args: Sequence[str], **_how: Any) -> _NoStack:
        assert list(args[:2]) == ["stack", "export"]
        return _NoStack()


@dataclass
class Crash:
    """`life`, with what a person would do to it. `said`: everything the commands printed."""

    life: Life
    said: list[str] = field(default_factory=list)

    @property
    def plan(self) -> Plan | BasePlan:
        """Of the session's own stack file, edits included."""
        return plan_in(self.life.stack, self.life.file.parent, placeholders=True)

    @property
    def evidence(self) -> Path:
        return evidence_file(self.life.session.root, self.life.stack)

    @property
    def account(self) -> PretendAccount:
        ports = dict(item.split(":") for item in self.life.session.env["PULUMI_DEBUG_PROVIDERS"].split(","))
        return PretendAccount(self.life.session.cloud_folder, self.plan.recipe.access.region, ports=ports)

    def kill(self, kind: str, when: str, op: str = "create", name: str = "") -> Result:
        """`up` (or destroy) until an operation on `kind` is held, and a kill -9 then."""
        session = self.life.session
        hold = Fault.model_validate({"op": op, "type": kind, "when": when, "name_contains": name, "hold": True})
        session.tell(Faults(faults=(hold,)))

        def tick() -> None:
            if session.held():
                session.kill()

        command = "up" if op == "create" else "destroy"
        result = self.life.run(command, "--yes", "--skip-preview", on_tick=tick)
        assert result.exit_code == -9, f"nothing was held: {result.stdout[-2000:]}{result.stderr[-2000:]}"
        session.tell(Faults())
        return result

    def recover(self, confirm: Callable[[str], bool] = agrees, **how: Any) -> Recovered:
        return recover(
            self.plan,
            how.pop("engine", self.life.session),
            how.pop("account", self.account),
            self.said.append,
            confirm,
            self.evidence,
            sleep=lambda _: time.sleep(0.05),
            **how,
        )

    def sweep(self, confirm: Callable[[str], bool] = agrees, **how: Any) -> Swept:
        engine, account = how.pop("engine", self.life.session), how.pop("account", self.account)
        return sweep(self.plan, engine, account, self.said.append, confirm, sleep=lambda _: time.sleep(0.05), **how)
