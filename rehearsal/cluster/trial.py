"""One stack on a real control plane: its nodes, its objects and its workers' pods, and what became of them."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from recipe.constants import CPU_POOL, EFA_RESOURCE, GPU_RESOURCE, JOB_LABEL, POOL_LABEL
from recipe.placement import quantity
from recipe.plan import Late, Manifest, Plan
from rehearsal.cloud.scheduler import requests
from rehearsal.cluster import operator
from rehearsal.cluster.api import Refused, wait_for
from rehearsal.cluster.controlplane import Cluster
from rehearsal.cluster.nodes import SYSTEM_NAMESPACE, nodes, system_pods

EXIT: Final = "dynamo-recipes/pretend-exit"
"""Annotation of a Job's pods: the code they end with, or `never` (see stages.yaml). Without it they succeed."""
COMPONENT: Final = "nvidia.com/dynamo-component"
_LATE: Final = {
    Late.FILE_SYSTEM: "fs-0123456789abcdef0",
    Late.LUSTRE: "fs-0123456789abcdef1",
    Late.LUSTRE_DNS: "fs-0123456789abcdef1.fsx.us-east-2.amazonaws.com",
    Late.LUSTRE_MOUNT: "abcdefgh",
    Late.HF_TOKEN: "not-a-token",
    Late.GPU_NODES: "0123abcd",
    Late.CPU_NODES: "4567cdef",
}
_GONE_SECONDS: Final = 60


@dataclass(frozen=True)
class PodState:
    """A pod as the scheduler left it."""

    name: str
    component: str
    """Of the graph, or the Job's purpose."""
    phase: str
    node: str | None
    why: str
    """The scheduler's words where it found no node."""
    gpus: int
    efa: int


