"""The mock engine: the same graph without a GPU, and everything that must not be there because of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe import catalogue
from recipe.config import parse
from recipe.constants import CPU_POOL, EFA_RESOURCE, GPU_RESOURCE, POOL_LABEL
from recipe.engines import ENGINES
from recipe.engines.mocker import BLOCKS
from recipe.errors import Problem, RecipeError
from recipe.placement import pod_of
from recipe.plan import Late, Plan
from recipe.planner import make_plan
from recipe.weights import WEIGHT_FILES
from tests.recipe.samples import MOCKER, STACK, plan, raw, recipe
from tests.recipe.test_graph import component, env, main, pod, strings
from tests.recipe.test_jobs import env as job_env

STACK_FILE = Path(__file__).parents[2] / "stacks/Pulumi.mocker-cpu.yaml"


def twin(**changes: Any) -> Plan:
    return plan(**{**MOCKER, **changes})


def args(role: str, **changes: Any) -> list[str]:
    return list(main(twin(**changes).objects.graph, role)["args"])


def value(given_args: list[str], flag: str) -> str:
    return given_args[given_args.index(flag) + 1]


def refused(**changes: Any) -> list[Problem]:
    with pytest.raises(RecipeError) as caught:
        plan(**changes)
    return list(caught.value.problems)


def shipped(**hardware_cpu: Any) -> Plan:
    """The plan of the stack file, with `hardware.cpu` changed."""
    data = yaml.safe_load(STACK_FILE.read_text())["config"]["dynamo-recipes:recipe"]
    data["hardware"]["cpu"] |= hardware_cpu
    return make_plan("mocker-cpu", parse(data), placeholders=True)


# ── the same shape ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_twin_has_the_components_of_the_stack_it_stands_for() -> None:
    def shape(made: Plan) -> list[tuple[str, str, int]]:
        return [(part["name"], part["type"], part["replicas"]) for part in made.objects.graph["spec"]["components"]]

    assert shape(shipped()) == shape(plan()) == shape(twin()), "a twin of another shape shows nothing about this one"


def test_frontend_and_router_are_the_real_ones() -> None:
    real, mock = plan().objects.graph, shipped().objects.graph
    assert main(mock, "frontend")["args"] == main(real, "frontend")["args"]
    assert main(mock, "frontend")["image"] == main(real, "frontend")["image"]


def test_workers_run_dynamos_mock_engine_from_the_image_that_carries_it() -> None:
    container = main(twin().objects.graph, "prefill")
    assert container["command"] == ["python3", "-m", "dynamo.mocker"]
    assert container["image"] == "nvcr.io/nvidia/ai-dynamo/dynamo-planner:1.6.1", (
        "there is no image of its own (facts/dynamo.md §3)"
    )


def test_the_graph_names_no_framework_because_the_crd_has_no_word_for_it() -> None:
    assert "backendFramework" not in twin().objects.graph["spec"], "upstream's own mocker graph leaves it out too"
    assert plan().objects.graph["spec"]["backendFramework"] == "vllm"


# ── no GPU, nowhere ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_asks_for_a_gpu() -> None:
    made = twin()
    text = {word for manifest in made.objects.all() for word in strings(manifest)}
    assert not text & {GPU_RESOURCE, EFA_RESOURCE, "tolerations", "securityContext.capabilities"}
    assert (made.gpu_pool, made.devices, made.gpus) == (None, (), 0)
    assert (made.placement.gpu_nodes, made.placement.gpu_memory) == ((), ())
    assert not {"gpu_ami", "nixl", "cuda"} & set(made.versions)
    assert not any("GPU" in warning for warning in made.warnings), "no warning about what is not there"


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_workers_go_to_the_cpu_pool_and_mount_nothing_but_the_model(role: str) -> None:
    made = twin()
    spec, container = pod(made.objects.graph, role), main(made.objects.graph, role)
    assert spec["nodeSelector"][POOL_LABEL] == CPU_POOL
    assert spec["nodeSelector"].items() <= made.cpu_pool.labels.items(), "else they stay Pending"
    assert [volume["name"] for volume in spec["volumes"]] == ["model-cache"], "nothing is compiled"
    assert container["resources"] == {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"memory": "2Gi"}}
    assert "sharedMemorySize" not in component(made.objects.graph, role)


def test_every_worker_is_counted_on_the_cpu_nodes() -> None:
    pods = [name for node in twin().placement.cpu_nodes for name in node.pods]
    assert [pods.count(f"prefill-{index}") for index in range(6)] == [1] * 6
    assert [pods.count(f"decode-{index}") for index in range(2)] == [1] * 2


def test_what_does_not_fit_the_cpu_nodes_is_refused_with_the_numbers() -> None:
    (problem,) = refused(**{**MOCKER, "hardware": {"cpu": {"instance_type": "m7i.xlarge", "nodes": 1}}})
    assert problem.path == "hardware.cpu", "eight workers that do not fit are one problem"
    assert "and 1 more (0.5 CPU, 2.0 GiB)" in problem.reason
    assert "no place on 1 × m7i.xlarge (3.92 CPU, 13.8 GiB allocatable each)" in problem.reason
    assert "all pods together ask for" in problem.reason


def test_the_stack_has_the_cheapest_cpu_nodes_of_the_catalogue_that_hold_it() -> None:
    paid = shipped().cpu_pool

    def usd(name: str, nodes: int) -> float:
        price = catalogue.price(name)
        assert price is not None
        assert price.usd is not None
        return price.usd * nodes

    for row in catalogue.CPU_INSTANCES.values():
        for nodes in range(1, 17):
            if usd(row.name, nodes) < usd(paid.instance_type, paid.count):
                with pytest.raises(RecipeError, match="no place on"):
                    shipped(instance_type=row.name, nodes=nodes)


def test_init_containers_count_as_the_scheduler_counts_them() -> None:
    small, large = ({"resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}} for cpu in ("500m", "2"))
    assert pod_of("a", {"containers": [small, small], "initContainers": [large]}).cpu_millis == 2000
    assert pod_of("a", {"containers": [large, small], "initContainers": [large]}).cpu_millis == 2500
    assert pod_of("a", {"containers": [small, small], "initContainers": [small]}).memory_mib == 2048


# ── what an hour costs ───────────────────────────────────────────────────────────────────────────────────────────────


def test_it_costs_cents_an_hour_and_no_line_is_about_gpus() -> None:
    cost = shipped().cost
    assert cost.usd_per_hour < 0.60
    assert cost.usd_once < 0.30
    assert not any("GPU" in line.what for line in cost.lines)
    stored = next(line for line in cost.lines if line.what == "EFS, GB stored")
    assert stored.usd_per_hour < 0.0001, "the weights are not there"


def test_the_budget_still_holds() -> None:
    (problem,) = refused(**{**MOCKER, "budget": {"usd_per_hour": 0.5, "ttl_hours": 8}})
    assert problem.path == "budget.usd_per_hour"
    assert twin().tags["ttl-hours"] == "8"


# ── the download ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_job_leaves_the_weights_out_and_says_so_in_its_environment() -> None:
    assert job_env(twin().objects.weights_job)["MODEL_FILES_WITHOUT"] == WEIGHT_FILES
    assert "MODEL_FILES_WITHOUT" not in job_env(plan().objects.weights_job)


def test_a_whole_and_a_partial_download_are_different_jobs() -> None:
    names = {made.objects.weights_job["metadata"]["name"] for made in (plan(), twin(), twin(weights={"memory_gib": 2}))}
    assert len(names) == 3, "a Job that has run is not run again"


def test_the_job_asks_for_what_a_few_files_take() -> None:
    spec = twin().objects.weights_job["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"]["memory"] == "1Gi"
    assert pod_of("weights", spec).cpu_millis == 500
    assert job_env(twin().objects.weights_job)["HF_XET_HIGH_PERFORMANCE"] == "0", "the fast mode buffers 64 GB"
    assert plan().objects.weights_job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] == (
        "64Gi"
    )


def test_readiness_answers_for_the_nodes_the_workers_run_on() -> None:
    assert twin().objects.readiness_job["metadata"]["name"].endswith(Late.CPU_NODES)
    assert plan().objects.readiness_job["metadata"]["name"].endswith(Late.GPU_NODES)


# ── its command line (dynamo/mocker/args.py of the wheel ai-dynamo 1.6.1) ────────────────────────────────────────────


def test_each_worker_is_told_its_model_and_role() -> None:
    made = twin()
    given_args = args("prefill")
    assert value(given_args, "--model-path") == made.model.snapshot_path, "an id would be looked up on the hub"
    assert value(given_args, "--model-name") == "Qwen/Qwen3-32B"
    assert value(given_args, "--disaggregation-mode") == "prefill"
    assert value(args("decode"), "--disaggregation-mode") == "decode"
    one_pool = {"worker": {"replicas": 8, "tensor_parallel": 1, "cpu": 0.5, "memory_gib": 2}}
    assert "--disaggregation-mode" not in args("worker", mode="agg", workers=one_pool)


def test_the_cache_has_the_size_the_plan_says() -> None:
    given_args = args("prefill")
    assert value(given_args, "--num-gpu-blocks-override") == str(BLOCKS)
    assert {pool.kv_cache_tokens for pool in twin().workers} == {BLOCKS * 64}
    model = catalogue.model("Qwen/Qwen3-32B")
    assert value(given_args, "--kv-bytes-per-token") == str(model.kv_bytes_per_token()), (
        "its own guess takes 80 for the size of a head that is 128"
    )
    halved = args("prefill", engine_tuning={"kv_cache_dtype": "fp8"})
    assert value(halved, "--kv-bytes-per-token") == str(model.kv_bytes_per_token("fp8"))


def test_router_and_workers_count_in_the_same_blocks_also_where_the_recipe_is_silent() -> None:
    for tuning, size in (({"block_size": 128}, "128"), ({}, "64")):
        assert value(args("prefill", engine_tuning=tuning), "--block-size") == size
    frontend = list(main(twin(engine_tuning={"block_size": 128}).objects.graph, "frontend")["args"])
    assert value(frontend, "--kv-cache-block-size") == "128"


@pytest.mark.parametrize(
    ("tuning", "expected"),
    [
        ({"max_batch_size": 96}, ["--max-num-seqs", "96"]),
        ({"max_batch_tokens": 8192}, ["--max-num-batched-tokens", "8192"]),
        ({"context_length": 65536}, ["--max-model-len", "65536"]),
        ({}, ["--max-model-len", "32768"]),
        ({"prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"extra_args": ["--speedup-ratio", "10"]}, ["--speedup-ratio", "10"]),
    ],
)
def test_every_setting_it_has_reaches_the_command_line(tuning: dict[str, Any], expected: list[str]) -> None:
    given_args = args("prefill", engine_tuning=tuning)
    assert any(given_args[at : at + len(expected)] == expected for at in range(len(given_args))), given_args


def test_decode_workers_keep_no_prefixes_unless_asked() -> None:
    assert "--no-enable-prefix-caching" in args("decode")
    assert not {"--no-enable-prefix-caching", "--enable-prefix-caching"} & set(args("prefill"))


def test_events_come_from_the_workers_that_see_prompts_first() -> None:
    engine, made = ENGINES["mocker"], recipe(**MOCKER)
    assert engine.publishes_kv_events(made, "prefill")
    assert not engine.publishes_kv_events(made, "decode")
    assert (
        "--no-router-kv-events" in main(twin(engine_tuning={"prefix_caching": False}).objects.graph, "frontend")["args"]
    )
    assert env(main(twin().objects.graph, "prefill"))["DYN_EVENT_PLANE"] == "zmq", "nobody installs NATS"


# ── what makes no sense ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "set_to", "says"),
    [
        ("hardware.gpu", "h100", "CPU nodes only"),
        ("hardware.instance_type", "p5.48xlarge", "CPU nodes only"),
        ("hardware.capacity", {"kind": "spot", "accept_interruption": True}, "CPU nodes only"),
        ("hardware.placement_group", True, "CPU nodes only"),
        ("hardware.nic_layout", "device1", "CPU nodes only"),
        ("hardware.paused", True, "CPU nodes only"),
        ("workers.decode.tensor_parallel", 2, "no GPUs to split"),
        ("workers.decode.shared_memory_gib", 1, "shares no memory"),
        ("engine_tuning.gpu_memory_fraction", 0.9, "no such setting"),
        ("engine_tuning.async_scheduling", True, "no such setting"),
    ],
)
def test_a_word_about_gpus_is_refused_not_ignored(path: str, set_to: Any, says: str) -> None:
    data = raw(**MOCKER)
    *parents, last = path.split(".")
    target = data
    for parent in parents:
        target = target[parent]
    target[last] = set_to
    with pytest.raises(RecipeError) as caught:
        make_plan(STACK, parse(data))
    found = [str(problem) for problem in caught.value.problems if problem.path == path]
    assert any(says in message for message in found), caught.value


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"hardware": {}}, "hardware.gpu", "one of h100, h200, b200"),
        ({"hardware": {"instance_type": "p5.48xlarge"}}, "hardware.gpu", "not set"),
        ({"workers__prefill__memory_gib": 16}, "workers.prefill.memory_gib", "at least 32"),
        ({"weights": {"memory_gib": 8}}, "weights.memory_gib", "at least 12"),
    ],
)
def test_an_engine_on_gpus_needs_what_the_mocker_does_not(changes: dict[str, Any], path: str, says: str) -> None:
    found = [str(problem) for problem in refused(**changes) if problem.path == path]
    assert any(says in message for message in found), found


# ── any recipe ───────────────────────────────────────────────────────────────────────────────────────────────────────

POOL = st.fixed_dictionaries(
    {
        "replicas": st.integers(1, 12),
        "tensor_parallel": st.just(1),
        "cpu": st.sampled_from([0.1, 0.25, 0.5, 1, 4, 16]),
        "memory_gib": st.integers(1, 64),
    }
)


@settings(max_examples=100)
@given(
    model=st.sampled_from(sorted(catalogue.MODELS)),
    pools=st.one_of(
        st.fixed_dictionaries({"worker": POOL}).map(lambda workers: ("agg", workers)),
        st.fixed_dictionaries({"prefill": POOL, "decode": POOL}).map(lambda workers: ("disagg", workers)),
    ),
    instance=st.sampled_from(sorted(catalogue.CPU_INSTANCES)),
    nodes=st.integers(1, 8),
)
def test_any_mocker_recipe_is_a_plan_with_a_place_for_every_pod_or_a_refusal_with_numbers(
    model: str, pools: tuple[str, Any], instance: str, nodes: int
) -> None:
    mode, workers = pools
    changes = MOCKER | {
        "model": model,
        "mode": mode,
        "workers": workers,
        "hardware": {"cpu": {"instance_type": instance, "nodes": nodes}},
        "budget": {"usd_per_hour": 1000, "ttl_hours": 1},
    }
    try:
        made = plan(**changes)
    except RecipeError as error:
        unclear = [
            problem for problem in error.problems if problem.path != "hardware.cpu" or "GiB" not in problem.reason
        ]
        if unclear:
            pytest.fail(f"a refusal about something else, or without numbers: {unclear}")
        return
    pods = [name for node in made.placement.cpu_nodes for name in node.pods]
    for role, pool in workers.items():
        assert sum(name.startswith(f"{role}-") for name in pods) == pool["replicas"]
    for node in made.placement.cpu_nodes:
        assert node.cpu_millis <= node.cpu_millis_allocatable
        assert node.memory_mib <= node.memory_mib_allocatable
    assert made.gpu_pool is None
