"""What a change of the program or the recipe does to each resource that runs: from two recordings, by the rehearsal's rules.

Which fields can only be set at creation stands in `rehearsal/cloud/rules.py` alone, what the program itself says (triggers, ignored
changes) in the recordings; here is how the engine carries a replacement on to whatever holds a reference, and what a node group does
with a change. `ops diff`, docs/edits.md and tests/engine/test_replacement.py all read what this says.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from recipe.constants import GPU_TAINT_KEY
from rehearsal.cloud import rules
from rehearsal.cloud.values import changes, within

Recording: TypeAlias = Mapping[str, Mapping[str, Any]]
"""URN to what was registered (ops/recording.py)."""
What = Literal["created", "changed", "tags", "resized", "rolled", "replaced", "destroyed"]
ROLLS: Final = ("launchTemplate", "releaseVersion", "version")
"""What of a node group's inputs makes EKS take its nodes away and start new ones (facts/aws.md; the rehearsal's rule is the same)."""
HOLDS_WEIGHTS: Final = (rules.FILE_SYSTEM, rules.LUSTRE)
"""What the downloaded weights are lost with. Claims, volumes and access points only lead there."""
TRIGGER: Final = "(replacement trigger)"
"""Stands as the first step of a path inside what the program replaces a resource for."""
_KUBERNETES_PROVIDER: Final = "pulumi:providers:kubernetes"
_MUTABLE: Final = {rules.CONFIG_MAP: "enableConfigMapMutable", rules.SECRET: "enableSecretMutable"}
_WHOLE: Final = "(all of it)"


@dataclass(frozen=True)
class Field:
    """One field that changes. `because` names the replaced resource whose new id makes it change; both values are None then."""

    path: str
    old: Any = None
    new: Any = None
    because: str = ""

    @property
    def key(self) -> str:
        """The same for the same change, whoever caused it."""
        return json.dumps([self.path, self.old, self.new, self.because], sort_keys=True, default=str)


@dataclass
class Effect:
    """What happens to one resource. `fields`: what changes; `decides`: the paths of those that make it more than a change in place."""

    urn: str
    name: str
    type: str
    what: What
    fields: list[Field] = field(default_factory=list)
    decides: list[str] = field(default_factory=list)
    holds: Literal["GPUs", "weights", ""] = ""
    lost: str = ""
    """What goes of what it holds; empty where nothing does."""

    @property
    def guarded(self) -> bool:
        """GPUs or weights are given up."""
        return bool(self.lost)


def effects(old: Recording, new: Recording) -> dict[str, Effect]:
    """By URN, what is not left alone. Components are left out: they are names for what is in them."""
    old, new = _custom(old), _custom(new)
    found: dict[str, Effect] = {}
    for urn in [*new, *(gone for gone in old if gone not in new)]:
        one = new.get(urn) or old[urn]
        if urn not in old or urn not in new:
            found[urn] = Effect(urn, one["name"], one["type"], "created" if urn in new else "destroyed")
        elif effect := _own(urn, old[urn], new[urn], _provider(new, one)):
            found[urn] = effect
    _carry_on(found, old, new)
    for urn, effect in found.items():
        _weigh(effect, old.get(urn), new.get(urn))
    return {urn: effect for urn, effect in found.items() if not effect.type.startswith("pulumi:")}


def _custom(recording: Recording) -> Recording:
    return {urn: one for urn, one in recording.items() if one["custom"]}


def _provider(recording: Recording, one: Mapping[str, Any]) -> Mapping[str, Any]:
    found = recording.get(one["provider"])
    inputs: Mapping[str, Any] = found["inputs"] if found else {}
    return inputs


# ── one resource by itself ───────────────────────────────────────────────────────────────────────────────────────────


def _own(urn: str, old: Mapping[str, Any], new: Mapping[str, Any], provider: Mapping[str, Any]) -> Effect | None:
    """What its own inputs and triggers say."""
    before, after = old["inputs"], new["inputs"]
    paths = [path for path in changes(before, after) if not _matches(path, new["ignore_changes"])]
    fields = [Field(path, _at(before, path), _at(after, path)) for path in paths]
    decides = [path for path in paths if _create_only(new["type"], path, provider)]
    decides += [path for path in paths if rules.shrinks(new["type"], path, _at(before, path), _at(after, path))]
    decides += [path for path in paths if _matches(path, new["replace_on_changes"])]
    for path in changes(old["trigger"], new["trigger"]):
        fields.append(Field(f"{TRIGGER}{path and '.'}{path}", _at(old["trigger"], path), _at(new["trigger"], path)))
        decides.append(fields[-1].path)
    if not fields:
        return None
    what: What = "replaced" if decides else "changed"
    return Effect(urn, new["name"], new["type"], what, fields, list(dict.fromkeys(decides)))


def _create_only(typ: str, path: str, provider: Mapping[str, Any]) -> bool:
    if typ == _KUBERNETES_PROVIDER:
        return path == "clusterIdentifier"  # facts/pulumi.md §10; where it is given, nothing else counts
    row = rules.CREATE_ONLY.get(typ)
    if row is None:
        return False
    mutable = typ in _MUTABLE and str(provider.get(_MUTABLE[typ])).lower() == "true"
    return any(within(path, one) for one in row.fields if not mutable or one.startswith("metadata"))


def _matches(path: str, patterns: Iterable[str]) -> bool:
    """Pulumi's property paths: `a.b`, `a[*].b["c"]`; a pattern covers all below it."""
    plain = _dotted(path)
    return any(
        fnmatch.fnmatchcase(plain, wanted) or fnmatch.fnmatchcase(plain, wanted + ".*")
        for pattern in patterns
        for wanted in [_dotted(pattern)]
    )


