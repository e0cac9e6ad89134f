"""The whole program under mocks: what every stack file becomes, and how it says that something is missing."""

import ast
from typing import Any

import pulumi
import pytest
import yaml

from recipe.plan import BasePlan
from tests.program.conftest import STACK, TOKEN, changed
from tests.program.recorder import ROOT, STACKS, Run, recipe_of, run_program

# Keys of https://github.com/pulumi/pulumi sdk/go/common/workspace/project.json that a project like this may use.
PROJECT_KEYS = {
    "name",
    "description",
    "runtime",
    "main",
    "stackConfigDir",
    "requiredPulumiVersion",
    "config",
    "options",
}


def test_every_stack_file_becomes_a_graph_or_a_base_for_graphs(stack: str) -> None:
    run = run_program(stack)
    assert isinstance(run.plan, BasePlan) or run.of("kubernetes:nvidia.com/v1beta1:DynamoGraphDeployment"), (
        "a stack without a graph serves nothing"
    )
    assert run.of("aws:eks/nodeGroup:NodeGroup"), "a graph needs nodes"


def test_what_is_created_is_what_the_plan_shows(model: Run) -> None:
    """`ops plan --manifests` writes `Plan.objects`; a reviewer trusts that nothing else is created."""
    created = [one.inputs for one in model.in_cluster if "helm.sh" not in one.type]
    known = {
        "${hf_token}": TOKEN,
        "${file_system_id}": "files-efs-id",
        "${lustre_id}": "lustre-fsx-id",
        "${lustre_dns_name}": "lustre-fsx.fsx.example",
        "${lustre_mount_name}": "abcdefgh",
        "${gpu_nodes}": "5e1f0a9c",
        "${cpu_nodes}": "5e1f0a9c",
    }
    late = known | {
        f"${{access_point_id_{claim.purpose}}}": f"files-{claim.purpose}-id" for claim in model.plan.storage.claims
    }
    planned = [_fill(manifest, late) for manifest in model.plan.objects.all()]
    by_name = _by_kind_and_name(created)
    assert by_name == _by_kind_and_name(planned)
    assert len(created) == len(planned), "an object was created twice under one name"


def test_releases_are_the_plans_charts(run: Run) -> None:
    fields = ("name", "chart", "version", "namespace", "values", "timeout")
    created = {
        one.inputs["name"]: tuple(one.inputs[key] for key in fields) for one in run.of("kubernetes:helm.sh/v3:Release")
    }
    charts = (run.plan.platform, *run.plan.devices)
    assert created == {
        chart.release: (chart.release, chart.chart, chart.version, chart.namespace, chart.values, chart.timeout_seconds)
        for chart in charts
    }


def test_outputs_lead_to_the_endpoint(run: Run) -> None:
    names = run.plan.names
    assert run.exports["portForward"] == (
        f"kubectl -n {names.namespace} port-forward service/{names.frontend_service} 8000:8000"
    )
    assert run.exports["kubeconfig"] == f"aws eks update-kubeconfig --region us-east-2 --name {names.cluster}"
    assert run.exports["weightsRevision"] == run.plan.model.revision
    assert run.exports["gpus"] == 16


def test_the_plans_warnings_are_shown(run: Run) -> None:
    assert run.warnings == list(run.plan.warnings)
    assert any("placeholder" in warning for warning in run.warnings), "placeholders must never pass unnoticed"


def test_without_what_only_the_user_knows_it_stops_with_the_commands() -> None:
    with pytest.raises(pulumi.RunError) as stopped:
        run_program(STACK, placeholders=False)
    for path in ("access.account_id", "access.zone_id", "'recipe.access.endpoint_cidrs[0]'"):
        assert path in str(stopped.value)
    assert f"pulumi config set -s {STACK} --path" in str(stopped.value)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"workers": {"prefil": {"replicas": 1, "tensor_parallel": 2}}}, "prefill"),
        ({"budget": {"usd_per_hour": 1}}, "an hour"),
        ({"hardware": {"gpu": "h100", "gpus": 16}}, "unknown key"),
    ],
)
def test_a_mistake_in_the_recipe_creates_nothing_and_says_why(raw: dict[str, Any], said: str) -> None:
    # RunError is the one exception a language host prints without a traceback.
    with pytest.raises(pulumi.RunError, match=said):
        run_program(STACK, changed(**raw))


@pytest.mark.parametrize("secrets", [{}, {"hfToken": " "}])
def test_a_token_that_is_asked_for_and_not_set_stops_the_program_before_anything_is_registered(
    secrets: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[object] = []
    monkeypatch.setattr(pulumi.CustomResource, "__init__", lambda *made, **_: registered.append(made))
    with pytest.raises(pulumi.RunError, match=f"pulumi config set -s {STACK} --secret hfToken"):
        run_program(STACK, changed(weights={"token": True}), secrets=secrets)
    assert registered == [], "an `up` would leave a cluster and a NAT gateway behind"


@pytest.mark.parametrize("wanted", [True, False])
def test_a_token_in_clear_is_refused_and_not_repeated(wanted: bool) -> None:
    with pytest.raises(pulumi.RunError, match="revoke it") as refused:
        run_program(STACK, changed(weights={"token": wanted}), clear={"hfToken": TOKEN})
    assert TOKEN not in str(refused.value)


def test_the_token_is_nowhere_in_clear(with_token: Run) -> None:
    holders = [one for one in with_token.resources.values() if TOKEN in one.wire]
    assert [one.type for one in holders] == ["kubernetes:core/v1:Secret"], "a token belongs into one Secret only"
    # In the wire format of a secret the value stands beside Pulumi's signature; in clear it would stand alone.
    assert holders[0].secrets == {"stringData.HF_TOKEN"}
    assert not any(TOKEN in str(value) for value in with_token.exports.values())


def test_without_a_token_no_secret_is_made(run: Run) -> None:
    assert not run.of("kubernetes:core/v1:Secret")


def test_the_project_file_has_no_misspelt_key() -> None:
    """Pulumi ignores keys it does not know: `stackconfigdir` would silently look for stack files beside Pulumi.yaml."""
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    assert set(project) <= PROJECT_KEYS
    assert (ROOT / project["stackConfigDir"]) == STACKS[STACK].parent
    assert project["name"] == recipe_project()


def recipe_project() -> str:
    """Namespace of the recipe's key in the stack files: it must be the project's name."""
    raw = yaml.safe_load(STACKS[STACK].read_text())
    (key,) = (key for key in raw["config"] if key.endswith(":recipe"))
    return str(key.split(":")[0])


def test_stack_files_leave_open_what_only_the_user_knows(stack: str) -> None:
    access = recipe_of(stack).get("access", {})
    assert not {"account_id", "zone_id", "endpoint_cidrs"} & set(access), "a foreign account must never be a default"


def test_stack_files_point_editors_at_the_schema(stack: str) -> None:
    first = STACKS[stack].read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=schema.json"


def test_the_program_never_imports_ops_or_the_rehearsal() -> None:
    files = [ROOT / "__main__.py", *(ROOT / "components").glob("*.py"), *(ROOT / "recipe").rglob("*.py")]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            strays = {module.split(".")[0] for module in modules} & {"ops", "rehearsal", "tests"}
            assert not strays, f"{file.relative_to(ROOT)} imports {strays}: a real `up` must not need them"


def _fill(value: Any, late: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(inner, late) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_fill(inner, late) for inner in value]
    if isinstance(value, str):
        for name, known in late.items():
            value = value.replace(name, known)
    return value


def _by_kind_and_name(manifests: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}
