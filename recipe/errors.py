"""Problems in a recipe: all of them at once, each with the path, the value, why it is wrong and what would work."""

from __future__ import annotations

import difflib
import fnmatch
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

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
        # Said once, also where several pools have the same one. Not a set: values may be lists.
        self.problems = tuple(one for index, one in enumerate(problems) if one not in problems[:index])
        self.source = source
        count = f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
        super().__init__(f"{count} in {source}:\n" + "\n".join(f"  {problem}" for problem in self.problems))


def shorten(value: Any, limit: int = 80) -> str:
    """`value` as JSON on one line of at most `limit` characters, letters of every language as they were written."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    if not text.isprintable():
        # What would act on the terminal instead of being seen, or cannot be encoded at all.
        text = json.dumps(value, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name a typo most likely meant, or None where nothing is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
    # Two letters that changed places count for more than one too few: `modle` is model, not mode.
    swapped = [close for close in found if sorted(close) == sorted(name.lower())]
    return by_lower[(swapped or found)[0]] if found else None


def suggest(name: str, known: Iterable[str]) -> str:
    """The sentence behind an unknown name: the nearest known one first, then all of them."""
    names = sorted(known, key=lambda one: (int(one), "") if one.isdigit() else (0, one))
    # A number that is near in its digits is not near in its meaning.
    close = None if all(one.isdigit() for one in names) else nearest(name, names)
    return (f"did you mean {close}? " if close else "") + f"known: {', '.join(names)}"


# ── pydantic's findings in our words ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Keys:
    """What a message may say about keys."""

    by_path: Mapping[str, tuple[str, ...]]
    """Dotted path of each object to the keys it may hold."""
    tags: frozenset[str]
    """Parts of pydantic's locations that name the member of a union: they are in no stack file."""
    roles: frozenset[str]
    """Parts that stand for any of several: shown as ROLE where a message means all of them."""
    also_called: Mapping[str, str]
    """What other tools call a key of ours."""

    def at(self, path: str) -> tuple[str, ...]:
        """Keys the object at `path` may hold. A `*` in a known path stands for a name that is the user's own."""
        return next((keys for known, keys in self.by_path.items() if fnmatch.fnmatchcase(path, known)), ())

    def elsewhere(self, name: str) -> list[str]:
        """Dotted paths of the keys of exactly that name, without the repetitions that roles and tags make."""
        found = [f"{path}.{name}".lstrip(".") for path, keys in self.by_path.items() if name in keys]
        shown = (
            ".".join("ROLE" if part in self.roles else part for part in one.split(".") if part not in self.tags)
            for one in found
        )
        return list(dict.fromkeys(shown))


def from_validation(error: ValidationError, keys: Keys) -> list[Problem]:
    """Every finding with the path as it stands in the stack file, and what would work."""
    return [_problem(details, keys) for details in error.errors(include_url=False)]


_SCHEMA: Final = "`python -m ops schema` says what this key takes"
_BOUNDS: Final = {
    "greater_than_equal": ("ge", "too small", "at least"),
    "greater_than": ("gt", "too small", "more than"),
    "less_than_equal": ("le", "too large", "at most"),
    "less_than": ("lt", "too large", "less than"),
}
_NUMBER: Final = re.compile(r"\$?\s*(\d+(?:\.\d+)?)\s*([A-Za-z%]{0,4})")
_UNITS: Final[dict[str, dict[str, float]]] = {
    "gib": {"g": 1, "gb": 1, "gi": 1, "gib": 1, "t": 1024, "ti": 1024, "tib": 1024},
    "minutes": {"m": 1, "min": 1, "h": 60},
    "hours": {"h": 1, "d": 24},
    "hour": {"": 1, "usd": 1},
    "cpu": {"m": 0.001},
    "length": {"k": 1024},
    "tokens": {"k": 1024},
    "fraction": {"%": 0.01},
}
"""Last word of a key to the units people write behind its numbers, in the key's own."""


