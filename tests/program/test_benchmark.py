"""The benchmark in the program: created only where asked for, measured last, and a bucket that a destroy leaves alone."""

from __future__ import annotations

import json

import pytest

from recipe.benchmark import ACCOUNT
from tests.program.conftest import changed
from tests.program.recorder import STACKS, Run, run_program

STACK = "qwen3-32b-disagg"


@pytest.fixture(scope="module")
def measured() -> Run:
    return run_program(STACK, changed(benchmark={"run": "small", "bucket": "create"}))


@pytest.fixture(scope="module")
def with_bucket_only() -> Run:
    return run_program(STACK, changed(benchmark={"bucket": "create"}))


@pytest.fixture(scope="module")
def into_a_given_one() -> Run:
    return run_program(STACK, changed(benchmark={"run": "small", "bucket": "our-results"}))


OURS = ("dynamo-recipes:benchmark:Benchmark", "dynamo-recipes:benchmark:Results")


def test_no_stack_creates_any_of_it_by_itself(run: Run) -> None:
    assert not run.of(*OURS)
    assert not run.of("aws:s3/bucket:Bucket", "aws:iam/rolePolicy:RolePolicy")
    for path in STACKS.values():
        assert "benchmark:\n      run" not in path.read_text(), "a shipped stack must not measure on every first `up`"


def test_it_is_measured_when_the_graph_has_proved_that_it_serves(measured: Run) -> None:
    behind = measured.behind(measured.named("benchmark-job"))
    assert {"serving-ready", "serving-graph", "weights-job", "caches-perf-claim", "benchmark-config"} <= behind
    assert {"results-identity", "results-put", "results-bucket"} <= behind, "the Job would find no way into its bucket"


def test_gpu_nodes_do_not_wait_for_it(measured: Run) -> None:
    for name in ("gpu-nodes", "serving-graph", "serving-ready"):
        assert not any(one.startswith(("benchmark", "results")) for one in measured.behind(measured.named(name)))


def test_the_job_may_put_results_below_its_prefix_and_nothing_else(measured: Run) -> None:
    assert measured.plan.bucket
    (statement,) = json.loads(measured.named("results-put").inputs["policy"])["Statement"]
    assert statement["Action"] == ["s3:PutObject"]
    assert statement["Resource"] == [f"arn:aws:s3:::{measured.plan.bucket.name}/dynamo-recipes/{STACK}/*"]
    association = measured.named("results-identity").inputs
    assert (association["namespace"], association["serviceAccount"]) == (STACK, ACCOUNT)
    job = measured.named("benchmark-job").inputs["spec"]["template"]["spec"]
    assert job["serviceAccountName"] == ACCOUNT
    trust = json.loads(measured.named("results-role").inputs["assumeRolePolicy"])["Statement"][0]["Principal"]
    assert trust == {"Service": "pods.eks.amazonaws.com"}


def test_a_bucket_of_its_own_is_closed_and_kept(measured: Run) -> None:
    bucket, closed = measured.only("aws:s3/bucket:Bucket"), measured.named("results-private")
    assert bucket.retained, "a destroy would take the results away, or stop at a bucket that is not empty"
    assert closed.retained, "and what stays would be open"
    keys = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    assert all(closed.inputs[key] is True for key in keys)
    assert measured.plan.tags.items() <= bucket.inputs["tags"].items(), "whose is it, years later?"
    assert not bucket.deleted_with


def test_nothing_else_is_kept(measured: Run) -> None:
    assert {one.name for one in measured.custom if one.retained} == {"results-bucket", "results-private"}


def test_between_two_benchmarks_the_bucket_stays_and_the_way_in_goes(with_bucket_only: Run) -> None:
    assert {one.name for one in with_bucket_only.custom if one.name.startswith(("results", "benchmark"))} == {
        "results-bucket",
        "results-private",
    }


def test_a_given_bucket_is_only_written_to(into_a_given_one: Run) -> None:
    assert not into_a_given_one.of("aws:s3/bucket:Bucket")
    (statement,) = json.loads(into_a_given_one.named("results-put").inputs["policy"])["Statement"]
    assert statement["Resource"] == [f"arn:aws:s3:::our-results/dynamo-recipes/{STACK}/*"]


def test_pulumi_waits_longer_than_the_job_measures(measured: Run) -> None:
    job = measured.named("benchmark-job")
    assert int(job.timeouts["create"].removesuffix("s")) > job.inputs["spec"]["activeDeadlineSeconds"]


@pytest.mark.parametrize("which", ["measured", "with_bucket_only", "into_a_given_one"])
def test_what_holds_for_every_resource_holds_for_these(which: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(which)
    components = {one.urn for one in run.components}
    for one in run.custom:
        assert one.parent in components, one.name
        if one.type.startswith("aws:iam/role:"):
            assert one.inputs["name"] in set(run.plan.names.model_dump().values())
        if one in run.in_cluster and "helm.sh" not in one.type:
            assert one.deleted_with, f"{one.name}: a finalizer or a lost kubeconfig could hold up the destroy"
        else:
            assert not one.deleted_with, f"{one.name} would be forgotten without being deleted"
    for one in run.components:
        assert run.finished.count(one.urn) == 1


def test_on_a_base_the_way_into_the_bucket_is_the_stacks_own() -> None:
    """The base's cluster, this stack's role, namespace and bucket; all of it goes with the stack, but the bucket."""
    run = run_program(STACK, changed(foundation={"kind": "base"}, benchmark={"run": "small", "bucket": "create"}))
    association, role = run.named("results-identity"), run.named("results-role")
    assert association.inputs["namespace"] == run.plan.names.namespace
    assert association.inputs["clusterName"] != role.inputs["name"], "the cluster is the base's"
    assert role.inputs["name"] == run.plan.names.benchmark_role
    namespace = run.named("caches-namespace").urn
    for name in ("benchmark-job", "benchmark-config", "benchmark-account"):
        assert run.named(name).deleted_with == namespace
    assert run.named("results-bucket").retained
