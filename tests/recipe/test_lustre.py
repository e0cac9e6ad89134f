"""The weights on FSx for Lustre: what is refused, what it costs, how long it takes, and the objects that differ."""

from __future__ import annotations

from typing import Any

import pytest

from recipe import catalogue
from recipe.cold_start import compare, knobs, storages
from recipe.config import Base
from recipe.errors import RecipeError
from recipe.lustre import LEAST_FREE, check_room, mb_per_second, seconds_on_lustre
from recipe.plan import Plan
from recipe.planner import make_plan
from recipe.policy import allowed_out, every_violation
from recipe.timeline import timeline
from tests.recipe.samples import MOCKER, STACK, plan, recipe


def on(size_gib: int, throughput: int, **more: Any) -> Plan:
    return plan(**wanted(size_gib, throughput), **more)


def wanted(size_gib: int, throughput: int) -> dict[str, Any]:
    return {"storage__model": {"kind": "fsx-lustre", "size_gib": size_gib, "throughput_mb_per_tib": throughput}}


def refused(**changes: Any) -> dict[str, str]:
    with pytest.raises(RecipeError) as error:
        plan(**changes)
    return {one.path: f"{one.reason} | {one.fix}" for one in error.value.problems}


# ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [1200, 2400, 4800, 240_000])
def test_sizes_that_fsx_has_are_taken(size: int) -> None:
    made = plan(**wanted(size, 125), budget={"usd_per_hour": 10_000, "ttl_hours": 8})
    assert made.storage.lustre is not None
    assert made.storage.lustre.size_gib == size


@pytest.mark.parametrize(("size", "near"), [(1300, "1200 or 2400"), (3600, "2400 or 4800"), (5000, "4800 or 7200")])
def test_a_size_that_fsx_has_not_is_refused_with_those_beside_it(size: int, near: str) -> None:
    (said,) = refused(**wanted(size, 125)).items()
    assert said[0] == "storage.model.size_gib"
    assert near in said[1]


def test_a_size_too_small_for_any_and_a_throughput_of_another_kind_are_refused() -> None:
    assert set(refused(**wanted(600, 300))) == {"storage.model.size_gib", "storage.model.throughput_mb_per_tib"}


def test_neither_size_nor_throughput_has_a_default() -> None:
    found = refused(storage__model={"kind": "fsx-lustre"})
    assert set(found) == {"storage.model.size_gib", "storage.model.throughput_mb_per_tib"}, "both are money"


def test_weights_that_do_not_fit_are_refused_with_the_numbers() -> None:
    lustre = on(1200, 125).storage.lustre
    assert lustre is not None
    most = int(1200 * 2**30 * (1 - LEAST_FREE))
    assert check_room(lustre, "m", most) == []
    (problem,) = check_room(lustre, "m", 2 * most)
    assert "2,160 GiB" in problem.reason
    assert "1,080 GiB" in problem.reason
    assert problem.fix == "at least 2400"


def test_on_a_base_it_is_refused_because_the_caches_are_the_bases() -> None:
    base = Base.model_validate({"kind": "base", "budget": {"usd_per_hour": 5, "ttl_hours": 8}})
    asked = recipe(**wanted(2400, 500), foundation={"kind": "base"}, access={})
    with pytest.raises(RecipeError) as error:
        make_plan(STACK, asked, placeholders=True, base=base)
    (problem,) = error.value.problems
    assert problem.path == "storage.model.kind"
    assert "foundation.kind: created" in problem.fix


def test_an_engine_that_loads_nothing_has_no_use_for_it() -> None:
    assert "storage.model.kind" in refused(**MOCKER, **wanted(1200, 125))


