"""Runs the program under Pulumi's mocks and keeps every registration: type, inputs, and the options mocks do not show."""

from __future__ import annotations

import functools
import json
import os
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pulumi
import yaml
from google.protobuf import empty_pb2, json_format
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks, set_mocks
from pulumi.runtime.stack import Stack

from ops.recording import SECRET_SIGNATURE, computed
from recipe.config import PROJECT, RECIPE_KEY, parse_any
from recipe.planner import make_plan
from recipe.stack_file import read_base

ROOT = Path(__file__).parents[2]
STACKS = {path.name.split(".")[1]: path for path in sorted((ROOT / "stacks").glob("Pulumi.*.yaml"))}
BASE = "organization/dynamo-recipes/base"
"""The shipped base's qualified name in a backend that has no organizations."""


@dataclass(frozen=True)
class Registered:
    """One resource as the engine would have been asked for it."""

    urn: str
    type: str
    name: str
    inputs: dict[str, Any]
    parent: str
    custom: bool
    provider: str
    depends_on: frozenset[str]
    """URNs, explicit and through inputs."""
    property_depends_on: dict[str, frozenset[str]]
    """URNs by the input that refers to them."""
    deleted_with: str
    retained: bool
    """retain_on_delete."""
    delete_before_replace: bool
    replace_on_changes: tuple[str, ...]
    timeouts: dict[str, str]
    replacement_trigger: Any
    protect: bool
    secrets: frozenset[str]
    """Dotted paths of inputs that are marked secret."""
    wire: str
    """The whole request as text: for finding where a value went."""


@dataclass
class Run:
    """What one run of the program registered."""

    plan: Any = field(init=False)
    """Plan or BasePlan; loosely typed, since most tests know which they ran."""
    resources: dict[str, Registered] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)
    """URNs whose outputs were registered, once per time."""
    exports: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    """The exports as the engine gets them: what another stack reads."""
    warnings: list[str] = field(default_factory=list)

    def of(self, *types: str) -> list[Registered]:
        """Resources of these types, in order of registration."""
        return [one for one in self.resources.values() if one.type in types]

    def only(self, type_: str, name: str | None = None) -> Registered:
        """The one resource of a type (and logical name)."""
        found = [one for one in self.of(type_) if name is None or one.name == name]
        assert len(found) == 1, f"expected one {type_} {name or ''}, found {[one.name for one in found]}"
        return found[0]

    def named(self, name: str) -> Registered:
        """The one resource of that logical name."""
        found = [one for one in self.resources.values() if one.name == name]
        assert len(found) == 1, f"expected one {name}, found {[one.urn for one in found]}"
        return found[0]

    @property
    def custom(self) -> list[Registered]:
        """What a provider creates, without providers and components."""
        return [one for one in self.resources.values() if one.custom and not one.type.startswith("pulumi:")]

    @property
    def components(self) -> list[Registered]:
        return [one for one in self.resources.values() if one.type.startswith(f"{PROJECT}:")]

    @property
    def in_cluster(self) -> list[Registered]:
        return [one for one in self.custom if one.type.startswith("kubernetes:")]

    def behind(self, one: Registered) -> set[str]:
        """Logical names of everything that exists before `one` is created, and outlives it on destroy."""
        seen: set[str] = set()
        queue = list(one.depends_on) + [one.provider.rsplit("::", 1)[0]] * bool(one.provider)
        while queue:
            urn = queue.pop()
            if urn in seen or urn not in self.resources:
                continue
            seen.add(urn)
            other = self.resources[urn]
            queue.extend(other.depends_on)
            if other.provider:
                queue.append(other.provider.rsplit("::", 1)[0])
        return {self.resources[urn].name for urn in seen}


class _Cloud(Mocks):
    """Answers with the inputs and what the program reads from outputs. `stacks`: outputs by qualified name, for references."""

    def __init__(self, stacks: Mapping[str, dict[str, Any]]) -> None:
        self.stacks = stacks

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], None]:
        raise AssertionError(f"{args.token}: the program has no data sources, so that a preview needs no cloud")

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        state = computed(args)
        if args.typ == "pulumi:pulumi:StackReference":
            state["outputs"] = self.stacks[str(args.resource_id)]
            return args.resource_id, state
        return f"{args.name}-id", state


