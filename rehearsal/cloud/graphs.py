"""DynamoGraphDeployment v1beta1 as the pretend operator reads it: admission checks, and the pods it would make. Pure.

Hand-written from facts/dynamo.md §1.1 and §1.3; the CRD itself belongs to the tier with a real API server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .scheduler import Pod, pod_of, quantity
from .values import get, many

_SPEC = {
    "annotations",
    "labels",
    "priorityClassName",
    "components",
    "env",
    "backendFramework",
    "restart",
    "topologyConstraint",
    "providerOverride",
    "experimental",
}
_COMPONENT = {
    "name", "type", "podTemplate", "replicas", "runtimeVersionOverride", "sharedMemorySize", "compilationCache", "multinode", "minAvailable", "modelRef",
    "scalingAdapter", "globalDynamoNamespace", "frontendSidecar", "topologyConstraint", "providerOverride", "eppConfig", "experimental", "roles", "dynamoSidecar",
}  # fmt: skip
_TYPES = ("frontend", "worker", "prefill", "decode", "planner", "epp")
_NAME = re.compile(r"^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$")
_SEMVER_TAG = re.compile(r"^v?\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?$")
_VERSION = re.compile(r"^\d+\.\d+\.\d+$")
_ANNOTATIONS = {
    "nvidia.com/vllm-distributed-executor-backend": ("mp", "ray"),
    "nvidia.com/dynamo-kube-discovery-mode": ("pod", "container"),
}
FINALIZER = "nvidia.com/finalizer"


def _main(component: Mapping[str, Any]) -> Mapping[str, Any] | None:
    containers = many(get(component, "podTemplate.spec.containers"))
    return next((c for c in containers if c.get("name") == "main"), None)


def _tag_parses(image: str) -> bool:
    tag = image.rpartition(":")[2] if "@" not in image and ":" in image.rpartition("/")[2] else ""
    return bool(_SEMVER_TAG.match(tag))


def _component(i: int, c: Mapping[str, Any], *, strict: bool) -> Iterator[str]:
    at = f"spec.components[{i}]"
    if strict:
        yield from (f'strict decoding error: unknown field "{at}.{key}"' for key in sorted(set(c) - _COMPONENT))
    name = c.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 63 or not _NAME.match(name):
        yield f"{at}.name: Invalid value: {name!r}: 1 to 63 letters, digits and '-', starting and ending with a letter or digit"
    if c.get("type") not in (None, *_TYPES):
        yield f"{at}.type: Unsupported value: {c['type']!r}: supported values: {', '.join(_TYPES)}"
    replicas = c.get("replicas", 1)
    if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 0:
        yield f"{at}.replicas: Invalid value: {replicas!r}: should be greater than or equal to 0"
    main = _main(c)
    if main is None:
        yield f'{at}.podTemplate.spec.containers: a container named "main" is required'
    elif not main.get("image"):
        yield f'{at}.podTemplate.spec.containers: the image of container "main" is required'
    elif not c.get("runtimeVersionOverride") and not _tag_parses(str(main["image"])):
        yield f"{at}: the tag of image {main['image']!r} is not a semantic version; set runtimeVersionOverride"
    if (version := c.get("runtimeVersionOverride")) and not _VERSION.match(str(version)):
        yield f"{at}.runtimeVersionOverride: Invalid value: {version!r}: must be X.Y.Z"
    if "compilationCache" in c and not get(c, "compilationCache.pvcName"):
        yield f"{at}.compilationCache.pvcName: Required value"
    if "minAvailable" in c:
        yield f"{at}.minAvailable: Forbidden: needs Grove"
    if "eppConfig" in c and c.get("type") != "epp":
        yield f"{at}.eppConfig: Forbidden: only for type epp"
    if get(c, "multinode") is not None and get(c, "multinode.nodeCount", 2) < 2:
        yield f"{at}.multinode.nodeCount: Invalid value: should be greater than or equal to 2"
    for container in many(get(c, "podTemplate.spec.containers")):
        for kind in ("requests", "limits"):
            for resource, amount in get(container, f"resources.{kind}", {}).items():
                try:
                    quantity(amount)
                except ValueError as error:
                    yield f"{at}.podTemplate.spec.containers.resources.{kind}.{resource}: {error}"


def admission(graph: Mapping[str, Any], *, strict: bool) -> list[str]:
    """Why the API server or the webhook refuses to create `graph`. `strict` is strict field validation, as a dry run asks for."""
    spec, annotations = get(graph, "spec", {}), get(graph, "metadata.annotations", {})
    errors: list[str] = []
    if strict:
        errors += [f'strict decoding error: unknown field "spec.{key}"' for key in sorted(set(spec) - _SPEC)]
    components = many(spec.get("components"))
    if not components:
        errors.append("spec.components: must have at least one component")
    if len(components) > 25:
        errors.append(f"spec.components: Too many: {len(components)}: must have at most 25 items")
    names = [str(c.get("name")).lower() for c in components]
    errors += [
        f"spec.components: Duplicate value: {n!r} (names are compared without regard to case)"
        for n in sorted({n for n in names if names.count(n) > 1})
    ]
    for i, component in enumerate(components):
        errors += _component(i, component, strict=strict)
    if [c.get("type") for c in components].count("epp") > 1:
        errors.append("spec.components: at most one component of type epp")
    if spec.get("backendFramework") not in (None, "sglang", "vllm", "trtllm"):
        errors.append(
            f"spec.backendFramework: Unsupported value: {spec['backendFramework']!r}: supported values: sglang, vllm, trtllm"
        )
    if "restart" in spec:
        errors.append("spec.restart: Forbidden: must be unset on create")
    for key, allowed in _ANNOTATIONS.items():
        if key in annotations and annotations[key] not in allowed:
            errors.append(
                f"metadata.annotations[{key}]: Unsupported value: {annotations[key]!r}: supported values: {', '.join(allowed)}"
            )
    return errors


def topology(graph: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What the webhook holds immutable about the set of components."""
    return sorted(
        (str(c.get("name")), str(c.get("type")), str(get(c, "multinode.nodeCount")))
        for c in many(get(graph, "spec.components"))
    )


