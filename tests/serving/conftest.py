"""Dynamo's own environment for the whole tier, and one disaggregated graph served for most of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recipe.plan import Plan
from rehearsal.serving import Serving, ensure_environment, serve
from tests.recipe.samples import plan
from tests.tiers import mark, show

_figures = pytest.StashKey[dict[str, float]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_figures] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark(items, Path(__file__).parent, "serving")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash[_figures]
    show(terminalreporter, "serving", figures)


@pytest.fixture(scope="session")
def environment() -> Path:
    """Its Python. `make test-all` has it ready before pytest starts; without that the first test sets it up."""
    return ensure_environment()


@pytest.fixture(scope="session")
def disagg() -> Plan:
    """6 prefill and 2 decode workers behind a kv router."""
    return plan()


@pytest.fixture(scope="session")
def serving(request: pytest.FixtureRequest, environment: Path, disagg: Plan) -> Iterator[Serving]:
    """`disagg`, running."""
    with serve(disagg.objects.graph, disagg) as found:
        figures = request.config.stash[_figures]
        figures["8 workers registered and warm, s"] = found.start_seconds
        yield found
        figures["resident memory of 8 workers and a frontend, MiB (target 6144)"] = found.memory_mib()
