"""FSx for Lustre as the model cache: what it holds and how fast it is. Arithmetic for the plan and for the rehearsal's clock alike.

One limit for all nodes together, where EFS has one for each: its nominal throughput, by size (facts/aws.md §6). Bursts, the servers'
memory and what one client reaches at most are left out (docs/unverified.md).
"""

from __future__ import annotations

from typing import Final

from recipe.errors import Problem
from recipe.plan import LustrePlan

LEAST_FREE: Final = 0.1
"""Of the size, kept free: Lustre slows down when it is nearly full, and what is billed is the whole of it. Ours."""


def mb_per_second(size_gib: float, throughput_mb_per_tib: float) -> float:
    """Of the whole file system, MB/s."""
    return size_gib / 1024 * throughput_mb_per_tib


def seconds_on_lustre(row: str, seconds: float, size_bytes: float | None, rate_mb: float, nodes: int) -> float:
    """How long a row of the durations takes with the weights on a file system of `rate_mb` MB/s, `nodes` of which read all of it at once.

    `seconds`: what it takes on EFS. The streamed load is at EFS' own limit there, so only Lustre's counts here. The other loaders are
    limited by themselves, and the download by the hub: they take as long as there, or as Lustre needs where that is longer.
    """
    if size_bytes is None or not row.startswith(("weights.load.", "weights.download")):
        return seconds
    needed = size_bytes / 1e6 / rate_mb * (nodes if row.startswith("weights.load.") else 1)
    return needed if row == "weights.load.streamed" else max(seconds, needed)


def check_room(lustre: LustrePlan, model_id: str, size_bytes: int) -> list[Problem]:
    """Whether the weights fit."""
    room = lustre.size_gib * 2**30 * (1 - LEAST_FREE)
    if size_bytes <= room:
        return []
    needed = size_bytes / (1 - LEAST_FREE) / 2**30
    reason = (
        f"{model_id} has {size_bytes / 2**30:,.0f} GiB, and {room / 2**30:,.0f} GiB are for it: a tenth is kept free"
    )
    return [Problem("storage.model.size_gib", lustre.size_gib, reason, f"at least {-(-needed // 2400) * 2400:.0f}")]
