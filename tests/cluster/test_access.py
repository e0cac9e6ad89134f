"""RBAC of each service account: enough for its Job, and no more. The Jobs' own scripts run as it against the real API server."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.variants import each_stack
from recipe.plan import Manifest
from rehearsal.cluster import Cluster
from rehearsal.cluster.api import Api, Refused
from rehearsal.cluster.trial import Trial, filled
from tests.cluster.conftest import MakeTrial
from tests.cluster.wrong_graphs import WRONG, changed
from tests.recipe.scripts_support import Ended, Reply, Request, run_job, serve

Rule = tuple[str, str, str, str]
"""Verb, API group, resource, name of an object or ``*``."""


@pytest.fixture(scope="module", params=each_stack(), ids=lambda one: one.stack)
def trial(request: pytest.FixtureRequest, cluster: Cluster, stage: MakeTrial) -> Iterator[Trial]:
    """Namespace, accounts, roles, bindings."""
    made = stage(request.param)
    for manifest in made.objects():
        if manifest["kind"] in ("Namespace", "ServiceAccount", "Role", "RoleBinding"):
            made.add(manifest)
    yield made
    made.clear()


def token(trial: Trial, account: str) -> str:
    path = trial.api.path("v1", "ServiceAccount", trial.namespace, account)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    until = time.monotonic() + 30
    while account == "default" and time.monotonic() < until:  # a controller makes it, some time after the namespace
        try:
            trial.api.call("GET", path)
            break
        except Refused:
            time.sleep(0.1)
    return str(trial.api.call("POST", f"{path}/token", asked)["status"]["token"])


def acting_as(trial: Trial, cluster: Cluster, account: str) -> Api:
    return Api(cluster.kubeconfig, token(trial, account))


def rules(api: Api, namespace: str) -> set[Rule]:
    """What `kubectl auth can-i --list` prints for whoever `api` acts as."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    status = api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)["status"]
    assert not status.get("incomplete")
    return {
        (verb, group, resource, name)
        for rule in status["resourceRules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or ["*"]
    }


def travels(trial: Trial) -> bool:
    """Whether KV goes from pod to pod, between GPUs."""
    return trial.plan.recipe.mode == "disagg" and trial.plan.gpu_pool is not None


def test_each_account_may_do_what_its_job_does_and_nothing_else(trial: Trial, cluster: Cluster) -> None:
    anybody = rules(acting_as(trial, cluster, "default"), trial.namespace)
    graph = trial.plan.names.graph
    expected = {
        trial.plan.objects.admission_account["metadata"]["name"]: {
            ("create", "nvidia.com", "dynamographdeployments", "*")
        },
        trial.plan.objects.readiness_account["metadata"]["name"]: {
            ("get", "nvidia.com", "dynamographdeployments", graph),
            ("list", "", "pods", "*"),
            ("list", "", "events", "*"),
        }
        # Logs may hold prompts: only where they say how KV travels.
        | ({("get", "", "pods/log", "*")} if travels(trial) else set()),
    }
    accounts = {one["metadata"]["name"] for one in trial.objects() if one["kind"] == "ServiceAccount"}
    assert accounts == set(expected), "an account that nobody thought about"
    for account, may in expected.items():
        api = acting_as(trial, cluster, account)
        assert rules(api, trial.namespace) - anybody == may
        assert rules(api, "kube-system") == rules(acting_as(trial, cluster, "default"), "kube-system"), (
            "nothing outside its namespace"
        )


def test_an_account_is_refused_what_its_job_does_not_need(trial: Trial, cluster: Cluster) -> None:
    for account in (trial.plan.objects.admission_account, trial.plan.objects.readiness_account):
        api = acting_as(trial, cluster, account["metadata"]["name"])
        for look in (
            partial(api.list, "v1", "Secret", trial.namespace),
            partial(api.list, "v1", "Node"),
            partial(api.list, "v1", "Pod", "kube-system"),
            partial(api.delete, filled(trial.plan.objects.claims["model"])),
        ):
            with pytest.raises(Refused) as refused:
                look()
            assert refused.value.reason == "Forbidden"


def test_the_benchmarks_account_may_do_nothing_in_the_cluster(cluster: Cluster, stage: MakeTrial) -> None:
    """It is there for the bucket alone, which is AWS' business."""
    made = stage(each_stack()[0], "benchmark.run=fixed", "benchmark.bucket=our-results")
    try:
        for manifest in made.objects():
            if manifest["kind"] in ("Namespace", "ServiceAccount", "Role", "RoleBinding"):
                made.add(manifest)
        account = made.plan.objects.benchmark_account
        assert account is not None
        mine = rules(acting_as(made, cluster, account["metadata"]["name"]), made.namespace)
        assert mine == rules(acting_as(made, cluster, "default"), made.namespace)
    finally:
        made.clear()


# ── the Jobs' own scripts ────────────────────────────────────────────────────────────────────────────────────────────


def run_as_its_account(
    trial: Trial, cluster: Cluster, job: Manifest, config: Manifest, folder: Path, **env: str
) -> Ended:
    """The Job's container, with its account's token, against the real API server."""
    account = folder / "real-account"
    account.mkdir()
    (account / "token").write_text(token(trial, job["spec"]["template"]["spec"]["serviceAccountName"]))
    (account / "namespace").write_text(trial.namespace)
    (account / "ca.crt").write_bytes(_authority(cluster))
    quick = {"RETRY_SECONDS": "0.2", "POLL_SECONDS": "0.2", "ACCESS_GRACE_SECONDS": "0", "DEADLINE_SECONDS": "20"}
    return run_job(
        job, config, folder, **(quick | {"ACCOUNT_DIR": str(account), "KUBERNETES_API": cluster.api.host} | env)
    )


def _authority(cluster: Cluster) -> bytes:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    found = config["clusters"][0]["cluster"]
    if "certificate-authority" in found:
        return Path(found["certificate-authority"]).read_bytes()
    return base64.b64decode(found["certificate-authority-data"])


def test_the_admission_job_as_its_account_accepts_our_graph(trial: Trial, graphs: Cluster, tmp_path: Path) -> None:
    objects = trial.plan.objects
    ended = run_as_its_account(trial, graphs, filled(objects.admission_job), filled(objects.admission_config), tmp_path)
    assert (ended.code, ended.message) == (
        0,
        f"the API server accepts graph {trial.namespace}/{trial.plan.names.graph}",
    ), ended.log
    assert trial.api.read(filled(objects.graph)) is None, "it was a dry run"


def test_the_admission_job_says_what_the_server_says_of_a_wrong_graph(
    trial: Trial, graphs: Cluster, tmp_path: Path
) -> None:
    objects = trial.plan.objects
    config = filled(objects.admission_config)
    for index, (name, change, says) in enumerate(WRONG):
        folder = tmp_path / str(index)
        folder.mkdir()
        wrong = json.dumps(changed(filled(objects.graph), change))
        ended = run_as_its_account(
            trial,
            graphs,
            filled(objects.admission_job),
            config | {"data": {**config["data"], "graph.json": wrong}},
            folder,
        )
        assert ended.code == 1, f"{name}: {ended.log}"
        assert says in ended.message, "what a person reads before GPUs were paid for"


def test_the_readiness_job_as_its_account_sees_graph_pods_and_events(
    trial: Trial, graphs: Cluster, tmp_path: Path
) -> None:
    objects = trial.plan.objects
    graph = filled(objects.graph)
    trial.add(graph)
    status: dict[str, Any] = {
        "state": "successful",
        "observedGeneration": 1,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "all_resources_are_ready",
                "message": "",
                "lastTransitionTime": "2026-11-25T00:00:00Z",
            }
        ],
    }
    trial.api.patch(graph, {"status": status}, "status")
    answers = {
        "/v1/models": {"data": [{"id": trial.plan.model.id}]},
        "/v1/chat/completions": {"choices": [{"message": {"content": "Hello."}}]},
    }

    def frontend(request: Request) -> Reply:
        return Reply(body=answers[request.path])

    with serve(frontend) as server:
        ended = run_as_its_account(
            trial,
            graphs,
            filled(objects.readiness_job),
            filled(objects.readiness_config),
            tmp_path,
            FRONTEND_URL=server.url,
        )
    assert ended.code == 0, ended.log
    assert f"{trial.plan.model.id} answers" in ended.message
