"""Worlds at three heights, each built once and copied for every test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .world import World

Start = Callable[..., World]


@pytest.fixture(scope="session")
def _built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    folder = tmp_path_factory.mktemp("worlds")
    low = World(folder / "network").network().cluster()
    middle = low.copy(folder / "before").cpu_pool().storage().weights().platform().admission()
    high = middle.copy(folder / "whole").gpu_pool().devices().graph().readiness()
    return {"cluster": low, "before_gpus": middle, "whole": high}


@pytest.fixture
def empty(tmp_path: Path) -> World:
    """Nothing yet."""
    return World(tmp_path / "cloud")


@pytest.fixture
def with_cluster(_built: dict[str, World], tmp_path: Path) -> Start:
    """Network and cluster; takes faults and durations."""
    return lambda *a, **k: _built["cluster"].copy(tmp_path / "cloud", *a, **k)


@pytest.fixture
def before_gpus(_built: dict[str, World], tmp_path: Path) -> Start:
    """All that is there before the GPU nodes; takes faults and durations."""
    return lambda *a, **k: _built["before_gpus"].copy(tmp_path / "cloud", *a, **k)


@pytest.fixture
def whole(_built: dict[str, World], tmp_path: Path) -> Start:
    """The whole stack, serving; takes faults and durations."""
    return lambda *a, **k: _built["whole"].copy(tmp_path / "cloud", *a, **k)
