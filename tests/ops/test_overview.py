"""`ops plan --all`: every stack on every GPU it fits."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ops import cold_start, stacks
from ops.exits import BAD_INPUT
from ops.overview import REMADE_BY, markdown, overview
from ops.variants import GPUS, each_stack, of_file, variants
from recipe.predictions import tuned_gpus
from tests.ops.conftest import STACK, write
from tests.recipe.samples import raw

Run = Callable[..., Result]
POOL = {"replicas": 4, "tensor_parallel": 1, "memory_gib": 200}
NARROW = {"workers": {"prefill": POOL, "decode": POOL}}
"""61 GiB of weights and 131,072 tokens on one GPU: 80 GB are too few, 141 are not."""


def listed(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("plan", "--all", "--json").stdout)
    return found


def test_the_committed_table_is_what_the_plan_says_today() -> None:
    committed = (stacks.ROOT / "docs" / "stacks.md").read_text(encoding="utf-8")
    assert committed == markdown(overview([])), f"docs/stacks.md is stale: {REMADE_BY}"


def test_every_shipped_stack_is_there_on_every_gpu_it_fits() -> None:
    found = overview([])
    assert found.bad == {}
    assert {row.variant.stack for row in found.rows} == set(stacks.models())
    assert {plan.stack for plan in found.bases} == set(stacks.names()) - set(stacks.models())
    tried = {(one.stack, one.gpu) for stack in stacks.models() for one in of_file(stacks.load(stack))}
    seen = [(row.variant.stack, row.variant.gpu) for row in found.rows]
    seen += [(one.stack, one.gpu) for one, _ in found.misfits]
    assert sorted(seen, key=str) == sorted(tried, key=str), "each once, and none forgotten"


def test_the_tests_of_other_rooms_run_over_the_same_variants() -> None:
    assert [(one.stack, one.gpu) for one in variants()] == [
        (row.variant.stack, row.variant.gpu) for row in overview([]).rows
    ]
    searched = tuned_gpus()
    assert [one.stack for one in each_stack()] == [name for name in stacks.models() if name not in searched]


def test_a_tuned_stack_is_one_variant_and_not_one_for_every_gpu() -> None:
    searched = tuned_gpus()
    assert searched
    for stack, gpus in searched.items():
        assert [one.gpu for one in of_file(stacks.load(stack))] == list(gpus), (
            "on another GPU its prediction is of nothing"
        )


def test_every_gpu_of_the_catalogue_is_tried_and_the_figures_follow(run: Run, folder: Path) -> None:
    write(folder, "mine", raw(budget__usd_per_hour=130))
    rows = {one["gpu"]: one for one in listed(run)}
    assert set(rows) == set(GPUS)
    assert [rows[gpu]["instance_type"] for gpu in GPUS] == ["p5.48xlarge", "p5en.48xlarge", "p6-b200.48xlarge"]
    assert {gpu for gpu in GPUS if rows[gpu]["own_gpu"]} == {"h100"}
    assert {gpu for gpu in GPUS if rows[gpu]["over_cap"]} == {"h200", "b200"}, (
        "`up` would be refused until it is raised"
    )
    assert all(10 < one["computed"]["minutes_to_first_token"] < 90 for one in rows.values())
    assert all(one["computed"]["assumptions"] for one in rows.values()), "a reader must know what they rest on"


def test_a_gpu_that_does_not_fit_is_said_with_the_arithmetic_and_is_no_error(run: Run, folder: Path) -> None:
    write(folder, "narrow", raw(hardware={"gpu": "h200"}, budget__usd_per_hour=400, **NARROW))
    result = run("plan", "--all")
    assert result.exit_code == 0, result.output
    assert "narrow does not fit h100: the KV cache holds 19,081 tokens" in result.stdout
    (misfit,) = [one for one in listed(run) if "does_not_fit" in one]
    assert (misfit["stack"], misfit["gpu"]) == ("narrow", "h100")
    assert "61.0 GiB weights" in misfit["does_not_fit"][0]["reason"]
    assert "h100: the KV cache holds" in markdown(overview([]))


def test_another_gpu_does_not_inherit_the_instance_type_of_the_files_own(run: Run, folder: Path) -> None:
    write(folder, "pinned", raw(hardware={"gpu": "h200", "instance_type": "p5e.48xlarge"}, budget__usd_per_hour=400))
    rows = {one["gpu"]: one["instance_type"] for one in listed(run)}
    assert rows == {"h100": "p5.48xlarge", "h200": "p5e.48xlarge", "b200": "p6-b200.48xlarge"}


def test_a_price_nobody_knows_is_not_a_small_price(run: Run, folder: Path) -> None:
    write(folder, "pinned", raw(hardware={"gpu": "h200", "instance_type": "p5e.48xlarge"}, budget__usd_per_hour=400))
    assert re.search(r" ~130\.\d\d ", run("plan", "--all").stdout), "p5en's stands for it, and that shows"


def test_a_stack_refused_as_it_is_shows_no_other_gpu(run: Run, folder: Path) -> None:
    write(folder, "dear", raw(budget__usd_per_hour=1))
    result = run("plan", "--all", "--json")
    assert result.exit_code == BAD_INPUT
    (only,) = json.loads(result.stdout)
    assert only["problems"][0]["path"] == "budget.usd_per_hour"


@pytest.mark.parametrize(
    "broken", [None, [], "text", {"hardware": None}, {"hardware": {"gpu": "h10"}}, {"hardware": 7}]
)
def test_a_recipe_of_any_shape_is_an_error_of_its_stack_only(run: Run, folder: Path, broken: Any) -> None:
    write(folder, "good")
    (folder / "Pulumi.odd.yaml").write_text(json.dumps({"config": {stacks.FULL_KEY: broken}}))
    result = run("plan", "--all", "--json")
    assert result.exit_code == BAD_INPUT, result.output
    assert {one["stack"] for one in json.loads(result.stdout) if "problems" in one} == {"odd"}


def test_settings_change_every_stack(run: Run, folder: Path) -> None:
    write(folder, "good")
    result = run("plan", "--all", "--json", "--set", "workers.prefill.replicas=2", "--set", "workers.decode.replicas=2")
    assert {one["gpus"] for one in json.loads(result.stdout)} == {8}


def test_each_file_is_read_once_and_all_of_it_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    load = stacks.load
    monkeypatch.setattr(stacks, "load", lambda stack: reads.append(stack) or load(stack))  # type: ignore[func-returns-value]
    began = time.process_time()
    overview([])
    assert time.process_time() - began < 1.5, "the target is 2 s for the whole command"
    assert reads == list(stacks.names())


def test_the_screen_marks_minutes_as_computed(run: Run) -> None:
    shown = " ".join(run("plan", "--all").stdout.split())
    assert "computed, not measured" in shown
    assert "of them assumptions" in shown
    assert "(computed; " in " ".join(run("plan", STACK).stdout.split())


@pytest.mark.parametrize("args", [(STACK, "--markdown"), ("--all", "--markdown", "--json")])
def test_markdown_is_a_form_of_all(run: Run, args: tuple[str, ...]) -> None:
    assert run("plan", *args).exit_code == BAD_INPUT


def test_a_base_that_is_refused_does_not_hide_the_models(run: Run, folder: Path) -> None:
    write(folder, "good")
    write(folder, "under", {"kind": "base", "budget": {"usd_per_hour": 0.1, "ttl_hours": 1}})
    result = run("plan", "--all", "--json")
    assert result.exit_code == BAD_INPUT
    found = json.loads(result.stdout)
    assert {one["stack"] for one in found if "problems" not in one} == {"good"}
    assert "an hour" in next(one for one in found if one["stack"] == "under")["problems"][0]["reason"]


def test_the_committed_cold_starts_are_what_the_plan_says_today() -> None:
    committed = (stacks.ROOT / "docs" / "cold-start.md").read_text(encoding="utf-8")
    assert cold_start.markdown(cold_start.plans_of_files()) in committed, (
        f"docs/cold-start.md is stale: {cold_start.REMADE_BY}"
    )


def test_cold_starts_of_one_stack_and_of_all(run: Run) -> None:
    short, long = run("plan", STACK).stdout, run("plan", STACK, "--cold-start").stdout
    for shown in ("Cold start: what `pulumi up` waits for (computed)", "EKS control plane", "GPU nodes are paid for "):
        assert shown in short
        assert shown in long
    for more in ("weights.loader", "upstream's order", "FSx for Lustre", "pytorch/ci-infra #1033", "a GPU node needs"):
        assert more in long
        assert more not in short.replace("sources and upstream's order", ""), "the plan is short by default"
    every = json.loads(run("plan", "--all", "--cold-start", "--json").stdout)
    assert {one["stack"] for one in every} == {one.stack for one in each_stack() if one.gpu}
    assert run("plan", "--all", "--cold-start", "--set", "weights.wait=false").exit_code == BAD_INPUT


def test_the_path_in_json_has_money_sources_and_what_is_paid_for(run: Run) -> None:
    computed = json.loads(run("plan", STACK, "--json").stdout)["computed"]
    path = {step["step"]: step for step in computed["critical_path"]}
    assert computed["usd_to_first_token"] == pytest.approx(sum(step["usd"] for step in path.values()), abs=0.06)
    assert path["workers"]["billed"][0].startswith("GPU nodes")
    assert path["GPU nodes"]["assumed"]
    assert set(path["EKS control plane"]["durations"]) <= set(computed["sources"])
    assert computed["gpu_idle_usd"] == computed["starts"][0]["ours"]["gpu_idle_usd"]
