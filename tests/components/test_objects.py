"""Manifests become resources: the late values, the type tokens, and what of a graph cannot change in place."""

import functools
from typing import Any

import pulumi
import pytest

from components._objects import fill, type_token
from components.serving import immutable_part
from recipe.plan import Late


def resolved(value: pulumi.Input[Any]) -> Any:
    """What an Output becomes."""
    found: list[Any] = []

    @functools.partial(pulumi.runtime.test)
    def look() -> pulumi.Output[None]:
        return pulumi.Output.from_input(value).apply(found.append)

    look()
    return found[0]


@pytest.mark.parametrize(
    ("api_version", "kind", "token"),
    [
        ("v1", "Namespace", "kubernetes:core/v1:Namespace"),
        ("batch/v1", "Job", "kubernetes:batch/v1:Job"),
        ("rbac.authorization.k8s.io/v1", "Role", "kubernetes:rbac.authorization.k8s.io/v1:Role"),
        ("nvidia.com/v1beta1", "DynamoGraphDeployment", "kubernetes:nvidia.com/v1beta1:DynamoGraphDeployment"),
    ],
)
def test_type_tokens_are_the_sdks(api_version: str, kind: str, token: str) -> None:
    assert type_token({"apiVersion": api_version, "kind": kind}) == token


def test_late_values_are_filled_in_wherever_they_stand() -> None:
    manifest = {"spec": {"handle": f"{Late.FILE_SYSTEM}::{Late.access_point('model')}", "sizes": [1, Late.FILE_SYSTEM]}}
    late: dict[str, pulumi.Input[str]] = {
        Late.FILE_SYSTEM: pulumi.Output.from_input("fs-1"),
        Late.access_point("model"): "fsap-2",
    }
    assert resolved(fill(manifest, late)) == {"spec": {"handle": "fs-1::fsap-2", "sizes": [1, "fs-1"]}}


def test_a_late_value_nobody_has_is_an_error_rather_than_text_in_a_volume() -> None:
    with pytest.raises(KeyError, match="access_point_id_perf"):
        fill({"handle": Late.access_point("perf")}, {Late.FILE_SYSTEM: "fs-1"})


def test_a_secret_late_value_stays_secret() -> None:
    token = pulumi.Output.secret("hf_" + "x")
    filled = fill({"stringData": {"HF_TOKEN": Late.HF_TOKEN}}, {Late.HF_TOKEN: token})
    assert resolved(filled["stringData"]["HF_TOKEN"].is_secret())


def graph(**changes: Any) -> dict[str, Any]:
    component = {"name": "prefill", "type": "prefill", "replicas": 6} | changes
    return {"spec": {"backendFramework": "vllm", "components": [{"name": "frontend", "type": "frontend"}, component]}}


@pytest.mark.parametrize("change", [{"replicas": 3}, {"podTemplate": {"spec": {}}}, {"sharedMemorySize": "1Gi"}])
def test_what_the_operator_rolls_out_keeps_the_graph(change: dict[str, Any]) -> None:
    assert immutable_part(graph(**change)) == immutable_part(graph())


@pytest.mark.parametrize("change", [{"name": "other"}, {"type": "decode"}])
def test_what_the_operator_holds_immutable_replaces_the_graph(change: dict[str, Any]) -> None:
    assert immutable_part(graph(**change)) != immutable_part(graph()), "an update would be refused with GPUs running"


def test_the_order_of_components_does_not_matter() -> None:
    turned = graph()
    turned["spec"]["components"].reverse()
    assert immutable_part(turned) == immutable_part(graph())
