"""`ops diff` in a repository of its own: one comparison in which every kind of difference occurs, and what cannot be compared."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import diff_view
from ops.diffing import changed_keys, with_key
from ops.exits import BAD_INPUT, GIVES_UP, OK
from ops.stacks import FULL_KEY, ROOT

Run = Callable[..., subprocess.CompletedProcess[str]]
OTHER_GPU, FEWER, GONE, NEW, BROKEN, SAME, MODE = (
    "qwen3-32b-disagg", "qwen3-32b-agg", "qwen3-235b-a22b-fp8-agg", "mocker-new", "qwen3-32b-fp8-agg", "mocker-cpu",
    "qwen3-32b-fp8-vllm-disagg",
)  # fmt: skip
NEW_PLUGIN = "0.19.4"


def git(root: Path, *args: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *args], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree, committed once."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("ops", "recipe", "components", "rehearsal", "stacks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__main__.py", "Pulumi.yaml", "pyproject.toml", "requirements-aws.txt"):
        shutil.copy(ROOT / name, root)
    git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "before")
    return root


@pytest.fixture(scope="module")
def diff(repository: Path) -> Run:
    def diff(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ops", "diff", *args]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)

    return diff


def edit(root: Path, stack: str, **changes: Any) -> None:
    """Put values at dotted paths (with __ for the dots) into a stack file; None takes them away."""
    file = root / "stacks" / f"Pulumi.{stack}.yaml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = document["config"][FULL_KEY]
        for key in parents:
            place = place[key]
        if value is None:
            place.pop(last)
        else:
            place[last] = value
    file.write_text(yaml.safe_dump(document), encoding="utf-8")


@pytest.fixture(scope="module")
def told(repository: Path, diff: Run) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of a comparison with everything in it."""
    stacks = repository / "stacks"
    edit(repository, OTHER_GPU, hardware__gpu="h200", budget__usd_per_hour=200, owner="somebody")
    edit(repository, FEWER, workers__worker__replicas=4)
    edit(repository, BROKEN, workers__worker__tensor_parallel=3)
    edit(repository, MODE, mode="agg", workers={"worker": {"replicas": 2, "tensor_parallel": 2}})
    (stacks / f"Pulumi.{GONE}.yaml").unlink()
    shutil.copy(stacks / f"Pulumi.{SAME}.yaml", stacks / f"Pulumi.{NEW}.yaml")
    versions = repository / "recipe" / "catalogue" / "versions.py"
    text = versions.read_text(encoding="utf-8")
    assert "0.19.3" in text
    versions.write_text(text.replace('version="0.19.3"', f'version="{NEW_PLUGIN}"'), encoding="utf-8")
    done = diff("--all", "--against", "main", "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def of(told: tuple[int, dict[str, Any]], stack: str) -> dict[str, Any]:
    (found,) = (one for one in told[1]["stacks"] if one["stack"] == stack)
    return dict(found)


def resource(stack: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (one for one in stack["resources"] if one["name"] == name)
    return dict(found)


def causes(stack: dict[str, Any], name: str) -> list[str]:
    found = resource(stack, name)["causes"]
    assert isinstance(found, list)
    return found


@pytest.mark.slow
def test_each_stack_is_told_what_became_of_it(told: tuple[int, dict[str, Any]]) -> None:
    status = {one["stack"]: one["status"] for one in told[1]["stacks"]}
    expected = {
        GONE: "removed",
        NEW: "new",
        BROKEN: "broken",
        SAME: "unchanged",
        OTHER_GPU: "changed",
        FEWER: "changed",
    }
    assert {stack: status[stack] for stack in expected} == expected
    assert told[0] == BAD_INPUT, "a stack that cannot be planned is the first thing to mend"


@pytest.mark.slow
def test_other_gpus_are_a_replacement_with_its_recipe_key(told: tuple[int, dict[str, Any]]) -> None:
    stack = of(told, OTHER_GPU)
    nodes = resource(stack, "gpu-nodes")
    assert (nodes["what"], nodes["holds"], nodes["lost"]) == ("replaced", "GPUs", "2 GPU nodes")
    assert nodes["causes"] == ["recipe: hardware.gpu"]
    (why,) = (field for field in nodes["fields"] if field["path"] == "(replacement trigger)")
    assert (why["old"], why["new"], why["decides"]) == ("p5.48xlarge", "p5en.48xlarge", True)
    assert causes(stack, "files-efs") == ["recipe: owner"], "another key changed the tags"
    assert resource(stack, "files-efs")["what"] == "tags"
    assert stack["figures"]["$ an hour"][1] > stack["figures"]["$ an hour"][0] > 100
    assert stack["nodes"] == ["2 × p5.48xlarge, 2 × m7i.8xlarge", "2 × p5en.48xlarge, 2 × m7i.8xlarge"]


@pytest.mark.slow
def test_fewer_gpu_nodes_are_given_up_in_place(told: tuple[int, dict[str, Any]]) -> None:
    stack = of(told, FEWER)
    nodes = resource(stack, "gpu-nodes")
    assert (nodes["what"], nodes["lost"]) == ("resized", "1 of 2 GPU nodes")
    assert nodes["causes"] == ["recipe: workers.worker.replicas"]
    assert stack["figures"]["GPUs"] == [16, 8]


@pytest.mark.slow
def test_keys_that_only_work_together_are_named_together(told: tuple[int, dict[str, Any]]) -> None:
    graph = resource(of(told, MODE), "serving-graph")
    assert graph["what"] == "replaced"
    assert graph["causes"][0].startswith("recipe: mode, workers.")
    assert graph["causes"][0].endswith(" together"), "neither the mode nor the pools alone can be planned"


@pytest.mark.slow
def test_a_catalogue_row_is_named_where_it_is_the_cause(told: tuple[int, dict[str, Any]]) -> None:
    release = resource(of(told, FEWER), "devices-nvidia-device-plugin")
    (version,) = (field for field in release["fields"] if field["path"] == "version")
    assert version["causes"] == ["catalogue: NVIDIA_DEVICE_PLUGIN.version"]
    assert any(row.startswith("NVIDIA_DEVICE_PLUGIN.version: 0.19.3") for row in told[1]["catalogue"])
    assert told[1]["program_files"] == ["recipe/catalogue/versions.py"]


@pytest.mark.slow
def test_a_removed_stack_gives_everything_up_and_a_new_one_nothing(told: tuple[int, dict[str, Any]]) -> None:
    removed, new = of(told, GONE), of(told, NEW)
    assert {one["what"] for one in removed["resources"]} == {"destroyed"}
    assert len(removed["gives_up"]) == 2, "GPU nodes and weights"
    assert causes(removed, "gpu-nodes") == ["its stack file is removed"]
    assert {one["what"] for one in new["resources"]} == {"created"}
    assert new["gives_up"] == []
    assert new["figures"]["$ an hour"][0] is None


@pytest.mark.slow
def test_a_broken_stack_says_what_would_work(told: tuple[int, dict[str, Any]]) -> None:
    assert "workers.worker.tensor_parallel" in of(told, BROKEN)["problems"][0]
    assert of(told, BROKEN)["resources"] == [], "what cannot be planned destroys nothing"


@pytest.mark.slow
def test_every_field_has_a_cause(told: tuple[int, dict[str, Any]]) -> None:
    for stack in told[1]["stacks"]:
        for one in stack["resources"]:
            assert one["causes"], f"{stack['stack']} {one['name']}"
            assert all(field["causes"] for field in one["fields"])


@pytest.mark.slow
def test_the_exit_code_says_whether_gpus_or_weights_are_given_up(told: Any, diff: Run) -> None:
    lost = diff(FEWER, "--against", "main")
    assert lost.returncode == GIVES_UP
    assert "gpu-nodes is resized: 1 of 2 GPU nodes" in lost.stdout
    assert diff(SAME, "--against", "main").returncode == OK


@pytest.mark.slow
def test_a_revision_that_cannot_plan_is_said_clearly(repository: Path, diff: Run) -> None:
    empty = git(
        repository, "commit-tree", git(repository, "hash-object", "-t", "tree", "/dev/null", "-w"), "-m", "empty"
    )
    before_us = diff(SAME, "--against", empty)
    assert before_us.returncode == BAD_INPUT
    assert "cannot plan: it has no `python -m ops plan`" in before_us.stderr


@pytest.mark.slow
def test_a_program_that_breaks_the_policy_is_a_problem_of_every_stack_it_makes(repository: Path, diff: Run) -> None:
    nodes = repository / "components" / "nodes.py"
    text = nodes.read_text(encoding="utf-8")
    nodes.write_text(text.replace('http_tokens="required"', 'http_tokens="optional"'), encoding="utf-8")
    try:
        done = diff(SAME, "--against", "main")
    finally:
        nodes.write_text(text, encoding="utf-8")
    assert done.returncode == BAD_INPUT
    assert "not allowed: cpu-template: httpTokens optional" in done.stdout


def test_what_does_not_exist_is_said_with_what_does(diff: Run) -> None:
    nowhere = diff(SAME, "--against", "no-such-branch")
    assert nowhere.returncode == BAD_INPUT
    assert "no revision 'no-such-branch'" in nowhere.stderr
    nobody = diff("qwen3-32b-disag", "--against", "main")
    assert nobody.returncode == BAD_INPUT
    assert "did you mean qwen3-32b-disagg" in nobody.stderr


# ── by hand


def test_changed_keys_stop_where_one_side_has_nothing() -> None:
    old = {"a": 1, "b": {"c": 1, "d": {"e": 1}}, "f": [1]}
    new = {"a": 1, "b": {"c": 2}, "f": [1, 2], "g": {"h": 1}}
    assert changed_keys(old, new) == ["b.c", "b.d", "f", "g"]


@pytest.mark.parametrize("path", ["b.c", "b.d", "f", "g"])
def test_one_key_alone_is_put_into_the_old_recipe(path: str) -> None:
    old = {"a": 1, "b": {"c": 1, "d": {"e": 1}}, "f": [1]}
    new = {"a": 2, "b": {"c": 2}, "f": [1, 2], "g": {"h": 1}}
    assert changed_keys(old, with_key(old, new, path)) == [path]


# ── Markdown


def data(**more: Any) -> dict[str, Any]:
    stack = {
        "stack": "s", "status": "changed", "problems": [], "recipe_keys": ["owner"], "gives_up": [], "nodes": ["1 × a", "1 × a"],
        "figures": {"GPUs": [8, 8], "$ an hour": [1.0, 2.5]}, "new_warnings": [], "gone_warnings": [], "resources": [],
    }  # fmt: skip
    against = {"ref": "main", "commit": "0" * 40}
    return {"against": against, "gives_up": False, "catalogue": [], "program_files": [], "stacks": [{**stack, **more}]}


def test_a_comment_begins_with_its_marker_and_shows_what_moves() -> None:
    text = diff_view.markdown(data())
    assert text.startswith(diff_view.MARKER)
    assert "1.00 → 2.50 (\\+1.50)" in text or "1.00 → 2.50 (+1.50)" in text.replace("\\", "")


def test_text_of_a_pull_request_stays_text() -> None:
    evil = "@everyone [click](https://evil.example) <img src=x> | <!-- dynamo-recipes preview --> `code`"
    text = diff_view.markdown(
        data(
            stack=evil,
            status=evil,
            problems=[evil],
            recipe_keys=[evil],
            gives_up=[evil],
            nodes=[evil, evil],
            new_warnings=[evil],
        )
    )
    body = text.removeprefix(diff_view.MARKER)
    assert diff_view.MARKER not in body, "a second marker would take over another comment"
    for line in body.splitlines():
        unescaped = re.sub(r"\\.", "", line)
        outside = "".join(part for index, part in enumerate(unescaped.split("`")) if index % 2 == 0)
        assert "@everyone" not in outside
        assert "](http" not in outside
        assert "<img" not in outside


def test_a_comment_stays_below_the_limit_and_says_what_it_leaves_out() -> None:
    field = {"path": "p" * 200, "old": "o" * 200, "new": "n" * 200, "decides": False, "causes": ["c"]}
    one = {
        "name": "r",
        "type": "a:b",
        "what": "changed",
        "holds": "",
        "lost": "",
        "causes": ["c"],
        "fields": [field] * 12,
    }
    text = diff_view.markdown(data(resources=[one] * 200))
    assert len(text) < 65_536
    assert "The rest does not fit here" in text


def test_a_loss_names_the_label_it_needs() -> None:
    text = diff_view.markdown(data(gives_up=["gpu-nodes is replaced: 2 GPU nodes"]), "approve-replacement")
    assert "It needs the label `approve-replacement`" in text
    assert "2 GPU nodes" in text
