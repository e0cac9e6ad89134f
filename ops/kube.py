"""The cluster's API server, as the doctor reads it: plain objects by path. The real one over HTTPS, or the pretend cloud's books.

A token comes from `aws eks get-token`, as in the program's own kubeconfig; it is never printed.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any, Protocol

Object = dict[str, Any]
_SECONDS = 15


class KubeError(Exception):
    """The API server cannot be reached, or says no."""


class Kube(Protocol):
    """Reads lists. Raises KubeError; a kind the server does not know is an empty list."""

    def items(self, path: str) -> list[Object]:
        """The objects at a list's path, such as `/api/v1/nodes`."""

    def text(self, path: str) -> str:
        """What is at a path that holds text, such as a pod's log."""


@dataclass(frozen=True)
class HttpKube:
    """A real API server. `authority` is its CA as base64 of PEM, as EKS gives it."""

    server: str
    authority: str
    token: str = field(repr=False)

    def items(self, path: str) -> list[Object]:
        found: list[Object] = json.loads(self._get(path) or b"{}").get("items") or []
        return found

    def text(self, path: str) -> str:
        return (self._get(path) or b"").decode("utf-8", errors="replace")

    def _get(self, path: str) -> bytes | None:
        """None for what the server does not know."""
        context = ssl.create_default_context(cadata=b64decode(self.authority).decode())
        request = urllib.request.Request(self.server + path, headers={"Authorization": f"Bearer {self.token}"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS, context=context) as answer:  # noqa: S310
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise KubeError(f"GET {path}: {error.code} {error.reason}") from None
        except (urllib.error.URLError, TimeoutError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise KubeError(f"configured Kubernetes cluster is unreachable: {reason}") from None


def token(cluster: str, region: str) -> str:
    """What `aws eks get-token` gives. Raises KubeError."""
    command = ["aws", "eks", "get-token", "--cluster-name", cluster, "--region", region, "--output", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise KubeError(f"getting credentials: exec: {done.stderr.strip()[-300:]}")
        return str(json.loads(done.stdout)["status"]["token"])
    except FileNotFoundError:
        raise KubeError("the AWS CLI is not on PATH, and every token for the cluster comes from it") from None
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        raise KubeError("getting credentials: exec: `aws eks get-token` gave no token") from None


@dataclass(frozen=True)
class Snapshot:
    """What the cluster holds of one stack, as plain objects."""

    nodes: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    events: tuple[Object, ...] = ()
    claims: tuple[Object, ...] = ()
    jobs: tuple[Object, ...] = ()
    graphs: tuple[Object, ...] = ()


def snapshot(kube: Kube, namespace: str, system: tuple[str, ...]) -> Snapshot:
    """Everything the doctor looks at: the stack's namespace, and pods and events of the `system` ones. Raises KubeError."""

    def many(kind: str, *where: str, root: str = "/api/v1") -> tuple[Object, ...]:
        return tuple(one for name in where for one in kube.items(f"{root}/namespaces/{name}/{kind}"))

    return Snapshot(
        nodes=tuple(kube.items("/api/v1/nodes")),
        pods=many("pods", namespace, *system),
        events=many("events", namespace, *system),
        claims=many("persistentvolumeclaims", namespace),
        jobs=many("jobs", namespace, root="/apis/batch/v1"),
        graphs=many("dynamographdeployments", namespace, root="/apis/nvidia.com/v1beta1"),
    )
