"""What a cold start costs, and what each knob of it is worth: the timeline of a plan beside the ones it could have.

All computed on the catalogue's durations and prices, nothing measured. "GPU idle" is what the rehearsal's clock counts as idle: GPU nodes
paid for while no token has come. `beyond boot` leaves out what the nodes take to start, which every order pays alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from recipe import catalogue
from recipe.config import FsxLustreModel
from recipe.cost import lustre_line
from recipe.foundation import lustre_plan
from recipe.plan import LustrePlan, Plan
from recipe.timeline import Course, Timeline, lead_seconds, timeline

Start = Literal["nothing", "base", "weights"]
STARTS: Final[dict[Start, str]] = {
    "nothing": "an empty account",
    "base": "a base that is up, with empty caches",
    "weights": "a base that is up, with the weights and what was compiled on it",
}
QUARTER: Final = 0.25
"""Target of issue 8: GPU idle $ in our order, at most this share of those in upstream's."""
MOST_SHARE: Final = 0.35
"""Target of issue 8: from a base, the share of the way in which GPUs idle."""


def course(plan: Plan, start: Start) -> Course:
    """`plan`'s own course from that start, whatever foundation its file names."""
    return replace(Course.of(plan), on_base=start != "nothing", cached=start == "weights")


@dataclass(frozen=True)
class Compared:
    """One start of one stack, in our order and in upstream's."""

    start: Start
    ours: Timeline
    upstream: Timeline

    def ratio(self, *, beyond_boot: bool) -> float:
        """GPU idle $ of ours by upstream's."""
        assert self.ours.gpu_idle is not None, "compared only where there are GPU nodes"
        assert self.upstream.gpu_idle is not None, "compared only where there are GPU nodes"
        mine, theirs = self.ours.gpu_idle, self.upstream.gpu_idle
        return mine.beyond_boot / theirs.beyond_boot if beyond_boot else mine.seconds / theirs.seconds

    def share(self, *, beyond_boot: bool) -> float:
        """Of our way, in which GPUs idle."""
        assert self.ours.gpu_idle is not None, "compared only where there are GPU nodes"
        idle = self.ours.gpu_idle
        return (idle.beyond_boot if beyond_boot else idle.seconds) / self.ours.steps[-1].end


def compare(plan: Plan) -> tuple[Compared, ...]:
    """Every start; nothing for a plan without GPU nodes."""
    if not plan.gpu_pool or plan.paused:
        return ()
    found: list[Compared] = []
    # With a file system of its own a stack stands on no base (the planner refuses it).
    for start in ("nothing",) if plan.storage.lustre else tuple(STARTS):
        own = course(plan, start)
        found.append(Compared(start, timeline(plan, own), timeline(plan, own.as_upstream())))
    return tuple(found)


# ── knobs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Knob:
    """One choice as the plan has it, and what another one would change."""

    key: str
    now: str
    other: str
    minutes: float
    """To the first token, more (or, negative, fewer) with the other one."""
    idle_usd: float
    """For idle GPUs, likewise."""
    usd: float
    """All that is paid by the hour until the first token, likewise."""
    why: str


def knobs(plan: Plan) -> tuple[Knob, ...]:
    """Each knob with its alternatives, from the start that the plan's file has; nothing without GPU nodes."""
    return tuple(_knobs(plan)) if plan.gpu_pool and not plan.paused else ()


