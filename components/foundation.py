"""What a model stack stands on: network, cluster, CPU nodes, file system, platform and device plugins, made here or taken.

`create_foundation` makes all of it, for one stack or as a base for several. `take_foundation` reads a base's outputs, checks that
the base runs as this stack was planned, and makes only what no two stacks share: its CPU nodes. Either way the rest of the program
gets a `Foundation` and does not ask where it came from.
Deliberately not here: what a model needs (model.py), and releasing a base, which is protected (`python -m ops release-base`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from components._objects import tied
from components.cluster import Cluster, ClusterArgs
from components.devices import Devices, DevicesArgs
from components.identity import Identity
from components.lustre import Lustre, LustreArgs
from components.network import Network, NetworkArgs
from components.nodes import CpuPool, CpuPoolArgs
from components.platform import Platform, PlatformArgs
from components.site import Site
from components.storage import FileSystem, FileSystemArgs
from recipe.config import FromBase
from recipe.plan import BasePlan, FoundationPlan, Late, Plan

OUTPUT: Final = "foundation"
"""The stack output of a base that holds what stacks on it take."""


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """What the rest of a model stack needs to know of it."""

    shared: bool
    """Whether other stacks are in the same cluster."""
    site: Site
    nodes: CpuPool
    kubeconfig: pulumi.Input[str]
    late: Mapping[str, pulumi.Input[str]]
    """File system and access points, by their names in manifests."""
    storage: Sequence[pulumi.Resource]
    platform: Sequence[pulumi.Resource]
    devices: Sequence[pulumi.Resource]
    """Each empty where a base has it: what a base has is there already, and stays."""
    objects: pulumi.ResourceOptions
    """For every object in the cluster."""

    def inside(self, namespace: pulumi.Resource) -> pulumi.ResourceOptions:
        """For every object in this stack's namespace: in a shared cluster they go with the namespace, else all with the cluster."""
        gone = pulumi.ResourceOptions(deleted_with=namespace if self.shared else None)
        return pulumi.ResourceOptions.merge(self.objects, gone)


# ── made here ────────────────────────────────────────────────────────────────────────────────────────────────────────


def create_foundation(plan: FoundationPlan, identity: Identity, account: aws.Provider) -> Foundation:
    """All of it, as this stack's own. A base's is protected: to destroy it would take every stack on it along, weights included."""
    protect = True if isinstance(plan, BasePlan) else None
    on_aws = pulumi.ResourceOptions(providers=[account], protect=protect)
    network = Network("network", NetworkArgs(plan=plan, identity=identity), on_aws)
    cluster = Cluster("cluster", ClusterArgs(plan=plan, identity=identity, network=network), on_aws)
    site = Site(
        cluster_name=cluster.cluster_name,
        security_group_id=cluster.security_group_id,
        node_role_arn=cluster.node_role_arn,
        subnet_id=network.nodes_subnet_id,
        outlives_nodes=[cluster, network],
    )
    nodes = CpuPool("cpu", CpuPoolArgs(plan=plan, identity=identity, site=site, dns=True), on_aws)
    files = FileSystem(
        "files", FileSystemArgs(plan=plan, identity=identity, network=network, cluster=cluster, nodes=nodes), on_aws
    )
    storage: list[pulumi.Resource] = [files]
    late = dict(files.late)
    if plan.storage.lustre:
        lustre = Lustre("lustre", LustreArgs(plan=plan, network=network, cluster=cluster, nodes=nodes), on_aws)
        storage.append(lustre)
        late |= lustre.late
    # Charts do not go with the cluster: the provider never adopts a release, so one that was only forgotten would block the next
    # `up`. GPU nodes depend on them and are gone before any is uninstalled. A provider of their own, because the engine closes
    # one that is replaced before it has deleted anything; the releases themselves hang on the identity.
    charts = pulumi.ResourceOptions(
        providers=[_api_server("helm", cluster.kubeconfig, plan.cluster.identifier, upsert=True, protect=protect)],
        protect=protect,
    )
    platform = Platform("platform", PlatformArgs(plan=plan, identity=identity, nodes=nodes), charts)
    devices = (
        [Devices("devices", DevicesArgs(plan=plan, identity=identity, cluster=cluster), charts)] if plan.devices else []
    )
    objects = pulumi.ResourceOptions()
    if protect is None:  # a base has no objects of its own
        objects = pulumi.ResourceOptions(
            # After a failed delete of the cluster its objects are gone from the state only: the next `up` adopts them. The
            # provider is replaced with the identity, and they with it.
            providers=[
                _api_server("kubernetes", cluster.kubeconfig, identity.tie(plan.cluster.identifier), upsert=True)
            ],
            # No finalizer and no lost kubeconfig can hold up the release of GPU nodes.
            deleted_with=cluster.cluster,
        )
    return Foundation(
        shared=False,
        site=site,
        nodes=nodes,
        kubeconfig=cluster.kubeconfig,
        late=late,
        storage=storage,
        platform=[platform],
        devices=devices,
        objects=objects,
    )


