from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from ops import manifests, stacks
from ops.exits import BAD_INPUT, FAILED, CommandError
from ops.plan_data import PRICE_AGE_DAYS, warnings
from ops.planning import planned
from ops.resources import rooms
from recipe import catalogue
from tests.ops.conftest import STACK, write
from tests.recipe.samples import plan, raw

Run = Callable[..., Result]
PlanJson = Callable[..., dict[str, Any]]


def test_the_json_tells_what_tools_ask_for(plan_json: PlanJson) -> None:
    data = plan_json()
    assert data["stack"] == STACK
    assert data["instance_type"] == "p5.48xlarge"
    assert (data["gpu_nodes"], data["gpus"], data["efa_per_node"]) == (2, 16, 32)
    workers = {
        pool["role"]: (pool["replicas"], pool["tensor_parallel"], pool["gpus"], pool["efa"]) for pool in data["workers"]
    }
    assert workers == {"prefill": (6, 2, 2, 8), "decode": (2, 2, 2, 8)}
    assert data["model"]["id"] == "Qwen/Qwen3-32B"
    assert len(data["model"]["revision"]) == 40
    assert set(data["images"]) == {"frontend", "prefill", "decode", "jobs"}
    assert data["usd_per_hour"] == pytest.approx(sum(line["usd_per_hour"] for line in data["cost"]["lines"]), abs=0.01)
    assert data["usd_for_ttl"] == pytest.approx(data["usd_per_hour"] * data["ttl_hours"] + data["usd_once"], abs=0.05)
    assert all(line["source"] for line in data["cost"]["lines"]), "a price without a source is a rumour"


def test_set_changes_the_plan(plan_json: PlanJson) -> None:
    data = plan_json("--set", "hardware.gpu=h200", "--set", "budget.usd_per_hour=200")
    assert data["instance_type"] == "p5en.48xlarge"
    assert data["efa_per_node"] == 16
    assert all(pool["efa"] == 4 for pool in data["workers"]), "two GPUs with two devices each"


def test_every_placeholder_comes_with_the_command_that_sets_it(plan_json: PlanJson, run: Run) -> None:
    found = plan_json()["placeholders"]
    assert [one["path"] for one in found] == ["access.account_id", "access.zone_id", "access.endpoint_cidrs"]
    screen = run("plan", STACK).stdout
    for one in found:
        assert one["command"].startswith(f"pulumi config set -s {STACK} --path "), one
        assert one["command"] in screen, "the command is there to be copied, so it must not be wrapped"


def test_what_is_set_is_no_placeholder(plan_json: PlanJson) -> None:
    data = plan_json("--set", "access.zone_id=use2-az2", "--set", "access.endpoint_cidrs[0]=198.51.100.7/32")
    assert [one["path"] for one in data["placeholders"]] == ["access.account_id"]


def test_the_screen_shows_workers_money_sources_and_warnings_without_a_terminal(run: Run) -> None:
    result = run("plan", STACK)
    assert result.exit_code == 0, result.output
    for node in ("│ P │ P ││ P │ P ││ D │ D ││ D │ D │  gpu-0", "│ P │ P ││ P │ P ││ P │ P ││ P │ P │  gpu-1"):
        assert node in result.stdout, "the roles are drawn apart, as they are placed"
    for shown in (
        "9216db5781bf21249d130ec9da846c4624c16137",
        "GPU memory",
        "EKS control plane",
        "[1]",
        "us-east-1",
        "budget.ttl_hours",
    ):
        assert shown in result.stdout
    assert "\x1b" not in result.stdout, "no colours into a file"
    assert not any(line != line.rstrip() for line in result.stdout.splitlines()), "no trailing blanks into a file"


@pytest.mark.parametrize("as_json", [True, False])
def test_all_problems_come_at_once_with_exit_code_2(run: Run, as_json: bool) -> None:
    bad = ("--set", "hardwar.gpu=h200", "--set", "workers.decode.replicas=many", "--set", "mode=dis")
    result = run("plan", STACK, *bad, *(["--json"] if as_json else []))
    assert result.exit_code == BAD_INPUT
    if as_json:
        problems = {problem["path"]: problem for problem in json.loads(result.stdout)["problems"]}
        assert set(problems) == {"hardwar", "workers.decode.replicas", "mode"}
        assert "did you mean hardware?" in problems["hardwar"]["fix"]
        assert problems["workers.decode.replicas"]["value"] == "many"
    else:
        assert "3 problems in stacks/Pulumi.qwen3-32b-disagg.yaml" in result.stderr
        assert "did you mean hardware?" in result.stderr
        assert result.stdout == "", "what is wrong goes to standard error"


