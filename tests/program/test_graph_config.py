"""The engine's own configuration: a change of it reaches running workers without deleting the graph."""

import pytest

from tests.program.recorder import Run, recipe_of, run_program

STACK = "qwen3-32b-fp8-disagg"
ROLES = ("prefill", "decode")


@pytest.fixture(scope="module")
def before() -> Run:
    return run_program(STACK)


@pytest.fixture(scope="module")
def after() -> Run:
    """With another batch size of the decode workers."""
    raw = recipe_of(STACK)
    raw["workers"]["decode"]["tuning"]["max_batch_size"] = 64
    return run_program(STACK, raw)


def mounted(run: Run, role: str) -> str:
    components = run.named("serving-graph").inputs["spec"]["components"]
    spec = next(one for one in components if one["name"] == role)["podTemplate"]["spec"]
    (name,) = [one["configMap"]["name"] for one in spec["volumes"] if "configMap" in one]
    return str(name)


@pytest.mark.parametrize("role", ROLES)
def test_the_config_exists_before_the_graph_asks_for_it_and_outlives_it(before: Run, role: str) -> None:
    config = before.named(f"serving-{role}-config")
    assert config.inputs["metadata"]["name"] == mounted(before, role)
    assert config.urn in before.named("serving-graph").depends_on, "a pod without its ConfigMap never starts"


@pytest.mark.parametrize("role", ROLES)
def test_a_new_config_is_made_before_the_old_one_goes(before: Run, role: str) -> None:
    assert not before.named(f"serving-{role}-config").delete_before_replace, (
        "deleted first, it would take the graph that depends on it along, and every worker with it"
    )
    assert before.named("serving-graph").delete_before_replace


def test_a_change_is_a_replaced_config_and_a_graph_that_changes_in_place(before: Run, after: Run) -> None:
    for role, same in (("prefill", True), ("decode", False)):
        old, new = (run.named(f"serving-{role}-config") for run in (before, after))
        assert old.urn == new.urn, "the engine must see one ConfigMap that changed, not two"
        assert (old.inputs == new.inputs) is same
        assert (old.inputs["metadata"]["name"] == new.inputs["metadata"]["name"]) is same
    old, new = before.named("serving-graph"), after.named("serving-graph")
    assert old.inputs["spec"] != new.inputs["spec"], "nothing would roll"
    assert old.replacement_trigger == new.replacement_trigger
