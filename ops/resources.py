"""What the program will create, by room and in order: a short list for people, derived from the plan (held against the program by a test)."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.plan import BasePlan, FoundationPlan, Plan


@dataclass(frozen=True)
class Room:
    """The resources of one component. `kinds`: how many of each resource type, by its short name."""

    name: str
    """The component's name in the program, too."""
    kinds: dict[str, int]
    why_here: str

    @property
    def count(self) -> int:
        return sum(self.kinds.values())


def rooms(plan: Plan | BasePlan) -> tuple[Room, ...]:
    """The rooms in their order of creation; one in which nothing is made is left out."""
    if isinstance(plan, BasePlan):
        found = _foundation(plan)
    elif plan.base is not None:
        nodes = {"LaunchTemplate": 1, "NodeGroup": 1}
        found = (
            Room("cpu", nodes, "beside the base's: whatever of this stack is not on GPU nodes runs here"),
            *_model(plan),
        )
    else:
        made = {room.name: room for room in (*_foundation(plan), *_model(plan))}
        order = (
            "network",
            "cluster",
            "cpu",
            "files",
            "lustre",
            "caches",
            "weights",
            "head",
            "platform",
            "devices",
            "admission",
            "gpu",
            "serving",
            "results",
            "benchmark",
        )
        found = tuple(made.pop(name) for name in order)
        assert not made, f"{', '.join(made)} would not be told"
    return tuple(
        Room(room.name, {kind: count for kind, count in room.kinds.items() if count}, room.why_here)
        for room in found
        if any(room.kinds.values())
    )


def _foundation(plan: FoundationPlan) -> tuple[Room, ...]:
    network = {
        "Vpc": 1, "InternetGateway": 1, "Subnet": 3, "Eip": 1, "NatGateway": 1, "RouteTable": 2, "Route": 2,
        "RouteTableAssociation": 2, "VpcEndpoint": 1,
    }  # fmt: skip
    admins = len(plan.cluster.admin_principals)
    cluster = {
        "LogGroup": 1, "Role": 2, "RolePolicyAttachment": 4, "Cluster": 1, "Addon": 3, "AccessEntry": admins,
        "AccessPolicyAssociation": admins,
    }  # fmt: skip
    cpu = {"LaunchTemplate": 1, "NodeGroup": 1, "Addon": 1}
    files = {
        "FileSystem": 1, "SecurityGroup": 1, "SecurityGroupIngressRule": 1, "MountTarget": 1, "AccessPoint": len(plan.storage.on_efs), "Role": 1,
        "RolePolicyAttachment": 1, "PodIdentityAssociation": 1, "Addon": 1,
    }  # fmt: skip
    lustre: dict[str, int] = {}
    if plan.storage.lustre:
        lustre = {"SecurityGroup": 1, "SecurityGroupIngressRule": 4, "LustreFileSystem": 1, "Addon": 1}
    return (
        Room("network", network, "first: nodes reach AWS through it, and it outlives them"),
        Room("cluster", cluster, "after the network; logs into a group made before it"),
        Room("cpu", cpu, "after vpc-cni; everything that is not a worker runs here"),
        Room("files", files, "beside the CPU nodes; identity before the CSI driver"),
        Room(
            "lustre",
            lustre,
            "after the network, beside the control plane: it takes as long; its driver on the CPU nodes",
        ),
        Room("platform", {"Release": 1}, "after the CPU nodes"),
        Room("devices", {"Release": len(plan.devices)}, "before the GPU nodes, on which their pods will run"),
    )


def _model(plan: Plan) -> tuple[Room, ...]:
    claims = len(plan.storage.claims)
    caches = {
        "Namespace": 1,
        "StorageClass": 1 + int(plan.storage.lustre is not None),
        "PersistentVolume": claims,
        "PersistentVolumeClaim": claims,
    }
    weights = {"Secret": int(plan.objects.token_secret is not None), "ConfigMap": 1, "Job": 1}
    job = {"ServiceAccount": 1, "Role": 1, "RoleBinding": 1, "ConfigMap": 1, "Job": 1}
    gpu: dict[str, int] = {}
    if plan.gpu_pool:
        gpu = {"PlacementGroup": int(plan.gpu_pool.placement_group), "LaunchTemplate": 1, "NodeGroup": 1}
    serving: dict[str, int] = {}
    if not plan.paused:
        serving = {"DynamoGraphDeployment": 1, **job, "ConfigMap": 1 + len(plan.objects.graph_config)}
    bucket: dict[str, int] = {}
    if plan.bucket:
        made, used = int(plan.bucket.created), int(plan.benchmark is not None)
        bucket = {
            "Bucket": made,
            "BucketPublicAccessBlock": made,
            "Role": used,
            "RolePolicy": used,
            "PodIdentityAssociation": used,
        }
    measuring: dict[str, int] = {}
    if plan.benchmark and not plan.paused:
        measuring = {"ConfigMap": 1, "ServiceAccount": int(plan.bucket is not None), "Job": 1}
    wait = "when the platform is ready and the API server has accepted the graph"
    head = {"ConfigMap": 1, "Job": 1} if plan.objects.head_job else {}
    if head:
        wait = "when the download is near its end, the platform is ready and the API server has accepted the graph"
    elif plan.recipe.weights.wait:
        wait = "when the weights are on disk, the platform is ready and the API server has accepted the graph"
    ready = "the GPU nodes are there" if plan.gpu_pool else wait.removeprefix("when ")
    return (
        Room("caches", caches, "when the CSI driver runs"),
        Room("weights", weights, "when the model's claim is bound"),
        Room("head", head, "beside the download; ends when GPU nodes should be asked for"),
        Room("admission", job, "after the platform: the API server judges the graph in a dry run"),
        Room("gpu", gpu, f"last of what is paid by the hour: {wait}"),
        Room("serving", serving, f"when {ready}; ends when one completion came back"),
        Room("results", bucket, "beside everything; a bucket made here is kept on purpose when the rest goes"),
        Room("benchmark", measuring, "last: what it measures is proved to serve"),
    )
