"""The short form of `make chaos`: a few kill points and faults. CHAOS_SEED=N draws others, and replays what a failure printed."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from ops.chaos import (
    SCENARIOS,
    TOKEN,
    Campaign,
    Point,
    all_points,
    forms,
    run_faults,
    run_outputs,
    run_points,
    secrets_in,
)
from rehearsal.cases import CASES, KINDS

pytestmark = pytest.mark.engine

SEED = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10_000))
DEAREST = Point("owned", "create", "NodeGroup/gpu-nodes", "after")
"""What costs $110 an hour is tried every time."""
POINTS, FAULTS = 7, 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_handful_of_kills_drawn_by_chance_leaves_nothing_and_nothing_twice() -> None:
    every = all_points(["owned"])
    rng = random.Random(SEED)
    points = [DEAREST, *rng.sample([point for point in every if point != DEAREST], POINTS - 1)]
    campaign, told = Campaign(SEED), [f"CHAOS_SEED={SEED} replays this"]
    run_points(points, campaign, told.append)
    assert not campaign.wrong, "\n".join([*told, *campaign.wrong])
    assert campaign.leaks == 0
    assert len(set(campaign.tried)) >= 6, "\n".join(told)
    assert set(points) <= set(campaign.tried), "each point is met, or it proves nothing"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_handful_of_faults_drawn_by_chance_is_named_and_leaves_nothing() -> None:
    rng = random.Random(SEED)
    cases = rng.sample([case for case in KINDS.values() if not case.on_base], FAULTS)
    campaign, told = Campaign(SEED), [f"CHAOS_SEED={SEED} replays this"]
    run_faults(cases, campaign, told.append)
    assert not campaign.wrong, "\n".join([*told, *campaign.wrong])
    assert campaign.leaks == 0
    assert len(campaign.faults) == FAULTS


def test_there_are_enough_faults_and_each_is_a_different_one() -> None:
    assert len(CASES) >= 40
    assert len({str(case.as_file()) + case.stage for case in CASES.values()}) == len(CASES)


@pytest.mark.parametrize(
    "text",
    ["owned create NatGateway after", "base delete iam/role:Role before", "owned create NodeGroup/gpu-nodes after"],
)
def test_a_point_is_what_it_prints(text: str) -> None:
    point = Point.parse(text)
    assert str(point) == text
    assert point.scenario in SCENARIOS
    hold = point.hold()
    assert hold.hold
    assert hold.matches(point.op, hold.type, hold.name_contains), "or the engine would never be killed there"


@pytest.mark.parametrize(
    "text", ["", "owned create NatGateway", "owned update NatGateway after", "owned create NatGateway during"]
)
def test_what_is_no_point_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no kill point"):
        Point.parse(text)


def test_the_search_finds_a_secret_in_every_form(tmp_path: Path) -> None:
    assert secrets_in(tmp_path, ["nothing here"]) == []
    for number, form in enumerate(forms(TOKEN)):
        (tmp_path / f"file{number}").write_text(f"x{form}y", encoding="utf-8")
    assert len(secrets_in(tmp_path, [f"said {TOKEN}"])) == len(forms(TOKEN)) + 1


@pytest.mark.slow
def test_every_fault_is_one_of_a_type_that_the_stacks_have() -> None:
    made = {point.hold().type for point in all_points()}
    struck = {fault["type"] for case in CASES.values() for fault in case.faults}
    assert struck <= made, "a fault that can strike nothing would count as tried"


@pytest.mark.slow
def test_no_secret_stands_in_what_is_written_for_others() -> None:
    campaign, told = Campaign(SEED), [""]
    run_outputs(campaign, told.append)
    assert not campaign.wrong, "\n".join(campaign.wrong)
    assert "11 files" in told[-1]


@pytest.mark.slow
def test_a_secret_that_is_planted_is_found_in_what_is_written_for_others() -> None:
    campaign = Campaign(SEED)
    run_outputs(campaign, lambda _: None, {"owner": TOKEN})
    found = "\n".join(campaign.wrong)
    for file in (
        "preview.json",
        "diff.json",
        "diff.md",
        "workflow.log",
        "workflow/diff.json",
        "summary.md",
        "comment.md",
        "plan.json",
    ):
        assert f"a secret stands in outputs/{file}" in found, found
