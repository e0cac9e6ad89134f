"""What the program will create, by room and in order: a short list for people, derived from the plan (held against the program by a test)."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.plan import Plan


@dataclass(frozen=True)
class Room:
    """One group of resources that come together. `kinds`: how many of each resource type, by its short name."""

    name: str
    kinds: dict[str, int]
    why_here: str

    @property
    def count(self) -> int:
        return sum(self.kinds.values())


def rooms(plan: Plan) -> tuple[Room, ...]:
    """The rooms in their order of creation."""
    claims = len(plan.storage.claims)
    network = {
        "Vpc": 1, "InternetGateway": 1, "Subnet": 3, "Eip": 1, "NatGateway": 1, "RouteTable": 2, "Route": 2,
        "RouteTableAssociation": 2, "VpcEndpoint": 1,
    }  # fmt: skip
    cluster = {
        "LogGroup": 1, "Role": 2, "RolePolicyAttachment": 4, "Cluster": 1, "Addon": 4,
        "AccessEntry": len(plan.cluster.admin_principals), "AccessPolicyAssociation": len(plan.cluster.admin_principals),
    }  # fmt: skip
    cpu = {"LaunchTemplate": 1, "NodeGroup": 1}
    storage = {
        "SecurityGroup": 1, "SecurityGroupIngressRule": 1, "FileSystem": 1, "MountTarget": 1, "AccessPoint": claims, "Role": 1,
        "RolePolicyAttachment": 1, "PodIdentityAssociation": 1, "Addon": 1, "StorageClass": 1, "PersistentVolume": claims,
        "PersistentVolumeClaim": claims,
    }  # fmt: skip
    weights = {"Secret": int(plan.objects.token_secret is not None), "ConfigMap": 1, "Job": 1}
    gpu = {"PlacementGroup": int(plan.gpu_pool.placement_group), "LaunchTemplate": 1, "NodeGroup": 1}
    wait = "when the platform is ready and the API server has accepted the graph"
    if plan.recipe.weights.wait:
        wait = "when the weights are on disk, the platform is ready and the API server has accepted the graph"
    found = (
        Room("network", network, "first: nodes reach AWS through it, and it outlives them"),
        Room("cluster", cluster, "after the network; logs into a group made before it"),
        Room("CPU nodes", cpu, "after vpc-cni; everything that is not a worker runs here"),
        Room("storage", storage, "beside the CPU nodes; claims bind once the CSI driver runs"),
        Room("weights", weights, "as soon as the model's claim is bound"),
        Room("platform", {"Release": 1}, "after the CPU nodes"),
        Room(
            "admission",
            {"ServiceAccount": 1, "Role": 1, "RoleBinding": 1, "ConfigMap": 1, "Job": 1},
            "after the platform: dry run of the graph",
        ),
        Room("devices", {"Release": len(plan.devices)}, "before the GPU nodes, whose pods they wait for"),
        Room("GPU nodes", gpu, f"last of what is paid by the hour: {wait}"),
        Room(
            "graph",
            {"ConfigMap": len(plan.objects.graph_config), "DynamoGraphDeployment": 1},
            "when the GPU nodes are there",
        ),
        Room(
            "readiness",
            {"ServiceAccount": 1, "Role": 1, "RoleBinding": 1, "ConfigMap": 1, "Job": 1},
            "ends when one completion came back",
        ),
    )
    return tuple(
        Room(room.name, {kind: count for kind, count in room.kinds.items() if count}, room.why_here) for room in found
    )
