"""JSON schemas for editors: of a recipe, and of a whole stack file."""

from __future__ import annotations

import ast
import inspect
from typing import Any, Final

from recipe import config
from recipe.config import PROJECT, RECIPE_KEY, Base, Recipe
from recipe.stack_file import FULL_KEY

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """The schema of what stands below `dynamo-recipes:recipe`, made from the models' own types and sentences."""
    return {"$schema": DIALECT, **_described()}


def stack_file_schema() -> dict[str, Any]:
    """The schema of `stacks/Pulumi.<stack>.yaml`. Keys of other projects and of Pulumi itself are let through."""
    recipe = _described()
    definitions = recipe.pop("$defs")
    token = {
        "type": "object",
        "properties": {"secure": {"type": "string"}},
        "required": ["secure"],
        "additionalProperties": False,
        "description": "Hugging Face token, encrypted: made by `pulumi config set --secret hfToken`, never written by hand.",
    }
    return {
        "$schema": DIALECT,
        "title": "A stack of dynamo-recipes",
        "type": "object",
        "properties": {
            "config": {
                "type": "object",
                "properties": {
                    FULL_KEY: {"$ref": "#/$defs/Stack"},
                    RECIPE_KEY: {"$ref": "#/$defs/Stack"},
                    f"{PROJECT}:hfToken": token,
                },
                "patternProperties": {f"^{PROJECT}:(?!{RECIPE_KEY}$|hfToken$)": False},
                "oneOf": [{"required": [FULL_KEY]}, {"required": [RECIPE_KEY]}],
            }
        },
        "required": ["config"],
        "$defs": definitions | {"Stack": recipe},
    }


def _described() -> dict[str, Any]:
    """Recipe and Base, with the sentence below each field as its description.

    pydantic can do this itself (`use_attribute_docstrings`), but then reads the source at every import, a quarter of what
    `ops plan` takes in all.
    """
    definitions: dict[str, Any] = {}
    for model in (Recipe, Base):
        schema = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= schema.pop("$defs") | {model.__name__: schema}
    sentences = _sentences()
    for name, definition in definitions.items():
        for field, property_schema in definition.get("properties", {}).items():
            if sentence := sentences.get((name, field)):
                property_schema["description"] = sentence
    return {
        # Told apart as the program does it, so that an editor complains about the kind that is meant.
        "if": {"properties": {"kind": {"const": "base"}}, "required": ["kind"]},
        "then": {"$ref": "#/$defs/Base"},
        "else": {"$ref": "#/$defs/Recipe"},
        "$defs": definitions,
    }


def _sentences() -> dict[tuple[str, str], str]:
    """The string below each field of each class in recipe.config, by class and field."""
    found: dict[tuple[str, str], str] = {}
    classes = [node for node in ast.parse(inspect.getsource(config)).body if isinstance(node, ast.ClassDef)]
    for node in classes:
        for parent in (base.id for base in node.bases if isinstance(base, ast.Name)):
            found |= {(node.name, field): text for (owner, field), text in found.items() if owner == parent}
        for field, below in zip(node.body, node.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(sentence))):
                    found[node.name, name] = inspect.cleandoc(sentence)
    return found
