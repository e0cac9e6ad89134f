"""Kubernetes resources from manifests in wire form, so that what `ops plan --manifests` writes is exactly what is created.

Deliberately generic: a resource is registered under the same type token as the typed class of `pulumi_kubernetes` would use,
but without importing that class, because each API group of the SDK costs a preview up to half a second of imports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import pulumi
from pulumi_kubernetes.helm.v3 import Release, RepositoryOptsArgs

from components.identity import Identity
from recipe.plan import ChartPlan, Manifest

_LATE = re.compile(r"(\$\{[a-z_]+\})")


def type_token(manifest: Manifest) -> str:
    """The provider's name for the manifest's kind, such as `kubernetes:batch/v1:Job`."""
    api_version = str(manifest["apiVersion"])
    group_version = api_version if "/" in api_version else f"core/{api_version}"
    return f"kubernetes:{group_version}:{manifest['kind']}"


def create(name: str, manifest: Manifest, opts: pulumi.ResourceOptions) -> pulumi.CustomResource:
    """The object of `manifest` as a resource with the logical `name`.

    Physical names are fixed, so a replacement has to delete first.
    """
    fixed = pulumi.ResourceOptions(delete_before_replace=True)
    if manifest["kind"] == "Secret":
        # The API server answers with `data`, which no input was called; the typed class marks both as well.
        fixed.additional_secret_outputs = ["data", "stringData"]
    return pulumi.CustomResource(type_token(manifest), name, dict(manifest), pulumi.ResourceOptions.merge(fixed, opts))


def create_job(name: str, manifest: Manifest, opts: pulumi.ResourceOptions) -> pulumi.CustomResource:
    """A Job, awaited until it completes or fails.

    Pulumi waits a little longer than the Job's own deadline: the Job must be the one to give up, because it says why.
    """
    seconds = int(manifest["spec"]["activeDeadlineSeconds"]) + 120
    waiting = pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create=f"{seconds}s", update=f"{seconds}s"))
    return create(name, manifest, pulumi.ResourceOptions.merge(waiting, opts))


def create_account(
    name: str,
    manifests: tuple[Manifest, Manifest, Manifest],
    parent: pulumi.Resource,
    namespace: pulumi.Resource,
) -> list[pulumi.Resource]:
    """Service account, Role and RoleBinding of a Job (in this order in `manifests`); answers with what the Job waits for."""
    of_account, of_role, of_binding = manifests
    inside = pulumi.ResourceOptions(parent=parent, depends_on=[namespace])
    account = create(f"{name}-account", of_account, inside)
    role = create(f"{name}-role", of_role, inside)
    bound = pulumi.ResourceOptions(parent=parent, depends_on=[account, role])
    return [account, create(f"{name}-binding", of_binding, bound)]


def create_release(
    name: str, chart: ChartPlan, identity: Identity, opts: pulumi.ResourceOptions
) -> pulumi.CustomResource:
    """An unmodified third-party chart, awaited until what it installed is ready.

    Not atomic: a failed install leaves its pods to look at, costs nothing by the hour (there are no GPU nodes yet), and the
    next `up` upgrades it in place. An atomic one would take the evidence away.
    """
    settings = pulumi.ResourceOptions(
        delete_before_replace=True,  # a release's name is taken until it is gone
        # Helm gives up first, and says which object was not ready.
        custom_timeouts=pulumi.CustomTimeouts(
            create=f"{chart.timeout_seconds + 60}s",
            update=f"{chart.timeout_seconds + 60}s",
        ),
    )
    return Release(
        name,
        name=identity.tie(chart.release),
        chart=chart.chart,
        version=chart.version,
        repository_opts=RepositoryOptsArgs(repo=chart.repository),
        namespace=chart.namespace,
        create_namespace=True,
        values=chart.values,
        timeout=chart.timeout_seconds,
        atomic=False,
        skip_await=False,
        wait_for_jobs=True,
        opts=pulumi.ResourceOptions.merge(settings, opts),
    )


def tied(identity: Identity) -> pulumi.ResourceTransformation:
    """Makes every object below a component go with the identity: through its namespace, or its name where it has none.

    For a shared cluster, in which objects are deleted and not forgotten with it (see `components/foundation.py`).
    """

    def tie(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        if not args.type_.startswith("kubernetes:"):
            return None
        metadata = {**cast("Manifest", args.props["metadata"])}
        key = "namespace" if "namespace" in metadata else "name"
        props = {**args.props, "metadata": {**metadata, key: identity.tie(metadata[key])}}
        return pulumi.ResourceTransformationResult(props, args.opts)

    return tie


def fill(manifest: Manifest, late: Mapping[str, pulumi.Input[str]]) -> Manifest:
    """`manifest` with each `${name}` replaced by its value in `late` (see `recipe.plan.Late`). Raises KeyError for any other."""
    return {key: _filled(value, late) for key, value in manifest.items()}


def _filled(value: Any, late: Mapping[str, pulumi.Input[str]]) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(inner, late) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(inner, late) for inner in value]
    if not isinstance(value, str) or not _LATE.search(value):
        return value
    # Splitting at a group alternates text and placeholder.
    parts = [late[part] if index % 2 else part for index, part in enumerate(_LATE.split(value))]
    return pulumi.Output.concat(*parts)
