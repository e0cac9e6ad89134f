"""The graph as the API server and the operator will judge it."""

from __future__ import annotations

import functools
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from recipe.constants import (
    CPU_POOL,
    EFA_RESOURCE,
    GPU_RESOURCE,
    GPU_TAINT_KEY,
    GPU_TAINT_VALUE,
    GPU_TOLERATION,
    GRAPH_LABEL,
    POOL_LABEL,
    STACK_LABEL,
)
from recipe.graph import Component, Container
from recipe.plan import Manifest
from tests.recipe.samples import AGG_WORKERS, MOCKER, gpu_pool, plan

CRD = Path(__file__).parents[3] / "shared/reference/crd/nvidia.com_dynamographdeployments.full.2026-08-21.yaml.gz"

TRTLLM: dict[str, Any] = {"engine": "trtllm", "engine_tuning__chunked_prefill": True}
TRTLLM_AGG = TRTLLM | {"mode": "agg", "workers": AGG_WORKERS}
SHAPES: dict[str, dict[str, Any]] = {
    "disagg": {},
    "agg": {"mode": "agg", "workers": AGG_WORKERS},
    "agg round-robin": {"mode": "agg", "workers": AGG_WORKERS, "router__mode": "round-robin"},
    "h200": {"hardware__gpu": "h200", "budget__usd_per_hour": 1000},
    "b200": {"hardware__gpu": "b200", "budget__usd_per_hour": 1000},
    "mocker": MOCKER,
    "privileged": {"serving__kv_transfer__privileged": True},
    "trtllm agg": TRTLLM_AGG,
    "trtllm disagg": TRTLLM,
    "trtllm disagg on b200": TRTLLM | {"hardware__gpu": "b200", "budget__usd_per_hour": 1000},
    "two frontends": {"serving__frontend__replicas": 2, "router__temperature": 0.5, "router__overlap_credit": 2.0},
}


def graph(**changes: Any) -> Manifest:
    return plan(**changes).objects.graph


def component(manifest: Manifest, name: str) -> Manifest:
    found: Manifest = next(part for part in manifest["spec"]["components"] if part["name"] == name)
    return found


def pod(manifest: Manifest, name: str) -> Manifest:
    spec: Manifest = component(manifest, name)["podTemplate"]["spec"]
    return spec


def main(manifest: Manifest, name: str) -> Manifest:
    container: Manifest = pod(manifest, name)["containers"][0]
    return container


def env(container: Manifest) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)
    else:
        yield str(value)


@functools.cache
def crd_schema() -> dict[str, Any]:
    if not CRD.exists():
        pytest.skip(
            "no CRD beside this checkout: take deploy/operator/config/crd/bases/nvidia.com_dynamographdeployments.yaml "
            f"of ai-dynamo/dynamo, gzip it, and put it at {CRD}"
        )
    crd = yaml.load(gzip.decompress(CRD.read_bytes()), yaml.CSafeLoader)
    version = next(version for version in crd["spec"]["versions"] if version["name"] == "v1beta1")
    schema: dict[str, Any] = strict(version["schema"]["openAPIV3Schema"])
    return schema


