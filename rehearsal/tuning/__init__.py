"""NVIDIA's layout search (aiconfigurator) in an environment of its own: installed once, then without a network.

    from rehearsal.tuning import ensure_environment

    python = ensure_environment()        # the environment's Python; `ops.tune_tool` runs its worker with it

The search is no part of a rehearsal. It stands here because environments from a lock are made here.
"""

from rehearsal.tuning.environment import AICONFIGURATOR, ENVIRONMENT, ensure_environment

__all__ = ["AICONFIGURATOR", "ENVIRONMENT", "ensure_environment"]
