"""`ops release-base`: who is on a base, and what is said, from states as the engine exports them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from ops.exits import BAD_INPUT, FAILED, CommandError
from ops.releasing import CACHES, NETWORK, REFERENCE, release

Resources = list[dict[str, Any]]


def resource(
    type_: str, name: str, stack: str = "base", project: str = "dynamo-recipes", **more: Any
) -> dict[str, Any]:
    return {"urn": f"urn:pulumi:{stack}::{project}::{type_}::{name}", "type": type_, **more}


def reference(to: str, project: str = "dynamo-recipes") -> dict[str, Any]:
    return resource(REFERENCE, "base", "other", project, id=to, inputs={"name": to})


def base(*, protect: bool = True) -> Resources:
    return [
        resource("pulumi:pulumi:Stack", "root"),
        resource(NETWORK, "network", protect=protect),
        resource("aws:ec2/vpc:Vpc", "network-vpc", protect=protect),
    ]


class Backend:
    """A backend with these stacks."""

    def __init__(self, **stacks: Resources) -> None:
        self.stacks = stacks
        self.asked: list[list[str]] = []

    def __call__(self, args: Sequence[str]) -> str:
        self.asked.append(list(args))
        match args:
            case ["stack", "ls", "--all", "--json"]:
                return json.dumps([{"name": name, "resourceCount": len(found)} for name, found in self.stacks.items()])
            case ["stack", "export", "--stack", name]:
                return json.dumps({"version": 3, "deployment": {"resources": self.stacks[name] or None}})
            case ["state", "unprotect", "--all", "--yes", "--stack", name]:
                for one in self.stacks[name]:
                    one["protect"] = False
                return ""
        raise AssertionError(f"pulumi {args}")

    @property
    def unprotected(self) -> bool:
        return any(args[:2] == ["state", "unprotect"] for args in self.asked)


def refused(backend: Backend, stack: str = "base") -> CommandError:
    with pytest.raises(CommandError) as caught:
        release(stack, backend)
    assert not backend.unprotected, "a refusal changes nothing"
    return caught.value


def test_a_base_nobody_refers_to_is_released(capsys: pytest.CaptureFixture[str]) -> None:
    backend = Backend(base=base(), other=[resource("aws:ec2/vpc:Vpc", "x", "other")], empty=[])
    release("base", backend)
    assert not any(one.get("protect") for one in backend.stacks["base"])
    assert "pulumi destroy -s base" in capsys.readouterr().out, "releasing alone takes nothing away"


@pytest.mark.parametrize(
    "name",
    ["organization/dynamo-recipes/base", "acme/dynamo-recipes/base", "dynamo-recipes/base", "base"],
)
def test_every_way_to_write_the_base_is_a_reference_to_it(name: str) -> None:
    error = refused(Backend(base=base(), one=[reference(name)], two=[reference(name)]))
    assert error.code == FAILED
    assert "one, two" in error.message
    assert "pulumi destroy -s one; pulumi destroy -s two" in error.next_step


def test_a_stack_of_another_project_counts() -> None:
    backend = Backend(base=base(), one=[reference("organization/dynamo-recipes/base", project="elsewhere")])
    assert "one" in refused(backend).message


@pytest.mark.parametrize("name", ["organization/dynamo-recipes/base2", "organization/elsewhere/base"])
def test_a_reference_to_something_else_does_not(name: str) -> None:
    backend = Backend(base=base(), one=[reference(name)])
    release("base", backend)
    assert backend.unprotected


def test_a_stack_that_is_no_base_is_not_touched() -> None:
    own = [resource(NETWORK, "network", "model"), resource(CACHES, "caches", "model")]
    taken = [resource(CACHES, "caches", "model")]
    for model in (own, taken):
        assert refused(Backend(model=model), "model").code == BAD_INPUT


def test_a_base_that_is_not_up_needs_no_release() -> None:
    assert "has no resources" in refused(Backend(base=[])).message


def test_a_base_that_is_released_already_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    backend = Backend(base=base(protect=False))
    release("base", backend)
    assert not backend.unprotected
    assert "is not protected" in capsys.readouterr().out
