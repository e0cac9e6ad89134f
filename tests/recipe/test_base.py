"""A base, and stacks that take network, cluster, caches and platform from it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from recipe.config import Base, parse, parse_any
from recipe.errors import Problem, RecipeError
from recipe.placement import CLUSTER_PODS
from recipe.plan import BasePlan, Plan
from recipe.planner import make_plan
from tests.recipe import samples

BASE: dict[str, Any] = {
    "kind": "base",
    "budget": {"usd_per_hour": 2, "ttl_hours": 720},
    "access": copy.deepcopy(samples.DISAGG["access"]),
}
ON_BASE: dict[str, Any] = {"foundation": {"kind": "base"}, "access": {}}


def base(**changes: Any) -> Base:
    found = parse_any(BASE | changes)
    assert isinstance(found, Base)
    return found


def base_plan(stack: str = "base", **changes: Any) -> BasePlan:
    return make_plan(stack, base(**changes))


def on_base(stack: str = samples.STACK, under: Base | None = None, **changes: Any) -> Plan:
    return make_plan(stack, samples.recipe(**{**ON_BASE, **changes}), base=under or base())


def refused(stack: str = samples.STACK, under: Base | None = None, **changes: Any) -> dict[str, Problem]:
    with pytest.raises(RecipeError) as caught:
        on_base(stack, under, **changes)
    return {problem.path: problem for problem in caught.value.problems}


# ── what a person may write ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("raw", "path", "says"),
    [
        (BASE | {"kind": "bas"}, "kind", "did you mean base?"),
        (BASE | {"kind": 7}, "kind", "known: base, model"),
        (BASE | {"model": "Qwen/Qwen3-32B"}, "model", "unknown key"),
        (BASE | {"hardware": {"gpu": "h100"}}, "hardware.gpu", "known: cpu"),
        (BASE | {"hardware": {"cpu": {"node": 2}}}, "hardware.cpu.node", "did you mean nodes?"),
        (BASE | {"storage": {"model_gib": 100}}, "storage.model_gib", "unknown key"),
        (samples.raw(foundation={"kind": "bse"}), "foundation.kind", "did you mean base?"),
        (samples.raw(foundation={"kind": "base", "stak": "b"}), "foundation.stak", "did you mean stack?"),
        (samples.raw(foundation={"kind": "base", "stack": "Base"}), "foundation.stack", "not a name of a stack"),
        (
            samples.raw(foundation={"kind": "base", "reference": "base"}),
            "foundation.reference",
            "organization/project/stack",
        ),
    ],
)
def test_a_mistake_is_named_with_its_path_and_what_would_work(raw: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_any(raw)
    found = {problem.path: str(problem) for problem in caught.value.problems}
    assert path in found, f"the message must point at {path}; it points at {sorted(found)}"
    assert says in found[path]


def test_a_recipe_says_nothing_of_its_kind_to_be_a_models() -> None:
    assert parse(samples.raw()) == parse_any(samples.raw(kind="model"))


def test_a_base_where_a_model_is_wanted_is_refused() -> None:
    with pytest.raises(RecipeError, match="serves no model"):
        parse(BASE)


# ── the base's plan ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_base_costs_little_and_counts_only_what_runs_without_a_model() -> None:
    found = base_plan()
    assert found.cost.usd_per_hour < 1, "it is kept while no model is served"
    assert not [line.what for line in found.cost.lines if "GPU" in line.what or "EFS" in line.what]
    pods = {pod for node in found.placement.cpu_nodes for pod in node.pods}
    assert {pod.name for pod in CLUSTER_PODS} <= pods, "operator, CoreDNS and the driver run there"


def test_a_base_over_its_budget_is_refused_with_the_figure() -> None:
    with pytest.raises(RecipeError, match=r"\$0\.\d\d an hour"):
        base_plan(budget={"usd_per_hour": 0.1, "ttl_hours": 720})


def test_what_only_the_user_knows_of_a_base_is_set_on_the_base() -> None:
    with pytest.raises(RecipeError, match=r"pulumi config set -s base --path recipe\.access\.account_id"):
        base_plan(access={})


def test_every_mistake_in_a_base_comes_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        base_plan(
            "Base",
            access={**BASE["access"], "zone_id": "use1-az1"},
            versions={"kubernetes": "1.1"},
            hardware={"cpu": {"instance_type": "m7i.tiny"}},
        )
    paths = {problem.path for problem in caught.value.problems}
    assert {"stack", "access.zone_id", "versions.kubernetes", "hardware.cpu.instance_type"} <= paths


# ── a stack on it ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stack_on_a_base_plans_what_the_base_says_about_the_place() -> None:
    under, made = base_plan(), on_base()
    assert made.base == under
    assert made.network == under.network
    assert made.cluster == under.cluster, "the cluster is the base's, identifier included"
    assert made.recipe.access == under.recipe.access
    for name in ("cluster", "node_role", "cluster_role", "efs_role", "efs_creation_token", "log_group"):
        assert getattr(made.names, name) == getattr(under.names, name), name
    assert made.names.gpu_node_group != under.names.gpu_node_group


def test_what_is_served_is_the_same_either_way() -> None:
    own, taken = samples.plan(), on_base()
    assert taken.objects.graph == own.objects.graph
    assert taken.gpu_pool == own.gpu_pool
    assert taken.placement == own.placement, "its CPU nodes are its own, and the cluster's pods may come to them too"


def test_versions_of_the_base_count_for_every_stack_on_it() -> None:
    made = on_base(under=base(versions={"kubernetes": "1.34"}))
    assert made.versions["kubernetes"] == "1.34"
    release = samples.gpu_pool(made).ami_release
    assert release is None or "1.34" in release


def test_a_stack_pays_for_itself_and_the_base_beside_it() -> None:
    own, taken = samples.plan(), on_base()
    assert taken.base is not None
    shared = {"EKS control plane", "NAT gateway", "public IPv4 address"}
    assert shared <= {line.what for line in taken.base.cost.lines}
    assert not shared & {line.what for line in taken.cost.lines}, "two stacks on one base would count it twice"
    hourly = sum(line.usd_per_hour for line in own.cost.lines if line.what in shared)
    assert taken.cost.usd_per_hour == pytest.approx(own.cost.usd_per_hour - hourly, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"access": {"region": "us-west-2"}}, "access.region"),
        ({"access": {"admin_principals": ["arn:aws:iam::111122223333:role/x"]}}, "access.admin_principals"),
        ({"versions": {"kubernetes": "1.34"}}, "versions.kubernetes"),
    ],
)
def test_what_the_base_decides_cannot_be_something_else_on_it(changes: dict[str, Any], path: str) -> None:
    found = refused(**changes)
    assert set(found) == {path}
    assert "stack base, its base, decides it" in found[path].reason
    assert f"pulumi config set -s base --path recipe.{path}" in found[path].fix


def test_what_the_base_decides_may_be_said_again() -> None:
    assert on_base(access={"region": "us-east-2", "zone_id": "use2-az1"}) == on_base(), (
        "a shipped stack names its region: two keys have to be enough to put it on a base"
    )


def test_a_base_that_is_not_complete_is_said_together_with_the_stacks_own_mistakes() -> None:
    found = refused(under=base(access={}), model="Qwen/Qwen3-33B")
    assert {"model", "base:access.account_id", "base:access.zone_id"} <= set(found)
    assert "pulumi config set -s base" in found["base:access.account_id"].fix, (
        "a stack cannot set what the base decides"
    )


def test_placeholders_of_the_base_are_listed_as_its_own() -> None:
    recipe = samples.recipe(**ON_BASE)
    made = make_plan(samples.STACK, recipe, placeholders=True, base=base(access={}))
    assert made.placeholders == ("base:access.account_id", "base:access.zone_id", "base:access.endpoint_cidrs")


def test_a_stack_is_not_its_own_base() -> None:
    assert "is this stack itself" in refused("base", foundation={"kind": "base"})["foundation.stack"].reason


# ── two stacks on one base ───────────────────────────────────────────────────────────────────────────────────────────


def test_two_stacks_on_one_base_share_no_name_that_both_create() -> None:
    one, two = on_base("one"), on_base("two")
    assert one.base == two.base
    ours, theirs = (
        {name: value for name, value in plan.names.model_dump().items() if value != plan.base.names.model_dump()[name]}
        for plan in (one, two)
        if plan.base
    )
    assert not set(ours.values()) & set(theirs.values())
    keys = [
        {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in plan.objects.all()}
        for plan in (one, two)
    ]
    assert not keys[0] & keys[1], "the second `up` would find an object taken, or change the first stack's"


def test_two_stacks_on_one_base_share_no_node() -> None:
    one, two = on_base("one"), on_base("two")
    mine, others = (
        (one.cpu_pool.labels, samples.gpu_pool(one).labels),
        (two.cpu_pool.labels, samples.gpu_pool(two).labels),
    )
    assert one.base is not None
    for selector in _selectors(one):
        assert any(selector.items() <= labels.items() for labels in mine)
        for labels in (*others, one.base.cpu_pool.labels):
            assert not selector.items() <= labels.items(), f"{selector} would also take nodes with {labels}"


def _selectors(plan: Plan) -> list[dict[str, str]]:
    components = plan.objects.graph["spec"]["components"]
    jobs = [manifest for manifest in plan.objects.all() if manifest["kind"] == "Job"]
    specs = [one["podTemplate"]["spec"] for one in components] + [job["spec"]["template"]["spec"] for job in jobs]
    return [spec["nodeSelector"] for spec in specs]


def test_two_stacks_on_one_base_read_the_same_weights_through_volumes_of_their_own() -> None:
    one, two = on_base("one").objects, on_base("two").objects
    for purpose, volume in one.volumes.items():
        other = two.volumes[purpose]
        assert volume["spec"]["csi"] == other["spec"]["csi"], (
            "one access point, so the second download finds the first's"
        )
        assert volume["metadata"]["name"] != other["metadata"]["name"]
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain", "weights outlive the stack"


# ── what program and base agree on ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "changes",
    [
        {"access": {**BASE["access"], "vpc_cidr": "10.50.0.0/16"}},
        {"access": {**BASE["access"], "zone_id": "use2-az2"}},
        {"versions": {"kubernetes": "1.34"}},
        {"deployment_id": "two"},
    ],
)
def test_a_file_that_says_something_else_than_what_runs_is_told_apart(changes: dict[str, Any]) -> None:
    assert base_plan(**changes).agreed() != base_plan().agreed()


@pytest.mark.parametrize(
    "changes",
    [
        {"owner": "someone else"},
        {"budget": {"usd_per_hour": 3, "ttl_hours": 24}},
        {"hardware": {"cpu": {"nodes": 3}}},
        {"access": {**BASE["access"], "endpoint_cidrs": ["198.51.100.8/32"]}},
    ],
)
def test_edits_of_the_base_that_no_stack_plans_with_do_not_stop_them(changes: dict[str, Any]) -> None:
    assert base_plan(**changes).agreed() == base_plan().agreed()
