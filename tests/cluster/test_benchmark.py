"""The benchmark on a real API server and scheduler: accepted, beside the graph and not beside its frontend, and handed on when its node is drained."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops.variants import Variant, each_stack
from recipe.constants import JOB_LABEL
from recipe.plan import Manifest
from rehearsal.cluster import Cluster, crd
from rehearsal.cluster.api import wait_for
from rehearsal.cluster.trial import Trial, ending_with, filled
from tests.cluster.conftest import MakeTrial

ASKED = ("benchmark.run=fixed", "benchmark.bucket=our-results")


def job_of(trial: Trial) -> Manifest:
    (job,) = [
        one
        for one in trial.objects()
        if one["metadata"].get("labels", {}).get(JOB_LABEL) == "benchmark" and one["kind"] == "Job"
    ]
    return job


@pytest.mark.parametrize("variant", each_stack(), ids=lambda one: one.stack)
def test_it_is_accepted_and_runs_beside_the_whole_stack(variant: Variant, graphs: Cluster, stage: MakeTrial) -> None:
    trial = stage(variant)
    asked = variant.plan(trial.plan.stack, *ASKED).objects
    try:
        trial.add_nodes()
        trial.add_objects()
        trial.reconcile(trial.graph())
        trial.settled(trial.expected_pods())
        for manifest in (asked.benchmark_account, asked.benchmark_config, asked.benchmark_job):
            assert manifest, "asked for"
            trial.add(ending_with(filled(manifest), "never") if manifest["kind"] == "Job" else manifest)
        pods = trial.settled(trial.expected_pods() + 1)
        assert [f"{pod.name}: {pod.why}" for pod in pods if pod.phase != "Running"] == []
        (measuring,) = [pod for pod in pods if pod.component == "benchmark"]
        assert trial.on_cpu_pool(measuring), "it would take room on nodes at $55 an hour"
        if trial.plan.recipe.engine != "mocker":
            frontends = {pod.node for pod in pods if pod.component.lower() == "frontend"}
            assert measuring.node not in frontends, "it would take the CPU of what it measures"
    finally:
        trial.clear()


@pytest.fixture(scope="module")
def trial(cluster: Cluster, stage: MakeTrial) -> Iterator[Trial]:
    if crd.find() is None:
        pytest.skip(f"the CRD of graphs is not here: {crd.HOW_TO_GET}")
    made = stage(each_stack()[0], *ASKED)
    made.add_nodes(gpu_count=0)
    for manifest in made.objects():
        if manifest["kind"] not in ("Job", "DynamoGraphDeployment"):
            made.add(manifest)
    yield made
    made.clear()


@pytest.mark.parametrize("code", [3, 4, 5, 7, 8])
def test_what_the_script_says_is_final_at_its_first_pod(trial: Trial, code: int) -> None:
    job = ending_with(job_of(trial), code)
    trial.add(job)
    assert trial.job_end(job) == ("Failed", "PodFailurePolicy"), "another attempt would cost minutes of GPUs"


def test_a_drained_node_hands_the_benchmark_on(trial: Trial) -> None:
    job = ending_with(job_of(trial), "never", backoffLimit=0)
    job["metadata"]["name"] += "-evicted"
    trial.add(job)
    selector = f"batch.kubernetes.io/job-name={job['metadata']['name']}"

    def running() -> list[str]:
        found = trial.api.list("v1", "Pod", trial.namespace, selector)
        return [one["metadata"]["name"] for one in found if one["status"]["phase"] == "Running"]

    (first,) = wait_for("its pod to run", lambda: running() or None)
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": first, "namespace": trial.namespace},
    }
    trial.api.call("POST", f"/api/v1/namespaces/{trial.namespace}/pods/{first}/eviction", eviction)
    wait_for("another pod in its place", lambda: [name for name in running() if name != first] or None)
    assert not (trial.api.read(job) or {})["status"].get("conditions"), "an eviction is nobody's failure"
