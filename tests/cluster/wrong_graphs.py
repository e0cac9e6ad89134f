"""Graphs with one mistake each, and what the API server says of it: also what the pretend one must refuse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from recipe.plan import Manifest


def changed(graph: Manifest, change: Callable[[Manifest], None]) -> Manifest:
    """A copy of `graph` after `change`."""
    wrong = copy.deepcopy(graph)
    change(wrong)
    return wrong


def _component(key: str, value: Any) -> Callable[[Manifest], None]:
    def change(graph: Manifest) -> None:
        graph["spec"]["components"][-1][key] = value

    return change


def _spec(key: str, value: Any) -> Callable[[Manifest], None]:
    def change(graph: Manifest) -> None:
        graph["spec"][key] = value

    return change


def _twice(graph: Manifest) -> None:
    components = graph["spec"]["components"]
    components.append(components[-1] | {"name": components[-1]["name"].upper()})


def _without_name(graph: Manifest) -> None:
    del graph["spec"]["components"][-1]["name"]


def _without_containers(graph: Manifest) -> None:
    del graph["spec"]["components"][-1]["podTemplate"]["spec"]["containers"]


def _two_epp(graph: Manifest) -> None:
    for component in graph["spec"]["components"][:2]:
        component["type"] = "epp"


def _too_many(graph: Manifest) -> None:
    last = graph["spec"]["components"][-1]
    graph["spec"]["components"] += [last | {"name": f"more-{index}"} for index in range(25)]


WRONG: list[tuple[str, Callable[[Manifest], None], str]] = [
    ("unknown-field-of-a-component", _component("replica", 2), "unknown field"),
    ("unknown-field-of-the-spec", _spec("services", {}), "unknown field"),
    ("type-nobody-knows", _component("type", "prefiller"), "Unsupported value"),
    ("negative-replicas", _component("replicas", -1), "greater than or equal to 0"),
    ("name-with-a-dot", _component("name", "pre.fill"), "should match"),
    ("no-name", _without_name, "Required value"),
    ("no-containers", _without_containers, "Required value"),
    ("framework-nobody-knows", _spec("backendFramework", "tgi"), "Unsupported value"),
    ("more-than-25-components", _too_many, "must have at most 25 items"),
    ("replicas-as-text", _component("replicas", "2"), "must be of type integer"),
    ("cel-names-differ-in-case-only", _twice, "unique case-insensitively"),
    ("cel-two-epp", _two_epp, "at most one component may have type epp"),
    (
        "cel-epp-config-without-epp",
        _component("eppConfig", {"config": {"plugins": [], "schedulingProfiles": []}}),
        "only be set when type is epp",
    ),
    ("cel-min-available-above-replicas", _component("minAvailable", 99), "less than or equal to replicas"),
    ("cel-restart-on-create", _spec("restart", {"id": "1"}), "must be unset on create"),
]
"""Name, change, and a part of the API server's message."""
