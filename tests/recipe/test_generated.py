"""Ten thousand stack files nobody wrote: each is a plan that adds up or a clear refusal, never another exception.

A plain loop with a seed rather than hypothesis: at 2 ms a plan, hypothesis' own work would be most of it. A failure prints
the recipe; `GENERATED_SEED=n` in the environment tries others.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ops import stacks
from ops.exits import CommandError
from ops.plan_data import problems_as_data
from ops.schema import recipe_schema
from recipe import catalogue
from recipe.config import ROLES, Base, parse, parse_any
from recipe.errors import RecipeError
from recipe.plan import Plan
from recipe.planner import make_plan

SEED = int(os.environ.get("GENERATED_SEED", "20261125"))
COUNT = 10_000

NONSENSE: Final[tuple[Any, ...]] = (
    None, "", " ", 0, -1, 1, 3, 10**30, -(10**30), 0.5, 1e308, float("nan"), float("inf"), True, False, [], {}, [None], [[]],
    {"kind": "spot"}, {"kind": None}, {"kind": []}, {1: 2}, "yes", "null", "0x10", "1e9", "${x}", "../..", "é\u202e\0", "a" * 5000, b"bytes",
    "on-demand", "h100", "use2-az1", "0.0.0.0/0", "::/0", "10.0.0.0/8", "198.51.100.7/32", "arn:aws:iam::111122223333:role/x",
)  # fmt: skip
TEXTS: Final[dict[str, tuple[str, ...]]] = {
    "model": tuple(catalogue.MODELS),
    "instance_type": (*catalogue.GPU_INSTANCES, *catalogue.CPU_INSTANCES),
    "region": tuple(catalogue.REGIONS),
    "zone_id": tuple(catalogue.ZONES),
    "account_id": ("111122223333", "000000000001"),
    "reservation_id": ("cr-0123456789abcdef0",),
    "revision": ("0" * 40,),
    "ami_release": tuple(row.gpu_ami.release for row in catalogue.KUBERNETES.values() if row.gpu_ami.release),
    "vpc_cidr": ("10.42.0.0/16", "172.20.0.0/18", "192.168.0.0/20"),
    "endpoint_cidrs": ("198.51.100.7/32", "203.0.113.0/24"),
    "admin_principals": ("arn:aws:iam::111122223333:role/ops", "arn:aws:iam::111122223333:user/me"),
    "dynamo": tuple(catalogue.DYNAMO),
    "kubernetes": tuple(catalogue.KUBERNETES),
    "deployment_id": ("main", "a", "abcdefgh"),
    "owner": ("me@example.com", "ML team"),
    "extra_args": ("--load-format", "--seed", "7"),
}
"""What a valid text looks like, where the schema cannot say it."""
SCHEMA: Final = recipe_schema()
STACK, BASE = SCHEMA["else"], SCHEMA["then"]
"""Of what serves a model, and of what such stacks share."""


class Generator:
    """Recipes from the schema, so that a new key is tried from the day it exists."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.shipped = [stacks.load(stack).raw for stack in stacks.models()]

    def recipe(self) -> Any:
        if self.random.random() < 0.1:
            made = self.of(BASE, "") | {"access": {"region": "us-east-2"}}
            return self.spoiled(made) if self.random.random() < 0.5 else made
        made = copy.deepcopy(self.random.choice(self.shipped)) if self.random.random() < 0.5 else self.of(STACK, "")
        if self.random.random() < 0.8:
            self.mostly_sane(made)
        for _ in range(self.random.choice((0, 0, 0, 1, 1, 2, 5))):
            made = self.spoiled(made)
        return made

    def of(self, node: dict[str, Any], key: str) -> Any:
        pick = self.random
        if "$ref" in node:
            return self.of(SCHEMA["$defs"][node["$ref"].rpartition("/")[2]], key)
        if choices := node.get("anyOf") or node.get("oneOf"):
            return self.of(pick.choice(choices), key)
        if "const" in node:
            return node["const"]
        if "enum" in node:
            return pick.choice(node["enum"])
        match node.get("type"):
            case "object" if "properties" in node:
                required = node.get("required", ())
                return {
                    name: self.of(inner, name)
                    for name, inner in node["properties"].items()
                    if name in required or pick.random() < 0.25
                }
            case "object" if node.get("additionalProperties") is True:
                keys = pick.sample(("kv_cache_config", "max_batch_size", "moe_config", "anything"), pick.randint(0, 2))
                return {name: copy.deepcopy(pick.choice(NONSENSE)) for name in keys}
            case "object":
                roles = pick.choice(list(ROLES.values()))
                return {role: self.of(node["additionalProperties"], role) for role in roles}
            case "array":
                inner = node.get("items", {"type": "string"})
                return [self.of(inner, key) for _ in range(pick.randint(0, 2))]
            case "boolean":
                return pick.random() < 0.5
            case "integer":
                low, high = int(node.get("minimum", 1)), int(node.get("maximum", 100))
                return pick.choice((low, high, pick.randint(low, high), min(high, low + pick.randint(0, 8))))
            case "number":
                low, high = node.get("minimum", node.get("exclusiveMinimum", 0)), node.get("maximum", 100_000)
                return round(pick.uniform(low, high), 3)
            case "null":
                return None
            case _:
                return pick.choice(TEXTS.get(key, ("text",)))

    def mostly_sane(self, made: Any) -> None:
        """What a person gets right most of the time, or nearly every recipe would fail for the same three reasons."""
        pick = self.random
        made["budget"] = {"usd_per_hour": 100_000, "ttl_hours": pick.randint(1, 100)}
        made["access"] = {"region": "us-east-2"}
        roles = ROLES.get(made.get("mode"), ())
        for role in roles:
            pool = made["workers"].get(role) or {}
            pool |= {"replicas": pick.randint(1, 6), "tensor_parallel": pick.choice((1, 2, 4, 8))}
            for key in ("expert_parallel", "memory_gib", "shared_memory_gib", "cpu", "tuning"):
                if pick.random() < 0.7:
                    pool.pop(key, None)
            made["workers"][role] = pool
        made["workers"] = {role: pool for role, pool in made["workers"].items() if role in roles}
        for key in ("versions", "serving", "router"):
            if pick.random() < 0.7:
                made.pop(key, None)
        hardware = made.get("hardware")
        if isinstance(hardware, dict):
            for key in ("instance_type", "cpu", "ami_release", "placement_group"):
                if pick.random() < 0.8:
                    hardware.pop(key, None)

    def spoiled(self, made: Any) -> Any:
        """One place changed into nonsense, a key renamed, or one taken away."""
        pick = self.random
        places = list(self._places(made))
        if not places or pick.random() < 0.01:
            return pick.choice(NONSENSE)
        holder, key = pick.choice(places)
        match pick.randint(0, 3):
            case 0 if isinstance(holder, dict):
                holder[pick.choice((f"{key}s", f"{key}"[:-1], f"{key}".upper(), 7, ""))] = holder.pop(key)
            case 1 if isinstance(holder, dict):
                del holder[key]
            case _:
                holder[key] = copy.deepcopy(pick.choice(NONSENSE))
        return made

    def _places(self, value: Any) -> Iterator[tuple[Any, Any]]:
        if isinstance(value, dict | list):
            for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
                yield value, key
                yield from self._places(inner)


