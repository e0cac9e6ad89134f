"""What can be known of a deployment only while it exists, brought home before it goes: logs of its pods, events, the graph's status.

Takes what it can get in the time it is given and never stands in the way of a destroy: what could not be had is a line in the
result. Deliberately not here: benchmark results (their own command fetches those), and the API server's own logs (CloudWatch keeps them).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.kube import Kube, KubeError, Object, snapshot
from recipe.constants import PLATFORM_NAMESPACE
from recipe.plan import Plan

SECONDS: Final = 120.0
"""For all of it: two p5 nodes cost $3.70 in that time."""
_TAIL_LINES: Final = 20_000
_SECRET: Final = re.compile(
    r"(hf_|api_org_)[A-Za-z0-9]{16,}|(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"
    r"|(?i:(?<=AWS_SECRET_ACCESS_KEY)|(?<=AWS_SESSION_TOKEN))[\"']?\s*[=:]\s*[\"']?[^\s\"',}]+"
)
"""Tokens of Hugging Face, keys of AWS and what stands behind the names of its secrets, should a program print its environment."""


@dataclass
class Collected:
    """What is home now."""

    folder: Path
    files: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What could not be had, and why."""

    def say(self) -> str:
        """One line."""
        gone = f"; could not be had: {'; '.join(self.missing)}" if self.missing else ""
        return f"{len(self.files)} files of logs and events in {self.folder}{gone}"


def collect(
    plan: Plan, kube: Kube, folder: Path, *, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic
) -> Collected:
    """Write logs, events and objects of the plan's stack below `folder`. Raises OSError only: a disk that takes nothing."""
    found, begun = Collected(folder), clock()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        seen = snapshot(kube, plan.names.namespace, (PLATFORM_NAMESPACE,))
    except KubeError as error:
        found.missing.append(f"everything ({error})")
        return found
    # The graph's own words first: they are what is asked for when something went wrong.
    for name, objects in (
        ("graph", seen.graphs),
        ("events", seen.events),
        ("jobs", seen.jobs),
        ("pods", seen.pods),
        ("nodes", seen.nodes),
    ):
        _write(found, f"{name}.json", json.dumps([_readable(one) for one in objects], indent=1))
    logs = list(_logs(seen.pods, plan.names.namespace))
    for number, (name, path) in enumerate(logs):
        if clock() - begun > seconds:
            found.missing.append(f"{len(logs) - number} logs (the {seconds:.0f} seconds for it were over)")
            break
        try:
            text = kube.text(path)
        except KubeError as error:
            if not name.endswith(".previous.log"):  # there mostly is none
                found.missing.append(f"{name} ({error})")
            continue
        if text:
            _write(found, f"logs/{name}", text)
    return found


def _logs(pods: tuple[Object, ...], namespace: str) -> Iterator[tuple[str, str]]:
    """File name and path of every log, the stack's own pods first, and of what crashed what it said before."""
    for pod in sorted(pods, key=lambda pod: pod["metadata"]["namespace"] != namespace):
        name, where = pod["metadata"]["name"], pod["metadata"]["namespace"]
        status = pod.get("status") or {}
        states = {one["name"]: one for one in status.get("containerStatuses") or ()}
        names = [one["name"] for one in (pod.get("spec") or {}).get("containers") or ()] or list(states) or ["main"]
        for container in names:
            path = f"/api/v1/namespaces/{where}/pods/{name}/log?container={container}&timestamps=true&tailLines={_TAIL_LINES}"
            yield f"{where}.{name}.{container}.log", path
            if (states.get(container) or {}).get("restartCount"):
                yield f"{where}.{name}.{container}.previous.log", f"{path}&previous=true"


def _readable(one: Object) -> Any:
    """Without what a server keeps for itself."""
    metadata = {key: value for key, value in one.get("metadata", {}).items() if key != "managedFields"}
    return one | {"metadata": metadata}


def _write(found: Collected, name: str, text: str) -> None:
    file = found.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_SECRET.sub("[secret]", text), encoding="utf-8")
    found.files.append(name)
