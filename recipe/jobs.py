"""Jobs on the CPU pool that run a Python file of `recipe/scripts/`.

A Job's name carries a hash of everything it runs with: a Job cannot be changed, so whatever changes makes a new one, and
whatever does not change is not run again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from recipe.catalogue import JOB_IMAGE
from recipe.constants import JOB_LABEL
from recipe.context import RenderContext
from recipe.names import digest
from recipe.plan import Manifest

SCRIPTS: Final = Path(__file__).parent / "scripts"
SCRIPTS_MOUNT: Final = "/scripts"
REQUIREMENTS: Final = "requirements.txt"
"""Among a Job's files, where it has an `install` container."""
PACKAGES_MOUNT: Final = "/packages"
USER: Final = 1000
"""Not root; also the owner that the access points give to every file."""
JOB_OVERHEAD_SECONDS: Final = 60
"""Between a script's own deadline and the Job's, so that the script can still say why."""


@dataclass(frozen=True)
class JobSpec:
    """One Job: which script, with what."""

    purpose: str
    """Value of the job label and beginning of the name: weights, admission, readiness or benchmark."""
    modules: tuple[str, ...]
    """Files of `recipe/scripts/`; the first one is run."""
    env: dict[str, str]
    cpu: str
    memory: str
    """Request and limit."""
    deadline_seconds: int
    """Of the script, all retries in it together."""
    attempts: int
    """Pods, at most, after failures that another attempt may mend."""
    final_exit_codes: tuple[int, ...]
    """Exit codes that no further attempt mends."""
    files: dict[str, str] = field(default_factory=dict)
    """Further files beside the script."""
    service_account: str | None = None
    """Whose token the pod gets. None: no token."""
    mount_token: bool = True
    """False: the account is for something else than the API server (Pod Identity brings a token of its own)."""
    cpu_limit: str | None = None
    init_containers: tuple[Manifest, ...] = ()
    install_seconds: int = 0
    """What passes before the script starts: the Job's deadline counts from the Job's start, the script's from its own."""
    volumes: tuple[Manifest, ...] = ()
    volume_mounts: tuple[Manifest, ...] = ()
    env_from: tuple[Manifest, ...] = ()
    affinity: Manifest | None = None


def build_job(context: RenderContext, spec: JobSpec) -> tuple[Manifest, Manifest]:
    """The ConfigMap with the files and the Job that runs them."""
    scripts = {f"{name}.py": (SCRIPTS / f"{name}.py").read_text(encoding="utf-8") for name in spec.modules}
    data = scripts | spec.files
    pod = _pod(context, spec, tuple(scripts))
    job_spec = {
        "backoffLimit": spec.attempts - 1,
        "activeDeadlineSeconds": spec.deadline_seconds + spec.install_seconds + JOB_OVERHEAD_SECONDS,
        # No ttlSecondsAfterFinished: a Job that deletes itself is missing at the next refresh, and the next `up` would run it again.
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": "main", "operator": "In", "values": list(spec.final_exit_codes)},
                },
            ]
        },
        "template": {"metadata": {"labels": context.labels | {JOB_LABEL: spec.purpose}}, "spec": pod},
    }
    name = f"{spec.purpose}-{digest(json.dumps([data, job_spec], sort_keys=True))}"
    metadata = {
        "name": name,
        "namespace": context.names.namespace,
        "labels": context.labels | {JOB_LABEL: spec.purpose},
    }
    pod["volumes"][0]["configMap"]["name"] = name
    config_map: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "data": data,
    }
    job: Manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        # A Job that failed is made anew by the next `up` instead of being found as it is (facts/pulumi.md, Waiting).
        "metadata": metadata | {"annotations": {"pulumi.com/replaceUnready": "true"}},
        "spec": job_spec,
    }
    return config_map, job


def _pod(context: RenderContext, spec: JobSpec, scripts: tuple[str, ...]) -> Manifest:
    # Under their real package path, so that the files import each other the same way here, in tests and in the pod.
    items = [{"key": name, "path": f"recipe/scripts/{name}"} for name in scripts]
    items += [{"key": name, "path": name} for name in spec.files]
    limits = {"memory": spec.memory} | ({"cpu": spec.cpu_limit} if spec.cpu_limit else {})
    env = {"DEADLINE_SECONDS": str(spec.deadline_seconds), "HOME": "/tmp", "PYTHONUNBUFFERED": "1"} | spec.env
    container: dict[str, Any] = {
        "name": "main",
        "image": JOB_IMAGE,
        "command": ["python", "-m", f"recipe.scripts.{spec.modules[0]}"],
        "workingDir": SCRIPTS_MOUNT,
        "env": [{"name": name, "value": value} for name, value in sorted(env.items())],
        "resources": {"requests": {"cpu": spec.cpu, "memory": spec.memory}, "limits": limits},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [SCRIPTS_VOLUME_MOUNT, TMP_VOLUME_MOUNT, *spec.volume_mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if spec.env_from:
        container["envFrom"] = list(spec.env_from)
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": spec.service_account is not None and spec.mount_token,
        "nodeSelector": context.cpu_selector,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "scripts", "configMap": {"items": items}},
            {"name": "tmp", "emptyDir": {}},
            *spec.volumes,
        ],
    }
    if spec.service_account:
        pod["serviceAccountName"] = spec.service_account
    if spec.affinity:
        pod["affinity"] = spec.affinity
    if spec.init_containers:
        pod["initContainers"] = list(spec.init_containers)
    return pod


CONTAINER_SECURITY: Final[Manifest] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
SCRIPTS_VOLUME_MOUNT: Final[Manifest] = {"name": "scripts", "mountPath": SCRIPTS_MOUNT, "readOnly": True}
TMP_VOLUME_MOUNT: Final[Manifest] = {"name": "tmp", "mountPath": "/tmp"}
PACKAGES_VOLUME: Final[Manifest] = {"name": "packages", "emptyDir": {}}
PACKAGES_VOLUME_MOUNT: Final[Manifest] = {"name": "packages", "mountPath": PACKAGES_MOUNT}


def install(cpu: str, memory: str) -> Manifest:
    """The init container that puts what the Job's REQUIREMENTS name into its PACKAGES_VOLUME. `memory`: request and limit."""
    return {
        "name": "install",
        "image": JOB_IMAGE,
        "command": ["python", "-m", "pip", "install"],
        # Every wheel by version and hash: what verifies the weights should itself be verified.
        "args": [
            *("--require-hashes", "--only-binary=:all:", "--no-deps", "--no-cache-dir", "--no-compile"),
            *("--disable-pip-version-check", "--retries=10", f"--target={PACKAGES_MOUNT}"),
            f"--requirement={SCRIPTS_MOUNT}/{REQUIREMENTS}",
        ],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [SCRIPTS_VOLUME_MOUNT, TMP_VOLUME_MOUNT, PACKAGES_VOLUME_MOUNT],
    }


def account(context: RenderContext, name: str, rules: list[Manifest]) -> tuple[Manifest, Manifest, Manifest]:
    """A service account with exactly `rules` in the stack's namespace: the account, its Role, the binding."""
    metadata = {"name": name, "namespace": context.names.namespace, "labels": context.labels}
    group = "rbac.authorization.k8s.io"
    return (
        # The Jobs ask for their token themselves; nobody else should get this one by accident.
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": context.names.namespace}],
        },
    )