def test_an_unknown_stack_is_bad_input_in_both_forms(run: Run) -> None:
    said, as_json = run("plan", "qwen3-32b-disag"), run("plan", "qwen3-32b-disag", "--json")
    assert said.exit_code == as_json.exit_code == BAD_INPUT
    assert f"did you mean {STACK}?" in said.stderr
    assert json.loads(as_json.stdout)["problems"][0]["path"] == "stack"


def test_an_impossible_recipe_is_refused_with_its_numbers(run: Run) -> None:
    result = run("plan", STACK, "--set", "budget.usd_per_hour=100")
    assert result.exit_code == BAD_INPUT
    assert "the stack costs $113." in result.stderr


@pytest.mark.parametrize("args", [(), (STACK, "--all")])
def test_a_stack_or_all_of_them_but_not_both(run: Run, args: tuple[str, ...]) -> None:
    assert run("plan", *args).exit_code == BAD_INPUT


def test_all_shows_every_stack_and_a_broken_one_does_not_hide_the_others(
    folder: Path, run: Run, tmp_path: Path
) -> None:
    write(folder, "good")
    write(folder, "dear", raw(budget__usd_per_hour=1))
    (folder / "Pulumi.torn.yaml").write_text("config: [")
    result = run("plan", "--all", "--manifests", tmp_path / "out")
    assert result.exit_code == BAD_INPUT, "a broken stack file must fail a pipeline"
    assert "good" in result.stdout
    assert "budget.usd_per_hour" in result.stderr
    assert "stacks/Pulumi.torn.yaml, line" in result.stderr
    assert (tmp_path / "out" / "good" / "10-namespace.yaml").exists()
    listed = {one["stack"]: one for one in json.loads(run("plan", "--all", "--json").stdout)}
    assert listed["good"]["gpus"] == 16
    assert {stack for stack, one in listed.items() if "problems" in one} == {"dear", "torn"}


def test_old_prices_are_warned_about_and_young_ones_are_not() -> None:
    found = plan()
    gpu = date.fromisoformat(next(line.as_of for line in found.cost.lines if "GPU nodes" in line.what))
    young = date.fromordinal(gpu.toordinal() + PRICE_AGE_DAYS)
    assert not any("GPU nodes" in warning for warning in warnings(found, young))
    assert any("GPU nodes" in warning for warning in warnings(found, date.fromordinal(young.toordinal() + 1)))


# ── resources ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stack", "recipe"),
    [
        (STACK, raw()),
        (STACK, raw(access__admin_principals=["arn:aws:iam::111122223333:role/ops"], weights__token=True)),
        (STACK, raw(foundation={"kind": "base"}, access={})),
        (STACK, raw(storage={"model": {"kind": "fsx-lustre", "size_gib": 2400, "throughput_mb_per_tib": 500}})),
        (STACK, raw(weights__wait="overlap", benchmark={"run": "small", "bucket": "create"})),
        ("base", None),
    ],
    ids=["as shipped", "admins and token", "on a base", "on lustre", "overlap and a benchmark", "base"],
)
def test_the_list_of_resources_is_what_the_program_registers(stack: str, recipe: dict[str, Any] | None) -> None:
    from tests.program.recorder import run_program

    ran = run_program(stack, recipe, secrets={"hfToken": "token"})
    counted: dict[str, Counter[str]] = {}
    for resource in ran.custom:
        parent = ran.resources[resource.parent]
        counted.setdefault(parent.name, Counter())[resource.type.rpartition(":")[2]] += 1
    assert {room.name: Counter(room.kinds) for room in rooms(ran.plan)} == counted


