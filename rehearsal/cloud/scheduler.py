"""A small kube-scheduler: whether a pod fits a node, and in the real one's words why not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .values import get, many

_SUFFIX = {
    "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip
_EPSILON = 1e-6


def quantity(value: Any) -> float:
    """A Kubernetes quantity in its base unit: cores, bytes, pieces. ValueError names what cannot be read."""
    if isinstance(value, int | float):
        return float(value)
    text = str(value)
    for suffix in sorted(_SUFFIX, key=len, reverse=True):
        if text.endswith(suffix):
            return float(text[: -len(suffix)]) * _SUFFIX[suffix]
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': {text!r}"
        ) from None


@dataclass(slots=True)
class Pod:
    name: str
    namespace: str
    requests: dict[str, float]
    labels: dict[str, str] = field(default_factory=dict)
    selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[Mapping[str, Any]] = field(default_factory=list)
    affinity: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Node:
    name: str
    labels: dict[str, str]
    taints: list[Mapping[str, Any]]
    allocatable: dict[str, float]
    pods: list[Pod] = field(default_factory=list)

    def free(self, resource: str) -> float:
        return self.allocatable.get(resource, 0.0) - sum(p.requests.get(resource, 0.0) for p in self.pods)


def requests(spec: Mapping[str, Any]) -> dict[str, float]:
    """What a pod asks for: the sum over its containers, or its largest init container; a limit without a request is the request."""

    def of(container: Mapping[str, Any]) -> dict[str, float]:
        resources = get(container, "resources", {})
        return {k: quantity(v) for k, v in {**get(resources, "limits", {}), **get(resources, "requests", {})}.items()}

    total: Counter[str] = Counter()
    for container in many(spec.get("containers")):
        total.update(of(container))
    for container in many(spec.get("initContainers")):
        for resource, amount in of(container).items():
            total[resource] = max(total[resource], amount)  # type: ignore[assignment]
    return {**{k: float(v) for k, v in total.items()}, "pods": 1.0}


def pod_of(name: str, namespace: str, spec: Mapping[str, Any], labels: Mapping[str, str]) -> Pod:
    return Pod(
        name, namespace, requests(spec), dict(labels), dict(get(spec, "nodeSelector", {})), many(spec.get("tolerations")), get(spec, "affinity", {})
    )  # fmt: skip


def tolerates(tolerations: Iterable[Mapping[str, Any]], taint: Mapping[str, Any]) -> bool:
    for t in tolerations:
        if t.get("effect") not in (None, "", taint.get("effect")):
            continue
        exists = t.get("operator", "Equal") == "Exists"
        if not t.get("key"):
            if exists:
                return True
        elif t["key"] == taint.get("key") and (exists or t.get("value", "") == taint.get("value", "")):
            return True
    return False


def _matches(labels: Mapping[str, str], selector: Mapping[str, Any]) -> bool:
    for expression in many(selector.get("matchExpressions")):
        value, values = labels.get(expression["key"]), many(expression.get("values"))
        ok = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }.get(expression["operator"], False)
        if not ok:
            return False
    return all(labels.get(k) == v for k, v in get(selector, "matchLabels", {}).items())


def _node_affinity(pod: Pod, node: Node) -> bool:
    if any(node.labels.get(k) != v for k, v in pod.selector.items()):
        return False
    terms = many(get(pod.affinity, "nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"))
    return not terms or any(_matches(node.labels, term) for term in terms)


def _pod_affinity(pod: Pod, node: Node, nodes: list[Node]) -> str | None:
    for kind, reason in (
        ("podAffinity", "node(s) didn't match pod affinity rules"),
        ("podAntiAffinity", "node(s) didn't match pod anti-affinity rules"),
    ):
        for term in many(get(pod.affinity, f"{kind}.requiredDuringSchedulingIgnoredDuringExecution")):
            selector, key = get(term, "labelSelector", {}), term["topologyKey"]
            spaces = many(term.get("namespaces")) or [pod.namespace]
            domains = {
                n.labels.get(key)
                for n in nodes
                for p in n.pods
                if p.namespace in spaces and _matches(p.labels, selector)
            }
            here = node.labels.get(key) in domains
            first = not domains and _matches(
                pod.labels, selector
            )  # the first of a group that wants to be together may go anywhere
            if here if kind == "podAntiAffinity" else not (here or first):
                return reason
    return None


def why_not(pod: Pod, node: Node, nodes: list[Node]) -> list[str]:
    """The reasons of the first filter that refuses `node`; none when the pod fits."""
    for taint in node.taints:
        if taint.get("effect") in ("NoSchedule", "NoExecute", "NO_SCHEDULE", "NO_EXECUTE") and not tolerates(
            pod.tolerations, taint
        ):
            return [f"node(s) had untolerated taint {{{taint.get('key')}: {taint.get('value', '')}}}"]
    if not _node_affinity(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    short = [r for r, amount in sorted(pod.requests.items()) if amount > node.free(r) + _EPSILON]
    if short:
        return ["Too many pods" if r == "pods" else f"Insufficient {r}" for r in short]
    reason = _pod_affinity(pod, node, nodes)
    return [reason] if reason else []


def place(pod: Pod, nodes: list[Node]) -> tuple[Node | None, str]:
    """The node the pod goes to (and is put on), or None and the scheduler's message."""
    if not nodes:
        return None, "no nodes available to schedule pods"
    reasons: Counter[str] = Counter()
    for node in nodes:
        refused = why_not(pod, node, nodes)
        if not refused:
            node.pods.append(pod)
            return node, ""
        reasons.update(refused)
    return None, f"0/{len(nodes)} nodes are available: {', '.join(sorted(f'{n} {r}' for r, n in reasons.items()))}."
