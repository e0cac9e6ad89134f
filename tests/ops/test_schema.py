from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import Result

from ops import stacks
from ops.schema import recipe_schema, stack_file_schema
from tests.recipe.samples import raw


def test_the_committed_schema_is_the_models() -> None:
    committed = (stacks.FOLDER / "schema.json").read_text(encoding="utf-8")
    wanted = json.dumps(stack_file_schema(), indent=2, ensure_ascii=False) + "\n"
    assert committed == wanted, "regenerate it: python -m ops schema --stack-file > stacks/schema.json"


@pytest.mark.parametrize("schema", [recipe_schema(), stack_file_schema()], ids=["recipe", "stack-file"])
def test_the_schema_itself_is_valid(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("stack", stacks.names())
def test_every_shipped_stack_file_fits_the_schema_and_names_it_in_its_first_line(stack: str) -> None:
    path = stacks.FOLDER / f"Pulumi.{stack}.yaml"
    jsonschema.validate(yaml.safe_load(path.read_text()), stack_file_schema())
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json"), (
        "without it an editor helps with nothing"
    )


@pytest.mark.parametrize(
    "document",
    [
        {"config": {"dynamo-recipes:recipe": raw(hardwar={"gpu": "h100"})}},
        {"config": {"dynamo-recipes:recipe": raw(hardware__gpu="h10")}},
        {"config": {"dynamo-recipes:recipe": raw(workers__decode__replicas=0)}},
        {"config": {"dynamo-recipes:recpie": raw()}},
        {"config": {"dynamo-recipes:recipe": raw(), "dynamo-recipes:hfTokn": "x"}},
        {"config": {"dynamo-recipes:recipe": raw(), "dynamo-recipes:hfToken": "in-clear"}},
        {
            "config": {
                "dynamo-recipes:recipe": {"kind": "base", "budget": {"usd_per_hour": 1, "ttl_hours": 1}, "model": "x"}
            }
        },
        {"config": {"dynamo-recipes:recipe": {"kind": "bas", "budget": {"usd_per_hour": 1, "ttl_hours": 1}}}},
        {"config": {"dynamo-recipes:recipe": raw(foundation={"kind": "base", "stak": "base"})}},
        {},
    ],
)
def test_an_editor_marks_what_the_program_would_refuse(document: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, stack_file_schema())


def test_what_pulumi_adds_by_itself_is_let_through() -> None:
    config = {"dynamo-recipes:recipe": raw(), "dynamo-recipes:hfToken": {"secure": "v1:x"}, "aws:region": "us-east-2"}
    jsonschema.validate(
        {"secretsprovider": "passphrase", "encryptionsalt": "v1:x", "config": config}, stack_file_schema()
    )


def test_an_account_id_that_pulumi_stored_as_a_number_is_not_marked() -> None:
    document = {"config": {"dynamo-recipes:recipe": raw(access__account_id=111122223333)}}
    jsonschema.validate(document, stack_file_schema())


def test_every_key_of_a_recipe_says_what_it_does() -> None:
    schema = recipe_schema()
    silent = [
        f"{name}.{key}"
        for name, definition in ({"Recipe": schema} | schema["$defs"]).items()
        for key, value in definition.get("properties", {}).items()
        if "description" not in value and key != "kind" and not _described(value, schema)
    ]
    assert silent == [], "a key without a sentence is one people have to guess"


def test_every_tuning_key_says_what_it_does_to_first_token_and_inter_token_latency() -> None:
    definitions = recipe_schema()["$defs"]
    keys = {
        "Tuning": set(definitions["Tuning"]["properties"]) - {"extra_args", "extra_engine_config"},
        "WorkerPool": {"tensor_parallel", "data_parallel", "expert_parallel"},
        "Router": set(definitions["Router"]["properties"]),
        "KvTransfer": {"backend"},
    }
    silent = [
        f"{name}.{key}"
        for name, wanted in keys.items()
        for key in sorted(wanted)
        if not {"TTFT", "ITL"}
        & set(
            definitions[name]["properties"][key]["description"]
            .replace(",", " ")
            .replace(".", " ")
            .replace(")", " ")
            .split()
        )
    ]
    assert silent == [], "who tunes wants to know which of the two it moves"


def _described(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    """Whether the object it refers to says it."""
    reference = value.get("$ref", "").rpartition("/")[2]
    return bool(schema["$defs"].get(reference, {}).get("description"))


@pytest.mark.parametrize("args", [(), ("--stack-file",)])
def test_the_command_prints_json(run: Callable[..., Result], args: tuple[str, ...]) -> None:
    result = run("schema", *args)
    assert result.exit_code == 0
    assert "$schema" in json.loads(result.stdout)
