"""What a person may write in a stack file, and what they are told when it is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from recipe.config import parse
from recipe.errors import Problem, RecipeError
from tests.recipe.samples import raw, recipe


def problems(**changes: Any) -> dict[str, Problem]:
    with pytest.raises(RecipeError) as caught:
        parse(raw(**changes))
    return {problem.path: problem for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"engine": "vlm"}, "engine", "did you mean vllm?"),
        ({"hardware__gpu": "h10"}, "hardware.gpu", "did you mean h100?"),
        ({"hardwear": {}}, "hardwear", "did you mean hardware?"),
        ({"hardware__cpu": {"node": 2}}, "hardware.cpu.node", "did you mean nodes?"),
        ({"workers__decode__tensor_paralel": 2}, "workers.decode.tensor_paralel", "did you mean tensor_parallel?"),
        ({"workers__decode__tensor_parallel": 3}, "workers.decode.tensor_parallel", "known: 1, 2, 4, 8"),
        ({"workers__prefil": {"replicas": 1, "tensor_parallel": 1}}, "workers.prefil", "did you mean prefill?"),
        ({"hardware__capacity": {"kind": "odc"}}, "hardware.capacity.kind", "did you mean odcr?"),
        (
            {"hardware__capacity": {"kind": "odcr", "reservation_id": "r-1"}},
            "hardware.capacity.reservation_id",
            "cr-",
        ),
        (
            {"hardware__capacity": {"kind": "odcr", "reservaton_id": "x"}},
            "hardware.capacity.reservaton_id",
            "did you mean reservation_id?",
        ),
        ({"access__account_id": "12"}, "access.account_id", "12 digits"),
        ({"access__zone_id": "us-east-2a"}, "access.zone_id", "use2-az1"),
        ({"access__endpoint_cidrs": ["0.0.0.0/0"]}, "access.endpoint_cidrs.0", "everyone"),
        ({"access__endpoint_cidrs": ["10.0.0.1/8"]}, "access.endpoint_cidrs.0", "host bits"),
        ({"access__vpc_cidr": "10.0.0.0/24"}, "access.vpc_cidr", "/16 and /20"),
        (
            {"access__admin_principals": ["arn:aws:sts::111122223333:assumed-role/a/b"]},
            "access.admin_principals.0",
            "assumed-role",
        ),
        ({"weights__revision": "main"}, "weights.revision", "a branch name moves"),
        ({"deployment_id": "Main-1"}, "deployment_id", "lower-case"),
        ({"budget__ttl_hours": "soon"}, "budget.ttl_hours", "whole number"),
        ({"budget__usd_per_hour": -1}, "budget.usd_per_hour", "more than 0"),
        ({"model": ...}, "model", "required"),
    ],
)
def test_a_mistake_is_named_with_its_path_and_what_would_work(changes: dict[str, Any], path: str, says: str) -> None:
    found = problems(**changes)
    assert path in found, f"the message must point at {path}; it points at {sorted(found)}"
    assert says in str(found[path]), "the message must say what would work"


def test_all_mistakes_come_at_once() -> None:
    found = problems(engine="vlm", hardware__gpu="h10", budget__ttl_hours=0, access__zone_id="nowhere")
    assert {"engine", "hardware.gpu", "budget.ttl_hours", "access.zone_id"} <= set(found), (
        "one run must show every mistake"
    )


@pytest.mark.parametrize("value", [None, [], "text", 7])
def test_a_recipe_that_is_no_object_is_an_error_not_a_traceback(value: Any) -> None:
    with pytest.raises(RecipeError, match="not an object"):
        parse(value)


def test_an_account_id_that_pulumi_stored_as_a_number_is_accepted() -> None:
    assert recipe(access__account_id=12345678901).access.account_id == "012345678901", (
        "config set --path turns digits into a number"
    )


def test_a_pools_own_tuning_wins_and_extra_args_add_up() -> None:
    tuned = recipe(
        engine_tuning__extra_args=["--a"],
        workers__decode__tuning={"gpu_memory_fraction": 0.8, "extra_args": ["--b"]},
    )
    assert tuned.tuning("decode").gpu_memory_fraction == 0.8
    assert tuned.tuning("decode").block_size == 64, "what the pool does not say comes from engine_tuning"
    assert tuned.tuning("decode").extra_args == ("--a", "--b")
    assert tuned.tuning("prefill").gpu_memory_fraction == 0.9


def test_keys_for_the_engines_own_file_add_up_object_by_object() -> None:
    tuned = recipe(
        engine_tuning__extra_engine_config={"scheduler": {"policy": "a", "window": 1}, "stream_interval": 4},
        workers__decode__tuning={"extra_engine_config": {"scheduler": {"window": 2}}},
    )
    assert tuned.tuning("decode").extra_engine_config == {
        "scheduler": {"policy": "a", "window": 2},
        "stream_interval": 4,
    }
    assert tuned.tuning("prefill").extra_engine_config["scheduler"] == {"policy": "a", "window": 1}


def test_a_recipe_cannot_be_changed_after_it_was_read() -> None:
    with pytest.raises(Exception, match="frozen"):
        recipe().budget.ttl_hours = 9  # type: ignore[misc]


def test_a_value_is_shown_with_its_letters_as_they_were_written_and_never_acts_on_the_terminal() -> None:
    shown = str(Problem("owner", "Jürgen", "why", "fix"))
    assert 'owner = "Jürgen": why' in shown, "who searches the file for what the message says must find it"
    for hidden in ("a\x9b31mb", "a\u202eb", "a\ud800b"):
        (line, _) = str(Problem("owner", hidden, "why", "fix")).split("\n")
        assert line.isprintable(), f"a terminal would obey, or fail to print: {line!a}"
