"""JSON schemas for editors: of a recipe, and of a whole stack file."""

from __future__ import annotations

from typing import Any, Final

from ops.stacks import FULL_KEY
from recipe.config import PROJECT, RECIPE_KEY, Recipe

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """The schema of what stands below `dynamo-recipes:recipe`, made from the Recipe's own types and sentences."""
    return {"$schema": DIALECT, **Recipe.model_json_schema()}


def stack_file_schema() -> dict[str, Any]:
    """The schema of `stacks/Pulumi.<stack>.yaml`. Keys of other projects and of Pulumi itself are let through."""
    recipe = Recipe.model_json_schema()
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
