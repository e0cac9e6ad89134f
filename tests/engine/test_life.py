"""The real program from nothing to a served graph and back, on the real engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from rehearsal.session import PLACEHOLDERS, Result

from .conftest import StartLife
from .life import Life, names, said, succeed

pytestmark = pytest.mark.engine

ONLY_THE_USER_KNOWS = {PLACEHOLDERS: ""}


@dataclass
class Whole:
    """One life, recorded: what each command said, and what existed after it."""

    preview: Result
    preview_json: Result
    after_preview: list[dict[str, Any]]
    up: Result
    after_up: list[dict[str, Any]]
    outputs: dict[str, Any]
    unchanged_preview: Result
    unchanged_up: Result
    refresh: Result
    destroy: Result
    after_destroy: list[dict[str, Any]]
    state_after_destroy: list[dict[str, Any]]


@pytest.fixture(scope="module")
def whole(start_for_module: StartLife) -> Whole:
    life = start_for_module()
    preview, preview_json = life.run("preview"), life.run("preview", "--json")
    after_preview = life.session.cloud_objects()
    up = succeed(life.up())
    after_up = life.session.cloud_objects()
    outputs = json.loads(life.run("stack", "output", "--json").stdout)
    return Whole(
        preview=preview,
        preview_json=preview_json,
        after_preview=after_preview,
        up=up,
        after_up=after_up,
        outputs=outputs,
        unchanged_preview=life.run("preview", "--expect-no-changes"),
        unchanged_up=life.up("--expect-no-changes"),
        refresh=life.run("refresh", "--yes", "--skip-preview", "--expect-no-changes"),
        destroy=life.destroy(),
        after_destroy=life.session.cloud_objects(),
        state_after_destroy=life.session.resources("qwen3-32b-disagg"),
    )


def test_a_preview_shows_everything_and_creates_nothing(whole: Whole) -> None:
    shown = succeed(whole.preview).changes
    assert set(shown) == {"create"}
    assert shown["create"] == sum(whole.up.changes.values()), "what a first preview counts is what `up` then makes"
    assert whole.after_preview == [], "a preview must not touch the account"


def test_preview_json_is_nothing_but_json(whole: Whole) -> None:
    steps = json.loads(succeed(whole.preview_json).stdout)["steps"]
    types = {step["urn"].split("::")[2].rpartition("$")[2] for step in steps}
    assert {"aws:eks/cluster:Cluster", "kubernetes:nvidia.com/v1beta1:DynamoGraphDeployment"} <= types


def test_up_ends_with_a_graph_that_serves(whole: Whole) -> None:
    graph = next(thing for thing in whole.after_up if thing["type"].endswith(":DynamoGraphDeployment"))
    assert graph["extra"]["state"] == "successful"
    nodes = [thing for thing in whole.after_up if thing["type"].endswith(":Instance") and thing["extra"]["gpus"]]
    assert [node["inputs"]["instanceType"] for node in nodes] == ["p5.48xlarge"] * 2
    assert whole.outputs["gpus"] == 16
    assert whole.outputs["portForward"].startswith("kubectl -n qwen3-32b-disagg port-forward service/")
    assert whole.outputs["kubeconfig"].startswith("aws eks update-kubeconfig --region us-east-2 --name ")


def test_an_unchanged_stack_has_no_changes(whole: Whole) -> None:
    assert set(succeed(whole.unchanged_preview).changes) == {"same"}, "a preview of an unchanged stack"
    assert set(succeed(whole.unchanged_up).changes) == {"same"}, "a second up"


def test_a_refresh_finds_in_the_cloud_what_the_program_asked_for(whole: Whole) -> None:
    assert set(succeed(whole.refresh).changes) == {"same"}, "a difference would come back as an update on the next up"


def test_destroy_leaves_nothing_in_the_account(whole: Whole) -> None:
    succeed(whole.destroy)
    assert names(whole.after_destroy) == [], "whatever stays is paid for by somebody who does not know of it"
    assert whole.state_after_destroy == []


def test_what_only_the_user_knows_is_asked_for_with_the_commands_that_set_it(start: StartLife) -> None:
    life = start()
    for command in ("preview", "up"):
        args = ("--yes", "--skip-preview") if command == "up" else ()
        result = life.run(command, *args, env=ONLY_THE_USER_KNOWS)
        assert not result.ok
        text = said(result)
        assert "Traceback" not in text, "a question is no crash"
        prefix = "pulumi config set -s qwen3-32b-disagg --path"
        assert f'{prefix} recipe.access.account_id "$(aws sts get-caller-identity' in text
        assert f"{prefix} recipe.access.zone_id use2-az" in text
        assert f"{prefix} 'recipe.access.endpoint_cidrs[0]' \"$(curl" in text
    assert life.journal() == [], "nothing is made before they are known"


def test_the_commands_it_prints_are_all_that_is_missing(start: StartLife) -> None:
    life = start()
    values = {
        "recipe.access.account_id": "012345678901",
        "recipe.access.zone_id": "use2-az1",
        "recipe.access.endpoint_cidrs[0]": "198.51.100.7/32",
    }
    for path, value in values.items():
        succeed(life.session.run(["config", "set", "-s", "qwen3-32b-disagg", "--path", path, value]))
    result = succeed(life.run("preview", env=ONLY_THE_USER_KNOWS))
    assert "placeholder" not in said(result)
    provider = _configured_account(life)
    assert provider == ["012345678901"], "pulumi stores digits as a number: the leading zero must come back"


def _configured_account(life: Life) -> Any:
    result = succeed(life.run("preview", "--json", env=ONLY_THE_USER_KNOWS))
    steps = json.loads(result.stdout)["steps"]
    aws = next(step for step in steps if "pulumi:providers:aws" in step["urn"])
    return json.loads(aws["newState"]["inputs"]["allowedAccountIds"])
