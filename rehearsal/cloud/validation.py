"""What the API server refuses of Kubernetes' own kinds beyond their schema: names, labels, quantities, enums, what must fit together.

As far as a stack of this project could get it wrong, no further; sources: kubernetes/kubernetes pkg/apis/*/validation, and the
answers of a real API server, which tests/cluster/test_agreement.py holds every rule against. Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from . import schema
from .scheduler import quantity
from .values import get, many

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_DATA_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")
_ACCESS_MODES: Final = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
_SOURCES: Final = ("csi", "nfs", "hostPath", "local", "fc", "iscsi")
_DATA_BYTES: Final = 2**20
_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")
_SUBJECTS: Final = ("ServiceAccount", "User", "Group")


def problems(api_version: str, kind: str, value: Mapping[str, Any]) -> list[str]:
    """Why the API server refuses to take the object; empty where it does not, or where the kind is not Kubernetes' own."""
    model = schema.model_of(api_version, kind)
    if model is None:
        return []
    if found := schema.problems(model, value):
        return found  # half-typed objects are not looked at any further, as on the server
    spec = get(value, "spec", {})
    checks = {
        "StorageClass": lambda: _storage_class(value),
        "PersistentVolume": lambda: _volume(spec),
        "PersistentVolumeClaim": lambda: _claim(spec),
        "ConfigMap": lambda: _data(value),
        "Role": lambda: _role(value),
        "RoleBinding": lambda: _binding(value),
        "Job": lambda: _job(spec),
    }
    return [*_metadata(kind, get(value, "metadata", {})), *(checks[kind]() if kind in checks else ())]


def is_label(text: str) -> bool:
    """RFC 1123 label."""
    return len(text) <= 63 and bool(_LABEL.fullmatch(text))


def is_subdomain(text: str) -> bool:
    """RFC 1123 subdomain."""
    return len(text) <= 253 and bool(_SUBDOMAIN.fullmatch(text))


def _metadata(kind: str, metadata: Mapping[str, Any]) -> Iterator[str]:
    name = str(metadata.get("name", ""))
    if kind in ("Role", "RoleBinding"):
        if name in (".", "..") or "/" in name or "%" in name:
            yield f"metadata.name: Invalid value: {name!r}: may not be '.', '..' or hold '/' or '%'"
    elif kind in ("Namespace", "Service") and not is_label(name):
        yield f"metadata.name: Invalid value: {name!r}: a lowercase RFC 1123 label of at most 63 characters"
    elif not is_subdomain(name):
        yield f"metadata.name: Invalid value: {name!r}: a lowercase RFC 1123 subdomain of at most 253 characters"
    yield from labels(get(metadata, "labels", {}), "metadata.labels")
    for key in get(metadata, "annotations", {}):
        if not _qualified(key.lower()):
            yield f"metadata.annotations: Invalid value: {key!r}: not a qualified name"


def labels(value: Mapping[str, str], path: str) -> Iterator[str]:
    """Problems of labels, or of a selector's labels."""
    for key, text in value.items():
        if not _qualified(key):
            yield f"{path}: Invalid value: {key!r}: not a qualified name"
        if len(text) > 63 or not _VALUE.fullmatch(text):
            yield f"{path}: Invalid value: {text!r}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"


def _qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(name) and len(name) <= 63 and bool(_VALUE.fullmatch(name)) and (not slash or is_subdomain(prefix))


def _one_of(value: Any, allowed: Iterable[str], path: str) -> Iterator[str]:
    if value is not None and value not in allowed:
        yield f"{path}: Unsupported value: {value!r}: supported values: {', '.join(allowed)}"


def _positive(amount: Any, path: str) -> Iterator[str]:
    if quantity(amount) <= 0:
        yield f"{path}: Invalid value: {str(amount)!r}: must be greater than zero"


# ---- storage


def _storage_class(value: Mapping[str, Any]) -> Iterator[str]:
    if not value.get("provisioner"):
        yield "provisioner: Required value"
    yield from _one_of(value.get("reclaimPolicy"), ("Delete", "Retain"), "reclaimPolicy")
    yield from _one_of(value.get("volumeBindingMode"), ("Immediate", "WaitForFirstConsumer"), "volumeBindingMode")


def _access_modes(spec: Mapping[str, Any]) -> Iterator[str]:
    modes = many(spec.get("accessModes"))
    if not modes:
        yield "spec.accessModes: Required value: at least 1 access mode is required"
    for mode in modes:
        yield from _one_of(mode, _ACCESS_MODES, "spec.accessModes")
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        yield "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"
    yield from _one_of(spec.get("volumeMode"), ("Filesystem", "Block"), "spec.volumeMode")


