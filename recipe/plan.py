"""The Plan: everything decided, ready to be created or printed. Built by `recipe.planner.make_plan`, read by everyone else.

Values the cloud will only know after creating something stand in Kubernetes objects as `${name}` (see `Late`); components
replace them by the Output, `ops plan --manifests` leaves them readable.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

from recipe.catalogue import Nic
from recipe.config import Base, Frozen, Recipe, Role

Manifest: TypeAlias = dict[str, Any]
"""One Kubernetes object in wire form."""


class Late:
    """Names of the values known only after creation, as they stand in manifests (`${file_system_id}`)."""

    FILE_SYSTEM = "${file_system_id}"
    LUSTRE = "${lustre_id}"
    LUSTRE_DNS = "${lustre_dns_name}"
    LUSTRE_MOUNT = "${lustre_mount_name}"
    GPU_NODES = "${gpu_nodes}"
    """Changes with every GPU node group that is created: EKS gives each a new id, whatever its name."""
    CPU_NODES = "${cpu_nodes}"
    """The same of the CPU node group."""
    HF_TOKEN = "${hf_token}"  # noqa: S105 - a placeholder, not a token

    @staticmethod
    def access_point(claim: str) -> str:
        """The EFS access point behind `claim` (model, compilation or perf)."""
        return f"${{access_point_id_{claim}}}"


class Names(Frozen):
    """Physical names, deterministic from project, stack and deployment id: a repeated create collides instead of doubling.

    All within the limit of their service (see `recipe.names`).
    """

    prefix: str
    cluster: str
    cluster_role: str
    node_role: str
    efs_role: str
    benchmark_role: str
    log_group: str
    cpu_node_group: str
    cpu_launch_template: str
    gpu_node_group: str
    gpu_launch_template: str
    placement_group: str
    efs_security_group: str
    efs_creation_token: str
    lustre: str
    """FSx for Lustre and its security group."""
    namespace: str
    graph: str
    frontend_service: str


class SubnetPlan(Frozen):
    """One subnet. `public` routes to the internet gateway, the others to NAT (nodes) or nowhere (control plane)."""

    cidr: str
    zone_id: str
    kind: Literal["public", "nodes", "control-plane"]


class NetworkPlan(Frozen):
    """One VPC: public and node subnet in the GPU zone, a control-plane-only subnet in the second zone EKS asks for."""

    vpc_cidr: str
    public: SubnetPlan
    nodes: SubnetPlan
    control_plane: SubnetPlan


class ClusterPlan(Frozen):
    """The EKS control plane."""

    version: str
    endpoint_cidrs: tuple[str, ...]
    service_cidr: str
    log_types: tuple[str, ...]
    log_retention_days: int
    admin_principals: tuple[str, ...]
    identifier: str
    """`clusterIdentifier` of the Kubernetes provider: name + hash of the cluster's create-only inputs."""


class NodePool(Frozen):
    """A managed node group with its own launch template."""

    instance_type: str
    count: int
    ami_type: str
    ami_release: str | None
    disk_gib: int
    labels: dict[str, str]
    user_data: str | None
    """NodeConfig document (MIME multipart, plain text), or None."""
    create_timeout_minutes: int


class GpuPool(NodePool):
    """The GPU nodes, of which there is at least one."""

    nics: tuple[Nic, ...]
    capacity_type: Literal["ON_DEMAND", "SPOT", "CAPACITY_BLOCK"]
    market_type: Literal["capacity-block"] | None
    """instanceMarketOptions of the template (Capacity Blocks), else None."""
    reservation_id: str | None
    placement_group: bool
    parallel_pull: bool
    """Images are pulled and unpacked in parallel (nodeadm's FastImagePull, in `user_data`)."""


class ClaimPlan(Frozen):
    """One cache: an EFS access point owned by Pulumi (or all of an FSx for Lustre), a static volume and a claim."""

    purpose: Literal["model", "compilation", "perf"]
    name: str
    path: str
    """Directory on the file system behind the access point."""
    size_gib: int
    mount: str
    """Where pods see it."""
    on_lustre: bool = False

    @property
    def key(self) -> str:
        """What its volume and claim are called by in the program.

        On Lustre with the size: a file system that shrinks is another one, and its claim has to be made beside the one workers still use.
        """
        return f"lustre-{self.size_gib}" if self.on_lustre else self.purpose


