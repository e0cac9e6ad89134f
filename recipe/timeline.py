"""What an `up` from nothing waits for: steps, what each comes after, how long it takes, and so the minutes to the first token.

Arithmetic on the catalogue's durations, many of them assumptions: what it says is computed, never measured. Only steps that
can be on the longest way are here; what is always in another's shadow (roles, log groups, routes, launch templates) is not.
The rehearsal's clock runs the real program with the same durations, and a test holds the two together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from recipe import catalogue
from recipe.constants import GPU_RESOURCE
from recipe.plan import Plan


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


@dataclass(frozen=True)
class Timeline:
    """The steps of one plan, in an order in which each comes after those it waits for. The last one is the first completion."""

    steps: tuple[Step, ...]

    serves: bool
    """False while paused: nothing waits for a first token."""

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
        rows = (catalogue.duration(key) for step in self.critical_path for key in step.rows)
        return tuple(dict.fromkeys(row.key for row in rows if row.assumption))

    def seconds(self, name: str) -> float:
        """How long a step takes."""
        (step,) = (step for step in self.steps if step.name == name)
        return step.end - step.start


def timeline(plan: Plan) -> Timeline:
    """The steps of `plan`, from an empty account; on a base, from when that is up, with nothing on its caches."""
    ends: dict[str, float] = {}
    made: list[Step] = []
    for name, rows, after in _steps(plan):
        start = max((ends[one] for one in after), default=0.0)
        ends[name] = start + sum(_seconds(plan, key) for key in rows)
        made.append(Step(name, after, rows, start, ends[name]))
    return Timeline(tuple(made), serves=not plan.paused)


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


def _seconds(plan: Plan, key: str) -> float:
    row = catalogue.duration(key)
    return row.seconds * row.factor(plan.model.weight_bytes)


_Row = tuple[str, tuple[str, ...], tuple[str, ...]]
"""Name of a step, the durations it is the sum of, and what it comes after."""


def _steps(plan: Plan) -> Iterator[_Row]:
    node = ("node.launch", "node.cpu.ready", "node-group.activate")
    whole = plan.model.cached_bytes >= plan.model.weight_bytes
    download = "weights.download" if whole else "weights.configuration"
    if plan.base is None:
        yield from _own_foundation(node)
        yield "weights", ("image.small", download), ("claims", "name of the mount target", "CoreDNS")
        yield "platform", ("Release.platform",), ("CoreDNS",)
        yield "dry run of the graph", ("kubernetes.create", "image.small", "admission.job"), ("platform",)
    else:
        yield "CPU nodes", node, ()
        # The namespace goes before the nodes its pods run on, hence comes after them.
        yield "claims", ("kubernetes.create", "kubernetes.create"), ("CPU nodes",)
        yield "weights", ("image.small", download), ("claims",)
        dry_run = ("kubernetes.create", "kubernetes.create", "image.small", "admission.job")
        yield "dry run of the graph", dry_run, ("CPU nodes",)
    if plan.paused:
        return
    everything: tuple[str, ...] = ("weights", "dry run of the graph", "claims")
    if plan.gpu_pool:
        plugins: tuple[str, ...] = ()
        if plan.base is None:
            plugins = ("device plugins",)
            yield "device plugins", ("Release.plugin",), ("add-ons of every node",)
        before = tuple(name for name in everything if name != "weights" or plan.recipe.weights.wait)
        gpu = ("node.launch", "node.gpu.ready", "node-group.activate")
        yield "GPU nodes", gpu, (*before, *plugins)
        everything = ("GPU nodes", *everything)
    yield "graph", ("kubernetes.create",), everything
    yield "workers", _loading(plan), ("graph",)
    yield "first completion", ("readiness.job",), ("workers",)


def _own_foundation(node: tuple[str, ...]) -> Iterator[_Row]:
    yield "VPC and subnets", ("Vpc.create", "Subnet.create", "RouteTableAssociation.create"), ()
    yield "NAT gateway and route", ("NatGateway.create", "default.create"), ("VPC and subnets",)
    yield "EKS control plane", ("Cluster.create",), ("NAT gateway and route",)
    yield "add-ons of every node", ("Addon.create",), ("EKS control plane",)
    yield "CPU nodes", node, ("add-ons of every node",)
    yield "CoreDNS", ("Addon.create",), ("CPU nodes",)
    # The rule of its security group refers to the cluster's group.
    yield "EFS mount target", ("default.create", "MountTarget.create"), ("EKS control plane",)
    yield "EFS driver", ("Addon.create",), ("CPU nodes",)
    yield "claims", ("kubernetes.create",), ("EFS driver", "EFS mount target")
    yield "name of the mount target", ("mount-target.dns",), ("EFS mount target",)


def _loading(plan: Plan) -> tuple[str, ...]:
    """From a pod on its node to a worker that serves, with an empty compilation cache."""
    graph = json.dumps(plan.objects.graph)
    if GPU_RESOURCE not in graph:
        return ("image.small",)
    load = "weights.load.streamed" if "runai_streamer" in graph else "weights.load.default"
    return ("image.engine", load, "engine.init", "engine.compile.cold", "engine.graphs")
