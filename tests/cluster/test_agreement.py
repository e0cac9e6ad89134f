"""The pretend Kubernetes of the rehearsal, held against a real control plane: the same objects through both end the same.

What only the operator's webhook or AWS would say is left out here: no operator runs, and nobody has an account.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.variants import Variant, by_hand, each_stack
from recipe.plan import Manifest
from rehearsal.cloud import Fault, Faults, graphs
from rehearsal.cluster import Cluster
from rehearsal.cluster.api import Refused, wait_for
from rehearsal.cluster.trial import Trial, ending_with, filled
from tests.cluster.conftest import MakeTrial
from tests.cluster.pretended import Pretended, refusal
from tests.cluster.wrong_graphs import WRONG, changed

every_stack = pytest.mark.parametrize("variant", each_stack(), ids=lambda one: one.stack)

# ── the stack as it is ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("variant", "missing"),
    # Without GPU nodes there is none to be missing.
    [(one, missing) for one in by_hand() for missing in (0, 1) if one.gpu or not missing],
    ids=lambda value: ("all-nodes", "one-gpu-node-too-few")[value] if isinstance(value, int) else str(value),
)
def test_both_place_the_same_and_leave_the_same_waiting(
    variant: Variant, missing: int, graphs: Cluster, stage: MakeTrial, tmp_path: Path
) -> None:
    trial = stage(variant)
    plan = trial.plan
    count = plan.gpu_pool.count - missing if plan.gpu_pool else 0
    try:
        trial.add_nodes(gpu_count=count)
        trial.add_objects()
        workers = sorted(plan.workers, key=lambda worker: (-worker.gpus, worker.replicas))
        trial.reconcile(trial.graph(), [worker.component for worker in workers])
        components = {component["name"] for component in plan.objects.graph["spec"]["components"]}
        found = [pod for pod in trial.settled(trial.expected_pods()) if pod.component in components]
        real = Counter(pod.component for pod in found if pod.node), Counter(p.component for p in found if not p.node)
        why = {pod.why for pod in found if not pod.node}
        pretended = Pretended(tmp_path, plan, gpu_count=count)
        for manifest in plan.objects.all():
            # Readiness would wait for what never comes.
            if manifest is not plan.objects.readiness_job:
                assert refusal(lambda manifest=manifest: pretended.create(pretended.filled(manifest))) is None  # type: ignore[misc]
        pretended.world.clock.advance(60)
        assert pretended.pods_by_component() == real
        for purpose, claim in plan.objects.claims.items():
            held = trial.api.read(claim)
            assert held is not None
            assert held["status"]["phase"] == pretended.status(claim) == "Bound", purpose
        said = pretended.world.out(f"DynamoGraphDeployment-{plan.names.graph}")["status"]["conditions"][0]["message"]
        for message in why:
            reason = next(
                part for part in message.split(": ", 1)[1].split(", ") if "Insufficient" in part or "match" in part
            )
            assert _words(reason) in said, f"the scheduler says {message!r}, the pretender {said!r}"
    finally:
        trial.clear()


def _words(reason: str) -> str:
    """`2 Insufficient nvidia.com/gpu` without the count, and without what comes after the reason."""
    return reason.split(" ", 1)[1].split(". ")[0].rstrip(".")


@every_stack
def test_jobs_complete_in_both(variant: Variant, graphs: Cluster, stage: MakeTrial, tmp_path: Path) -> None:
    trial = stage(variant)
    try:
        trial.add_nodes(gpu_count=0)
        trial.add_objects(graph=False, jobs_end=True)
        pretended = Pretended(tmp_path, trial.plan)
        pretended.add_objects()
        for manifest in trial.plan.objects.all():
            if manifest["kind"] == "Job":
                assert trial.job_end(filled(manifest))[0] == pretended.status(pretended.filled(manifest)) == "Complete"
    finally:
        trial.clear()


def test_jobs_fail_in_both_with_the_same_reason(cluster: Cluster, stage: MakeTrial, tmp_path: Path) -> None:
    variant = each_stack()[0]
    trial = stage(variant)
    try:
        trial.add_nodes(gpu_count=0)
        for manifest in trial.objects():
            if manifest["kind"] not in ("Job", "DynamoGraphDeployment"):
                trial.add(manifest)
        job = filled(trial.plan.objects.weights_job)
        final = next(rule for rule in job["spec"]["podFailurePolicy"]["rules"] if rule["action"] == "FailJob")
        refused = ending_with(job, final["onExitCodes"]["values"][0])
        endless = ending_with(job, "never", activeDeadlineSeconds=1)
        for one in (refused, endless):
            trial.add(one)
        real = trial.job_end(refused), trial.job_end(endless)

        pretended = Pretended(tmp_path, trial.plan)
        world = pretended.world
        for manifest in trial.plan.objects.all():
            if manifest["kind"] not in ("Job", "DynamoGraphDeployment"):
                pretended.create(pretended.filled(manifest))
        world.cloud.faults = Faults(
            faults=(Fault(type="Job", name_contains=refused["metadata"]["name"], when="after", error="401"),)
        )
        found = []
        for one in (refused, endless):
            manifest = pretended.filled(one)
            refusal(lambda manifest=manifest: pretended.create(manifest))  # type: ignore[misc]
            condition = world.out(f"Job-{one['metadata']['name']}")["status"]["conditions"][0]
            found.append((condition["type"], condition["reason"]))
        assert tuple(found) == real
    finally:
        trial.clear()


# ── wrong graphs ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "change", "says"), WRONG, ids=[name for name, _, _ in WRONG])
def test_a_graph_that_the_real_server_refuses_is_refused_by_the_pretender(
    name: str, change: Callable[[Manifest], None], says: str
) -> None:
    for variant in each_stack():
        wrong = changed(filled(variant.plan().objects.graph), change)
        assert graphs.admission(wrong, strict=True), "the rehearsal would go on to GPUs"


# ── wrong objects ────────────────────────────────────────────────────────────────────────────────────────────────────


class Pair:
    """One stack's objects in both, without Jobs and graph, to change one thing at a time."""

    def __init__(self, trial: Trial, pretended: Pretended) -> None:
        self.trial, self.pretended = trial, pretended

    def of(self, kind: str) -> Manifest:
        """An object of the Plan, under a name nobody has yet."""
        found = copy.deepcopy(next(one for one in self.trial.plan.objects.all() if one["kind"] == kind))
        found["metadata"]["name"] += "-x"
        return found

    def existing(self, kind: str) -> Manifest:
        return copy.deepcopy(next(one for one in self.trial.plan.objects.all() if one["kind"] == kind))

    def real(self, manifest: Manifest) -> str | None:
        """Why the API server refuses to create it; None where it does not. Nothing is created."""
        try:
            self.trial.api.create(filled(manifest), dry_run=True)
        except Refused as refused:
            return refused.message
        return None

    def pretends(self, manifest: Manifest) -> str | None:
        return self.pretended.would_refuse(self.pretended.filled(manifest))


