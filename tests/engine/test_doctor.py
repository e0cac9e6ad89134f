"""The doctor after a failed command, on the real engine: it names what went wrong from what is there, without having seen the output."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from ops import doctor
from ops.aws_pretend import PretendAccount
from recipe.config import parse
from recipe.plan import Plan
from recipe.planner import make_plan
from rehearsal.cases import CASES, KINDS, Case

from .conftest import StartLife
from .life import RECIPE, Life, said, succeed

pytestmark = pytest.mark.engine


def plan_of(life: Life) -> Plan:
    raw = yaml.safe_load(life.file.read_text(encoding="utf-8"))["config"][RECIPE]
    return make_plan(life.stack, parse(raw), placeholders=True)


def examine(life: Life, text: str = "") -> doctor.Report:
    plan = plan_of(life)
    account = PretendAccount(life.session.cloud_folder, plan.recipe.access.region)
    return doctor.examine(plan, {}, account, said=text, rehearsed=True, online=False, now=datetime.now(UTC))


def fail(start: StartLife, folder: Path, case: Case) -> tuple[Life, str]:
    """The command of `case`, which fails, and what it printed."""
    file = folder / "faults.json"
    file.write_text(json.dumps(case.as_file()), encoding="utf-8")
    life = start(faults=file)
    if case.stage == "up":
        result = life.up()
    else:
        succeed(life.up())
        if case.stage == "pause":
            life.edit({"hardware.paused": True})
        result = life.up() if case.stage == "pause" else life.destroy()
    assert not result.ok, f"{case.name} harms nobody"
    return life, said(result)


@pytest.mark.slow
@pytest.mark.parametrize("case", KINDS.values(), ids=KINDS)
def test_the_doctor_names_it_first_from_what_is_there(start: StartLife, tmp_path: Path, case: Case) -> None:
    life, text = fail(start, tmp_path, case)
    found = examine(life).findings
    keys = [finding.symptom.key for finding in found]
    assert keys[:1] == [case.symptom], f"{keys}\n{doctor.text(examine(life))}"
    assert found[0].fix
    assert not re.search(r"\{[a-z_]+\}", found[0].fix), "filled in for the stack"
    from_output = [finding.symptom.key for finding in examine(life, text).findings]
    assert case.symptom in from_output


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "throttled at NatGateway",
        "credentials expire at NodeGroup",
        "credentials expire at Job",
        "throttled when FileSystem goes",
    ],
)
def test_what_can_strike_any_call_is_named_at_some(start: StartLife, tmp_path: Path, name: str) -> None:
    life, text = fail(start, tmp_path, CASES[name])
    assert CASES[name].symptom in [finding.symptom.key for finding in examine(life).findings]
    assert CASES[name].symptom in [finding.symptom.key for finding in examine(life, text).findings]


@pytest.mark.slow
def test_a_stack_that_is_well_has_nothing(start: StartLife) -> None:
    life = start()
    succeed(life.up())
    report = examine(life)
    assert report.well, doctor.text(report)
    assert report.begun
    succeed(life.destroy())
    gone = examine(life)
    assert gone.well, doctor.text(gone)


@pytest.mark.slow
def test_what_was_mended_is_not_named_any_more(start: StartLife, tmp_path: Path) -> None:
    life, _ = fail(start, tmp_path, KINDS["weights: 401"])
    succeed(life.up())
    assert examine(life).well, doctor.text(examine(life))


@pytest.mark.slow
def test_inside_a_rehearsal_the_command_looks_at_the_pretend_cloud(start: StartLife, tmp_path: Path) -> None:
    life, _ = fail(start, tmp_path, KINDS["no GPU capacity"])
    done = subprocess.run(
        [sys.executable, "-m", "ops", "doctor", life.stack], cwd=life.session.project, env=life.session.env, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "1. AWS has no GPU capacity" in done.stdout


def test_every_fault_has_a_name_and_there_are_enough_of_them() -> None:
    assert len(CASES) >= 40
    assert {case.stage for case in CASES.values()} == {"up", "destroy", "pause"}
