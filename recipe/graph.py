"""The DynamoGraphDeployment (nvidia.com/v1beta1): typed models for the part we use, and the graph of one stack.

Fields and rules: facts/dynamo.md §1; a test validates every rendered graph against the real CRD. What the operator adds by
itself (probes, discovery environment, services) is not written here.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from recipe.config import Role
from recipe.constants import GPU_RESOURCE, GPU_TOLERATION, GRAPH_LABEL, POOL_LABEL
from recipe.context import RenderContext
from recipe.engines import ENGINES, Engine, EngineWorker
from recipe.engines.worker import CONFIG_FILE, CONFIG_MOUNT
from recipe.kv_transfer import KvTransferBundle, kv_transfer
from recipe.names import digest
from recipe.plan import ClaimPlan, Manifest, WorkerPlan

COMPONENT_LABEL: Final = "nvidia.com/dynamo-component"
"""Set by the operator on every pod: the component's name."""
CONFIG_VOLUME: Final = "engine-config"
WORKDIR: Final = "/workspace"
"""Working directory of Dynamo's images (upstream EKS example disagg-p5)."""
GRACE_SECONDS: Final = 60
"""What the operator sets by default (facts/dynamo.md, "Observed"); said here so that a change of its default rolls nothing."""
EPHEMERAL_STORAGE: Final = "2Gi"
"""Request of a worker for logs and Triton's caches (templates of wheel 1.6.1)."""


class Wire(BaseModel):
    """A Kubernetes type: snake_case here, camelCase on the wire; a field the type does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True)

    def wire(self) -> Manifest:
        """The object as the API server takes it, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Metadata(Wire):
    name: str | None = None
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class EnvVar(Wire):
    name: str
    value: str


class Resources(Wire):
    """Quantities are text: YAML would turn a bare `8` into a number."""

    requests: dict[str, str]
    limits: dict[str, str]


class VolumeMount(Wire):
    name: str
    mount_path: str
    read_only: bool | None = None


class Container(Wire):
    name: Literal["main"] = "main"
    """The operator extends the container of this name."""
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    env: tuple[EnvVar, ...]
    resources: Resources
    volume_mounts: tuple[VolumeMount, ...]
    working_dir: str = WORKDIR
    security_context: dict[str, Any] | None = None


class ClaimSource(Wire):
    claim_name: str
    read_only: bool | None = None


class ConfigMapSource(Wire):
    name: str


class Volume(Wire):
    name: str
    persistent_volume_claim: ClaimSource | None = None
    config_map: ConfigMapSource | None = None


class PodSpec(Wire):
    containers: tuple[Container]
    volumes: tuple[Volume, ...]
    node_selector: dict[str, str]
    tolerations: tuple[dict[str, str], ...] | None = None
    affinity: dict[str, Any] | None = None
    termination_grace_period_seconds: int = GRACE_SECONDS


class PodTemplate(Wire):
    metadata: Metadata
    spec: PodSpec


class Component(Wire):
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    """Lower case: the operator lower-cases it for Services and Deployments."""
    type: Literal["frontend", "worker", "prefill", "decode"]
    replicas: Annotated[int, Field(ge=0)]
    pod_template: PodTemplate
    shared_memory_size: str | None = None


class GraphSpec(Wire):
    backend_framework: Literal["vllm", "trtllm"] | None
    """None for an engine that the CRD's enum does not know."""
    components: Annotated[tuple[Component, ...], Field(min_length=2, max_length=25)]


class Graph(Wire):
    api_version: Literal["nvidia.com/v1beta1"] = "nvidia.com/v1beta1"
    kind: Literal["DynamoGraphDeployment"] = "DynamoGraphDeployment"
    metadata: Metadata
    spec: GraphSpec


def make_graph(context: RenderContext, graph_config: dict[str, Manifest]) -> Graph:
    """The graph of a stack: the frontend, and one component per role, which mounts its part of `graph_config`."""
    engine = ENGINES[context.recipe.engine]
    return Graph(
        metadata=Metadata(
            name=context.names.graph,
            namespace=context.names.namespace,
            labels=context.labels,
            # Foreground deletion, Pulumi's default, looped in older operators and held GPUs (ai-dynamo/dynamo#8204).
            annotations={"pulumi.com/deletionPropagationPolicy": "background"},
        ),
        spec=GraphSpec(
            backend_framework=engine.framework,
            components=(_frontend(context), *(_worker(context, plan, graph_config) for plan in context.workers)),
        ),
    )


