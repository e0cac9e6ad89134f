"""The workflows themselves: they parse, every action is pinned, and no job may do more than it says why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.stacks import ROOT

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")
MAY: dict[tuple[str, str], dict[str, str]] = {
    ("preview.yml", "stacks"): {"contents": "read"},
    ("preview.yml", "cloud"): {"contents": "read", "id-token": "write"},
    ("expiry.yml", "expired"): {"contents": "read", "id-token": "write"},
    ("chaos.yml", "every-place"): {"contents": "read"},
    ("preview-comment.yml", "comment"): {"actions": "read", "contents": "read", "pull-requests": "write"},
}
"""Everything a job of each workflow may do."""
MINUTES = {("expiry.yml", "expired"): 90, ("chaos.yml", "every-place"): 180}
"""What may take longer than half an hour: a destroy after a recover, and hundreds of kills."""


def load(file: Path) -> dict[str, Any]:
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def triggers(workflow: dict[Any, Any]) -> Any:
    return workflow[True]  # YAML 1.1 reads the key `on` as a boolean


def steps(file: Path) -> list[dict[str, Any]]:
    return [step for job in load(file)["jobs"].values() for step in job["steps"]]


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def file(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_every_action_is_pinned_by_commit_with_its_version_beside(file: Path) -> None:
    used = [step["uses"] for step in steps(file) if "uses" in step]
    assert all(PINNED.match(one) for one in used), f"a tag can be moved: {used}"
    for line in file.read_text(encoding="utf-8").splitlines():
        if "uses:" in line:
            assert re.search(r"# v\d+\.\d+\.\d+", line), f"nobody can read a commit: {line.strip()}"


def test_one_action_has_one_pin() -> None:
    pins: dict[str, set[str]] = {}
    for one in (step["uses"] for file in FILES for step in steps(file) if "uses" in step):
        pins.setdefault(one.partition("@")[0], set()).add(one.partition("@")[2])
    assert all(len(found) == 1 for found in pins.values()), pins


def test_permissions_are_given_job_by_job_and_no_more_than_needed(file: Path) -> None:
    workflow = load(file)
    assert workflow["permissions"] == {}, "whatever a new job does not ask for, it does not get"
    for name, job in workflow["jobs"].items():
        assert job["permissions"] == MAY[file.name, name]


def test_the_code_of_a_pull_request_never_meets_a_token_that_writes(file: Path) -> None:
    workflow = load(file)
    on = triggers(workflow)
    assert "pull_request_target" not in on
    if "pull_request" in on:
        for job in workflow["jobs"].values():
            assert "write" not in {level for what, level in job["permissions"].items() if what != "id-token"}
    else:
        checkouts = [step for step in steps(file) if "checkout" in step.get("uses", "")]
        assert all("ref" not in step.get("with", {}) for step in checkouts), "the default branch's code only"
    if "workflow_run" in on:
        assert not [step for step in steps(file) if "setup" in step.get("run", "")], "nothing is installed there"


def test_no_step_keeps_the_token_on_disk(file: Path) -> None:
    for step in steps(file):
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_scripts_take_nothing_of_an_event_into_a_shell(file: Path) -> None:
    for step in steps(file):
        assert "${{" not in step.get("run", ""), "a branch may be called `$(rm -rf .)`"


def test_workflows_call_and_do_not_compute(file: Path) -> None:
    commands = r"make (setup|chaos)|(\.venv/bin/python|python3) -m ops\.ci [\w -]+|\.venv/bin/python -m ops sweep --expired --yes"
    allowed = re.compile(commands)
    for step in steps(file):
        if "run" in step:
            assert allowed.fullmatch(step["run"].strip()), (
                f"logic belongs into ops/ci.py, where tests are: {step['run']}"
            )


def test_every_job_ends(file: Path) -> None:
    for name, job in load(file)["jobs"].items():
        assert job["timeout-minutes"] <= MINUTES.get((file.name, name), 30)


def test_what_deletes_never_runs_code_of_a_pull_request_and_never_twice_at_once() -> None:
    workflow = load(ROOT / ".github" / "workflows" / "expiry.yml")
    assert set(triggers(workflow)) == {"schedule", "workflow_dispatch"}
    assert workflow["concurrency"]["cancel-in-progress"] is False, (
        "a destroy that is cut off half way leaves nodes running"
    )


def test_secrets_reach_one_step_only() -> None:
    reached = {"preview.yml": "real-preview", "expiry.yml": "sweep --expired --yes"}
    for file in FILES:
        assert json.dumps(load(file)).count("secrets.") == (file.name in reached)
        for step in steps(file):
            if "secrets." in str(step.get("env")):
                assert step["run"].endswith(reached[file.name])


def test_the_comment_follows_the_preview_by_its_name() -> None:
    by_name = {file.name: load(file) for file in FILES}
    followed = triggers(by_name["preview-comment.yml"])["workflow_run"]["workflows"]
    assert followed == [by_name["preview.yml"]["name"]]


def test_a_label_put_on_or_taken_off_asks_again() -> None:
    types = triggers(load(ROOT / ".github" / "workflows" / "preview.yml"))["pull_request"]["types"]
    assert {"labeled", "unlabeled", "synchronize", "opened", "reopened"} == set(types)


def test_the_preview_runs_the_engine_the_rehearsal_runs() -> None:
    pin = re.search(r"pulumi/pkg/v3 v([\d.]+)", (ROOT / "rehearsal" / "engine" / "go.mod").read_text(encoding="utf-8"))
    assert pin
    wanted = [step["with"]["pulumi-version"] for step in steps(FILES[-1]) if "pulumi/actions" in step.get("uses", "")]
    assert wanted == [pin[1]]
