"""What comes before what. On destroy the order is reversed, so each edge also says what outlives what."""

import pytest

from tests.program.recorder import Run

NODE_ADDONS = {"cluster-vpc-cni", "cluster-kube-proxy", "cluster-eks-pod-identity-agent"}
WAY_OUT = {
    "network-to-nat",
    "network-nodes-association",
    "network-nat",
    "network-to-internet",
    "network-public-association",
}
"""Nothing that runs refers to these, so without an explicit edge they are deleted first (facts/durations.md)."""


def test_gpu_nodes_wait_for_everything_that_costs_cents(run: Run) -> None:
    behind = run.behind(run.named("gpu-nodes"))
    assert {"weights-job", "admission-job", "platform-release"} <= behind, "GPUs would idle while cheap things go wrong"
    assert {"devices-nvidia-device-plugin", "devices-aws-efa-k8s-device-plugin"} <= behind
    assert {"caches-model-claim", "cpu-coredns", "files-driver"} <= behind


def test_without_the_wait_only_the_weights_are_left_out(run: Run, with_token: Run) -> None:
    waiting, overlapping = run.behind(run.named("gpu-nodes")), with_token.behind(with_token.named("gpu-nodes"))
    assert waiting - overlapping == {"weights-job", "weights-config"}
    graph = with_token.behind(with_token.named("serving-graph"))
    assert "weights-job" in graph, "workers must never find half a snapshot"


def test_overlapped_gpu_nodes_wait_for_the_head_of_the_download_and_the_graph_for_all_of_it(
    run: Run, overlapped: Run
) -> None:
    waiting, early = (one.behind(one.named("gpu-nodes")) for one in (run, overlapped))
    assert early - waiting >= {"head-job", "head-config"}
    assert not {"weights-job", "weights-config"} & early, "else nothing overlaps"
    assert {"weights-job", "head-job"} <= overlapped.behind(overlapped.named("serving-graph")), (
        "workers must never find half a snapshot"
    )


@pytest.mark.parametrize("nodes", ["gpu-nodes", "cpu-nodes"])
def test_nodes_never_lose_their_way_out_their_addons_or_their_role(each: Run, nodes: str) -> None:
    behind = each.behind(each.named(nodes))
    assert behind >= WAY_OUT, "on destroy the nodes would lose the control plane and their group would hang"
    assert behind >= NODE_ADDONS, "nodes without a CNI never become Ready"
    assert "cluster-node-role-AmazonEKS_CNI_Policy" in behind


def test_the_cluster_outlives_nothing_it_needs(run: Run) -> None:
    behind = run.behind(run.only("aws:eks/cluster:Cluster"))
    assert behind >= WAY_OUT
    assert "cluster-logs" in behind, "EKS would make the log group itself, and it would stay"
    assert "cluster-role-AmazonEKSClusterPolicy" in behind, "EKS could not remove its own interfaces"


def test_coredns_waits_for_nodes(run: Run) -> None:
    assert "cpu-nodes" in run.behind(run.named("cpu-coredns"))


def test_credentials_of_the_driver_exist_before_its_pods(run: Run) -> None:
    association = run.behind(run.named("files-driver-identity"))
    assert {"cluster-eks-pod-identity-agent", "files-driver-role-AmazonEFSCSIDriverPolicy"} <= association
    assert {"files-driver-identity", "cpu-nodes"} <= run.behind(run.named("files-driver"))


@pytest.mark.parametrize("purpose", ["model", "compilation", "perf"])
def test_claims_come_after_all_that_makes_them_usable(run: Run, purpose: str) -> None:
    behind = run.behind(run.named(f"caches-{purpose}-claim"))
    assert {"files-driver", "files-driver-identity", "files-mount-target", "files-from-nodes"} <= behind
    assert {"caches-class", f"caches-{purpose}-volume", "caches-namespace"} <= behind


def test_the_download_has_a_disk_a_network_and_a_resolver(run: Run) -> None:
    behind = run.behind(run.named("weights-job"))
    assert {"caches-model-claim", "files-mount-target", "cpu-coredns", "network-to-nat"} <= behind


def test_the_dry_run_asks_a_live_webhook(run: Run) -> None:
    assert {"platform-release", "admission-binding", "caches-namespace"} <= run.behind(run.named("admission-job"))
    assert "cpu-coredns" in run.behind(run.named("platform-release"))


def test_the_graph_comes_last_and_readiness_after_it(run: Run) -> None:
    behind = run.behind(run.named("serving-graph"))
    assert {"gpu-nodes", "weights-job", "platform-release", "caches-compilation-claim"} <= behind
    assert "serving-graph" in run.behind(run.named("serving-ready"))


def test_what_costs_nothing_does_not_wait_for_gpus(run: Run) -> None:
    for name in ("serving-account", "serving-role", "serving-config", "gpu-template"):
        assert "gpu-nodes" not in run.behind(run.named(name)), f"{name} could be there already when the GPUs start"
    assert "weights-job" not in run.behind(run.named("gpu-template"))


def test_lustre_is_made_beside_the_control_plane_and_before_its_claim(on_lustre: Run) -> None:
    behind = on_lustre.behind(on_lustre.named("lustre-fsx"))
    assert "cluster-eks" not in behind, "ten minutes more for every start"
    assert {"lustre-among-servers-988", "lustre-among-servers-1018"} <= behind, "FSx refuses servers that cannot talk"
    claim = on_lustre.behind(on_lustre.named("caches-lustre-4800-claim"))
    assert {"lustre-fsx", "lustre-driver", "lustre-from-nodes-988", "lustre-from-nodes-1018"} <= claim
    assert "cluster-eks-pod-identity-agent" in on_lustre.behind(on_lustre.named("lustre-driver")), (
        "EKS refuses it without"
    )
    assert "caches-lustre-4800-claim" in on_lustre.behind(on_lustre.named("gpu-nodes")), (
        "on destroy it outlives the nodes"
    )


def test_a_claim_on_lustre_binds_to_the_file_system_by_what_only_the_cloud_knows(on_lustre: Run) -> None:
    source = on_lustre.named("caches-lustre-4800-volume").inputs["spec"]["csi"]
    assert source["volumeHandle"] == "lustre-fsx-id"
    assert source["volumeAttributes"] == {"dnsname": "lustre-fsx.fsx.example", "mountname": "abcdefgh"}


def test_a_destroyed_lustre_leaves_no_backup_and_its_driver_no_permission(on_lustre: Run) -> None:
    inputs = on_lustre.named("lustre-fsx").inputs
    assert inputs["skipFinalBackup"] is True
    assert inputs["automaticBackupRetentionDays"] == 0
    assert not [
        one.name
        for one in on_lustre.of("aws:iam/role:Role", "aws:eks/podIdentityAssociation:PodIdentityAssociation")
        if "lustre" in one.name
    ]


def test_without_a_word_about_it_no_lustre_is_made(run: Run) -> None:
    assert not [one.name for one in run.custom if "lustre" in one.name], "$1.50 and more an hour"
    assert "files-model" in {one.name for one in run.custom}
