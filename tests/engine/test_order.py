"""In which order things come and go, from the pretend cloud's journal, in virtual seconds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from .conftest import StartLife
from .life import Row, succeed

pytestmark = pytest.mark.engine

GPU = "gpu-nodes"
BEFORE_GPUS = (
    "weights-job", "admission-job", "platform-release", "devices-nvidia-device-plugin", "devices-aws-efa-k8s-device-plugin",
    "cluster-vpc-cni", "cluster-kube-proxy", "cluster-eks-pod-identity-agent", "cpu-coredns", "files-driver", "files-mount-target",
    "caches-model-claim", "caches-compilation-claim", "network-nat", "network-to-nat", "network-to-internet",
    "network-nodes-association", "network-public-association",
)  # fmt: skip
OUTLIVE_GPUS = (
    "network-to-nat", "network-nat", "network-to-internet", "network-nodes-association", "network-public-association", "cluster-eks",
    "cluster-vpc-cni", "cluster-kube-proxy", "cluster-node-role-AmazonEKSWorkerNodePolicy", "cluster-node-role-AmazonEKS_CNI_Policy",
    "cluster-admin-123456789012:role/ops", "cluster-admin-123456789012:role/ops-policy", "cpu-nodes",
)  # fmt: skip
"""Without any of them, nodes that still drain cannot reach their control plane, or nobody may talk to it."""


@dataclass
class Recorded:
    """A life's journal with the clock running: what was made and what was taken away, by logical name."""

    made: dict[str, Row]
    gone: dict[str, Row]
    events: list[Row]

    def when(self, kind: str, name: str) -> float:
        """The time of something that happened by itself."""
        return float(next(row["start"] for row in self.events if row["type"] == kind and row["name"] == name))

    def assert_made(self, first: str, then: str, why: str) -> None:
        end, start = self.made[first]["end"], self.made[then]["start"]
        assert end <= start, f"{then} was begun at {start:.0f} s, before {first} was there at {end:.0f} s: {why}"

    def assert_gone(self, first: str, then: str, why: str) -> None:
        end, start = self.gone[first]["end"], self.gone[then]["start"]
        assert end <= start, f"{then} began to go at {start:.0f} s, before {first} was gone at {end:.0f} s: {why}"


def record(start: StartLife, **edit: object) -> Recorded:
    life = start(clock="events")
    life.edit({"access.admin_principals": ["arn:aws:iam::123456789012:role/ops"], **edit})
    succeed(life.up())
    succeed(life.destroy())
    rows = life.journal()
    by_op = {
        op: {row["name"]: row for row in rows if row["op"] == op and row["outcome"] == "ok"}
        for op in ("create", "delete")
    }
    return Recorded(by_op["create"], by_op["delete"], [row for row in rows if row["op"] == "event"])


@pytest.fixture(scope="module")
def recorded(start_for_module: StartLife) -> Recorded:
    return record(start_for_module)


@pytest.fixture(scope="module")
def overlapped(start_for_module: StartLife) -> Recorded:
    return record(start_for_module, **{"weights.wait": False})


@pytest.fixture(scope="module")
def near_its_end(start_for_module: StartLife) -> Recorded:
    return record(start_for_module, **{"weights.wait": "overlap"})


def test_overlapped_gpu_nodes_start_near_the_downloads_end_and_the_graph_after_it(near_its_end: Recorded) -> None:
    near_its_end.assert_made("head-job", GPU, "it says when")
    near_its_end.assert_made("weights-job", "serving-graph", "workers load verified weights only")
    assert near_its_end.made[GPU]["start"] < near_its_end.made["weights-job"]["end"], "else nothing overlaps"
    ready = next(row["end"] for row in near_its_end.events if row["type"] == "node-running" and row["gpus"]) + 300
    assert near_its_end.made["weights-job"]["end"] <= ready, "nodes at their fastest would wait for the download"


@pytest.mark.parametrize("first", BEFORE_GPUS)
def test_gpu_nodes_are_asked_for_only_when_what_they_need_is_there(recorded: Recorded, first: str) -> None:
    recorded.assert_made(first, GPU, "GPU nodes would be paid for while they wait")


