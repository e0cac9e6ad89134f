"""The clock's view of the catalogue's durations: seconds by key, any of them overridden (`Durations({"node.gpu.ready": 600})`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from recipe.catalogue import DURATIONS


@dataclass(frozen=True, slots=True)
class Durations:
    """The table with overrides (seconds by key). An override of a key that is not in the table is refused: it would do nothing."""

    overrides: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.overrides) - set(DURATIONS)):
            raise ValueError(f"durations: unknown {', '.join(unknown)}; known are {', '.join(sorted(DURATIONS))}")

    def __getitem__(self, key: str) -> float:
        return float(self.overrides.get(key, DURATIONS[key].seconds))

    def of(self, typ: str, op: str) -> float:
        """Seconds for `op` (create, update, delete) on the resource type token `typ`."""
        kind = typ.rpartition(":")[2]
        family = "kubernetes" if typ.startswith("kubernetes:") else "default"
        key = f"{kind}.{op}" if f"{kind}.{op}" in DURATIONS else f"{family}.{op}"
        return self[key]

    def of_bytes(self, key: str, size_bytes: float | None) -> float:
        """Seconds for that many bytes, by proportion; None: as the table has it. An override is taken as it is."""
        return self[key] if key in self.overrides else self[key] * DURATIONS[key].factor(size_bytes)
