"""Expected minutes: what they are made of, and that they follow the plan."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ops import stacks
from ops.variants import of_file
from recipe import catalogue
from recipe.timeline import Timeline, lead_seconds, timeline, warnings
from tests.recipe.samples import AGG_WORKERS, plan
from tests.recipe.test_base import on_base

BIG = "Qwen/Qwen3-235B-A22B-FP8"


def big(**changes: Any) -> dict[str, Any]:
    workers = {"worker": {"replicas": 2, "tensor_parallel": 8, "expert_parallel": 8}}
    return {"model": BIG, "mode": "agg", "workers": workers, "router": {"mode": "round-robin"}} | changes


def minutes(found: Timeline) -> float:
    assert found.minutes_to_first_token is not None, "a stack that serves has a first token"
    return found.minutes_to_first_token


def test_each_step_comes_after_those_it_waits_for_and_takes_what_the_catalogue_says() -> None:
    done: dict[str, float] = {}
    for step in timeline(plan()).steps:
        assert all(done[name] <= step.start for name in step.after), step
        assert step.rows, f"{step.name}: a step without a duration and its source is a guess nobody sees"
        assert step.end > step.start
        done[step.name] = step.end


def test_the_critical_path_has_no_gap_and_ends_with_the_first_completion() -> None:
    found = timeline(plan())
    path = found.critical_path
    assert (path[0].start, path[-1].name) == (0, "first completion")
    assert all(before.end == after.start for before, after in itertools.pairwise(path))
    assert minutes(found) == pytest.approx(sum(step.end - step.start for step in path) / 60)
    assert {"EKS control plane", "weights", "GPU nodes", "workers"} <= {step.name for step in path}


def test_gpu_nodes_start_last_and_earlier_where_they_do_not_wait_for_the_weights() -> None:
    waiting, overlapping = (timeline(plan(weights__wait=wait)) for wait in (True, False))
    start = {
        wait: next(step.start for step in found.steps if step.name == "GPU nodes")
        for wait, found in ((True, waiting), (False, overlapping))
    }
    weights = next(step.end for step in waiting.steps if step.name == "weights")
    assert start[False] < weights <= start[True]
    assert minutes(overlapping) < minutes(waiting)


def test_a_larger_model_takes_longer_in_proportion_to_its_bytes() -> None:
    small, large = timeline(plan()), timeline(plan(**big()))
    ratio = catalogue.model(BIG).weight_bytes / catalogue.model("Qwen/Qwen3-32B").weight_bytes
    assert 3 < ratio < 4
    image = catalogue.duration("image.small").seconds
    assert large.seconds("weights") - image == pytest.approx((small.seconds("weights") - image) * ratio)
    assert minutes(large) > minutes(small) + 10


@pytest.mark.parametrize(
    "slower", [{"weights__loader": "default"}, {"engine_tuning__extra_args": ["--load-format", "safetensors"]}]
)
def test_a_streaming_loader_is_the_default_and_seen(slower: dict[str, Any]) -> None:
    slow, fast = timeline(plan(**slower)), timeline(plan())
    saved = catalogue.duration("weights.load.default").seconds - catalogue.duration("weights.load.streamed").seconds
    assert slow.seconds("workers") - fast.seconds("workers") == pytest.approx(saved, rel=0.01)


def test_agg_and_disagg_take_the_same_steps() -> None:
    agg = timeline(plan(mode="agg", workers=AGG_WORKERS, router={"mode": "round-robin"}))
    assert [step.name for step in agg.steps] == [step.name for step in timeline(plan()).steps]


def test_a_deadline_before_the_expected_end_is_warned_about() -> None:
    assert warnings(plan()) == ()
    (loading,) = warnings(plan(**big(serving={"ready_timeout_minutes": 5})))
    assert loading.startswith("serving.ready_timeout_minutes is 5, but loading the model is expected to take ")
    (download,) = warnings(plan(**big(weights={"timeout_minutes": 5}, serving={"ready_timeout_minutes": 120})))
    assert download.startswith("weights.timeout_minutes is 5, but the download is expected to take ")


def test_while_paused_nobody_waits_for_a_first_token() -> None:
    found = timeline(plan(hardware__paused=True))
    assert found.minutes_to_first_token is None
    assert not {"GPU nodes", "graph"} & {step.name for step in found.steps}
    assert "weights" in {step.name for step in found.critical_path}, "what takes longest is still told"
    assert warnings(plan(hardware__paused=True, serving={"ready_timeout_minutes": 5})) == ()


def test_the_mock_engine_waits_for_no_gpus_and_loads_no_weights() -> None:
    (mocker,) = of_file(stacks.load("mocker-cpu"))
    found = timeline(mocker.plan())
    assert not {"GPU nodes", "device plugins"} & {step.name for step in found.steps}
    assert found.seconds("weights") < 60, "tokenizer and configuration only"
    assert minutes(found) < minutes(timeline(plan())) - 10


def test_what_rests_on_assumptions_is_named() -> None:
    assumed = timeline(plan()).assumptions
    assert "node.gpu.ready" in assumed
    assert "Cluster.create" not in assumed, "that one has a log behind it"


def test_money_is_counted_from_when_each_thing_is_paid_for() -> None:
    made = plan()
    found = timeline(made)
    steps = {step.name: step for step in found.steps}
    gpus = next(rate for rate in found.rates if rate.what.startswith("GPU nodes"))
    assert gpus.since == steps["GPU nodes"].start + catalogue.duration("node.launch").seconds, "billed when it runs"
    assert found.usd_of(steps["EKS control plane"]) < 0.1, "no node runs yet"
    assert found.usd_of(steps["workers"]) == pytest.approx(
        found.seconds("workers") / 3600 * sum(rate.usd_per_hour for rate in found.rates)
    )
    assert found.usd == pytest.approx(sum(rate.usd(0, steps["first completion"].end) for rate in found.rates))
    shared = timeline(on_base())
    assert not {"EKS control plane", "NAT gateway"} & {rate.what for rate in shared.rates}, "those are the base's"


def test_idle_gpus_are_counted_from_the_running_node_to_the_first_token() -> None:
    found = timeline(plan())
    idle = found.gpu_idle
    assert idle is not None
    gpus = next(rate for rate in found.rates if rate.what.startswith("GPU nodes"))
    assert idle.seconds == pytest.approx(found.steps[-1].end - gpus.since)
    assert idle.usd(idle.seconds) == pytest.approx(gpus.usd(0, found.steps[-1].end))
    assert idle.waiting == pytest.approx(catalogue.duration("kubernetes.create").seconds), "they wait for nothing else"
    assert timeline(plan(hardware__paused=True)).gpu_idle is None


def test_overlapped_gpu_nodes_are_ready_when_a_long_download_ends_and_not_before() -> None:
    waiting, overlapping, at_once = (
        timeline(plan(**big(weights={"wait": one, "timeout_minutes": 120}))) for one in (True, "overlap", False)
    )
    steps = {step.name: step for step in overlapping.steps}
    early = steps["weights"].end - steps["GPU nodes"].start
    slack = catalogue.duration("weights.head.job").seconds
    assert early == pytest.approx(lead_seconds() - slack), "as long before the end as nodes take at their fastest"
    assert minutes(overlapping) == pytest.approx(minutes(waiting) - early / 60)
    assert at_once.gpu_idle is not None
    assert waiting.gpu_idle is not None
    assert overlapping.gpu_idle is not None
    assert overlapping.gpu_idle.seconds == pytest.approx(waiting.gpu_idle.seconds), "the overlap is free"
    assert at_once.gpu_idle.waiting > waiting.gpu_idle.waiting + 120, "at once, they wait for the download"


def test_workers_start_when_the_weights_are_verified_whenever_gpu_nodes_do() -> None:
    for wait in (True, False, "overlap"):
        steps = {step.name: step for step in timeline(plan(**big(weights={"wait": wait}))).steps}
        assert steps["weights"].end <= steps["graph"].start, wait


def test_on_a_base_nothing_of_the_foundation_is_waited_for() -> None:
    taken, own = timeline(on_base()), timeline(plan())
    assert {"EKS control plane", "platform"} <= {step.name for step in own.steps} - {step.name for step in taken.steps}
    assert 10 < minutes(own) - minutes(taken) < 20, "the control plane alone takes ten minutes"