@pytest.fixture(scope="module")
def pair(cluster: Cluster, stage: MakeTrial, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    trial = stage(each_stack()[0])
    pretended = Pretended(tmp_path_factory.mktemp("cloud"), trial.plan, gpu_count=0)
    for manifest in trial.plan.objects.all():
        if manifest["kind"] not in ("Job", "DynamoGraphDeployment"):
            trial.add(filled(manifest))
            pretended.create(pretended.filled(manifest))
    yield Pair(trial, pretended)
    trial.clear()


KINDS = (
    "Namespace",
    "StorageClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "ConfigMap",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "Job",
)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_fields_and_wrong_types_anywhere_are_judged_alike(kind: str, pair: Pair) -> None:
    manifest = pair.of(kind)
    assert pair.real(manifest) is None
    assert pair.pretends(manifest) is None
    differ = []
    for what, wrong in mutations(manifest):
        real, pretended = pair.real(wrong), pair.pretends(wrong)
        if (real is None) != (pretended is None):
            differ.append(f"{what}: the API server says {real or 'yes'}, the pretender {pretended or 'yes'}")
    assert differ == []


def mutations(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Copies of `manifest`: a stranger's field in every object, and another type at every place."""
    for path in list(_paths(manifest)):
        if path in ((), ("apiVersion",), ("kind",), ("metadata",), ("metadata", "name"), ("metadata", "namespace")):
            continue
        value = _at(manifest, path)
        where = ".".join(map(str, path))
        if isinstance(value, dict):
            yield f"{where}.notAField", _with(manifest, (*path, "notAField"), "1")
        other: Any = {"wrong": "type"} if not isinstance(value, dict) else "wrong type"
        yield f"{where} as {type(other).__name__}", _with(manifest, path, other)
        if isinstance(value, int) and not isinstance(value, bool):
            yield f"{where} as text", _with(manifest, path, str(value))
        if isinstance(value, bool):
            yield f"{where} as text", _with(manifest, path, "true")


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _with(manifest: Manifest, path: tuple[str | int, ...], value: Any) -> Manifest:
    made = json.loads(json.dumps(manifest))
    _at(made, path[:-1])[path[-1]] = value
    found: Manifest = made
    return found


Change = Callable[[Manifest], None]


def _set(path: str, value: Any) -> Change:
    """Puts `value` at the dotted path; DELETE takes away what is there."""
    keys = [int(part) if part.isdigit() else part for part in path.split(".")]

    def change(manifest: Manifest) -> None:
        holder = _at(manifest, tuple(keys[:-1]))
        if value is DELETE:
            del holder[keys[-1]]
        else:
            holder[keys[-1]] = value

    return change


DELETE: Any = object()
_POD = "spec.template.spec"
_MAIN = f"{_POD}.containers.0"

MISTAKES: list[tuple[str, str, Change]] = [
    ("Namespace", "capital letters in the name", _set("metadata.name", "Qwen3")),
    ("Namespace", "a dot in the name", _set("metadata.name", "qwen3.32b")),
    ("Namespace", "a name of 64 characters", _set("metadata.name", "q" * 64)),
    ("Namespace", "a label that is a sentence", _set("metadata.labels", {"owner": "not a label value!"})),
    ("Namespace", "a label key with two slashes", _set("metadata.labels", {"a/b/c": "x"})),
    ("StorageClass", "a reclaim policy nobody knows", _set("reclaimPolicy", "Keep")),
    ("StorageClass", "a binding mode nobody knows", _set("volumeBindingMode", "Later")),
    ("StorageClass", "no provisioner", _set("provisioner", DELETE)),
    ("PersistentVolume", "no capacity", _set("spec.capacity", DELETE)),
    ("PersistentVolume", "a capacity with a space", _set("spec.capacity.storage", "100 Gi")),
    ("PersistentVolume", "a capacity below zero", _set("spec.capacity.storage", "-1Gi")),
    ("PersistentVolume", "an access mode nobody knows", _set("spec.accessModes", ["ReadWriteAll"])),
    ("PersistentVolume", "no access mode", _set("spec.accessModes", [])),
    ("PersistentVolume", "no source", _set("spec.csi", DELETE)),
    ("PersistentVolume", "two sources", _set("spec.nfs", {"server": "a", "path": "/"})),
    ("PersistentVolume", "a driver without a handle", _set("spec.csi.volumeHandle", "")),
    ("PersistentVolume", "a reclaim policy nobody knows", _set("spec.persistentVolumeReclaimPolicy", "Keep")),
    ("PersistentVolumeClaim", "no access mode", _set("spec.accessModes", [])),
    ("PersistentVolumeClaim", "an access mode nobody knows", _set("spec.accessModes", ["Everyone"])),
    ("PersistentVolumeClaim", "no size", _set("spec.resources", {})),
    ("PersistentVolumeClaim", "a size of zero", _set("spec.resources.requests.storage", "0")),
    ("PersistentVolumeClaim", "a size in words", _set("spec.resources.requests.storage", "plenty")),
    ("PersistentVolumeClaim", "a volume mode nobody knows", _set("spec.volumeMode", "Tape")),
    ("PersistentVolumeClaim", "a namespace that is not there", _set("metadata.namespace", "nowhere")),
    ("PersistentVolumeClaim", "a class that is not there", _set("spec.storageClassName", "not-there")),
    ("PersistentVolumeClaim", "a volume that is not there", _set("spec.volumeName", "not-there")),
    ("ConfigMap", "a key with a slash", _set("data", {"a/b": "x"})),
    ("ConfigMap", "a key of two dots", _set("data", {"..": "x"})),
    ("ConfigMap", "more than a mebibyte", _set("data", {"a": "x" * (2**20 + 1)})),
    ("ConfigMap", "a namespace that is not there", _set("metadata.namespace", "nowhere")),
    ("ServiceAccount", "an underscore in the name", _set("metadata.name", "graph_admission")),
    ("Role", "a rule without verbs", _set("rules.0.verbs", [])),
    ("Role", "a rule without resources", _set("rules.0.resources", [])),
    ("Role", "a rule without API groups", _set("rules.0.apiGroups", [])),
    ("RoleBinding", "a role reference without a name", _set("roleRef.name", "")),
    ("RoleBinding", "a role reference to a pod", _set("roleRef.kind", "Pod")),
    ("RoleBinding", "a subject of a kind nobody knows", _set("subjects.0.kind", "Robot")),
    ("RoleBinding", "a role that is not there", _set("roleRef.name", "not-there")),
    ("Job", "pods that start again by themselves", _set(f"{_POD}.restartPolicy", "Always")),
    ("Job", "a failure policy with pods that start again on failure", _set(f"{_POD}.restartPolicy", "OnFailure")),
    ("Job", "no restart policy", _set(f"{_POD}.restartPolicy", DELETE)),
    ("Job", "a deadline below zero", _set("spec.activeDeadlineSeconds", -1)),
    ("Job", "attempts below zero", _set("spec.backoffLimit", -1)),
    ("Job", "a request above its limit", _set(f"{_MAIN}.resources.requests.memory", "900Gi")),
    ("Job", "a request that is no quantity", _set(f"{_MAIN}.resources.requests.cpu", "two")),
    ("Job", "a request below zero", _set(f"{_MAIN}.resources.requests.cpu", "-1")),
    ("Job", "a GPU asked for and not limited", _set(f"{_MAIN}.resources.requests.nvidia~com/gpu", "1")),
    ("Job", "half a GPU", _set(f"{_MAIN}.resources.limits.nvidia~com/gpu", "500m")),
    ("Job", "a mount of a volume that is not there", _set(f"{_MAIN}.volumeMounts.0.name", "nowhere")),
    ("Job", "two mounts at one path", _set(f"{_MAIN}.volumeMounts.1.mountPath", "/scripts")),
    ("Job", "a mount path with a colon", _set(f"{_MAIN}.volumeMounts.0.mountPath", "/a:b")),
    ("Job", "two volumes of one name", _set(f"{_POD}.volumes.1.name", "scripts")),
    ("Job", "a volume with a dot in its name", _set(f"{_POD}.volumes.1.name", "a.b")),
    ("Job", "a volume of two kinds", _set(f"{_POD}.volumes.1.secret", {"secretName": "x"})),
    ("Job", "a container name with an underscore", _set(f"{_MAIN}.name", "the_main")),
    ("Job", "no image", _set(f"{_MAIN}.image", "")),
    ("Job", "no containers", _set(f"{_POD}.containers", [])),
    ("Job", "a variable with a space in its name", _set(f"{_MAIN}.env.0.name", "A B")),
    ("Job", "a variable with an equals sign in its name", _set(f"{_MAIN}.env.0.name", "A=B")),
    ("Job", "a node selector that is no label", _set(f"{_POD}.nodeSelector", {"pool": "not a value!"})),
    ("Job", "a toleration without a key that is not Exists", _set(f"{_POD}.tolerations", [{"operator": "Equal"}])),
    ("Job", "an effect nobody knows", _set(f"{_POD}.tolerations", [{"key": "a", "effect": "Never"}])),
    ("Job", "a pull policy nobody knows", _set(f"{_MAIN}.imagePullPolicy", "Sometimes")),
    ("Job", "a failure action nobody knows", _set("spec.podFailurePolicy.rules.0.action", "Shrug")),
    (
        "Job",
        "a failure rule for a container that is not there",
        _set("spec.podFailurePolicy.rules.1.onExitCodes.containerName", "none"),
    ),
    ("Job", "a failure rule for exit code 0", _set("spec.podFailurePolicy.rules.1.onExitCodes.values", [0, 2])),
    ("Job", "a security context that contradicts itself", _set(f"{_MAIN}.securityContext.privileged", True)),
    ("Job", "root in spite of runAsNonRoot", _set(f"{_POD}.securityContext.runAsUser", -1)),
    ("Job", "a ConfigMap key twice at one path", _set(f"{_POD}.volumes.0.configMap.items.0.path", "../x")),
    ("Job", "a service account name with capitals", _set(f"{_POD}.serviceAccountName", "Admission")),
    ("Job", "a namespace that is not there", _set("metadata.namespace", "nowhere")),
    ("Job", "a label that is no label", _set("spec.template.metadata.labels", {"a b": "c"})),
    ("Job", "a priority class that is not there", _set(f"{_POD}.priorityClassName", "very-important")),
]
"""Kind, mistake (or something that looks like one), and the change that makes it. Both judge; neither is told the answer."""


@pytest.mark.parametrize(
    ("kind", "mistake", "change"), MISTAKES, ids=[f"{kind}: {mistake}" for kind, mistake, _ in MISTAKES]
)
def test_a_mistake_is_judged_alike(kind: str, mistake: str, change: Change, pair: Pair) -> None:
    wrong = pair.of(kind)
    change(wrong)
    wrong = json.loads(json.dumps(wrong).replace("nvidia~com", "nvidia.com"))
    real, pretended = pair.real(wrong), pair.pretends(wrong)
    assert (real is None) == (pretended is None), f"API server: {real or 'yes'}; pretender: {pretended or 'yes'}"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Job"])
def test_a_name_that_is_taken_is_refused_by_both(kind: str, pair: Pair) -> None:
    manifest = pair.existing(kind)
    assert "already exists" in str(pair.real(manifest))
    assert "already exists" in str(pair.pretends(manifest))


UPDATES: list[tuple[str, str, Change]] = [
    ("ConfigMap", "data of an immutable map", _set("data", {"a": "b"})),
    ("ConfigMap", "an immutable map made mutable", _set("immutable", False)),
    ("PersistentVolume", "another file system behind a volume", _set("spec.csi.volumeHandle", "fs-0::fsap-0")),
    ("PersistentVolume", "a larger volume", _set("spec.capacity.storage", "900Gi")),
    ("PersistentVolumeClaim", "a claim of another volume", _set("spec.volumeName", "another")),
    ("PersistentVolumeClaim", "a claim of another class", _set("spec.storageClassName", "another")),
    ("StorageClass", "another provisioner", _set("provisioner", "ebs.csi.aws.com")),
    ("StorageClass", "another reclaim policy", _set("reclaimPolicy", "Delete")),
    ("StorageClass", "another binding mode", _set("volumeBindingMode", "WaitForFirstConsumer")),
    ("RoleBinding", "another role", _set("roleRef.name", "another")),
    ("Role", "another verb", _set("rules.0.verbs", ["get", "list", "watch"])),
    ("ServiceAccount", "its token mounted", _set("automountServiceAccountToken", True)),
    ("Namespace", "another label", _set("metadata.labels", {"a": "b"})),
]


@pytest.mark.parametrize(("kind", "what", "change"), UPDATES, ids=[what for _, what, _ in UPDATES])
def test_what_cannot_change_in_place_is_refused_or_replaced(kind: str, what: str, change: Change, pair: Pair) -> None:
    """The provider replaces what it knows to be immutable; what it does not know reaches the server, which refuses."""
    wanted = pair.existing(kind)
    change(wanted)
    try:
        pair.trial.api.apply(filled(wanted), dry_run=True)
        real = None
    except Refused as refused:
        real = refused.message
    pretended = refusal(lambda: pair.pretended.update(pair.pretended.filled(wanted)))
    assert (real is None) == (pretended is None), f"API server: {real or 'yes'}; pretender: {pretended or 'yes'}"


# ── claims that find no volume ───────────────────────────────────────────────────────────────────────────────────────

UNFIT: list[tuple[str, Change]] = [
    ("a class that is not there", _set("spec.storageClassName", "not-there")),
    ("a volume that is not there", _set("spec.volumeName", "not-there")),
    ("more than the volume has", _set("spec.resources.requests.storage", "9000Gi")),
    ("another access mode", _set("spec.accessModes", ["ReadWriteOncePod"])),
    ("no class", _set("spec.storageClassName", "")),
    ("nothing wrong", _set("metadata.labels", {"a": "b"})),
]


@pytest.mark.parametrize(("what", "change"), UNFIT, ids=[what for what, _ in UNFIT])
def test_a_claim_binds_in_both_or_waits_in_both(what: str, change: Change, pair: Pair) -> None:
    number = UNFIT.index((what, change))
    volume, claim = pair.existing("PersistentVolume"), pair.existing("PersistentVolumeClaim")
    for one in (volume, claim):
        one["metadata"]["name"] += f"-{number}"
    claim["spec"]["volumeName"] = volume["metadata"]["name"]
    change(claim)
    for one in (volume, claim):
        pair.trial.add(filled(one))
        refusal(lambda one=one: pair.pretended.create(pair.pretended.filled(one)))  # type: ignore[misc]
    pretended = pair.pretended.status(claim)
    # A binder that has passed writes an event; one second is its period here.
    expected = "Bound" if what == "nothing wrong" else "Pending"

    def phase() -> str:
        return str((pair.trial.api.read(claim) or {})["status"]["phase"])

    if pretended == "Bound":
        wait_for("the claim to be bound", lambda: phase() == "Bound")
    else:
        wait_for("the binder to say why", lambda: pair.trial.api.list("v1", "Event", pair.trial.namespace))
    assert phase() == pretended == expected