def _knobs(plan: Plan) -> Iterator[Knob]:
    own = Course.of(plan)
    engine = plan.recipe.engine

    def knob(key: str, now: str, other: str, why: str, changed: Course, start: Course = own) -> Knob:
        before, after = timeline(plan, start), timeline(plan, changed)
        assert before.gpu_idle is not None, "asked only where there are GPU nodes"
        assert after.gpu_idle is not None, "asked only where there are GPU nodes"
        return Knob(
            key,
            now,
            other,
            minutes=(after.steps[-1].end - before.steps[-1].end) / 60,
            idle_usd=after.gpu_idle.usd(after.gpu_idle.seconds) - before.gpu_idle.usd(before.gpu_idle.seconds),
            usd=after.usd - before.usd,
            why=why,
        )

    foundation = ("base", "created") if own.on_base else ("created", "base")
    if own.lustre is None:
        yield knob(
            "foundation.kind",
            *foundation,
            "a base is paid for while nobody uses it; it pays where stacks come and go",
            replace(own, on_base=not own.on_base),
        )
    if not own.on_base:  # on a base they are the base's, on EFS
        for choice in (None,) if own.lustre else tuple(lustre_plan(one) for one in FSX_SIZES):
            paid = choice or own.lustre
            assert paid is not None, "one of the two is Lustre"
            yield knob(
                "storage.model",
                storage_words(own.lustre),
                storage_words(choice),
                f"the file system is ${lustre_line(paid).usd_per_hour:.2f} an hour, which is not in these $, and takes 10 minutes to make; "
                f"EFS bills ${_read_usd(plan):.2f} for the reading of a start",
                replace(own, lustre=choice),
            )
    yield knob("(caches)", "empty", "filled by an earlier start", "kept by a base", replace(own, cached=True))
    for other in (one for one in (True, False, "overlap") if one != own.wait):
        yield knob("weights.wait", _word(own.wait), _word(other), _why_wait(plan, other), replace(own, wait=other))
    if own.loader == "parallel":
        yield knob(
            "(loader)",
            "parallel",
            "one file after the other",
            f"{engine} reads many files at once by itself",
            replace(own, loader="default"),
        )
    else:
        other_loader: Literal["streamed", "default"] = "default" if own.loader == "streamed" else "streamed"
        yield knob(
            "weights.loader",
            own.loader,
            other_loader,
            "unset: streamed, which idles less",
            replace(own, loader=other_loader),
        )
    yield knob(
        "hardware.parallel_pull",
        _word(own.parallel_pull),
        _word(not own.parallel_pull),
        _why_pull(plan),
        replace(own, parallel_pull=not own.parallel_pull),
    )
    if own.keeps_compiled:
        filled = replace(own, cached=True)
        yield knob(
            "(compilation cache)",
            "kept, by image, GPU, TP and type",
            "none",
            "of every start but the first",
            replace(filled, keeps_compiled=False),
            filled,
        )


def _word(value: object) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _why_wait(plan: Plan, other: bool | str) -> str:
    own = Course.of(plan)
    if other is True:
        return "GPU nodes start when nothing of the download can fail any more"
    if other is False:
        slow = extra_idle_when_slow(plan)
        return f"a download at its slowest (and nodes at their fastest) would idle GPUs for ${slow:.2f} more; one that fails finds them running"
    waiting, overlapping = timeline(plan, replace(own, wait=True)), timeline(plan, replace(own, wait="overlap"))
    saved, lost = waiting.usd - overlapping.usd, lead_seconds() / 3600 * _gpu_rate(plan)
    chance = saved / lost if lost else 0.0
    return (
        f"saves ${saved:.2f}, and loses ${lost:.2f} when the download fails near its end: pays below 1 failure in {1 / chance:.0f}"
        if chance > 0
        else "saves no time here"
    )


def _why_pull(plan: Plan) -> str:
    assert plan.gpu_pool is not None, "asked only where there are GPU nodes"
    reason = catalogue.check_parallel_pull(plan.gpu_pool.ami_release)
    return (
        f"unset: false, because {reason}"
        if reason
        else "unset: true, which idles less; the AMI release is pinned and holds it"
    )


def _gpu_rate(plan: Plan) -> float:
    return sum(line.usd_per_hour for line in plan.cost.lines if line.what.startswith("GPU nodes"))


def extra_idle_when_slow(plan: Plan) -> float:
    """$ of GPUs that idle longer with `weights.wait: false`, where the download takes as long as was ever seen and nodes are as fast."""
    found = timeline(plan, replace(Course.of(plan), wait=False))
    steps = {step.name: step for step in found.steps}
    download = catalogue.duration("weights.download")
    late = steps["weights"].end + ((download.high or download.seconds) - download.seconds) * download.factor(
        plan.model.weight_bytes
    )
    ready = steps["GPU nodes"].start + lead_seconds()
    return max(0.0, late - ready) / 3600 * _gpu_rate(plan)


