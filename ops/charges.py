"""What a rehearsal would have cost: from the pretend cloud's journal and the plan's prices, by the second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipe import catalogue
from recipe.cost import HOURS_PER_MONTH, gpu_price, lustre_line
from recipe.plan import Plan
from rehearsal.cloud import rules

Journal = Sequence[Mapping[str, Any]]

EXISTS = ("ok", "unfinished")
"""Outcomes of a create after which there is something."""


@dataclass(frozen=True)
class Charge:
    """Something that costs by the hour, in virtual seconds since the pretend cloud was made. `end` None: it still does."""

    what: str
    usd_per_hour: float
    start: float
    end: float | None
    gpu: bool = False

    def usd(self, since: float, until: float) -> float:
        """Its share of the time from `since` to `until`."""
        end = until if self.end is None else min(self.end, until)
        return self.usd_per_hour * max(0.0, end - max(self.start, since)) / 3600


@dataclass(frozen=True)
class Rates:
    """Dollars an hour, by resource type and by instance type. What has no known price counts as nothing (the plan warns)."""

    by_type: dict[str, float]
    by_instance: dict[str, float]

    @classmethod
    def of(cls, plan: Plan) -> Rates:
        disk = _usd(catalogue.price("ebs-gp3/gb-month")) / HOURS_PER_MONTH
        stored = plan.model.cached_bytes / 1e9 * _usd(catalogue.price("efs/storage-gb-month")) / HOURS_PER_MONTH
        lustre = plan.storage.lustre
        nodes = {
            pool.instance_type: _usd(catalogue.price(pool.instance_type)) + disk * pool.disk_gib
            for pool in (*([plan.base.cpu_pool] if plan.base else []), plan.cpu_pool)
        }
        if plan.gpu_pool:
            gpu = catalogue.gpu_instance(plan.gpu_pool.instance_type)
            nodes[gpu.name] = _usd(gpu_price(plan.recipe, gpu)) + disk * plan.gpu_pool.disk_gib
        return cls(
            by_type={
                rules.CLUSTER: _usd(catalogue.price("eks/standard")),
                rules.NAT: _usd(catalogue.price("nat/hour")),
                rules.EIP: _usd(catalogue.price("ipv4/hour")),
                **({rules.LUSTRE: lustre_line(lustre).usd_per_hour} if lustre else {rules.FILE_SYSTEM: stored}),
            },
            by_instance=nodes,
        )


def _usd(price: catalogue.Price | None) -> float:
    return (price.usd or 0.0) if price else 0.0


def charges(journal: Journal, rates: Rates) -> list[Charge]:
    """Every charge in the journal, by its start. The stored weights are counted from the creation of the file system on."""
    open_: dict[str, Charge] = {}
    closed: list[Charge] = []

    def close(key: str, at: float) -> None:
        if charge := open_.pop(key, None):
            closed.append(Charge(charge.what, charge.usd_per_hour, charge.start, at, charge.gpu))

    for entry in sorted(journal, key=lambda entry: (entry["end"], entry["seq"])):
        op, kind, at = entry["op"], entry["type"], entry["end"]
        key = f"{kind}|{entry.get('id')}"
        if op == "event" and kind == "node-running":
            instance = entry["message"]
            gpu = bool(entry.get("gpus"))
            open_[f"node|{entry['id']}"] = Charge(instance, rates.by_instance.get(instance, 0.0), at, None, gpu)
        elif op == "event" and kind == "node-terminated":
            close(f"node|{entry['id']}", at)
        elif op == "create" and kind in rates.by_type and entry["outcome"] in EXISTS:
            open_[key] = Charge(short(kind), rates.by_type[kind], at, None)
        elif op == "delete" and entry["outcome"] == "ok":
            close(key, at)
    return sorted([*closed, *open_.values()], key=lambda charge: charge.start)


def usd_per_hour(found: Iterable[Charge], at: float) -> float:
    """What everything together costs an hour at that moment."""
    return sum(
        charge.usd_per_hour for charge in found if charge.start <= at and (charge.end is None or at < charge.end)
    )


def usd(found: Iterable[Charge], since: float, until: float) -> float:
    """What everything together cost from `since` to `until`."""
    return sum(charge.usd(since, until) for charge in found)


def short(type_token: str) -> str:
    """`Cluster` of `aws:eks/cluster:Cluster`."""
    return type_token.rpartition(":")[2]
