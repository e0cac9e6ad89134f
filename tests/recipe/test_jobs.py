"""Jobs and caches as Kubernetes runs and binds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recipe import catalogue
from recipe.constants import CPU_POOL, JOB_LABEL, POOL_LABEL, STACK_LABEL
from recipe.plan import Late, Manifest, Objects
from recipe.weights import snapshot_path
from tests.recipe.samples import plan

JOBS = ("weights_job", "admission_job", "readiness_job")


def objects(**changes: Any) -> Objects:
    return plan(**changes).objects


def pod(job: Manifest) -> Manifest:
    spec: Manifest = job["spec"]["template"]["spec"]
    return spec


def env(job: Manifest) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in pod(job)["containers"][0]["env"]}


def names(**changes: Any) -> dict[str, str]:
    made = objects(**changes)
    return {job: getattr(made, job)["metadata"]["name"] for job in JOBS}


# ── a Job's name says what it ran with ───────────────────────────────────────────────────────────────────────────────


def test_the_same_recipe_gives_the_same_jobs() -> None:
    assert names() == names(), "otherwise every `up` would download and wait again"


@pytest.mark.parametrize(
    ("change", "renewed"),
    [
        ({"weights__revision": "0" * 40}, {"weights_job", "admission_job", "readiness_job"}),
        ({"weights__memory_gib": 32}, {"weights_job"}),
        ({"workers__prefill__replicas": 4, "budget__usd_per_hour": 1000}, {"admission_job", "readiness_job"}),
        ({"serving__ready_timeout_minutes": 50}, {"readiness_job"}),
        ({"owner": "somebody"}, set[str]()),
    ],
)
def test_a_job_runs_again_exactly_when_what_it_depends_on_changes(change: dict[str, Any], renewed: set[str]) -> None:
    before, after = names(), names(**change)
    assert {job for job in JOBS if before[job] != after[job]} == renewed


@pytest.mark.parametrize("job", JOBS)
def test_each_job_runs_its_script_from_its_own_config_map(job: str) -> None:
    made = objects()
    manifest: Manifest = getattr(made, job)
    config: Manifest = getattr(made, job.replace("_job", "_config"))
    volume = next(volume for volume in pod(manifest)["volumes"] if volume["name"] == "scripts")["configMap"]
    assert volume["name"] == config["metadata"]["name"]
    assert {item["key"] for item in volume["items"]} == set(config["data"]), "a file left out fails at its import"
    module = pod(manifest)["containers"][0]["command"][-1]
    assert module.replace(".", "/") + ".py" in {item["path"] for item in volume["items"]}


# ── what every Job has ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("job", JOBS)
def test_jobs_run_on_the_cpu_pool_without_root(job: str) -> None:
    manifest: Manifest = getattr(objects(), job)
    assert pod(manifest)["nodeSelector"] == {POOL_LABEL: CPU_POOL, STACK_LABEL: plan().names.prefix}
    assert "tolerations" not in pod(manifest), "a GPU node is not for this"
    assert pod(manifest)["securityContext"]["runAsNonRoot"] is True
    for container in [*pod(manifest).get("initContainers", []), *pod(manifest)["containers"]]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["image"] == catalogue.JOB_IMAGE
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("job", JOBS)
def test_a_script_has_time_to_say_why_before_kubernetes_ends_it(job: str) -> None:
    manifest: Manifest = getattr(objects(), job)
    assert manifest["spec"]["activeDeadlineSeconds"] > int(env(manifest)["DEADLINE_SECONDS"])


@pytest.mark.parametrize("job", JOBS)
def test_what_no_attempt_mends_is_not_attempted_again(job: str) -> None:
    spec = getattr(objects(), job)["spec"]
    rules = {rule["action"]: rule for rule in spec["podFailurePolicy"]["rules"]}
    assert {2, 3} <= set(rules["FailJob"]["onExitCodes"]["values"])
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "podFailurePolicy is refused with anything else"
    assert "Ignore" in rules, "a drained node is no failure"


@pytest.mark.parametrize("job", JOBS)
def test_jobs_do_not_delete_themselves_and_a_failed_one_is_made_anew(job: str) -> None:
    manifest: Manifest = getattr(objects(), job)
    assert "ttlSecondsAfterFinished" not in manifest["spec"], "the next refresh would miss it and run it again"
    assert manifest["metadata"]["annotations"]["pulumi.com/replaceUnready"] == "true"


def test_every_object_carries_the_stack_and_fits_its_name() -> None:
    planned = plan(stack="a-stack-name-of-forty-characters-exactly")
    for manifest in planned.objects.all():
        assert manifest["metadata"]["labels"][STACK_LABEL] == planned.names.prefix
        limit = 63 if manifest["kind"] in {"Namespace", "Job", "DynamoGraphDeployment"} else 253
        assert len(manifest["metadata"]["name"]) <= limit
        assert "." not in manifest["metadata"]["name"]
    for job in JOBS:
        manifest = getattr(planned.objects, job)
        assert manifest["metadata"]["labels"][JOB_LABEL] == job.removesuffix("_job")
        assert manifest["spec"]["template"]["metadata"]["labels"][JOB_LABEL] == job.removesuffix("_job")


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_download_ends_where_the_workers_look() -> None:
    planned = plan()
    given = env(planned.objects.weights_job)
    assert snapshot_path(given["HF_HOME"], given["MODEL_ID"], given["MODEL_REVISION"]) == planned.model.snapshot_path
    mounts = {mount["mountPath"]: mount for mount in pod(planned.objects.weights_job)["containers"][0]["volumeMounts"]}
    assert not mounts[given["HF_HOME"]].get("readOnly")


def test_the_fast_mode_needs_the_memory_for_its_buffers() -> None:
    assert env(objects().weights_job)["HF_XET_HIGH_PERFORMANCE"] == "1"
    smaller = objects(weights__memory_gib=16).weights_job
    assert env(smaller)["HF_XET_HIGH_PERFORMANCE"] == "0"
    assert pod(smaller)["containers"][0]["resources"]["limits"]["memory"] == "16Gi"


def test_the_token_is_only_a_reference_and_only_where_asked_for() -> None:
    without, asked = objects(), objects(weights__token=True)
    assert without.token_secret is None
    assert "envFrom" not in pod(without.weights_job)["containers"][0], "a missing Secret would hold the pod back"
    assert asked.token_secret is not None
    assert asked.token_secret["stringData"] == {"HF_TOKEN": Late.HF_TOKEN}
    (source,) = pod(asked.weights_job)["containers"][0]["envFrom"]
    assert source["secretRef"]["name"] == asked.token_secret["metadata"]["name"]
    elsewhere = [manifest for manifest in asked.all() if manifest["kind"] != "Secret"]
    assert Late.HF_TOKEN not in json.dumps(elsewhere)


def test_the_download_jobs_packages_are_pinned_by_hash_to_the_catalogues_version() -> None:
    lines = objects().weights_config["data"]["requirements.txt"].splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert all("==" in line and "--hash=sha256:" in line for line in packages)
    assert any(line.startswith(f"huggingface-hub=={catalogue.HUGGINGFACE_HUB} ") for line in packages)
    assert "--require-hashes" in pod(objects().weights_job)["initContainers"][0]["args"]


# ── rights ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("purpose", ["admission", "readiness"])
def test_the_account_of_a_job_is_the_one_its_role_is_bound_to(purpose: str) -> None:
    made = objects()
    account, role, binding = (getattr(made, f"{purpose}_{part}") for part in ("account", "role", "binding"))
    assert pod(getattr(made, f"{purpose}_job"))["serviceAccountName"] == account["metadata"]["name"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"][0]["name"] == account["metadata"]["name"]
    assert binding["subjects"][0]["namespace"] == account["metadata"]["namespace"]


def test_jobs_may_do_only_what_their_scripts_do() -> None:
    made = objects()
    (create,) = made.admission_role["rules"]
    assert create["verbs"] == ["create"]
    assert create["resources"] == ["dynamographdeployments"]
    verbs = {verb for rule in made.readiness_role["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "list"}, "it watches; it changes nothing"
    assert pod(made.weights_job)["automountServiceAccountToken"] is False


def test_the_admission_job_posts_exactly_the_graph_that_is_created() -> None:
    made = objects()
    assert json.loads(made.admission_config["data"]["graph.json"]) == made.graph


# ── caches ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_claim_binds_only_to_its_own_volume() -> None:
    made = objects()
    for purpose, claim in made.claims.items():
        volume = made.volumes[purpose]
        assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
        assert (
            claim["spec"]["storageClassName"]
            == volume["spec"]["storageClassName"]
            == made.storage_class["metadata"]["name"]
        )
        assert claim["spec"]["accessModes"] == volume["spec"]["accessModes"] == ["ReadWriteMany"]
        assert volume["spec"]["csi"]["volumeHandle"] == f"{Late.FILE_SYSTEM}::{Late.access_point(purpose)}"
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain", "access points are Pulumi's to delete"
    assert made.storage_class["volumeBindingMode"] == "Immediate", "Pulumi waits for Bound before any pod asks"


def test_two_stacks_on_one_cluster_share_no_cluster_wide_name() -> None:
    def cluster_wide(**changes: Any) -> set[str]:
        made = objects(**changes)
        return {
            made.storage_class["metadata"]["name"],
            *(volume["metadata"]["name"] for volume in made.volumes.values()),
        }

    assert not cluster_wide() & cluster_wide(deployment_id="other")


def test_pods_use_only_claims_that_exist() -> None:
    made = objects()
    claims = {claim["metadata"]["name"] for claim in made.claims.values()}
    specs = [pod(getattr(made, job)) for job in JOBS]
    specs += [component["podTemplate"]["spec"] for component in made.graph["spec"]["components"]]
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for spec in specs
        for volume in spec["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert used <= claims


def test_the_scripts_in_the_config_maps_are_the_files_of_the_repository() -> None:
    folder = Path(__file__).parents[2] / "recipe/scripts"
    made = objects()
    for config in (made.weights_config, made.admission_config, made.readiness_config):
        for name, text in config["data"].items():
            if name.endswith(".py"):
                assert text == (folder / name).read_text()
        assert len(json.dumps(config)) < 1_000_000, "a ConfigMap holds 1 MiB"
