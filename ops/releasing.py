"""`ops release-base`: take the protection off a base, once no stack refers to it any more.

A StackReference keeps nothing alive: without protection `pulumi destroy` would take the base away under the stacks on it, and
with it the weights, their claims' file system and the operator that has to remove their finalizers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, Final

import typer

from ops.exits import BAD_INPUT, FAILED, MISSING, CommandError

Pulumi = Callable[[Sequence[str]], str]
"""Runs `pulumi` with arguments in the project's folder and returns what it prints. Raises CommandError where it fails."""

REFERENCE: Final = "pulumi:pulumi:StackReference"
NETWORK: Final = "dynamo-recipes:network:Network"
CACHES: Final = "dynamo-recipes:storage:Caches"
"""A base has the first component and not the second, also where its `up` failed half way."""


def release(stack: str, pulumi: Pulumi) -> None:
    """Unprotect every resource of the base `stack`. Raises CommandError: no base, or stacks on it, which it names."""
    resources = _resources(stack, pulumi)
    if not resources:
        raise CommandError(f"{stack} has no resources", "there is nothing to release", BAD_INPUT)
    types = {one["type"] for one in resources}
    if NETWORK not in types or CACHES in types:
        raise CommandError(f"{stack} is no base", "name the stack whose recipe has `kind: base`", BAD_INPUT)
    on_it = users(stack, _project(resources[0]), pulumi)
    if on_it:
        commands = "; ".join(f"pulumi destroy -s {name}" for name in on_it)
        raise CommandError(f"{stack} is the base of {', '.join(on_it)}", f"{commands}; then this again", FAILED)
    held = sum(bool(one.get("protect")) for one in resources)
    if not held:
        typer.echo(
            f"{stack} is not protected. `pulumi destroy -s {stack}` takes it away; the next `pulumi up` protects it again."
        )
        return
    pulumi(["state", "unprotect", "--all", "--yes", "--stack", stack])
    typer.echo(
        f"No stack refers to {stack}: {held} resources are released, the weights among them.\n"
        f"Next: `pulumi destroy -s {stack}`, and put no stack on it meanwhile. `pulumi up -s {stack}` would protect it again."
    )


def users(stack: str, project: str, pulumi: Pulumi) -> list[str]:
    """Stacks of the backend whose state refers to `stack` of `project`: also where their last `up` or `destroy` failed half way."""
    listed = json.loads(pulumi(["stack", "ls", "--all", "--json"]) or "[]")
    # None: the backend does not count.
    names = [one["name"] for one in listed if one.get("resourceCount") != 0]
    return [name for name in names if _refers(_resources(name, pulumi), stack, project)]


def _refers(resources: Sequence[dict[str, Any]], stack: str, project: str) -> bool:
    """Compares project and stack; the organization is the backend's, and has one name or another depending on who asks."""
    for one in resources:
        if one["type"] == REFERENCE:
            *before, name = str(one.get("id") or one["inputs"]["name"]).split("/")
            if name == stack and (before[-1] if before else _project(one)) == project:
                return True
    return False


def _project(resource: dict[str, Any]) -> str:
    # urn:pulumi:<stack>::<project>::<type>::<name>
    return str(resource["urn"].split("::")[1])


def _resources(stack: str, pulumi: Pulumi) -> list[dict[str, Any]]:
    """What is in a stack's state; what only waits to be deleted counts."""
    deployment = json.loads(pulumi(["stack", "export", "--stack", stack]))["deployment"]
    return list(deployment.get("resources") or [])


def installed() -> Pulumi:
    """The pulumi on PATH, with the user's own backend and credentials. Raises CommandError where there is none."""
    found = shutil.which("pulumi")
    if found is None:
        raise CommandError("pulumi is not on PATH", "https://www.pulumi.com/docs/iac/download-install/", MISSING)

    def run(args: Sequence[str]) -> str:
        done = subprocess.run(
            [found, *args, "--non-interactive", "--color", "never"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise CommandError(f"`pulumi {' '.join(args)}` failed:\n{said}", "mend what it says and repeat", FAILED)
        return done.stdout

    return run
