"""The Kubernetes half: an API server per pretend cluster, a scheduler over the pretend nodes, claims, Jobs, charts and graphs."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from recipe.catalogue import MODELS
from recipe.lustre import mb_per_second, seconds_on_lustre

from . import graphs, rules, validation
from .rules import (
    ACCESS_ENTRY,
    ACCESS_POINT,
    ACCESS_POLICY,
    ADDON,
    CLUSTER,
    CLUSTER_SCOPED,
    CONFIG_MAP,
    DGD,
    FILE_SYSTEM,
    INSTANCE,
    JOB,
    LAUNCH_TEMPLATE,
    LOAD_BALANCER,
    LUSTRE,
    MOUNT_TARGET,
    NAMESPACE,
    NODE_GROUP,
    POD_IDENTITY,
    PV,
    PVC,
    RELEASE,
    ROLE,
    SECRET,
    SECURITY_GROUP,
    SERVICE,
    SERVICE_ACCOUNT,
    STORAGE_CLASS,
    SUBNET,
    VOLUME,
)  # fmt: skip
from .scheduler import Node, Pod, place, pod_of, quantity, tolerates
from .store import Record
from .values import UNKNOWN, CloudError, Inputs, Unfinished, annotation, get, has_unknown, many, within

if TYPE_CHECKING:
    from .cloud import Call, Cloud

JOB_LABEL = "dynamo-recipes/job"  # weights | admission | readiness | benchmark: what the Job does, hence how long and how it can fail
_WITHOUT = "MODEL_FILES_WITHOUT"  # a weights Job's environment: it leaves out the weights themselves
_MODEL = "MODEL_ID"  # what a weights Job downloads: larger ones take longer
# What a readiness Job is told by its environment: which graph, and how long it bears what may pass.
_GRAPH, _UNSCHEDULABLE_GRACE, _IMAGE_GRACE = "GRAPH", "UNSCHEDULABLE_GRACE_SECONDS", "IMAGE_GRACE_SECONDS"

# What runs on every node, and on an untainted one also CoreDNS and the CSI controllers: EKS defaults (kube-proxy 100m, aws-node 2 x 25m,
# CoreDNS 2 x 100m/70Mi); the rest is an assumption.
_SYSTEM_ANY = {"cpu": 0.15, "memory": 256 * 2.0**20, "pods": 5.0}
_SYSTEM_CPU_POOL = {"cpu": 0.40, "memory": 640 * 2.0**20, "pods": 10.0}
_OPERATOR = {"cpu": 0.512, "memory": 2.0**30, "pods": 1.0}  # facts/dynamo.md §2
_PLURAL = {
    JOB: "jobs.batch", DGD: "dynamographdeployments.nvidia.com", STORAGE_CLASS: "storageclasses.storage.k8s.io", PVC: "persistentvolumeclaims", PV: "persistentvolumes",
    CONFIG_MAP: "configmaps", SECRET: "secrets", NAMESPACE: "namespaces", SERVICE: "services", SERVICE_ACCOUNT: "serviceaccounts",
}  # fmt: skip
_SYSTEM_NAMESPACES = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})
_ENDED = ("complete", "failed")
_ASK_AGAIN_S = 5.0  # recipe/scripts/admission.py, RETRY_SECONDS
_FINALIZERS = {PVC: "kubernetes.io/pvc-protection", PV: "kubernetes.io/pv-protection", DGD: graphs.FINALIZER}


def release_kind(inputs: Mapping[str, Any]) -> str:
    """platform, nvidia, efa, or other: told by the chart's name."""
    chart = str(inputs.get("chart", ""))
    for word, kind in (
        ("dynamo-platform", "platform"),
        ("nvidia-device-plugin", "nvidia"),
        ("aws-efa-k8s-device-plugin", "efa"),
    ):
        if word in chart:
            return kind
    return "other"


