"""Paused: what stays, what goes, what it costs, and that resuming is nothing but the same plan again."""

from __future__ import annotations

from typing import Any

import pytest

from recipe.errors import RecipeError
from recipe.plan import Objects, Plan
from tests.recipe.samples import STACK, plan


def paused(**changes: Any) -> Plan:
    return plan(hardware__paused=True, **changes)


def test_there_are_no_gpu_nodes_no_graph_and_nothing_that_waits_for_it() -> None:
    made = paused()
    assert (made.gpu_pool, made.gpus, made.placement.gpu_nodes) == (None, 0, ())
    before = plan().objects
    gone = [field for field, _, _ in before.created() if field not in {field for field, _, _ in made.objects.created()}]
    assert gone == [
        *("graph", "readiness_account", "readiness_role", "readiness_binding", "readiness_config", "readiness_job"),
    ]
    assert all(manifest in before.all() for manifest in made.objects.all()), "a pause makes nothing new"


def test_everything_that_stays_is_unchanged_so_that_resuming_changes_nothing_else() -> None:
    before, made = plan(), paused()
    for field in (
        "names",
        "tags",
        "cluster",
        "network",
        "cpu_pool",
        "storage",
        "platform",
        "devices",
        "model",
        "workers",
    ):
        assert getattr(made, field) == getattr(before, field), f"{field}: a pause would touch it"
    for name in Objects.model_fields:
        if name != "serving":
            assert getattr(made.objects, name) == getattr(before.objects, name), name


def test_it_costs_what_is_left_and_says_so_beside_what_it_cost_before() -> None:
    before, made = plan(), paused()
    gpus = sum(line.usd_per_hour for line in before.cost.lines if line.what.startswith("GPU nodes"))
    disks = 2 * 200 * 0.08 / 730
    assert made.cost.usd_per_hour == pytest.approx(before.cost.usd_per_hour - gpus - disks, abs=0.011)
    assert not any("GPU" in line.what for line in made.cost.lines)
    note = made.notes[0]
    assert f"${made.cost.usd_per_hour:.2f}" in note
    assert f"${before.cost.usd_per_hour:.2f}" in note
    assert f"pulumi config set -s {STACK} --path recipe.hardware.paused false" in note, "a command to copy"


def test_the_cap_is_for_what_is_paid_now() -> None:
    assert paused(budget__usd_per_hour=5).cost.usd_per_hour < 5, "pausing must be possible when money is short"
    with pytest.raises(RecipeError, match=r"budget\.usd_per_hour"):
        plan(budget__usd_per_hour=5)


def test_what_could_not_be_resumed_is_refused_while_paused_already() -> None:
    with pytest.raises(RecipeError, match="weights do not fit"):
        paused(workers__prefill__tensor_parallel=1, engine_tuning__gpu_memory_fraction=0.7)


def test_a_pause_of_a_capacity_block_saves_nothing_and_says_so() -> None:
    block = {"kind": "capacity-block", "reservation_id": "cr-0123456789abcdef0"}
    assert any("pausing saves nothing" in warning for warning in paused(hardware__capacity=block).warnings)
    assert not any("paid for and not used" in warning for warning in paused(workers__decode__replicas=1).warnings)


def test_frontends_do_not_run_and_their_room_is_shown_as_free() -> None:
    pods = [name for node in paused().placement.cpu_nodes for name in node.pods]
    assert not any(name.startswith(("frontend", "readiness")) for name in pods)
    assert any(name.startswith("weights") for name in pods)