def strict(schema: Any) -> Any:
    """The schema with unknown fields refused, as `fieldValidation=Strict` does; int-or-string as the API server reads it."""
    if isinstance(schema, list):
        return [strict(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    open_object = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_object:
        result["additionalProperties"] = False
    return result


# ── what the API server says ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", SHAPES)
def test_the_real_crd_accepts_every_shape_of_graph(shape: str) -> None:
    manifest = graph(**SHAPES[shape])
    schema = crd_schema()
    jsonschema.validate(manifest["spec"], schema["properties"]["spec"])


def test_the_strict_crd_check_would_notice_a_misspelt_field() -> None:
    manifest = graph()
    component(manifest, "prefill")["podTemplate"]["spec"]["containers"][0]["workinDir"] = "/"
    with pytest.raises(jsonschema.ValidationError, match="workinDir"):
        jsonschema.validate(manifest["spec"], crd_schema()["properties"]["spec"])


def test_a_field_that_kubernetes_does_not_have_is_an_error_in_our_models() -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        Container.model_validate({"image": "a", "workdir": "/"})


@pytest.mark.parametrize("name", ["Prefill", "a.b", "-a", "x" * 64])
def test_component_names_that_make_bad_service_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        Component.model_validate({"name": name, "type": "worker", "replicas": 1, "pod_template": {}})


def test_every_value_where_kubernetes_wants_text_is_text() -> None:
    for part in graph()["spec"]["components"]:
        container = part["podTemplate"]["spec"]["containers"][0]
        values = [*env(container).values(), *container["args"], *container["resources"]["requests"].values()]
        assert all(isinstance(value, str) for value in values), "YAML would turn a bare 64 or 'false' into another type"


# ── what the operator does with it ───────────────────────────────────────────────────────────────────────────────────


def test_the_frontend_is_called_frontend_or_its_service_has_another_name() -> None:
    planned = plan()
    assert component(planned.objects.graph, "frontend")["type"] == "frontend"
    assert planned.names.frontend_service == f"{planned.names.graph}-frontend"


def test_disaggregated_workers_have_the_types_that_their_pods_are_labelled_with() -> None:
    types = {part["name"]: part["type"] for part in graph()["spec"]["components"]}
    assert types == {"frontend": "frontend", "prefill": "prefill", "decode": "decode"}


def test_an_aggregated_graph_has_one_pool_of_type_worker_and_no_efa() -> None:
    manifest = graph(**SHAPES["agg"])
    assert component(manifest, "worker")["type"] == "worker"
    assert EFA_RESOURCE not in set(strings(manifest)), "nothing is transferred, so no device is taken from anyone"
    assert not main(manifest, "worker")["image"].endswith("-efa")
    assert "affinity" not in pod(manifest, "worker")


def test_the_image_tag_parses_as_a_version_or_admission_refuses_it() -> None:
    for part in graph()["spec"]["components"]:
        tag = part["podTemplate"]["spec"]["containers"][0]["image"].rpartition(":")[2]
        assert re.fullmatch(r"v?\d+\.\d+\.\d+(-[\w.]+)?", tag), tag


def test_pulumi_deletes_the_graph_in_the_background() -> None:
    annotations = graph()["metadata"]["annotations"]
    assert annotations["pulumi.com/deletionPropagationPolicy"] == "background", "foreground looped and held GPUs"


def test_nothing_the_operator_owns_is_managed() -> None:
    text = set(strings(graph()))
    assert not text & {"nvidia.com/workload-provider", "restart", "pvcs", "services", "compilationCache"}


# ── placement ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_workers_go_only_to_their_own_stacks_gpu_nodes(role: str) -> None:
    planned = plan()
    spec = pod(planned.objects.graph, role)
    assert spec["nodeSelector"] == {POOL_LABEL: planned.names.prefix}, "two stacks on one cluster never share GPUs"
    assert spec["nodeSelector"].items() <= gpu_pool(planned).labels.items(), "else every worker stays Pending"


def test_the_frontend_goes_to_the_cpu_pool() -> None:
    planned = plan()
    spec = pod(planned.objects.graph, "frontend")
    assert spec["nodeSelector"] == {POOL_LABEL: CPU_POOL, STACK_LABEL: planned.names.prefix}
    assert spec["nodeSelector"].items() <= planned.cpu_pool.labels.items()
    assert "tolerations" not in spec


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_workers_tolerate_exactly_the_taint_of_gpu_nodes(role: str) -> None:
    (toleration,) = pod(graph(), role)["tolerations"]
    assert toleration == GPU_TOLERATION
    assert toleration["key"] == GPU_TAINT_KEY
    assert toleration["effect"] == "NoSchedule"
    assert toleration["operator"] == "Exists" or toleration.get("value") == GPU_TAINT_VALUE


@pytest.mark.parametrize(("role", "other"), [("prefill", "decode"), ("decode", "prefill")])
def test_roles_prefer_different_nodes_but_a_full_cluster_does_not_block_them(role: str, other: str) -> None:
    rule = pod(graph(), role)["affinity"]["podAntiAffinity"]
    assert list(rule) == ["preferredDuringSchedulingIgnoredDuringExecution"], "required would leave workers Pending"
    selector = rule["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"]["labelSelector"]
    values = {entry["key"]: entry["values"] for entry in selector["matchExpressions"]}
    assert values["nvidia.com/dynamo-component"] == [other], "the operator's own label, with the component's name"
    assert values[GRAPH_LABEL] == [plan().names.graph], "another stack's workers are none of our business"


def test_every_pod_carries_the_stacks_label() -> None:
    planned = plan()
    for part in planned.objects.graph["spec"]["components"]:
        assert part["podTemplate"]["metadata"]["labels"][STACK_LABEL] == planned.names.prefix


# ── resources and caches ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_gpu_efa_and_memory_requests_equal_their_limits(role: str) -> None:
    resources = main(graph(), role)["resources"]
    for name in (GPU_RESOURCE, EFA_RESOURCE, "memory"):
        assert resources["requests"][name] == resources["limits"][name], (
            "admission lets a difference through, then no pod appears"
        )
    assert "cpu" not in resources["limits"], "throttling a worker idles its GPUs"


def test_shared_memory_is_the_recipes() -> None:
    assert component(graph(workers__prefill__shared_memory_gib=96), "prefill")["sharedMemorySize"] == "96Gi"


@pytest.mark.parametrize("shape", ["disagg", "agg", "trtllm disagg", "trtllm agg"])
def test_no_serving_pod_looks_anything_up_on_the_hub(shape: str) -> None:
    planned = plan(**SHAPES[shape])
    for part in planned.objects.graph["spec"]["components"]:
        container = part["podTemplate"]["spec"]["containers"][0]
        assert env(container)["HF_HUB_OFFLINE"] == "1", f"{part['name']} could download main on GPU time"
        assert "HF_TOKEN" not in env(container)
        assert "envFrom" not in container, "the token is for the download only"


def test_workers_and_frontend_see_the_weights_at_the_same_path_and_cannot_change_them() -> None:
    planned = plan()
    mounts = [
        next(mount for mount in main(planned.objects.graph, name)["volumeMounts"] if mount["name"] == "model-cache")
        for name in ("frontend", "prefill", "decode")
    ]
    assert {mount["mountPath"] for mount in mounts} == {"/model-cache"}, "the workers' model card names files by path"
    assert all(mount["readOnly"] for mount in mounts)
    assert planned.model.snapshot_path.startswith("/model-cache/hub/models--Qwen--Qwen3-32B/snapshots/")


def test_compiled_code_is_kept_apart_by_version_gpu_parallelism_and_weight_type() -> None:
    roots = {
        env(main(graph(**changes), "prefill"))["VLLM_CACHE_ROOT"]
        for changes in (
            {},
            {"hardware__gpu": "h200", "budget__usd_per_hour": 1000},
            {"workers__prefill__tensor_parallel": 4, "budget__usd_per_hour": 1000},
            {"model": "Qwen/Qwen3-32B-FP8"},
        )
    }
    assert len(roots) == 4, "code compiled for another GPU or layout is at best useless"
    assert all(root.startswith("/compilation-cache/vllm-1.6.1-efa/") for root in roots)


# ── router ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_router_and_workers_count_in_the_same_blocks() -> None:
    manifest = graph(engine_tuning__block_size=128)
    for name, flag in (("frontend", "--kv-cache-block-size"), ("prefill", "--block-size"), ("decode", "--block-size")):
        args = main(manifest, name)["args"]
        assert args[args.index(flag) + 1] == "128"


def test_router_settings_reach_the_frontend() -> None:
    args = main(graph(**SHAPES["two frontends"]), "frontend")["args"]
    assert args[args.index("--router-temperature") + 1] == "0.5"
    assert args[args.index("--router-kv-overlap-score-credit") + 1] == "2"
    assert "--router-replica-sync" in args, "each frontend would count only the load it sent itself"


def test_a_kv_router_without_publishers_predicts_instead_of_waiting() -> None:
    args = main(graph(engine_tuning__prefix_caching=False), "frontend")["args"]
    assert "--no-router-kv-events" in args
    assert "--no-router-kv-events" not in main(graph(), "frontend")["args"]
