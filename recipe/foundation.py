"""The parts a stack makes for itself or shares with others through a base: planned by the same functions either way."""

from __future__ import annotations

from typing import Any, Final

from recipe import catalogue
from recipe.catalogue import DynamoVersions, KubernetesVersion
from recipe.config import PROJECT, Access, Base, BaseVersions, CpuPool, FsxLustreModel, Recipe, Storage
from recipe.constants import CPU_POOL, GPU_PRESENT_LABEL, GPU_TOLERATION, PLATFORM_NAMESPACE, POOL_LABEL, STACK_LABEL
from recipe.lustre import mb_per_second
from recipe.names import digest
from recipe.network import service_cidr
from recipe.plan import ChartPlan, ClaimPlan, ClusterPlan, LustrePlan, Names, NodePool, StoragePlan

MODEL_MOUNT: Final = "/model-cache"
COMPILATION_MOUNT: Final = "/compilation-cache"
PERF_MOUNT: Final = "/perf-cache"
CACHE_UID: Final = 1000
"""Owner of everything on the caches: the access points squash every writer to it, and engine images run as it (facts/dynamo.md §5.1)."""

_LOG_TYPES: Final = ("api", "audit", "authenticator", "controllerManager", "scheduler")


def tags(stack: str, recipe: Recipe | Base) -> dict[str, str]:
    """On everything. Nothing that changes with time: a tag that changed on each run would make every `up` an update of everything."""
    return {
        "project": PROJECT,
        "stack": stack,
        "deployment": recipe.deployment_id,
        "owner": recipe.owner,
        "ttl-hours": str(recipe.budget.ttl_hours),
    }


def cluster_plan(names: Names, access: Access, version: str) -> ClusterPlan:
    """The control plane. `access` is complete."""
    assert access.account_id is not None, "filled in before planning"
    assert access.zone_id is not None, "filled in before planning"
    services = service_cidr(access.vpc_cidr)
    zones = (access.zone_id, catalogue.second_zone(access.zone_id))
    # Not among them: version, endpoint CIDRs, log types - EKS changes those in place.
    create_only = (names.cluster, access.region, access.account_id, access.vpc_cidr, services, *zones)
    return ClusterPlan(
        version=version,
        endpoint_cidrs=access.endpoint_cidrs or (),
        service_cidr=services,
        log_types=_LOG_TYPES,
        log_retention_days=14,
        admin_principals=access.admin_principals,
        identifier=f"{names.cluster}-{digest(' '.join(create_only))}",
    )


def cpu_pool(names: Names, pool: CpuPool, kubernetes: KubernetesVersion) -> NodePool:
    """CPU nodes of one stack, or of a base: the labels say whose."""
    return NodePool(
        instance_type=pool.instance_type,
        count=pool.nodes,
        ami_type=kubernetes.cpu_ami.type,
        ami_release=kubernetes.cpu_ami.release,
        disk_gib=pool.disk_gib,
        labels={POOL_LABEL: CPU_POOL, STACK_LABEL: names.prefix},
        user_data=None,
        create_timeout_minutes=30,
    )


def storage_plan(sizes: Storage) -> StoragePlan:
    """EFS and its three caches. Paths are the same for every stack, so that stacks on one base find each other's weights.

    Only the weights may be on FSx for Lustre: compilation caches and results are small files that outlive it.
    """
    lustre = lustre_plan(sizes.model) if isinstance(sizes.model, FsxLustreModel) else None
    model = ClaimPlan(purpose="model", name="model-cache", path="/model", size_gib=sizes.model_gib, mount=MODEL_MOUNT)
    if lustre:
        size = lustre.size_gib
        # A name of its own: where a stack goes from one to the other, both claims exist until the workers have moved.
        model = model.model_copy(
            update={"name": f"model-cache-lustre-{size}", "path": "/", "size_gib": size, "on_lustre": True}
        )
    return StoragePlan(
        throughput_mode="elastic",
        uid=CACHE_UID,
        gid=CACHE_UID,
        lustre=lustre,
        claims=(
            model,
            ClaimPlan(
                purpose="compilation",
                name="compilation-cache",
                path="/compilation",
                size_gib=sizes.compilation_gib,
                mount=COMPILATION_MOUNT,
            ),
            ClaimPlan(purpose="perf", name="perf-cache", path="/perf", size_gib=sizes.perf_gib, mount=PERF_MOUNT),
        ),
    )


def lustre_plan(model: FsxLustreModel) -> LustrePlan:
    """The file system that was asked for."""
    return LustrePlan(
        size_gib=model.size_gib,
        throughput_mb_per_tib=model.throughput_mb_per_tib,
        mb_per_second=mb_per_second(model.size_gib, model.throughput_mb_per_tib),
    )


def platform_chart(versions: DynamoVersions, wanted: BaseVersions) -> ChartPlan:
    """Dynamo's operator: one per cluster, whoever's graphs it runs."""
    chart = versions.platform_chart
    # Off by default in this chart version; said here so that a chart bump cannot switch them on unseen.
    off = {name: {"install": False} for name in ("etcd", "nats", "grove", "kai-scheduler", "snapshot")}
    return ChartPlan(
        release="dynamo-platform",
        chart=chart.name,
        repository=chart.repository,
        version=wanted.platform_chart or chart.version,
        namespace=PLATFORM_NAMESPACE,
        values={"global": off},
        timeout_seconds=900,  # upstream's own Terraform for EKS (facts/dynamo.md §2)
    )


def device_charts(wanted: BaseVersions) -> tuple[ChartPlan, ...]:
    """The device plugins, for every GPU node there is or will be."""
    nvidia: dict[str, Any] = {
        # 0.19.0 switched it on by default, which breaks EFA (facts/aws.md §5). The chart's own tolerations cover our taint.
        "mofedEnabled": False,
    }
    efa: dict[str, Any] = {
        "tolerations": [GPU_TOLERATION],
        # On a node without EFA the plugin restarts for ever.
        "nodeSelector": {GPU_PRESENT_LABEL: "true"},
        # The chart's own list lags behind new types, and a type it lacks means no EFA and no error (aws/eks-charts #1348).
        "supportedInstanceLabels": {
            "keys": ["node.kubernetes.io/instance-type"],
            "values": sorted(catalogue.GPU_INSTANCES),
        },
    }
    return tuple(
        ChartPlan(
            release=chart.name,
            chart=chart.name,
            repository=chart.repository,
            version=asked or chart.version,
            namespace="kube-system",  # both run as system-node-critical
            values=values,
            timeout_seconds=300,
        )
        for chart, values, asked in (
            (catalogue.NVIDIA_DEVICE_PLUGIN, nvidia, wanted.nvidia_device_plugin),
            (catalogue.EFA_DEVICE_PLUGIN, efa, wanted.efa_device_plugin),
        )
    )
