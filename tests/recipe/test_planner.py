"""What the plan decides, and what it refuses before anyone pays."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe import catalogue
from recipe.config import parse
from recipe.constants import EFA_RESOURCE, GPU_RESOURCE
from recipe.engines import ENGINES
from recipe.errors import Problem, RecipeError
from recipe.names import LABEL_LIMIT, fit, make_names
from recipe.planner import make_plan
from tests.recipe.samples import AGG_WORKERS, STACK, gpu_pool, plan, raw, recipe
from tests.recipe.test_graph import main

H100 = catalogue.gpu_instance("p5.48xlarge")


def refused(**changes: Any) -> list[Problem]:
    with pytest.raises(RecipeError) as caught:
        plan(**changes)
    return list(caught.value.problems)


# ── the shipped shape ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_disaggregated_stack_takes_two_full_p5_nodes() -> None:
    made = plan()
    assert (gpu_pool(made).instance_type, gpu_pool(made).count, made.gpus) == ("p5.48xlarge", 2, 16)
    assert [node.gpus_used for node in made.placement.gpu_nodes] == [8, 8], "no GPU is paid for and idle"
    assert [node.efa_used for node in made.placement.gpu_nodes] == [32, 32], "4 EFA per GPU on p5 (facts/aws.md §1)"


def test_the_roles_are_kept_apart_as_far_as_whole_nodes_allow() -> None:
    assert [node.workers for node in plan().placement.gpu_nodes] == [{"prefill": 2, "decode": 2}, {"prefill": 4}], (
        "transfers within a node failed with EAGAIN; the graph's anti-affinity says the same (facts/dynamo.md §8)"
    )


def test_a_worker_has_the_gpus_of_all_its_copies_everywhere() -> None:
    made = plan(
        model="Qwen/Qwen3-235B-A22B-FP8",
        workers={
            "prefill": {
                "replicas": 1,
                "tensor_parallel": 4,
                "data_parallel": 2,
                "expert_parallel": 8,
                "memory_gib": 900,
            },
            "decode": {"replicas": 1, "tensor_parallel": 8, "expert_parallel": 8, "memory_gib": 900},
        },
        engine_tuning={"context_length": 8192},
        hardware={"gpu": "h200"},
        budget__usd_per_hour=200,
    )
    prefill = next(pool for pool in made.workers if pool.role == "prefill")
    assert (prefill.gpus, prefill.efa, gpu_pool(made).count) == (8, 16, 2)
    limits = main(made.objects.graph, "prefill")["resources"]["limits"]
    assert (limits[GPU_RESOURCE], limits[EFA_RESOURCE]) == ("8", "16")
    memory = {one.role: one for one in made.placement.gpu_memory}
    assert memory["prefill"].weights_gib > memory["decode"].weights_gib, "attention is there twice, the experts once"


def test_roles_on_one_node_are_warned_about() -> None:
    small = {"prefill": {"replicas": 2, "tensor_parallel": 2}, "decode": {"replicas": 2, "tensor_parallel": 2}}
    assert any("EAGAIN" in warning for warning in plan(workers=small).warnings)
    assert not any("EAGAIN" in warning for warning in plan().warnings)


def test_an_aggregated_stack_needs_no_efa() -> None:
    made = plan(mode="agg", workers=AGG_WORKERS, router={"mode": "round-robin"})
    assert [(pool.role, pool.efa, pool.gpus) for pool in made.workers] == [("worker", 0, 2)]
    assert "-efa" not in made.images["worker"], "the EFA image is for KV transfer only"


@pytest.mark.parametrize(
    ("gpu", "instance", "efa"),
    [("h100", "p5.48xlarge", 8), ("h200", "p5en.48xlarge", 4), ("b200", "p6-b200.48xlarge", 2)],
)
def test_one_key_switches_the_gpu_and_everything_that_follows(gpu: str, instance: str, efa: int) -> None:
    made = plan(hardware__gpu=gpu, budget__usd_per_hour=400)
    assert gpu_pool(made).instance_type == instance
    assert {pool.efa for pool in made.workers} == {efa}, "GPUs of a worker × EFA per GPU of the type (facts/aws.md §4)"


def test_nodes_and_cache_are_in_one_zone_and_only_the_control_plane_in_two() -> None:
    network = plan().network
    assert network.nodes.zone_id == network.public.zone_id == "use2-az1", (
        "EFA does not cross zones, nor should the cache's traffic"
    )
    assert network.control_plane.zone_id != "use2-az1", "EKS asks for two zones"


@given(st.sampled_from([16, 17, 18, 19, 20]), st.integers(0, 15))
def test_subnets_never_overlap_and_services_are_outside_the_vpc(prefix: int, second: int) -> None:
    vpc = ipaddress.ip_network(f"172.{16 + second}.0.0/{prefix}")
    made = plan(access__vpc_cidr=str(vpc))
    subnets = [
        ipaddress.ip_network(part.cidr)
        for part in (made.network.public, made.network.nodes, made.network.control_plane)
    ]
    assert all(subnet.subnet_of(vpc) for subnet in subnets)  # type: ignore[arg-type]
    assert not any(a.overlaps(b) for i, a in enumerate(subnets) for b in subnets[i + 1 :])
    assert not ipaddress.ip_network(made.cluster.service_cidr).overlaps(vpc), (
        "service addresses inside the VPC are unreachable"
    )


def test_the_cluster_identifier_stays_on_updates_and_changes_with_the_cluster() -> None:
    before = plan().cluster.identifier
    assert plan(access__endpoint_cidrs=["198.51.100.9/32"], workers__decode__replicas=1).cluster.identifier == before
    assert plan(access__vpc_cidr="10.43.0.0/16").cluster.identifier != before, "a new VPC is a new cluster"


def test_tags_do_not_change_with_time_and_name_the_deployment() -> None:
    assert plan(owner="ml-infra").tags == {
        "project": "dynamo-recipes",
        "stack": STACK,
        "deployment": "main",
        "owner": "ml-infra",
        "ttl-hours": "8",
    }


def test_planning_twice_gives_the_same_plan() -> None:
    assert plan() == plan(), "anything that varies would show as a change on every up"


# ── money ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_hourly_cost_is_the_sum_of_its_lines_and_mostly_gpus() -> None:
    cost = plan().cost
    assert cost.usd_per_hour == pytest.approx(sum(line.usd_per_hour for line in cost.lines), abs=0.01)
    assert cost.lines[0].usd_per_hour == pytest.approx(110.08), "two p5.48xlarge at $55.04 (facts/aws.md §8)"
    assert cost.usd_for_ttl == pytest.approx(cost.usd_per_hour * 8 + cost.usd_once, abs=0.05)


def test_every_amount_names_where_its_price_comes_from() -> None:
    assert all(line.source and line.as_of for line in plan().cost.lines), "a price without source and date is a rumour"


def test_a_stack_above_its_budget_is_refused_with_both_figures() -> None:
    (problem,) = refused(budget__usd_per_hour=100)
    assert problem.path == "budget.usd_per_hour"
    assert problem.fix.endswith("GPU nodes, p5.48xlarge, 2 for $110.08 an hour"), (
        "what costs most, by the hour whatever it is priced by"
    )
    assert "$11" in problem.reason, "the message must say what it would cost"


BLOCK = {"kind": "capacity-block", "reservation_id": "cr-0123456789abcdef0"}


@pytest.mark.parametrize(
    ("hardware", "stand_in"),
    [
        ({"gpu": "h200", "instance_type": "p5e.48xlarge"}, "p5en.48xlarge"),
        ({"gpu": "b200", "capacity": BLOCK}, "p6-b200.48xlarge"),
    ],
)
def test_an_unknown_price_has_a_stand_in_that_a_cap_can_hold(hardware: dict[str, Any], stand_in: str) -> None:
    made = plan(hardware=hardware, budget__usd_per_hour=400)
    (warning,) = [one for one in made.warnings if "no price known for" in one]
    assert f"that of {stand_in}, $" in warning
    assert any(f"at the price of {stand_in}" in line.what for line in made.cost.lines)
    assert made.cost.usd_per_hour > 100, "at no price, 16 GPUs would pass under a cap of $5"
    (problem,) = [one for one in refused(hardware=hardware, budget__usd_per_hour=5) if "budget" in one.path]
    assert "an hour" in problem.reason


def test_what_goes_through_the_escape_hatch_is_said() -> None:
    made = plan(workers__decode__tuning={"extra_args": ["--max-model-len=1024"]})
    (warning,) = [one for one in made.warnings if "extra arguments" in one]
    assert warning.startswith("decode: --max-model-len=1024: nobody checks")
    assert not any("extra arguments" in one for one in plan().warnings)


def test_a_known_price_has_no_stand_in() -> None:
    block = plan(hardware={"gpu": "h100", "capacity": BLOCK}, budget__usd_per_hour=400)
    for made in (plan(), block):
        assert not any("no price known" in warning for warning in made.warnings)
        assert not any("at the price of" in line.what for line in made.cost.lines)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"workers__prefill__memory_gib": 700}, "workers.prefill.memory_gib", "memory_gib at most"),
        ({"workers__prefill__cpu": 64}, "workers.prefill.cpu", "cpu at most"),
        ({"workers__decode__shared_memory_gib": 400}, "workers.decode.shared_memory_gib", "less than memory_gib"),
        ({"hardware__cpu": {"instance_type": "m7i.2xlarge", "nodes": 2}}, "hardware.cpu", "m7i.2xlarge"),
        ({"workers__prefill__tensor_parallel": 1}, "workers.prefill.tensor_parallel", "tensor_parallel: 2"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_way_out(changes: dict[str, Any], path: str, says: str) -> None:
    found = [str(problem) for problem in refused(**changes) if problem.path == path]
    assert any(says in message for message in found), f"a problem at {path} must say {says!r}; there is {found}"


def test_the_frontend_does_not_fit_a_node_with_just_as_many_cpus() -> None:
    (problem, *_) = refused(hardware__cpu={"instance_type": "m7i.2xlarge", "nodes": 8}, weights={"memory_gib": 12})
    assert "frontend-0 (8 CPU" in problem.reason, "allocatable is below 8 on an 8-CPU node (facts/dynamo.md, Observed)"


def test_weights_and_cache_are_held_against_gpu_memory_with_the_numbers() -> None:
    (problem, *_) = refused(workers__prefill__tensor_parallel=1)
    assert "61.0 GiB weights" in problem.reason
    assert "131,072" in problem.reason, "the refusal must name the request that does not fit"


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,38}[a-z0-9]", fullmatch=True), st.from_regex(r"[a-z][a-z0-9]{0,7}", fullmatch=True)
)
def test_names_fit_every_service_for_every_stack(stack: str, deployment: str) -> None:
    names = make_names(stack, deployment)
    limits = {
        "cluster_role": 64,
        "node_role": 64,
        "efs_role": 64,
        "gpu_node_group": 63,
        "cpu_node_group": 63,
        "efs_creation_token": 64,
        "prefix": 63,
    }
    assert all(len(getattr(names, name)) <= limit for name, limit in limits.items())
    assert len(f"{names.namespace}-{names.graph}") <= LABEL_LIMIT, "the operator makes this a label value"
    assert "." not in names.graph


@given(st.text("ab-", min_size=1, max_size=80), st.text("ab-", min_size=1, max_size=80), st.integers(20, 64))
def test_different_long_names_stay_different(one: str, other: str, limit: int) -> None:
    assert (fit(one, limit) == fit(other, limit)) == (one == other)


@pytest.mark.parametrize("stack", ["Qwen", "qwen3.32b", "-a", "a" * 41, "a"])
def test_a_stack_name_that_cannot_be_a_namespace_is_refused(stack: str) -> None:
    with pytest.raises(RecipeError, match="stack"):
        plan(stack=stack)


# ── any recipe ───────────────────────────────────────────────────────────────────────────────────────────────────────

POOL = st.fixed_dictionaries(
    {"replicas": st.integers(1, 12), "tensor_parallel": st.sampled_from([1, 2, 4, 8])},
    optional={
        "cpu": st.integers(1, 64),
        "memory_gib": st.integers(81, 900),
        "expert_parallel": st.sampled_from([1, 2]),
        "data_parallel": st.sampled_from([1, 2, 4]),
    },
)


@settings(max_examples=150)
@given(
    model=st.sampled_from(sorted(catalogue.MODELS)),
    gpu=st.sampled_from(["h100", "h200", "b200"]),
    pools=st.one_of(
        st.fixed_dictionaries({"worker": POOL}).map(lambda workers: ("agg", workers)),
        st.fixed_dictionaries({"prefill": POOL, "decode": POOL}).map(lambda workers: ("disagg", workers)),
    ),
    engine=st.sampled_from(sorted(ENGINES)),
    context=st.sampled_from([4096, 32768, 131072]),
)
def test_any_recipe_is_a_plan_that_adds_up_or_a_refusal(
    model: str, gpu: str, pools: tuple[str, Any], engine: str, context: int
) -> None:
    mode, workers = pools
    data = raw(
        model=model,
        engine=engine,
        mode=mode,
        workers=workers,
        hardware={"gpu": gpu},
        engine_tuning={"context_length": context, "chunked_prefill": True},
        budget__usd_per_hour=100_000,
    )
    try:
        made = make_plan(STACK, parse(data))
    except RecipeError as error:
        unclear = [problem for problem in error.problems if not (problem.path and problem.reason and problem.fix)]
        if unclear:
            pytest.fail(f"a refusal without path, reason or way out: {unclear}")
        return
    instance = catalogue.gpu_instance(gpu_pool(made).instance_type)
    placed = [node.workers for node in made.placement.gpu_nodes]
    for pool in made.workers:
        assert sum(node.get(pool.role, 0) for node in placed) == pool.replicas, "every worker has a place"
        assert pool.kv_cache_tokens >= context * pool.data_parallel, "one request of full length fits each copy"
    for node in made.placement.gpu_nodes:
        assert node.gpus_used == sum(
            count * recipe(mode=mode, workers=workers).workers[role].gpus for role, count in node.workers.items()
        )
        assert node.gpus_used <= instance.gpus
        assert node.efa_used <= instance.efa_devices
    assert gpu_pool(made).count * instance.gpus - made.gpus < instance.gpus, "no whole node idle"
    for cpu in made.placement.cpu_nodes:
        assert cpu.cpu_millis <= cpu.cpu_millis_allocatable
        assert cpu.memory_mib <= cpu.memory_mib_allocatable
