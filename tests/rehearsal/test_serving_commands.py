"""A graph as command lines of Dynamo's frontend and mock engine, and how the environment for them is made and kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ops import stacks
from ops.planning import planned
from recipe.catalogue.versions import DYNAMO
from rehearsal import pyenv
from rehearsal.errors import SetupError
from rehearsal.pyenv import PythonEnvironment
from rehearsal.serving.commands import Commands, Facts, Pool, commands
from rehearsal.serving.environment import DYNAMO as SERVED
from rehearsal.serving.environment import ENVIRONMENT
from tests.recipe.samples import plan


def of(stack: str, *settings: str) -> Commands:
    made = planned(stack, list(settings)).model
    return commands(made.objects.graph, Facts.of(made))


def pool(found: Commands, role: str) -> Pool:
    return next(one for one in found.pools if one.role == role)


def value(args: tuple[str, ...], flag: str) -> str | None:
    return args[args.index(flag) + 1] if flag in args else None


# ── vLLM ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_frontend_runs_with_the_graphs_own_arguments() -> None:
    made = planned("qwen3-32b-disagg", []).model
    frontend = next(one for one in made.objects.graph["spec"]["components"] if one["type"] == "frontend")
    assert of("qwen3-32b-disagg").frontend_args == tuple(frontend["podTemplate"]["spec"]["containers"][0]["args"])


def test_a_pool_is_told_what_the_real_engine_is_told() -> None:
    found = of("qwen3-32b-disagg")
    prefill, decode = pool(found, "prefill"), pool(found, "decode")
    assert (prefill.replicas, decode.replicas) == (6, 2)
    for one in (prefill, decode):
        assert value(one.args, "--disaggregation-mode") == one.role
        assert value(one.args, "--block-size") == "64"
        assert value(one.args, "--max-model-len") == "131072"
        assert value(one.args, "--kv-bytes-per-token") == "262144", "64 layers × 8 heads × 128 × 2 × 2 bytes"
        assert value(one.timing, "--ais-system") == "h100_sxm"
        assert value(one.timing, "--ais-tp-size") == "2"
        assert value(one.timing, "--gpu-memory-utilization") == "0.9"
    assert "--no-enable-prefix-caching" in decode.args, "the mock engine's own default is on"
    assert "--no-enable-prefix-caching" not in prefill.args, "without it there are no KV events"


def test_what_the_plan_changes_changes_here() -> None:
    settings = (
        "workers.decode.replicas=1",
        "engine_tuning.max_batch_size=77",
        "hardware.gpu=h200",
        "budget.usd_per_hour=200",
    )
    found = of("qwen3-32b-disagg", *settings)
    assert pool(found, "decode").replicas == 1
    assert value(pool(found, "prefill").args, "--max-num-seqs") == "77"
    assert value(pool(found, "prefill").timing, "--ais-system") == "h200_sxm"


def test_steps_of_decode_workers_are_not_bounded_by_prompts() -> None:
    found = of("qwen3-235b-a22b-fp8-disagg")
    assert value(pool(found, "prefill").args, "--max-num-batched-tokens") == "8192"
    assert value(pool(found, "decode").args, "--max-num-batched-tokens") is None, (
        "a prompt longer than 1024 would wait for ever"
    )


# ── TensorRT-LLM ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_engine_with_a_file_is_read_through_mount_volume_and_config_map() -> None:
    found = of("qwen3-32b-fp8-disagg")
    prefill = pool(found, "prefill")
    assert value(prefill.args, "--engine-type") == "trtllm"
    assert value(prefill.timing, "--ais-backend") == "trtllm"
    assert value(prefill.args, "--max-num-seqs") == "1"
    assert value(prefill.args, "--max-model-len") == "7808"
    assert value(prefill.args, "--kv-bytes-per-token") == "131072", "an fp8 cache"
    assert value(prefill.timing, "--ais-tp-size") == "1"
    assert value(pool(found, "decode").timing, "--ais-tp-size") == "2"


def test_a_config_map_that_is_not_at_hand_is_named() -> None:
    made = planned("qwen3-32b-fp8-disagg", []).model
    with pytest.raises(SetupError, match="ConfigMap"):
        commands(made.objects.graph, Facts("h100"))


def test_experts_are_split_as_the_engine_splits_them() -> None:
    timing = pool(of("qwen3-235b-a22b-fp8-agg"), "worker").timing
    assert (value(timing, "--ais-moe-tp-size"), value(timing, "--ais-moe-ep-size")) == ("1", "4")
    timing = pool(of("qwen3-235b-a22b-fp8-disagg"), "prefill").timing
    assert (value(timing, "--ais-moe-tp-size"), value(timing, "--ais-moe-ep-size")) == ("2", "1")


# ── the mock engine itself, and every stack ──────────────────────────────────────────────────────────────────────────


def test_a_graph_of_mock_engines_keeps_its_own_arguments() -> None:
    made = planned("mocker-cpu", []).model
    rendered = next(one for one in made.objects.graph["spec"]["components"] if one["type"] == "prefill")
    given = tuple(rendered["podTemplate"]["spec"]["containers"][0]["args"])
    kept = pool(of("mocker-cpu"), "prefill")
    assert given[:1] + kept.args == given[:1] + given[2:], "all but the folder of the model"
    assert kept.timing == (), "it computes on nothing that a database knows"
    assert kept.env["DYN_EVENT_PLANE"] == "zmq"


@pytest.mark.parametrize("stack", stacks.models())
def test_every_stack_has_commands(stack: str) -> None:
    made = planned(stack, []).model
    found = commands(made.objects.graph, Facts.of(made))
    assert found.model == made.model.id
    assert found.with_model == (made.gpu_pool is not None)


def test_an_engine_nobody_can_stand_in_for_is_named() -> None:
    graph = plan().objects.graph
    worker = next(one for one in graph["spec"]["components"] if one["type"] == "prefill")
    worker["podTemplate"]["spec"]["containers"][0]["command"] = ["python3", "-m", "dynamo.sglang"]
    with pytest.raises(SetupError, match="sglang"):
        commands(graph, Facts("h100"))


# ── the environment ──────────────────────────────────────────────────────────────────────────────────────────────────


class Steps:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def update(self, what: str, done: int, total: int | None = None) -> None:
        self.seen.append(what)


Make = Callable[..., PythonEnvironment]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """An environment without packages, in a cache of its own: an index that does not exist would be noticed."""
    monkeypatch.setenv("DYNAMO_RECIPES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    lock = tmp_path / "requirements.lock"
    lock.write_text("# nothing\n")
    base = PythonEnvironment(
        title="Something", group="something", lock=lock, probe=("json",), next_step="do without", room_bytes=1024
    )
    return lambda **changes: replace(base, **changes)


def test_an_environment_is_made_once_and_found_again(make: Make) -> None:
    steps, again = Steps(), Steps()
    python = pyenv.ensure(make(), steps)
    assert steps.seen
    assert pyenv.ensure(make(), again) == python
    assert again.seen == [], "nothing is set up a second time"


def test_another_lock_is_another_environment(make: Make, tmp_path: Path) -> None:
    first = pyenv.ensure(make(), Steps())
    (tmp_path / "requirements.lock").write_text("# nothing, differently\n")
    assert pyenv.ensure(make(), Steps()) != first


def test_one_that_was_cut_short_is_made_anew(make: Make) -> None:
    python = pyenv.ensure(make(), Steps())
    (python.parents[1] / "made.json").unlink()
    steps = Steps()
    assert pyenv.ensure(make(), steps) == python
    assert steps.seen


def test_without_a_network_it_says_so_and_what_to_do_and_leaves_nothing(make: Make, tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text(f"six==1.17.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(SetupError) as refused:
        pyenv.ensure(make(), Steps())
    assert "a package registry cannot be reached" in refused.value.message
    assert refused.value.next_step == "do without"
    assert [one.name for one in (tmp_path / "cache" / "something").iterdir()] == ["build.lock"]


def test_without_room_it_says_how_much_it_takes(make: Make) -> None:
    with pytest.raises(SetupError, match="too little room"):
        pyenv.ensure(make(room_bytes=1024**5), Steps())


def test_another_python_is_looked_for_and_else_named(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"needs CPython 3\.9"):
        pyenv.ensure(make(pythons=((3, 9),)), Steps())
    shim = tmp_path / "python3.9"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    with pytest.raises(SetupError, match=r"needs CPython 3\.9"):
        pyenv.ensure(
            make(pythons=((3, 9),)), Steps()
        )  # what a version manager puts there for a version it does not have
    shim.unlink()
    shim.symlink_to(sys.executable)
    assert "cp39" in str(pyenv.ensure(make(pythons=((3, 9),)), Steps()))


def test_a_platform_without_wheels_is_named(make: Make) -> None:
    with pytest.raises(SetupError, match="has wheels for plan9-mips only"):
        pyenv.ensure(make(platforms=("plan9-mips",)), Steps())


def test_what_does_not_import_is_not_kept(make: Make) -> None:
    with pytest.raises(SetupError, match="no_such_module"):
        pyenv.ensure(make(probe=("no_such_module",)), Steps())


def test_the_rehearsal_serves_the_dynamo_that_is_deployed() -> None:
    assert f"ai-dynamo=={SERVED} " in ENVIRONMENT.lock.read_text()
    assert SERVED in DYNAMO, "the images' version, one that the catalogue knows"
    lines = [line for line in ENVIRONMENT.lock.read_text().splitlines() if not line.startswith("#")]
    assert all("--hash=sha256:" in line for line in lines)
