"""How GPU nodes are obtained, kind by kind (facts/aws.md §3)."""

from __future__ import annotations

from typing import Any

import pytest

from recipe.errors import Problem, RecipeError
from recipe.plan import Plan
from tests.recipe.samples import AGG_WORKERS, gpu_pool, plan

ID = "cr-0123456789abcdef1"
SPOT = {"kind": "spot", "accept_interruption": True}
ODCR = {"kind": "odcr", "reservation_id": ID}
BLOCK = {"kind": "capacity-block", "reservation_id": ID}


def planned(capacity: dict[str, Any], **changes: Any) -> Plan:
    return plan(hardware__capacity=capacity, **changes)


def refused(**changes: Any) -> dict[str, Problem]:
    with pytest.raises(RecipeError) as caught:
        plan(**changes)
    return {problem.path: problem for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("capacity", "capacity_type", "market", "reservation", "placement_group"),
    [
        ({"kind": "on-demand"}, "ON_DEMAND", None, None, True),
        (SPOT, "SPOT", None, None, False),
        (ODCR, "ON_DEMAND", None, ID, False),
        (BLOCK, "CAPACITY_BLOCK", "capacity-block", ID, False),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_each_kind_becomes_what_eks_asks_for_it(
    capacity: dict[str, Any], capacity_type: str, market: str | None, reservation: str | None, placement_group: bool
) -> None:
    pool = gpu_pool(planned(capacity))
    assert (pool.capacity_type, pool.market_type, pool.reservation_id) == (capacity_type, market, reservation)
    assert pool.placement_group is placement_group, "a forced one makes reservations fail (terraform-aws-eks #3730)"


def test_on_demand_names_the_quota_with_its_code_and_the_vcpus() -> None:
    (gpus, cpus) = planned({"kind": "on-demand"}).notes
    assert '2 × p5.48xlarge need 384 vCPUs of the quota "Running On-Demand P instances" (L-417A185B)' in gpus
    assert "64 vCPUs" in cpus
    assert "L-1216C47A" in cpus


def test_spot_counts_against_a_quota_of_its_own() -> None:
    assert '384 vCPUs of the quota "All P5 Spot Instance Requests" (L-C4BD4855)' in planned(SPOT).notes[0]


@pytest.mark.parametrize("capacity", [ODCR, BLOCK], ids=["odcr", "capacity-block"])
def test_what_is_reserved_has_been_counted_already(capacity: dict[str, Any]) -> None:
    assert not any("P instances" in note for note in planned(capacity).notes)


def test_a_capacity_block_says_when_its_nodes_come_and_go() -> None:
    assert any("40 minutes before it ends" in note for note in planned(BLOCK).notes), "the last hour is not all there"
    assert not any("Capacity Block" in note for note in planned(ODCR).notes)


def test_spot_is_refused_for_separate_pools_until_it_is_accepted() -> None:
    assert "accept_interruption: true" in refused(hardware__capacity={"kind": "spot"})["hardware.capacity.kind"].fix
    assert gpu_pool(planned(SPOT)).capacity_type == "SPOT"
    alone = planned({"kind": "spot"}, mode="agg", workers=AGG_WORKERS)
    assert gpu_pool(alone).capacity_type == "SPOT", "one pool alone goes on with fewer workers"


@pytest.mark.parametrize("kind", ["odcr", "capacity-block"])
def test_a_reservation_needs_its_id_and_the_command_says_where_it_goes(kind: str) -> None:
    problem = refused(hardware__capacity={"kind": kind})["hardware.capacity.reservation_id"]
    assert "pulumi config set" in problem.fix
    assert "recipe.hardware.capacity.reservation_id" in problem.fix
    assert plan(placeholders=True, hardware__capacity={"kind": kind}).placeholders == (
        "hardware.capacity.reservation_id",
    )


@pytest.mark.parametrize("kind", ["odcr", "capacity-block"])
def test_a_reservation_is_in_one_zone_and_that_is_asked_for(kind: str) -> None:
    assert "access.zone_id" in refused(hardware__capacity={"kind": kind}, access__zone_id=...)


@pytest.mark.parametrize("capacity", [ODCR, BLOCK], ids=["odcr", "capacity-block"])
def test_a_reservation_is_for_one_type_so_where_there_are_two_it_must_be_named(capacity: dict[str, Any]) -> None:
    h200 = {"gpu": "h200", "capacity": capacity}
    problem = refused(hardware=h200, budget__usd_per_hour=1000)["hardware.instance_type"]
    assert "p5en.48xlarge and p5e.48xlarge" in problem.reason, "the wrong one would wait an hour for nothing"
    named = plan(hardware={**h200, "instance_type": "p5e.48xlarge"}, budget__usd_per_hour=1000)
    assert gpu_pool(named).instance_type == "p5e.48xlarge"
    assert gpu_pool(planned(capacity)).instance_type == "p5.48xlarge", "h100 comes in one type only"


@pytest.mark.parametrize("capacity", [SPOT, ODCR, BLOCK], ids=["spot", "odcr", "capacity-block"])
def test_a_placement_group_is_refused_where_it_makes_launches_fail(capacity: dict[str, Any]) -> None:
    problem = refused(hardware={"gpu": "h100", "capacity": capacity, "placement_group": True})
    assert "InsufficientInstanceCapacity" in problem["hardware.placement_group"].reason