def outputs(plan: BasePlan, foundation: Foundation) -> dict[str, Any]:
    """What a base exports as `OUTPUT`."""
    site = foundation.site
    return {
        "agreed": plan.agreed(),
        "clusterName": site.cluster_name,
        "securityGroupId": site.security_group_id,
        "nodeRoleArn": site.node_role_arn,
        "subnetId": site.subnet_id,
        "kubeconfig": foundation.kubeconfig,
        "fileSystemId": foundation.late[Late.FILE_SYSTEM],
        "accessPoints": {one.purpose: foundation.late[Late.access_point(one.purpose)] for one in plan.storage.claims},
    }


# ── taken from a base ────────────────────────────────────────────────────────────────────────────────────────────────


def base_reference(foundation: FromBase) -> str:
    """The base's qualified name in this stack's backend."""
    return foundation.reference or f"{pulumi.get_organization()}/{pulumi.get_project()}/{foundation.stack}"


def base_outputs(plan: Plan) -> pulumi.Output[dict[str, Any]]:
    """What the base of `plan` exports for it. Fails, and all that depends on it, where the base is not as planned."""
    assert isinstance(plan.recipe.foundation, FromBase)
    base = pulumi.StackReference("base", stack_name=base_reference(plan.recipe.foundation))
    outputs: pulumi.Output[dict[str, Any]] = base.get_output(OUTPUT).apply(lambda found: checked(plan, found))
    return outputs


def take_foundation(
    plan: Plan, found: pulumi.Output[dict[str, Any]], identity: Identity, account: aws.Provider
) -> Foundation:
    """A base's, from its outputs `found`, and beside it this stack's own CPU nodes.

    With what it asks for by itself a stack then fits or does not, whatever other stacks there are, and no other stack's pods
    take its room.
    """
    site = Site(
        cluster_name=found["clusterName"],
        security_group_id=found["securityGroupId"],
        node_role_arn=found["nodeRoleArn"],
        subnet_id=found["subnetId"],
        outlives_nodes=[],
    )
    nodes = CpuPool(
        "cpu",
        CpuPoolArgs(plan=plan, identity=identity, site=site, dns=False),
        pulumi.ResourceOptions(providers=[account]),
    )
    points = found["accessPoints"]
    kubeconfig = found["kubeconfig"]
    provider = _api_server("kubernetes", kubeconfig, plan.cluster.identifier, upsert=False)
    return Foundation(
        shared=True,
        site=site,
        nodes=nodes,
        kubeconfig=kubeconfig,
        late={Late.FILE_SYSTEM: found["fileSystemId"]}
        | {Late.access_point(one.purpose): points[one.purpose] for one in plan.storage.claims},
        storage=[],
        platform=[],
        devices=[],
        # They are deleted, so their provider must not be replaced with the identity (see `charts` above): they hang on it
        # themselves.
        objects=pulumi.ResourceOptions(providers=[provider], transformations=[tied(identity)]),
    )


def checked(plan: Plan, found: dict[str, Any] | None) -> dict[str, Any]:
    """The base's output. Raises RunError where there is none, or where the base does not run as this stack was planned."""
    assert plan.base is not None
    name = plan.base.stack
    if not found:
        raise pulumi.RunError(
            f"stack {name}, the base of this one, is not up: it has no output {OUTPUT}\n  pulumi up -s {name}"
        )
    theirs, ours = found["agreed"], plan.base.agreed()
    differ = [
        f"{key}: runs {theirs.get(key)}, planned {value}" for key, value in ours.items() if theirs.get(key) != value
    ]
    if differ:
        lines = "\n".join(f"  {line}" for line in differ)
        raise pulumi.RunError(
            f"stack {name}, the base of this one, does not run as stacks/Pulumi.{name}.yaml says, with which this one was planned:\n{lines}\n"
            f"  `pulumi up -s {name}` first; or, where it was deployed from another copy of that file, take that one"
        )
    return found


def _api_server(
    name: str,
    kubeconfig: pulumi.Input[str],
    identifier: pulumi.Input[str],
    *,
    upsert: bool,
    protect: bool | None = None,
) -> kubernetes.Provider:
    """A provider for the cluster.

    `upsert`: adopt objects that are there already. Never in a shared cluster, where they are another stack's.
    """
    return kubernetes.Provider(
        name,
        kubeconfig=kubeconfig,
        # A kubeconfig unknown in a preview then does not count as another cluster, which would replace every object.
        cluster_identifier=identifier,
        enable_server_side_apply=True,
        upsert_existing_objects=upsert,
        # Names are fixed, so a changed ConfigMap or Secret changes in place instead of being deleted and made again.
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
        opts=pulumi.ResourceOptions(protect=protect),
    )