# ── storage and copies ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Storage:
    """One way to keep the weights, and what a start from it takes and costs."""

    what: str
    made_in: float
    """Minutes until it can be used, when it is new."""
    loading: float
    """Seconds until all workers have read the weights, at the storage's limit."""
    gpu_usd: float
    """For GPUs meanwhile."""
    read_usd: float
    """For reading, at each start; workers of one node read once (page cache)."""
    usd_per_hour: float
    """While it exists."""


EFS_CLIENT_MB: Final = 1500 * 1.048576
"""MB/s that one node reads from EFS at most (facts/aws.md §6: 1,500 MiB/s)."""
STORE_MB: Final = 30_000.0
"""MB/s of a node's instance store (facts/aws.md §6: about 30 GB/s)."""
FSX_SIZES: Final = (
    FsxLustreModel(kind="fsx-lustre", size_gib=2400, throughput_mb_per_tib=500),
    FsxLustreModel(kind="fsx-lustre", size_gib=4800, throughput_mb_per_tib=1000),
)
"""What is shown beside EFS: a small one and a large one."""


def storage_words(lustre: LustrePlan | None) -> str:
    """Where the weights are, in a few words."""
    return f"fsx-lustre, {lustre.size_gib:,} GiB at {lustre.throughput_mb_per_tib}" if lustre else "efs"


def _read_usd(plan: Plan) -> float:
    """For one reading of the weights from EFS by every GPU node."""
    nodes = plan.gpu_pool.count if plan.gpu_pool else 0
    return plan.model.weight_bytes / 1e9 * nodes * (catalogue.PRICES["efs/read-gb"].usd or 0)


def storages(plan: Plan) -> tuple[Storage, ...]:
    """EFS, the default, beside FSx for Lustre; and EFS with a copy on the instance store first, which is not done."""
    if not plan.gpu_pool:
        return ()
    gb, nodes, rate = plan.model.weight_bytes / 1e9, plan.gpu_pool.count, _gpu_rate(plan)
    stored = catalogue.PRICES["efs/storage-gb-month"].usd or 0
    efs = gb * 1000 / EFS_CLIENT_MB
    seconds = catalogue.duration

    def row(what: str, made_in: float, loading: float, reads: float, hourly: float) -> Storage:
        return Storage(what, made_in / 60, loading, loading / 3600 * rate, reads, hourly)

    made = sum(seconds(key).seconds for key in ("FileSystem.create", "MountTarget.create", "mount-target.dns"))
    found = [
        row("EFS, read directly", made, efs, _read_usd(plan), gb * stored / 730),
        row(
            "EFS, copied to the instance store first",
            made,
            efs + 2 * gb * 1000 / STORE_MB,
            _read_usd(plan),
            gb * stored / 730,
        ),
    ]
    sizes = [lustre_plan(one) for one in FSX_SIZES]
    for one in sizes if plan.storage.lustre in (None, *sizes) else [plan.storage.lustre, *sizes]:
        assert one is not None, "the plan's own is there or in no list"
        # One limit for all nodes together, and each reads everything.
        loading = gb * 1000 * nodes / one.mb_per_second
        what = f"FSx for Lustre, {one.size_gib:,} GiB at {one.throughput_mb_per_tib} MB/s per TiB"
        found.append(row(what, seconds("LustreFileSystem.create").seconds, loading, 0, lustre_line(one).usd_per_hour))
    return tuple(found)


# ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def node_holders(plan: Plan) -> tuple[str, ...]:
    """What has to run on a GPU node before a worker can, and why the taint does not keep it away."""
    if not plan.gpu_pool:
        return ()
    ready = "vpc-cni and kube-proxy (Ready; EKS' add-ons tolerate every taint)"
    charts = [
        f"{chart.release} ({'EFA' if 'efa' in chart.release else 'GPUs'} allocatable; "
        f"{'tolerates the taint by our values' if 'tolerations' in chart.values else 'its chart tolerates the taint'})"
        for chart in plan.devices
    ]
    drivers = "the EFS and the FSx driver's node parts" if plan.storage.lustre else "the EFS driver's node part"
    return (ready, *charts, f"{drivers} (mounts; tolerates every taint)")
