"""Every manifest but the graph, of every stack on every GPU, against Kubernetes' own schemas (the graph: tests/recipe/test_graph.py, tests/cluster)."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ops.variants import by_hand
from recipe.plan import Plan
from tests.outside.tools import ask
from tests.recipe.samples import plan

GRAPH = "DynamoGraphDeployment"


def manifests(one: Plan) -> list[dict[str, Any]]:
    return [manifest for manifest in one.objects.all() if manifest["kind"] != GRAPH]


def verdicts(version: str, asked: list[dict[str, Any]]) -> list[str | None]:
    found: list[str | None] = ask("manifests", {"version": version, "manifests": asked})
    return found


def test_every_manifest_is_what_the_planned_kubernetes_knows() -> None:
    for variant in by_hand():
        for settings in ((), ("weights.token=true",)):
            one = variant.plan(None, *settings)
            asked = manifests(one)
            wrong = {
                f"{manifest['kind']} {manifest['metadata']['name']}": said
                for manifest, said in zip(asked, verdicts(one.cluster.version, asked), strict=True)
                if said
            }
            assert wrong == {}, f"{variant} {settings}: Kubernetes {one.cluster.version} refuses these"
            assert {"Job", "ConfigMap", "Namespace", "PersistentVolume", "StorageClass", "Role"} <= {
                manifest["kind"] for manifest in asked
            }


def broken(kind: str, path: str, value: Any) -> dict[str, Any]:
    """The first object of that kind with `value` put at `path`; `...` takes the key away."""
    manifest = copy.deepcopy(next(one for one in manifests(plan()) if one["kind"] == kind))
    *parents, last = path.split(".")
    at: Any = manifest
    for parent in parents:
        at = at[int(parent)] if parent.isdigit() else at[parent]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return manifest


POD = "spec.template.spec"
BROKEN: tuple[tuple[str, str, Any], ...] = (
    ("Job", "spec.backofLimit", 2),
    ("Job", "spec.backoffLimit", "2"),
    ("Job", f"{POD}.restartPolicyy", "Never"),
    ("Job", f"{POD}.containers", ...),
    ("Job", f"{POD}.containers.0.envv", []),
    ("Job", f"{POD}.containers.0.name", ...),
    ("Job", f"{POD}.containers.0.resources.limit", {}),
    ("Job", f"{POD}.containers.0.env.0.value", 7),
    ("Job", "spec.podFailurePolicy.rules.1.onExitCodes.values", ["2"]),
    ("ConfigMap", "data", {"a": 1}),
    ("ConfigMap", "immutable", "yes"),
    ("Role", "rules.0.verbs", ...),
    ("PersistentVolumeClaim", "spec.acessModes", ["ReadWriteMany"]),
    ("PersistentVolume", "spec.csi.volumeHandle", ...),
    ("StorageClass", "provisioner", ...),
    ("Job", "apiVersion", "batch/v2"),
    ("Job", "kind", "Jobb"),
)


@pytest.mark.parametrize(("kind", "path", "value"), BROKEN)
def test_a_broken_manifest_is_caught(kind: str, path: str, value: Any) -> None:
    (said,) = verdicts("1.35", [broken(kind, path, value)])
    assert said, f"{path} = {value!r} passed: the check proves nothing about it"


def test_a_version_that_the_schemas_do_not_have_is_said() -> None:
    (said,) = verdicts("1.99", [manifests(plan())[0]])
    assert said
    assert "1.99" in said