def _dotted(path: str) -> str:
    return ".".join(_steps(path))


def _steps(path: str) -> list[str]:
    return [
        quoted or index or name for quoted, index, name in re.findall(r'\["([^"]*)"\]|\[(\d+|\*)\]|([^.\[\]]+)', path)
    ]


def _at(value: Any, path: str) -> Any:
    for step in _steps(path):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


# ── from one to the next ─────────────────────────────────────────────────────────────────────────────────────────────


def _carry_on(found: dict[str, Effect], old: Recording, new: Recording) -> None:
    """A replaced resource has another id, and a changed launch template another version: whoever refers to it changes too."""
    while True:
        before = {urn: (effect.what, len(effect.fields)) for urn, effect in found.items()}
        for urn, one in new.items():
            if urn not in old:
                continue
            effect = found.get(urn)
            if effect is not None and effect.what == "created":
                continue
            for path, others in one["refers"].items():
                for other in others:
                    where = _another(found.get(other), path)
                    if where and not _matches(where, one["ignore_changes"]):
                        _follow(found, urn, one, where, new[other]["name"], new)
            provider = found.get(one["provider"])
            if provider is not None and provider.what == "replaced":
                _follow(found, urn, one, _WHOLE, provider.name, new)
        if before == {urn: (effect.what, len(effect.fields)) for urn, effect in found.items()}:
            return


def _another(effect: Effect | None, path: str) -> str:
    """Where below `path` the value read of the resource is another one afterwards; nowhere where it is the same."""
    if effect is None:
        return ""
    if effect.what == "replaced":
        return path
    # Each change of a template is a new version of it, and its id stays.
    return f"{path}.version" if effect.type == rules.LAUNCH_TEMPLATE and path == "launchTemplate" else ""


def _follow(
    found: dict[str, Effect], urn: str, one: Mapping[str, Any], path: str, because: str, new: Recording
) -> None:
    effect = found.setdefault(urn, Effect(urn, one["name"], one["type"], "changed"))
    if any(known.path == path and known.because == because for known in effect.fields):
        return
    effect.fields.append(Field(path, because=because))
    if (
        path == _WHOLE
        or _create_only(one["type"], path, _provider(new, one))
        or _matches(path, one["replace_on_changes"])
    ):
        effect.what = "replaced"
        effect.decides.append(path)


# ── what it means ────────────────────────────────────────────────────────────────────────────────────────────────────


def _weigh(effect: Effect, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
    """Say more exactly what a change in place is, and what is lost."""
    top = {_steps(one.path)[0] for one in effect.fields}
    if effect.what == "changed" and effect.type == rules.NODE_GROUP:
        if rolling := sorted(top & set(ROLLS)):
            effect.what, effect.decides = "rolled", rolling
        elif "scalingConfig" in top:
            effect.what, effect.decides = "resized", ["scalingConfig"]
    if effect.what == "changed" and top <= {"tags", "tagsAll"}:
        effect.what = "tags"
    held = old or new
    assert held is not None, "an effect is on something"
    if _has_gpus(held):
        effect.holds = "GPUs"
        before, after = (_nodes(one) if one else 0 for one in (old, new))
        if effect.what in ("replaced", "rolled", "destroyed") and before:
            effect.lost = f"{before} GPU node{'s' if before > 1 else ''}"
        elif after < before:
            effect.lost = f"{before - after} of {before} GPU nodes"
    elif effect.type in HOLDS_WEIGHTS:
        effect.holds = "weights"
        if effect.what in ("replaced", "destroyed"):
            effect.lost = "the weights and caches on it"


def _has_gpus(one: Mapping[str, Any]) -> bool:
    """A node group that only workers may use: the taint says so, whatever it is called."""
    taints = one["inputs"].get("taints") or ()
    return one["type"] == rules.NODE_GROUP and any(taint.get("key") == GPU_TAINT_KEY for taint in taints)


def _nodes(one: Mapping[str, Any]) -> int:
    return int(one["inputs"]["scalingConfig"]["desiredSize"])