# ── manifests ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_manifests_are_the_plans_objects_in_their_order(tmp_path: Path, run: Run) -> None:
    assert run("plan", STACK, "--manifests", tmp_path / "new" / "out").exit_code == 0
    files = sorted((tmp_path / "new" / "out").glob("*.yaml"))
    read = [yaml.safe_load(file.read_text()) for file in files]
    wanted = planned(STACK, []).model
    assert read == list(wanted.objects.all())
    assert files[0].name == "10-namespace.yaml"
    assert [file.name.partition("-")[0] for file in files] == [str(number) for number in range(10, 10 + len(files))]
    charts = yaml.safe_load((tmp_path / "new" / "out" / "helm" / "charts.yaml").read_text())["charts"]
    assert [chart["release"] for chart in charts] == ["dynamo-platform", *(chart.release for chart in wanted.devices)]
    for chart, wanted_chart in zip(charts, (wanted.platform, *wanted.devices), strict=True):
        values = tmp_path / "new" / "out" / "helm" / chart["values"]
        assert yaml.safe_load(values.read_text()) == wanted_chart.values


def test_scripts_in_config_maps_stay_readable() -> None:
    text = "import os\n\n\nprint(os)\n"
    written = manifests.as_yaml({"data": {"a.py": text}})
    assert "a.py: |\n" in written
    assert yaml.safe_load(written)["data"]["a.py"] == text


def test_writing_again_replaces_our_own_files_and_removes_what_is_gone(tmp_path: Path) -> None:
    first = plan(weights__token=True)
    manifests.write(first, tmp_path)
    assert any("token" in path.name for path in tmp_path.iterdir())
    manifests.write(plan(), tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml")}
    assert names == set(manifests.files(plan())), (
        "a file of an object that is not planned any more would still be applied"
    )


def test_the_token_is_not_in_any_file(tmp_path: Path) -> None:
    manifests.write(plan(weights__token=True), tmp_path)
    token = next(path for path in tmp_path.iterdir() if "token" in path.name)
    assert "${hf_token}" in token.read_text()


@pytest.mark.parametrize("foreign", ["notes.yaml", "10-namespace.yaml", "helm/mine.yaml", "sub/x.yaml"])
def test_foreign_files_are_never_touched(tmp_path: Path, foreign: str) -> None:
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("mine: true\n")
    with pytest.raises(CommandError, match=r"files this command did not write") as caught:
        manifests.write(plan(), tmp_path)
    assert caught.value.code == BAD_INPUT
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / foreign]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="is a file"):
        manifests.write(plan(), tmp_path / "file")