# ── frontend ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _frontend(context: RenderContext) -> Component:
    frontend = context.recipe.serving.frontend
    # Requests are limits: a throttled router adds latency to every request, and the CPU pool was sized for exactly this.
    size = {"cpu": _cpus(frontend.cpu), "memory": f"{frontend.memory_gib}Gi"}
    container = Container(
        image=context.versions.frontend_image,
        command=("python3", "-m", "dynamo.frontend"),
        args=frontend_args(context),
        env=_env(OFFLINE),
        resources=Resources(requests=size, limits=size),
        # The workers' model card names tokenizer and chat template by path: they must be where the workers see them.
        volume_mounts=(_mount(context.claim("model"), read_only=True),),
    )
    return Component(
        name="frontend",  # the Service is <graph>-frontend only with this name
        type="frontend",
        replicas=frontend.replicas,
        pod_template=PodTemplate(
            metadata=Metadata(labels=context.labels),
            spec=PodSpec(
                containers=(container,),
                volumes=(_volume(context.claim("model"), read_only=True),),
                node_selector=context.cpu_selector,
            ),
        ),
    )


def frontend_args(context: RenderContext) -> tuple[str, ...]:
    """Flags of `dynamo.frontend` (wheel ai-dynamo 1.6.1, frontend_args.py and kv_router_args.py)."""
    recipe, router = context.recipe, context.recipe.router
    args = ["--router-mode", router.mode]
    if recipe.engine_tuning.block_size is not None:
        args += ["--kv-cache-block-size", str(recipe.engine_tuning.block_size)]
    if router.mode != "kv":
        return tuple(args)
    if router.overlap_credit is not None:
        args += ["--router-kv-overlap-score-credit", f"{router.overlap_credit:g}"]
    if router.temperature is not None:
        args += ["--router-temperature", f"{router.temperature:g}"]
    engine = ENGINES[recipe.engine]
    if not any(engine.publishes_kv_events(recipe, role) for role in recipe.workers):
        args.append(
            "--no-router-kv-events"
        )  # nobody publishes: predict from its own routing instead of waiting for events
    if recipe.serving.frontend.replicas > 1:
        args.append("--router-replica-sync")  # else each counts only the load it sent itself
    return tuple(args)


# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

OFFLINE: Final = {"HF_HUB_OFFLINE": "1"}
"""The verified snapshot is on the cache: a look-up on the hub could only fetch something else, on GPU time."""

_CANARY_OFF: Final = {"DYN_HEALTH_CHECK_ENABLED": "false"}
"""On by default since 1.5.0 (ai-dynamo/dynamo#11083): it sends the engine requests of its own, which wait behind long prefills
and then restart a worker that is only busy. Off in upstream's recipes too; /live and /health still watch the process."""


def _engine_worker(context: RenderContext, plan: WorkerPlan) -> EngineWorker:
    engine = ENGINES[context.recipe.engine]
    compiled = context.claim("compilation").mount
    return EngineWorker(
        recipe=context.recipe,
        role=plan.role,
        model=context.model,
        gpu=context.gpu,
        snapshot_path=context.snapshot_path,
        cache_path=f"{compiled}/{compilation_key(context, plan)}" if engine.keeps_compiled else "",
        kv_transfer=kv_transfer(context.recipe, plan.role, context.gpu),
    )


def make_graph_config(context: RenderContext) -> dict[str, Manifest]:
    """The engine's own configuration files as ConfigMaps, by role; empty where flags say everything.

    The name carries graph, role and content: stacks of one namespace never collide (upstream's `llm-config` does), and another
    content is another name in the pod template, which rolls the workers. So it can be immutable, and the kubelet need not watch it.
    """
    engine = ENGINES[context.recipe.engine]
    maps: dict[str, Manifest] = {}
    for plan in context.workers:
        config = engine.config(_engine_worker(context, plan))
        if config is None:
            continue
        # JSON is YAML, and the standard library writes it.
        data = {CONFIG_FILE: json.dumps(config, indent=2) + "\n"}
        name = f"{context.names.graph}-{plan.role}-{digest(json.dumps(data))}"
        metadata = {"name": name, "namespace": context.names.namespace, "labels": context.labels}
        maps[plan.role] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "immutable": True,
            "data": data,
        }
    return maps


def _worker(context: RenderContext, plan: WorkerPlan, graph_config: dict[str, Manifest]) -> Component:
    recipe = context.recipe
    pool = recipe.workers[plan.role]
    engine = ENGINES[recipe.engine]
    worker = _engine_worker(context, plan)
    bundle = worker.kv_transfer
    mounts, volumes = _worker_volumes(context, engine, graph_config.get(plan.role))
    container = Container(
        image=plan.image,
        command=engine.command,
        args=engine.args(worker),
        env=_env(OFFLINE | _CANARY_OFF | engine.env(worker) | (bundle.env if bundle else {})),
        resources=_worker_resources(context, plan, bundle),
        volume_mounts=mounts,
        security_context=bundle.security_context if bundle else None,
    )
    return Component(
        name=plan.component,
        type=plan.role,
        replicas=plan.replicas,
        shared_memory_size=f"{pool.shared_memory_gib}Gi" if engine.on_gpus else None,
        pod_template=PodTemplate(
            metadata=Metadata(labels=context.labels),
            spec=PodSpec(
                containers=(container,),
                volumes=volumes,
                node_selector={POOL_LABEL: context.names.prefix} if engine.on_gpus else context.cpu_selector,
                tolerations=(GPU_TOLERATION,) if engine.on_gpus else None,
                affinity=_affinity(context, plan.role, bundle),
            ),
        ),
    )


