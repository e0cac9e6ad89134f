"""The pretend cluster's objects in the form an API server gives them, made from the pretend cloud's books (`ops.kube.Kube`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ops.kube import KubeError, Object
from rehearsal.clock import ManualClock
from rehearsal.cloud import Cloud, rules
from rehearsal.cloud.scheduler import place
from rehearsal.cloud.store import Record

_NAMESPACED: Final = re.compile(r".*/namespaces/([^/]+)/(\w+)$")


class PretendKube:
    """The objects of the cluster called `cluster`. Reads, and writes nothing."""

    def __init__(self, folder: Path, cluster: str) -> None:
        self.cloud = Cloud(folder, ManualClock())
        self.cluster = cluster
        found = self.cloud.store.find(rules.CLUSTER, cluster)
        if found is None or found.status not in ("ACTIVE", "UPDATING"):
            why = f"cluster {cluster} is {found.status}" if found else f"there is no cluster {cluster}"
            raise KubeError(f"configured Kubernetes cluster is unreachable: {why}")

    def items(self, path: str) -> list[Object]:
        if path == "/api/v1/nodes":
            return list(self._nodes())
        found = _NAMESPACED.match(path)
        assert found, path
        namespace, kind = found.groups()
        kinds = {"jobs": rules.JOB, "persistentvolumeclaims": rules.PVC, "dynamographdeployments": rules.DGD}
        if kind in kinds:
            return [self._object(record) for record in self._of(kinds[kind], namespace)]
        pods = list(self._pods(namespace))
        if kind == "pods":
            return [pod for pod, _ in pods]
        return [*(event for _, event in pods if event), *self._claim_events(namespace)]

    def text(self, path: str) -> str:
        # A pretended pod says nothing of its own; the line shows which one was asked.
        return f"(simulated) log of {path}\n"

    def _of(self, typ: str, namespace: str) -> Iterator[Record]:
        kubernetes = self.cloud.kubernetes
        return (
            one
            for one in self.cloud.store.of(typ, cluster=self.cluster)
            if kubernetes.namespace(typ, one.inputs) == namespace
        )

    def _object(self, record: Record) -> Object:
        _, shown = self.cloud.kubernetes.held(record)
        if record.status == "DELETING":
            finalizers = {rules.PVC: ["kubernetes.io/pvc-protection"], rules.DGD: ["nvidia.com/finalizer"]}
            shown["metadata"] |= {
                "deletionTimestamp": "2026-11-23T00:00:00Z",
                "finalizers": finalizers.get(record.type, []),
            }
        return shown

    def _nodes(self) -> Iterator[Object]:
        ready = {node.name: node for node in self.cloud.kubernetes.nodes(self.cluster)}
        for instance in self.cloud.aws.instances(self.cluster):
            name = instance.extra["node"]
            if instance.extra["launched_at"] > self.cloud.store.now:
                continue
            node = ready.get(name)
            group = self.cloud.store.find(rules.NODE_GROUP, instance.owner)
            labels = node.labels if node else dict((group.inputs.get("labels") if group else None) or {})
            condition = {
                "type": "Ready", "status": "True" if node else "False", "reason": "KubeletReady" if node else "KubeletNotReady",
                "message": "" if node else self.cloud.aws.join_problem(instance) or "the node boots",
            }  # fmt: skip
            allocatable = {key: str(int(value)) for key, value in node.allocatable.items()} if node else {}
            yield {
                "metadata": {"name": name, "labels": labels},
                "status": {"conditions": [condition], "allocatable": allocatable},
            }

    def _pods(self, namespace: str) -> Iterator[tuple[Object, Object | None]]:
        """Each pod that should be there, and the warning the kubelet or the scheduler would give about it."""
        kubernetes = self.cloud.kubernetes
        nodes = kubernetes.nodes(self.cluster)
        by_name = {node.name: node for node in nodes}
        for record in self.cloud.store.of(rules.RELEASE, rules.JOB, rules.DGD, cluster=self.cluster):
            for pod, spec in kubernetes._wanted(record):
                if pod.namespace != namespace:
                    continue
                node = by_name.get(record.extra["placed"].get(pod.name, ""))
                missing = kubernetes._missing(self.cluster, namespace, spec) if spec else None
                waiting = mount = None
                status: dict[str, Any] = {"phase": "Pending", "conditions": []}
                if node is None:
                    why = missing or place(pod, nodes)[1] or "no node"
                    status["conditions"] = [
                        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
                    ]
                else:
                    mount = kubernetes._mount_problem(self.cluster, namespace, spec, node) if spec else None
                    fault = record.extra.get("fault")
                    config = missing if missing and missing.startswith("CreateContainerConfigError") else None
                    broken = (
                        fault
                        if fault in ("ImagePullBackOff", "CrashLoopBackOff") and record.type == rules.DGD
                        else None
                    )
                    if config or broken:
                        reason = "CreateContainerConfigError" if config else str(broken)
                        waiting = {"reason": reason, "message": (config or "").partition(": ")[2]}
                    status["phase"] = "Pending" if mount or waiting else "Running"
                if waiting:
                    status["containerStatuses"] = [{"name": "main", "state": {"waiting": waiting}}]
                metadata = {"name": pod.name, "namespace": namespace, "labels": pod.labels}
                event = _event("Pod", pod.name, namespace, "FailedMount", mount) if mount else None
                yield {"metadata": metadata, "spec": {"nodeName": node.name if node else None}, "status": status}, event

    def _claim_events(self, namespace: str) -> Iterator[Object]:
        for claim in self._of(rules.PVC, namespace):
            if claim.extra["phase"] != "Bound" and claim.extra.get("message"):
                yield _event(
                    "PersistentVolumeClaim",
                    claim.inputs["metadata"]["name"],
                    namespace,
                    "FailedBinding",
                    claim.extra["message"],
                )


def _event(kind: str, name: str, namespace: str, reason: str, message: str) -> Object:
    about = {"kind": kind, "name": name, "namespace": namespace}
    return {"involvedObject": about, "type": "Warning", "reason": reason, "message": message}
