"""What Dynamo's operator makes of a graph: derived the way it was seen to (facts/dynamo.md "Observed"), not its own code.

Enough of it for admission, scheduling, RBAC and deletion to be real: Deployments, Services, accounts, with the labels, probes and
volumes that the operator adds, and of the environment what names and ports depend on. Deliberately not: what was seen by name only
(NIXL_TELEMETRY_*, VLLM_CACHE_ROOT and the like), and the DynamoComponentDeployments between a graph and its Deployments.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any, Final

from recipe.constants import GRAPH_LABEL
from recipe.plan import Manifest

FINALIZER: Final = "nvidia.com/finalizer"
LEFT_BEHIND: Final = (("ServiceAccount", "planner-serviceaccount"), ("RoleBinding", "planner-binding"))
"""What is still in the namespace when the graph is gone (seen; the binding's own name was not written down)."""
PLANNER_ROLE: Final = "dynamo-operator-planner"
"""ClusterRole of the chart; a graph is `failed` without it."""
_SELECTOR: Final = "nvidia.com/selector"
_WORKERS: Final = ("worker", "prefill", "decode")
_SYSTEM_PORT: Final = 9090
_HTTP_PORT: Final = 8000
_RBAC: Final = "rbac.authorization.k8s.io"


def owned(graph: Manifest) -> list[Manifest]:
    """Everything that goes with `graph`. Where that has been created, its uid makes it the owner; an owner that does not
    exist would have everything collected at once."""
    metadata = graph["metadata"]
    made = [*discovery(graph), *workloads(graph)]
    if "uid" in metadata:
        reference = {
            "apiVersion": graph["apiVersion"],
            "kind": graph["kind"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        for manifest in made:
            manifest["metadata"]["ownerReferences"] = [reference]
    return made


def left_behind(graph: Manifest) -> list[Manifest]:
    """What the operator makes without an owner."""
    namespace = graph["metadata"]["namespace"]
    (_, account), (_, binding) = LEFT_BEHIND
    return [
        _object("v1", "ServiceAccount", account, namespace),
        _binding(binding, account, namespace, {"apiGroup": _RBAC, "kind": "ClusterRole", "name": PLANNER_ROLE}),
    ]


def discovery(graph: Manifest) -> list[Manifest]:
    """The account under which every pod of the graph finds the others."""
    namespace, account = graph["metadata"]["namespace"], _account(graph)
    rules = [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["nvidia.com"], "resources": ["dynamoworkermetadatas"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    ]
    return [
        _object("v1", "ServiceAccount", account, namespace),
        _object(f"{_RBAC}/v1", "Role", f"{account}-role", namespace, rules=rules),
        _binding(
            f"{account}-binding", account, namespace, {"apiGroup": _RBAC, "kind": "Role", "name": f"{account}-role"}
        ),
    ]


def workloads(graph: Manifest) -> list[Manifest]:
    """A Deployment and a Service per component, in the graph's order."""
    components = graph["spec"]["components"]
    # A changed worker rolls all worker pools: they share the hash (seen).
    workers = [component["podTemplate"] for component in components if component["type"] in _WORKERS]
    digest = hashlib.sha256(json.dumps(workers, sort_keys=True).encode()).hexdigest()[:8]
    made = []
    for component in components:
        name = f"{graph['metadata']['name']}-{component['name'].lower()}"
        worker = component["type"] in _WORKERS
        made += [
            _deployment(graph, component, f"{name}-{digest}" if worker else name, digest),
            _service(graph, component, name),
        ]
    return made


def _deployment(graph: Manifest, component: Manifest, name: str, digest: str) -> Manifest:
    template = copy.deepcopy(component["podTemplate"])
    labels = {**template.get("metadata", {}).get("labels", {}), **_labels(graph, component, digest), _SELECTOR: name}
    template["metadata"] = {**template.get("metadata", {}), "labels": labels}
    spec = template["spec"]
    main = next(container for container in spec["containers"] if container["name"] == "main")
    _extend(main, graph, component)
    size = component.get("sharedMemorySize", "8Gi")
    if size != "0":
        spec.setdefault("volumes", []).append(
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": size}}
        )
        main.setdefault("volumeMounts", []).append({"name": "shared-memory", "mountPath": "/dev/shm"})
    spec["securityContext"] = {"fsGroup": 1000, **spec.get("securityContext", {})}
    spec.setdefault("terminationGracePeriodSeconds", 60)
    spec["serviceAccountName"] = _account(graph)
    metadata = {"name": name, "namespace": graph["metadata"]["namespace"], "labels": labels}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": component.get("replicas", 1),
            "selector": {"matchLabels": {_SELECTOR: name}},
            "template": template,
        },
    }


def _extend(main: Manifest, graph: Manifest, component: Manifest) -> None:
    """Environment, ports and probes of the container `main`; what the graph itself sets stays."""
    metadata = graph["metadata"]
    added: dict[str, str] = {
        "DYN_COMPONENT": component["name"],
        "DYN_DISCOVERY_BACKEND": "kubernetes",
        "DYN_NAMESPACE": f"{metadata['namespace']}-{metadata['name']}",
        "DYN_PARENT_DGD_K8S_NAME": metadata["name"],
        "DYN_PARENT_DGD_K8S_NAMESPACE": metadata["namespace"],
    }
    if component["type"] == "frontend":
        added |= {"DYNAMO_PORT": str(_HTTP_PORT), "DYN_HTTP_PORT": str(_HTTP_PORT)}
        ports = [{"name": "http", "containerPort": _HTTP_PORT}]
        probes = {"readinessProbe": _probe("/health", "http", 10, 3)}
    else:
        added |= {"DYN_SYSTEM_ENABLED": "true", "DYN_SYSTEM_PORT": str(_SYSTEM_PORT)}
        ports = [{"name": "system", "containerPort": _SYSTEM_PORT}, {"name": "nixl", "containerPort": 19090}]
        probes = {
            "livenessProbe": _probe("/live", "system", 5, 3),
            "readinessProbe": _probe("/health", "system", 10, 3),
            "startupProbe": _probe("/live", "system", 10, 720),
        }
    own = {variable["name"] for variable in main.get("env", [])}
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_UID": "metadata.uid"}
    main["env"] = [
        *main.get("env", []),
        *({"name": name, "value": value} for name, value in added.items() if name not in own),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in fields.items()
            if name not in own
        ),
    ]
    main.setdefault("ports", ports)
    for name, probe in probes.items():
        main.setdefault(name, probe)


def _labels(graph: Manifest, component: Manifest, digest: str) -> dict[str, str]:
    metadata = graph["metadata"]
    labels = {
        GRAPH_LABEL: metadata["name"],
        "nvidia.com/dynamo-component": component["name"],
        "nvidia.com/dynamo-component-type": component["type"],
        "nvidia.com/dynamo-namespace": f"{metadata['namespace']}-{metadata['name']}",
        "nvidia.com/dynamo-discovery-backend": "kubernetes",
        "nvidia.com/dynamo-discovery-enabled": "true",
        "nvidia.com/metrics-enabled": "true",
    }
    if component["type"] in _WORKERS:
        labels |= {"nvidia.com/dynamo-sub-component-type": component["type"], "nvidia.com/dynamo-worker-hash": digest}
    return labels


def _service(graph: Manifest, component: Manifest, name: str) -> Manifest:
    frontend = component["type"] == "frontend"
    port = {"name": "http", "port": _HTTP_PORT} if frontend else {"name": "system", "port": _SYSTEM_PORT}
    selector = {GRAPH_LABEL: graph["metadata"]["name"], "nvidia.com/dynamo-component": component["name"]}
    spec = {"selector": selector, "ports": [port | {"targetPort": port["name"]}]}
    return _object("v1", "Service", name, graph["metadata"]["namespace"], spec=spec)


def _probe(path: str, port: str, every_seconds: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": every_seconds,
        "failureThreshold": failures,
    }


def _account(graph: Manifest) -> str:
    return f"{graph['metadata']['name']}-k8s-service-discovery"


def _binding(name: str, account: str, namespace: str, role: Manifest) -> Manifest:
    subjects = [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]
    return _object(f"{_RBAC}/v1", "RoleBinding", name, namespace, roleRef=role, subjects=subjects)


def _object(api_version: str, kind: str, name: str, namespace: str, **more: Any) -> Manifest:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}
