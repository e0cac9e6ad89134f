"""What an engine is told about the workers it runs as."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.catalogue import Model
from recipe.config import Recipe, Role
from recipe.kv_transfer import KvTransferBundle


@dataclass(frozen=True)
class EngineWorker:
    """The workers of one role."""

    recipe: Recipe
    role: Role
    model: Model
    snapshot_path: str
    """Directory of the verified weights."""
    cache_path: str
    """Directory for what the engine compiles, on the compilation cache; empty for an engine that compiles nothing."""
    kv_transfer: KvTransferBundle | None
