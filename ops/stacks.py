"""Stack files: find them, read the recipe out of them, and change single values for one run (`--set`)."""

from __future__ import annotations

import copy
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ops.exits import BAD_INPUT, CommandError
from recipe.config import PROJECT, RECIPE_KEY
from recipe.errors import Problem, RecipeError, nearest
from recipe.stack_file import FULL_KEY as FULL_KEY
from recipe.stack_file import Loader, StackFileError, read_recipe

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = Path(os.environ.get("DYNAMO_RECIPES_STACKS") or ROOT / "stacks")
"""In a rehearsal the session's copies, with what `pulumi config set` changed in them."""


@dataclass(frozen=True)
class StackFile:
    """A stack's name, its file, and the recipe in it as plain data."""

    stack: str
    path: Path
    raw: Any


def names(folder: Path | None = None) -> tuple[str, ...]:
    """Every stack that has a file."""
    return tuple(
        sorted(
            path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in (folder or FOLDER).glob("Pulumi.*.yaml")
        )
    )


def models(folder: Path | None = None) -> tuple[str, ...]:
    """Those that serve a model. A file that cannot be read counts: whoever loads it says what is wrong."""
    return tuple(name for name in names(folder) if not _of_a_base((folder or FOLDER) / f"Pulumi.{name}.yaml"))


def _of_a_base(path: Path) -> bool:
    try:
        return is_base(read_recipe(path))
    except StackFileError:
        return False


def is_base(raw: Any) -> bool:
    """Whether a recipe as plain data is meant for a base."""
    return isinstance(raw, dict) and raw.get("kind") == "base"


def load(stack: str, folder: Path | None = None) -> StackFile:
    """The stack's file, read. Raises CommandError: no such file, not readable, not YAML, no recipe in it."""
    folder = folder or FOLDER
    path = folder / f"Pulumi.{stack}.yaml"
    known = names(folder)
    if stack not in known:
        close = nearest(stack, known)
        hint = f"; did you mean {close}?" if close else ""
        listed = f"stacks with a file: {', '.join(known)}" if known else f"{folder.name}/ holds no stack file yet"
        next_step = f"{listed}. A new one: copy one of them to {folder.name}/Pulumi.{stack}.yaml"
        raise CommandError(f"no stack {stack!r}: {folder.name}/{path.name} does not exist{hint}", next_step, BAD_INPUT)
    try:
        return StackFile(stack, path, read_recipe(path))
    except StackFileError as error:
        raise CommandError(error.message, error.next_step, BAD_INPUT) from None


# ── --set ────────────────────────────────────────────────────────────────────────────────────────────────────────────

_STEP = re.compile(r"(?:^|\.)([A-Za-z0-9_-]+)|\[(\d+)\]")


def with_settings(raw: Any, settings: list[str]) -> Any:
    """A copy of `raw` with each `key.path=value` put in place; values are YAML, an empty one unsets.

    Whether a key exists is judged by the Recipe afterwards. Raises RecipeError for what cannot be placed, all at once.
    """
    changed = copy.deepcopy(raw)
    problems = [problem for setting in settings if (problem := _apply(changed, setting))]
    if problems:
        raise RecipeError(problems, "--set")
    return changed


def _apply(raw: Any, setting: str) -> Problem | None:
    path, equals, text = setting.partition("=")
    steps = _steps(path)
    if not equals or not steps:
        return Problem("--set", setting, "not of the form key.path=value", "for example --set hardware.gpu=h200")
    try:
        value = yaml.load(text, Loader=Loader)  # noqa: S506 - as above
    except yaml.YAMLError as error:
        reason = (
            str(error).splitlines()[-1].strip() if not isinstance(error, yaml.MarkedYAMLError) else str(error.problem)
        )
        return Problem(path, text, f"not a YAML value: {reason}", "quote it twice: --set 'key=\"text\"'")
    at = raw
    for done, step in enumerate(steps):
        here = _joined(steps[:done]) or RECIPE_KEY
        last = done == len(steps) - 1
        fresh = value if last else [] if isinstance(steps[done + 1], int) else {}
        if isinstance(at, list):
            if not isinstance(step, int) or step > len(at):
                return Problem(
                    path,
                    text,
                    f"{here} is a list of {len(at)}",
                    f"an index from 0 to {len(at)}, like {here}[{len(at)}]",
                )
            if last or step == len(at):
                at[step : step + 1] = [fresh]
            at = at[step]
        elif isinstance(at, dict):
            if last or at.get(str(step)) is None:
                at[str(step)] = fresh
            at = at[str(step)]
        else:
            return Problem(path, text, f"{here} is a single value, nothing goes below it", f"--set {here}=…")
    return None


def _steps(path: str) -> list[str | int]:
    """`workers.decode.replicas` or `access.endpoint_cidrs[0]` as keys and indices; empty where it is neither.

    A leading `recipe.` is dropped, so that a path copied from a `pulumi config set --path` command works too.
    """
    path = path.strip().removeprefix(f"{PROJECT}:").removeprefix(f"{RECIPE_KEY}.")
    steps: list[str | int] = []
    end = 0
    while end < len(path):
        found = _STEP.match(path, end)
        if not found:
            return []
        name, index = found.groups()
        steps.append(int(index if index is not None else name) if (index or name).isdigit() else name)
        end = found.end()
    return steps


def _joined(steps: list[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