@pytest.mark.slow
def test_ten_thousand_recipes_are_plans_or_clear_refusals() -> None:
    made, outcomes = Generator(SEED), Counter[str]()
    reasons = Counter[str]()
    base = parse_any(stacks.load("base").raw)
    assert isinstance(base, Base)
    for number in range(COUNT):
        raw = made.recipe()
        try:
            plan = make_plan("generated", parse_any(raw), placeholders=number % 10 != 0, base=base)
        except RecipeError as error:
            outcomes["refused"] += 1
            reasons.update(one.path.partition(".")[0] for one in error.problems)
            unclear = [one for one in error.problems if not (one.path and one.reason and one.fix and str(one))]
            if unclear:
                pytest.fail(f"no place, reason or way out in {unclear}: {raw!r}")
            json.dumps(problems_as_data(error), default=str)
        except Exception as error:
            error.add_note(f"seed {SEED}, recipe {number}: {raw!r}")
            raise
        else:
            outcomes["planned" if isinstance(plan, Plan) else "bases"] += 1
            assert plan.cost.usd_per_hour > 0
            if isinstance(plan, Plan):
                assert plan.gpus == sum(node.gpus_used for node in plan.placement.gpu_nodes)
    print(f"seed {SEED}: {dict(outcomes)}; problems by key: {reasons.most_common()}")
    assert min(outcomes["planned"], outcomes["refused"]) > COUNT / 10, f"too one-sided to prove anything: {outcomes}"
    assert outcomes["bases"] > COUNT / 100
    assert len(reasons) >= 12, "problems in every part of a recipe"


def test_two_thousand_damaged_files_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [stacks.load(stack).path.read_text(encoding="utf-8") for stack in stacks.names()]
    monkeypatch.setattr(stacks, "FOLDER", tmp_path)
    pick, path = random.Random(SEED), tmp_path / "Pulumi.damaged.yaml"
    refused = 0
    for number in range(2000):
        text = pick.choice(texts)
        for _ in range(pick.randint(1, 4)):
            at, length = pick.randrange(len(text)), pick.randint(0, 12)
            junk = pick.choice(
                (
                    "",
                    ":",
                    "\t",
                    "\n",
                    "[",
                    "{",
                    "- ",
                    '"',
                    "&a ",
                    "*a",
                    "!!x ",
                    "\x07",
                    "#",
                    "  ",
                    "? ",
                    "<<: ",
                    "é",
                    "%",
                )
            )
            text = text[:at] + junk + text[at + length :]
        path.write_text(text, encoding="utf-8")
        try:
            make_plan("damaged", parse(stacks.load("damaged").raw), placeholders=True)
        except (RecipeError, CommandError):
            refused += 1
        except Exception as error:
            error.add_note(f"seed {SEED}, file {number}:\n{text}")
            raise
    assert refused > 500, "too little damage to prove anything"
