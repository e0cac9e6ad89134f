"""What an `up` waits for: steps, what each comes after, how long it takes and what is paid meanwhile, and so the minutes to the first token.

Arithmetic on the catalogue's durations, many of them assumptions: what it says is computed, never measured. Only steps that
can be on the longest way are here; what is always in another's shadow (roles, log groups, routes, launch templates) is not.
The rehearsal's clock runs the real program with the same durations, and a test holds the two together.

`Course` is all that decides the order and the durations, so that what a plan does can be compared with what it could do
(`recipe/cold_start.py`): the same steps with another course.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Literal

from recipe import catalogue
from recipe.constants import GPU_RESOURCE
from recipe.cost import foundation_lines
from recipe.engines import ENGINES
from recipe.lustre import seconds_on_lustre
from recipe.plan import LustrePlan, Plan

LOADERS: Final = {
    "default": "weights.load.default",
    "streamed": "weights.load.streamed",
    "parallel": "weights.load.parallel",
}
"""How an engine reads the weights, and the duration that takes. `parallel`: TensorRT-LLM, which does so by itself."""
BOOT: Final = ("node.launch", "node.gpu.ready", "node-group.activate")
"""Of the GPU nodes. They are billed from the end of the first on."""


@dataclass(frozen=True)
class Course:
    """How an `up` goes: what the plan decides of it, and what is there when it begins."""

    on_base: bool
    """Network, cluster, file system and platform are there already."""
    loader: Literal["default", "streamed", "parallel"]
    parallel_pull: bool
    """The engine's image is pulled and unpacked in parallel."""
    wait: bool | Literal["overlap"] = True
    """`weights.wait`."""
    cached: bool = False
    """The weights are on the cache and verified, and what the engine compiles is there as well where it keeps it."""
    keeps_compiled: bool = True
    """The engine has a place on the compilation cache."""
    lustre: LustrePlan | None = None
    """The weights are on this FSx for Lustre; None: on EFS."""
    upstream: bool = False
    """In the order of NVIDIA's guides instead of ours: see `UPSTREAM`."""

    @classmethod
    def of(cls, plan: Plan) -> Course:
        """As `plan` is, with nothing on its caches."""
        pool = plan.gpu_pool
        return cls(
            on_base=plan.base is not None,
            loader=_loader(plan),
            parallel_pull=bool(pool and pool.parallel_pull),
            wait=plan.recipe.weights.wait,
            keeps_compiled=ENGINES[plan.recipe.engine].keeps_compiled,
            lustre=plan.storage.lustre,
        )

    def as_upstream(self) -> Course:
        """The same start in upstream's order: with its loader, its image pull, and no dry run."""
        loader = "default" if self.loader == "streamed" else self.loader
        return replace(self, upstream=True, loader=loader, parallel_pull=False, wait=False)


@dataclass(frozen=True)
class Step:
    """One thing `up` waits for. `start` and `end` are seconds since its beginning."""

    name: str
    after: tuple[str, ...]
    """Names of the steps that have to be done first."""
    rows: tuple[str, ...]
    """Keys of the durations it is the sum of."""
    start: float
    end: float

    @property
    def minutes(self) -> float:
        return (self.end - self.start) / 60


@dataclass(frozen=True)
class Rate:
    """Something that is paid by the hour, from `since` (seconds) on."""

    what: str
    usd_per_hour: float
    since: float

    def usd(self, start: float, end: float) -> float:
        """What it costs between two times, seconds."""
        return max(0.0, end - max(start, self.since)) / 3600 * self.usd_per_hour


@dataclass(frozen=True)
class GpuIdle:
    """GPU nodes that are paid for before the first token, by what they wait for. Seconds of all nodes together as one."""

    boot: float
    """Until the node group is active: the same in whatever order."""
    waiting: float
    """For something else than themselves: platform, download, graph."""
    image: float
    loading: float
    """Weights into the GPUs."""
    engine: float
    """Initialisation, compilation, CUDA graphs, and the proof by one completion."""
    usd_per_hour: float
    """Of all GPU nodes."""

    @property
    def seconds(self) -> float:
        return self.boot + self.beyond_boot

    @property
    def beyond_boot(self) -> float:
        return self.waiting + self.image + self.loading + self.engine

    def usd(self, seconds: float) -> float:
        return seconds / 3600 * self.usd_per_hour


