"""Runs with the packages of `requirements.txt` and nothing of ours: reads JSON, writes JSON.

python checker.py calls      [[service, operation, input], …]      ->  [[problem, …], …]
python checker.py template   {template: …, regions: […]}           ->  [{rule, path, message}, …]
python checker.py manifests  {version: …, manifests: […]}          ->  [problem or null, …]
"""

from __future__ import annotations

import json
import sys
from typing import Any


def calls(asked: list[list[Any]]) -> list[list[str]]:
    """What botocore's models say against each input: names, types, what is required, enums, patterns, limits."""
    import botocore.session
    from botocore.validate import ParamValidator

    session = botocore.session.get_session()
    models: dict[str, Any] = {}
    found = []
    for service, operation, value in asked:
        model = models.setdefault(service, session.get_service_model(service))
        shape = model.operation_model(operation).input_shape
        # Tokens against doubled requests are made by the SDK that sends them.
        value = dict.fromkeys(model.operation_model(operation).idempotent_members, "0" * 36) | value
        report = ParamValidator().validate(value, shape)
        found.append([report.generate_report()] if report.has_errors() else list(beyond(value, shape, "")))
    return found


def beyond(value: Any, shape: Any, path: str) -> Any:
    """What the models hold and ParamValidator does not look at: enums, patterns, maxima."""
    import regex  # the models' patterns use \p{L} and its like

    held, kind = shape.metadata, shape.type_name
    if kind == "structure":
        for key, inner in value.items():
            yield from beyond(inner, shape.members[key], f"{path}.{key}")
    elif kind == "list":
        for index, inner in enumerate(value):
            yield from beyond(inner, shape.member, f"{path}[{index}]")
    elif kind == "map":
        for key, inner in value.items():
            yield from beyond(key, shape.key, f"{path}.{key}")
            yield from beyond(inner, shape.value, f"{path}.{key}")
    elif kind == "string":
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is not one of {', '.join(shape.enum[:8])}"
        if "pattern" in held and not regex.fullmatch(held["pattern"], value):
            yield f"{path}: {value!r} does not match {held['pattern']}"
    size = len(value) if hasattr(value, "__len__") else value
    if "max" in held and size > held["max"]:
        yield f"{path}: {size} is more than {held['max']}"


def template(asked: dict[str, Any]) -> list[dict[str, str]]:
    """cfn-lint's findings, warnings included."""
    from cfnlint.api import ManualArgs, lint

    matches = lint(json.dumps(asked["template"]), config=ManualArgs(regions=asked["regions"]))
    return [
        {"rule": match.rule.id, "path": "/".join(map(str, match.path or ())), "message": match.message}
        for match in matches
    ]


def manifests(asked: dict[str, Any]) -> list[str | None]:
    """kubernetes-validate, strict: a field nobody knows is an error."""
    from functools import cache

    import kubernetes_validate
    from kubernetes_validate import utils

    # It reads the definitions (2 MB) anew for every object.
    utils.schema_contents = cache(utils.schema_contents)
    found: list[str | None] = []
    for manifest in asked["manifests"]:
        try:
            against = kubernetes_validate.validate(manifest, asked["version"], strict=True)
            found.append(None if against == asked["version"] else f"only schemas of {against} are there")
        except kubernetes_validate.ValidationError as error:
            found.append(f"{'.'.join(map(str, error.path))}: {error.message}")
        except Exception as error:
            found.append(f"{type(error).__name__}: {getattr(error, 'message', error)}")
    return found


if __name__ == "__main__":
    questions: dict[str, Any] = {"calls": calls, "template": template, "manifests": manifests}
    json.dump(questions[sys.argv[1]](json.load(sys.stdin)), sys.stdout)
