"""What goes wrong on purpose beyond a refused call, and that it ends: each has a row in the rules that says how the services do it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import diagnosis
from ops.kube import snapshot
from ops.kube_pretend import PretendKube
from ops.symptoms import recognise
from rehearsal.cloud import Cloud, CloudError, Fault, Faults
from rehearsal.cloud import rules as r
from rehearsal.cloud.faults import Pretended

from .conftest import Start
from .world import World


def account(**what: object) -> Faults:
    return Faults(account=Pretended.model_validate(what))


def faults(*found: Fault) -> Faults:
    return Faults(faults=found)


def test_a_type_that_the_zone_does_not_have_is_never_launched(before_gpus: Start) -> None:
    world = before_gpus(account(zones_without={"p5.48xlarge": ["use2-az1"]}))
    said = world.unfinished(world.gpu_pool)
    assert (
        "Unsupported - Your requested instance type (p5.48xlarge) is not supported in your requested Availability Zone"
        in said
    )
    assert not [one for one in world.cloud.store.of(r.INSTANCE) if one.extra["gpus"]]


def test_a_quota_is_counted_in_vcpus(before_gpus: Start) -> None:
    world = before_gpus(account(quotas={"L-417A185B": 383}))
    assert "VcpuLimitExceeded" in world.unfinished(world.gpu_pool)


def test_a_quota_that_suffices_is_no_hindrance(before_gpus: Start) -> None:
    assert len(before_gpus(account(quotas={"L-417A185B": 384})).gpu_pool().events("node-ready")) >= 2


def test_expired_credentials_refuse_everything_until_the_next_command(before_gpus: Start) -> None:
    world = before_gpus(faults(Fault(type="NodeGroup", name_contains="gpu", error="expired")))
    with pytest.raises(CloudError, match="ExpiredToken"):
        world.gpu_pool()
    with pytest.raises(CloudError, match="ExpiredToken"):
        world.drop("gpu-template")
    with pytest.raises(CloudError, match="getting credentials: exec"):
        world.devices()  # the cluster's token comes from the same credentials
    world.cloud.configure("aws", {})
    world.made.pop("gpu", None)
    world.drop("gpu-template")


def test_what_is_told_anew_ends_expired_credentials_before_any_provider_is_configured_again(
    empty: World, tmp_path: Path
) -> None:
    told = tmp_path / "told.json"
    told.write_text(faults(Fault(type="Vpc", error="expired")).model_dump_json())
    empty.cloud = Cloud(tmp_path / "books", empty.clock, Faults.load(told), region="us-east-2", told=told)
    assert "ExpiredToken" in empty.refused(r.VPC, "vpc", cidrBlock="10.0.0.0/16")
    told.write_text(Faults().model_dump_json())
    empty.make(r.VPC, "vpc", cidrBlock="10.0.0.0/16")


def test_a_fault_can_strike_any_type(empty: World) -> None:
    empty.cloud.faults = faults(Fault(type="*", error="ThrottlingException: Rate exceeded"))
    assert "Rate exceeded" in empty.refused(r.VPC, "vpc", cidrBlock="10.0.0.0/16")
    empty.make(r.VPC, "vpc", cidrBlock="10.0.0.0/16")


def test_a_late_driver_keeps_a_claim_waiting_and_then_not(with_cluster: Start) -> None:
    late = Fault(type="Addon", name_contains="efs-csi", when="after", error="late", delay_s=900)
    world = with_cluster(faults(late)).cpu_pool()
    said = world.unfinished(world.storage)
    assert "not found in the list of registered CSI drivers" in said
    assert world.cloud.store.find(r.ADDON, "q:aws-efs-csi-driver").status == "ACTIVE"  # type: ignore[union-attr]
    world.clock.advance(900)
    claim = world.cloud.store.find(r.PVC, "serving/model", "q")
    assert claim is not None
    assert claim.extra["phase"] == "Bound"


def test_a_stuck_claim_stays_terminating_until_it_is_asked_again(whole: Start) -> None:
    world = whole(faults(Fault(op="delete", type="PersistentVolumeClaim", error="stuck")))
    world.drop("graph")
    world.drop("weights")
    said = world.stuck("claim")
    assert "kubernetes.io/pvc-protection" in said
    assert recognise(said).key == "claim-stays"
    seen = snapshot(PretendKube(world.cloud.store.folder, "q"), "serving", ())
    (claim,) = seen.claims
    assert claim["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert [one.row.key for one in diagnosis._of_claims(seen.claims)] == ["claim-stays"]
    world.drop("claim")


def test_a_graph_whose_finalizer_hangs(whole: Start) -> None:
    world = whole(faults(Fault(op="delete", type="DynamoGraphDeployment", error="stuck")))
    assert "nvidia.com/finalizer" in world.stuck("graph")
    world.drop("graph")


def test_an_interface_that_is_left_holds_its_subnet_until_somebody_deletes_it(whole: Start) -> None:
    world = whole(
        faults(Fault(op="delete", type="NodeGroup", name_contains="gpu", when="after", error="interface-left"))
    )
    world.drop("gpu")
    (left,) = world.cloud.store.of(r.NETWORK_INTERFACE)
    with pytest.raises(CloudError, match="DependencyViolation") as held:
        world.destroy()
    assert left.id in str(held.value), "the message says who holds it"
    world.cloud.delete(r.NETWORK_INTERFACE, "", left.id, {}, {}, timeout_s=None)
    # EKS could not remove its own group while the interface used it (facts/aws.md §9): the second side door.
    (group,) = (one for one in world.cloud.store.of(r.SECURITY_GROUP) if not one.urn)
    world.cloud.delete(r.SECURITY_GROUP, "", group.id, {}, {}, timeout_s=None)
    world.destroy()
    assert not list(world.cloud.store.of(r.VPC))


def test_a_silent_webhook_is_asked_again(with_cluster: Start) -> None:
    silent = Fault(type="DynamoGraphDeployment", error='failed calling webhook "x": connection refused', times=3)
    world = with_cluster(faults(silent)).cpu_pool().storage().weights().platform().admission()
    assert world.out("admission")["status"]["succeeded"] == 1


def test_a_truncated_download_is_told_in_the_scripts_words(with_cluster: Start) -> None:
    cut = Fault(type="Job", name_contains="weights", when="after", error="truncated")
    world = with_cluster(faults(cut)).cpu_pool().storage()
    assert recognise(world.unfinished(world.weights)).key == "weights-damaged"


def test_the_pretend_api_server_shows_what_a_real_one_would(whole: Start, before_gpus: Start) -> None:
    seen = snapshot(PretendKube(whole().cloud.store.folder, "q"), "serving", ("kube-system",))
    assert {node["status"]["conditions"][0]["status"] for node in seen.nodes} == {"True"}
    assert sum(int(node["status"]["allocatable"].get("nvidia.com/gpu", 0)) for node in seen.nodes) == 16
    assert {pod["status"]["phase"] for pod in seen.pods} == {"Running"}
    assert [graph["status"]["state"] for graph in seen.graphs] == ["successful"]
    assert seen.events == ()
