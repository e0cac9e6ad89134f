"""The EFA bundle: right as a whole, or not there at all."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from recipe.catalogue import gpu_instance
from recipe.config import EngineName, Parallelism, Role
from recipe.constants import EFA_RESOURCE, GRAPH_LABEL
from recipe.engines import ENGINES
from recipe.kv_transfer import KvTransferBundle, kv_transfer
from tests.recipe.samples import AGG_WORKERS, plan, recipe
from tests.recipe.test_graph import SHAPES, TRTLLM, TRTLLM_AGG, component, env, main, pod, strings

# facts/aws.md §4: EFA of a worker by its GPUs.
EFA = {
    "p5.48xlarge": {1: 4, 2: 8, 4: 16, 8: 32},
    "p5e.48xlarge": {1: 4, 2: 8, 4: 16, 8: 32},
    "p5en.48xlarge": {1: 2, 2: 4, 4: 8, 8: 16},
    "p6-b200.48xlarge": {1: 1, 2: 2, 4: 4, 8: 8},
}


def bundle(role: Role = "prefill", instance: str = "p5.48xlarge", **changes: Any) -> KvTransferBundle:
    found = kv_transfer(recipe(**changes), role, gpu_instance(instance))
    assert found is not None
    return found


@pytest.mark.parametrize("instance", EFA)
@pytest.mark.parametrize("gpus", get_args(Parallelism))
def test_a_worker_asks_for_the_share_of_efa_that_belongs_to_its_gpus(instance: str, gpus: int) -> None:
    assert bundle(instance=instance, workers__prefill__tensor_parallel=gpus).efa == EFA[instance][gpus]


def test_nothing_is_transferred_where_one_worker_does_both() -> None:
    assert kv_transfer(recipe(mode="agg", workers=AGG_WORKERS), "worker", gpu_instance("p5.48xlarge")) is None


@pytest.mark.parametrize(("role", "kv_role"), [("prefill", "kv_producer"), ("decode", "kv_consumer")])
def test_both_sides_name_libfabric_in_the_connectors_own_configuration(role: Role, kv_role: str) -> None:
    flag, config = bundle(role).args
    assert flag == "--kv-transfer-config"
    assert json.loads(config) == {
        "kv_connector": "NixlConnector",
        "kv_role": kv_role,
        "kv_connector_extra_config": {"backends": ["LIBFABRIC"]},
    }, "environment variables alone leave NIXL on UCX, at 1-3 GB/s"


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_every_part_of_the_bundle_reaches_the_pod(role: Role) -> None:
    planned, parts = plan(), bundle(role)
    container = main(planned.objects.graph, role)
    assert container["image"].endswith(parts.image_suffix), "without EFA's libfabric there is no LIBFABRIC backend"
    assert set(parts.args) <= set(container["args"])
    assert parts.env.items() <= env(container).items()
    assert container["resources"]["limits"][EFA_RESOURCE] == str(parts.efa)
    assert container["securityContext"] == parts.security_context
    affinity = pod(planned.objects.graph, role)["affinity"]["podAffinity"]
    assert affinity.items() >= parts.pod_affinity(planned.names.graph).items()


def test_gpu_memory_is_not_corrupted_by_the_shared_memory_path() -> None:
    assert bundle().env["FI_EFA_ENABLE_SHM_TRANSFER"] == "0"


def test_workers_stay_in_one_zone_by_the_one_label_that_disaggregated_pods_have() -> None:
    (term,) = bundle().pod_affinity("g")["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"] == {"matchLabels": {GRAPH_LABEL: "g"}}, "component type `worker` matches no such pod"
    assert term["topologyKey"] == "topology.kubernetes.io/zone"


def test_memory_may_be_pinned_and_nothing_more_unless_asked() -> None:
    assert bundle().security_context == {"capabilities": {"add": ["IPC_LOCK"]}}
    asked = bundle(serving__kv_transfer__privileged=True).security_context
    assert asked["privileged"] is True
    assert asked["runAsUser"] == 0, "the image's user does not receive added capabilities"


@pytest.mark.parametrize("shape", SHAPES)
def test_no_graph_asks_for_what_eks_does_not_have_or_forces_ucx(shape: str) -> None:
    text = set(strings(plan(**SHAPES[shape]).objects.graph))
    assert not [found for found in text if found.startswith("rdma/")], "no such resource on EKS: pods stay Pending"
    assert "UCX_TLS" not in text
    assert "LD_LIBRARY_PATH" not in text, "it would replace what the image sets"


def test_bundle_and_plan_agree_on_efa() -> None:
    planned = plan(hardware__gpu="b200", budget__usd_per_hour=1000)
    for worker in planned.workers:
        limits = component(planned.objects.graph, worker.component)["podTemplate"]["spec"]["containers"][0][
            "resources"
        ]["limits"]
        assert limits[EFA_RESOURCE] == str(worker.efa)


# ── TensorRT-LLM ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_every_part_of_tensorrt_llms_bundle_reaches_the_pod(role: Role) -> None:
    planned, parts = plan(**TRTLLM), bundle(role, **TRTLLM)
    container = main(planned.objects.graph, role)
    assert parts.args == (), "dynamo.trtllm takes no connector flag"
    config = json.loads(planned.objects.graph_config[role]["data"]["engine.yaml"])
    assert config["cache_transceiver_config"] == {"backend": "NIXL"}
    assert parts.engine_config.items() <= config.items()
    assert container["image"].endswith("-efa")
    assert parts.env.items() <= env(container).items()
    assert env(container)["TRTLLM_NIXL_KVCACHE_BACKEND"] == "LIBFABRIC", "unset, NIXL uses UCX and nobody says so"
    assert env(container)["FI_EFA_ENABLE_SHM_TRANSFER"] == "0"
    assert container["resources"]["limits"][EFA_RESOURCE] == str(parts.efa)
    assert container["securityContext"] == parts.security_context


def test_tensorrt_llm_transfers_nothing_where_one_worker_does_both() -> None:
    planned = plan(**TRTLLM_AGG)
    text = set(strings(planned.objects.graph)) | set(strings(planned.objects.graph_config))
    assert not [found for found in text if "cache_transceiver" in found or "TRTLLM_NIXL" in found]


def test_the_backend_switches_every_part_of_it_at_once() -> None:
    parts = bundle(**TRTLLM, serving__kv_transfer__backend="ucx")
    assert parts.env["TRTLLM_NIXL_KVCACHE_BACKEND"] == "UCX"
    assert parts.engine_config == {"cache_transceiver_config": {"backend": "NIXL"}}, "UCX below NIXL, not instead of it"


@pytest.mark.parametrize("engine", get_args(EngineName))
def test_every_engine_that_is_shipped_has_its_switch(engine: EngineName) -> None:
    if ENGINES[engine].on_gpus:
        assert bundle(engine=engine).image_suffix == "-efa"
