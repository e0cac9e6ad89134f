"""The shipped stacks, on every GPU they fit; and what it takes to add a model or an instance type."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from ops import stacks
from ops.variants import Variant, of_file, variants
from recipe import catalogue
from recipe.catalogue import GPU_INSTANCES, MODELS, Model
from recipe.config import parse
from recipe.errors import RecipeError
from recipe.plan import Plan
from recipe.planner import make_plan
from tests.recipe.samples import gpu_pool
from tests.recipe.test_graph import crd_schema

# Engine, workers of each role as replicas × GPUs, router, GPUs: the table of the eight systems, without the mock engine.
TABLE: dict[str, tuple[str, dict[str, tuple[int, int]], str, int]] = {
    "qwen3-32b-agg": ("vllm", {"worker": (8, 2)}, "round-robin", 16),
    "qwen3-32b-disagg": ("vllm", {"prefill": (6, 2), "decode": (2, 2)}, "kv", 16),
    "qwen3-32b-fp8-agg": ("trtllm", {"worker": (1, 2)}, "round-robin", 2),
    "qwen3-32b-fp8-disagg": ("trtllm", {"prefill": (4, 1), "decode": (2, 2)}, "round-robin", 8),
    "qwen3-32b-fp8-vllm-disagg": ("vllm", {"prefill": (2, 2), "decode": (1, 4)}, "round-robin", 8),
    "qwen3-235b-a22b-fp8-agg": ("trtllm", {"worker": (4, 4)}, "kv", 16),
    "qwen3-235b-a22b-fp8-disagg": ("trtllm", {"prefill": (6, 2), "decode": (1, 4)}, "kv", 16),
}


def shipped(stack: str) -> Plan:
    """The plan of a stack file as it is."""
    return make_plan(stack, parse(stacks.load(stack).raw), placeholders=True)


@pytest.mark.parametrize("stack", TABLE)
def test_each_stack_is_the_system_the_table_promises(stack: str) -> None:
    made = shipped(stack)
    engine, workers, router, gpus = TABLE[stack]
    assert made.recipe.engine == engine
    assert {pool.role: (pool.replicas, pool.gpus) for pool in made.workers} == workers
    assert made.recipe.router.mode == router
    assert made.gpus == gpus


@pytest.mark.parametrize("stack", TABLE)
def test_each_stack_plans_below_its_own_budget_without_room_for_a_second_one(stack: str) -> None:
    made = shipped(stack)
    cap = made.recipe.budget.usd_per_hour
    assert made.cost.usd_per_hour < cap < made.cost.usd_per_hour * 1.25, (
        "a cap far above the cost would not notice a doubled stack"
    )
    text = stacks.load(stack).path.read_text(encoding="utf-8")
    assert f"about ${made.cost.usd_per_hour:.0f} an hour" in text, "the file says what it costs"


@pytest.mark.parametrize("variant", variants(), ids=str)
def test_every_graph_is_accepted_by_the_real_crd(variant: Variant) -> None:
    jsonschema.validate(variant.plan().objects.graph["spec"], crd_schema()["properties"]["spec"])


def test_the_one_stack_that_does_not_fit_80_gb_is_refused_with_the_arithmetic() -> None:
    fits = {stack: {one.gpu for one in variants() if one.stack == stack} for stack in TABLE}
    assert {stack for stack, gpus in fits.items() if gpus != {"h100", "h200", "b200"}} == {"qwen3-235b-a22b-fp8-disagg"}
    with pytest.raises(RecipeError) as caught:
        next(one for one in of_file(stacks.load("qwen3-235b-a22b-fp8-disagg")) if one.gpu == "h100").plan()
    (problem,) = caught.value.problems
    assert "110.1 GiB weights + 6 GiB overhead > 79.7 GiB usable" in problem.reason
    assert "h200 or b200" in problem.fix


@pytest.mark.parametrize("variant", variants(), ids=str)
def test_warnings_are_only_those_a_person_must_decide_about(variant: Variant) -> None:
    expected = ("documentation placeholder", "prices are those of")
    made = variant.plan()
    extra = [warning for warning in made.warnings if not any(known in warning for known in expected)]
    if made.recipe.mode == "disagg" and len(made.placement.gpu_nodes) == 1:
        assert [("EAGAIN" in warning) for warning in extra] == [True]
    elif variant.stack == "qwen3-32b-fp8-agg":
        assert extra == ["6 GPUs are paid for and not used: whole nodes have 8 each"]
    else:
        assert extra == []


@pytest.mark.parametrize("stack", sorted(set(TABLE) - {"qwen3-32b-fp8-agg"}))
def test_no_gpu_of_a_node_is_idle(stack: str) -> None:
    made = shipped(stack)
    whole = catalogue.gpu_instance(gpu_pool(made).instance_type).gpus
    assert all(node.gpus_used == whole for node in made.placement.gpu_nodes)


@pytest.mark.parametrize("stack", TABLE)
def test_the_readme_says_which_gpus_each_stack_fits(stack: str) -> None:
    lines = (stacks.ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith(f"| `{stack}` |")]
    fits, gpus = (cell.strip() for cell in (row.split("|")[-2], row.split("|")[-3]))
    assert fits == ", ".join(str(one.gpu) for one in variants() if one.stack == stack)
    assert gpus == str(TABLE[stack][3])


# ── adding one ───────────────────────────────────────────────────────────────────────────────────────────────────────


def recipe_of(stack: str, *settings: str) -> Any:
    return stacks.with_settings(stacks.load(stack).raw, [*settings, "budget.usd_per_hour=100000"])


def test_a_new_model_is_one_catalogue_entry_and_one_stack_file(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Model(
        id="Qwen/Qwen3-30B-A3B-FP8",
        revision="0" * 40,
        weight_dtype="fp8",
        layers=48,
        hidden_size=2048,
        attention_heads=32,
        kv_heads=4,
        head_dim=128,
        intermediate_size=768,
        experts=128,
        experts_per_token=8,
        vocabulary=151936,
        native_context_tokens=32768,
        config_context_tokens=40960,
        yarn_factor=4.0,
        yarn_context_tokens=131072,
        cache_gib=50,
        sources=("a test",),
    )
    monkeypatch.setitem(MODELS, small.id, small)
    for stack in ("qwen3-235b-a22b-fp8-agg", "qwen3-235b-a22b-fp8-disagg"):
        made = make_plan("qwen3-30b-a3b", parse(recipe_of(stack, f"model={small.id}")), placeholders=True)
        assert "models--Qwen--Qwen3-30B-A3B-FP8" in made.model.snapshot_path
        assert made.names.graph == "qwen3-30b-a3b"
        jsonschema.validate(made.objects.graph["spec"], crd_schema()["properties"]["spec"])


@pytest.mark.parametrize("stack", TABLE)
def test_a_new_instance_type_is_one_catalogue_entry(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    new = GPU_INSTANCES["p5en.48xlarge"].model_copy(
        update={"name": "p5x.48xlarge", "efa_devices": 8, "network_cards": 8}
    )
    monkeypatch.setitem(GPU_INSTANCES, new.name, new)
    settings = ("hardware.gpu=h200", f"hardware.instance_type={new.name}")
    made = make_plan(stack, parse(recipe_of(stack, *settings)), placeholders=True)
    assert gpu_pool(made).instance_type == new.name
    assert len(gpu_pool(made).nics) == 9, "eight EFA and the primary interface"
    if made.recipe.mode == "disagg":
        assert all(pool.efa == pool.gpus for pool in made.workers), "one EFA device per GPU of this type"
    assert any(f"no price known for {new.name}" in warning for warning in made.warnings)
    labels = next(chart for chart in made.devices if "efa" in chart.chart).values["supportedInstanceLabels"]
    assert new.name in labels["values"]


def test_a_new_cpu_type_is_one_catalogue_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    new = catalogue.CPU_INSTANCES["m7i.8xlarge"].model_copy(update={"name": "m8i.8xlarge"})
    monkeypatch.setitem(catalogue.CPU_INSTANCES, new.name, new)
    made = make_plan(
        "one", parse(recipe_of("qwen3-32b-agg", f"hardware.cpu.instance_type={new.name}")), placeholders=True
    )
    assert made.cpu_pool.instance_type == new.name
