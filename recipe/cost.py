"""What a stack costs: an hourly rate, what one cold start adds, and both for the planned lifetime."""

from __future__ import annotations

from typing import Final

from recipe import catalogue
from recipe.catalogue import CpuInstance, GpuInstance, Model
from recipe.config import Base, FsxLustreModel, Recipe
from recipe.plan import Cost, CostLine, LustrePlan

HOURS_PER_MONTH: Final = 730
IMAGE_GB: Final = 15
"""Compressed size of an engine image, pulled once by each GPU node. An assumption (facts/durations.md: 10–20 GB)."""
MOCKER_IMAGE_GB: Final = 2
"""The same of `dynamo-planner`, pulled by each CPU node. An assumption: what it installs is 2.1 GB unpacked (facts/simulation.md §2.1)."""
_GB: Final = 10**9


def gpu_price(recipe: Recipe, instance: GpuInstance) -> catalogue.Price | None:
    """The GPU node's hourly price for the recipe's kind of capacity; where none is known, the highest on-demand price of its GPU.

    A stand-in has another name: at no price at all, a cap on $/h would hold nothing. Spot has no list price: the on-demand price stands
    for it, as an upper bound. None: nothing with that GPU has a price.
    """
    if own := _own_price(recipe, instance):
        return own
    alike = [_price(row.name) for row in catalogue.GPU_INSTANCES.values() if row.gpu == instance.gpu]
    known = [price for price in alike if price is not None and price.usd is not None]
    return max(known, key=lambda price: price.usd or 0.0, default=None)


def stands_in(recipe: Recipe, instance: GpuInstance) -> catalogue.Price | None:
    """What stands in for a price that is not known; None where it is known, or nothing is."""
    return None if _own_price(recipe, instance) else gpu_price(recipe, instance)


def _own_price(recipe: Recipe, instance: GpuInstance) -> catalogue.Price | None:
    block = recipe.hardware.capacity.kind == "capacity-block"
    found = _price(f"{instance.name}/capacity-block" if block else instance.name)
    return found if found is not None and found.usd is not None else None


def _price(name: str) -> catalogue.Price | None:
    """The price, or None where none is known: a new instance type can be planned before anybody knows what it costs."""
    return catalogue.price(name) if name in catalogue.PRICES else None


def cached_bytes(model: Model, gpu: GpuInstance | None) -> int:
    """What the model cache holds: the weights (tokenizer and configuration are lost in them), or without GPUs only the rest."""
    return model.configuration_bytes if gpu is None else model.weight_bytes


def make_cost(
    recipe: Recipe, model: Model, gpu: GpuInstance | None, gpu_nodes: int, cpu: CpuInstance, *, own: bool = True
) -> Cost:
    """All positions; `gpu` None: an engine without GPUs, `gpu_nodes` 0: paused. `own`: the foundation's among them, else a base
    pays those. A price that is not known counts as 0; the planner warns about it."""
    weights_gb = cached_bytes(model, gpu) / _GB
    lustre = recipe.storage.model if isinstance(recipe.storage.model, FsxLustreModel) else None
    replicas = sum(pool.replicas for pool in recipe.workers.values()) if gpu_nodes or gpu is None else 0
    disks_gib = gpu_nodes * recipe.hardware.root_disk_gib + recipe.hardware.cpu.nodes * recipe.hardware.cpu.disk_gib
    images_gb = recipe.hardware.cpu.nodes * MOCKER_IMAGE_GB if gpu is None else gpu_nodes * IMAGE_GB
    through_nat = weights_gb + images_gb
    hourly = [
        *([_hourly(_gpu_words(recipe, gpu), gpu_nodes, gpu_price(recipe, gpu))] if gpu and gpu_nodes else []),
        _hourly(f"CPU nodes, {cpu.name}", recipe.hardware.cpu.nodes, _price(cpu.name)),
        *(foundation_lines() if own else ()),
        _hourly("root volumes, GiB", disks_gib, catalogue.price("ebs-gp3/gb-month"), 1 / HOURS_PER_MONTH),
        *(
            []
            if lustre
            else [_hourly("EFS, GB stored", weights_gb, catalogue.price("efs/storage-gb-month"), 1 / HOURS_PER_MONTH)]
        ),
        *([lustre_line(lustre)] if lustre else []),
    ]
    once = [
        _once("weights and images through NAT, GB", through_nat, catalogue.price("nat/gb")),
    ]
    if not lustre:  # which bills neither
        once += [
            _once("EFS, GB written (download)", weights_gb, catalogue.price("efs/write-gb")),
            # Verified once by the download Job, then read by every worker. Workers of one node may share the page cache: an upper bound.
            _once("EFS, GB read (verify, load)", weights_gb * (1 + replicas), catalogue.price("efs/read-gb")),
        ]
    return _sum(hourly, once, recipe.budget.ttl_hours)