class Trial:
    """Makes things for `plan` in `cluster`, looks at them, and takes them away again."""

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        self.api, self.plan = cluster.api, plan
        self.namespace = plan.names.namespace
        self._made: list[Manifest] = []

    # ---- making

    def add(self, manifest: Manifest) -> Manifest:
        """Create it, strictly, and take it away at the end."""
        made = self.api.create(manifest)
        self._made.append(manifest)
        return made

    def add_nodes(self, *, gpu_count: int | None = None, cpu_type: str | None = None) -> None:
        """The Plan's nodes, Ready, with the add-ons' pods on them."""
        wanted = nodes(self.plan, gpu_count=gpu_count, cpu_type=cpu_type)
        for node in wanted:
            self.add(node)
        for node in wanted:
            wait_for(f"node {node['metadata']['name']} to be Ready", partial(self._ready, node))
        system = system_pods(self.plan, wanted)
        for pod in system:
            self.add(pod)
        for pod in system:
            wait_for(f"pod {pod['metadata']['name']} to be placed", partial(self._placed, pod))

    def objects(self) -> list[Manifest]:
        """Everything `ops plan --manifests` writes, in its order, with pretended values for what AWS would say."""
        return [filled(manifest) for manifest in self.plan.objects.all()]

    def add_objects(self, *, graph: bool = True, jobs_end: bool = False) -> None:
        """Create every object in its order, the graph if asked for. Claims are waited for, as the program does.

        Unless `jobs_end`, the Jobs' pods go on running, so that everything the Plan counts is there at once.
        """
        for manifest in self.objects():
            if manifest["kind"] == "DynamoGraphDeployment" and not graph:
                continue
            held = manifest["kind"] == "Job" and not jobs_end
            self.add(ending_with(manifest, "never") if held else manifest)
            if manifest["kind"] == "PersistentVolumeClaim":
                wait_for(f"claim {manifest['metadata']['name']} to be bound", partial(self._bound, manifest))

    def reconcile(self, graph: Manifest, order: Sequence[str] = ()) -> None:
        """Do the operator's part for `graph` as created; components in `order` first, each settled before the next."""
        made = operator.owned(graph)
        rank = {name: index for index, name in enumerate(order)}
        made.sort(key=lambda one: rank.get(one["metadata"].get("labels", {}).get(COMPONENT, ""), -1))
        for manifest in [*operator.left_behind(graph), *made]:
            self.api.create(manifest)
            component = manifest["metadata"].get("labels", {}).get(COMPONENT)
            if manifest["kind"] == "Deployment" and component in rank:
                self.settled(manifest["spec"]["replicas"], component=component)

    def graph(self) -> Manifest:
        """The graph as the server holds it; where there is none, as it would be, without a uid."""
        wanted = filled(self.plan.objects.graph)
        try:
            held = self.api.read(wanted)
        except Refused:
            held = None
        return held or wanted

    @property
    def accepted(self) -> int:
        """How many of the Plan's objects the server has taken so far."""
        return sum(one["kind"] != "Node" and one["metadata"].get("namespace") != SYSTEM_NAMESPACE for one in self._made)

    # ---- looking

    def expected_pods(self) -> int:
        """Every worker and frontend of the graph, and the Jobs'."""
        components = self.plan.objects.graph["spec"]["components"]
        jobs = [one for one in self.plan.objects.all() if one["kind"] == "Job"]
        return sum(int(component["replicas"]) for component in components) + len(jobs)

    def pods(self, component: str | None = None) -> list[PodState]:
        """Of the graph and of the Jobs."""
        found = [_state(pod) for pod in self.api.list("v1", "Pod", self.namespace)]
        return [pod for pod in found if component in (None, pod.component)]

    def settled(self, count: int, component: str | None = None, seconds: float = 60.0) -> list[PodState]:
        """All pods, once there are `count` and the scheduler has decided on each."""

        def look() -> list[PodState] | None:
            found = self.pods(component)
            decided = [pod for pod in found if pod.phase != "Pending" or (pod.node is None and pod.why)]
            return found if len(decided) >= count else None

        return wait_for(f"{count} pods of {component or self.plan.stack} to be placed or refused", look, seconds)

    def roles_by_node(self) -> list[dict[str, int]]:
        """Workers of each component on each GPU node that has any."""
        found: dict[str, Counter[str]] = {}
        for pod in self.pods():
            if pod.gpus and pod.node:
                found.setdefault(pod.node, Counter())[pod.component] += 1
        return [dict(found[node]) for node in sorted(found)]

    def on_cpu_pool(self, pod: PodState) -> bool:
        """Whether it went to a CPU node."""
        node = self.api.read({"apiVersion": "v1", "kind": "Node", "metadata": {"name": pod.node}})
        return node is not None and node["metadata"]["labels"][POOL_LABEL] == CPU_POOL

    def asked_of_cpu_pool(self) -> tuple[int, int]:
        """CPU in millis and memory in MiB that all pods on this stack's CPU nodes request, the add-ons' stand-ins among them."""
        made = [one["metadata"] for one in self._made if one["kind"] == "Node"]
        own = {node["name"] for node in made if node["labels"][POOL_LABEL] == CPU_POOL}
        asked = [requests(pod["spec"]) for pod in self.api.list("v1", "Pod") if pod["spec"].get("nodeName") in own]
        cpu, memory = (sum(one.get(resource, 0.0) for one in asked) for resource in ("cpu", "memory"))
        return round(cpu * 1000), round(memory / 2**20)

    def job_end(self, job: Manifest, seconds: float = 60.0) -> tuple[str, str]:
        """Complete or Failed, and the controller's reason, once the Job has ended."""

        def ended() -> tuple[str, str] | None:
            held = self.api.read(job) or {}
            for condition in held.get("status", {}).get("conditions", []):
                if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
                    return condition["type"], condition.get("reason", "")
            return None

        return wait_for(f"Job {job['metadata']['name']} to end", ended, seconds)

    # ---- taking away

    def wait_for_place(self) -> None:
        """Until the namespaces of a trial before this one are gone: deleted ones still go for some seconds, and take nothing new."""
        for one in [one for one in self.plan.objects.all() if one["kind"] == "Namespace"]:
            name = one["metadata"]["name"]
            wait_for(f"namespace {name} to be gone", partial(self._free, one), _GONE_SECONDS)

    def _free(self, namespace: Manifest) -> bool:
        held = self.api.read(filled(namespace)) or {"metadata": {}}
        return "deletionTimestamp" not in held["metadata"]

    def clear(self) -> None:
        """Everything that was made. Pods and nodes are gone then; the namespace goes in its own time."""
        self.clear_objects()
        self.clear_nodes()

    def clear_objects(self) -> None:
        """Everything but nodes and volumes. Trials that share a cluster do this all of them first: the pods of one may be on another's nodes."""
        for manifest in reversed(self._made):
            if manifest["kind"] == "DynamoGraphDeployment" and self.api.read(manifest):
                self.api.patch(manifest, {"metadata": {"finalizers": None}})
            if manifest["kind"] not in ("Node", "PersistentVolume"):
                self.api.delete(manifest)
        # Nodes last: kwok ends pods on nodes it knows only.
        try:
            wait_for("every pod to be gone", lambda: not self._left(), _GONE_SECONDS)
        except TimeoutError as error:
            error.add_note("\n".join(f"still there: {_in_short(pod)}" for pod in self._left()))
            raise

    def clear_nodes(self) -> None:
        """Nodes and volumes, when no pod is on them any more."""
        for manifest in self._made:
            if manifest["kind"] in ("Node", "PersistentVolume"):
                self.api.delete(manifest)
        self._made.clear()

    def _left(self) -> list[Manifest]:
        stand_ins = self.api.list("v1", "Pod", labels=f"dynamo-recipes/stand-in={self.plan.stack}")
        return stand_ins + self.api.list("v1", "Pod", self.namespace)

    def _bound(self, claim: Manifest) -> bool:
        return ((self.api.read(claim) or {}).get("status") or {}).get("phase") == "Bound"

    def _ready(self, node: Manifest) -> bool:
        held = self.api.read(node) or {}
        conditions = {one["type"]: one["status"] for one in held.get("status", {}).get("conditions", [])}
        taints = [taint["key"] for taint in held.get("spec", {}).get("taints", [])]
        return conditions.get("Ready") == "True" and not any(key.startswith("node.kubernetes.io/") for key in taints)

    def _placed(self, pod: Manifest) -> bool:
        held = _state(self.api.read(pod) or {"metadata": pod["metadata"], "spec": pod["spec"]})
        return held.phase == "Running" or bool(held.why)


