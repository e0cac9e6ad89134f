"""A Kubernetes API server, spoken to in plain manifests.

Which path a kind has is asked of the server itself, so every kind works that it serves, custom ones too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from kubernetes.client import ApiClient, ApiException
from kubernetes.config import new_client_from_config

from recipe.plan import Manifest

T = TypeVar("T")
_FIELD_MANAGER = "dynamo-recipes"
_POLL_SECONDS = 0.1


class Refused(Exception):
    """The API server said no. `code` is HTTP's, `reason` Kubernetes' (Invalid, NotFound, Forbidden, …)."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class Api:
    """Calls raise `Refused`. Objects are named by manifest, or by API version, kind, namespace and name."""

    def __init__(self, kubeconfig: Path, token: str | None = None) -> None:
        """As the user of `kubeconfig`; with `token`, as whoever that belongs to."""
        self.client: ApiClient = new_client_from_config(  # type: ignore[no-untyped-call]
            config_file=str(kubeconfig), persist_config=False
        )
        configuration = self.client.configuration
        # A proxy of the environment has no business on the way to a cluster on this machine.
        configuration.proxy = None
        if token is not None:
            configuration.cert_file = configuration.key_file = None
            configuration.api_key = {"authorization": f"Bearer {token}"}
        self.client = ApiClient(configuration)
        self.host = str(configuration.host)
        self._served: dict[tuple[str, str], tuple[str, bool]] = {}

    def call(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: Any
    ) -> Any:
        """The answer to one request, as plain data."""
        try:
            answer = self.client.call_api(
                *self.client.param_serialize(
                    method=method,
                    resource_path=path,
                    query_params=[(key, value) for key, value in query.items() if value is not None],
                    header_params={"Accept": "application/json", "Content-Type": content_type},
                    body=body,
                    auth_settings=["BearerToken"],
                )
            )
            answer.read()  # type: ignore[no-untyped-call]
        except ApiException as error:
            raise _refused(error.status or 0, error.body or error.reason) from None
        if not 200 <= answer.status < 300:
            raise _refused(answer.status, answer.data)
        return json.loads(answer.data or b"null")

    # ---- paths

    def path(self, api_version: str, kind: str, namespace: str | None = None, name: str | None = None) -> str:
        """Where objects of `kind` are. Refused 404 where the server does not serve it."""
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        if (api_version, kind) not in self._served:
            for row in self.call("GET", root)["resources"]:
                if "/" not in row["name"]:
                    self._served[api_version, row["kind"]] = row["name"], row["namespaced"]
        if (api_version, kind) not in self._served:
            raise Refused(404, "NotFound", f"{api_version} has no kind {kind}")
        plural, namespaced = self._served[api_version, kind]
        parts = [
            root,
            *(["namespaces", namespace] if namespaced and namespace else []),
            plural,
            *([name] if name else []),
        ]
        return "/".join(parts)

    def _path_of(self, manifest: Mapping[str, Any], *, named: bool = True) -> str:
        metadata = manifest["metadata"]
        name = metadata["name"] if named else None
        return self.path(manifest["apiVersion"], manifest["kind"], metadata.get("namespace"), name)

    # ---- verbs

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create it as it stands; a field that the server does not know is an error."""
        path = self._path_of(manifest, named=False)
        found: Manifest = self.call("POST", path, manifest, fieldValidation="Strict", dryRun="All" if dry_run else None)
        return found

    def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create or change it by server-side apply, just as strictly."""
        found: Manifest = self.call(
            "PATCH",
            self._path_of(manifest),
            manifest,
            "application/apply-patch+yaml",
            fieldManager=_FIELD_MANAGER,
            force="true",
            fieldValidation="Strict",
            dryRun="All" if dry_run else None,
        )
        return found

    def patch(self, manifest: Mapping[str, Any], change: Any, subresource: str = "") -> Manifest:
        """Merge `change` into the object that `manifest` names."""
        path = self._path_of(manifest) + (f"/{subresource}" if subresource else "")
        found: Manifest = self.call("PATCH", path, change, "application/merge-patch+json", fieldValidation="Strict")
        return found

    def read(self, manifest: Mapping[str, Any]) -> Manifest | None:
        """The object that `manifest` names, as the server holds it, or None."""
        try:
            found: Manifest = self.call("GET", self._path_of(manifest))
        except Refused as refused:
            if refused.code == 404:
                return None
            raise
        return found

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, labels: str | None = None
    ) -> list[Manifest]:
        """Every object of `kind`, in one namespace or everywhere."""
        found: list[Manifest] = self.call("GET", self.path(api_version, kind, namespace), labelSelector=labels)["items"]
        return found

    def delete(self, manifest: Mapping[str, Any], propagation: str = "Background") -> None:
        """Ask for it to be deleted; what is gone already is fine."""
        try:
            self.call("DELETE", self._path_of(manifest), {"propagationPolicy": propagation})
        except Refused as refused:
            if refused.code != 404:
                raise


def _refused(code: int, body: Any) -> Refused:
    try:
        status = json.loads(body)
        return Refused(code, str(status.get("reason", "")), str(status.get("message", body)))
    except (ValueError, TypeError, AttributeError):
        return Refused(code, "", str(body))


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 30.0) -> T:
    """The first answer of `look` that is neither None nor False. TimeoutError names what never came."""
    until = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not after {seconds:g} s")
        time.sleep(_POLL_SECONDS)
