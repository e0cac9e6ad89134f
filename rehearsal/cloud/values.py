"""Plain values that pass between the providers and the pretend cloud: results, errors, the unknown, and paths into nested inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Inputs = dict[str, Any]


class _Unknown:
    """A value the preview cannot know yet."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __copy__(self) -> _Unknown:
        return self

    def __deepcopy__(self, _memo: object) -> _Unknown:
        return self

    def __bool__(self) -> bool:
        return True


UNKNOWN: Final = _Unknown()


class CloudError(Exception):
    """The cloud refused: nothing was created or changed. The text is what the user reads."""


class Unfinished(Exception):
    """The resource exists under `id`, but is not what was asked for: `reasons` say why.

    `inputs`: as the cloud holds them, where something was read; None where the caller's own count.
    """

    def __init__(self, id: str, outputs: Inputs, reasons: list[str], inputs: Inputs | None = None) -> None:
        super().__init__("; ".join(reasons))
        self.id, self.outputs, self.reasons, self.inputs = id, outputs, reasons, inputs


@dataclass(frozen=True, slots=True)
class CheckResult:
    """`failures` are (property path, reason)."""

    inputs: Inputs
    failures: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DiffResult:
    """`replaces` and `diffs` are property paths such as `spec.template` or `nodes[0].name`."""

    changes: bool
    replaces: list[str] = field(default_factory=list)
    diffs: list[str] = field(default_factory=list)
    delete_before_replace: bool = False


def normal(value: Any) -> Any:
    """A copy in which whole floats are ints (the wire has no ints), tuples are lists, and bookkeeping keys are gone."""
    if isinstance(value, bool) or value is UNKNOWN:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(k): normal(v) for k, v in value.items() if k != "__defaults" and v is not None}
    if isinstance(value, list | tuple):
        return [normal(v) for v in value]
    return value


def get(value: Any, path: str, default: Any = None) -> Any:
    """What stands at the dotted `path`; `default` where nothing does. An unknown on the way gives UNKNOWN."""
    for part in path.split(".") if path else ():
        if value is UNKNOWN:
            return UNKNOWN
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return default if value is None else value


def annotation(inputs: Any, key: str) -> Any:
    """The annotation `pulumi.com/KEY` of a Kubernetes object; None where there is none, or nobody knows yet."""
    found = get(inputs, "metadata.annotations")
    return found.get(f"pulumi.com/{key}") if isinstance(found, Mapping) else None


def has_unknown(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(has_unknown(v) for v in value.values())
    if isinstance(value, list):
        return any(has_unknown(v) for v in value)
    return value is UNKNOWN


def many(value: Any) -> list[Any]:
    """A list of the known values in `value`: itself, its items, or nothing."""
    if value is None or value is UNKNOWN:
        return []
    items = value if isinstance(value, list) else [value]
    return [i for i in items if i is not UNKNOWN]


def digest(value: str) -> str:
    """What stands in the store for a secret: the same for the same value, and no way back."""
    return "sha256:" + hashlib.sha256(value.encode()).hexdigest()[:24]


def same(old: Any, new: Any) -> bool:
    """Equal, where a stored digest equals the secret it was made from, and the order of a list of plain words does not matter less."""
    if isinstance(old, str) and isinstance(new, str) and old != new:
        return (old.startswith("sha256:") and old == digest(new)) or (new.startswith("sha256:") and new == digest(old))
    return bool(old == new)


def changes(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Paths at which `new` differs from `old`. An unknown differs from everything: it may."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}, key=str):
            name = str(key) if all(c.isalnum() or c in "_-" for c in str(key)) else f'["{key}"]'
            below = f"{path}.{name}" if path and not name.startswith("[") else f"{path}{name}"
            yield from changes(old.get(key), new.get(key), below)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from changes(a, b, f"{path}[{i}]")
    elif not same(old, new):
        yield path


def within(path: str, field_path: str) -> bool:
    """`path` is `field_path` or lies below it, or the whole of what holds `field_path` changed."""
    return (
        path == field_path or path.startswith((field_path + ".", field_path + "[")) or field_path.startswith(path + ".")
    )