def _volume(spec: Mapping[str, Any]) -> Iterator[str]:
    yield from _access_modes(spec)
    if (size := get(spec, "capacity.storage")) is None:
        yield "spec.capacity: Required value"
    else:
        yield from _positive(size, "spec.capacity[storage]")
    if set(get(spec, "capacity", {})) - {"storage"}:
        yield 'spec.capacity: Unsupported value: supported values: "storage"'
    sources = [source for source in _SOURCES if source in spec]
    if len(sources) != 1:
        yield f"spec: {'Required value: must specify a volume type' if not sources else 'Forbidden: may not specify more than 1 volume type'}"
    if "csi" in spec:
        for field in ("driver", "volumeHandle"):
            if not get(spec, f"csi.{field}"):
                yield f"spec.csi.{field}: Required value"
    yield from _one_of(
        spec.get("persistentVolumeReclaimPolicy"), ("Delete", "Recycle", "Retain"), "spec.persistentVolumeReclaimPolicy"
    )
    name = spec.get("storageClassName")
    if name and not is_subdomain(str(name)):
        yield f"spec.storageClassName: Invalid value: {name!r}"


def _claim(spec: Mapping[str, Any]) -> Iterator[str]:
    yield from _access_modes(spec)
    if (size := get(spec, "resources.requests.storage")) is None:
        yield "spec.resources[storage]: Required value"
    else:
        yield from _positive(size, "spec.resources[storage]")
    name = spec.get("storageClassName")
    if name and not is_subdomain(str(name)):
        yield f"spec.storageClassName: Invalid value: {name!r}"


def _data(value: Mapping[str, Any]) -> Iterator[str]:
    data = {**get(value, "data", {}), **get(value, "binaryData", {})}
    for key in data:
        if len(key) > 253 or not _DATA_KEY.fullmatch(key) or key == "." or key.startswith(".."):
            yield f"data[{key}]: Invalid value: {key!r}: a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
    if sum(len(str(text).encode()) for text in data.values()) > _DATA_BYTES:
        yield f"[]: Too long: may not be more than {_DATA_BYTES} bytes"


# ---- access


def _role(value: Mapping[str, Any]) -> Iterator[str]:
    for i, rule in enumerate(many(value.get("rules"))):
        for field in ("verbs", "apiGroups", "resources"):
            if not rule.get(field):
                yield f"rules[{i}].{field}: Required value"


def _binding(value: Mapping[str, Any]) -> Iterator[str]:
    if not get(value, "roleRef.name"):
        yield "roleRef.name: Required value"
    yield from _one_of(get(value, "roleRef.kind"), ("Role", "ClusterRole"), "roleRef.kind")
    for i, subject in enumerate(many(value.get("subjects"))):
        yield from _one_of(subject.get("kind"), _SUBJECTS, f"subjects[{i}].kind")


# ---- Jobs and their pods


def _job(spec: Mapping[str, Any]) -> Iterator[str]:
    for field in ("activeDeadlineSeconds", "backoffLimit", "completions", "parallelism", "ttlSecondsAfterFinished"):
        if (amount := spec.get(field)) is not None and amount < 0:
            yield f"spec.{field}: Invalid value: {amount}: must be greater than or equal to 0"
    template = get(spec, "template", {})
    pod = get(template, "spec", {})
    policy = pod.get("restartPolicy")
    if policy not in ("Never", "OnFailure"):
        yield f'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never" (not {policy!r})'
    if "podFailurePolicy" in spec and policy != "Never":
        yield 'spec.template.spec.restartPolicy: Invalid value: only "Never" is supported when podFailurePolicy is specified'
    names = {container.get("name") for container in many(pod.get("containers")) + many(pod.get("initContainers"))}
    for i, rule in enumerate(many(get(spec, "podFailurePolicy.rules"))):
        at = f"spec.podFailurePolicy.rules[{i}]"
        yield from _one_of(rule.get("action"), ("Count", "FailIndex", "FailJob", "Ignore"), f"{at}.action")
        codes = rule.get("onExitCodes")
        if codes is None:
            continue
        if codes.get("containerName") is not None and codes["containerName"] not in names:
            yield f"{at}.onExitCodes.containerName: Invalid value: {codes['containerName']!r}: must be one of the container or initContainer names in the pod template"
        if codes.get("operator") == "In" and 0 in many(codes.get("values")):
            yield f"{at}.onExitCodes.values: Invalid value: 0: must not be 0 for the In operator"
    yield from labels(get(template, "metadata.labels", {}), "spec.template.labels")
    yield from _pod(pod)


