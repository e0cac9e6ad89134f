"""`ops sweep` on a whole stack in the pretend cloud: what no state knows goes, in an order that works, and nothing else does."""

from __future__ import annotations

import pytest

from ops.exits import CommandError
from ops.sweep import as_data
from ops.things import KINDS
from rehearsal.cloud import rules
from rehearsal.cloud.faults import Faults

from .conftest import StartLife
from .crash import Crash, Forgot, refuses
from .life import names, succeed

pytestmark = pytest.mark.engine


@pytest.fixture
def crash(start: StartLife) -> Crash:
    found = Crash(start())
    # Principals of one's own and a token, so that every type there is exists.
    found.life.edit({"access.admin_principals": ["arn:aws:iam::123456789012:role/admin"]})
    succeed(found.life.up())
    return found


def test_a_whole_stack_whose_state_was_lost_goes_in_an_order_that_works(crash: Crash) -> None:
    ours = {thing["type"] for thing in crash.life.session.cloud_objects() if thing["type"].startswith("aws:")}
    assert ours <= set(KINDS), "a type without a row would never be found"
    found = crash.sweep(engine=Forgot())
    assert found.clean, found
    assert names(crash.life.session.cloud_objects()) == []
    order = [row["name"] for row in crash.life.journal("delete") if row["outcome"] == "ok"]
    assert (
        order.index("gpu-nodes") < order.index("cluster-eks") < order.index("network-nat") < order.index("network-vpc")
    )
    assert not [row for row in crash.life.journal("event") if row["type"] == "node-group-degraded"], (
        "nodes without a way out hang, and are paid for"
    )


@pytest.mark.slow
def test_what_is_in_the_state_is_left_to_destroy(crash: Crash) -> None:
    before = names(crash.life.session.cloud_objects())
    found = crash.sweep()
    assert found.left == []
    assert any("pulumi destroy" in line for line in crash.said)
    assert names(crash.life.session.cloud_objects()) == before


@pytest.mark.slow
def test_after_a_destroy_there_is_nothing_to_sweep(crash: Crash) -> None:
    succeed(crash.life.destroy())
    found = crash.sweep()
    assert found.clean
    assert crash.said == ["Nothing of qwen3-32b-disagg is left."]


def test_a_foreign_account_is_not_even_looked_at(crash: Crash) -> None:
    before = names(crash.life.session.cloud_objects())
    crash.life.session.tell(Faults.model_validate({"account": {"account": "999999999999"}}))
    with pytest.raises(CommandError, match="nothing was looked at or touched"):
        crash.sweep(engine=Forgot())
    assert names(crash.life.session.cloud_objects()) == before


@pytest.mark.slow
def test_what_is_not_confirmed_is_listed_with_its_price_and_stays(crash: Crash) -> None:
    before = names(crash.life.session.cloud_objects())
    found = crash.sweep(confirm=refuses, engine=Forgot())
    assert names(crash.life.session.cloud_objects()) == before
    assert not found.clean
    data = as_data(found)
    gpu = [row for row in data["left"] if row["type"] == rules.INSTANCE and row["usd_per_hour"] > 50]
    assert len(gpu) == 2, "what costs $110 an hour is what one looks for first"
    assert any("55.04" in line for line in crash.said)
    assert data["clean"] is False


def test_another_deployment_of_the_stack_is_not_touched(crash: Crash) -> None:
    crash.life.edit({"deployment_id": "other"})
    before = names(crash.life.session.cloud_objects())
    found = crash.sweep(engine=Forgot())
    assert found.left == []
    assert names(crash.life.session.cloud_objects()) == before