# ── what it takes and costs ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("row", "nodes", "seconds"),
    [
        ("weights.load.streamed", 1, 28),  # EFS' limit of a client is not Lustre's
        ("weights.load.streamed", 2, 56),  # one limit for all nodes
        ("weights.load.default", 2, 528),  # limited by itself
        ("weights.load.default", 40, 1118),
        ("weights.download", 2, 200),  # by the hub, and written once
        ("engine.init", 2, 48),
    ],
)
def test_one_throughput_for_all_nodes(row: str, nodes: int, seconds: float) -> None:
    on_efs = catalogue.duration(row).seconds
    assert seconds_on_lustre(row, on_efs, 65.5e9, mb_per_second(2400, 1000), nodes) == pytest.approx(seconds, abs=0.6)


def test_a_slow_one_holds_up_the_download_as_well() -> None:
    slow = seconds_on_lustre("weights.download", 200, 65.5e9, mb_per_second(1200, 125), 2)
    assert slow == pytest.approx(65.5e3 / 146.5, rel=0.01)


def test_the_timeline_reads_at_its_throughput_and_its_ten_minutes_are_in_the_control_planes_shadow() -> None:
    efs, small, large = timeline(plan()), timeline(on(2400, 500)), timeline(on(4800, 1000))
    loads = [one.seconds_by_row["weights.load.streamed"] for one in (efs, small, large)]
    assert loads == pytest.approx([42, 112, 28], abs=1)
    assert small.steps[-1].end - efs.steps[-1].end == pytest.approx(loads[1] - loads[0])
    assert efs.steps[-1].end - large.steps[-1].end == pytest.approx(loads[0] - loads[2])
    assert "FSx file system" not in {step.name for step in large.critical_path}
    assert not [step.name for step in efs.steps if "FSx" in step.name]
    assert "throughput of the FSx" in large.source("weights.load.streamed")
    assert "FSx" not in large.source("weights.download") + efs.source("weights.load.streamed")


def test_a_download_that_lustre_holds_up_is_shown_also_where_gpu_nodes_come_before_its_end() -> None:
    slow = timeline(on(1200, 125, weights__wait="overlap"))
    assert "head of the weights" in {step.name for step in slow.critical_path}
    assert "node.gpu.ready" in slow.assumptions


def test_it_is_paid_by_the_hour_and_efs_no_longer_by_the_gigabyte() -> None:
    efs, lustre = plan().cost, on(4800, 1000).cost
    assert lustre.usd_per_hour - efs.usd_per_hour == pytest.approx(5.58, abs=0.05)
    assert lustre.usd_once < efs.usd_once / 2
    (line,) = (one for one in lustre.lines if one.what.startswith("FSx"))
    assert line.as_of
    assert "ap-northeast-1" in line.source, "which is said, because it is another region's"


def test_the_knob_says_what_the_other_choice_changes_in_both_directions() -> None:
    (back,) = (one for one in knobs(on(4800, 1000)) if one.key == "storage.model")
    there = [one for one in knobs(plan()) if one.key == "storage.model"]
    assert back.other == "efs"
    assert [one.minutes > 0 for one in there] == [True, False], "the small one is slower than EFS, the large one is not"
    assert back.minutes == pytest.approx(-there[1].minutes)
    assert "$5.58 an hour" in back.why


def test_a_base_is_neither_compared_nor_offered_where_the_planner_would_refuse_it() -> None:
    made = on(7200, 250)
    assert [one.start for one in compare(made)] == ["nothing"]
    assert "foundation.kind" not in {one.key for one in knobs(made)}
    assert any("7,200 GiB at 250" in one.what for one in storages(made)), "its own stands beside the others"


# ── objects ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_the_weights_are_on_it() -> None:
    objects = on(2400, 500).objects
    assert set(objects.volumes) == set(objects.claims) == {"lustre-2400", "compilation", "perf"}
    drivers = {key: volume["spec"]["csi"]["driver"] for key, volume in objects.volumes.items()}
    assert drivers == {"lustre-2400": "fsx.csi.aws.com", "compilation": "efs.csi.aws.com", "perf": "efs.csi.aws.com"}
    assert objects.volumes["lustre-2400"]["spec"]["mountOptions"] == ["flock"], "the hub's client locks what it writes"