@dataclass(frozen=True)
class Timeline:
    """The steps of one plan, in an order in which each comes after those it waits for. The last one is the first completion."""

    steps: tuple[Step, ...]

    serves: bool
    """False while paused: nothing waits for a first token."""
    rates: tuple[Rate, ...] = ()
    """What is paid by the hour, dearest first. What a base costs is the base's."""
    gpu_idle: GpuIdle | None = None
    """None where there are no GPU nodes."""
    seconds_by_row: dict[str, float] = field(default_factory=dict)
    """Of each duration that was counted with."""
    by_lustre: frozenset[str] = frozenset()
    """Those of them that the throughput of an FSx for Lustre made longer or shorter than the table says."""

    def source(self, key: str) -> str:
        """Where the seconds of a duration come from."""
        limit = "the throughput of the FSx for Lustre; on EFS: " if key in self.by_lustre else ""
        return f"{limit}{catalogue.duration(key).source}"

    @property
    def minutes_to_first_token(self) -> float | None:
        """Minutes from the beginning of `up` to the first completion; None while paused."""
        return self.steps[-1].end / 60 if self.serves else None

    @cached_property
    def critical_path(self) -> tuple[Step, ...]:
        """The steps that made the latest one as late as it is, in order."""
        by_name = {step.name: step for step in self.steps}
        path = [max(self.steps, key=lambda step: step.end)]
        while path[0].after:
            path.insert(0, max((by_name[name] for name in path[0].after), key=lambda step: step.end))
        return tuple(path)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Keys of the durations on the critical path that nobody has measured."""
        keys = (key for step in self.critical_path for key in step.rows)
        rows = (catalogue.duration("weights.download" if key == HEAD else key) for key in keys)
        return tuple(dict.fromkeys(row.key for row in rows if row.assumption))

    @property
    def gpu_idle_share(self) -> float:
        """Of the whole way: the part in which GPU nodes are paid for and nothing is served."""
        return self.gpu_idle.seconds / self.steps[-1].end if self.gpu_idle else 0.0

    @property
    def usd(self) -> float:
        """Paid by the hour until the last step ends."""
        return sum(map(self.usd_of, self.critical_path))

    def usd_of(self, step: Step) -> float:
        """Paid by the hour, whatever it is for, while that step runs."""
        return sum(rate.usd(step.start, step.end) for rate in self.rates)

    def billed(self, step: Step) -> tuple[Rate, ...]:
        """What is paid for while that step runs."""
        return tuple(rate for rate in self.rates if rate.usd(step.start, step.end) > 0)

    def seconds(self, name: str) -> float:
        """How long a step takes."""
        (step,) = (step for step in self.steps if step.name == name)
        return step.end - step.start


def timeline(plan: Plan, course: Course | None = None) -> Timeline:
    """The steps of `plan` on `course`. None: as it is, from an empty account, or from a base that is up; with nothing on the caches."""
    course = course or Course.of(plan)
    rows = {name: (keys, after) for name, keys, after in _steps(plan, course)}
    if course.upstream:
        rows = _in_upstream_order(rows)
    made: dict[str, Step] = {}

    def make(name: str) -> Step:
        if name not in made:
            keys, after = rows[name]
            start = max((make(one).end for one in after), default=0.0)
            made[name] = Step(name, after, keys, start, start + sum(_seconds(plan, course, key) for key in keys))
        return made[name]

    for name in rows:
        make(name)
    steps = tuple(made.values())
    seconds = {key: _seconds(plan, course, key) for keys, _ in rows.values() for key in keys}
    on_efs = replace(course, lustre=None)
    return Timeline(
        steps,
        serves=not plan.paused,
        rates=_rates(plan, course, made),
        gpu_idle=_gpu_idle(plan, course, made),
        seconds_by_row=seconds,
        by_lustre=frozenset(key for key, taken in seconds.items() if taken != _seconds(plan, on_efs, key)),
    )


def warnings(plan: Plan) -> tuple[str, ...]:
    """Deadlines of Jobs that end before what they wait for is expected to be done."""
    expected = timeline(plan)
    if not expected.serves:
        return ()
    deadlines = (
        ("weights.timeout_minutes", plan.recipe.weights.timeout_minutes, ("weights",), "the download"),
        ("serving.ready_timeout_minutes", plan.recipe.serving.ready_timeout_minutes, ("workers",), "loading the model"),
    )
    return tuple(
        f"{path} is {minutes}, but {what} is expected to take {needed:.0f} minutes (computed)"
        for path, minutes, names, what in deadlines
        if (needed := sum(map(expected.seconds, names)) / 60) > minutes
    )


def _seconds(plan: Plan, course: Course, key: str) -> float:
    if key == HEAD:
        return max(0.0, _seconds(plan, course, "weights.download") - lead_seconds())
    row, size = catalogue.duration(key), plan.model.weight_bytes
    seconds = row.seconds * row.factor(size)
    if course.lustre is None:
        return seconds
    nodes = plan.gpu_pool.count if plan.gpu_pool else 1
    return seconds_on_lustre(key, seconds, size, course.lustre.mb_per_second, nodes)


HEAD: Final = "weights.download, up to what GPU nodes take"
"""No row of the table: the download without its last `lead_seconds`."""


def lead_seconds() -> float:
    """How long before the download's end GPU nodes are asked for (`weights.wait: overlap`): what they take at their fastest, so that
    they wait for nothing when that is how fast they are."""
    rows = map(catalogue.duration, BOOT)
    return sum(row.seconds if row.low is None else row.low for row in rows)


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_Row = tuple[str, tuple[str, ...], tuple[str, ...]]
"""Name of a step, the durations it is the sum of, and what it comes after."""
_Rows = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]


def _steps(plan: Plan, course: Course) -> Iterator[_Row]:
    node = ("node.launch", "node.cpu.ready", "node-group.activate")
    whole = plan.model.cached_bytes >= plan.model.weight_bytes
    download = "weights.verify" if course.cached else "weights.download" if whole else "weights.configuration"
    if course.on_base:
        yield "CPU nodes", node, ()
        # The namespace goes before the nodes its pods run on, hence comes after them.
        yield "claims", ("kubernetes.create", "kubernetes.create"), ("CPU nodes",)
        before_weights: tuple[str, ...] = ("claims",)
        dry_run = ("kubernetes.create", "kubernetes.create", "image.small", "admission.job")
        yield "dry run of the graph", dry_run, ("CPU nodes",)
    else:
        yield from _own_foundation(node, course)
        before_weights = ("claims", "name of the mount target", "CoreDNS")
        yield "platform", ("Release.platform",), ("CoreDNS",)
        yield "dry run of the graph", ("kubernetes.create", "image.small", "admission.job"), ("platform",)
    yield "weights", ("image.small", download), before_weights
    if plan.paused:
        return
    everything: tuple[str, ...] = ("weights", "dry run of the graph", "claims")
    if plan.gpu_pool:
        plugins: tuple[str, ...] = ()
        if not course.on_base:
            plugins = ("device plugins",)
            yield "device plugins", ("Release.plugin",), ("add-ons of every node",)
        waited: tuple[str, ...] = ("weights",) if course.wait else ()
        if course.wait == "overlap":
            waited = ("head of the weights",)
            head = ("image.small", "weights.head.job", *(() if course.cached else (HEAD,)))
            yield waited[0], head, before_weights
        yield "GPU nodes", BOOT, (*waited, "dry run of the graph", "claims", *plugins)
        everything = ("GPU nodes", *everything)
    yield "graph", ("kubernetes.create",), everything
    yield "workers", _loading(plan, course), ("graph",)
    yield "first completion", ("readiness.job",), ("workers",)


def _own_foundation(node: tuple[str, ...], course: Course) -> Iterator[_Row]:
    yield "VPC and subnets", ("Vpc.create", "Subnet.create", "RouteTableAssociation.create"), ()
    yield "NAT gateway and route", ("NatGateway.create", "default.create"), ("VPC and subnets",)
    yield "EKS control plane", ("Cluster.create",), ("NAT gateway and route",)
    yield "add-ons of every node", ("Addon.create",), ("EKS control plane",)
    yield "CPU nodes", node, ("add-ons of every node",)
    yield "CoreDNS", ("Addon.create",), ("CPU nodes",)
    # The rule of its security group refers to the cluster's group.
    yield "EFS mount target", ("default.create", "MountTarget.create"), ("EKS control plane",)
    yield "EFS driver", ("Addon.create",), ("CPU nodes",)
    storage: tuple[str, ...] = ("EFS driver", "EFS mount target")
    if course.lustre:
        # It waits for no route and for the rules among its own servers only: it is made beside the control plane.
        yield "FSx file system", ("Vpc.create", "Subnet.create", "LustreFileSystem.create"), ()
        yield "FSx driver", ("Addon.create",), ("CPU nodes",)
        storage = (*storage, "FSx file system", "FSx driver")
    yield "claims", ("kubernetes.create",), storage
    yield "name of the mount target", ("mount-target.dns",), ("EFS mount target",)


UPSTREAM: Final[dict[str, tuple[str, ...]]] = {
    "GPU nodes": ("add-ons of every node",),
    "platform": ("CoreDNS", "GPU nodes"),
    "claims": ("EFS driver", "EFS mount target", "FSx file system", "FSx driver", "CPU nodes"),
    "weights": ("claims", "name of the mount target", "CoreDNS", "GPU nodes", "platform"),
    "graph": ("weights", "GPU nodes", "device plugins"),
}
"""What comes after what in NVIDIA's guides for EKS (facts/dynamo.md §5.1, §4.1): a cluster with its GPU nodes, the platform, the
download, the graph, one after the other as a person types them. File system and CPU nodes are beside the GPU nodes, which favours
upstream; so does that nobody's typing is counted. Of these names those that a course has; everything else as ours.

