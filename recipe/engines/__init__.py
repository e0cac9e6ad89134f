"""Engines: each turns the recipe's engine-neutral settings into its own command line. One file per engine."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from recipe.config import Recipe, Role
from recipe.engines.mocker import Mocker
from recipe.engines.trtllm import Trtllm
from recipe.engines.vllm import Vllm
from recipe.engines.worker import EngineWorker
from recipe.errors import Problem

__all__ = ["ENGINES", "Engine", "EngineWorker", "engine_for"]


class Engine(Protocol):
    """What the graph needs to know of an engine."""

    @property
    def on_gpus(self) -> bool:
        """Whether it computes: on GPU nodes, with the weights. If not, it pretends: on the CPU pool, with tokenizer and configuration only."""
        ...

    @property
    def framework(self) -> Literal["vllm", "trtllm"] | None:
        """`backendFramework` of the graph; None where the CRD has no word for it."""
        ...

    @property
    def command(self) -> tuple[str, ...]:
        """The executable and its fixed arguments."""
        ...

    @property
    def keeps_compiled(self) -> bool:
        """Whether its workers mount the compilation cache."""
        ...

    @property
    def default_memory_fraction(self) -> float:
        """`gpu_memory_fraction` where the recipe sets none."""
        ...

    def usable_gib(self, total_gib: float, taken_gib: float, fraction: float) -> float:
        """GiB per GPU for weights, overhead and KV cache together (`recipe.placement.MemoryRule`)."""
        ...

    def args(self, worker: EngineWorker) -> tuple[str, ...]:
        """Arguments of one role's workers."""
        ...

    def env(self, worker: EngineWorker) -> dict[str, str]:
        """Environment of one role's workers, without the kv-transfer part."""
        ...

    def config(self, worker: EngineWorker) -> dict[str, Any] | None:
        """The engine's own configuration file of one role's workers as plain data, or None where flags say everything."""
        ...

    def publishes_kv_events(self, recipe: Recipe, role: Role) -> bool:
        """Whether the role's workers tell the router which prefixes they hold."""
        ...

    def check(self, recipe: Recipe) -> list[Problem]:
        """What this engine cannot do of the recipe."""
        ...


ENGINES: dict[str, Engine] = {"vllm": Vllm(), "trtllm": Trtllm(), "mocker": Mocker()}


def engine_for(name: str) -> tuple[Engine | None, list[Problem]]:
    """The engine called `name`, or None and the problem that says which ones exist."""
    if name in ENGINES:
        return ENGINES[name], []
    known = ", ".join(sorted(ENGINES))
    return None, [Problem("engine", name, "this version renders no manifests for it", f"one of: {known}")]
