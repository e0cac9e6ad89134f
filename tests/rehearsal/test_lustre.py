"""FSx for Lustre in the pretend cloud: what is refused, what replaces, what it takes to bind and to mount, what holds what."""

from __future__ import annotations

from typing import Any

import pytest

from rehearsal.cloud import rules as r

from .conftest import Start
from .world import World

GOOD: dict[str, Any] = {
    "deploymentType": "PERSISTENT_2",
    "storageType": "SSD",
    "storageCapacity": 2400,
    "perUnitStorageThroughput": 500,
}


def prepared(world: World, *ports: tuple[int, int]) -> World:
    """A group with rules among its own members and, for `ports`, from the nodes."""
    group = world.make(r.SECURITY_GROUP, "lustre-group", vpcId=world.id("vpc"), name="q-lustre")["id"]
    nodes = world.out("cluster")["vpcConfig"]["clusterSecurityGroupId"]
    for source, named, opened in ((group, "own", r.LUSTRE_PORTS), (nodes, "nodes", ports)):
        for first, last in opened:
            world.make(
                r.INGRESS_RULE,
                f"{named}-{first}",
                securityGroupId=group,
                referencedSecurityGroupId=source,
                ipProtocol="tcp",
                fromPort=first,
                toPort=last,
            )
    return world


def file_system(world: World, name: str = "lustre", **change: Any) -> World:
    places = {"subnetIds": world.id("nodes"), "securityGroupIds": [world.id("lustre-group")]}
    world.make(r.LUSTRE, name, **(GOOD | places | change))
    return world


def bound(world: World, **attributes: str) -> World:
    """Class, volume and claim on it; `attributes` instead of the file system's own."""
    out = world.out("lustre")
    given = {"dnsname": out["dnsName"], "mountname": out["mountName"]} | attributes
    world.make(r.STORAGE_CLASS, "lustre-class", metadata={"name": "q-lustre"}, provisioner="fsx.csi.aws.com")
    spec = {
        "capacity": {"storage": "2400Gi"},
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "q-lustre",
        "csi": {"driver": "fsx.csi.aws.com", "volumeHandle": world.id("lustre"), "volumeAttributes": given},
    }
    world.make(r.PV, "lustre-volume", metadata={"name": "q-lustre"}, spec=spec)
    return world


def claim(world: World) -> dict[str, Any]:
    spec = {
        "storageClassName": "q-lustre",
        "volumeName": "q-lustre",
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "2400Gi"}},
    }
    return world.kube(r.PVC, "lustre-claim", "lustre", spec=spec)


def driver(world: World) -> World:
    world.make(r.ADDON, "fsx-csi", clusterName="q", addonName="aws-fsx-csi-driver")
    return world


def test_it_takes_ten_minutes_and_its_servers_have_to_reach_each_other(before_gpus: Start) -> None:
    world = before_gpus()
    world.make(r.SECURITY_GROUP, "lustre-group", vpcId=world.id("vpc"), name="q-lustre")
    places = {"subnetIds": world.id("nodes"), "securityGroupIds": [world.id("lustre-group")]}
    assert "port 988" in world.refused(r.LUSTRE, "lustre", **(GOOD | places))
    world.drop("lustre-group")
    start = prepared(world).clock.now()
    assert file_system(world).clock.now() - start >= 600


@pytest.mark.parametrize(
    "change", [{"storageCapacity": 3600}, {"perUnitStorageThroughput": 300}, {"deploymentType": "X"}]
)
def test_sizes_and_kinds_that_fsx_has_not_fail_the_check(before_gpus: Start, change: dict[str, Any]) -> None:
    world = before_gpus()
    inputs = GOOD | {"subnetIds": world.id("nodes")} | change
    found = world.cloud.check(r.LUSTRE, world.urn(r.LUSTRE, "lustre"), None, inputs)
    assert len(found.failures) == 1


@pytest.mark.parametrize(
    ("change", "replaced"),
    [
        ({"storageCapacity": 4800}, False),
        ({"storageCapacity": 1200}, True),
        ({"perUnitStorageThroughput": 1000}, False),
        ({"subnetIds": "subnet-other"}, True),
        ({"deploymentType": "PERSISTENT_1"}, True),
    ],
)
def test_it_grows_in_place_and_never_shrinks(before_gpus: Start, change: dict[str, Any], replaced: bool) -> None:
    world = file_system(prepared(before_gpus()))
    typ, made, inputs, outputs = world.made["lustre"]
    diff = world.cloud.diff(typ, made, inputs, outputs, {**inputs, **change})
    assert diff.changes
    assert bool(diff.replaces) is replaced


def test_a_repeated_create_makes_a_second_one_that_is_paid_for_too(before_gpus: Start) -> None:
    world = file_system(file_system(prepared(before_gpus())), "again")
    assert world.id("again") != world.id("lustre")
    assert sum(left.costs_by_the_hour for left in world.cloud.left() if left.type == r.LUSTRE) == 2


def test_it_holds_its_group_and_its_subnet(before_gpus: Start) -> None:
    world = file_system(prepared(before_gpus()))
    assert world.id("lustre") in world.stuck("lustre-group")
    world.drop("lustre")
    world.drop("lustre-group")


def test_a_claim_binds_only_with_its_driver(before_gpus: Start) -> None:
    world = bound(file_system(prepared(before_gpus())))
    assert "the driver fsx.csi.aws.com does not run" in world.unfinished(lambda: claim(world))


def test_a_claim_binds_without_any_permission_of_the_driver(before_gpus: Start) -> None:
    world = bound(driver(file_system(prepared(before_gpus()))))
    assert claim(world)["status"]["phase"] == "Bound"


@pytest.mark.parametrize("attribute", ["dnsname", "mountname"])
def test_a_volume_that_leads_elsewhere_binds_nothing(before_gpus: Start, attribute: str) -> None:
    world = bound(driver(file_system(prepared(before_gpus()))), **{attribute: "another"})
    assert f"another {attribute}" in world.unfinished(lambda: claim(world))


@pytest.mark.parametrize(("ports", "mounts"), [(r.LUSTRE_PORTS, True), (r.LUSTRE_PORTS[:1], False), ((), False)])
def test_nodes_mount_it_through_both_ranges_of_ports(
    before_gpus: Start, ports: tuple[tuple[int, int], ...], mounts: bool
) -> None:
    world = bound(driver(file_system(prepared(before_gpus(), *ports))))
    claim(world)
    cluster, kubernetes = "q", world.cloud.kubernetes
    (node, *_) = kubernetes.nodes(cluster)
    spec = {"volumes": [{"persistentVolumeClaim": {"claimName": "lustre"}}]}
    problem = kubernetes._mount_problem(cluster, "serving", spec, node)
    assert (problem is None) is mounts, problem
