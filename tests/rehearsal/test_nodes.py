"""Node groups: capacity, joining, what their nodes offer to pods."""

from __future__ import annotations

from rehearsal.cloud import Fault, Faults
from rehearsal.cloud import rules as r

from .conftest import Start

NO_GPUS = Fault(type="NodeGroup", name_contains="gpu", when="after", error="InsufficientInstanceCapacity")


def test_a_group_without_capacity_fails_but_exists_and_can_be_destroyed(before_gpus: Start) -> None:
    world = before_gpus(Faults(faults=(NO_GPUS,)))
    why = world.unfinished(world.gpu_pool)
    assert "unexpected state 'CREATE_FAILED', wanted target 'ACTIVE'" in why
    assert (
        "InsufficientInstanceCapacity - We currently do not have sufficient p5.48xlarge capacity in the Availability Zone you requested (us-east-2a)"
        in why
    )
    assert world.out("gpu")["status"] == "CREATE_FAILED", "the engine must learn of it, or nobody deletes it"
    assert world.cloud.gpu_time().node_minutes == 0
    assert world.destroy().cloud.left() == []


def test_a_short_create_timeout_ends_the_wait_while_the_group_is_still_creating(before_gpus: Start) -> None:
    world = before_gpus(Faults(faults=(NO_GPUS,)))
    start = world.clock.now()
    why = world.unfinished(lambda: world.gpu_pool(timeout_s=600))
    assert "last state: 'CREATING', timeout: 10m0s" in why
    assert 600 <= world.clock.now() - start < 620


def test_the_second_try_succeeds_when_capacity_came_back(before_gpus: Start) -> None:
    world = before_gpus(Faults(faults=(NO_GPUS,)))
    world.unfinished(world.gpu_pool)
    typ, _, inputs, _ = world.made["gpu"]
    assert typ == r.NODE_GROUP
    assert world.change("gpu", **inputs)["status"] == "ACTIVE"
    world.devices().graph().readiness()


def test_instances_that_come_late_are_billed_although_the_create_failed(before_gpus: Start) -> None:
    late = NO_GPUS.model_copy(update={"late_s": 1800.0})
    world = before_gpus(Faults(faults=(late,)))
    world.unfinished(lambda: world.gpu_pool(timeout_s=900))
    assert world.cloud.gpu_time().node_minutes == 0
    world.clock.advance(3600)
    assert world.out("gpu")["status"] == "ACTIVE", "EKS went on: the group is whole by now"
    assert world.cloud.gpu_time().idle_node_minutes > 80, "two nodes for three quarters of an hour, serving nobody"


def test_a_group_deleted_before_its_late_instances_come_never_gets_them(before_gpus: Start) -> None:
    late = NO_GPUS.model_copy(update={"late_s": 1800.0})
    world = before_gpus(Faults(faults=(late,)))
    world.unfinished(lambda: world.gpu_pool(timeout_s=900))
    world.drop("gpu")
    world.clock.advance(3600)
    assert world.cloud.gpu_time().node_minutes == 0


def test_capacity_for_one_of_two_launches_one_and_fails(before_gpus: Start) -> None:
    world = before_gpus(Faults(capacity={"p5.48xlarge": 1}))
    assert "InsufficientInstanceCapacity" in world.unfinished(world.gpu_pool)
    assert len([x for x in world.cloud.left() if x.type == r.INSTANCE and x.name.startswith("gpu")]) == 1
    assert world.cloud.gpu_time().idle_node_minutes > 15, "the one that came is paid for"


def test_nodes_do_not_become_ready_before_the_cni(with_cluster: Start) -> None:
    world = with_cluster()
    world.drop("vpc-cni")
    assert "NodeCreationFailure" in (why := world.unfinished(world.cpu_pool))
    assert "vpc-cni" in why


def test_nodes_of_a_subnet_without_a_way_out_never_join(with_cluster: Start) -> None:
    world = with_cluster()
    world.drop("nodes-route")
    assert "Instances failed to join the kubernetes cluster" in world.unfinished(world.cpu_pool)


def test_nodes_whose_role_lacks_the_worker_policy_never_join(with_cluster: Start) -> None:
    world = with_cluster()
    world.role("node-role", "AmazonEKS_CNI_Policy")
    assert "AmazonEKSWorkerNodePolicy" in world.unfinished(world.cpu_pool)


def test_coredns_without_nodes_gives_up_after_twenty_minutes(with_cluster: Start) -> None:
    world = with_cluster()
    start = world.clock.now()
    why = world.unfinished(lambda: world.make(r.ADDON, "coredns", clusterName="q", addonName="coredns"))
    assert "'DEGRADED'" in why
    assert world.clock.now() - start == 20 * 60


def test_a_daemonset_add_on_is_active_without_nodes(with_cluster: Start) -> None:
    assert with_cluster().out("vpc-cni")["arn"]


def test_gpu_nodes_offer_gpus_and_efa_only_with_the_plugins(before_gpus: Start) -> None:
    world = before_gpus().gpu_pool()

    def offered() -> dict[str, float]:
        node = next(n for n in world.cloud.kubernetes.nodes("q") if n.labels["pool"] == "gpu")
        return {k: v for k, v in node.allocatable.items() if "/" in k}

    assert offered() == {}
    world.release("nvidia", "nvidia-device-plugin", "https://nvidia.github.io/k8s-device-plugin")
    assert offered() == {"nvidia.com/gpu": 8}
    world.release("efa", "aws-efa-k8s-device-plugin", "https://aws.github.io/eks-charts")
    assert offered() == {"nvidia.com/gpu": 8}, (
        "the EFA chart's default tolerations lack the GPU taint, and it says nothing"
    )
    world.drop("efa")
    world.release(
        "efa", "aws-efa-k8s-device-plugin", "https://aws.github.io/eks-charts", tolerations=[{"operator": "Exists"}]
    )
    assert offered() == {"nvidia.com/gpu": 8, "vpc.amazonaws.com/efa": 32}


def test_a_node_has_as_many_efa_devices_as_its_template_has_interfaces(before_gpus: Start) -> None:
    world = before_gpus().pool("gpu", "p5.48xlarge", 1, gpu=True, efa=16).devices()
    node = next(n for n in world.cloud.kubernetes.nodes("q") if n.labels["pool"] == "gpu")
    assert node.allocatable["vpc.amazonaws.com/efa"] == 16


def test_gpu_nodes_cost_from_launch_to_termination_and_idle_while_nothing_serves(whole: Start) -> None:
    world = whole()
    ready = world.cloud.gpu_time()
    world.clock.advance(3600)
    serving = world.cloud.gpu_time()
    assert serving.node_minutes - ready.node_minutes == 120
    assert serving.idle_node_minutes == ready.idle_node_minutes, "an hour of serving is not idle"
    assert serving.gpu_minutes == 8 * serving.node_minutes
    world.drop("gpu")
    gone = world.cloud.gpu_time()
    assert gone.gone_at_minutes is not None
    world.clock.advance(3600)
    assert world.cloud.gpu_time().node_minutes == gone.node_minutes


def test_gpu_nodes_come_ready_after_the_minutes_of_the_table_or_its_override(before_gpus: Start) -> None:
    world = before_gpus(**{"node.gpu.ready": 1000.0, "node.launch": 50.0})
    start = world.clock.now()
    world.gpu_pool()
    (first, *_) = [e for e in world.events("node-ready") if e["gpus"]]
    assert 1050 <= first["start"] - start <= 1060
