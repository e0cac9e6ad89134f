from __future__ import annotations

from pathlib import Path

import pytest

from ops import stacks
from ops.exits import BAD_INPUT, CommandError
from recipe.errors import RecipeError
from tests.ops.conftest import write
from tests.recipe.samples import raw


def test_a_misspelt_stack_is_answered_with_the_nearest_one_and_the_list(folder: Path) -> None:
    write(folder, "qwen3-32b-disagg")
    write(folder, "other")
    with pytest.raises(CommandError) as caught:
        stacks.load("qwen3-32b-disag")
    assert "did you mean qwen3-32b-disagg?" in caught.value.message
    assert "other, qwen3-32b-disagg" in caught.value.next_step, "the person may have meant none of the near ones"
    assert caught.value.code == BAD_INPUT


def test_without_any_stack_file_the_message_says_so(folder: Path) -> None:
    with pytest.raises(CommandError, match="holds no stack file yet"):
        stacks.load("anything")


@pytest.mark.parametrize("key", ["dynamo-recipes:recipe", "recipe"])
def test_the_recipe_is_found_under_the_full_and_under_the_short_key(folder: Path, key: str) -> None:
    write(folder, "dev", key=key)
    assert stacks.load("dev").raw == raw(), "pulumi reads a key without a namespace as the project's"


def test_both_keys_at_once_are_refused(folder: Path) -> None:
    path = write(folder, "dev")
    path.write_text(path.read_text() + "  recipe: {}\n")
    with pytest.raises(CommandError, match="both dynamo-recipes:recipe and recipe"):
        stacks.load("dev")


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("config:\n  dynamo-recipes:recipe:\n    model: [a, b\n", "line 4, column 1", "flow sequence"),
        ("config:\n\tx: 1\n", "line 2, column 1", "cannot start any token"),
        (
            "config:\n  dynamo-recipes:recipe:\n    model: a\n    model: b\n",
            "line 4, column 5",
            "'model' stands here twice",
        ),
        ("config:\n  ? [a, b]\n  : 1\n", "line 2, column 5", "unhashable key"),
    ],
)
def test_broken_yaml_is_named_with_line_and_column(folder: Path, text: str, where: str, what: str) -> None:
    (folder / "Pulumi.dev.yaml").write_text(text)
    with pytest.raises(CommandError) as caught:
        stacks.load("dev")
    assert f"stacks/Pulumi.dev.yaml, {where}" in caught.value.message
    assert what in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no config: dynamo-recipes:recipe"),
        (b"config:\n", "no config: dynamo-recipes:recipe"),
        (b"config: {dynamo-recipes:recpie: {}}\n", r"there is dynamo-recipes:recpie"),
        (b"- a\n", "no config: dynamo-recipes:recipe"),
        (b"config: \xff\xfe\n", "not YAML text"),
    ],
)
def test_a_file_without_a_recipe_is_refused(folder: Path, content: bytes, message: str) -> None:
    (folder / "Pulumi.dev.yaml").write_bytes(content)
    with pytest.raises(CommandError, match=message):
        stacks.load("dev")


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "Pulumi.dev.yaml").mkdir()
    with pytest.raises(CommandError, match="cannot be read"):
        stacks.load("dev")


# ── --set ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("hardware.gpu=h200", ("hardware", "gpu"), "h200"),
        ("workers.decode.replicas=3", ("workers", "decode", "replicas"), 3),
        ("budget.usd_per_hour=1.5", ("budget", "usd_per_hour"), 1.5),
        ("weights.wait=false", ("weights", "wait"), False),
        ("owner='12'", ("owner",), "12"),
        ("owner=a=b", ("owner",), "a=b"),
        ("access.account_id=", ("access", "account_id"), None),
        ("access.endpoint_cidrs[0]=192.0.2.0/24", ("access", "endpoint_cidrs", 0), "192.0.2.0/24"),
        ("access.endpoint_cidrs[1]=192.0.2.0/24", ("access", "endpoint_cidrs", 1), "192.0.2.0/24"),
        ("access.endpoint_cidrs.1=192.0.2.0/24", ("access", "endpoint_cidrs", 1), "192.0.2.0/24"),
        ("access.admin_principals[0]=arn", ("access", "admin_principals", 0), "arn"),
        ("hardware.capacity={kind: spot}", ("hardware", "capacity"), {"kind": "spot"}),
        ("hardware.capacity.kind=spot", ("hardware", "capacity", "kind"), "spot"),
        ("recipe.hardware.gpu=b200", ("hardware", "gpu"), "b200"),
    ],
)
def test_a_setting_lands_where_its_path_says_with_its_yaml_type(
    setting: str, path: tuple[str | int, ...], value: object
) -> None:
    at = stacks.with_settings(raw(), [setting])
    for step in path:
        at = at[step]
    assert at == value
    assert type(at) is type(value)


def test_settings_leave_the_original_alone() -> None:
    original = raw()
    stacks.with_settings(original, ["hardware.gpu=h200", "access.endpoint_cidrs[0]=192.0.2.0/24"])
    assert original == raw()


def test_of_two_settings_of_one_key_the_last_wins() -> None:
    assert stacks.with_settings(raw(), ["owner=a", "owner=b"])["owner"] == "b"


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("hardware.gpu", "not of the form key.path=value"),
        ("=h200", "not of the form key.path=value"),
        ("hardware..gpu=h200", "not of the form key.path=value"),
        ("access.endpoint_cidrs[=x", "not of the form key.path=value"),
        ("access.endpoint_cidrs[5]=x", "access.endpoint_cidrs is a list of 1"),
        ("access.endpoint_cidrs.first=x", "access.endpoint_cidrs is a list of 1"),
        ("model.id=x", "model is a single value"),
        ("owner=[a", "not a YAML value"),
    ],
)
def test_a_setting_that_cannot_be_placed_is_refused_with_the_reason(setting: str, reason: str) -> None:
    with pytest.raises(RecipeError) as caught:
        stacks.with_settings(raw(), [setting, "also wrong"])
    assert reason in caught.value.problems[0].reason
    assert len(caught.value.problems) == 2, "all of them at once, not the first only"
