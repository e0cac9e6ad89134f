"""What the API server refuses of Kubernetes' own kinds before anything else looks at them: unknown fields, wrong types, missing fields.

The schema is that of the official client (its models are generated from Kubernetes' own OpenAPI document); which of its answers
are an API server's answers too is checked against a real one by tests/cluster/test_agreement.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, get_args, get_origin

from kubernetes.client import models
from pydantic import BaseModel, ValidationError

_KINDS: Final = {
    "v1": "V1{kind}",
    "batch/v1": "V1{kind}",
    "storage.k8s.io/v1": "V1{kind}",
    "rbac.authorization.k8s.io/v1": "V1{kind}",
}
_QUANTITIES: Final = frozenset({"limits", "requests", "capacity", "overhead", "sizeLimit"})
"""A quantity is text in the schema, and a bare number on the wire is one too."""
_QUANTITY: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?")


def model_of(api_version: str, kind: str) -> type[BaseModel] | None:
    """The client's model of a kind; None where it is not one of Kubernetes' own."""
    pattern = _KINDS.get(api_version)
    found = getattr(models, pattern.format(kind=kind), None) if pattern else None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def problems(model: type[BaseModel], value: Mapping[str, Any], path: str = "") -> list[str]:
    """Every unknown field, wrong type and missing field of `value`, each with its path; `path` is where it stands."""
    return [*_unknown(model, value, path), *_mistyped(model, value, path)]


def _mistyped(model: type[BaseModel], value: Mapping[str, Any], path: str) -> Iterator[str]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            at = path
            for part in one["loc"]:
                at += f"[{part}]" if isinstance(part, int) else f".{part}" if at else str(part)
            number_for_quantity = _QUANTITIES & set(one["loc"]) and isinstance(one["input"], int | float)
            if one["type"] == "missing":
                yield f"{at}: Required value"
            elif one["type"] != "extra_forbidden" and not number_for_quantity:
                yield f"{at}: Invalid value: {one['input']!r}: {one['msg']}"


def _unknown(model: type[BaseModel], value: Any, path: str) -> Iterator[str]:
    """By name on the wire: the models themselves also take Python's names."""
    if not isinstance(value, Mapping):
        return
    fields = _fields(model)
    for key, inner in value.items():
        at = f"{path}.{key}" if path else str(key)
        if key not in fields:
            yield f'strict decoding error: unknown field "{at}"'
            continue
        below, many = fields[key]
        if key in _QUANTITIES:
            yield from _bad_quantities(inner, at)
        if below is None:
            continue
        for index, item in enumerate(inner if many and isinstance(inner, list) else [inner]):
            yield from _unknown(below, item, f"{at}[{index}]" if many else at)


def _bad_quantities(value: Any, path: str) -> Iterator[str]:
    for key, amount in value.items() if isinstance(value, Mapping) else [("", value)]:
        if isinstance(amount, str) and not _QUANTITY.fullmatch(amount):
            at = f"{path}.{key}" if key else path
            yield f"{at}: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': {amount!r}"


@cache
def _fields(model: type[BaseModel]) -> dict[str, tuple[type[BaseModel] | None, bool]]:
    """Name on the wire to (model of what stands there, whether in a list)."""
    found: dict[str, tuple[type[BaseModel] | None, bool]] = {}
    for name, field in model.model_fields.items():
        below, many = _inner(field.annotation)
        found[field.serialization_alias or name] = below, many
    return found


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (dict, Mapping):
        return None, False
    for argument in arguments:
        below, many = _inner(argument)
        if below is not None:
            return below, many or origin is list
    return None, False
