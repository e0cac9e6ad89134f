"""What the program of any revision asks the engine for, without an engine: runs `__main__.py` under Pulumi's mocks and writes it down.

    python recording.py ROOT < jobs.json > recordings.json

A script, run by its path in a process of its own, with nothing of ours imported but what stands in ROOT: a revision's program with that
revision's `recipe/` and `components/`. Ids and other computed values are derived from logical names, so two recordings differ only
where the program or the recipe does. No credentials, no network.

jobs: `[{"key": any text, "stack": name, "recipe": plain data}, …]`, answered as `{key: {"resources": …} or {"problem": text}}`;
beside them under `catalogue` every table of ROOT's `recipe.catalogue`, as plain data.
"""

from __future__ import annotations

import functools
import json
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
from google.protobuf import empty_pb2, json_format
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks, set_mocks
from pulumi.runtime.stack import Stack

PROJECT = "dynamo-recipes"
SECRET_SIGNATURE = "4dabf18193072939515e22adb298388d"  # noqa: S105 - Pulumi's mark of a value that is not plain
TOKEN = "recorded-token"  # noqa: S105 - stands for any secret the program asks for
_PARTITION, _REFERENCE = "::", "pulumi:pulumi:StackReference"


class _Unrecorded(Exception):
    """The program refers to a stack that has to be recorded first."""

    def __init__(self, stack: str) -> None:
        super().__init__(stack)
        self.stack = stack


class _Cloud(Mocks):
    """Answers with the inputs, and with what the program reads from outputs."""

    def __init__(self, exports: Mapping[str, dict[str, Any]]) -> None:
        self.exports = exports
        self.missing = ""

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], None]:
        raise AssertionError(f"{args.token}: the program has no data sources")

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        state = computed(args)
        if args.typ == _REFERENCE:
            stack = str(args.resource_id or state.get("name") or args.name).rpartition("/")[2]
            if stack not in self.exports:
                self.missing = stack
            state |= {"outputs": self.exports.get(stack, {}), "secretOutputNames": []}
        return f"{args.name}-id", state


def computed(args: MockResourceArgs) -> dict[str, Any]:
    """A resource's outputs: its inputs, and what the program reads that only the cloud knows, made from the logical name."""
    state = dict(args.inputs)
    match args.typ:
        case "aws:eks/cluster:Cluster":
            state["endpoint"] = "https://eks.example"
            state["certificateAuthority"] = {"data": "Y2E="}
            state["vpcConfig"] = {**state["vpcConfig"], "clusterSecurityGroupId": "sg-cluster"}
        case "aws:ec2/launchTemplate:LaunchTemplate":
            state["latestVersion"] = 1
        case "pulumi:index:Stash":
            state["output"] = state["input"]
        case "aws:fsx/lustreFileSystem:LustreFileSystem":
            state["dnsName"], state["mountName"] = f"{args.name}.fsx.example", "abcdefgh"
        case "aws:ec2/eip:Eip":
            state["allocationId"] = "eipalloc-1"
    # As EKS ends the ARN of a node group: with an id of its own.
    state.setdefault("arn", f"arn:mock:{args.name}/5e1f0a9c-0000-4000-8000-000000000000")
    return state


class _Monitor(MockMonitor):
    def __init__(self, cloud: _Cloud) -> None:
        super().__init__(cloud)
        self.found: dict[str, dict[str, Any]] = {}

    def RegisterResource(self, request: Any) -> Any:
        response = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        self.found[response.urn] = {
            "name": request.name,
            "type": request.type,
            "custom": request.custom,
            "inputs": plain(json_format.MessageToDict(request.object)),
            "parent": request.parent,
            "provider": request.provider.rsplit(_PARTITION, 1)[0],
            "refers": {key: sorted(of.urns) for key, of in request.propertyDependencies.items() if of.urns},
            "ignore_changes": list(request.ignoreChanges),
            "replace_on_changes": list(request.replaceOnChanges),
            "trigger": plain(json_format.MessageToDict(request.replacement_trigger)),
            "protect": request.protect,
        }
        return response

    def RegisterResourceOutputs(self, request: Any) -> empty_pb2.Empty:  # noqa: ARG002
        return empty_pb2.Empty()