class _Recorder(MockMonitor):
    def __init__(self, run: Run, stacks: Mapping[str, dict[str, Any]]) -> None:
        super().__init__(_Cloud(stacks))
        self.run = run

    def RegisterResource(self, request: Any) -> Any:
        response = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        inputs = json_format.MessageToDict(request.object)
        timeouts = request.customTimeouts
        self.run.resources[response.urn] = Registered(
            urn=response.urn,
            type=request.type,
            name=request.name,
            inputs=plain(inputs),
            parent=request.parent,
            custom=request.custom,
            provider=request.provider,
            depends_on=frozenset(request.dependencies),
            property_depends_on={key: frozenset(of.urns) for key, of in request.propertyDependencies.items()},
            # The engine lets children inherit this one (facts/pulumi.md §3); mocks do not.
            deleted_with=request.deletedWith or getattr(self.run.resources.get(request.parent), "deleted_with", ""),
            retained=request.retainOnDelete,
            delete_before_replace=request.deleteBeforeReplace,
            replace_on_changes=tuple(request.replaceOnChanges),
            timeouts={key: value for key in ("create", "update", "delete") if (value := getattr(timeouts, key))},
            secrets=frozenset(secret_paths(inputs)),
            protect=request.protect,
            replacement_trigger=plain(json_format.MessageToDict(request.replacement_trigger)),
            wire=str(request),
        )
        return response

    def RegisterResourceOutputs(self, request: Any) -> empty_pb2.Empty:
        self.run.finished.append(request.urn)
        return empty_pb2.Empty()


@functools.cache
def run_base() -> Run:
    """The shipped base."""
    return run_program("base")


def plain(value: Any) -> Any:
    """Without secret wrappers, and whole numbers as int: the wire knows floats only."""
    if isinstance(value, Mapping):
        if SECRET_SIGNATURE in value:
            return plain(value.get("value"))
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def secret_paths(value: Any, path: str = "") -> Iterator[str]:
    """Where in wire-form inputs something is marked secret."""
    if isinstance(value, Mapping):
        if SECRET_SIGNATURE in value:
            yield path
            return
        for key, inner in value.items():
            yield from secret_paths(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from secret_paths(inner, path)


def recipe_of(stack: str) -> dict[str, Any]:
    """The raw recipe of a stack file."""
    raw = yaml.safe_load(STACKS[stack].read_text(encoding="utf-8"))
    return dict(raw["config"][f"{PROJECT}:{RECIPE_KEY}"])


def run_program(
    stack: str,
    raw: dict[str, Any] | None = None,
    *,
    secrets: Mapping[str, str] | None = None,
    clear: Mapping[str, str] | None = None,
    placeholders: bool = True,
    stacks: Mapping[str, dict[str, Any]] | None = None,
) -> Run:
    """`__main__.py` for `stack` with the recipe `raw` (the stack file's unless given), as the engine would run it.

    `secrets`, `clear`: further config, encrypted or not. `stacks`: outputs of other stacks by qualified name; the shipped base's, as it is, unless given.
    """
    raw = recipe_of(stack) if raw is None else raw
    if stacks is None:
        stacks = {BASE: run_base().outputs} if raw.get("foundation", {}).get("kind") == "base" else {}
    run = Run()
    monitor = _Recorder(run, stacks)
    set_mocks(monitor.mocks, project=PROJECT, stack=stack, monitor=monitor, organization="organization")
    values = {f"{PROJECT}:{RECIPE_KEY}": json.dumps(raw)} | {
        f"{PROJECT}:{key}": value for key, value in {**(secrets or {}), **(clear or {})}.items()
    }
    pulumi.runtime.set_all_config(values, [f"{PROJECT}:{key}" for key in secrets or {}])
    if isinstance(before := pulumi.runtime.get_root_resource(), Stack):
        before.outputs.clear()  # one root per process: what an earlier program exported is not this one's
    environment = {"DYNAMO_RECIPES_PLACEHOLDERS": "1"} if placeholders else {}

    @functools.partial(pulumi.runtime.test)
    def program() -> pulumi.Output[None]:
        runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")
        root = pulumi.runtime.get_root_resource()
        assert isinstance(root, Stack)
        return pulumi.Output.from_input(root.outputs).apply(run.outputs.update)

    with (
        mock.patch.dict(os.environ, environment | {"PULUMI_ERROR_OUTPUT_STRING": "true"}),
        mock.patch.object(pulumi.log, "warn", lambda message, *_, **__: run.warnings.append(message)),
    ):
        if not placeholders:
            os.environ.pop("DYNAMO_RECIPES_PLACEHOLDERS", None)
        program()
    recipe = parse_any(raw)
    run.plan = make_plan(stack, recipe, placeholders=True, base=read_base(recipe, ROOT / "stacks"))
    root = pulumi.runtime.get_root_resource()
    assert isinstance(root, Stack)
    run.exports = dict(root.outputs)
    return run
