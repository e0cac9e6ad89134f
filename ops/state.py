"""The engine's state after a crash: who locked it, whether it can be read, what was under way, and how an answer to that is written into it.

Pure over the exported deployment, except for the file backend's own files. facts/rehearsal.md §5: what works, and which of the
engine's own flags lose the evidence.
"""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import psutil

from ops.things import KINDS, RELEASE, Thing, same
from recipe.config import PROJECT

Deployment = dict[str, Any]
Resource = dict[str, Any]


# ── the file backend's files ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Lock:
    """Who holds a stack of a file backend. The engine removes it when it ends; one that was killed does not."""

    pid: int
    host: str
    user: str
    since: str

    @property
    def alive(self) -> bool | None:
        """Whether its process still runs; None where it ran on another machine."""
        if self.host != socket.gethostname():
            return None
        try:
            return psutil.Process(self.pid).is_running() and "pulumi" in psutil.Process(self.pid).name()
        except psutil.Error:
            return False


def backend_folder(url: str) -> Path | None:
    """The folder of a file backend; None for any other."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    path = unquote(parts.netloc + parts.path)
    return Path(path).expanduser() / ".pulumi"


def locks(folder: Path, stack: str) -> list[Lock]:
    """Locks on the stack in a file backend's folder. Files nobody can read count for nothing: `pulumi cancel` removes those too."""
    found = []
    for file in sorted((folder / "locks").glob(f"**/{PROJECT}/{stack}/*.json")):
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            found.append(Lock(int(said["pid"]), said["hostname"], said["username"], said["timestamp"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


@dataclass(frozen=True)
class Damage:
    """A checkpoint that cannot be read as it stands, and what mends it."""

    what: str
    mend: Callable[[], None]


def damage(folder: Path, stack: str) -> list[Damage]:
    """What is broken about the stack's checkpoint files, in the order in which to mend it.

    The file backend writes metadata beside the state in place, so that a kill can leave it empty; the state itself is replaced
    whole and kept once more as `.bak`.
    """
    state = folder / "stacks" / PROJECT / f"{stack}.json"
    found = []
    for attributes in (state.with_name(f"{state.name}{end}.attrs") for end in ("", ".bak")):
        if attributes.exists() and not _is_json(attributes):
            what = f"{attributes.name} is no JSON ({attributes.stat().st_size} bytes): only metadata, it can go"
            found.append(Damage(what, attributes.unlink))
    backup = state.with_name(f"{state.name}.bak")
    if state.exists() and not _is_json(state):
        size = state.stat().st_size
        if _is_json(backup):

            def restore() -> None:
                state.with_name(f"{state.name}.broken").write_bytes(state.read_bytes())
                # Beside it first: without any state file the stack would not exist, and nobody would notice.
                mended = state.with_name(f"{state.name}.mended")
                mended.write_bytes(backup.read_bytes())
                mended.replace(state)

            found.append(Damage(f"{state.name} is no JSON ({size} bytes): {backup.name} is the one before it", restore))
        else:

            def refuse() -> None:
                raise OSError(f"{state} and {backup.name} are both no JSON")

            found.append(Damage(f"{state.name} and {backup.name} are both no JSON", refuse))
    return found


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


# ── what was under way ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Pending:
    """An operation that the engine had begun and never heard the end of."""

    op: str
    """creating, updating, deleting, reading or importing."""
    resource: Mapping[str, Any]

    @property
    def urn(self) -> str:
        return str(self.resource["urn"])

    @property
    def type(self) -> str:
        return str(self.resource["type"])

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]

    @property
    def inputs(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.resource.get("inputs") or {}
        return found


def pending(exported: Deployment) -> tuple[Pending, ...]:
    """Operations without an end, in an exported state."""
    listed = exported["deployment"].get("pending_operations") or []
    return tuple(Pending(str(one["type"]), one["resource"]) for one in listed)


def resources(exported: Deployment) -> list[Resource]:
    """Resources of an exported state."""
    return list(exported["deployment"].get("resources") or [])


class Known:
    """What a state knows. `thing in Known(exported)`: by its id, or where only one of its kind and name can exist by that.

    Ids alone do not do: the provider makes up some of its own (a policy's attachment to a role).
    """

    def __init__(self, exported: Deployment | None) -> None:
        self._resources = [one for one in resources(exported) if one.get("id")] if exported else []
        self._ids = frozenset((one["type"], one["id"]) for one in self._resources)

    def __bool__(self) -> bool:
        return any(one["type"] in KINDS for one in self._resources)

    def __contains__(self, thing: Thing) -> bool:
        if thing.key in self._ids:
            return True
        return KINDS[thing.type].unique and any(
            same(one["type"], one.get("inputs") or {}, thing) for one in self._resources
        )


KUBERNETES: Final = "kubernetes:"


def object_id(resource: Mapping[str, Any]) -> str | None:
    """What the kubernetes provider calls the object: `namespace/name`, or `name` where it has no namespace."""
    inputs = resource.get("inputs") or {}
    place = inputs if resource["type"] == RELEASE else inputs.get("metadata") or {}
    name, namespace = place.get("name"), place.get("namespace")
    if not isinstance(name, str):
        return None
    return f"{namespace}/{name}" if isinstance(namespace, str) else name


def settled(exported: Deployment, ids: Mapping[str, str]) -> Deployment:
    """The state with no operation under way: what `ids` (by URN) has an id for is in it, as if its create had ended.

    Outputs are the inputs until a refresh has asked: the provider needs some of them to find the thing (a route, a policy attachment).
    """
    result = copy.deepcopy(exported)
    held = result["deployment"].setdefault("resources", [])
    present = {one["urn"] for one in held if not one.get("delete")}
    for one in pending(exported):
        if one.op == "creating" and one.urn in ids and one.urn not in present:
            made = ids[one.urn]
            held.append({**one.resource, "id": made, "outputs": {**one.inputs, "id": made}})
            present.add(one.urn)
    result["deployment"]["pending_operations"] = []
    return result


def refreshable(exported: Deployment, begun: Sequence[Pending]) -> list[str]:
    """URNs of what was under way and stands in the state: what only the provider can say something about."""
    present = {one["urn"] for one in resources(exported) if one.get("custom")}
    return sorted({one.urn for one in begun} & present)


def in_cluster(exported: Deployment) -> frozenset[str]:
    """URNs of the Kubernetes objects in a state."""
    return frozenset(one["urn"] for one in resources(exported) if str(one["type"]).startswith(KUBERNETES))


def without(exported: Deployment, urns: frozenset[str]) -> Deployment:
    """The state without these resources, and without any reference to them."""
    result = copy.deepcopy(exported)
    kept = [one for one in resources(result) if one["urn"] not in urns]
    for one in kept:
        if "dependencies" in one:
            one["dependencies"] = [urn for urn in one["dependencies"] if urn not in urns]
        for name, on in (one.get("propertyDependencies") or {}).items():
            one["propertyDependencies"][name] = [urn for urn in on or () if urn not in urns]
        if one.get("deletedWith") in urns:
            del one["deletedWith"]
    result["deployment"]["resources"] = kept
    return result
