"""Stack files of one's own, and the commands run in-process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from ops import stacks
from ops.app import app
from tests.recipe.samples import raw

STACK = "qwen3-32b-disagg"


@pytest.fixture
def run() -> Callable[..., Result]:
    """`python -m ops` in this process, without a terminal."""

    def run(*args: str | Path) -> Result:
        return CliRunner(env={"COLUMNS": "140"}).invoke(app, [str(arg) for arg in args])

    return run


@pytest.fixture
def plan_json(run: Callable[..., Result]) -> Callable[..., dict[str, Any]]:
    """`ops plan STACK … --json`, which must succeed."""

    def plan_json(*args: str) -> dict[str, Any]:
        result = run("plan", STACK, *args, "--json")
        assert result.exit_code == 0, result.output
        data: dict[str, Any] = json.loads(result.stdout)
        return data

    return plan_json


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stack files in place of stacks/, empty at first."""
    found = tmp_path / "stacks"
    found.mkdir()
    monkeypatch.setattr(stacks, "FOLDER", found)
    return found


def write(folder: Path, stack: str, recipe: Any = None, key: str = stacks.FULL_KEY) -> Path:
    """A stack file with `recipe` (the shipped one unless given)."""
    path = folder / f"Pulumi.{stack}.yaml"
    path.write_text(yaml.safe_dump({"config": {key: recipe or raw()}}), encoding="utf-8")
    return path