def test_a_full_disk_leaves_the_old_files_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    manifests.write(plan(), folder)
    before = {path: path.read_text() for path in folder.rglob("*.yaml")}
    written = 0
    real = Path.write_text

    def full(self: Path, *args: Any, **kwargs: Any) -> int:
        nonlocal written
        written += 1
        if written == 5:
            raise OSError(28, "No space left on device")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CommandError, match="No space left") as caught:
        manifests.write(plan(workers__prefill__replicas=5), folder)
    assert caught.value.code == FAILED
    assert {path: path.read_text() for path in folder.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["helm"]
    written = 0
    with pytest.raises(CommandError):
        manifests.write(plan(), tmp_path / "deep" / "new")
    assert not (tmp_path / "deep").exists(), "folders made for nothing go again"


# ── as a process ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_plan_imports_neither_pulumi_nor_the_rehearsal() -> None:
    code = (
        "import sys; from ops.app import app; from typer.testing import CliRunner\n"
        f"assert CliRunner().invoke(app, ['plan', '{STACK}']).exit_code == 0\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('pulumi', 'pulumi_aws', 'grpc', 'rehearsal', 'psutil', 'components')])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=stacks.ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]", (
        "the plan must work where nothing but pydantic, typer, rich and PyYAML is installed, and start fast"
    )


def test_plan_needs_no_environment_and_runs_from_anywhere(tmp_path: Path) -> None:
    env = {"PATH": os.defpath, "PYTHONPATH": str(stacks.ROOT)}
    command = [sys.executable, "-m", "ops", "plan", STACK]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{STACK}: $")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    # `true` has ended long before the plan writes.
    command = ["bash", "-o", "pipefail", "-c", f"'{sys.executable}' -m ops plan {STACK} | true"]
    env = {
        key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"
    }  # it would hide the flush at exit
    result = subprocess.run(command, cwd=stacks.ROOT, env=env, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_survives_a_terminal_without_utf_8(encoding: str) -> None:
    env = {"PATH": os.defpath, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "ops", "plan", STACK]
    result = subprocess.run(command, cwd=stacks.ROOT, env=env, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()


def test_help_names_the_exit_codes(run: Run) -> None:
    for command in ((), ("plan",), ("schema",), ("rehearse",)):
        text = " ".join(run(*command, "--help").stdout.split())
        assert "0 ok, 1 the run failed, 2 bad input, 3 missing tool or set-up, 130 interrupted" in text


# ── a base ───────────────────────────────────────────────────────────────────────────────────────────────────────────

ON_BASE = ("--set", "foundation.kind=base")


def test_a_base_is_shown_with_what_it_costs_and_nothing_of_a_model(run: Run) -> None:
    result = run("plan", "base")
    assert result.exit_code == 0, result.stderr
    assert "2 × m7i.xlarge" in result.stdout
    assert "EKS control plane" in result.stdout
    assert not {"GPU memory", "Workers", "model-cache"} & set(result.stdout.split("\n"))
    data = json.loads(run("plan", "base", "--json").stdout)
    assert data["kind"] == "base"
    assert {room["room"] for room in data["resources"]} == {"network", "cluster", "cpu", "files", "platform", "devices"}


def test_a_stack_on_a_base_shows_its_own_cost_and_the_bases_beside(run: Run, plan_json: PlanJson) -> None:
    shown = run("plan", STACK, *ON_BASE).stdout
    cost = json.loads(run("plan", "base", "--json").stdout)["usd_per_hour"]
    assert f"beside it stack base, its base: ${cost:.2f} an hour" in shown
    positions = [line.split("  ")[0] for line in shown.splitlines()]
    assert "NAT gateway" not in positions
    data = plan_json(*ON_BASE)
    assert data["base"] == {"stack": "base", "usd_per_hour": cost}
    assert data["usd_per_hour"] < plan_json()["usd_per_hour"], "the base pays its part"
    assert plan_json()["base"] is None


def test_what_is_missing_on_a_base_is_shown_with_the_command_for_the_base(run: Run) -> None:
    shown = run("plan", STACK, *ON_BASE).stdout
    assert "base:access.zone_id\n  pulumi config set -s base --path recipe.access.zone_id" in shown


def test_all_stacks_together_list_bases_too(run: Run) -> None:
    shown = " ".join(run("plan", "--all").stdout.split())
    assert "`base` is no model but a base that model stacks can share: 2 × m7i.xlarge, $0.56 an hour" in shown


def test_the_manifests_of_a_stack_on_a_base_hold_no_charts(tmp_path: Path, run: Run) -> None:
    assert run("plan", STACK, *ON_BASE, "--manifests", tmp_path / "taken").exit_code == 0
    assert not list((tmp_path / "taken" / "helm").glob("*")), "the base installs them"
    assert run("plan", "base", "--manifests", tmp_path / "base").exit_code == 0
    assert [path.name for path in (tmp_path / "base").glob("*.yaml")] == []
    assert (tmp_path / "base" / "helm" / "charts.yaml").exists()


def test_a_mistake_in_the_bases_file_is_found_from_the_stack(folder: Path, run: Run) -> None:
    write(folder, "mine", raw(foundation={"kind": "base", "stack": "under"}, access={}))
    result = run("plan", "mine")
    assert result.exit_code == BAD_INPUT
    assert "stacks/Pulumi.under.yaml does not exist" in result.stderr
    write(folder, "under", {"kind": "base", "budgit": {}})
    result = run("plan", "mine")
    assert result.exit_code == BAD_INPUT
    assert "did you mean budget?" in result.stderr
    assert "stacks/Pulumi.under.yaml" in result.stderr, "the reader has to know which file"


def test_a_kubernetes_version_out_of_standard_support_is_said_with_what_it_costs() -> None:
    plan = planned("mocker-cpu", ["versions.kubernetes='1.33'"]).model
    until = catalogue.KUBERNETES["1.33"].standard_support_until
    assert not any("standard support" in one for one in warnings(plan, until))
    (said,) = [one for one in warnings(plan, until + timedelta(days=1)) if "standard support" in one]
    assert "$0.60 an hour" in said
