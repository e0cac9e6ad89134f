"""Problems in a recipe: all of them at once, each with the path, the value, why it is wrong and what would work."""

from __future__ import annotations

import difflib
import fnmatch
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails


@dataclass(frozen=True)
class Problem:
    """One thing wrong. `path` is dotted from the recipe's root; `fix` says what would work, as a command where there is one."""

    path: str
    value: Any
    reason: str
    fix: str

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {shorten(self.value)}"
        return f"{self.path}{shown}: {self.reason}\n    {self.fix}"


class RecipeError(Exception):
    """The recipe cannot be planned. `problems` is never empty."""

    def __init__(self, problems: Sequence[Problem], source: str = "recipe") -> None:
        self.problems = tuple(problems)
        self.source = source
        count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
        super().__init__(f"{count} in {source}:\n" + "\n".join(f"  {problem}" for problem in self.problems))


def shorten(value: Any, limit: int = 80) -> str:
    """`value` as JSON on one line of at most `limit` characters."""
    text = json.dumps(value, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name a typo most likely meant, or None where nothing is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def suggest(name: str, known: Iterable[str]) -> str:
    """The sentence behind an unknown name: the nearest known one first, then all of them."""
    names = sorted(known)
    close = nearest(name, names)
    return (f"did you mean {close}? " if close else "") + f"known: {', '.join(names)}"


def from_validation(error: ValidationError, known_keys: dict[str, tuple[str, ...]]) -> list[Problem]:
    """pydantic's findings in our words.

    `known_keys` maps the dotted path of each object to the keys it may hold, for the nearest name of an unknown one.
    """
    return [_problem(details, known_keys) for details in error.errors(include_url=False)]


def _keys_at(path: str, known_keys: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Keys the object at `path` may hold. A `*` in a known path stands for a name that is the user's own."""
    return next((keys for known, keys in known_keys.items() if fnmatch.fnmatchcase(path, known)), ())


def _problem(details: ErrorDetails, known_keys: dict[str, tuple[str, ...]]) -> Problem:
    location = [str(part) for part in details["loc"] if part != "[key]"]
    path = ".".join(location) or "recipe"
    value = details["input"]
    match details["type"]:
        case "extra_forbidden":
            parent = ".".join(location[:-1])
            return Problem(path, value, "unknown key", suggest(location[-1], _keys_at(parent, known_keys)))
        case "missing":
            return Problem(path, None, "required, but missing", f"add {location[-1]}: to the stack file")
        case "literal_error" | "enum" | "union_tag_invalid":
            context = details.get("ctx", {})
            allowed = (
                str(context.get("expected") or context.get("expected_tags", "")).replace("'", "").replace(" or ", ", ")
            )
            names = [name.strip() for name in allowed.split(",") if name.strip()]
            given = str(context.get("tag", value))
            return Problem(path, value, f"{given!r} is not one of the choices", suggest(given, names))
        case _:
            message = details["msg"].removeprefix("Value error, ")
            reason, _, fix = message.partition(" | ")
            return Problem(path, value, reason, fix or "see `python -m ops schema` for what this key takes")
