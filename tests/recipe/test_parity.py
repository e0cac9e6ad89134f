"""Each stack against upstream's manifest for the same system, field by field: every difference stands in docs/deviations.md, with its reason."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from ops import stacks
from recipe.config import parse
from recipe.planner import make_plan
from tests.recipe.parity import Flat, ours, upstream

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "deviations.md"
REFERENCE = ROOT.parent / "shared/reference/upstream-recipes"
COLUMNS = ("stack", "path", "upstream", "ours", "reason")
ABSENT = "–"

ORIGINALS = {
    "qwen3-32b-agg": "qwen3-32b/vllm/agg-round-robin/deploy.yaml",
    "qwen3-32b-disagg": "qwen3-32b/vllm/disagg-kv-router/deploy.yaml",
    "qwen3-32b-fp8-agg": "qwen3-32b-fp8/trtllm/agg/deploy.yaml",
    "qwen3-32b-fp8-disagg": "qwen3-32b-fp8/trtllm/disagg/deploy.yaml",
    "qwen3-32b-fp8-vllm-disagg": "qwen3-32b-fp8/vllm/disagg/deploy.yaml",
    "qwen3-235b-a22b-fp8-agg": "qwen3-235b-a22b-fp8/trtllm/agg/hopper/deploy.yaml",
    "qwen3-235b-a22b-fp8-agg@b200": "qwen3-235b-a22b-fp8/trtllm/agg/blackwell/deploy.yaml",
    "qwen3-235b-a22b-fp8-disagg": "qwen3-235b-a22b-fp8/trtllm/disagg/hopper/deploy.yaml",
    "qwen3-235b-a22b-fp8-disagg@b200": "qwen3-235b-a22b-fp8/trtllm/disagg/blackwell/deploy-aws-p6-b200.48xlarge.yaml",
}
"""Stack, or stack@GPU, to upstream's manifest."""


@dataclass(frozen=True)
class Row:
    """A line of the document. `stack` is a list of patterns; a path that begins with `workers.` or `*.` stands for each component of
    that kind; the rest of the path and the values are patterns. It must hold for every stack and every component it stands for."""

    stack: str
    path: str
    upstream: str
    ours: str
    reason: str

    def stacks(self) -> list[str]:
        patterns = [one.strip() for one in self.stack.split(",")]
        return [stack for stack in ORIGINALS if any(fnmatchcase(stack, pattern) for pattern in patterns)]

    def paths(self, stack: str) -> list[str]:
        """Patterns of full paths, one for each component it stands for."""
        kind, _, rest = self.path.partition(".")
        there = components(stack)
        several = {"*": there, "workers": there - {"frontend"}}.get(kind)
        return [self.path] if several is None else [f"{component}.{rest}" for component in sorted(several)]

    def says(self, values: tuple[str, str]) -> bool:
        return all(_matches(value, said) for value, said in zip(values, (self.upstream, self.ours), strict=True))


def _matches(value: str, pattern: str) -> bool:
    return fnmatchcase(value.translate(_NO_CLASSES), pattern.translate(_NO_CLASSES))


_NO_CLASSES = str.maketrans("[]", "()")
"""Lists stand in brackets; in patterns those would be character classes."""


def rows() -> list[Row]:
    found = []
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if not line.startswith("| ") or line.startswith(("| stack", "|--")):
            continue
        cells = [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]
        assert len(cells) == len(COLUMNS), f"docs/deviations.md: not {len(COLUMNS)} cells: {line}"
        found.append(Row(*cells))
    return found


@functools.cache
def pair(stack: str) -> tuple[Flat, Flat]:
    """Upstream's fields and ours."""
    if not REFERENCE.exists():
        pytest.skip(
            f"no upstream manifests: put the folder recipes/ of ai-dynamo/dynamo at commit 2a6da14c83 (2026-08-21) at {REFERENCE}"
        )
    name, _, gpu = stack.partition("@")
    raw = stacks.with_settings(
        stacks.load(name).raw, ["budget.usd_per_hour=100000", *([f"hardware.gpu={gpu}"] if gpu else [])]
    )
    objects = make_plan(name, parse(raw), placeholders=True).objects
    return upstream(REFERENCE / ORIGINALS[stack]), ours(objects.graph, objects.graph_config)


def deviations(stack: str) -> dict[str, tuple[str, str]]:
    """Path to (upstream, ours) wherever they differ."""
    theirs, mine = pair(stack)
    return {
        path: (theirs.get(path, ABSENT), mine.get(path, ABSENT))
        for path in sorted(theirs | mine)
        if theirs.get(path) != mine.get(path)
    }


def components(stack: str) -> frozenset[str]:
    return frozenset(path.partition(".")[0] for path in pair(stack)[1] if "." in path)


@pytest.mark.parametrize("stack", ORIGINALS)
def test_every_deviation_is_listed_once_with_its_reason(stack: str) -> None:
    known = [(path, row) for row in rows() if stack in row.stacks() for path in row.paths(stack)]
    wrong = []
    for path, values in deviations(stack).items():
        said = sum(_matches(path, where) and row.says(values) for where, row in known)
        if said != 1:
            wrong.append(f"| {stack} | `{path}` | `{values[0]}` | `{values[1]}` | {said} rows say this |")
    assert not wrong, "docs/deviations.md needs exactly one row for each of:\n" + "\n".join(wrong)


@pytest.mark.parametrize("stack", ORIGINALS)
def test_every_listed_deviation_still_exists(stack: str) -> None:
    found = deviations(stack)
    stale = [
        f"| {row.stack} | {where} | {row.upstream} | {row.ours} |"
        for row in rows()
        if stack in row.stacks()
        for where in row.paths(stack)
        if not any(_matches(path, where) and row.says(values) for path, values in found.items())
    ]
    assert not stale, f"docs/deviations.md says of {stack} what is not so:\n" + "\n".join(stale)


def test_every_row_is_about_a_stack_and_says_why() -> None:
    assert rows(), "an empty document would let everything through"
    for row in rows():
        assert row.stacks(), f"no stack is called {row.stack}"
        assert len(row.reason) > 20, f"{row.stack} {row.path}: why?"


def test_the_comparison_sees_a_changed_flag_a_changed_key_and_a_changed_amount() -> None:
    theirs, mine = pair("qwen3-235b-a22b-fp8-disagg")
    for path, value in (
        ("decode.engine.max_batch_size", "512"),  # a flag upstream, a key of the YAML here
        ("prefill.engine.moe_tensor_parallel_size", "2"),
        ("prefill.sharedMemorySize", "256Gi"),
        ("decode.resources.limits.nvidia.com/gpu", "4"),
        ("frontend.args.--router-mode", "kv"),
    ):
        assert theirs[path] == mine[path] == value
