"""What cannot go while it is used, and what stays behind."""

from __future__ import annotations

import pytest

from rehearsal.cloud import CloudError, Fault, Faults
from rehearsal.cloud import rules as r

from .conftest import Start
from .world import World


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nodes", "DependencyViolation: The subnet"),
        ("second", "network interfaces of cluster q"),
        ("public", "network interfaces of NAT gateway"),
        ("efs-group", "network interfaces of mount target"),
        ("vpc", "DependencyViolation: The vpc"),
        ("igw", "some mapped public address(es)"),
        ("eip", "AuthFailure"),
        ("efs", "FileSystemInUse"),
        ("cluster", "ResourceInUseException: Cluster has nodegroups attached"),
        ("cluster-role", "DeleteConflict: Cannot delete entity, must detach all policies first."),
    ],
)  # fmt: skip
def test_what_is_used_cannot_go(whole: Start, name: str, text: str) -> None:
    world = whole()
    assert text in world.stuck(name)
    assert world.out(name), "it is still there"


def test_the_provider_retries_a_blocked_delete_as_long_as_the_real_one(whole: Start) -> None:
    world = whole()
    start = world.clock.now()
    world.stuck("nodes")
    assert world.clock.now() - start == 20 * 60, "the subnet's delete timeout"


def test_the_group_eks_made_blocks_the_vpc_until_the_cluster_is_gone(with_cluster: Start) -> None:
    world = with_cluster()
    for name in ("nfs", "efs-group"):
        world.drop(name)
    assert "eks-cluster-sg-q" in world.stuck("vpc"), "the error names the group nobody has in a state"
    world.drop("cluster")
    assert not [x for x in world.cloud.left() if x.type == r.SECURITY_GROUP]


def test_the_group_eks_made_stays_when_a_rule_still_refers_to_it(with_cluster: Start) -> None:
    world = with_cluster()
    made = world.out("cluster")["vpcConfig"]["clusterSecurityGroupId"]
    world.make(
        r.INGRESS_RULE, "from-nodes", securityGroupId=world.id("efs-group"), ipProtocol="tcp", fromPort=2049, toPort=2049,
        referencedSecurityGroupId=made,
    )  # fmt: skip
    world.drop("cluster")
    assert made in {x.id for x in world.cloud.left()}, "nobody has it in a state, and it will block the VPC"


def test_a_placement_group_with_instances_stays(with_cluster: Start) -> None:
    world = with_cluster()
    world.make(r.PLACEMENT_GROUP, "placement", name="q", strategy="cluster")
    role = world.role("node-role", "AmazonEKSWorkerNodePolicy")
    template = world.make(r.LAUNCH_TEMPLATE, "t", name="t", instanceType="m7i.xlarge", placement={"groupName": "q"})[
        "id"
    ]
    world.make(
        r.NODE_GROUP, "g", clusterName="q", nodeGroupName="g", nodeRoleArn=role, subnetIds=[world.id("nodes")], launchTemplate={"id": template, "version": "1"},
        scalingConfig={"desiredSize": 1, "minSize": 1, "maxSize": 1},
    )  # fmt: skip
    assert "InvalidPlacementGroup.InUse" in world.stuck("placement")
    world.drop("g")
    world.drop("placement")


def test_a_security_group_another_one_refers_to_stays(empty: World) -> None:
    empty.network()
    vpc = empty.id("vpc")
    other = empty.make(r.SECURITY_GROUP, "other", name="other", vpcId=vpc)["id"]
    empty.make(
        r.INGRESS_RULE, "from", securityGroupId=empty.id("efs-group"), ipProtocol="-1", referencedSecurityGroupId=other
    )
    empty.make(r.INGRESS_RULE, "self", securityGroupId=other, ipProtocol="-1", referencedSecurityGroupId=other)
    assert "has a dependent object" in empty.stuck("other")
    empty.drop("from")
    empty.drop("other")


def test_destroy_in_the_right_order_leaves_nothing(whole: Start) -> None:
    world = whole().destroy()
    assert world.cloud.left() == []


def test_with_the_cluster_goes_everything_inside(whole: Start) -> None:
    world = whole()
    for name in ("gpu", "cpu", "cluster"):
        world.drop(name)
    inside = [x for x in world.cloud.left() if x.type.startswith(("kubernetes:", "aws:eks/"))]
    assert inside == []


def test_a_log_group_deleted_before_its_cluster_comes_back_and_stays(whole: Start) -> None:
    world = whole()
    world.drop("logs")
    world.destroy()
    assert [(x.type, x.id, x.urn) for x in world.cloud.left()] == [(r.LOG_GROUP, "/aws/eks/q/cluster", "")]


def test_a_load_balancer_and_an_ebs_volume_outlive_the_cluster_and_block_the_network(whole: Start) -> None:
    world = whole()
    world.kube(r.SERVICE, "balanced", "front", spec={"type": "LoadBalancer"})
    world.make(r.STORAGE_CLASS, "gp3", metadata={"name": "gp3"}, provisioner="ebs.csi.aws.com")
    world.kube(
        r.PVC,
        "disk",
        "disk",
        spec={
            "storageClassName": "gp3",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "10Gi"}},
        },
    )
    with pytest.raises(CloudError, match="load balancer"):
        world.destroy()
    kinds = {x.type for x in world.cloud.left()}
    assert {r.LOAD_BALANCER, r.VOLUME} <= kinds, "this is why the program refuses them in an owned cluster"
    assert r.CLUSTER not in kinds