def pods(graph: Mapping[str, Any]) -> Iterator[tuple[Pod, Mapping[str, Any]]]:
    """Every pod the operator would make, with its pod spec; those with the most GPUs first, then the role with the fewest
    workers, as the Plan counts. Where there is room for all, the order decides nothing."""
    name, namespace = get(graph, "metadata.name"), get(graph, "metadata.namespace", "default")
    found: list[tuple[tuple[float, int], Pod, Mapping[str, Any]]] = []
    for component in many(get(graph, "spec.components")):
        spec = dict(get(component, "podTemplate.spec", {}))
        if cache := get(component, "compilationCache.pvcName"):
            spec["volumes"] = [
                *many(spec.get("volumes")),
                {"name": "compilation-cache", "persistentVolumeClaim": {"claimName": cache}},
            ]
        labels = {
            **get(component, "podTemplate.metadata.labels", {}),
            "nvidia.com/dynamo-graph-deployment-name": name,
            "nvidia.com/dynamo-component": component["name"],
            "nvidia.com/dynamo-component-type": component.get("type", "worker"),
        }
        count = component.get("replicas", 1) * get(component, "multinode.nodeCount", 1)
        for i in range(count):
            pod = pod_of(f"{name}-{component['name'].lower()}-{i}", namespace, spec, labels)
            found.append(((-pod.requests.get("nvidia.com/gpu", 0), count), pod, spec))
    return ((pod, spec) for _, pod, spec in sorted(found, key=lambda one: one[0]))


def wrong_requests(graph: Mapping[str, Any]) -> str | None:
    """Admission lets a GPU request unlike its limit through; the Deployment then never appears (facts/dynamo.md, Observed)."""
    for component in many(get(graph, "spec.components")):
        for container in many(get(component, "podTemplate.spec.containers")):
            asked, limit = get(container, "resources.requests", {}), get(container, "resources.limits", {})
            for resource in ("nvidia.com/gpu", "vpc.amazonaws.com/efa"):
                if resource in asked and asked[resource] != limit.get(resource):
                    return f"component {component['name']}: {resource} request {asked[resource]} is not its limit {limit.get(resource)}: the Deployment is never made"
    return None
