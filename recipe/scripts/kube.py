"""The Kubernetes API from inside a pod, with the standard library: the Job image has nothing else."""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, NoReturn

ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"


class Unreachable(Exception):
    """No answer from the server: refused, reset, timed out."""


class Kube:
    """A client with the pod's own service account. `KUBERNETES_API` and `ACCOUNT_DIR` stand in for both in tests."""

    def __init__(self, environ: os._Environ[str] = os.environ) -> None:
        host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
        self.base = environ.get("KUBERNETES_API") or f"https://{f'[{host}]' if ':' in host else host}:{port}"
        self.account = Path(environ.get("ACCOUNT_DIR", ACCOUNT_DIR))
        authority = self.account / "ca.crt"
        self.tls = ssl.create_default_context(cafile=authority) if self.base.startswith("https:") else None

    @property
    def namespace(self) -> str:
        """The pod's own namespace."""
        return (self.account / "namespace").read_text().strip()

    def request(
        self, method: str, path: str, body: Any = None, timeout_seconds: float = 30
    ) -> tuple[int, dict[str, Any]]:
        """HTTP status and the decoded answer, whatever the status. Raises Unreachable."""
        # The kubelet renews the token in place, so it is read each time.
        headers = {"Authorization": f"Bearer {(self.account / 'token').read_text().strip()}"}
        return call(method, self.base + path, body, headers, timeout_seconds, self.tls)

    def text(self, path: str, timeout_seconds: float = 30) -> Iterator[str]:
        """The lines of an answer that is no JSON, such as a log. Raises Unreachable, also for another status than 200."""
        headers = {"Authorization": f"Bearer {(self.account / 'token').read_text().strip()}"}
        return fetch(self.base + path, headers, timeout_seconds, self.tls)


def call(
    method: str,
    url: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    timeout_seconds: float = 30,
    tls: ssl.SSLContext | None = None,
) -> tuple[int, dict[str, Any]]:
    """One JSON request: status and answer. An answer that is no JSON object comes back as {"message": text}."""
    data = None if body is None else json.dumps(body).encode()
    sent = {"Accept": "application/json", **({"Content-Type": "application/json"} if data else {}), **(headers or {})}
    request = urllib.request.Request(url, data, sent, method=method)  # noqa: S310 - http(s) from our own manifest
    try:
        try:
            with urllib.request.urlopen(request, timeout=timeout_seconds, context=tls) as response:  # noqa: S310
                return response.status, _decode(response.read())
        except urllib.error.HTTPError as error:
            return error.code, _decode(error.read())
    except (OSError, ValueError, HTTPException) as error:  # the last: an answer that is cut off in the middle
        raise Unreachable(f"{url}: {getattr(error, 'reason', None) or error}") from error


def fetch(
    url: str, headers: dict[str, str] | None = None, timeout_seconds: float = 30, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """The lines of a text, as they come. Raises Unreachable, also for another status than 200."""
    request = urllib.request.Request(url, headers=headers or {})  # noqa: S310 - http(s) from our own manifest
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds, context=tls) as response:  # noqa: S310
            for raw in response:
                yield raw.decode(errors="replace")
    except (OSError, ValueError, HTTPException) as error:
        raise Unreachable(f"{url}: {getattr(error, 'reason', None) or error}") from error


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {"message": raw.decode(errors="replace").strip()[:2000]}


def say(message: str) -> None:
    """One line of the log, at once."""
    print(time.strftime("%H:%M:%S"), message, flush=True)  # noqa: T201 - a pod's log is its standard output


def finish(code: int, message: str) -> NoReturn:
    """Ends the process; `message` becomes the container's termination message, which `kubectl` and Pulumi show."""
    say(message)
    path = Path(os.environ.get("TERMINATION_LOG", "/dev/termination-log"))
    if path.exists():
        path.write_text(message[:4000])  # the kubelet keeps 4096 bytes
    sys.exit(code)


def setting(name: str, default: str | None = None) -> str:
    """An environment variable; ends the process where it is needed and missing."""
    value = os.environ.get(name, default)
    if value is None:
        finish(2, f"the environment variable {name} is missing: this script is started by its Job")
    return value