def test_volume_claim_and_class_belong_together() -> None:
    objects = on(2400, 500).objects
    volume, claim, made = objects.volumes["lustre-2400"]["spec"], objects.claims["lustre-2400"], objects.lustre_class
    assert made is not None
    assert made["provisioner"] == volume["csi"]["driver"]
    assert claim["spec"]["storageClassName"] == volume["storageClassName"] == made["metadata"]["name"]
    assert claim["spec"]["storageClassName"] != objects.storage_class["metadata"]["name"]
    assert claim["spec"]["volumeName"] == objects.volumes["lustre-2400"]["metadata"]["name"]
    assert claim["spec"]["resources"]["requests"]["storage"] == volume["capacity"]["storage"] == "2400Gi"
    assert plan().objects.lustre_class is None


def test_whoever_mounts_the_weights_mounts_the_claim_on_it() -> None:
    made = on(2400, 500)
    name = made.objects.claims["lustre-2400"]["metadata"]["name"]
    for component in made.objects.graph["spec"]["components"]:
        volumes = {one["name"]: one for one in component["podTemplate"]["spec"]["volumes"]}
        assert volumes[name]["persistentVolumeClaim"]["claimName"] == name
        assert "model-cache" not in volumes


def test_one_container_gives_the_root_to_the_download_and_can_do_nothing_else() -> None:
    spec = on(2400, 500).objects.weights_job["spec"]["template"]["spec"]
    own, install = spec["initContainers"]
    assert own["command"] == ["chown", "1000:1000", "/model-cache"]
    security = own["securityContext"]
    assert (security["runAsUser"], security["runAsNonRoot"]) == (0, False), "the pod says runAsNonRoot"
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert not security["allowPrivilegeEscalation"]
    assert all("runAsUser" not in one.get("securityContext", {}) for one in (install, *spec["containers"]))
    (usual,) = plan().objects.weights_job["spec"]["template"]["spec"]["initContainers"]
    assert usual["name"] == "install", "EFS' access point gives it to the writer"


def test_that_container_is_an_exception_of_the_policy_and_of_no_other_job() -> None:
    job = on(2400, 500).objects.weights_job
    found = list(every_violation([("kubernetes:batch/v1:Job", "weights-job", job)]))
    assert {one.rule for one in found} == {"pod-root", "pod-capability"}
    assert allowed_out(found) == []
    elsewhere = list(every_violation([("kubernetes:batch/v1:Job", "admission-job", job)]))
    assert len(allowed_out(elsewhere)) == 2


def test_a_lustre_with_backups_or_of_another_kind_breaks_the_policy() -> None:
    tags = dict.fromkeys(("project", "stack", "deployment", "owner", "ttl-hours"), "1")
    good: dict[str, Any] = {
        "deploymentType": "PERSISTENT_2",
        "skipFinalBackup": True,
        "automaticBackupRetentionDays": 0,
        "tags": tags,
    }
    kind = "aws:fsx/lustreFileSystem:LustreFileSystem"
    assert list(every_violation([(kind, "x", good)])) == []
    changes: tuple[dict[str, Any], ...] = (
        {"deploymentType": "SCRATCH_2"},
        {"skipFinalBackup": False},
        {"automaticBackupRetentionDays": 7},
        {"tags": {}},
    )
    for change in changes:
        assert len(list(every_violation([(kind, "x", good | change)]))) == 1, change


def test_the_drivers_pods_are_counted_on_the_cpu_nodes() -> None:
    pods = [pod for node in on(2400, 500).placement.cpu_nodes for pod in node.pods]
    assert {"fsx-csi-controller-0", "fsx-csi-controller-1"} <= set(pods)
    assert not [pod for node in plan().placement.cpu_nodes for pod in node.pods if "fsx" in pod]
