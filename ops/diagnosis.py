"""What holds a deployment: evidence from everywhere, each piece given to its row of `ops.symptoms`, in order of cause. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ops.aws import Part, Refusal
from ops.kube import Object, Snapshot
from ops.symptoms import BY_KEY, OTHER, Symptom, rank, recognise
from recipe.constants import EFA_RESOURCE, GPU_RESOURCE, POOL_LABEL
from recipe.plan import BasePlan, Plan

_WELL: Final = ("ACTIVE", "CREATING", "UPDATING", "DELETING")
_FINE_EVENTS: Final = ("NodeNotReady", "Unhealthy")
_SHOWN: Final = 600


@dataclass(frozen=True)
class Evidence:
    """Something somebody said, about one thing. `symptom`: the row it belongs to where looking, not words, says so."""

    source: str
    """node group, add-on, refused call, node, pod, claim, event, job, graph, output, …"""
    thing: str
    text: str
    symptom: str = ""

    @property
    def row(self) -> Symptom:
        return BY_KEY[self.symptom] if self.symptom else recognise(self.text)


@dataclass
class Finding:
    """One row of the table that applies, with what says so."""

    symptom: Symptom
    evidence: list[Evidence] = field(default_factory=list)
    fix: str = ""

    def as_data(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "key": self.symptom.key,
            "title": self.symptom.title,
            "cause": self.symptom.cause,
            "fix": self.fix,
            "evidence": [{"source": one.source, "thing": one.thing, "text": one.text} for one in self.evidence],
        }


def findings(evidence: Iterable[Evidence], facts: Mapping[str, Any]) -> list[Finding]:
    """One finding per row, what causes others first. Words that no row knows count only where nothing else is found."""
    by_key: dict[str, Finding] = {}
    for one in evidence:
        row = one.row
        found = by_key.setdefault(row.key, Finding(row, fix=row.help(dict(facts))))
        if one not in found.evidence:
            found.evidence.append(one)
    if len(by_key) > 1:
        by_key.pop(OTHER.key, None)
    return sorted(by_key.values(), key=lambda finding: rank(finding.symptom))


# ── what each place says ─────────────────────────────────────────────────────────────────────────────────────────────


def of_parts(cluster: Part | None, groups: Sequence[Part], addons: Sequence[Part]) -> Iterator[Evidence]:
    """What EKS says about its own."""
    kinds: list[tuple[str, Sequence[Part]]] = [
        ("cluster", [cluster] if cluster else []),
        ("node group", groups),
        ("add-on", addons),
    ]
    for kind, parts in kinds:
        for part in parts:
            for issue in part.issues:
                yield Evidence(kind, part.name, f"{issue.code}: {issue.message}")
            if part.status not in _WELL and not part.issues:
                yield Evidence(
                    kind, part.name, f"is {part.status}", "nodes-degraded" if part.status == "DEGRADED" else ""
                )


def of_refusals(refusals: Iterable[Refusal]) -> Iterator[Evidence]:
    """What AWS refused."""
    for one in refusals:
        text = one.message if one.code in one.message else f"{one.code}: {one.message}"
        yield Evidence("refused call", f"{one.call} {one.resource}".strip(), text)


def of_interfaces(interfaces: Iterable[tuple[str, str]], *, cluster_gone: bool) -> Iterator[Evidence]:
    """What is left in a network whose cluster is gone. While there is one, interfaces are as they should be."""
    for interface, what in interfaces if cluster_gone else ():
        yield Evidence("network interface", interface, f"interface is left: {what}", "interface-left")


def of_output(text: str) -> Iterator[Evidence]:
    """What a pulumi command printed: its error lines, without the frame around them."""
    for line in dict.fromkeys(line.strip() for line in text.splitlines()):
        said = re.sub(r"^(error:|Error:|\*+|-)\s*", "", line)
        if (
            re.search(r"error|failed|refused|denied|locked|timed out|Expired|pending operation", line, re.IGNORECASE)
            and recognise(said) is not OTHER
        ):
            yield Evidence("output", "pulumi", said[:_SHOWN])


def of_state(deployment: Mapping[str, Any]) -> Iterator[Evidence]:
    """What the engine's state remembers of the last command."""
    for pending in deployment.get("pending_operations") or ():
        name = str(pending["resource"]["urn"]).rpartition("::")[2]
        yield Evidence("state", name, f"pending operations: {pending['type']}", "unfinished")
    for resource in deployment.get("resources") or ():
        for error in resource.get("initErrors") or ():
            yield Evidence("state", str(resource["urn"]).rpartition("::")[2], str(error)[:_SHOWN])


def of_cluster(seen: Snapshot, plan: Plan | BasePlan) -> Iterator[Evidence]:
    """Nodes, plugins, claims, pods, images, Jobs, the graph, and events about any of them."""
    yield from _of_nodes(seen.nodes, plan)
    yield from _of_claims(seen.claims)
    yield from _of_jobs(seen.jobs)
    yield from _of_pods(seen.pods)
    yield from _of_graphs(seen.graphs)
    yield from _of_events(seen.events, [*seen.pods, *seen.claims, *seen.jobs, *seen.graphs])


