"""The Pulumi engine of the rehearsal: found on PATH, or built once from the pinned Go modules beside this file."""

from rehearsal.engine.build import Engine, ensure_engine, required_range

__all__ = ["Engine", "ensure_engine", "required_range"]
