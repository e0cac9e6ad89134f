"""JSON schemas for editors: of a recipe, and of a whole stack file."""

from __future__ import annotations

import ast
import inspect
from typing import Any, Final

from ops.stacks import FULL_KEY
from recipe import config
from recipe.config import PROJECT, RECIPE_KEY, Recipe

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """The schema of what stands below `dynamo-recipes:recipe`, made from the Recipe's own types and sentences."""
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
                    FULL_KEY: {"$ref": "#/$defs/Recipe"},
                    RECIPE_KEY: {"$ref": "#/$defs/Recipe"},
                    f"{PROJECT}:hfToken": token,
                },
                "patternProperties": {f"^{PROJECT}:(?!{RECIPE_KEY}$|hfToken$)": False},
                "oneOf": [{"required": [FULL_KEY]}, {"required": [RECIPE_KEY]}],
            }
        },
        "required": ["config"],
        "$defs": definitions | {"Recipe": recipe},
    }


def _described() -> dict[str, Any]:
    """The Recipe's schema with the sentence below each field as its description.

    pydantic can do this itself (`use_attribute_docstrings`), but then reads the source at every import, a quarter of what
    `ops plan` takes in all.
    """
    schema = Recipe.model_json_schema()
    sentences = _sentences()
    for name, definition in ({"Recipe": schema} | schema["$defs"]).items():
        for field, property_schema in definition.get("properties", {}).items():
            if sentence := sentences.get((name, field)):
                property_schema["description"] = sentence
    return schema


def _sentences() -> dict[tuple[str, str], str]:
    """The string below each field of each class in recipe.config, by class and field."""
    found: dict[tuple[str, str], str] = {}
    classes = [node for node in ast.parse(inspect.getsource(config)).body if isinstance(node, ast.ClassDef)]
    for node in classes:
        bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
        found |= {(node.name, field): sentence for (owner, field), sentence in found.items() if owner in bases}
        for field, below in zip(node.body, node.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(sentence))):
                    found[node.name, name] = inspect.cleandoc(sentence)
    return found