class LustrePlan(Frozen):
    """An FSx for Lustre for the weights, in the subnet of all nodes."""

    size_gib: int
    throughput_mb_per_tib: int
    mb_per_second: float
    """For all nodes together."""


class StoragePlan(Frozen):
    """EFS and the three caches, of which the model's may be on FSx for Lustre."""

    throughput_mode: Literal["elastic"]
    uid: int
    gid: int
    claims: tuple[ClaimPlan, ...]
    lustre: LustrePlan | None = None

    @property
    def on_efs(self) -> tuple[ClaimPlan, ...]:
        """The claims that have an access point."""
        return tuple(claim for claim in self.claims if not claim.on_lustre)


class ChartPlan(Frozen):
    """A third-party Helm chart, unmodified."""

    release: str
    chart: str
    repository: str
    version: str
    namespace: str
    values: dict[str, Any]
    timeout_seconds: int


class WorkerPlan(Frozen):
    """The workers of one role, as placed."""

    role: Role
    component: str
    """Component name in the graph."""
    replicas: int
    tensor_parallel: int
    data_parallel: int
    expert_parallel: int
    gpus: int
    efa: int
    image: str
    kv_cache_tokens: int
    """Tokens whose KV fits one worker, by the plan's arithmetic."""


class NodePlacement(Frozen):
    """What the plan expects on one node."""

    node: str
    workers: dict[Role, int]
    gpus_used: int
    efa_used: int


class CpuUse(Frozen):
    """Requests against what the kubelet leaves on one CPU node."""

    node: str
    pods: tuple[str, ...]
    cpu_millis: int
    cpu_millis_allocatable: int
    memory_mib: int
    memory_mib_allocatable: int


class Placement(Frozen):
    """Where everything goes. The scheduler decides in the end; the tests hold it against this."""

    gpu_nodes: tuple[NodePlacement, ...]
    cpu_nodes: tuple[CpuUse, ...]
    gpu_memory: tuple[GpuMemory, ...]


class GpuMemory(Frozen):
    """The arithmetic of one role's GPU memory, GiB per GPU."""

    role: Role
    total_gib: float
    usable_gib: float
    """What weights, overhead and KV cache may take together; the engine says what gpu_memory_fraction is a fraction of."""
    weights_gib: float
    overhead_gib: float
    kv_gib: float
    kv_tokens: int
    """Tokens per worker."""


class CostLine(Frozen):
    """One position. Exactly one of the two amounts is meaningful: an hourly rate, or a sum per run."""

    what: str
    quantity: float
    unit_usd: float
    usd_per_hour: float
    usd_once: float
    source: str
    as_of: str


class Cost(Frozen):
    """What the stack costs. Prices carry their source and date."""

    lines: tuple[CostLine, ...]
    usd_per_hour: float
    usd_once: float
    ttl_hours: int
    usd_for_ttl: float


class Objects(Frozen):
    """Every Kubernetes object, exactly as the components create it."""

    serving: bool = True
    """False while paused: the graph and what waits for it (`SERVING`) are planned and judged, but not created."""
    namespace: Manifest
    storage_class: Manifest
    lustre_class: Manifest | None = None
    """None unless the model cache is on FSx for Lustre."""
    volumes: dict[str, Manifest]
    """By `ClaimPlan.key`: model, compilation, perf."""
    claims: dict[str, Manifest]
    token_secret: Manifest | None
    weights_config: Manifest
    weights_job: Manifest
    head_config: Manifest | None = None
    head_job: Manifest | None = None
    """Both None unless GPU nodes start before the download's end (`weights.wait: overlap`)."""
    admission_account: Manifest
    admission_role: Manifest
    admission_binding: Manifest
    admission_config: Manifest
    admission_job: Manifest
    graph_config: dict[str, Manifest]
    """The engine's configuration by role (TensorRT-LLM); empty where flags say everything (vLLM)."""
    graph: Manifest
    readiness_account: Manifest
    readiness_role: Manifest
    readiness_binding: Manifest
    readiness_config: Manifest
    readiness_job: Manifest
    benchmark_account: Manifest | None = None
    benchmark_config: Manifest | None = None
    benchmark_job: Manifest | None = None
    """All three None unless a benchmark is asked for; the account only where there is a bucket."""

    SERVING: ClassVar[tuple[str, ...]] = (
        *("graph_config", "graph", "readiness_account", "readiness_role", "readiness_binding"),
        *("readiness_config", "readiness_job"),
        *("benchmark_account", "benchmark_config", "benchmark_job"),
    )

    def created(self) -> tuple[tuple[str, str, Manifest], ...]:
        """Every object in the order of creation: its field here, its key there (empty where the field is one object), and itself."""
        found: list[tuple[str, str, Manifest]] = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            if not isinstance(value, dict) or (name in self.SERVING and not self.serving):
                continue
            found += [(name, "", value)] if "kind" in value else [(name, key, one) for key, one in value.items()]
        return tuple(found)

    def all(self) -> tuple[Manifest, ...]:
        """Every object in the order of creation."""
        return tuple(manifest for _, _, manifest in self.created())


