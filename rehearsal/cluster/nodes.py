"""Nodes as the Plan buys them, for a control plane without machines, and stand-ins for what EKS runs on them."""

from __future__ import annotations

from typing import Final

from recipe.catalogue import GIB, Allocatable, CpuInstance, GpuInstance, cpu_instance, gpu_instance, region_of
from recipe.constants import CPU_POOL, EFA_RESOURCE, GPU_RESOURCE, GPU_TAINT_KEY, GPU_TAINT_VALUE, POOL_LABEL
from recipe.placement import CLUSTER_PODS, LUSTRE_PODS, PER_CPU_NODE, PER_GPU_NODE, Pod
from recipe.plan import GpuPool, Manifest, NodePool, Plan
from rehearsal.cloud.machines import zone_name
from rehearsal.cluster.controlplane import FAKE_NODE

SYSTEM_NAMESPACE: Final = "kube-system"
PAUSE: Final = "registry.k8s.io/pause:3.10"
"""Any image will do: nothing is pulled."""


def nodes(plan: Plan, *, gpu_count: int | None = None, cpu_type: str | None = None) -> list[Manifest]:
    """The Plan's GPU and CPU nodes; `gpu_count` and `cpu_type` in place of what it says."""
    pool, cpu = plan.gpu_pool, cpu_instance(cpu_type or plan.cpu_pool.instance_type)
    gpu_nodes = []
    if pool:
        gpus = pool.count if gpu_count is None else gpu_count
        gpu_nodes = [_gpu_node(plan, pool, index) for index in range(gpus)]
    return [*gpu_nodes, *(_cpu_node(plan, cpu, index) for index in range(plan.cpu_pool.count))]


def system_pods(plan: Plan, made: list[Manifest]) -> list[Manifest]:
    """Pods with the requests of the add-ons': one on each of the nodes `made`, and those the cluster has once.

    As large as the Plan takes them to be, so that it and the scheduler count the same.
    """
    pods = []
    for node in made:
        name, labels = node["metadata"]["name"], node["metadata"]["labels"]
        each = PER_CPU_NODE if labels[POOL_LABEL] == CPU_POOL else PER_GPU_NODE
        # A DaemonSet's pods tolerate what keeps others off, and are there before anyone else asks.
        spec = {"nodeName": name, "tolerations": [{"operator": "Exists"}]}
        pods.append(_pod(f"{name}-daemons", each, plan, spec))
    selector = {"nodeSelector": {POOL_LABEL: CPU_POOL}}
    once = (*CLUSTER_PODS, *(LUSTRE_PODS if plan.storage.lustre else ()))
    return pods + [_pod(f"{plan.names.prefix}-{pod.name}", pod, plan, selector) for pod in once]


def _gpu_node(plan: Plan, pool: GpuPool, index: int) -> Manifest:
    instance = gpu_instance(pool.instance_type)
    extended = {GPU_RESOURCE: str(instance.gpus), EFA_RESOURCE: str(instance.efa_devices)}
    extended = {name: count for name, count in extended.items() if count != "0"}
    taints = [{"key": GPU_TAINT_KEY, "value": GPU_TAINT_VALUE, "effect": "NoSchedule"}]
    return _node(plan, pool, instance, f"gpu-{index}", pool.capacity_type, extended, taints)


def _cpu_node(plan: Plan, instance: CpuInstance, index: int) -> Manifest:
    return _node(plan, plan.cpu_pool, instance, f"cpu-{index}", "ON_DEMAND", {}, [])


def _node(
    plan: Plan,
    pool: NodePool,
    instance: GpuInstance | CpuInstance,
    suffix: str,
    capacity_type: str,
    extended: dict[str, str],
    taints: list[dict[str, str]],
) -> Manifest:
    name = f"{plan.names.prefix}-{suffix}"
    zone_id = plan.network.nodes.zone_id
    region = region_of(zone_id)
    group = plan.names.gpu_node_group if taints else plan.names.cpu_node_group
    labels = {
        # What the kubelet, the cloud controller and EKS put on every node of a managed node group.
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": instance.name,
        "topology.kubernetes.io/region": region,
        "topology.kubernetes.io/zone": zone_name(region, zone_id) or zone_id,
        "topology.k8s.aws/zone-id": zone_id,
        "eks.amazonaws.com/nodegroup": group,
        "eks.amazonaws.com/capacityType": capacity_type,
        **pool.labels,
    }
    allocatable = _amounts(instance.allocatable(pool.disk_gib)) | extended
    capacity = allocatable | {"cpu": str(instance.vcpus), "memory": str(instance.memory_gib * GIB)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": dict(FAKE_NODE)},
        "spec": {"taints": taints, "providerID": f"aws:///{zone_id}/{name}"},
        "status": {"allocatable": allocatable, "capacity": capacity},
    }


def _amounts(allocatable: Allocatable) -> dict[str, str]:
    return {
        "cpu": f"{allocatable.cpu_millis}m",
        "memory": str(allocatable.memory_bytes),
        "ephemeral-storage": str(allocatable.ephemeral_bytes),
        "pods": str(allocatable.pods),
    }


def _pod(name: str, asks: Pod, plan: Plan, spec: Manifest) -> Manifest:
    requests = {"cpu": f"{asks.cpu_millis}m", "memory": f"{asks.memory_mib}Mi"}
    container = {"name": "main", "image": PAUSE, "resources": {"requests": requests}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": {"dynamo-recipes/stand-in": plan.stack}},
        "spec": {"containers": [container], **spec},
    }