def plain(value: Any) -> Any:
    """Without secret wrappers, and whole numbers as int: the wire knows floats only."""
    if isinstance(value, Mapping):
        if SECRET_SIGNATURE in value:
            return "(secret)"
        return {key: plain(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Recorder:
    """Records programs of one revision. `stack_recipe` gives the recipe of a stack that others refer to."""

    def __init__(self, root: Path, recipes: Mapping[str, Any]) -> None:
        self.root, self.recipes = root, recipes
        self.exports: dict[str, dict[str, Any]] = {}

    def record(self, stack: str, recipe: Any) -> dict[str, Any]:
        """`{"resources": {urn: …}}`, or `{"problem": …}` where the program refuses the recipe or ends in an error."""
        try:
            return {"resources": self._run(stack, recipe)}
        except _Unrecorded as first:
            if first.stack not in self.recipes:
                return {"problem": f"{stack} refers to {first.stack}, which has no stack file"}
            base = self.record(first.stack, self.recipes[first.stack])
            return base if "problem" in base else self.record(stack, recipe)
        except Exception as error:
            return {"problem": str(error) or type(error).__name__}

    def _run(self, stack: str, recipe: Any) -> dict[str, Any]:
        cloud = _Cloud(self.exports)
        monitor = _Monitor(cloud)
        set_mocks(cloud, project=PROJECT, stack=stack, monitor=monitor)
        secret = f"{PROJECT}:hfToken"
        pulumi.runtime.set_all_config({f"{PROJECT}:recipe": json.dumps(recipe), secret: TOKEN}, [secret])
        if isinstance(before := pulumi.runtime.get_root_resource(), Stack):
            before.outputs.clear()  # one root per process

        @functools.partial(pulumi.runtime.test)
        def program() -> None:
            runpy.run_path(str(self.root / "__main__.py"), run_name="__main__")

        try:
            program()
        except Exception:
            if cloud.missing:
                raise _Unrecorded(cloud.missing) from None
            raise
        if cloud.missing:
            raise _Unrecorded(cloud.missing)
        root = pulumi.runtime.get_root_resource()
        self.exports[stack] = dict(root.outputs) if isinstance(root, Stack) else {}
        return monitor.found


def catalogue() -> dict[str, Any]:
    """Every table and pin of the revision's catalogue by its name, as plain data."""
    from pydantic import BaseModel

    import recipe.catalogue as tables

    def data(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return value.model_dump(mode="json")
        if isinstance(value, Mapping):
            return {str(key): data(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [data(inner) for inner in value]
        return value if isinstance(value, str | int | float | bool | None) else str(value)

    return {name: data(getattr(tables, name)) for name in dir(tables) if name.isupper()}


def main() -> None:
    """Read the jobs, write the recordings."""
    root = Path(sys.argv[1]).resolve()
    sys.path[0] = str(root)  # in place of this script's own folder
    os.environ |= {"DYNAMO_RECIPES_PLACEHOLDERS": "1", "PULUMI_ERROR_OUTPUT_STRING": "true"}
    asked = json.load(sys.stdin)
    answer, sys.stdout = sys.stdout, sys.stderr  # whatever the program prints is no answer
    for word in ("debug", "info", "warn", "error"):
        setattr(pulumi.log, word, lambda *_, **__: None)
    recorder = Recorder(root, asked["recipes"])
    found = {job["key"]: recorder.record(job["stack"], job["recipe"]) for job in asked["jobs"]}
    json.dump({"recordings": found, "catalogue": catalogue()}, answer)


if __name__ == "__main__":
    main()
