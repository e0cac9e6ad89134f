"""Inside the pretend cluster: objects, claims, scheduling, Jobs, charts, graphs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rehearsal.cloud import UNKNOWN, CloudError, Fault, Faults
from rehearsal.cloud import rules as r

from .conftest import Start
from .world import World

# ---- the API server


def test_an_object_needs_its_namespace(before_gpus: Start) -> None:
    world = before_gpus()
    assert 'namespaces "other" not found' in world.refused(
        r.CONFIG_MAP, "map", metadata={"name": "map", "namespace": "other"}, data={}
    )


def test_a_name_is_unique_in_its_namespace_and_kind(before_gpus: Start) -> None:
    world = before_gpus()
    assert 'configmaps "graph" already exists' in world.again("graph-map")
    world.kube(r.SECRET, "same-name", "graph", stringData={"a": "b"})


def test_nothing_is_reached_without_a_cluster(empty: World) -> None:
    assert "unreachable" in empty.refused(r.NAMESPACE, "n", metadata={"name": "n"})


def test_a_delete_in_a_cluster_that_is_gone_fails_unless_it_is_told_not_to_mind(whole: Start) -> None:
    world = whole()
    for name in ("gpu", "cpu", "cluster"):
        world.drop(name)
    assert "unreachable" in world.stuck("graph-map")
    world.cloud.configure("kubernetes", {"deleteUnreachable": True})
    world.drop("graph-map")
    assert "unreachable" in world.stuck("dynamo-platform"), "a Release errors all the same"


def test_the_kubeconfig_leads_to_its_cluster_only(before_gpus: Start) -> None:
    world = before_gpus()
    config = {"clusters": [{"cluster": {"server": world.out("cluster")["endpoint"]}}]}
    world.cloud.configure("kubernetes", {"kubeconfig": json.dumps(config)})
    world.kube(r.CONFIG_MAP, "here", "here", data={})
    world.cloud.configure("kubernetes", {"kubeconfig": json.dumps(config).replace("gr7", "gr8")})
    assert "unreachable" in world.refused(r.CONFIG_MAP, "map", metadata={"name": "m", "namespace": "serving"}, data={})


def test_without_bootstrap_right_or_access_entry_the_api_server_knows_nobody(empty: World) -> None:
    empty.network().cluster(
        accessConfig={"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False}
    )
    assert "Unauthorized" in empty.refused(r.NAMESPACE, "n", metadata={"name": "n"})
    principal = {"clusterName": "q", "principalArn": "arn:aws:iam::111122223333:role/admin"}
    policy = {
        "policyArn": "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy",
        "accessScope": {"type": "cluster"},
    }
    assert "must create an access entry" in empty.refused(r.ACCESS_POLICY, "policy", **principal, **policy)
    empty.make(r.ACCESS_ENTRY, "entry", **principal)
    empty.make(r.ACCESS_POLICY, "policy", **principal, **policy)
    empty.make(r.NAMESPACE, "n", metadata={"name": "n"})


# ---- claims


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"storageClassName": "other"}, 'storageclass.storage.k8s.io "other" not found'),
        ({"volumeName": "other"}, "the claim wants volume other"),
        ({"resources": {"requests": {"storage": "200Gi"}}}, "its capacity 100Gi is less than 200Gi"),
        ({"accessModes": ["ReadWriteOncePod"]}, "its access modes are ReadWriteMany"),
    ],
)
def test_a_claim_binds_only_to_a_volume_that_fits(before_gpus: Start, change: dict[str, Any], text: str) -> None:
    world = before_gpus()
    world.drop("claim")
    world.drop("volume")
    world.make(r.PV, "volume", **_volume(world))
    start = world.clock.now()
    why = world.unfinished(lambda: world.claim("claim", **change))
    assert text in why
    assert 300 <= world.clock.now() - start < 302, "the provider watches for five minutes"


def _volume(world: World, handle: str = "") -> dict[str, Any]:
    handle = handle or f"{world.id('efs')}::{world.id('point')}"
    spec = {
        "capacity": {"storage": "100Gi"},
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "q-efs",
        "csi": {"driver": "efs.csi.aws.com", "volumeHandle": handle},
    }
    return {"metadata": {"name": "q-model"}, "spec": spec}


def test_a_claim_does_not_bind_to_an_access_point_that_does_not_exist(before_gpus: Start) -> None:
    world = before_gpus()
    world.drop("claim")
    world.drop("volume")
    world.make(r.PV, "volume", **_volume(world, f"{world.id('efs')}::fsap-0none"))
    assert "there is no access point fsap-0none" in world.unfinished(lambda: world.claim("claim"))


def test_a_volume_of_a_claim_that_is_gone_is_not_bound_again(before_gpus: Start) -> None:
    world = before_gpus()
    world.drop("claim")
    assert "it is Released" in world.unfinished(lambda: world.claim("claim"))


def _rebuild_driver(world: World, *order: str) -> World:
    for name in ("claim", "volume", "efs-csi", "association"):
        world.drop(name)
    role = world.out("efs-role")["arn"]
    for name in order:
        if name == "association":
            world.make(
                r.POD_IDENTITY,
                name,
                clusterName="q",
                namespace="kube-system",
                serviceAccount="efs-csi-controller-sa",
                roleArn=role,
            )
        else:
            world.make(r.ADDON, name, clusterName="q", addonName="aws-efs-csi-driver")
    world.make(r.PV, "volume", **_volume(world))
    return world


@pytest.mark.parametrize("order", [("efs-csi", "association"), ("efs-csi",)])
def test_a_driver_whose_pods_came_before_their_association_binds_nothing(
    before_gpus: Start, order: tuple[str, ...]
) -> None:
    world = _rebuild_driver(before_gpus(), *order)
    assert "must exist before the add-on" in world.unfinished(lambda: world.claim("claim"))


def test_a_driver_whose_association_came_first_binds(before_gpus: Start) -> None:
    world = _rebuild_driver(before_gpus(), "association", "efs-csi")
    assert world.claim("claim")["status"]["phase"] == "Bound"


def test_no_claim_binds_without_a_driver(before_gpus: Start) -> None:
    world = _rebuild_driver(before_gpus(), "association")
    assert "the driver efs.csi.aws.com does not run" in world.unfinished(lambda: world.claim("claim"))


def test_a_pod_cannot_mount_from_another_zone(before_gpus: Start) -> None:
    world = before_gpus()
    world.drop("target")
    world.make(r.MOUNT_TARGET, "target", fileSystemId=world.id("efs"), subnetId=world.id("second"))
    why = world.unfinished(
        lambda: world.job(
            "again", "other", 600, {"volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "model"}}]}
        )
    )
    assert "no mount target of fs-" in why
    assert "us-east-2a" in why


def test_a_claim_in_use_waits_for_its_pods_and_a_bound_volume_for_its_claim(whole: Start) -> None:
    world = whole()
    assert "kubernetes.io/pvc-protection" in world.stuck("claim", 60)
    assert "kubernetes.io/pv-protection" in world.stuck("volume", 60)
    world.drop("graph")
    world.drop("claim")
    world.drop("volume")


# ---- scheduling, Jobs


@pytest.mark.parametrize(
    ("spec", "resources", "text"),
    [
        ({}, {"cpu": "40"}, "0/2 nodes are available: 2 Insufficient cpu."),
        ({}, {"memory": "500Gi"}, "0/2 nodes are available: 2 Insufficient memory."),
        ({"nodeSelector": {"pool": "none"}}, {}, "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."),
        ({}, {"nvidia.com/gpu": "1"}, "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."),
        ({"serviceAccountName": "none"}, {}, 'serviceaccount "none" not found'),
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}]}, {}, 'persistentvolumeclaim "none" not found'),
        ({"volumes": [{"name": "v", "configMap": {"name": "none"}}]}, {}, 'configmap "none" not found'),
    ],
)  # fmt: skip
def test_a_job_that_cannot_run_says_why_in_the_schedulers_words(
    before_gpus: Start, spec: dict[str, Any], resources: dict[str, str], text: str
) -> None:
    world = before_gpus()
    assert text in world.unfinished(lambda: world.job("stuck", "other", 600, spec, **resources))


def test_pods_share_a_node_until_it_is_full(before_gpus: Start) -> None:
    world = before_gpus().gpu_pool().devices()
    frontend = {"replicas": 3}
    world.graph(frontend=frontend)
    world.clock.advance(1)
    placed = world.cloud.store.find(r.DGD, "serving/q", "q")
    assert placed is not None
    assert len(set(placed.extra["placed"].values())) == 4, (
        "eight workers fill two GPU nodes, the frontends are on two CPU nodes"
    )


def test_gpu_taints_keep_everything_else_off(before_gpus: Start) -> None:
    world = before_gpus().gpu_pool()
    why = world.unfinished(lambda: world.job("stuck", "other", 600, {"nodeSelector": {"pool": "gpu"}}))
    assert "2 node(s) had untolerated taint {nvidia.com/gpu: true}" in why


@pytest.mark.parametrize(("error", "text"), [("401", "401 Client Error"), ("disk-full", "No space left on device")])
def test_a_download_that_fails_is_recorded_with_the_reason_and_can_be_made_anew(
    before_gpus: Start, error: str, text: str
) -> None:
    world = before_gpus(Faults(faults=(Fault(type="Job", name_contains="weights", when="after", error=error),)))
    world.drop("weights")
    annotated = {"annotations": {"pulumi.com/replaceUnready": "true"}}
    spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "python"}]}}}

    def work() -> object:
        labels = {"dynamo-recipes/job": "weights"}
        return world.kube(r.JOB, "weights", "q-weights", labels=labels, spec=spec, metadata=annotated)

    assert text in world.unfinished(work)
    typ, made, inputs, outputs = world.made["weights"]
    diff = world.cloud.diff(typ, made, inputs, outputs, inputs)
    assert diff.replaces, "replaceUnready replaces a failed Job though nothing changed"
    assert diff.delete_before_replace
    world.drop("weights")
    work()


def test_a_download_told_to_slow_down_takes_longer_and_completes(before_gpus: Start) -> None:
    world = before_gpus(Faults(faults=(Fault(type="Job", name_contains="weights", when="after", error="429"),)))
    took = []
    for _ in range(2):  # the fault strikes once
        world.drop("weights")
        start = world.clock.now()
        world.weights()
        took.append(world.clock.now() - start)
    assert took[0] == took[1] + 120


def test_a_job_ends_at_its_own_deadline(before_gpus: Start) -> None:
    world = before_gpus()
    pod = {"nodeSelector": {"pool": "none"}, "restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}]}
    spec = {"activeDeadlineSeconds": 120, "template": {"spec": pod}}
    start = world.clock.now()
    assert "DeadlineExceeded" in world.unfinished(lambda: world.kube(r.JOB, "late", "late", spec=spec))
    assert world.clock.now() - start == 120


# ---- charts


def test_a_release_needs_repository_and_version(before_gpus: Start) -> None:
    world = before_gpus()
    failures = world.cloud.check(
        r.RELEASE, "urn::x", None, {"name": "x", "chart": "dynamo-platform", "namespace": "serving"}
    ).failures
    assert [f[0] for f in failures] == ["chart"]


def test_the_platform_waits_for_a_node_its_operator_fits_on(with_cluster: Start) -> None:
    world = with_cluster()
    world.make(r.NAMESPACE, "namespace", metadata={"name": "serving"})
    assert "no nodes available to schedule pods" in world.refused(
        r.RELEASE, "p", name="p", namespace="serving", chart="dynamo-platform", version="1.6.1", repositoryOpts={"repo": "https://x"}, atomic=True
    )  # fmt: skip


def test_a_second_platform_is_refused(before_gpus: Start) -> None:
    world = before_gpus()
    why = world.refused(
        r.RELEASE,
        "p",
        name="p",
        namespace="serving",
        chart="dynamo-platform",
        version="1.6.1",
        repositoryOpts={"repo": "https://x"},
    )
    assert "only one cluster-wide dynamo-operator" in why


# ---- graphs


def test_a_graph_needs_the_crds_the_operator_brings(with_cluster: Start) -> None:
    world = with_cluster()
    world.make(r.NAMESPACE, "namespace", metadata={"name": "serving"})
    assert 'no matches for kind "DynamoGraphDeployment"' in world.refused(r.DGD, "graph", **world.graph_object())


@pytest.mark.parametrize(
    ("component", "text"),
    [
        ({"type": "server"}, "Unsupported value: 'server'"),
        ({"name": "a.b"}, "Invalid value: 'a.b'"),
        ({"replicas": -1}, "greater than or equal to 0"),
        (
            {"podTemplate": {"spec": {"containers": [{"name": "worker", "image": "x:1.0.0"}]}}},
            'a container named "main" is required',
        ),
        (
            {"podTemplate": {"spec": {"containers": [{"name": "main", "image": "vllm-runtime:latest"}]}}},
            "not a semantic version",
        ),
        ({"minAvailable": 1}, "needs Grove"),
        ({"name": "DECODE"}, "Duplicate value: 'decode'"),
    ],
)
def test_admission_refuses_what_the_webhook_would(before_gpus: Start, component: dict[str, Any], text: str) -> None:
    world = before_gpus()
    assert text in world.refused(r.DGD, "graph", **world.graph_object(prefill=component))


def test_the_admission_job_finds_it_before_a_gpu_is_paid_for(before_gpus: Start) -> None:
    world = before_gpus()
    for name in ("admission", "graph-map"):
        world.drop(name)
    why = world.unfinished(lambda: world.admission(world.graph_object(prefill={"pvcs": []})))
    assert 'unknown field "spec.components[1].pvcs"' in why
    assert world.cloud.gpu_time().node_minutes == 0


def test_a_refusal_by_fault_meets_the_dry_run_too(before_gpus: Start) -> None:
    world = before_gpus(Faults(faults=(Fault(type="DynamoGraphDeployment", error="denied by policy", times=None),)))
    world.drop("admission")
    world.drop("graph-map")
    assert "denied by policy" in world.unfinished(world.admission)


def test_a_graph_says_what_is_missing_and_becomes_ready_when_it_is_there(before_gpus: Start) -> None:
    world = before_gpus().graph()
    world.clock.advance(1)
    assert "0/2 nodes are available" in world.out("graph")["status"]["conditions"][0]["message"]
    world.gpu_pool()
    assert "4 Insufficient nvidia.com/gpu" in world.out("graph")["status"]["conditions"][0]["message"], "no plugin yet"
    world.devices()
    assert world.out("graph")["status"]["state"] == "pending"
    world.clock.advance(3600)
    assert world.out("graph")["status"]["state"] == "successful"
    assert world.out("graph")["status"]["conditions"][0]["status"] == "True"


def test_a_graph_with_too_many_workers_stays_pending_and_readiness_fails_at_once(before_gpus: Start) -> None:
    world = before_gpus().gpu_pool().devices().graph(prefill={"replicas": 7})
    start = world.clock.now()
    why = world.unfinished(world.readiness)
    assert "Insufficient nvidia.com/gpu" in why
    assert "Insufficient vpc.amazonaws.com/efa" in why
    assert world.clock.now() - start < 120, "not after a timeout at the price of the GPUs"


@pytest.mark.parametrize(
    ("error", "text"),
    [("failed", "failed"), ("ImagePullBackOff", "ImagePullBackOff"), ("CrashLoopBackOff", "CrashLoopBackOff")],
)
def test_readiness_fails_at_once_with_the_graphs_reason(before_gpus: Start, error: str, text: str) -> None:
    world = (
        before_gpus(Faults(faults=(Fault(type="DynamoGraphDeployment", when="after", error=error),)))
        .gpu_pool()
        .devices()
        .graph()
    )
    start = world.clock.now()
    assert text in world.unfinished(world.readiness)
    assert world.clock.now() - start < 120


def test_a_graph_is_not_awaited_unless_it_says_so(before_gpus: Start) -> None:
    world = before_gpus().gpu_pool().devices()
    start = world.clock.now()
    world.graph()
    assert world.clock.now() - start <= 1
    world.drop("graph")
    graph = world.graph_object()
    graph["metadata"]["annotations"]["pulumi.com/waitFor"] = "condition=Ready"
    start = world.clock.now()
    world.make(r.DGD, "graph", 3600, **graph)
    assert world.clock.now() - start > 120, "it waited for images and weights"


def test_workers_crash_on_a_snapshot_that_is_not_complete(before_gpus: Start) -> None:
    world = before_gpus(Faults(faults=(Fault(type="Job", when="after", error="401"),)))
    world.drop("weights")
    world.unfinished(world.weights)
    world.gpu_pool().devices().graph()
    assert "snapshot is not complete" in world.unfinished(world.readiness)


def test_a_missing_secret_keeps_the_graph_pending(before_gpus: Start) -> None:
    world = before_gpus().gpu_pool().devices()
    graph = world.graph_object()
    container = graph["spec"]["components"][1]["podTemplate"]["spec"]["containers"][0]
    container["envFrom"] = [{"secretRef": {"name": "token"}}]
    world.make(r.DGD, "graph", **graph)
    assert 'secret "token" not found' in world.unfinished(world.readiness)


def test_topology_is_immutable_and_replicas_are_not(whole: Start) -> None:
    world = whole()
    graph = world.graph_object()
    fewer = graph | {"spec": graph["spec"] | {"components": graph["spec"]["components"][:2]}}
    with pytest.raises(CloudError, match="component topology is immutable"):
        world.change("graph", **fewer)
    scaled = world.graph_object(prefill={"replicas": 4})
    world.change("graph", **scaled)
    world.clock.advance(3600)
    assert world.out("graph")["status"]["state"] == "successful"


def test_a_graph_whose_operator_went_first_never_goes(whole: Start) -> None:
    world = whole()
    world.drop("dynamo-platform")
    start = world.clock.now()
    assert "finalizers [nvidia.com/finalizer]: no operator is there to remove them" in world.stuck("graph", 300)
    assert world.clock.now() - start == 300
    assert "nvidia.com/finalizer" in world.stuck("namespace", 300), "and so its namespace does not go either"


def test_background_deletion_does_not_wait_for_the_pods(whole: Start) -> None:
    world = whole()
    start = world.clock.now()
    world.drop("graph")
    background = world.clock.now() - start
    graph = world.graph_object()
    graph["metadata"]["annotations"] = {}
    world.make(r.DGD, "graph", **graph)
    start = world.clock.now()
    world.drop("graph")
    assert world.clock.now() - start == background + 60, "foreground is the provider's default, and waits"


def test_a_preview_stores_nothing_and_knows_only_what_was_given(before_gpus: Start) -> None:
    world = before_gpus()
    before = len(world.cloud.left())
    made, outputs = world.cloud.create(
        r.CLUSTER, "urn::c", {"name": "x", "roleArn": UNKNOWN, "vpcConfig": {}}, preview=True, timeout_s=None
    )
    assert made == ""
    assert outputs["name"] == "x"
    assert outputs["endpoint"] is UNKNOWN
    assert outputs["vpcConfig"]["clusterSecurityGroupId"] is UNKNOWN
    assert len(world.cloud.left()) == before
