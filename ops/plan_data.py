"""A plan as plain data: what `ops plan --json` prints. Keys are a contract; new ones may come, none goes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, Final

from ops import cold_start
from ops.resources import rooms
from recipe import catalogue
from recipe.catalogue import DURATIONS_DATE
from recipe.config import Base, Recipe
from recipe.errors import Problem, RecipeError
from recipe.plan import BasePlan, NodePool, Plan
from recipe.planner import make_plan
from recipe.predictions import gaps, of_plan
from recipe.timeline import timeline
from recipe.timeline import warnings as timeline_warnings

PRICE_AGE_DAYS: Final = 180
"""Older prices are warned about (facts/aws.md §8: p5 fell by 44 % in a day)."""


def commands(plan: Plan | BasePlan, stack_recipe: Recipe | Base, base: Base | None = None) -> dict[str, str]:
    """The command that sets each placeholder, by its path: the planner's own words for what it refuses without placeholders."""
    if not plan.placeholders:
        return {}
    try:
        make_plan(plan.stack, stack_recipe, placeholders=False, base=base)
    except RecipeError as refused:
        return {problem.path: problem.fix for problem in refused.problems if problem.path in plan.placeholders}
    return {}


def warnings(plan: Plan | BasePlan, today: date) -> tuple[str, ...]:
    """The plan's warnings, deadlines that end too early, and prices older than `PRICE_AGE_DAYS` that make up more than 1 % (the plan itself has no clock)."""
    much = plan.cost.usd_per_hour / 100
    dated = [
        (line, date.fromisoformat(line.as_of)) for line in plan.cost.lines if line.as_of and line.usd_per_hour > much
    ]
    old = [f"{line.what} ({as_of})" for line, as_of in dated if (today - as_of).days > PRICE_AGE_DAYS]
    aged = (f"prices older than {PRICE_AGE_DAYS} days: {'; '.join(old)}",) if old else ()
    late = timeline_warnings(plan) if isinstance(plan, Plan) else ()
    return (*plan.warnings, *late, *aged, *_dearer_control_plane(plan, today))


def _dearer_control_plane(plan: Plan | BasePlan, today: date) -> Iterator[str]:
    """EKS takes six times as much for a Kubernetes version whose standard support has ended. The plan has no clock to know it by."""
    until = catalogue.KUBERNETES[plan.cluster.version].standard_support_until
    if today > until:
        usd = catalogue.PRICES["eks/extended"].usd or 0.0
        yield (
            f"Kubernetes {plan.cluster.version} left standard support on {until}: the control plane costs ${usd:.2f} an hour, which is not in the totals"
        )


def as_data(plan: Plan | BasePlan, fixes: dict[str, str], today: date) -> dict[str, Any]:
    """The whole plan, without the manifests (see `--manifests`). That of a base has fewer keys, and `kind`."""
    if isinstance(plan, BasePlan):
        return {"kind": "base"} | _foundation_data(plan, fixes, today)
    gpu, base = plan.gpu_pool, plan.base
    return {
        "engine": plan.recipe.engine,
        "mode": plan.recipe.mode,
        "router": plan.recipe.router.mode,
        "instance_type": gpu.instance_type if gpu else None,
        "capacity": plan.recipe.hardware.capacity.kind,
        "gpu_nodes": gpu.count if gpu else 0,
        "gpus": plan.gpus,
        "paused": plan.paused,
        "efa_per_node": efa_per_node(plan),
        "gpu": plan.recipe.hardware.gpu,
        "computed": _computed(plan),
        "predicted": predicted(plan),
        "workers": [pool.model_dump(mode="json") for pool in plan.workers],
        "images": plan.images,
        "model": plan.model.model_dump(mode="json"),
        "gpu_pool": _pool(gpu) | {"nics": [nic.model_dump(mode="json") for nic in gpu.nics]} if gpu else None,
        "base": {"stack": base.stack, "usd_per_hour": base.cost.usd_per_hour} if base else None,
    } | _foundation_data(plan, fixes, today)


def predicted(plan: Plan) -> dict[str, Any]:
    """What NVIDIA's search tool predicted of this layout and of those beside it. `own` is its first traffic; empty where none was judged."""
    rows = of_plan(plan)
    if not rows:
        return {}
    own = next(row for row in rows if row.own)
    return {
        "own": own.model_dump(mode="json"),
        "rows": [row.model_dump(mode="json") for row in rows],
        "gaps": list(gaps(plan.model.id, plan.recipe.engine)),
    }


def _foundation_data(plan: Plan | BasePlan, fixes: dict[str, str], today: date) -> dict[str, Any]:
    cost = plan.cost
    return {
        "stack": plan.stack,
        "region": plan.recipe.access.region,
        "zone_id": plan.network.nodes.zone_id,
        "usd_per_hour": cost.usd_per_hour,
        "usd_once": cost.usd_once,
        "ttl_hours": cost.ttl_hours,
        "usd_for_ttl": cost.usd_for_ttl,
        "versions": plan.versions,
        "cpu_pool": _pool(plan.cpu_pool),
        "placement": plan.placement.model_dump(mode="json"),
        "storage": plan.storage.model_dump(mode="json"),
        "network": plan.network.model_dump(mode="json"),
        "charts": [chart.model_dump(mode="json", exclude={"values"}) for chart in (plan.platform, *plan.devices)],
        "cost": cost.model_dump(mode="json"),
        "resources": [{"room": room.name, "count": room.count, "kinds": room.kinds} for room in rooms(plan)],
        "names": plan.names.model_dump(mode="json"),
        "tags": plan.tags,
        "warnings": list(warnings(plan, today)),
        "notes": list(plan.notes),
        "placeholders": [{"path": path, "command": fixes.get(path, "")} for path in plan.placeholders],
    }


def _computed(plan: Plan) -> dict[str, Any]:
    """Expected times, from nothing: arithmetic on the catalogue's durations, never a measurement."""
    found = timeline(plan)
    minutes = found.minutes_to_first_token
    return {
        "minutes_to_first_token": None if minutes is None else round(minutes, 1),
        "durations_as_of": DURATIONS_DATE,
        "assumptions": list(found.assumptions),
    } | cold_start.data(plan)


def efa_per_node(plan: Plan) -> int:
    """EFA devices of one GPU node, used or not; 0 without GPU nodes."""
    return sum(nic.type != "interface" for nic in plan.gpu_pool.nics) if plan.gpu_pool else 0


def _pool(pool: NodePool) -> dict[str, Any]:
    return pool.model_dump(mode="json", exclude={"user_data", "nics"})


def problems_as_data(error: RecipeError) -> dict[str, Any]:
    """`{"problems": [{path, value, reason, fix}]}`."""
    return {"problems": [_problem(problem) for problem in error.problems]}


def _problem(problem: Problem) -> dict[str, Any]:
    return {"path": problem.path, "value": problem.value, "reason": problem.reason, "fix": problem.fix}