def _problem(details: ErrorDetails, keys: Keys) -> Problem:
    # The last part is never a tag: it is what is wrong. `workers` has keys of a fixed set, which pydantic marks `[key]`.
    *parents, last = [str(part) or '""' for part in details["loc"] if part != "[key]"] or ["recipe"]
    location = [*(part for part in parents if part not in keys.tags), last]
    path = ".".join(location)
    value, context, kind = details["input"], details.get("ctx", {}), details["type"]
    if value is None and kind not in ("missing", "extra_forbidden"):
        return Problem(path, None, "has no value", f"give it one, or remove the line; {_SCHEMA}")
    match kind:
        case "extra_forbidden":
            return Problem(path, value, "unknown key", _unknown_key(path, ".".join(parents), keys))
        case "missing":
            below = f"below {'.'.join(location[:-1])}: " if location[:-1] else ""
            return Problem(path, None, "required, but missing", f"add {last}: {below}in the stack file; {_SCHEMA}")
        case "union_tag_not_found":
            kinds = sorted(one.rpartition(".")[2] for one in keys.by_path if one.rpartition(".")[0] == path)
            return Problem(f"{path}.kind", None, "required, but missing", f"add kind: below {path}: {', '.join(kinds)}")
        case "union_tag_invalid":
            given = str(context["tag"])
            return Problem(f"{path}.kind", given, "is not one of the choices", suggest(given, _choices(context)))
        case "literal_error" | "enum":
            names = _choices(context)
            if isinstance(value, str) and value.isdigit() and value in names:
                return Problem(path, value, "is text, not a number", f"without quotes: {value}")
            return Problem(path, value, "is not one of the choices", suggest(str(value), names))
        case "int_parsing" | "int_type" | "int_from_float" | "float_parsing" | "float_type":
            number = "number" if kind.startswith("float") else "whole number"
            return Problem(path, value, f"is not a {number}", _number(value, last, number))
        case "bool_parsing" | "bool_type":
            return Problem(path, value, "is neither true nor false", "true or false")
        case "string_type":
            return Problem(path, value, f"is a {_yaml_kind(value)}, not text", _quoted(value))
        case "tuple_type" | "list_type":
            return Problem(path, value, "is one value, not a list", f"a list, also of one: {shorten(_split(value))}")
        case "model_type" | "dict_type" | "model_attributes_type":
            return Problem(path, value, "is one value, not keys with values", _keys_below(value, path, keys))
        case _ if kind in _BOUNDS:
            key, reason, word = _BOUNDS[kind]
            return Problem(path, value, reason, f"{word} {context[key]}")
        case _:
            message = details["msg"].removeprefix("Value error, ")
            reason, _, fix = message.partition(" | ")
            return Problem(path, value, reason, fix or _SCHEMA)


def _choices(context: Mapping[str, Any]) -> list[str]:
    text = str(context.get("expected") or context.get("expected_tags", "")).replace("'", "").replace(" or ", ", ")
    return [name.strip() for name in text.split(",") if name.strip()]


def _unknown_key(path: str, parent: str, keys: Keys) -> str:
    """The key somebody meant: by another tool's name, by its place elsewhere, or by its spelling."""
    name, known = path.rpartition(".")[2], sorted(keys.at(parent))
    ours = keys.also_called.get(name, name)
    if ours in known:
        return f"here it is {ours}; known: {', '.join(known)}"
    places = keys.elsewhere(ours)
    if path in places:
        of = [tag for one in keys.by_path if (tag := one.rpartition(".")[2]) in keys.tags and name in keys.by_path[one]]
        return f"only with kind: {' or '.join(of)}; known here: {', '.join(known)}"
    if places:
        return f"it belongs elsewhere: {' or '.join(places)}; known here: {', '.join(known)}"
    return suggest(name, known)


def _number(value: Any, key: str, number: str) -> str:
    """What to write instead of `value`, converted where its unit is one we know for that key."""
    found = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
    factor = _UNITS.get(key.rpartition("_")[2], {}).get(found[2].lower()) if found else None
    if found is None or factor is None:
        return f"a {number} without a unit, like {'8' if number == 'whole number' else '0.9'}"
    return f"the number alone: {float(found[1]) * factor:g}"


def _yaml_kind(value: Any) -> str:
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else "list or object or true/false"
    )


def _quoted(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'in quotes: "{value}"; without them YAML reads a number and drops zeros (1.30 becomes 1.3)'
    return "text, in quotes"


def _split(value: Any) -> list[Any]:
    return re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else [value]


def _keys_below(value: Any, path: str, keys: Keys) -> str:
    """Which keys go there; for a union, the one that says which of them is meant."""
    if known := keys.at(path):
        return f"below it, keys of: {', '.join(sorted(known))}"
    kinds = [one for one in keys.by_path if one.rpartition(".")[0] == path and one.rpartition(".")[2] in keys.tags]
    return (
        f"below it, kind: {value if isinstance(value, str) else '…'}"
        if kinds
        else f"keys and values below it; {_SCHEMA}"
    )
