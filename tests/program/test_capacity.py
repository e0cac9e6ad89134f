"""What the launch template and the node group are told for each way to get GPUs (facts/aws.md §3)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.program.conftest import STACK, changed
from tests.program.recorder import Run, run_program

ID = "cr-0123456789abcdef1"
TARGET = {"capacityReservationTarget": {"capacityReservationId": ID}}
KINDS: dict[str, dict[str, Any]] = {
    "on-demand": {"kind": "on-demand"},
    "spot": {"kind": "spot", "accept_interruption": True},
    "odcr": {"kind": "odcr", "reservation_id": ID},
    "capacity-block": {"kind": "capacity-block", "reservation_id": ID},
}
EXPECTED: dict[str, tuple[str, Any, Any, bool]] = {
    # capacity type of the group; market options, reservation and placement group of the template
    "on-demand": ("ON_DEMAND", None, None, True),
    # EKS makes the spot request itself and refuses a template with market options of its own.
    "spot": ("SPOT", None, None, False),
    "odcr": ("ON_DEMAND", None, TARGET, False),
    "capacity-block": ("CAPACITY_BLOCK", {"marketType": "capacity-block"}, TARGET, False),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[str, Run]:
    return request.param, run_program(STACK, changed(hardware={"capacity": KINDS[request.param]}))


def test_group_and_template_agree_on_how_the_nodes_are_paid_for(kind: tuple[str, Run]) -> None:
    name, run = kind
    template, group = run.named("gpu-template").inputs, run.named("gpu-nodes").inputs
    capacity_type, market, reservation, placement = EXPECTED[name]
    assert group["capacityType"] == capacity_type
    assert template.get("instanceMarketOptions") == market
    assert template.get("capacityReservationSpecification") == reservation
    assert ("placement" in template) is placement, "with a reservation it makes launches fail"
    assert bool(run.of("aws:ec2/placementGroup:PlacementGroup")) is placement


def test_the_type_stands_in_the_template_and_the_nodes_in_one_zone(kind: tuple[str, Run]) -> None:
    _, run = kind
    assert run.named("gpu-template").inputs["instanceType"] == "p5.48xlarge"
    assert "instanceTypes" not in run.named("gpu-nodes").inputs, "a Capacity Block takes it from the template only"
    assert run.named("gpu-nodes").inputs["subnetIds"] == ["network-nodes-id"], "a reservation is in one zone"
    zone = run.named("network-nodes").inputs["availabilityZoneId"]
    assert zone == run.plan.recipe.access.zone_id


def test_cpu_nodes_are_on_demand_whatever_the_gpus_are(kind: tuple[str, Run]) -> None:
    _, run = kind
    assert run.named("cpu-nodes").inputs["capacityType"] == "ON_DEMAND"
    assert not {"capacityReservationSpecification", "instanceMarketOptions"} & set(run.named("cpu-template").inputs)