def filled(manifest: Manifest) -> Manifest:
    """`manifest` with pretended values in place of `${…}`, and without what only Pulumi reads."""
    text = json.dumps(manifest)
    for name, value in _LATE.items():
        text = text.replace(name, value)
    for purpose in ("model", "compilation", "perf"):
        text = text.replace(Late.access_point(purpose), f"fsap-{purpose}")
    found: Manifest = json.loads(text)
    return found


def ending_with(job: Manifest, code: int | str, **spec: Any) -> Manifest:
    """A copy of `job` whose pods end with `code` (or `never`), with fields of its spec replaced."""
    changed = copy.deepcopy(job)
    template = changed["spec"]["template"]["metadata"]
    template["annotations"] = {**template.get("annotations", {}), EXIT: str(code)}
    changed["metadata"]["name"] += f"-{code}"
    changed["spec"] |= spec
    return changed


def _in_short(pod: Manifest) -> str:
    metadata, status = pod["metadata"], pod.get("status", {})
    owners = ", ".join(f"{one['kind']} {one['name']}" for one in metadata.get("ownerReferences", ()))
    going = f"being deleted since {metadata['deletionTimestamp']}" if "deletionTimestamp" in metadata else "not deleted"
    where = pod["spec"].get("nodeName", "no node")
    held = f", held by {', '.join(metadata['finalizers'])}" if metadata.get("finalizers") else ""
    return f"{metadata['namespace']}/{metadata['name']} ({owners or 'nobody'}'s) on {where}, {status.get('phase')}, {going}{held}"


def _state(pod: Manifest) -> PodState:
    status, labels = pod.get("status", {}), pod["metadata"].get("labels", {})
    why = next(
        (
            one.get("message", "")
            for one in status.get("conditions", [])
            if one["type"] == "PodScheduled" and one["status"] == "False"
        ),
        "",
    )
    asked: Counter[str] = Counter()
    for container in pod["spec"]["containers"]:
        resources = container.get("resources", {})
        for resource, amount in {**resources.get("limits", {}), **resources.get("requests", {})}.items():
            if resource in (GPU_RESOURCE, EFA_RESOURCE):
                asked[resource] += int(quantity(amount))
    return PodState(
        name=pod["metadata"]["name"],
        component=labels.get(COMPONENT) or labels.get(JOB_LABEL, ""),
        phase=status.get("phase", "Pending"),
        node=pod["spec"].get("nodeName"),
        why=why,
        gpus=asked[GPU_RESOURCE],
        efa=asked[EFA_RESOURCE],
    )
