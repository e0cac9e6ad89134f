"""What makes this deployment this one: name, account, region, zones and addresses. None of it can change in place.

A change of any of them replaces everything, and the engine has to know that before it touches the first resource: decided one
resource at a time, half of them would be replaced while the other half still holds them in use. So the identity is a resource
of its own, and whatever cannot survive a change takes its name (or another create-only property) through `tie`. Replacing
the identity then takes everything away in the order of a destroy, GPU nodes first, and makes it again.
Deliberately not here: what belongs to the identity (`identity` of the plan).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from recipe.plan import FoundationPlan


@dataclass(frozen=True, kw_only=True)
class IdentityArgs:
    """What an Identity is made from."""

    plan: FoundationPlan
    after: pulumi.Output[Any] | None = None
    """Nothing of the stack is made or changed before this is known: a base that is not as planned stops all of it."""


class Identity(pulumi.ComponentResource):
    """A value in the state that is replaced, delete first, when the deployment becomes another one."""

    def __init__(self, name: str, args: IdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:identity:Identity", name, None, opts)
        value: pulumi.Input[str] = args.plan.identity
        if args.after is not None:
            value = args.after.apply(lambda _: args.plan.identity)
        self._value = pulumi.Stash(
            f"{name}-value",
            input=value,
            opts=pulumi.ResourceOptions(
                parent=self, delete_before_replace=True, replacement_trigger=args.plan.identity
            ),
        )
        self.register_outputs({"value": self._value.output})

    def tie(self, text: str) -> pulumi.Output[str]:
        """`text`, unchanged: but the engine sees that it depends on the identity."""
        return self._value.output.apply(lambda _: text)