def test_deleting_such_a_service_first_takes_its_load_balancer_along(whole: Start) -> None:
    world = whole()
    world.kube(r.SERVICE, "balanced", "front", spec={"type": "LoadBalancer"})
    world.drop("balanced")
    assert not [x for x in world.cloud.left() if x.type == r.LOAD_BALANCER]


def test_nodes_without_a_way_out_are_billed_on_while_their_group_hangs(whole: Start) -> None:
    world = whole()
    world.drop("nodes-route")
    start = world.clock.now()
    world.drop("gpu")
    gone = world.cloud.gpu_time().gone_at_minutes
    assert gone is not None
    assert gone - start / 60 > 15, "the degraded group drains for a quarter of an hour at the price of its GPUs"
    assert world.events("node-group-degraded")


def test_a_route_table_goes_also_while_nodes_use_it(whole: Start) -> None:
    world = whole()
    world.drop("nodes-table")
    assert world.cloud.read(r.ROUTE_TABLE_ASSOCIATION, world.id("nodes-link")) is None, "its associations go with it"
    world.drop("gpu")
    assert world.events("node-group-degraded"), "nothing but the program's own dependencies keeps the nodes' way out"


def test_a_cluster_delete_that_fails_once_can_be_repeated(whole: Start) -> None:
    fault = Fault(op="delete", type="Cluster", error="ServerException: an internal error")
    world = whole(Faults(faults=(fault,)))
    for name in ("gpu", "cpu"):
        world.drop(name)
    assert "internal error" in world.stuck("cluster")
    assert world.cloud.read(r.NAMESPACE, "serving"), "a refused delete changes nothing inside"
    world.destroy()
    assert world.cloud.left() == []


def test_after_a_failed_cluster_delete_up_adopts_what_is_inside(whole: Start) -> None:
    world = whole()
    job = world.made["weights"]
    world.made["weights"] = ("", "", {}, {})  # deleted_with: the engine has forgotten it
    assert 'jobs.batch "q-weights" already exists' in world.refused(r.JOB, "weights", **job[2])
    world.cloud.configure("kubernetes", {"upsertExistingObjects": "true"})
    start = world.clock.now()
    world.make(r.JOB, "weights", **job[2])
    assert world.clock.now() - start < 5, "the Job is complete already: nothing is downloaded again"


def test_deleting_what_is_gone_is_done_at_once(whole: Start) -> None:
    world = whole()
    made = world.made["nat"]
    world.cloud.delete(r.NAT, "urn::nat", "nat-0gone", made[2], made[3], timeout_s=None)


def test_the_gpus_are_what_left_lists_first(whole: Start) -> None:
    left = whole().cloud.left()
    assert left[0].type == r.INSTANCE
    assert left[0].costs_by_the_hour
    assert not left[-1].costs_by_the_hour


# A namespace


def test_with_a_namespace_goes_all_in_it_and_its_volumes_are_free(whole: Start) -> None:
    world = whole()
    world.drop("namespace")
    inside = [x for x in world.cloud.left() if x.type.startswith("kubernetes:") and x.id.startswith("serving/")]
    assert inside == []
    world.drop("volume")
    assert world.out("efs"), "what a claim was bound to on EFS is nobody's in the cluster"


def test_a_namespace_is_there_until_its_last_pod_is(whole: Start) -> None:
    world = whole()
    start = world.clock.now()
    world.drop("namespace")
    assert world.clock.now() - start == 61, "workers are given 60 s to finish"


def test_a_namespace_with_a_graph_stays_where_no_operator_removes_its_finalizer(whole: Start) -> None:
    world = whole()
    world.drop("dynamo-platform")
    assert "nvidia.com/finalizer" in world.stuck("namespace")
    assert "not found" in world.refused(
        r.CONFIG_MAP, "new", metadata={"name": "new", "namespace": "serving"}, data={}
    ), "nothing new is accepted in a namespace that goes"


def test_weights_that_are_on_the_file_system_are_not_downloaded_again(before_gpus: Start) -> None:
    world = before_gpus()
    took = []
    for revision in ("one", "one", "two"):
        world.drop("weights")
        env = [{"name": "MODEL_ID", "value": "Qwen/Qwen3-32B"}, {"name": "MODEL_REVISION", "value": revision}]
        start = world.clock.now()
        volume = {"name": "m", "persistentVolumeClaim": {"claimName": "model"}}
        world.job(
            "weights",
            "weights",
            spec={"volumes": [volume], "containers": [{"name": "main", "image": "python:3.12-slim", "env": env}]},
        )
        took.append(world.clock.now() - start)
    assert took[1] < 60 < took[0] == took[2], "the snapshot was verified before: only its sizes are compared"