def _pod(pod: Mapping[str, Any]) -> Iterator[str]:
    at = "spec.template.spec"
    volumes = [str(volume.get("name")) for volume in many(pod.get("volumes"))]
    for name, count in Counter(volumes).items():
        if count > 1:
            yield f"{at}.volumes: Duplicate value: {name!r}"
        if not is_label(name):
            yield f"{at}.volumes: Invalid value: {name!r}: a lowercase RFC 1123 label"
    for volume in many(pod.get("volumes")):
        sources = [key for key in volume if key != "name"]
        if len(sources) > 1:
            yield f"{at}.volumes: Forbidden: may not specify more than 1 volume type ({', '.join(sources)})"
        for item in many(get(volume, "configMap.items")) + many(get(volume, "secret.items")):
            path = str(item.get("path", ""))
            if not path or path.startswith("/") or ".." in path.split("/"):
                yield f"{at}.volumes.items.path: Invalid value: {path!r}: must be a relative path without '..'"
    yield from labels(get(pod, "nodeSelector", {}), f"{at}.nodeSelector")
    account = pod.get("serviceAccountName")
    if account and not is_subdomain(str(account)):
        yield f"{at}.serviceAccountName: Invalid value: {account!r}"
    user = get(pod, "securityContext.runAsUser")
    if user is not None and user < 0:
        yield f"{at}.securityContext.runAsUser: Invalid value: {user}: must be between 0 and 2147483647, inclusive"
    for toleration in many(pod.get("tolerations")):
        yield from _toleration(toleration, f"{at}.tolerations")
    if not many(pod.get("containers")):
        yield f"{at}.containers: Required value"
    seen: Counter[str] = Counter()
    for kind in ("initContainers", "containers"):
        for i, container in enumerate(many(pod.get(kind))):
            seen[str(container.get("name"))] += 1
            yield from _container(container, volumes, f"{at}.{kind}[{i}]")
    yield from (f"{at}.containers: Duplicate value: {name!r}" for name, count in seen.items() if count > 1)


def _toleration(value: Mapping[str, Any], path: str) -> Iterator[str]:
    operator = value.get("operator", "Equal")
    yield from _one_of(operator, ("Equal", "Exists", "Lt", "Gt"), f"{path}.operator")
    yield from _one_of(value.get("effect") or None, ("NoSchedule", "PreferNoSchedule", "NoExecute"), f"{path}.effect")
    if not value.get("key") and operator != "Exists":
        yield f'{path}.operator: Invalid value: {operator!r}: must be Exists when `key` is empty, which means "match all values and all keys"'
    if operator == "Exists" and value.get("value"):
        yield f"{path}.operator: Invalid value: {value['value']!r}: value must be empty when `operator` is 'Exists'"


def _container(container: Mapping[str, Any], volumes: list[str], path: str) -> Iterator[str]:
    name = str(container.get("name"))
    if not is_label(name):
        yield f"{path}.name: Invalid value: {name!r}: a lowercase RFC 1123 label"
    if not container.get("image"):
        yield f"{path}.image: Required value"
    yield from _one_of(container.get("imagePullPolicy"), ("Always", "IfNotPresent", "Never"), f"{path}.imagePullPolicy")
    for variable in many(container.get("env")):
        text = str(variable.get("name", ""))
        # Since 1.34 any printable ASCII but "=" (relaxed environment variable validation).
        if not text or "=" in text or not text.isprintable() or not text.isascii():
            yield f"{path}.env.name: Invalid value: {text!r}"
    mounts: Counter[str] = Counter()
    for mount in many(container.get("volumeMounts")):
        if mount.get("name") not in volumes:
            yield f"{path}.volumeMounts.name: Not found: {mount.get('name')!r}"
        mounts[str(mount.get("mountPath"))] += 1
    for mount_path, count in mounts.items():
        if count > 1:
            yield f"{path}.volumeMounts.mountPath: Invalid value: {mount_path!r}: must be unique"
    if get(container, "securityContext.privileged") and (
        get(container, "securityContext.allowPrivilegeEscalation") is False
    ):
        yield f"{path}.securityContext: Invalid value: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
    yield from resources(get(container, "resources", {}), f"{path}.resources")


def resources(value: Mapping[str, Any], path: str) -> Iterator[str]:
    """Requests and limits of one container."""
    limits, requests = get(value, "limits", {}), get(value, "requests", {})
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for resource, amount in amounts.items():
            if "/" not in resource and resource not in _RESOURCES and not resource.startswith("hugepages-"):
                yield f"{path}.{kind}[{resource}]: Invalid value: {resource!r}: must be a standard resource for containers"
                continue
            if quantity(amount) < 0:
                yield f"{path}.{kind}[{resource}]: Invalid value: {str(amount)!r}: must be greater than or equal to 0"
            if "/" in resource and quantity(amount) % 1:
                yield f"{path}.{kind}[{resource}]: Invalid value: {str(amount)!r}: must be an integer"
    for resource, amount in requests.items():
        limit = limits.get(resource)
        if "/" in resource and limit is None:
            yield f"{path}.limits: Required value: Limit must be set for non overcommitable resources ({resource})"
        elif "/" in resource and quantity(limit) != quantity(amount):
            yield f"{path}.requests: Invalid value: {str(amount)!r}: must be equal to {resource} limit of {limit}"
        elif limit is not None and quantity(amount) > quantity(limit):
            yield f"{path}.requests: Invalid value: {str(amount)!r}: must be less than or equal to {resource} limit of {limit}"
