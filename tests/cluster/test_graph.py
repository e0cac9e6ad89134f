"""The graph against the CRD's schema and CEL rules: ours is accepted, mistakes and forbidden changes are not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ops.variants import each_stack
from recipe.plan import Manifest
from rehearsal.cluster import Cluster
from rehearsal.cluster.api import Refused
from rehearsal.cluster.trial import Trial
from tests.cluster.conftest import MakeTrial
from tests.cluster.wrong_graphs import WRONG, changed


@pytest.fixture(scope="module", params=each_stack(), ids=lambda one: one.stack)
def trial(request: pytest.FixtureRequest, graphs: Cluster, stage: MakeTrial) -> Iterator[Trial]:
    """Namespace and graph of each stack; no nodes, no pods."""
    made = stage(request.param)
    for manifest in made.objects():
        if manifest["kind"] in ("Namespace", "DynamoGraphDeployment"):
            made.add(manifest)
    yield made
    made.clear()


@pytest.fixture
def graph(trial: Trial) -> Manifest:
    return trial.graph()


def test_the_server_keeps_every_field_we_write(trial: Trial) -> None:
    wanted = next(one for one in trial.objects() if one["kind"] == "DynamoGraphDeployment")
    assert lost(wanted["spec"], trial.graph()["spec"]) == [], (
        "a field the schema prunes would be silently without effect"
    )


@pytest.mark.parametrize(("name", "change", "says"), WRONG, ids=[name for name, _, _ in WRONG])
def test_a_wrong_graph_is_refused_in_a_dry_run(
    name: str, change: Callable[[Manifest], None], says: str, trial: Trial
) -> None:
    wanted = next(one for one in trial.objects() if one["kind"] == "DynamoGraphDeployment")
    wrong = changed(wanted, change)
    wrong["metadata"]["name"] += "-2"
    with pytest.raises(Refused, match=says) as refused:
        trial.api.create(wrong, dry_run=True)
    assert refused.value.code in (400, 422), "refused for what it says, not for who asks"


def test_the_same_graph_again_collides(trial: Trial) -> None:
    wanted = next(one for one in trial.objects() if one["kind"] == "DynamoGraphDeployment")
    with pytest.raises(Refused) as refused:
        trial.api.create(wanted, dry_run=True)
    assert refused.value.reason == "AlreadyExists"


def test_a_wrong_graph_that_exists_is_refused_as_wrong_not_as_existing(trial: Trial) -> None:
    """What the admission Job of an update relies on: AlreadyExists comes after everything else has been judged."""
    wanted = next(one for one in trial.objects() if one["kind"] == "DynamoGraphDeployment")
    _, change, says = WRONG[0]
    with pytest.raises(Refused, match=says):
        trial.api.create(changed(wanted, change), dry_run=True)


@pytest.mark.parametrize("what", ["replicas", "image", "args"])
def test_updates_the_program_makes_are_accepted(what: str, trial: Trial, graph: Manifest) -> None:
    update = copy.deepcopy(next(one for one in trial.objects() if one["kind"] == "DynamoGraphDeployment"))
    component = update["spec"]["components"][-1]
    main = component["podTemplate"]["spec"]["containers"][0]
    match what:
        case "replicas":
            component["replicas"] += 1
        case "image":
            main["image"] = main["image"].replace(":1.", ":2.")
        case "args":
            main["args"] = [*main["args"], "--disable-log-requests"]
    before = graph["metadata"]["generation"]
    assert trial.api.apply(update)["metadata"]["generation"] == before + 1


def lost(wanted: Any, held: Any, path: str = "spec") -> list[str]:
    """Paths of what is in `wanted` and not, or otherwise, in `held`."""
    if isinstance(wanted, dict):
        return [
            gone
            for key, value in wanted.items()
            for gone in lost(value, held.get(key) if isinstance(held, dict) else None, f"{path}.{key}")
        ]
    if isinstance(wanted, list):
        if not isinstance(held, list) or len(held) != len(wanted):
            return [path]
        pairs = zip(wanted, held, strict=True)
        return [gone for index, (one, other) in enumerate(pairs) for gone in lost(one, other, f"{path}[{index}]")]
    return [] if wanted == held else [f"{path}: {wanted!r} became {held!r}"]
