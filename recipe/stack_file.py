"""Stack files as text: the recipe in one, and the base's file that a recipe refers to.

A plan needs to know its base without asking the base's state, so that it is made without a backend, credentials or a clock.
The program and the commands read files the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from recipe.config import PROJECT, RECIPE_KEY, Base, FromBase, Recipe, parse_any
from recipe.errors import Problem, RecipeError, nearest

FULL_KEY: Final = f"{PROJECT}:{RECIPE_KEY}"


class StackFileError(Exception):
    """A stack file that cannot be read, with what to do about it."""

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(f"{message}\nNext: {next_step}")
        self.message, self.next_step = message, next_step


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML in which a repeated key is an error, as it is for Pulumi's own reader; PyYAML would keep the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands here twice", key.start_mark
                    )
                seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def read_recipe(path: Path) -> Any:
    """The recipe in a stack file, as plain data. Raises StackFileError: not readable, not YAML, no recipe in it."""
    return _recipe_in(path, _read(path))


def read_base(recipe: Recipe | Base, folder: Path) -> Base | None:
    """What the file of the base says that `recipe` takes its foundation from; None where it takes none.

    Raises RecipeError: no such file in `folder`, not readable, not a base's, or mistakes in it.
    """
    if not isinstance(recipe, Recipe) or not isinstance(recipe.foundation, FromBase):
        return None
    stack = recipe.foundation.stack
    path = folder / f"Pulumi.{stack}.yaml"
    shown = f"{folder.name}/{path.name}"
    if not path.exists():
        fix = f"name a base that has a file there, or copy the one it was deployed from to {shown}"
        raise RecipeError([Problem("foundation.stack", stack, f"{shown} does not exist", fix)])
    try:
        base = parse_any(read_recipe(path), shown)
    except StackFileError as error:
        raise RecipeError([Problem("foundation.stack", stack, error.message, error.next_step)]) from None
    if not isinstance(base, Base):
        reason = f"{shown} is the recipe of a model, not of a base"
        raise RecipeError([Problem("foundation.stack", stack, reason, "name a stack whose recipe has `kind: base`")])
    return base


def _read(path: Path) -> Any:
    shown = f"{path.parent.name}/{path.name}"
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506 - a safe loader with one more rule
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise StackFileError(f"{shown}{place}: not valid YAML: {what}", f"mend that line of {shown}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StackFileError(f"{shown}: not YAML text: {error}", f"write {shown} as UTF-8 YAML") from None
    except OSError as error:
        raise StackFileError(
            f"{shown} cannot be read: {error.strerror}", f"check what {path} is and who may read it"
        ) from None


def _recipe_in(path: Path, document: Any) -> Any:
    """The recipe in a stack file, under the full key or the short one that Pulumi also takes for it."""
    shown = f"{path.parent.name}/{path.name}"
    config = document.get("config") if isinstance(document, dict) else None
    present = [key for key in (FULL_KEY, RECIPE_KEY) if isinstance(config, dict) and key in config]
    if len(present) > 1:
        raise StackFileError(f"{shown}: both {FULL_KEY} and {RECIPE_KEY} are set", f"keep {FULL_KEY}")
    if not present:
        held = list(config) if isinstance(config, dict) else []
        close = nearest(FULL_KEY, (str(key) for key in held))
        hint = f" (there is {close})" if close else ""
        raise StackFileError(f"{shown}: no config: {FULL_KEY}{hint}", f"put the recipe below config: {FULL_KEY}:")
    assert isinstance(config, dict)
    return config[present[0]]