class ModelPlan(Frozen):
    """Which weights, and where they end up."""

    id: str
    revision: str
    weight_bytes: int
    cached_bytes: int
    """What the cache holds of it: the weights, or tokenizer and configuration only (engine mocker)."""
    snapshot_path: str
    """Directory of the verified snapshot, as workers see it."""


class BucketPlan(Frozen):
    """The S3 bucket of benchmark results."""

    name: str
    created: bool
    """By this stack; then it is kept on purpose when everything else goes."""
    prefix: str
    """Of every key that is written."""
    region: str


class BenchmarkPlan(Frozen):
    """The benchmark that runs with the next `up`."""

    profile: str
    kind: Literal["fixed", "trace"]
    run: str
    """Attempt and a hash of all that makes it the same run; the nodes' generation follows it in the results' folder."""
    points: tuple[str, ...]
    least_minutes: float
    """GPUs are paid for at least so long."""
    ttft_ms: float
    itl_ms: float
    job: str


class FoundationPlan(Frozen):
    """What every stack has or takes: network, cluster, CPU nodes, file system, charts. All of a base, part of a `Plan`."""

    stack: str
    recipe: Recipe | Base
    placeholders: tuple[str, ...]
    """Paths of what only the user knows and where a documentation value stands instead. Those of a base begin with its name and a colon."""
    names: Names
    tags: dict[str, str]
    versions: dict[str, str]
    """What goes together: dynamo, engine, kubernetes, charts, AMI."""
    network: NetworkPlan
    cluster: ClusterPlan
    cpu_pool: NodePool
    storage: StoragePlan
    platform: ChartPlan
    devices: tuple[ChartPlan, ...]
    placement: Placement
    cost: Cost
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    """Good to know, and no reason to worry: quotas, what a pause costs."""

    @property
    def identity(self) -> str:
        """Another one where nothing that exists can be changed into what is planned: see `components/identity.py`."""
        return self.cluster.identifier


class BasePlan(FoundationPlan):
    """Everything decided for a base."""

    recipe: Base

    def agreed(self) -> dict[str, str]:
        """What stacks on this base plan with. The base exports it as it runs, and they refuse to go on where their file says otherwise."""
        cluster = self.cluster.identifier
        return {"cluster": cluster, "region": self.recipe.access.region} | {
            name: self.versions[name] for name in ("kubernetes", "dynamo")
        }


class Plan(FoundationPlan):
    """Everything decided for one stack."""

    recipe: Recipe
    """With access and versions of the base, where there is one."""
    base: BasePlan | None = None
    """The base that network, cluster, file system, platform and devices are taken from; None: the stack makes its own."""
    model: ModelPlan
    gpu_pool: GpuPool | None
    """None where no GPU nodes are made: engine mocker, or paused."""
    workers: tuple[WorkerPlan, ...]
    objects: Objects
    images: dict[str, str]
    bucket: BucketPlan | None = None
    benchmark: BenchmarkPlan | None = None
    """None unless asked for."""

    @property
    def identity(self) -> str:
        """On a base, the stack's own names count as well as the cluster's."""
        return f"{self.cluster.identifier} {self.names.prefix}" if self.base else self.cluster.identifier

    @property
    def gpus(self) -> int:
        """GPUs the workers use; none while paused."""
        return 0 if self.paused else sum(pool.replicas * pool.gpus for pool in self.workers)

    @property
    def paused(self) -> bool:
        """No GPU nodes and no graph for now; `workers` says what a resumed stack runs."""
        return self.recipe.hardware.paused


Placement.model_rebuild()