It is what holds for node groups, reservations and static pools. EKS Auto Mode asks for GPU nodes when the graph's pods wait for them."""


def _in_upstream_order(rows: _Rows) -> _Rows:
    there = {name: row for name, row in rows.items() if name != "dry run of the graph"}
    return {
        name: (keys, tuple(one for one in UPSTREAM.get(name, after) if one in there))
        for name, (keys, after) in there.items()
    }


def _loading(plan: Plan, course: Course) -> tuple[str, ...]:
    """From a pod on its node to a worker that serves."""
    if plan.gpu_pool is None and GPU_RESOURCE not in json.dumps(plan.objects.graph):
        return ("image.small",)
    compiled = course.cached and course.keeps_compiled
    return (
        "image.engine.parallel" if course.parallel_pull else "image.engine",
        LOADERS[course.loader],
        "engine.init",
        "engine.compile.cached" if compiled else "engine.compile.cold",
        "engine.graphs",
    )


def _loader(plan: Plan) -> Literal["default", "streamed", "parallel"]:
    # From the graph, as the rehearsal: what the workers are told is what happens.
    if "runai_streamer" in json.dumps(plan.objects.graph):
        return "streamed"
    return "parallel" if plan.recipe.engine == "trtllm" else "default"


# ── money ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _rates(plan: Plan, course: Course, steps: dict[str, Step]) -> tuple[Rate, ...]:
    """By the hour and from when on: an instance when it runs, the rest when it is asked for."""
    launch = catalogue.duration("node.launch").seconds
    of = {"GPU nodes": ("GPU nodes", launch), "CPU nodes": ("CPU nodes", launch)}
    lines = [line for line in plan.cost.lines if line.what.startswith(tuple(of))]
    if not course.on_base:
        of |= {
            "EKS control plane": ("EKS control plane", 0),
            "NAT gateway": ("NAT gateway and route", 0),
            "public IPv4 address": ("NAT gateway and route", 0),
        }
        lines += foundation_lines()
    found = []
    for line in lines:
        name, delay = of[line.what.partition(",")[0]]
        if name in steps:
            found.append(Rate(line.what, line.usd_per_hour, steps[name].start + delay))
    return tuple(sorted(found, key=lambda rate: -rate.usd_per_hour))


def _gpu_idle(plan: Plan, course: Course, steps: dict[str, Step]) -> GpuIdle | None:
    if "GPU nodes" not in steps or "workers" not in steps:
        return None
    nodes, workers = steps["GPU nodes"], steps["workers"]
    image = sum(_seconds(plan, course, key) for key in workers.rows if key.startswith("image."))
    loading = sum(_seconds(plan, course, key) for key in workers.rows if key.startswith("weights.load."))
    return GpuIdle(
        boot=nodes.end - nodes.start - catalogue.duration("node.launch").seconds,
        waiting=workers.start - nodes.end,
        image=image,
        loading=loading,
        engine=steps["first completion"].end - workers.start - image - loading,
        usd_per_hour=sum(line.usd_per_hour for line in plan.cost.lines if line.what.startswith("GPU nodes")),
    )
