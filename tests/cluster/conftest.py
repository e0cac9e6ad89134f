"""One control plane for the whole tier, and a stage on it for each plan."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.variants import Variant, variants
from recipe.plan import Manifest, Plan
from rehearsal.cluster import Cluster, connected, crd
from rehearsal.cluster.trial import Trial
from tests.tiers import mark, show

MakeTrial = Callable[..., Trial]
_figures = pytest.StashKey[dict[str, float]]()
_count = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_figures] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark(items, Path(__file__).parent, "cluster")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash[_figures]
    show(terminalreporter, "control plane", figures)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The control plane, with graphs where their CRD is at hand."""
    figures = request.config.stash[_figures]
    with connected() as found:
        if (path := crd.find()) is not None:
            crd.install(found.api, path)
        yield found
        figures["started in, s (target 20)"] = found.start_seconds
        figures["resident memory at the end, MiB (target 1229)"] = found.memory_mib()


@pytest.fixture(scope="session")
def graphs(cluster: Cluster) -> Cluster:
    """The control plane, where it knows graphs."""
    if crd.find() is None:
        pytest.skip(f"the CRD of graphs is not here: {crd.HOW_TO_GET}")
    return cluster


@pytest.fixture(scope="session")
def stage(cluster: Cluster) -> MakeTrial:
    """Makes a Trial under a name of its own, so that nobody waits for an earlier one's namespace to go."""

    def make(variant: Variant, *settings: str) -> Trial:
        number = next(_count)
        stack = f"{variant.stack[:28].rstrip('-')}-{variant.gpu or 'cpu'}-{number}"
        return Trial(cluster, variant.plan(stack, *settings))

    return make


class Placed:
    """A stack with everything on it, and how long that took."""

    def __init__(self, variant: Variant, trial: Trial) -> None:
        self.variant, self.trial = variant, trial
        self.plan: Plan = trial.plan
        began = time.monotonic()
        trial.add_nodes()
        trial.add_objects(graph=crd.find() is not None)
        self.graph: Manifest = trial.graph()
        trial.reconcile(self.graph)
        self.pods = trial.settled(trial.expected_pods())
        self.seconds = time.monotonic() - began


@pytest.fixture(scope="module", params=variants(), ids=str)
def placed(request: pytest.FixtureRequest, stage: MakeTrial) -> Iterator[Placed]:
    """Each variant in turn, put on the control plane once for every test of a file that looks at it. Alone: stacks of one
    cluster share its CPU nodes."""
    variant: Variant = request.param
    trial = stage(variant)
    try:
        found = Placed(variant, trial)
        name = f"{variant}: objects accepted and pods placed in, s (target 10)"
        request.config.stash[_figures][name] = found.seconds
        yield found
    finally:
        trial.clear()