class Kubernetes:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._store = cloud.store
        self.options: Inputs = {}

    # ---- reaching the cluster ---------------------------------------------------------------------------------------------

    def cluster(self) -> Record:
        """The cluster the provider's kubeconfig leads to. CloudError when nothing in it can be reached."""
        config = self.options.get("kubeconfig")
        text = config if isinstance(config, str) else json.dumps(config) if isinstance(config, Mapping) else ""
        clusters = list(self._store.of(CLUSTER))
        if text:
            clusters = [c for c in clusters if c.outputs["endpoint"] in text or f'"{c.id}"' in text]
        found = clusters[0] if len(clusters) == 1 else None
        if found is None or found.status not in ("ACTIVE", "UPDATING"):
            why = f"cluster {found.id} is {found.status}" if found else "no cluster at the kubeconfig's address"
            raise CloudError(
                f"configured Kubernetes cluster is unreachable: unable to load schema information from the API server: {why}"
            )
        if get(found.inputs, "accessConfig.bootstrapClusterCreatorAdminPermissions", True) is False:
            entries = {
                e.inputs["principalArn"] for e in self._store.of(ACCESS_ENTRY) if e.inputs["clusterName"] == found.id
            }
            if not any(
                p.inputs["clusterName"] == found.id and p.inputs["principalArn"] in entries
                for p in self._store.of(ACCESS_POLICY)
            ):
                raise CloudError(
                    "Unauthorized: the server has asked for the client to provide credentials (no access entry leads to a policy on this cluster)"
                )
        return found

    def reachable(self) -> bool:
        try:
            self.cluster()
        except CloudError:
            return False
        return True

    # ---- names, outputs ---------------------------------------------------------------------------------------------------

    @staticmethod
    def namespace(typ: str, inputs: Mapping[str, Any]) -> str:
        if typ in CLUSTER_SCOPED:
            return ""
        found = inputs.get("namespace") if typ == RELEASE else get(inputs, "metadata.namespace")
        return str(found or "default")

    @staticmethod
    def name(typ: str, inputs: Mapping[str, Any]) -> str:
        return str(inputs.get("name") if typ == RELEASE else get(inputs, "metadata.name"))

    def id_of(self, typ: str, inputs: Mapping[str, Any]) -> str:
        namespace = self.namespace(typ, inputs)
        return f"{namespace}/{self.name(typ, inputs)}" if namespace else self.name(typ, inputs)

    def outputs(self, typ: str, inputs: Inputs, order: int) -> Inputs:
        out = copy.deepcopy(inputs)
        token = hashlib.sha256(f"{typ}{self.id_of(typ, inputs)}{order}".encode()).hexdigest()
        if typ == RELEASE:
            out["status"] = {"status": "deployed", "name": inputs["name"], "namespace": self.namespace(typ, inputs), "chart": inputs["chart"],
                             "version": inputs.get("version", ""), "revision": 1}  # fmt: skip
            return {"resourceNames": {}, "values": {}, **out}
        uid = "-".join((token[:8], token[8:12], token[12:16], token[16:20], token[20:32]))
        out["metadata"] = {
            **out.get("metadata", {}),
            "uid": uid,
            "resourceVersion": str(order),
            "creationTimestamp": "2026-11-23T00:00:00Z",
            "generation": 1,
        }
        if typ == DGD:
            out["metadata"]["finalizers"] = [graphs.FINALIZER]
        return out

    def preview(self, typ: str, inputs: Inputs) -> Inputs:
        out = copy.deepcopy(inputs)
        if typ == RELEASE:
            return {**out, "status": UNKNOWN, "resourceNames": UNKNOWN}
        out["metadata"] = {
            **get(inputs, "metadata", {}),
            "uid": UNKNOWN,
            "resourceVersion": UNKNOWN,
            "creationTimestamp": UNKNOWN,
        }
        return {**out, "status": UNKNOWN}

    def _shown(self, record: Record) -> Inputs:
        """Outputs with the status as of now."""
        status: Inputs | None = None
        match record.type:
            case rules.JOB:
                phase = record.extra["phase"]
                kind = {"complete": "Complete", "failed": "Failed"}.get(phase)
                status = {
                    "active": int(phase == "running"),
                    "succeeded": int(phase == "complete"),
                    "failed": int(phase == "failed"),
                }
                if kind:
                    reason = record.extra.get("reason", "CompletionsReached")
                    message = record.extra.get("message", "")
                    condition = {"type": kind, "status": "True", "reason": reason, "message": message}
                    status["conditions"] = [condition]
            case rules.PVC | rules.PV:
                status = {"phase": record.extra["phase"]}
            case rules.NAMESPACE:
                status = {"phase": "Active"}
            case rules.DGD:
                ready = record.extra["state"] == "successful"
                reason = (
                    "all_resources_are_ready"
                    if ready
                    else "insufficient_capacity"
                    if "nodes are available" in record.extra["message"]
                    else "some_resources_are_not_ready"
                )
                status = {"state": record.extra["state"], "observedGeneration": 1, "conditions": [
                    {"type": "Ready", "status": "True" if ready else "False", "reason": reason, "message": record.extra["message"]}]}  # fmt: skip
            case rules.SERVICE:
                status = {
                    "loadBalancer": {"ingress": [{"hostname": record.extra["hostname"]}]}
                    if "hostname" in record.extra
                    else {}
                }
        if status is not None:
            record.outputs["status"] = status
        return copy.deepcopy(record.outputs)

    def held(self, record: Record) -> tuple[Inputs, Inputs]:
        """Inputs as the API server holds them, and outputs."""
        return copy.deepcopy(record.inputs), self._shown(record)

    # ---- creating ---------------------------------------------------------------------------------------------------------

    def check(self, typ: str, inputs: Inputs) -> Iterator[tuple[str, str]]:
        name = get(inputs, "name" if typ == RELEASE else "metadata.name")
        if isinstance(name, str) and (len(name) > 253 or name != name.lower() or not name.strip("-.")):
            yield "metadata.name", f"Invalid value: {name!r}: a lowercase RFC 1123 subdomain of at most 253 characters"
        if typ == RELEASE and (
            not get(inputs, "version")
            or not (
                get(inputs, "repositoryOpts.repo")
                or "://" in str(inputs.get("chart"))
                or str(inputs.get("chart")).startswith(("./", "/"))
            )
        ):
            yield "chart", rules.says("release.chart")

    def create(self, call: Call) -> tuple[str, Inputs]:
        cluster = self.cluster()
        if has_unknown(call.inputs):
            raise CloudError(f"{call.name}: unknown values reached the API server")
        namespace = self.namespace(call.type, call.inputs)
        if (
            namespace
            and namespace not in _SYSTEM_NAMESPACES
            and not (call.type == RELEASE and call.inputs.get("createNamespace"))
        ):
            found = self._store.find(NAMESPACE, namespace, cluster.id)
            if found is None or found.status == "DELETING":
                raise CloudError(rules.says("k8s.namespace").format(namespace=namespace))
        if failures := list(self.check(call.type, call.inputs)):
            raise CloudError(f"{call.name}: {failures[0][1]}")
        self._validate(call)
        made = self.id_of(call.type, call.inputs)
        if call.type == SECRET:
            self.protect(call.inputs)
        if existing := self._store.find(call.type, made, cluster.id):
            return self._exists(call, existing)
        if call.type == DGD:
            self._admit(call, cluster)
        if call.type == RELEASE:
            self._check_release(call, cluster)
        outputs = self.outputs(call.type, call.inputs, self._store.next_order())
        record = self._cloud.accept(call, made, outputs, cluster.id, self._start(call))
        self._cloud.save()
        self._cloud.clock.notify()
        if call.type == JOB:  # a delay is the Job's own then, not that of its creation
            self._cloud.clock.wait(self._cloud.durations["kubernetes.create"])
        else:
            self._cloud.spend(call, self._cloud.durations["kubernetes.create"] if call.type != RELEASE else 0)
        self._after(call, record)
        record.status = "ACTIVE"
        return made, self._shown(record)

    @staticmethod
    def _validate(call: Call) -> None:
        """Schema and validation of Kubernetes' own kinds, as strictly as server-side apply."""
        api_version, _, kind = call.type.removeprefix("kubernetes:").rpartition(":")
        if found := validation.problems(api_version.removeprefix("core/"), kind, call.inputs):
            name = get(call.inputs, "metadata.name")
            raise CloudError(f'{kind} "{name}" is invalid: {"; ".join(found)}')

    def _exists(self, call: Call, record: Record) -> tuple[str, Inputs]:
        if call.type == RELEASE or not self.options.get("upsertExistingObjects"):
            name = self.name(call.type, call.inputs)
            kind = _PLURAL.get(call.type, call.type.rpartition(":")[2].lower() + "s")
            text = (
                f"cannot re-use a name that is still in use: {name}"
                if call.type == RELEASE
                else rules.says("k8s.unique").format(plural=kind, name=name)
            )
            raise CloudError(text)
        from .values import changes  # an upsert is an update of what is there, replacing nothing

        changed = list(changes(record.inputs, call.inputs))
        row = rules.CREATE_ONLY[call.type]
        if immutable := [p for p in changed for f in row.fields if within(p, f) and call.type in (JOB, PVC, PV)]:
            raise CloudError(
                f"{_PLURAL[call.type]} {record.name!r} is invalid: {immutable[0]}: Invalid value: field is immutable"
            )
        record.urn, record.name = call.urn, call.name
        return record.id, self.update(call, record, changed)

    def _start(self, call: Call) -> dict[str, Any]:
        fault = call.fault
        match call.type:
            case rules.JOB:
                seconds = get(call.inputs, "spec.activeDeadlineSeconds")
                return {
                    "phase": "pending",
                    "message": "",
                    "placed": {},
                    "deadline_at": None if seconds is None else self._cloud.clock.now() + seconds,
                    "fault": fault.error if fault else None,
                    "fault_delay": fault.delay_s if fault else 0,
                }
            case rules.DGD:
                return {
                    "state": "initializing",
                    "message": "waiting for the operator",
                    "placed": {},
                    "fault": fault.error if fault else None,
                }
            case rules.PVC:
                return {"phase": "Pending", "message": ""}
            case rules.PV:
                return {"phase": "Available"}
            case rules.RELEASE:
                return {"kind": release_kind(call.inputs), "deployed": False, "placed": {}}
        return {}

    def protect(self, inputs: Mapping[str, Any]) -> None:
        """Keep the values of a Secret out of everything that is written."""
        for value in get(inputs, "stringData", {}).values():
            self._store.protect(str(value))
            self._store.protect(base64.b64encode(str(value).encode()).decode())
        for value in get(inputs, "data", {}).values():
            self._store.protect(str(value))
            try:
                self._store.protect(base64.b64decode(str(value), validate=True).decode())
            except ValueError:
                continue

    def _annotation(self, inputs: Mapping[str, Any], key: str) -> Any:
        return annotation(inputs, key)

    def _after(self, call: Call, record: Record) -> None:
        """Wait for what the provider waits for."""
        skip = str(self._annotation(call.inputs, "skipAwait")).lower() == "true" or (
            call.type == RELEASE and call.inputs.get("skipAwait")
        )
        clock = self._cloud.clock
        match call.type:
            case rules.JOB if not skip:
                done = clock.wait_for(lambda: record.extra["phase"] in _ENDED, call.timeout("create"))
                if not done:
                    raise Unfinished(
                        record.id,
                        self._shown(record),
                        [
                            f"timed out waiting for the Job to complete: {record.extra['message'] or record.extra['phase']}"
                        ],
                    )
                if record.extra["phase"] == "failed":
                    raise Unfinished(
                        record.id,
                        self._shown(record),
                        [f"Job {record.id} failed: {record.extra['reason']}: {record.extra['message']}"],
                    )
            case rules.PVC if not skip:
                cls = self._store.find(STORAGE_CLASS, get(call.inputs, "spec.storageClassName"), record.cluster)
                lazy = cls is not None and cls.inputs.get("volumeBindingMode") == "WaitForFirstConsumer"
                # The provider's watch is five minutes whatever custom timeout is set (facts/pulumi.md §10).
                if not lazy and not clock.wait_for(
                    lambda: record.extra["phase"] == "Bound", rules.timeout_s(PVC, "create", None)
                ):
                    raise Unfinished(
                        record.id,
                        self._shown(record),
                        [f"PersistentVolumeClaim {record.id} is not Bound after 5 minutes: {record.extra['message']}"],
                    )
            case rules.RELEASE:
                self._deploy(call, record, skip=bool(skip))
            case rules.SERVICE if get(call.inputs, "spec.type") == "LoadBalancer":
                self._balance(record)
            case rules.DGD if (condition := self._annotation(call.inputs, "waitFor")) and not skip:
                if not clock.wait_for(
                    lambda: record.extra["state"] in ("successful", "failed") and self._waited(condition, record),
                    call.timeout("create"),
                ):
                    raise Unfinished(
                        record.id,
                        self._shown(record),
                        [f"timed out waiting for {condition}: {record.extra['state']}: {record.extra['message']}"],
                    )

    @staticmethod
    def _waited(condition: str, record: Record) -> bool:
        return bool(record.extra["state"] == ("failed" if "failed" in condition else "successful"))

    def _balance(self, record: Record) -> None:
        cluster = self._store.find(CLUSTER, record.cluster)
        config = cluster.outputs["vpcConfig"] if cluster else {}
        aws = self._cloud.aws
        group = aws._made(
            SECURITY_GROUP,
            self._store.new_id("sg-"),
            f"k8s-elb-{record.name}",
            record.key,
            {"vpcId": config.get("vpcId"), "name": f"k8s-elb-{record.id}"},
        )
        balancer = aws._made(
            LOAD_BALANCER, self._store.new_id("elb-"), record.name, record.key, {"subnets": many(config.get("subnetIds")), "securityGroups": [group.id]}
        )  # fmt: skip
        record.extra["hostname"] = f"{balancer.id}.{self._cloud.region}.elb.amazonaws.com"

    # ---- charts -----------------------------------------------------------------------------------------------------------

    def releases(self, cluster: str, kind: str) -> list[Record]:
        return [
            r
            for r in self._store.of(RELEASE, cluster=cluster)
            if r.extra.get("kind") == kind and r.extra.get("deployed")
        ]

    def _check_release(self, call: Call, cluster: Record) -> None:
        if release_kind(call.inputs) == "platform" and (others := self.releases(cluster.id, "platform")):
            raise CloudError(
                f"execution error: only one cluster-wide dynamo-operator per cluster: release {others[0].id} is there already"
            )

    def _deploy(self, call: Call, record: Record, *, skip: bool) -> None:
        kind, clock = record.extra["kind"], self._cloud.clock
        patience = call.timeout_s or float(call.inputs.get("timeout") or call.timeout("create"))
        deadline = clock.now() + patience
        if kind == "platform" and not skip and not clock.wait_for(lambda: bool(record.extra["placed"]), patience):
            why = record.extra.get("message") or "the operator's pod does not run"
            if call.inputs.get("atomic"):
                self._store.remove(record)
                raise CloudError(
                    f"release {record.name} failed, and has been uninstalled due to atomic being set: context deadline exceeded: {why}"
                )
            record.outputs["status"]["status"] = "failed"
            raise Unfinished(
                record.id,
                self._shown(record),
                [
                    f"Helm release {record.id} was created, but failed to initialize completely: context deadline exceeded: {why}"
                ],
            )
        time = self._cloud.durations["Release.platform" if kind == "platform" else "Release.plugin"]
        self._cloud.spend(call, min(time, max(0.0, deadline - clock.now())))
        if call.caller.gone:
            record.outputs["status"]["status"] = "pending-install"
            raise CloudError(f"release {record.name}: {rules.says('release.pending')}")
        record.extra["deployed"] = True
        if kind == "platform" and (cluster := self._store.find(CLUSTER, record.cluster)):
            cluster.extra["crds"] = True
        if kind != "other":
            self._cloud.event("release-deployed", record.name, str(call.inputs["chart"]))
        clock.notify()

    def operator_alive(self, cluster: str) -> bool:
        return any(r.extra["placed"] for r in self.releases(cluster, "platform"))

    # ---- graphs -----------------------------------------------------------------------------------------------------------

    def admission_errors(self, cluster: Record, graph: Mapping[str, Any], *, strict: bool, name: str) -> list[str]:
        """Why the API server refuses the graph: no CRD, schema, CEL, webhook, or a fault that says so."""
        if not cluster.extra.get("crds"):
            return [
                'no matches for kind "DynamoGraphDeployment" in version "nvidia.com/v1beta1": the operator has not applied its CRDs'
            ]
        if not self.operator_alive(cluster.id):
            return [
                'failed calling webhook "vdynamographdeployment.kb.io": no endpoints available for service "dynamo-operator-webhook-service"'
            ]
        fault = self._cloud.fault("create", DGD, name, "before")
        if fault and fault.error:
            return [fault.error]
        return graphs.admission(graph, strict=strict)

    def _admit(self, call: Call, cluster: Record) -> None:
        # The provider tries again, up to five times, while the kind is not known yet (facts/pulumi.md §10).
        self._cloud.clock.wait_for(lambda: bool(cluster.extra.get("crds")), 10)
        if errors := self.admission_errors(cluster, call.inputs, strict=False, name=call.name):
            text = (
                errors[0]
                if errors[0].startswith(("no matches", "failed calling"))
                else f"admission webhook denied the request: {'; '.join(errors)}"
            )
            raise CloudError(f'creating DynamoGraphDeployment "{self.name(DGD, call.inputs)}": {text}')

    # ---- updating, deleting -----------------------------------------------------------------------------------------------

    def update(self, call: Call, record: Record, changed: list[str]) -> Inputs:
        self.cluster()
        self._validate(call)
        for row in rules.frozen(call.type):
            for field in row.fields:
                if any(within(p, field) for p in changed):
                    raise CloudError(f"updating {record.id}: {row.error.format(field=field)}")
        if call.type == RELEASE and str(record.outputs["status"]["status"]).startswith("pending"):
            raise CloudError(f"updating {record.id}: another operation (install/upgrade/rollback) is in progress")
        if call.type == DGD:
            self._update_graph(call, record, changed)
        if call.type in (CONFIG_MAP, SECRET) and record.inputs.get("immutable") is True:
            for path in changed:
                if path.split(".")[0].split("[")[0] in ("data", "stringData", "binaryData", "immutable"):
                    raise CloudError(f"updating {record.id}: {path}: {rules.says('k8s.immutable')}")
        if call.type == SECRET:
            self.protect(call.inputs)
        old = record.outputs
        record.inputs = copy.deepcopy(call.inputs)
        record.outputs = self.outputs(call.type, call.inputs, record.order)
        if call.type == RELEASE and changed:
            record.outputs["status"]["revision"] = old["status"].get("revision", 1) + 1
        self._cloud.clock.notify()
        self._cloud.spend(call, self._cloud.durations["kubernetes.update"] if changed else 0)
        if call.type in (JOB, PVC) or (call.type == RELEASE and (changed or not record.extra["deployed"])):
            self._after(call, record)  # what was not ready before is waited for again
        return self._shown(record)

    def _update_graph(self, call: Call, record: Record, changed: list[str]) -> None:
        cluster = self.cluster()
        if graphs.topology(record.inputs) != graphs.topology(call.inputs):
            raise CloudError(
                f'admission webhook "vdynamographdeployment.kb.io" denied the request: {rules.says("dgd.topology")}'
            )
        if changed and (errors := self.admission_errors(cluster, call.inputs, strict=False, name=call.name)):
            raise CloudError(f"admission webhook denied the request: {'; '.join(errors)}")
        if any(within(p, "spec") for p in changed):  # the pods are rolled
            record.extra |= {
                "placed": {},
                "state": "pending",
                "message": "rolling update in progress",
                "ready_at": None,
                "blocked_since": None,
            }
            self._cloud.event("graph-not-ready", record.name, "rolling update")

    def delete(self, call: Call, record: Record | None) -> None:
        try:
            self.cluster()
        except CloudError:
            if record is None and self.options.get("deleteUnreachable") and call.type != RELEASE:
                return
            raise
        if record is None:
            return
        clock, patience = self._cloud.clock, call.timeout("delete")
        record.status = "DELETING"
        record.extra["stuck"] = call.fault is not None and call.fault.error == "stuck"
        if not clock.wait_for(lambda: self._held_by(record) is None, patience) and (why := self._held_by(record)):
            raise CloudError(
                f"timed out waiting for {record.id} to be deleted after {patience / 60:.0f} minutes: {why}"
            )
        self._cloud.hold(call, "after")
        seconds = self._cloud.durations["kubernetes.delete"]
        if (
            record.type == DGD
            and str(self._annotation(record.inputs, "deletionPropagationPolicy")).lower() != "background"
        ):
            seconds += self._cloud.durations["graph.shutdown"]  # foreground, the provider's default, waits for the pods
        if record.type == NAMESPACE and any(self._inside(record, DGD)):
            seconds += self._cloud.durations["graph.shutdown"]  # it is there as long as a pod is
        self._cloud.spend(call, seconds)
        self._forget(record)

    def _forget(self, record: Record) -> None:
        if record.type == NAMESPACE:
            for inner in self._inside(record):
                self._forget(inner)
        if record.type == DGD:
            self._cloud.event("graph-not-ready", record.name, "deleted")
        if record.type == PVC and (volume := self._store.find(PV, record.extra.get("volume"), record.cluster)):
            volume.extra["phase"] = "Released"
        for made in [r for r in self._store.records.values() if r.owner == record.key]:
            self._store.remove(made)
        self._store.remove(record)

    def _inside(self, namespace: Record, *types: str) -> list[Record]:
        """Objects in a namespace, of `types` or of any."""
        return [
            r
            for r in self._store.records.values()
            if r.cluster == namespace.cluster
            and r is not namespace
            and r.type in (types or (r.type,))
            and self.namespace(r.type, r.inputs) == namespace.id
        ]

    def _held_by(self, record: Record) -> str | None:
        """What keeps an object from going: finalizers."""
        cluster = record.cluster
        if record.extra.get("stuck"):
            return (
                f"finalizers [{_FINALIZERS.get(record.type, 'kubernetes')}] are not removed: {rules.says('k8s.stuck')}"
            )
        match record.type:
            case rules.DGD:
                return (
                    None
                    if self.operator_alive(cluster)
                    else f"finalizers [{graphs.FINALIZER}]: no operator is there to remove them"
                )
            case rules.PVC:
                users = [
                    r.id
                    for r, _, spec in self._pods(cluster)
                    if self.name(PVC, record.inputs) in self._claims(spec)
                    and self.namespace(r.type, r.inputs) == self.namespace(PVC, record.inputs)
                ]
                return (
                    f"finalizers [kubernetes.io/pvc-protection]: used by pods of {', '.join(sorted(set(users)))}"
                    if users
                    else None
                )
            case rules.PV:
                claims = [c.id for c in self._store.of(PVC, cluster=cluster) if c.extra.get("volume") == record.id]
                return f"finalizers [kubernetes.io/pv-protection]: bound to {claims[0]}" if claims else None
            case rules.NAMESPACE:
                inside = self._inside(record, DGD)
                return next((f"{r.id}: {why}" for r in inside if (why := self._held_by(r))), None)
        return None

    # ---- nodes and pods ---------------------------------------------------------------------------------------------------

    def _plugin(self, cluster: str, kind: str, labels: Mapping[str, str], taints: Sequence[Mapping[str, Any]]) -> bool:
        """A pod of the device plugin runs on such a node."""
        default = [{"key": "nvidia.com/gpu", "operator": "Exists"}] if kind == "nvidia" else []
        for release in self.releases(cluster, kind):
            values = get(release.inputs, "values", {})
            tolerations = many(values.get("tolerations")) if "tolerations" in values else default
            selector = get(values, "nodeSelector", {})
            if all(labels.get(k) == v for k, v in selector.items()) and all(tolerates(tolerations, t) for t in taints):
                return True
        return False

    def nodes(self, cluster: str) -> list[Node]:
        """Ready nodes with what still runs on them."""
        found: dict[str, Node] = {}
        for instance in self._cloud.aws.instances(cluster):
            if not self._cloud.aws.node_ready(instance) or "terminate_at" in instance.extra:
                continue
            group = self._store.find(NODE_GROUP, instance.owner)
            machine = self._cloud.machines.get(instance.inputs["instanceType"])
            subnet = self._store.find(SUBNET, instance.inputs["subnetId"])
            if group is None or machine is None or subnet is None:
                continue
            nvidia_ami = "NVIDIA" in str(group.field("amiType"))
            labels = {
                **get(group.inputs, "labels", {}),
                "kubernetes.io/hostname": instance.extra["node"],
                "node.kubernetes.io/instance-type": machine.name,
                "topology.kubernetes.io/zone": str(subnet.field("availabilityZone")),
                "topology.k8s.aws/zone-id": str(subnet.field("availabilityZoneId")),
                "eks.amazonaws.com/nodegroup": str(group.inputs["nodeGroupName"]),
                "eks.amazonaws.com/capacityType": str(group.field("capacityType")),
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                **({"nvidia.com/gpu.present": "true"} if machine.gpus and nvidia_ami else {}),
            }
            taints: list[Mapping[str, Any]] = [{"key": t["key"], "value": t.get("value", ""), "effect": {"NO_SCHEDULE": "NoSchedule", "NO_EXECUTE": "NoExecute"}.get(t["effect"], "PreferNoSchedule")}
                      for t in many(group.inputs.get("taints"))]  # fmt: skip
            free = machine.allocatable()
            for resource, used in (_SYSTEM_ANY if taints else _SYSTEM_CPU_POOL).items():
                free[resource] -= used
            if instance.extra["efa"] and nvidia_ami:  # facts/aws.md §4: 5128 pages of 2 MiB are set aside
                free["hugepages-2Mi"] = 5128 * 2.0**21
                free["memory"] -= free["hugepages-2Mi"]
            if machine.gpus and nvidia_ami and self._plugin(cluster, "nvidia", labels, taints):
                free["nvidia.com/gpu"] = float(machine.gpus)
            if instance.extra["efa"] and self._plugin(cluster, "efa", labels, taints):
                free["vpc.amazonaws.com/efa"] = float(instance.extra["efa"])
            found[instance.extra["node"]] = Node(instance.extra["node"], labels, taints, free)
        for owner, pod, _ in self._pods(cluster):
            node = found.get(owner.extra["placed"].get(pod.name, ""))
            if node:
                node.pods.append(pod)
        return list(found.values())

    def _pods(self, cluster: str) -> Iterator[tuple[Record, Pod, Mapping[str, Any]]]:
        """Pods that were placed and have not ended."""
        for record in self._store.of(RELEASE, JOB, DGD, cluster=cluster):
            for pod, spec in self._wanted(record):
                if pod.name in record.extra["placed"]:
                    yield record, pod, spec

    def _wanted(self, record: Record) -> Iterator[tuple[Pod, Mapping[str, Any]]]:
        namespace = self.namespace(record.type, record.inputs)
        match record.type:
            case rules.JOB if record.extra["phase"] not in _ENDED:
                spec = get(record.inputs, "spec.template.spec", {})
                yield (
                    pod_of(
                        f"{self.name(JOB, record.inputs)}-0",
                        namespace,
                        spec,
                        get(record.inputs, "spec.template.metadata.labels", {}),
                    ),
                    spec,
                )
            case rules.DGD if self._admissible(record):
                yield from graphs.pods(record.inputs)
            case rules.RELEASE if record.extra["kind"] == "platform":
                manager = get(record.inputs, "values.dynamo-operator.controllerManager", {})
                yield (
                    Pod(
                        f"{record.name}-operator-0",
                        namespace,
                        dict(_OPERATOR),
                        {},
                        {},
                        many(manager.get("tolerations")),
                        manager.get("affinity", {}),
                    ),
                    {},
                )

    @staticmethod
    def _admissible(record: Record) -> bool:
        return graphs.wrong_requests(record.inputs) is None

    @staticmethod
    def _claims(spec: Mapping[str, Any]) -> list[str]:
        return [str(c) for v in many(spec.get("volumes")) if (c := get(v, "persistentVolumeClaim.claimName"))]

    def _missing(self, cluster: str, namespace: str, spec: Mapping[str, Any]) -> str | None:
        """What a pod refers to and is not there, in the kubelet's or the scheduler's words."""
        for claim in self._claims(spec):
            found = self._store.find(PVC, f"{namespace}/{claim}", cluster)
            if found is None:
                return f'persistentvolumeclaim "{claim}" not found'
            if found.extra["phase"] != "Bound" and not self._lazy(found):
                return f"pod has unbound immediate PersistentVolumeClaims ({claim}: {found.extra['message']})"
        account = spec.get("serviceAccountName", "default")
        if account != "default" and self._store.find(SERVICE_ACCOUNT, f"{namespace}/{account}", cluster) is None:
            return f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        wanted: list[tuple[str, str, Any]] = []
        for volume in many(spec.get("volumes")):
            wanted += [(SECRET, "secret", {"name": v.get("secretName"), **v}) for v in [volume.get("secret")] if v]
            wanted += [(CONFIG_MAP, "configmap", v) for v in [volume.get("configMap")] if v]
        for container in many(spec.get("initContainers")) + many(spec.get("containers")):
            for source in many(container.get("envFrom")):
                wanted += [(SECRET, "secret", v) for v in [source.get("secretRef")] if v] + [
                    (CONFIG_MAP, "configmap", v) for v in [source.get("configMapRef")] if v
                ]
            for variable in many(container.get("env")):
                wanted += [(SECRET, "secret", v) for v in [get(variable, "valueFrom.secretKeyRef")] if v]
                wanted += [(CONFIG_MAP, "configmap", v) for v in [get(variable, "valueFrom.configMapKeyRef")] if v]
        for typ, word, ref in wanted:
            if not ref.get("optional") and self._store.find(typ, f"{namespace}/{ref.get('name')}", cluster) is None:
                return f'CreateContainerConfigError: {word} "{ref.get("name")}" not found'
        return None

    def _lazy(self, claim: Record) -> bool:
        cls = self._store.find(STORAGE_CLASS, get(claim.inputs, "spec.storageClassName"), claim.cluster)
        return cls is not None and cls.inputs.get("volumeBindingMode") == "WaitForFirstConsumer"

    def _mount_problem(self, cluster: str, namespace: str, spec: Mapping[str, Any], node: Node) -> str | None:
        for name in self._claims(spec):
            claim = self._store.find(PVC, f"{namespace}/{name}", cluster)
            volume = self._store.find(PV, claim.extra.get("volume"), cluster) if claim else None
            handle = str(get(volume.inputs, "spec.csi.volumeHandle", "")) if volume else ""
            if volume and (files := self._store.find(LUSTRE, handle)):
                if problem := self._lustre_problem(files, node):
                    return f'MountVolume.SetUp failed for volume "{volume.id}": {problem}'
                continue
            if not handle.startswith("fs-"):
                continue
            fs, zone, now = handle.split(":")[0], node.labels["topology.kubernetes.io/zone"], self._cloud.clock.now()
            targets = [
                m
                for m in self._store.of(MOUNT_TARGET)
                if m.inputs["fileSystemId"] == fs and m.outputs["availabilityZoneName"] == zone
            ]
            if not targets:
                return f'MountVolume.SetUp failed for volume "{volume.id if volume else name}": no mount target of {fs} in {zone}'
            if all(m.status != "ACTIVE" or m.extra.get("usable_at", math.inf) > now for m in targets):
                return f'MountVolume.SetUp failed for volume "{volume.id if volume else name}": Failed to resolve "{fs}.efs.{self._cloud.region}.amazonaws.com"'
        return None

    def _lustre_problem(self, files: Record, node: Node) -> str | None:
        """rules `lustre.ports`."""
        instance = next((i for i in self._store.of(INSTANCE) if i.extra["node"] == node.name), None)
        theirs = [str(one) for one in many(instance.inputs.get("securityGroups"))] if instance else []
        groups = [str(one) for one in many(files.inputs.get("securityGroupIds"))]
        if all(self._cloud.aws.lets_in(groups, theirs, *ports) for ports in rules.LUSTRE_PORTS):
            return None
        return rules.says("lustre.ports").format(dns=files.outputs["dnsName"], mount=files.outputs["mountName"])

    # ---- time -------------------------------------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        for cluster in list(self._store.of(CLUSTER)):
            if cluster.status not in ("ACTIVE", "UPDATING", "DELETING"):
                continue
            for claim in list(self._store.of(PVC, cluster=cluster.id)):
                self._bind(claim)
            alive = {n.name for n in self.nodes(cluster.id)}
            for record in list(self._store.of(RELEASE, JOB, DGD, cluster=cluster.id)):
                record.extra["placed"] = {p: n for p, n in record.extra["placed"].items() if n in alive}
            for release in self._store.of(RELEASE, cluster=cluster.id):
                self._settle_release(release)
            for graph in list(self._store.of(DGD, cluster=cluster.id)):
                self._settle_graph(graph, now)
            for job in list(self._store.of(JOB, cluster=cluster.id)):
                self._settle_job(job, now)

    def next_event(self, now: float) -> float | None:
        times: list[float] = [t for a in self._store.of(ADDON) if (t := a.extra.get("pods_at")) is not None and t > now]
        for record in self._store.of(JOB, DGD):
            if record.type == JOB and record.extra["phase"] in _ENDED:
                continue
            times += [
                t
                for key in ("ready_at", "done_at", "gives_up_at", "deadline_at")
                if (t := record.extra.get(key)) is not None and t > now
            ]
        return min(times, default=None)

    def _settle_release(self, release: Record) -> None:
        for pod, _ in self._wanted(release):
            if pod.name not in release.extra["placed"]:
                node, why = place(pod, self.nodes(release.cluster))
                release.extra["message"] = why and f"operator pod Pending: {why}"
                if node:
                    release.extra["placed"][pod.name] = node.name

    # Claims

    def _bind(self, claim: Record) -> None:
        if claim.extra["phase"] == "Bound" or claim.status == "DELETING":
            return
        spec = claim.inputs["spec"]
        name = spec.get("storageClassName")
        cls = self._store.find(STORAGE_CLASS, name, claim.cluster)
        if name and cls is None:
            claim.extra["message"] = f'storageclass.storage.k8s.io "{name}" not found'
            return
        if cls is not None and "ebs" in str(cls.inputs.get("provisioner")) and not spec.get("volumeName"):
            made = self._cloud.aws._made(
                VOLUME,
                self._store.new_id("vol-"),
                claim.name,
                claim.key,
                {"size": get(spec, "resources.requests.storage")},
            )
            claim.extra |= {"phase": "Bound", "volume": made.id, "message": ""}
            return
        problems = []
        for volume in self._store.of(PV, cluster=claim.cluster):
            problem = self._unfit(claim, volume, spec)
            if problem is None:
                volume.extra["phase"] = "Bound"
                claim.extra |= {"phase": "Bound", "volume": volume.id, "message": ""}
                return
            problems.append(f"{volume.id}: {problem}")
        claim.extra["message"] = "no persistent volumes available for this claim" + (
            f" ({'; '.join(problems)})" if problems else ""
        )

    def _unfit(self, claim: Record, volume: Record, spec: Mapping[str, Any]) -> str | None:
        held = volume.inputs["spec"]
        if volume.extra["phase"] != "Available" and get(held, "claimRef.name") != self.name(PVC, claim.inputs):
            return f"it is {volume.extra['phase']}"
        if get(held, "claimRef.name") not in (None, self.name(PVC, claim.inputs)) or get(
            held, "claimRef.namespace"
        ) not in (None, self.namespace(PVC, claim.inputs)):
            return f"it is reserved for {get(held, 'claimRef.namespace')}/{get(held, 'claimRef.name')}"
        if spec.get("volumeName") not in (None, self.name(PV, volume.inputs)):
            return f"the claim wants volume {spec['volumeName']}"
        if (held.get("storageClassName") or "") != (spec.get("storageClassName") or ""):
            return f"its class is {held.get('storageClassName') or 'none'}, the claim's {spec.get('storageClassName') or 'none'}"
        if quantity(get(held, "capacity.storage", 0)) < quantity(get(spec, "resources.requests.storage", 0)):
            return (
                f"its capacity {get(held, 'capacity.storage')} is less than {get(spec, 'resources.requests.storage')}"
            )
        if not set(many(spec.get("accessModes"))) <= set(many(held.get("accessModes"))):
            return f"its access modes are {', '.join(many(held.get('accessModes')))}"
        return self._driver_problem(claim.cluster, held)

    def _driver_problem(self, cluster: str, held: Mapping[str, Any]) -> str | None:
        if get(held, "csi.driver") == "fsx.csi.aws.com":
            return self._lustre_driver_problem(cluster, held)
        if get(held, "csi.driver") != "efs.csi.aws.com":
            return None
        fs, _, point = str(get(held, "csi.volumeHandle", "")).partition("::")
        if self._store.find(FILE_SYSTEM, fs) is None:
            return f"there is no file system {fs}"
        if point and ((found := self._store.find(ACCESS_POINT, point)) is None or found.inputs["fileSystemId"] != fs):
            return f"there is no access point {point} of {fs}"
        if not any(m.inputs["fileSystemId"] == fs for m in self._store.of(MOUNT_TARGET)):
            return f"{fs} has no mount target"
        addon = self._store.find(ADDON, f"{cluster}:aws-efs-csi-driver")
        if addon is None or addon.status != "ACTIVE":
            return "the driver efs.csi.aws.com does not run"
        if addon.extra["pods_at"] > self._cloud.clock.now():
            return rules.says("csi.late").partition(":")[0]
        if many(addon.inputs.get("podIdentityAssociations")):
            return None
        links = [
            p
            for p in self._store.of(POD_IDENTITY)
            if p.inputs["clusterName"] == cluster and p.inputs["serviceAccount"] == "efs-csi-controller-sa"
        ]
        if not any(p.created_at <= addon.extra["pods_at"] and self._efs_policy(p) for p in links):
            return "the driver's pods have no credentials: a pod identity association for efs-csi-controller-sa (with AmazonEFSCSIDriverPolicy) must exist before the add-on"
        if self._store.find(ADDON, f"{cluster}:eks-pod-identity-agent") is None:
            return "the driver's pods have no credentials: the add-on eks-pod-identity-agent does not run"
        return None

    def _lustre_driver_problem(self, cluster: str, held: Mapping[str, Any]) -> str | None:
        """rules `lustre.driver`."""
        handle = str(get(held, "csi.volumeHandle", ""))
        files = self._store.find(LUSTRE, handle)
        if files is None or files.status != "ACTIVE":
            return f"there is no file system {handle}"
        for attribute, output in (("dnsname", "dnsName"), ("mountname", "mountName")):
            if get(held, f"csi.volumeAttributes.{attribute}") != files.outputs[output]:
                return f"{handle} has another {attribute}"
        addon = self._store.find(ADDON, f"{cluster}:aws-fsx-csi-driver")
        if addon is None or addon.status != "ACTIVE":
            return "the driver fsx.csi.aws.com does not run"
        if addon.extra["pods_at"] > self._cloud.clock.now():
            return rules.says("csi.late").partition(":")[0].replace("efs.csi", "fsx.csi")
        if self._store.find(ADDON, f"{cluster}:eks-pod-identity-agent") is None:
            return "the add-on eks-pod-identity-agent does not run, without which the driver's is refused"
        return None

    def _efs_policy(self, association: Record) -> bool:
        role = self._store.find(ROLE, association.inputs["roleArn"])
        return role is not None and self._cloud.aws._has_policy(role, "AmazonEFSCSIDriverPolicy")

    # Graphs

    def _graph_problem(self, graph: Record) -> str | None:
        """What the graph still lacks; as far as it goes, its pods are placed."""
        cluster, namespace = graph.cluster, self.namespace(DGD, graph.inputs)
        if not self.operator_alive(cluster):
            return "the operator does not run: nobody reconciles the graph"
        if problem := graphs.wrong_requests(graph.inputs):
            return problem
        problems: list[str] = []
        nodes = self.nodes(cluster)
        by_name = {n.name: n for n in nodes}
        for pod, spec in self._wanted(graph):
            problem = self._missing(cluster, namespace, spec)
            if problem is None and pod.name not in graph.extra["placed"]:
                node, why = place(pod, nodes)
                if node is None:
                    problem = f"Unschedulable: {why}"
                else:
                    graph.extra["placed"][pod.name] = node.name
            if problem is None:
                problem = self._mount_problem(cluster, namespace, spec, by_name[graph.extra["placed"][pod.name]])
            if problem:
                problems.append(f"pod {pod.name}: {problem}")
        weights = [
            j
            for j in self._store.of(JOB, cluster=cluster)
            if self._job_kind(j) == "weights" and self.namespace(JOB, j.inputs) == namespace
        ]
        if not problems and any(j.extra["phase"] == "failed" for j in weights):
            problems.append(
                "pods of the workers: CrashLoopBackOff: the model's snapshot is not complete (the weights Job failed)"
            )
        elif not problems and weights and not any(j.extra["phase"] == "complete" for j in weights):
            problems.append("the workers wait: the model's snapshot is not complete (the weights Job still runs)")
        if len(problems) > 3:
            problems = [*problems[:3], f"and {len(problems) - 3} more pods"]
        return "; ".join(problems) or None

    def _load_time(self, graph: Record) -> float:
        d = self._cloud.durations
        text = json.dumps(get(graph.inputs, "spec", {}), default=str)
        if "nvidia.com/gpu" not in text:
            return d["image.small"]
        key = "weights.load.parallel" if "dynamo.trtllm" in text else "weights.load.default"
        if "runai_streamer" in text:
            key = "weights.load.streamed"
        namespace = self.namespace(DGD, graph.inputs)
        jobs = [j for j in self._store.of(JOB, cluster=graph.cluster) if self._job_kind(j) == "weights"]
        here = [j for j in jobs if self.namespace(JOB, j.inputs) == namespace]
        size = self._weight_bytes(here[-1]) if here else None
        loaded = self._on_lustre(key, d.of_bytes(key, size), size, here[-1] if here else None, self._gpu_nodes(graph))
        cached = "VLLM_CACHE_ROOT" in text and any(f.extra.get("compiled") for f in self._store.of(FILE_SYSTEM))
        return (
            d["image.engine.parallel" if self._pulls_in_parallel(graph) else "image.engine"]
            + loaded
            + d["engine.init"]
            + d["engine.compile.cached" if cached else "engine.compile.cold"]
            + d["engine.graphs"]
        )

    def _gpu_nodes(self, graph: Record) -> int:
        """On how many nodes the graph's pods have GPUs."""
        placed = graph.extra["placed"]
        return len(
            {
                placed[pod.name]
                for pod, _ in self._wanted(graph)
                if pod.requests.get("nvidia.com/gpu") and pod.name in placed
            }
        )

    def _on_lustre(self, key: str, seconds: float, size: float | None, job: Record | None, nodes: int) -> float:
        """`seconds` for a row of the durations, or what it takes where the weights of `job` are on FSx for Lustre."""
        if key in self._cloud.durations.overrides:
            return seconds
        for files in self._mounted(job) if job else ():
            if files.type == LUSTRE:
                rate = mb_per_second(files.inputs["storageCapacity"], files.inputs["perUnitStorageThroughput"])
                return seconds_on_lustre(key, seconds, size, rate, max(1, nodes))
        return seconds

    def _pulls_in_parallel(self, graph: Record) -> bool:
        """Whether the GPU nodes the graph's pods select were started with nodeadm's gate for it."""
        selectors = [
            get(one, "podTemplate.spec.nodeSelector", {}) for one in many(get(graph.inputs, "spec.components"))
        ]
        for group in self._store.of(NODE_GROUP):
            labels = get(group.inputs, "labels", {})
            template = self._store.find(LAUNCH_TEMPLATE, get(group.inputs, "launchTemplate.id"))
            text = base64.b64decode(str(get(template.inputs, "userData", ""))).decode() if template else ""
            chosen = any(one and one.items() <= labels.items() for one in selectors)
            if chosen and many(group.inputs.get("taints")) and "FastImagePull: true" in text:
                return True
        return False

    def _settle_graph(self, graph: Record, now: float) -> None:
        extra = graph.extra
        if extra["state"] == "failed" or graph.status == "DELETING":
            return
        fault = extra.get("fault")
        was_ready = extra["state"] == "successful"
        problem = self._graph_problem(graph)
        if problem is None and fault == "failed":
            extra |= {"state": "failed", "message": "reconciling the graph failed", "ready_at": None}
            self._cloud.event("graph-failed", graph.name, extra["message"])
            return
        if problem is None and fault in ("ImagePullBackOff", "CrashLoopBackOff"):
            problem = f"pods of {graph.name}: {fault}"
        if problem is not None:
            if extra["message"] != problem or extra["state"] != "pending":
                self._cloud.event("graph-pending", graph.name, problem)
            extra |= {"state": "pending", "message": problem, "ready_at": None}
            extra["blocked_since"] = extra.get("blocked_since") if extra.get("blocked_since") is not None else now
        elif was_ready:
            return
        elif extra.get("ready_at") is None:
            extra |= {
                "state": "pending",
                "message": "images are pulled, weights are loaded",
                "ready_at": now + self._load_time(graph),
                "blocked_since": None,
            }
            self._cloud.event("graph-starting", graph.name, "every pod is placed")
        elif extra["ready_at"] <= now:
            extra |= {"state": "successful", "message": "all resources are ready"}
            for fs in self._store.of(FILE_SYSTEM):
                fs.extra["compiled"] = True
            self._cloud.event("graph-ready", graph.name, "")
        if was_ready and extra["state"] != "successful":
            self._cloud.event("graph-not-ready", graph.name, extra["message"])

    # Jobs

    @staticmethod
    def _job_kind(job: Record) -> str:
        labels = {**get(job.inputs, "spec.template.metadata.labels", {}), **get(job.inputs, "metadata.labels", {})}
        return str(labels.get(JOB_LABEL, "other"))

    def _end(self, job: Record, phase: str, message: str = "", reason: str | None = None) -> None:
        reason = reason or {"complete": "CompletionsReached", "failed": self._why_failed(job)}[phase]
        job.extra |= {"phase": phase, "message": message, "reason": reason, "placed": {}}
        self._cloud.event(f"job-{phase}", job.name, message)

    def _settle_job(self, job: Record, now: float) -> None:
        extra = job.extra
        if extra["phase"] in _ENDED or job.status == "DELETING":
            return
        if extra["deadline_at"] is not None and extra["deadline_at"] <= now:
            last = extra["message"] or f"it was {extra['phase']}"
            message = f"Job was active longer than specified deadline ({last})"
            self._end(job, "failed", message, "DeadlineExceeded")
            return
        if extra["phase"] == "running" and not extra["placed"]:
            extra["phase"] = "pending"  # its node went: the controller makes the pod anew
        if extra["phase"] == "pending" and not self._start_job(job, now):
            return
        kind = self._job_kind(job)
        if kind == "readiness":
            self._settle_readiness(job, now)
        elif extra["done_at"] <= now:
            problem = (
                self._dry_run(job)
                if kind == "admission"
                else self._download(job)
                if kind == "weights"
                else extra["fault"]
            )
            if kind == "admission" and problem and "failed calling webhook" in problem:
                # recipe/scripts/admission.py asks again while the webhook does not answer, up to the Job's own deadline.
                extra |= {"message": problem, "done_at": now + _ASK_AGAIN_S}
                return
            self._end(job, "failed" if problem else "complete", problem or "")
            if kind == "weights" and not problem:
                for files in self._mounted(job):
                    files.extra["weights"] = sorted({*files.extra.get("weights", ()), *self._snapshot(job)})

    @staticmethod
    def _why_failed(job: Record) -> str:
        """The controller's reason: our scripts end for good with exit codes that the Job's failure policy names."""
        named = many(get(job.inputs, "spec.podFailurePolicy.rules"))
        return "PodFailurePolicy" if any(rule.get("action") == "FailJob" for rule in named) else "BackoffLimitExceeded"

    def _start_job(self, job: Record, now: float) -> bool:
        namespace, extra, d = self.namespace(JOB, job.inputs), job.extra, self._cloud.durations
        pod, spec = next(iter(self._wanted(job)))
        problem = self._missing(job.cluster, namespace, spec)
        if problem is None:
            nodes = self.nodes(job.cluster)
            node = next((n for n in nodes if n.name == extra["placed"].get(pod.name)), None)
            if node is None:
                node, why = place(pod, nodes)
                problem = f"Unschedulable: {why}" if node is None else None
            if node is not None:
                extra["placed"][pod.name] = node.name
                problem = self._mount_problem(job.cluster, namespace, spec, node)
        extra["message"] = problem or ""
        if problem is not None:
            return False
        kind = self._job_kind(job)
        key = {
            "weights": "weights.download",
            "head": "weights.head.job",
            "admission": "admission.job",
            "readiness": "readiness.job",
            "benchmark": "benchmark.job",
        }.get(kind, "other.job")
        if kind == "weights" and _WITHOUT in self._environment(job):
            key = "weights.configuration"
        seconds = (
            d["image.small"]
            + self._on_lustre(key, d.of_bytes(key, self._weight_bytes(job)), self._weight_bytes(job), job, 1)
            + extra["fault_delay"]
            + (d["weights.backoff"] if extra["fault"] == "429" else 0)
        )
        if kind == "head" and not any(
            self._snapshot(job) & set(fs.extra.get("weights", ())) for fs in self._mounted(job)
        ):
            # recipe/scripts/head.py, told how long GPU nodes take: until the download has as long to go.
            size = self._weight_bytes(job)
            whole = self._on_lustre("weights.download", d.of_bytes("weights.download", size), size, job, 1)
            seconds += max(0.0, whole - float(self._environment(job).get("LEAD_SECONDS", 0)))
        if kind == "weights" and any(
            self._snapshot(job) & set(fs.extra.get("weights", ())) for fs in self._mounted(job)
        ):
            seconds = d["image.small"] + d["weights.verify"]
        if extra["fault"] in ("401", "disk-full"):
            seconds = d["image.small"] + (5 if extra["fault"] == "401" else d[key] / 2)
        extra |= {"phase": "running", "started_at": now, "done_at": now + seconds}
        if extra["fault"] == "429":
            extra["message"] = "waiting as the hub asks: 429 Client Error: Too Many Requests"
        if kind == "readiness":
            extra |= {"done_at": None, "gives_up_at": None}
        self._cloud.event("job-running", job.name, kind)
        return True

    def _snapshot(self, job: Record) -> set[str]:
        """What a download Job downloads, where it says so."""
        told = self._environment(job)
        keys = ("MODEL_ID", "MODEL_REVISION", "MODEL_FILES_WITHOUT")
        return {" ".join(told.get(key, "") for key in keys)} if "MODEL_ID" in told else set()

    def _mounted(self, job: Record) -> Iterator[Record]:
        """File systems behind a Job's claims."""
        for name in self._claims(get(job.inputs, "spec.template.spec", {})):
            claim = self._store.find(PVC, f"{self.namespace(JOB, job.inputs)}/{name}", job.cluster)
            volume = self._store.find(PV, claim.extra.get("volume"), job.cluster) if claim else None
            handle = str(get(volume.inputs, "spec.csi.volumeHandle", "")) if volume else ""
            if files := self._store.find(FILE_SYSTEM, handle.split(":")[0]) or self._store.find(LUSTRE, handle):
                yield files

    @staticmethod
    def _download(job: Record) -> str | None:
        return {
            "401": "401 Client Error: Unauthorized: the token is missing or does not give access to the model",
            "disk-full": "OSError: [Errno 28] No space left on device",
            # The words of recipe/scripts/download.py when a file stays short.
            "truncated": "Damaged: model-00003-of-00017.safetensors: 1048576 bytes instead of 4932328944",
            "429": None,  # backed off and went on
        }.get(job.extra["fault"] or "429", job.extra["fault"])

    def _dry_run(self, job: Record) -> str | None:
        """What an admission Job finds: it posts the graph of its ConfigMap with server-side dry run, strictly."""
        namespace = self.namespace(JOB, job.inputs)
        spec = get(job.inputs, "spec.template.spec", {})
        names = [get(v, "configMap.name") for v in many(spec.get("volumes"))]
        names += [get(s, "configMapRef.name") for c in many(spec.get("containers")) for s in many(c.get("envFrom"))]
        graph = None
        for name in filter(None, names):
            found = self._store.find(CONFIG_MAP, f"{namespace}/{name}", job.cluster)
            for text in get(found.inputs, "data", {}).values() if found else ():
                try:
                    documents = list(yaml.safe_load_all(text))
                except yaml.YAMLError:
                    continue
                graph = next(
                    (d for d in documents if isinstance(d, dict) and d.get("kind") == "DynamoGraphDeployment"), graph
                )
        if graph is None:
            return f"no DynamoGraphDeployment in the ConfigMaps {', '.join(map(str, filter(None, names))) or '(none mounted)'}"
        cluster = self._store.find(CLUSTER, job.cluster)
        errors = (
            self.admission_errors(cluster, graph, strict=True, name=str(get(graph, "metadata.name")))
            if cluster
            else ["no cluster"]
        )
        return f"the API server refuses the graph: {'; '.join(errors)}" if errors else None

    def _weight_bytes(self, job: Record) -> float | None:
        """Of the model a weights Job downloads; None where the catalogue does not know it."""
        model = MODELS.get(self._environment(job).get(_MODEL, ""))
        return model.weight_bytes if model else None

    @staticmethod
    def _environment(job: Record) -> dict[str, str]:
        containers = many(get(job.inputs, "spec.template.spec.containers"))
        return {str(v["name"]): str(v.get("value", "")) for c in containers for v in many(c.get("env")) if "name" in v}

    def _graph_of(self, job: Record) -> Record | None:
        namespace = self.namespace(JOB, job.inputs)
        inside = [g for g in self._store.of(DGD, cluster=job.cluster) if self.namespace(DGD, g.inputs) == namespace]
        if name := self._environment(job).get(_GRAPH):
            return next((g for g in inside if self.name(DGD, g.inputs) == name), None)
        return inside[0] if len(inside) == 1 else None

    def _settle_readiness(self, job: Record, now: float) -> None:
        extra, graph = job.extra, self._graph_of(job)
        if graph is not None and graph.extra["state"] == "successful":
            if extra["done_at"] is None:
                extra |= {"done_at": now + self._cloud.durations["readiness.job"], "gives_up_at": None}
            elif extra["done_at"] <= now:
                self._end(job, "complete")
            return
        extra["done_at"] = None
        if graph is None:
            self._end(job, "failed", "there is no graph to wait for")
            return
        problem = graph.extra["message"] if graph.extra.get("blocked_since") is not None else None
        if graph.extra["state"] == "failed" or (problem and "CrashLoopBackOff" in problem):
            self._end(job, "failed", f"graph {graph.name}: {graph.extra['state']}: {graph.extra['message']}")
        elif problem is None:
            extra["gives_up_at"] = None
        elif extra["gives_up_at"] is None:
            asked = self._environment(job).get(_IMAGE_GRACE if "ImagePullBackOff" in problem else _UNSCHEDULABLE_GRACE)
            extra["gives_up_at"] = now + (float(asked) if asked else self._cloud.durations["readiness.grace"])
        elif extra["gives_up_at"] <= now:
            self._end(job, "failed", f"graph {graph.name}: {problem}")
