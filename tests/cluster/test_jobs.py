"""The Jobs under the real Job controller: they complete, and their failures end as the program expects."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from ops.variants import Variant, each_stack
from recipe.constants import JOB_LABEL
from recipe.plan import Manifest
from rehearsal.cluster import Cluster
from rehearsal.cluster.api import Refused, wait_for
from rehearsal.cluster.trial import Trial, ending_with
from tests.cluster.conftest import MakeTrial

_BACKOFF_SECONDS = 90
"""The controller waits 10, 20, … s between pods."""


def prepared(stage: MakeTrial, variant: Variant, *settings: str) -> Trial:
    """CPU nodes and everything a Job mounts or runs as; no Jobs, no graph."""
    made = stage(variant, *settings)
    made.add_nodes(gpu_count=0)
    for manifest in made.objects():
        if manifest["kind"] not in ("Job", "DynamoGraphDeployment"):
            made.add(manifest)
    return made


@pytest.fixture(scope="module")
def trial(cluster: Cluster, stage: MakeTrial) -> Iterator[Trial]:
    """Of one stack: how a Job fails is the same for all, and some of it takes the controller half a minute."""
    made = prepared(stage, each_stack()[0])
    yield made
    made.clear()


@pytest.fixture
def jobs(trial: Trial) -> list[Manifest]:
    return [one for one in trial.objects() if one["kind"] == "Job"]


def pods_of(trial: Trial, job: Manifest) -> list[Manifest]:
    return trial.api.list("v1", "Pod", trial.namespace, f"batch.kubernetes.io/job-name={job['metadata']['name']}")


@pytest.mark.parametrize("variant", each_stack(), ids=lambda one: one.stack)
def test_every_job_of_every_stack_completes(variant: Variant, cluster: Cluster, stage: MakeTrial) -> None:
    made = prepared(stage, variant)
    try:
        jobs = [one for one in made.objects() if one["kind"] == "Job"]
        for job in jobs:
            made.add(job)
        for job in jobs:
            assert made.job_end(job) == ("Complete", "CompletionsReached"), job["metadata"]["name"]
        assert {job["metadata"]["labels"][JOB_LABEL] for job in jobs} >= {"weights", "admission", "readiness"}
    finally:
        made.clear()


def test_the_job_that_looks_at_the_head_of_the_weights_completes(cluster: Cluster, stage: MakeTrial) -> None:
    """Only there where GPU nodes start before the download has ended."""
    on_gpus = next(one for one in each_stack() if one.gpu)
    made = prepared(stage, on_gpus, "weights.wait=overlap")
    try:
        (job,) = [
            one for one in made.objects() if one["kind"] == "Job" and one["metadata"]["labels"].get(JOB_LABEL) == "head"
        ]
        made.add(job)
        assert made.job_end(job) == ("Complete", "CompletionsReached")
    finally:
        made.clear()


def test_an_answer_that_no_attempt_can_change_fails_the_job_at_its_first_pod(
    trial: Trial, jobs: list[Manifest]
) -> None:
    for job in jobs:
        (rule,) = [r for r in job["spec"]["podFailurePolicy"]["rules"] if r["action"] == "FailJob"]
        failing = ending_with(job, rule["onExitCodes"]["values"][-1])
        trial.add(failing)
        assert trial.job_end(failing) == ("Failed", "PodFailurePolicy"), "another attempt would cost minutes"
        assert len(pods_of(trial, failing)) == 1


def test_a_failure_that_may_pass_is_tried_again_and_then_given_up(trial: Trial, jobs: list[Manifest]) -> None:
    readiness = next(job for job in jobs if job["metadata"]["labels"][JOB_LABEL] == "readiness")
    attempts = readiness["spec"]["backoffLimit"] + 1
    assert attempts > 1
    failing = ending_with(readiness, 137)  # killed: out of memory, or its node went
    trial.add(failing)
    assert trial.job_end(failing, _BACKOFF_SECONDS) == ("Failed", "BackoffLimitExceeded")
    assert len(pods_of(trial, failing)) == attempts


def test_a_job_that_never_ends_is_ended_by_its_deadline(trial: Trial, jobs: list[Manifest]) -> None:
    for job in jobs:
        endless = ending_with(job, "never", activeDeadlineSeconds=1)
        trial.add(endless)
        assert trial.job_end(endless) == ("Failed", "DeadlineExceeded")
        wait_for("its pod to be taken away", lambda endless=endless: not pods_of(trial, endless))  # type: ignore[misc]


def test_a_pod_that_is_evicted_does_not_count_as_an_attempt(trial: Trial, jobs: list[Manifest]) -> None:
    weights = next(job for job in jobs if job["metadata"]["labels"][JOB_LABEL] == "weights")
    running = ending_with(weights, "never", backoffLimit=0)
    running["metadata"]["name"] += "-evicted"
    trial.add(running)
    (pod,) = wait_for(
        "its pod to run", lambda: [p for p in pods_of(trial, running) if p["status"]["phase"] == "Running"] or None
    )
    name, namespace = pod["metadata"]["name"], trial.namespace
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    trial.api.call("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", eviction)

    def successor() -> bool:
        return any(
            one["metadata"]["name"] != name and one["status"]["phase"] == "Running" for one in pods_of(trial, running)
        )

    wait_for("another pod in its place, though no attempt was left", successor)
    assert not (trial.api.read(running) or {})["status"].get("conditions"), (
        "a drained CPU node must not fail a download"
    )


def test_a_job_is_never_changed_in_place(trial: Trial, jobs: list[Manifest]) -> None:
    """Why a Job's name carries a hash of what it runs."""
    job = ending_with(jobs[0], "never")
    job["metadata"]["name"] += "-fixed"
    trial.add(job)
    changed = copy.deepcopy(job)
    changed["spec"]["template"]["spec"]["containers"][0]["image"] += "-other"
    with pytest.raises(Refused, match="field is immutable"):
        trial.api.apply(changed)
