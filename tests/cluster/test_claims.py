"""Claims and volumes under the real controllers: each binds to its own, and goes after its users."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from ops.variants import each_stack
from recipe.plan import Manifest
from rehearsal.cluster import Cluster
from rehearsal.cluster.api import wait_for
from rehearsal.cluster.trial import Trial, ending_with, filled
from tests.cluster.conftest import MakeTrial


@pytest.fixture(params=each_stack(), ids=lambda one: one.stack)
def trial(request: pytest.FixtureRequest, cluster: Cluster, stage: MakeTrial) -> Iterator[Trial]:
    """Class, volumes and claims, bound; CPU nodes."""
    made = stage(request.param)
    made.add_nodes(gpu_count=0)
    for manifest in made.objects():
        if manifest["kind"] in ("Namespace", "StorageClass", "PersistentVolume", "PersistentVolumeClaim"):
            made.add(manifest)
    yield made
    made.clear()


def phase(trial: Trial, manifest: Manifest) -> str | None:
    held = trial.api.read(manifest)
    return None if held is None else held.get("status", {}).get("phase")


def test_each_claim_binds_to_the_volume_on_its_own_access_point(trial: Trial) -> None:
    for purpose, manifest in trial.plan.objects.claims.items():
        claim = filled(manifest)
        wait_for(f"claim {purpose}", lambda claim=claim: phase(trial, claim) == "Bound")  # type: ignore[misc]
        held = trial.api.read(claim)
        assert held is not None
        volume = filled(trial.plan.objects.volumes[purpose])
        assert held["spec"]["volumeName"] == volume["metadata"]["name"]
        assert phase(trial, volume) == "Bound"
        assert f"fsap-{purpose}" in volume["spec"]["csi"]["volumeHandle"]


def test_the_claim_on_lustre_binds_and_the_download_with_its_root_container_is_accepted(
    cluster: Cluster, stage: MakeTrial
) -> None:
    assert cluster
    variant = next(one for one in each_stack() if one.stack == "qwen3-32b-disagg")
    trial = stage(variant, "storage.model={kind: fsx-lustre, size_gib: 2400, throughput_mb_per_tib: 500}")
    try:
        trial.add_nodes(gpu_count=0)
        objects = trial.plan.objects
        for manifest in trial.objects():
            if manifest["kind"] in ("Namespace", "StorageClass", "PersistentVolume", "PersistentVolumeClaim"):
                trial.add(manifest)
        claim, volume = filled(objects.claims["lustre-2400"]), filled(objects.volumes["lustre-2400"])
        wait_for("the claim on Lustre", lambda: phase(trial, claim) == "Bound")
        held = trial.api.read(volume)
        assert held is not None
        assert held["spec"]["csi"]["volumeAttributes"]["mountname"] == "abcdefgh"
        assert held["spec"]["mountOptions"] == ["flock"]
        trial.add(filled(objects.weights_config))
        trial.add(ending_with(filled(objects.weights_job), "never"))
        wait_for("the download to run", lambda: any(pod.phase == "Running" for pod in trial.pods()))
    finally:
        trial.clear()


def test_a_claim_of_somebody_else_gets_none_of_our_volumes(trial: Trial) -> None:
    """A class of the stack's own: an unbound volume of it is taken by nobody who does not ask for that class."""
    spare = copy.deepcopy(filled(trial.plan.objects.volumes["perf"]))
    spare["metadata"]["name"] += "-spare"
    trial.add(spare)
    other = copy.deepcopy(filled(trial.plan.objects.claims["perf"]))
    other["metadata"]["name"] = "somebody-elses"
    del other["spec"]["volumeName"]
    other["spec"]["storageClassName"] = "some-other-class"
    trial.add(other)
    ours = copy.deepcopy(other)
    ours["metadata"]["name"] = "one-more-of-ours"
    ours["spec"]["storageClassName"] = spare["spec"]["storageClassName"]
    trial.add(ours)
    wait_for("the binder to have passed", lambda: phase(trial, ours) == "Bound")
    assert phase(trial, other) == "Pending"


def test_a_claim_in_use_goes_only_after_its_users_and_leaves_the_data(trial: Trial) -> None:
    config, job = filled(trial.plan.objects.weights_config), filled(trial.plan.objects.weights_job)
    trial.add(config)
    endless = ending_with(job, "never")
    trial.add(endless)
    wait_for("the download to run", lambda: any(pod.phase == "Running" for pod in trial.pods()))
    claim, volume = filled(trial.plan.objects.claims["model"]), filled(trial.plan.objects.volumes["model"])
    trial.api.delete(claim)
    held = trial.api.read(claim)
    assert held is not None, "a claim must not go under the pods that write to it"
    assert "kubernetes.io/pvc-protection" in held["metadata"]["finalizers"]
    trial.api.delete(endless)
    wait_for("the claim to go after its last user", lambda: trial.api.read(claim) is None)
    wait_for("the volume to be released", lambda: phase(trial, volume) == "Released")
    assert trial.api.read(volume) is not None, "reclaim policy Retain: what is on the file system stays"


def test_a_volume_bound_to_a_claim_does_not_go_before_it(trial: Trial) -> None:
    claim, volume = filled(trial.plan.objects.claims["perf"]), filled(trial.plan.objects.volumes["perf"])
    wait_for("the claim to be bound", lambda: phase(trial, claim) == "Bound")
    trial.api.delete(volume)
    held = trial.api.read(volume)
    assert held is not None
    assert "kubernetes.io/pv-protection" in held["metadata"]["finalizers"]
    trial.api.delete(claim)
    wait_for("both to be gone", lambda: trial.api.read(claim) is None and trial.api.read(volume) is None)
