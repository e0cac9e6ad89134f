"""The real program in a session: its commands, edits of its recipe, and questions to the pretend cloud's own store and journal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ops.edits import Edit, edited
from rehearsal.session import Event, Result, Session

STACK = "qwen3-32b-disagg"
RECIPE = "dynamo-recipes:recipe"
ENGINE_WORDS = {"created": "create", "changed": "update", "tags": "update", "resized": "update", "rolled": "update", "replaced": "replace",
                "destroyed": "delete"}  # fmt: skip
"""What the engine calls what `ops.effects` says."""
Row = dict[str, Any]
"""A line of the journal."""


@dataclass(frozen=True)
class Steps:
    """What a preview says it would do, by logical name of the resource; resources left alone are not in it."""

    ops: Mapping[str, frozenset[str]]
    raw: tuple[dict[str, Any], ...]

    def what(self, name: str) -> str:
        """same, create, update, replace or delete."""
        ops = self.ops.get(name, frozenset())
        if any("replace" in op for op in ops):
            return "replace"
        return next(iter(ops), "same")

    def diff(self, name: str) -> set[str]:
        """Property paths that change on the resource."""
        steps = (step for step in self.raw if step["urn"].endswith(f"::{name}"))
        return {path for step in steps for path in step.get("detailedDiff") or {}}

    def urns(self) -> set[str]:
        """Of everything that is not left alone."""
        return {step["urn"] for step in self.raw if step["op"] not in ("same", "read")}

    def changed(self) -> dict[str, str]:
        return {name: self.what(name) for name in self.ops}

    def named(self, *words: str) -> dict[str, str]:
        """Changes of resources whose name begins with one of `words`."""
        return {name: what for name, what in self.changed().items() if name.startswith(words)}


class Life:
    """One stack of the real program in `session`."""

    def __init__(self, session: Session, stack: str = STACK) -> None:
        self.session, self.stack = session, stack
        session.init_stack(stack)
        self.file = session.project / "stacks" / f"Pulumi.{stack}.yaml"

    # Commands

    def run(self, *args: str, **how: Any) -> Result:
        return self.session.run([*args, "--stack", self.stack], **how)

    def up(self, *args: str, on_event: Callable[[Event], None] | None = None) -> Result:
        return self.run("up", "--yes", "--skip-preview", *args, on_event=on_event)

    def destroy(self) -> Result:
        return self.run("destroy", "--yes", "--skip-preview")

    def preview(self) -> Steps:
        result = succeed(self.run("preview", "--json", "--show-replacement-steps"))
        ops: dict[str, set[str]] = {}
        steps = json.loads(result.stdout)["steps"]
        for step in steps:
            if step["op"] not in ("same", "read"):
                ops.setdefault(step["urn"].rpartition("::")[2], set()).add(step["op"])
        return Steps({name: frozenset(found) for name, found in ops.items()}, tuple(steps))

    # The recipe

    def edit(self, edit: Edit) -> None:
        """Change the session's copy of the stack file."""
        settings = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        settings["config"][RECIPE] = edited(settings["config"][RECIPE], edit)
        self.file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")

    @contextmanager
    def edited(self, edit: Edit) -> Iterator[None]:
        """The recipe with `edit`, for a while."""
        before = self.file.read_text(encoding="utf-8")
        self.edit(edit)
        try:
            yield
        finally:
            self.file.write_text(before, encoding="utf-8")

    # What the pretend cloud knows, whatever the engine does

    def exists(self, kind: str, name: str | None = None) -> list[dict[str, Any]]:
        """Live things of a kind such as `NodeGroup`, services' own included; `name` is the resource's logical name."""
        return [
            thing
            for thing in self.session.cloud_objects()
            if thing["type"].endswith(f":{kind}") and name in (None, thing["name"])
        ]

    def journal(self, op: str | None = None, since: int = 0) -> list[Row]:
        return [row for row in self.session.journal() if row["seq"] > since and op in (None, row["op"])]

    def seq(self) -> int:
        """Where the journal is now."""
        return max((row["seq"] for row in self.session.journal()), default=0)

    def one(self, op: str, name: str, since: int = 0) -> Row:
        """The one time `op` was done to the resource."""
        found = [row for row in self.journal(op, since) if row["name"] == name and row["outcome"] == "ok"]
        assert len(found) == 1, f"{op} of {name}: {len(found)} times"
        return found[0]

    def state(self, name: str) -> dict[str, Any] | None:
        """A resource in the engine's state, by its logical name."""
        return next((r for r in self.session.resources(self.stack) if r["urn"].endswith(f"::{name}")), None)

    def gpu_hours_began(self, since: int = 0) -> list[Row]:
        """Every GPU instance that ran, hence was paid for."""
        return [row for row in self.journal("event", since) if row["type"] == "node-running" and row.get("gpus")]


def succeed(result: Result) -> Result:
    assert result.ok, f"{result.command}\n{result.stdout[-6000:]}\n{result.stderr[-6000:]}"
    return result


def said(result: Result) -> str:
    """Everything a user sees of a command."""
    return f"{result.stdout}\n{result.stderr}"


def names(things: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted(f"{thing['type']} {thing['name']}" for thing in things)


def faults_file(folder: Path, *faults: Mapping[str, Any], capacity: Mapping[str, int] | None = None) -> Path:
    path = folder / "faults.json"
    path.write_text(json.dumps({"faults": list(faults), "capacity": dict(capacity or {})}), encoding="utf-8")
    return path