def _of_nodes(nodes: Sequence[Object], plan: Plan | BasePlan) -> Iterator[Evidence]:
    for node in nodes:
        name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
        ready = _condition(node, "Ready")
        if ready.get("status") != "True":
            yield Evidence(
                "node",
                name,
                f"node is not ready: {ready.get('reason', '')}: {ready.get('message', '')}",
                "node-not-ready",
            )
            continue
        if isinstance(plan, BasePlan) or plan.gpu_pool is None or labels.get(POOL_LABEL) != plan.names.prefix:
            continue
        offered = node["status"].get("allocatable") or {}
        if not int(offered.get(GPU_RESOURCE, 0)):
            yield Evidence("plugin", f"nvidia-device-plugin on {name}", f"offers no {GPU_RESOURCE}")
        wanted = sum(nic.type != "interface" for nic in plan.gpu_pool.nics)
        efa = int(offered.get(EFA_RESOURCE, 0))
        if efa < wanted and any(worker.efa for worker in plan.workers):
            yield Evidence("plugin", f"aws-efa-k8s-device-plugin on {name}", f"offers {efa} of {wanted} EFA devices")


def _of_claims(claims: Sequence[Object]) -> Iterator[Evidence]:
    for claim in claims:
        name, metadata = claim["metadata"]["name"], claim["metadata"]
        if "deletionTimestamp" in metadata:
            yield Evidence("claim", name, f"is Terminating: finalizers {metadata.get('finalizers', [])}")
        elif (phase := (claim.get("status") or {}).get("phase")) != "Bound":
            yield Evidence("claim", name, f"claim is {phase or 'Pending'}", "claim-pending")


def _of_jobs(jobs: Sequence[Object]) -> Iterator[Evidence]:
    for job in jobs:
        failed = _condition(job, "Failed")
        if failed.get("status") == "True":
            yield Evidence(
                "job", job["metadata"]["name"], f"{failed.get('reason', '')}: {failed.get('message', '')}"[:_SHOWN]
            )


def _of_pods(pods: Sequence[Object]) -> Iterator[Evidence]:
    for pod in pods:
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        scheduled = _condition(pod, "PodScheduled")
        if scheduled.get("status") == "False":
            text = f"{scheduled.get('reason', '')}: {scheduled.get('message', '')}"
            # Why a claim holds a pod is the claim's row; that no node fits is the pod's.
            yield Evidence("pod", name, text)
        for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
            waiting = (container.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason", "")
            if reason and reason not in ("ContainerCreating", "PodInitializing"):
                image = f" {container['image']}" if container.get("image") and "Image" in reason else ""
                yield Evidence(
                    "image" if "Image" in reason else "pod",
                    name,
                    f"{reason}:{image} {waiting.get('message', '')}".rstrip(": "),
                )
            for state in (container.get("state") or {}, container.get("lastState") or {}):
                ended = state.get("terminated") or {}
                if ended.get("exitCode"):
                    said = f"{ended.get('reason', '')}, exit code {ended['exitCode']}: {ended.get('message', '')}"
                    yield Evidence("pod", name, said[:_SHOWN])


def _of_graphs(graphs: Sequence[Object]) -> Iterator[Evidence]:
    for graph in graphs:
        name, metadata, status = graph["metadata"]["name"], graph["metadata"], graph.get("status") or {}
        if "deletionTimestamp" in metadata:
            yield Evidence(
                "graph", name, f"is being deleted: finalizers {metadata.get('finalizers', [])}", "graph-stays"
            )
        elif status.get("state") == "failed":
            ready = _condition(graph, "Ready")
            yield Evidence(
                "graph", name, f"state failed: {ready.get('reason', '')}: {ready.get('message', '')}", "graph-failed"
            )
        elif status.get("state") != "successful" and (message := _condition(graph, "Ready").get("message")):
            yield Evidence("graph", name, str(message)[:_SHOWN])


def _of_events(events: Sequence[Object], about: Sequence[Object]) -> Iterator[Evidence]:
    """Warnings about what is still there and not well; those of things long gone say nothing."""
    there = {one["metadata"]["name"] for one in about}
    unwell = {one.thing for one in [*_of_pods([o for o in about if "spec" in o]), *_of_claims([])]}
    for event in events:
        name = event["involvedObject"].get("name", "")
        if event.get("type") != "Warning" or event.get("reason") in _FINE_EVENTS or name not in there:
            continue
        text = f"{event.get('reason', '')}: {event.get('message', '')}"
        if recognise(text) is not OTHER or name in unwell:
            yield Evidence("event", f"{event['involvedObject'].get('kind', '')} {name}", text[:_SHOWN])


def _condition(one: Object, kind: str) -> dict[str, Any]:
    conditions = (one.get("status") or {}).get("conditions") or ()
    return next((dict(condition) for condition in conditions if condition.get("type") == kind), {})