def _gpu_words(recipe: Recipe, gpu: GpuInstance) -> str:
    other = stands_in(recipe, gpu)
    return f"GPU nodes, {gpu.name}" + (f", at the price of {other.name}" if other else "")


def make_base_cost(recipe: Base, cpu: CpuInstance) -> Cost:
    """What a base costs with no model stack on it. What its caches hold is in the plans of the stacks that fill them."""
    pool = recipe.hardware.cpu
    hourly = [
        _hourly(f"CPU nodes, {cpu.name}", pool.nodes, _price(cpu.name)),
        *foundation_lines(),
        _hourly(
            "root volumes, GiB", pool.nodes * pool.disk_gib, catalogue.price("ebs-gp3/gb-month"), 1 / HOURS_PER_MONTH
        ),
    ]
    return _sum(hourly, [], recipe.budget.ttl_hours)


def foundation_lines() -> tuple[CostLine, ...]:
    """What a foundation costs by the hour beside its nodes."""
    return (
        _hourly("EKS control plane", 1, catalogue.price("eks/standard")),
        _hourly("NAT gateway", 1, catalogue.price("nat/hour")),
        _hourly("public IPv4 address", 1, catalogue.price("ipv4/hour")),
    )


def lustre_line(lustre: FsxLustreModel | LustrePlan) -> CostLine:
    """An FSx for Lustre, which is paid for by its size, whatever is on it and however much is read."""
    tier = lustre.throughput_mb_per_tib
    price = catalogue.price(f"fsx-lustre/{tier}")
    return _hourly(f"FSx for Lustre at {tier} MB/s per TiB, GiB", lustre.size_gib, price, 1 / HOURS_PER_MONTH)


def _sum(hourly: list[CostLine], once: list[CostLine], ttl_hours: int) -> Cost:
    per_hour = sum(line.usd_per_hour for line in hourly)
    per_start = sum(line.usd_once for line in once)
    return Cost(
        lines=(*hourly, *once),
        usd_per_hour=round(per_hour, 2),
        usd_once=round(per_start, 2),
        ttl_hours=ttl_hours,
        usd_for_ttl=round(per_hour * ttl_hours + per_start, 2),
    )


def _hourly(what: str, quantity: float, price: catalogue.Price | None, factor: float = 1) -> CostLine:
    return _line(what, quantity, price, hourly=factor, once=0)


def _once(what: str, quantity: float, price: catalogue.Price | None) -> CostLine:
    return _line(what, quantity, price, hourly=0, once=1)


def _line(what: str, quantity: float, price: catalogue.Price | None, *, hourly: float, once: float) -> CostLine:
    usd = (price.usd or 0.0) if price else 0.0
    return CostLine(
        what=what,
        quantity=round(quantity, 1),
        unit_usd=usd,
        usd_per_hour=quantity * usd * hourly,
        usd_once=quantity * usd * once,
        source="; ".join(price.sources) if price else "no price known",
        as_of=price.as_of.isoformat() if price else "",
    )