def _worker_volumes(
    context: RenderContext, engine: Engine, config: Manifest | None
) -> tuple[tuple[VolumeMount, ...], tuple[Volume, ...]]:
    """Weights, what the engine compiles, and its configuration, each where it has one."""
    mounts, volumes = (
        [_mount(context.claim("model"), read_only=True)],
        [_volume(context.claim("model"), read_only=True)],
    )
    if engine.keeps_compiled:
        mounts.append(_mount(context.claim("compilation")))
        volumes.append(_volume(context.claim("compilation")))
    if config is not None:
        mounts.append(VolumeMount(name=CONFIG_VOLUME, mount_path=CONFIG_MOUNT, read_only=True))
        volumes.append(Volume(name=CONFIG_VOLUME, config_map=ConfigMapSource(name=config["metadata"]["name"])))
    return tuple(mounts), tuple(volumes)


def _worker_resources(context: RenderContext, plan: WorkerPlan, bundle: KvTransferBundle | None) -> Resources:
    pool = context.recipe.workers[plan.role]
    memory = {"memory": f"{pool.memory_gib}Gi"}
    if context.gpu is None:
        return Resources(requests={"cpu": _cpus(pool.cpu), **memory}, limits=memory)
    # Extended resources and memory: request = limit. Where a GPU request differs from its limit, admission says nothing and
    # the Deployment never appears (facts/dynamo.md, "Observed"). No CPU limit: throttling a worker idles its GPUs.
    exact = {GPU_RESOURCE: str(plan.gpus), **memory, **(bundle.resources if bundle else {})}
    return Resources(requests={"cpu": _cpus(pool.cpu), "ephemeral-storage": EPHEMERAL_STORAGE, **exact}, limits=exact)


def compilation_key(context: RenderContext, plan: WorkerPlan) -> str:
    """What compiled code depends on, as a directory: image version, GPU, parallelism, weight type.

    The CRD's `compilationCache` is not used: the operator then sets VLLM_CACHE_ROOT to the root of the claim, after our own
    value (backend_vllm.go@003d1ee), and every version and GPU type would share one directory.
    """
    assert context.gpu is not None, "without GPUs nothing is compiled"
    version = plan.image.rpartition(":")[2]
    parallel = f"tp{plan.tensor_parallel}" + (f"-dp{plan.data_parallel}" if plan.data_parallel > 1 else "")
    return f"{context.recipe.engine}-{version}/{context.gpu.gpu}-{parallel}-{context.model.weight_dtype}"


def _affinity(context: RenderContext, role: Role, bundle: KvTransferBundle | None) -> Manifest | None:
    """One zone, and the roles apart where there is room: transfers between two pods of one node fail with EAGAIN
    (ai-dynamo/dynamo#7764). Preferred only: required, a graph that fits would stay Pending (#4107).

    Apart alone is not enough: in 2 of 8 trials the real scheduler, which spreads pods of its own accord, put decode beside
    prefill on both nodes, depending on who came first. Drawn to its own role as well, it was 16 of 16 as planned (docs/control-plane.md).
    """
    if bundle is None:
        return None
    others = [plan.component for plan in context.workers if plan.role != role]
    own = [plan.component for plan in context.workers if plan.role == role]
    return {
        "podAffinity": bundle.pod_affinity(context.names.graph) | _near(context, own),
        "podAntiAffinity": _near(context, others),
    }


def _near(context: RenderContext, components: list[str]) -> Manifest:
    """On the node of workers of `components`, where there is room; as an anti-affinity the opposite."""
    expressions = [
        {"key": GRAPH_LABEL, "operator": "In", "values": [context.names.graph]},
        {"key": COMPONENT_LABEL, "operator": "In", "values": components},
    ]
    term = {"labelSelector": {"matchExpressions": expressions}, "topologyKey": "kubernetes.io/hostname"}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _cpus(cpus: float) -> str:
    """As Kubernetes itself writes it: `8`, `500m`."""
    return str(int(cpus)) if float(cpus).is_integer() else f"{round(cpus * 1000)}m"


def _env(values: dict[str, str]) -> tuple[EnvVar, ...]:
    return tuple(EnvVar(name=name, value=value) for name, value in sorted(values.items()))


def _mount(claim: ClaimPlan, *, read_only: bool = False) -> VolumeMount:
    return VolumeMount(name=claim.name, mount_path=claim.mount, read_only=read_only or None)


def _volume(claim: ClaimPlan, *, read_only: bool = False) -> Volume:
    source = ClaimSource(claim_name=claim.name, read_only=read_only or None)
    return Volume(name=claim.name, persistent_volume_claim=source)
