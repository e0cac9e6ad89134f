"""The commands where there are no GPU nodes: the mocker, and a pause."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ops import manifests
from ops.charges import Rates
from ops.planning import planned
from ops.resources import rooms
from recipe.plan import Plan
from tests.ops.conftest import STACK

Run = Callable[..., Result]
ARGS = {"mocker": ("mocker-cpu",), "paused": (STACK, "--set", "hardware.paused=true")}


@pytest.fixture(params=ARGS)
def args(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return ARGS[request.param]


def plan_of(args: tuple[str, ...]) -> Plan:
    return planned(args[0], [one for one in args[1:] if one != "--set"]).model


def as_json(run: Run, *args: str) -> dict[str, Any]:
    result = run("plan", *args, "--json")
    assert result.exit_code == 0, result.output
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def test_the_json_says_that_there_are_none(run: Run, args: tuple[str, ...]) -> None:
    data = as_json(run, *args)
    assert (data["gpu_pool"], data["instance_type"], data["gpu_nodes"], data["gpus"]) == (None, None, 0, 0)
    assert data["efa_per_node"] == 0
    assert data["paused"] is (args[0] == STACK)
    assert set(as_json(run, STACK)) == set(data), "keys are a contract"


def test_the_screen_shows_no_empty_tables(run: Run, args: tuple[str, ...]) -> None:
    screen = run("plan", *args).stdout
    assert "GPU nodes  none" in screen
    assert "GPU memory" not in screen
    assert "one cell per GPU" not in screen
    assert "prefill" in screen


def test_the_screen_of_a_pause_says_what_it_costs_and_how_to_resume(run: Run) -> None:
    screen = run("plan", *ARGS["paused"]).stdout
    assert screen.startswith(f"{STACK}: $3.42 an hour")
    assert "Workers, when resumed" in screen
    assert "paused: $3.42 an hour for cluster, CPU nodes, NAT, disks and the cache instead of $113.55" in screen


def test_quotas_are_shown_before_anyone_waits_for_nodes(run: Run) -> None:
    screen = " ".join(run("plan", STACK).stdout.split())
    assert (
        '2 × p5.48xlarge need 384 vCPUs of the quota "Running On-Demand P instances" (L-417A185B) in us-east-2'
        in screen
    )
    (only,) = as_json(run, "mocker-cpu")["notes"]
    assert "2 × m7i.xlarge need 8 vCPUs" in only


def test_all_stacks_are_listed_side_by_side(run: Run) -> None:
    listed = run("plan", "--all").stdout
    line = next(line for line in listed.splitlines() if line.startswith("mocker-cpu"))
    assert "mocker disagg" in line
    assert "none" in line


def test_the_rates_add_up_to_the_plans(args: tuple[str, ...]) -> None:
    found = plan_of(args)
    rates = Rates.of(found)
    total = sum(rates.by_type.values()) + found.cpu_pool.count * rates.by_instance[found.cpu_pool.instance_type]
    assert total == pytest.approx(found.cost.usd_per_hour, abs=0.01), "two answers to one question"
    assert list(rates.by_instance) == [found.cpu_pool.instance_type]


def test_the_files_of_a_pause_hold_no_graph(tmp_path: Path) -> None:
    written = [path.name for path in manifests.write(plan_of(ARGS["paused"]), tmp_path)]
    assert not any("graph" in name or "readiness" in name for name in written), "applied by hand it would not be paused"
    assert any("admission-job" in name for name in written)


@pytest.mark.slow
def test_the_list_of_resources_is_what_the_program_registers(args: tuple[str, ...]) -> None:
    from tests.program.recorder import recipe_of, run_program

    raw = recipe_of(args[0])
    if args[0] == STACK:
        raw["hardware"] = {**raw["hardware"], "paused": True}
    ran = run_program(args[0], raw)
    counted: dict[str, Counter[str]] = {}
    for resource in ran.custom:
        counted.setdefault(ran.resources[resource.parent].name, Counter())[resource.type.rpartition(":")[2]] += 1
    assert {room.name: Counter(room.kinds) for room in rooms(ran.plan)} == counted
