"""docs/edits.md: what an edit of the recipe does to a stack that runs, one row per edit, in the words of `ops.effects`.

`python -m ops.edits` prints the table. A test holds the document against it, and tests/engine/test_replacement.py the real engine's
preview of every row.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ops import stacks
from ops.effects import Effect, effects

STACK: Final = "qwen3-32b-disagg"
BEFORE: Final[Mapping[str, Any]] = {"versions": {"kubernetes": "1.34"}}
"""The stack that is edited, beside the shipped recipe: one version behind, so that an upgrade can be shown."""
REMOVED: Final = object()
"""As the value of an edit: take the key away."""
Edit = Mapping[str, Any]
"""Dotted path below the recipe to its new value."""

EDITS: Final[dict[str, Edit]] = {
    "`workers.prefill.replicas`, same number of GPU nodes": {"workers.prefill.replicas": 5},
    "`workers.*.replicas` or `tensor_parallel`, more GPU nodes": {
        "workers.prefill.replicas": 8,
        "budget.usd_per_hour": 200,
    },
    "engine flags: `engine_tuning`, `workers.*.tuning`": {"engine_tuning.max_batch_size": 128},
    "`engine_tuning.context_length`": {"engine_tuning.context_length": 65536},
    "`router.mode`": {"router.mode": "round-robin"},
    "`mode`: disagg to agg": {"mode": "agg", "workers": {"worker": {"replicas": 8, "tensor_parallel": 2}}},
    "`weights.revision`": {"weights.revision": "0" * 40},
    "`weights.loader`": {"weights.loader": "default"},
    "`weights.wait`": {"weights.wait": "overlap"},
    "`serving.ready_timeout_minutes`": {"serving": {"ready_timeout_minutes": 50}},
    "`storage.*_gib`": {"storage": {"model_gib": 200, "perf_gib": 60}},
    "`storage.model`: efs to fsx-lustre": {
        "storage": {"model": {"kind": "fsx-lustre", "size_gib": 2400, "throughput_mb_per_tib": 500}}
    },
    "`budget.ttl_hours`": {"budget.ttl_hours": 12},
    "`owner`": {"owner": "me@example.com"},
    "`access.endpoint_cidrs`": {"access.endpoint_cidrs": ["198.51.100.0/24"]},
    "`access.admin_principals`": {"access.admin_principals": ["arn:aws:iam::123456789012:role/ops"]},
    "`hardware.cpu.nodes`": {"hardware.cpu": {"nodes": 3}},
    "`hardware.cpu.instance_type`": {"hardware.cpu": {"instance_type": "m7i.12xlarge"}},
    "`hardware.ami_release`": {"hardware.ami_release": "1.34.9-20261001"},
    "`hardware.nic_layout`": {"hardware.nic_layout": "device1"},
    "`hardware.parallel_pull`": {"hardware.parallel_pull": True},
    "`hardware.root_disk_gib`": {"hardware.root_disk_gib": 300},
    "`hardware.create_timeout_minutes`": {"hardware.create_timeout_minutes": 90},
    "`hardware.capacity`: on-demand to odcr": {
        "hardware.capacity": {"kind": "odcr", "reservation_id": "cr-0123456789abcdef1"}
    },
    "`hardware.capacity`: to or from spot or capacity-block": {
        "hardware.capacity": {"kind": "capacity-block", "reservation_id": "cr-0123456789abcdef1"}
    },
    "`hardware.gpu`, `hardware.instance_type`": {"hardware.gpu": "h200", "budget.usd_per_hour": 200},
    "`hardware.paused`: true": {"hardware.paused": True},
    "`versions.kubernetes`: 1.34 to 1.35": {"versions": REMOVED},
    "`access.zone_id`": {"access.zone_id": "use2-az2"},
    "`access.vpc_cidr`": {"access.vpc_cidr": "10.50.0.0/16"},
    "`deployment_id`": {"deployment_id": "two"},
}
HEADER: Final = ("edit", "cluster", "CPU nodes", "GPU nodes", "graph", "downtime")
_WORDS: Final = {
    "changed": "in place",
    "tags": "tags only",
    "resized": "more or fewer",
    "rolled": "rolled",
    "replaced": "replaced",
    "destroyed": "taken away",
}


def edited(recipe: Any, edit: Edit) -> Any:
    """A copy of the plain `recipe` with `edit`."""
    changed = copy.deepcopy(recipe)
    for path, value in edit.items():
        *parents, last = path.split(".")
        place = changed
        for key in parents:
            place = place.setdefault(key, {})
        if value is REMOVED:
            place.pop(last, None)
        else:
            place[last] = copy.deepcopy(value)
    return changed


def record(
    jobs: Iterable[Mapping[str, Any]], root: Path = stacks.ROOT, recipes: Mapping[str, Any] | None = None
) -> Any:
    """What ops/recording.py answers for `jobs`."""
    asked = json.dumps({"jobs": list(jobs), "recipes": dict(recipes or {})})
    script = Path(__file__).with_name("recording.py")
    done = subprocess.run(
        [sys.executable, str(script), str(root)], input=asked, capture_output=True, text=True, check=True, cwd=root
    )
    return json.loads(done.stdout)


def all_effects() -> dict[str, dict[str, Effect]]:
    """What each of EDITS does, by its label and then by logical name."""
    recipe = edited(stacks.load(STACK).raw, BEFORE)
    jobs = [{"key": "", "stack": STACK, "recipe": recipe}]
    jobs += [{"key": label, "stack": STACK, "recipe": edited(recipe, edit)} for label, edit in EDITS.items()]
    found = record(jobs)["recordings"]
    old = found.pop("")["resources"]
    return {label: {one.name: one for one in effects(old, new["resources"]).values()} for label, new in found.items()}


def cells(found: Mapping[str, Effect]) -> tuple[str, ...]:
    """Cluster, CPU nodes, GPU nodes, graph and downtime, in the words of the table."""
    names = ("cluster-eks", "cpu-nodes", "gpu-nodes", "serving-graph")
    cluster, cpu, gpu, graph = (_WORDS[found[name].what] if name in found else "-" for name in names)
    if graph == "in place" and all(one.path.endswith(".replicas") for one in found["serving-graph"].fields):
        graph = "more or fewer pods"
    return cluster, cpu, gpu, graph, downtime(cluster, cpu, gpu, graph)


def downtime(cluster: str, cpu: str, gpu: str, graph: str) -> str:
    """What a user of the endpoint notices."""
    if cluster == "replaced":
        return "everything is made again, weights included"
    if gpu == "taken away":
        return "until it is resumed"
    if gpu == "replaced":
        return "until other GPU nodes serve"
    if gpu == "rolled":
        return "GPU nodes go and come one by one"
    if graph == "replaced":
        return "until the new graph serves"
    if graph == "in place":
        return "while the workers that change restart"
    if cpu == "rolled":
        return "while the frontend moves"
    return "none"


def line(values: Iterable[str]) -> str:
    """A row of the table."""
    return f"| {' | '.join(values)} |"


def table() -> list[str]:
    """Every line of it."""
    rows = [line((label, *cells(found))) for label, found in all_effects().items()]
    return [line(HEADER), f"|{'---|' * len(HEADER)}", *rows]


if __name__ == "__main__":
    print("\n".join(table()))  # noqa: T201 - a script