def test_no_gpu_runs_before_its_node_group_is_asked_for(recorded: Recorded) -> None:
    begin = recorded.made[GPU]["start"]
    assert all(row["start"] >= begin for row in recorded.events if row["type"] == "node-running" and row["gpus"])


def test_the_graph_comes_when_nodes_weights_and_devices_are_there(recorded: Recorded) -> None:
    for first in (GPU, "weights-job", "devices-nvidia-device-plugin", "devices-aws-efa-k8s-device-plugin"):
        recorded.assert_made(first, "serving-graph", "its pods could not start")
    recorded.assert_made("serving-graph", "serving-ready", "there is nothing to wait for yet")


def test_the_log_group_is_there_before_the_cluster_writes_to_it_and_goes_after_it(recorded: Recorded) -> None:
    recorded.assert_made("cluster-logs", "cluster-eks", "EKS would make one of its own, without retention")
    recorded.assert_gone("cluster-eks", "cluster-logs", "EKS would make it again, and nobody would delete that one")


def test_the_network_plugin_is_there_before_nodes(recorded: Recorded) -> None:
    recorded.assert_made("cluster-vpc-cni", "cpu-nodes", "nodes without it never become Ready")


def test_the_driver_starts_with_credentials_and_claims_follow_it(recorded: Recorded) -> None:
    recorded.assert_made(
        "cluster-eks-pod-identity-agent", "files-driver-identity", "the agent hands the credentials out"
    )
    recorded.assert_made("files-driver-identity", "files-driver", "credentials are injected when a pod is created")
    for first in ("files-driver", "files-mount-target", "files-model", "caches-class"):
        recorded.assert_made(first, "caches-model-claim", "the claim would not bind")
    for first in ("caches-model-claim", "files-mount-target", "cpu-coredns"):
        recorded.assert_made(first, "weights-job", "the download could not mount its cache or find the hub")


@pytest.mark.parametrize("then", OUTLIVE_GPUS)
def test_gpu_nodes_go_before_what_they_need_to_go(recorded: Recorded, then: str) -> None:
    recorded.assert_gone(GPU, then, "draining nodes lose their control plane while they are paid for")


def test_gpu_nodes_are_the_first_to_go(recorded: Recorded) -> None:
    first = min(row["start"] for row in recorded.gone.values())
    assert recorded.gone[GPU]["start"] == first, "every other thing that goes first is paid for with idle GPUs"


def test_no_node_group_lost_its_control_plane(recorded: Recorded) -> None:
    assert [row for row in recorded.events if row["type"] == "node-group-degraded"] == []


def test_the_file_system_goes_after_what_mounts_it(recorded: Recorded) -> None:
    for first in ("files-mount-target", "files-model", "files-compilation", "files-perf"):
        recorded.assert_gone(first, "files-efs", "EFS refuses to go while it has any")
    recorded.assert_gone("files-mount-target", "files-group", "its network interface uses the group")


def test_objects_inside_the_cluster_are_not_deleted_one_by_one(recorded: Recorded) -> None:
    deleted = {name: row["type"] for name, row in recorded.gone.items() if row["type"].startswith("kubernetes:")}
    charts = {name for name, kind in deleted.items() if kind.endswith(":Release")}
    assert charts == set(deleted), "a finalizer or a lost kubeconfig could hold up the destroy"
    for name in charts:
        recorded.assert_gone(GPU, name, "an API server that does not answer must not hold up GPU nodes")
    made = [name for name, row in recorded.made.items() if row["type"].startswith("kubernetes:")]
    assert len(made) > 20, "there was something to delete"


def test_without_waiting_for_weights_gpu_nodes_start_during_the_download(overlapped: Recorded) -> None:
    assert overlapped.made[GPU]["start"] < overlapped.made["weights-job"]["end"], "that is what the knob is for"
    overlapped.assert_made("weights-job", "serving-graph", "workers would find half of a model")


@pytest.mark.parametrize("first", sorted(set(BEFORE_GPUS) - {"weights-job"}))
def test_the_knob_drops_only_the_wait_for_the_weights(overlapped: Recorded, first: str) -> None:
    overlapped.assert_made(first, GPU, "only the download may overlap with GPU nodes")
