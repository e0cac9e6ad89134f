"""Does it fit: workers on GPU nodes, weights and KV cache in GPU memory, everything else on the CPU pool.

Every refusal carries the numbers. All of it is arithmetic on the catalogue; the scheduler decides in the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from recipe.catalogue import CPU_INSTANCES, GIB, CpuInstance, GpuInstance, Model
from recipe.config import Base, Recipe, Role
from recipe.constants import CPU_POOL, JOB_LABEL, POOL_LABEL
from recipe.errors import Problem
from recipe.plan import CpuUse, GpuMemory, Manifest, NodePlacement

GPU_OVERHEAD_GIB: Final = 6.0
"""CUDA context, NCCL, activations and CUDA graphs per GPU. An assumption of ours (docs/unverified.md)."""

_QUANTITY: Final = {"m": 0.001, "": 1.0, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


@dataclass(frozen=True)
class Pod:
    """What the scheduler counts of a pod."""

    name: str
    cpu_millis: int
    memory_mib: int


# Requests of the add-ons' pods. EKS sets them inside the add-on, so these are round figures above what the projects' own
# manifests ask (facts/dynamo.md §2 for the operator; the rest ours, docs/unverified.md).
PER_CPU_NODE: Final = Pod("aws-node, kube-proxy, pod-identity-agent, efs-csi-node", 300, 512)
CLUSTER_PODS: Final = (
    Pod("coredns-0", 100, 70),
    Pod("coredns-1", 100, 70),
    Pod("efs-csi-controller-0", 100, 256),
    Pod("efs-csi-controller-1", 100, 256),
    Pod("dynamo-operator", 512, 1024),
)
LUSTRE_PODS: Final = (Pod("fsx-csi-controller-0", 50, 192), Pod("fsx-csi-controller-1", 50, 192))
"""Only where the weights are on FSx for Lustre: each container asks for 10m and 32 to 40 Mi (the driver's chart, 1.10). Its pod on each
node (30m, 104 Mi) is taken to be within what the round figures of PER_CPU_NODE and PER_GPU_NODE are above what the others ask."""
PER_GPU_NODE: Final = Pod("aws-node, kube-proxy, pod-identity-agent, efs-csi-node, device plugins", 500, 1024)


def quantity(text: str | int | float) -> float:
    """A Kubernetes quantity as a number: `500m` is 0.5, `2Gi` is 2147483648."""
    raw = str(text)
    digits = raw.rstrip("KMGTim")
    return float(digits) * _QUANTITY[raw[len(digits) :]]


# ── GPU memory ───────────────────────────────────────────────────────────────────────────────────────────────────────


def context_tokens(recipe: Recipe, model: Model, role: Role) -> int:
    """Longest request the role's workers take, in tokens."""
    return recipe.tuning(role).context_length or model.native_context_tokens


class MemoryRule(Protocol):
    """What an engine takes `gpu_memory_fraction` to be a fraction of."""

    @property
    def default_memory_fraction(self) -> float: ...

    def usable_gib(self, total_gib: float, taken_gib: float, fraction: float) -> float:
        """GiB per GPU for weights, overhead and KV cache together; `taken_gib` is the first two."""
        ...


def gpu_memory(recipe: Recipe, engine: MemoryRule, model: Model, instance: GpuInstance, role: Role) -> GpuMemory:
    """Weights, overhead and what remains for the KV cache on each GPU of a worker."""
    pool, tuning = recipe.workers[role], recipe.tuning(role)
    weights = model.weight_gib_per_gpu(pool.tensor_parallel, pool.data_parallel)
    taken = weights + GPU_OVERHEAD_GIB
    fraction = tuning.gpu_memory_fraction or engine.default_memory_fraction
    usable = engine.usable_gib(instance.gpu_memory_gib, taken, fraction)
    kv = usable - taken
    per_token = model.kv_bytes_per_token("fp8" if tuning.kv_cache_dtype == "fp8" else "bfloat16")
    # Beyond one KV head per GPU the heads are replicated, so memory per GPU stops shrinking.
    per_gpu = per_token / min(pool.tensor_parallel, model.kv_heads)
    return GpuMemory(
        role=role,
        total_gib=round(instance.gpu_memory_gib, 2),
        usable_gib=round(usable, 2),
        weights_gib=round(weights, 2),
        overhead_gib=GPU_OVERHEAD_GIB,
        kv_gib=round(kv, 2),
        kv_tokens=max(0, math.floor(kv * GIB / per_gpu)) * pool.data_parallel,
    )


def check_gpu_memory(recipe: Recipe, model: Model, instance: GpuInstance, memory: GpuMemory) -> list[Problem]:
    """Weights that do not fit, or a KV cache that cannot hold one request of full length."""
    role = memory.role
    pool = recipe.workers[role]
    path = f"workers.{role}.tensor_parallel"
    used = f"{memory.weights_gib:.1f} GiB weights + {memory.overhead_gib:.0f} GiB overhead"
    have = f"{memory.usable_gib:.1f} GiB usable of {memory.total_gib:.1f} per {instance.gpu.upper()}"
    wider = [tp for tp in (2, 4, 8) if tp > pool.tensor_parallel and tp <= instance.gpus]
    larger = f"tensor_parallel: {wider[0]} halves the weights per GPU" if wider else "a GPU with more memory"
    if memory.kv_gib <= 0:
        return [
            Problem(
                path,
                pool.tensor_parallel,
                f"weights do not fit: {used} > {have}",
                f"{larger}, or hardware.gpu: h200 or b200",
            )
        ]
    context = context_tokens(recipe, model, role)
    holds = memory.kv_tokens // pool.data_parallel  # a request stays on one of the copies
    if holds < context:
        reason = f"the KV cache holds {holds:,} tokens ({memory.kv_gib:.1f} GiB: {have}, {used}), less than one request of {context:,}"
        return [
            Problem(
                path,
                pool.tensor_parallel,
                reason,
                f"{larger}; or engine_tuning.context_length at most {holds}; or kv_cache_dtype: fp8",
            )
        ]
    return []


# ── GPU nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Room:
    gpus: int
    efa: int
    cpu_millis: int
    memory_mib: int
    pods: int
    workers: dict[Role, int]


def place_workers(
    recipe: Recipe, instance: GpuInstance, efa: dict[Role, int]
) -> tuple[tuple[NodePlacement, ...], list[Problem]]:
    """Workers on as few whole nodes as their GPUs need, the roles apart where there is room.

    `efa`: devices per worker of each role. Returns the nodes and what does not fit (then the nodes are meaningless).
    """
    problems = [problem for role in recipe.workers for problem in _check_one_worker(recipe, instance, role)]
    if problems:
        return (), problems
    gpus = sum(pool.replicas * pool.gpus for pool in recipe.workers.values())
    count = math.ceil(gpus / instance.gpus)
    nodes, waiting = _fill(recipe, instance, efa, count)
    if waiting:
        return (), [_no_room(recipe, instance, next(iter(waiting)), count)]
    return tuple(
        NodePlacement(
            node=f"gpu-{index}",
            workers={role: node.workers[role] for role in recipe.workers if role in node.workers},
            gpus_used=instance.gpus - node.gpus,
            efa_used=instance.efa_devices - node.efa,
        )
        for index, node in enumerate(nodes)
    ), []


def waiting_workers(recipe: Recipe, instance: GpuInstance, efa: dict[Role, int], count: int) -> dict[Role, int]:
    """How many workers of each role would wait on only `count` nodes, where the largest are placed first."""
    return _fill(recipe, instance, efa, count)[1]


def _fill(
    recipe: Recipe, instance: GpuInstance, efa: dict[Role, int], count: int
) -> tuple[list[_Room], dict[Role, int]]:
    nodes = [_empty(recipe, instance) for _ in range(count)]
    waiting: dict[Role, int] = {}
    # Largest first: sizes are powers of two, so GPUs then fill without gaps.
    queue = sorted(
        (role for role, pool in recipe.workers.items() for _ in range(pool.replicas)),
        key=lambda role: (-recipe.workers[role].gpus, recipe.workers[role].replicas),
    )
    for role in queue:
        pool = recipe.workers[role]
        need = (pool.gpus, efa[role], round(pool.cpu * 1000), pool.memory_gib * 1024, 1)
        free = [node for node in nodes if all(have >= want for have, want in zip(_free(node), need, strict=True))]
        if not free:
            waiting[role] = waiting.get(role, 0) + 1
            continue
        # Roles apart where there is room, as the graph's anti-affinity asks: transfers within a node fail with EAGAIN
        # (facts/dynamo.md §8, PR #7764). Among equals the fuller node, so that the emptiest stay for the other role.
        node = min(free, key=lambda candidate: (_others(candidate, role), candidate.gpus))
        node.gpus, node.efa, node.cpu_millis, node.memory_mib, node.pods = (
            have - want for have, want in zip(_free(node), need, strict=True)
        )
        node.workers[role] = node.workers.get(role, 0) + 1
    return nodes, waiting


def _check_one_worker(recipe: Recipe, instance: GpuInstance, role: Role) -> list[Problem]:
    pool = recipe.workers[role]
    room = _empty(recipe, instance)
    path = f"workers.{role}"
    checks = (
        ("tensor_parallel" if pool.data_parallel == 1 else "data_parallel", pool.gpus, room.gpus, "GPUs"),
        ("cpu", pool.cpu, room.cpu_millis // 1000, "allocatable CPUs"),
        ("memory_gib", pool.memory_gib, room.memory_mib // 1024, "GiB of allocatable memory"),
    )
    problems = [
        Problem(f"{path}.{key}", value, f"one {instance.name} has {limit} {unit}", f"at most {limit}")
        for key, value, limit, unit in checks
        if value > limit
    ]
    if pool.shared_memory_gib >= pool.memory_gib:
        reason = f"/dev/shm counts against memory_gib ({pool.memory_gib})"
        problems.append(
            Problem(
                f"{path}.shared_memory_gib", pool.shared_memory_gib, reason, "less than memory_gib; upstream uses 80"
            )
        )
    return problems


def _empty(recipe: Recipe, instance: GpuInstance) -> _Room:
    allocatable = instance.allocatable(recipe.hardware.root_disk_gib)
    return _Room(
        gpus=instance.gpus,
        efa=instance.efa_devices,
        cpu_millis=allocatable.cpu_millis - PER_GPU_NODE.cpu_millis,
        memory_mib=int(allocatable.memory_bytes / 2**20) - PER_GPU_NODE.memory_mib,
        pods=allocatable.pods,
        workers={},
    )


def _others(node: _Room, role: Role) -> int:
    return sum(count for other, count in node.workers.items() if other != role)


def _free(node: _Room) -> tuple[int, ...]:
    return (node.gpus, node.efa, node.cpu_millis, node.memory_mib, node.pods)


def _no_room(recipe: Recipe, instance: GpuInstance, role: Role, count: int) -> Problem:
    room = _empty(recipe, instance)
    pool = recipe.workers[role]
    per_node = instance.gpus // pool.gpus
    reason = (
        f"{per_node} workers share a {instance.name} with {room.cpu_millis // 1000} CPUs and {room.memory_mib // 1024} GiB allocatable; "
        f"with cpu: {pool.cpu:g} and memory_gib: {pool.memory_gib} the {count} nodes that their GPUs need are too few"
    )
    cpu, memory = room.cpu_millis // 1000 // per_node, room.memory_mib // 1024 // per_node
    checks = (("cpu", pool.cpu, cpu), ("memory_gib", pool.memory_gib, memory))
    too_large = [(key, value, limit) for key, value, limit in checks if value > limit]
    if len(too_large) == 1:
        ((key, value, limit),) = too_large
        return Problem(f"workers.{role}.{key}", value, reason, f"{key} at most {limit}")
    return Problem(f"workers.{role}", pool.replicas, reason, f"cpu at most {cpu} and memory_gib at most {memory}")


# ── CPU nodes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def pod_of(name: str, pod_spec: dict[str, Any]) -> Pod:
    """Requests of a pod as the scheduler counts them: all containers together, or its largest init container (limits where
    a request is missing)."""

    def of(container: dict[str, Any], resource: str) -> float:
        resources = container.get("resources", {})
        return quantity({**resources.get("limits", {}), **resources.get("requests", {})}.get(resource, 0))

    cpu, memory = (
        max(
            sum(of(container, resource) for container in pod_spec["containers"]),
            *(of(container, resource) for container in pod_spec.get("initContainers", ())),
            0.0,
        )
        for resource in ("cpu", "memory")
    )
    return Pod(name, math.ceil(cpu * 1000), math.ceil(memory / 2**20))


def cpu_pods(jobs: Iterable[Manifest], graph: Manifest | None = None, *, lustre: bool = False) -> list[Pod]:
    """Every pod the CPU pool must hold: ours from their manifests, the platform's and the add-ons' from the table above.

    `lustre`: the weights are on FSx, whose driver runs as well. `graph` None: there is none, for now. Counted as if all ran at once: Jobs overlap with the frontend when only a part of the stack is replaced.
    """
    pods = [pod_of(f"{job['metadata']['labels'][JOB_LABEL]} Job", job["spec"]["template"]["spec"]) for job in jobs]
    for component in graph["spec"]["components"] if graph else ():
        spec = component["podTemplate"]["spec"]
        if spec["nodeSelector"].get(POOL_LABEL) == CPU_POOL:
            pods += [pod_of(f"{component['name']}-{index}", spec) for index in range(component["replicas"])]
    return [*pods, *CLUSTER_PODS, *(LUSTRE_PODS if lustre else ())]


def place_on_cpu(
    recipe: Recipe | Base, instance: CpuInstance, pods: Sequence[Pod]
) -> tuple[tuple[CpuUse, ...], list[Problem]]:
    """First fit, largest first, on the CPU pool's nodes. Returns the nodes and what does not fit."""
    pool = recipe.hardware.cpu
    allocatable = instance.allocatable(pool.disk_gib)
    millis, mib = allocatable.cpu_millis, int(allocatable.memory_bytes / 2**20)
    placed: list[list[Pod]] = [[PER_CPU_NODE] for _ in range(pool.nodes)]
    unplaced: dict[str, list[Pod]] = {}
    for pod in sorted(pods, key=lambda pod: max(pod.cpu_millis / millis, pod.memory_mib / mib), reverse=True):
        for node in placed:
            if _cpu(node) + pod.cpu_millis <= millis and _memory(node) + pod.memory_mib <= mib:
                node.append(pod)
                break
        else:
            unplaced.setdefault(pod.name.rpartition("-")[0] or pod.name, []).append(pod)
    problems = [_no_place(pool.nodes, instance, pods, list(unplaced.values()))] if unplaced else []
    uses = tuple(
        CpuUse(
            node=f"cpu-{index}",
            pods=tuple(pod.name for pod in node),
            cpu_millis=_cpu(node),
            cpu_millis_allocatable=millis,
            memory_mib=_memory(node),
            memory_mib_allocatable=mib,
        )
        for index, node in enumerate(placed)
    )
    return uses, problems


def _no_place(nodes: int, instance: CpuInstance, pods: Sequence[Pod], unplaced: Sequence[Sequence[Pod]]) -> Problem:
    """One problem for all pods that found no place, those of one name together."""
    named = [
        f"{first.name}{f' and {len(others)} more' if others else ''} ({first.cpu_millis / 1000:g} CPU, {first.memory_mib / 1024:.1f} GiB)"
        for first, *others in unplaced
    ]
    room = instance.allocatable(0)
    reason = (
        f"{', '.join(named)}: no place on {nodes} × {instance.name} "
        f"({room.cpu_millis / 1000:.2f} CPU, {room.memory_bytes / 2**30:.1f} GiB allocatable each); all pods together ask for "
        f"{_cpu(pods) / 1000:.1f} CPU and {_memory(pods) / 1024:.1f} GiB, and each node keeps {PER_CPU_NODE.cpu_millis / 1000:g} CPU for its own"
    )
    return Problem(
        "hardware.cpu", instance.name, reason, _larger_pool(nodes, instance, [first for first, *_ in unplaced])
    )


def _larger_pool(nodes: int, instance: CpuInstance, pods: Sequence[Pod]) -> str:
    """More nodes where empty ones hold each pod, else the types that do."""
    cpu = max(pod.cpu_millis for pod in pods) + PER_CPU_NODE.cpu_millis
    memory = max(pod.memory_mib for pod in pods) + PER_CPU_NODE.memory_mib

    def holds(row: CpuInstance) -> bool:
        room = row.allocatable(0)
        return cpu <= room.cpu_millis and memory <= room.memory_bytes / 2**20

    if holds(instance):
        return f"more hardware.cpu.nodes than {nodes}, or a larger hardware.cpu.instance_type"
    large = [name for name, row in CPU_INSTANCES.items() if holds(row)]
    if not large:
        return f"ask for less: no hardware.cpu.instance_type of the catalogue holds it ({', '.join(CPU_INSTANCES)})"
    return f"more nodes do not help; hardware.cpu.instance_type: {' or '.join(large)}"


def _cpu(pods: Sequence[Pod]) -> int:
    return sum(pod.cpu_millis for pod in pods)


def _memory(pods: Sequence[Pod]) -> int:
    return sum(pod.memory_mib for pod in pods)
