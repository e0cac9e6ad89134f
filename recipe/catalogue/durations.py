"""How long things take on AWS, in seconds: one dated table with a source per row.

The plan's expected minutes and the rehearsal's clock read the same rows. Rows marked `assumption` have no measurement behind
them; docs/unverified.md says what would settle them.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipe.catalogue.base import look_up

DURATIONS_DATE = "2026-11-23"
_FACTS = "facts/durations.md"


@dataclass(frozen=True, slots=True)
class Duration:
    """`seconds` is what is counted with; `low`..`high` is the range seen, where one was."""

    key: str
    seconds: float
    source: str
    assumption: bool = False
    low: float | None = None
    high: float | None = None
    gb: float | None = None
    """`seconds` are for that many GB (10^9 bytes); another amount takes in proportion."""
    date: str = DURATIONS_DATE

    def factor(self, size_bytes: float | None) -> float:
        """How many times `seconds` it takes for `size_bytes`; 1 where the size does not matter or is not known."""
        return size_bytes / 1e9 / self.gb if self.gb and size_bytes is not None else 1.0


_GUESS = "no measurement found"

DURATIONS: dict[str, Duration] = {
    row.key: row
    for row in (
        # Creating, by service and kind; what is not named here takes `default.create`.
        Duration("default.create", 2, _GUESS, assumption=True),
        Duration("default.update", 5, _GUESS, assumption=True),
        Duration("default.delete", 2, "agones-dev/agones PR #1790 (security groups and subnets 2 s)", low=0, high=4),
        Duration("Role.create", 3, f"{_FACTS}: steampipe-plugin-aws #131 (2021), pulumi-eks #1819", low=1, high=7),
        Duration("RolePolicyAttachment.create", 2, f"{_FACTS}: steampipe-plugin-aws #131 (2021)", low=1, high=7),
        Duration("Vpc.create", 20, f"{_FACTS}: steampipe-plugin-aws #131, #426", low=18, high=24),
        Duration("Subnet.create", 10, f"{_FACTS}: terraform-aws-eks #2203; mapt #766", low=6, high=15),
        Duration("RouteTable.create", 6, f"{_FACTS}: mapt #766", low=5, high=7),
        Duration("RouteTableAssociation.create", 1.5, f"{_FACTS}: mapt #766", low=1, high=2),
        Duration("NatGateway.create", 112, f"{_FACTS}: commonly seen, no log", assumption=True, low=105, high=120),
        Duration("NatGateway.delete", 61, "hashicorp/terraform-provider-aws issue #49299 (2026-08)"),
        Duration("Cluster.create", 606, f"{_FACTS}: terraform-aws-eks PR #3218 (2025)", low=513, high=970),
        Duration("Cluster.delete", 240, f"{_FACTS}: 'several minutes'", assumption=True),
        Duration("Cluster.update", 120, _GUESS, assumption=True),
        Duration("Addon.create", 30, f"{_FACTS}: not verified", assumption=True, low=10, high=60),
        Duration("Addon.delete", 10, _GUESS, assumption=True),
        Duration("FileSystem.create", 9, f"{_FACTS}: steampipe-plugin-aws #426", low=6, high=12),
        Duration(
            "MountTarget.create",
            88,
            f"{_FACTS}: steampipe-plugin-aws #426; terraform-provider-aws #15278",
            low=80,
            high=95,
        ),
        Duration("MountTarget.delete", 20, _GUESS, assumption=True),
        Duration("LustreFileSystem.create", 600, f"{_FACTS}: about 10 minutes (AWS FSx guide)", assumption=True),
        Duration("LustreFileSystem.update", 600, _GUESS, assumption=True),
        Duration("LustreFileSystem.delete", 300, _GUESS, assumption=True),
        Duration("mount-target.dns", 90, f"{_FACTS}: AWS EFS guide"),
        # Nodes: from the request to a running (billed) instance, and from there to Ready.
        Duration("node.launch", 10, _GUESS, assumption=True),
        Duration(
            "node.cpu.ready",
            100,
            f"{_FACTS}: with CNI 100-145; whole CPU group 108-119 (terraform-provisioning PR #46)",
            low=100,
            high=145,
        ),
        Duration(
            "node.gpu.ready", 390, f"{_FACTS}: not found in a log, 300-480 assumed", assumption=True, low=300, high=480
        ),
        Duration("node-group.activate", 5, _GUESS, assumption=True),
        Duration("node-group.gives-up", 21 * 60, "terraform-aws-modules/terraform-aws-eks issue #1910"),
        Duration("node.terminate", 90, _GUESS, assumption=True),
        Duration("NodeGroup.delete", 180, _GUESS, assumption=True),
        Duration("NodeGroup.update", 60, _GUESS, assumption=True),
        Duration("NodeGroup.degraded", 900, _GUESS, assumption=True),
        # Inside the cluster.
        Duration("kubernetes.create", 1, _GUESS, assumption=True),
        Duration("kubernetes.delete", 1, "facts/dynamo.md Observed: graph gone in 0.3 s, pods in 1.0 s"),
        Duration("kubernetes.update", 1, _GUESS, assumption=True),
        Duration("Release.platform", 90, f"{_FACTS}: assumption", assumption=True, low=60, high=120),
        Duration("Release.plugin", 20, _GUESS, assumption=True),
        Duration("image.engine", 120, f"{_FACTS}: 10-20 GB at 100-200 MB/s", assumption=True, low=60, high=180),
        Duration(
            "image.engine.parallel",
            48,
            "pytorch/ci-infra #1033: AWS measured 60 % less for a 10 GB image with SOCI's parallel pull; of image.engine",
            assumption=True,
            low=24,
            high=72,
        ),
        Duration("image.small", 10, _GUESS, assumption=True),
        Duration("weights.download", 200, f"{_FACTS}: 65.5 GB at 0.2-1 GB/s", low=65, high=330, gb=65.5),
        Duration("weights.configuration", 20, _GUESS, assumption=True),  # 17 MB; most of it is installing the packages
        Duration(
            "weights.verify", 15, "recipe/scripts/download.py: sizes against a manifest, after pip", assumption=True
        ),
        Duration("weights.backoff", 120, _GUESS, assumption=True),
        Duration("weights.load.default", 528, f"{_FACTS}: 65.5 GB by the default loader at 124 MB/s", gb=65.5),
        Duration("weights.load.streamed", 42, f"{_FACTS}: 65.5 GB streamed at 1.5 GB/s per EFS client", gb=65.5),
        Duration(
            "weights.load.parallel",
            176,
            "modelplaneai/modelplane #204: 894 GiB from EFS in 43 minutes; that TensorRT-LLM, which reads 16 files at once "
            "(hf/weight_loader.py, prefetch_files), does as well is assumed",
            assumption=True,
            low=42,
            high=528,
            gb=65.5,
        ),
        Duration("weights.head.job", 3, _GUESS, assumption=True),  # a script that reads one small file
        Duration("engine.init", 48, f"{_FACTS}: peers.md (dirien)"),
        Duration("engine.compile.cold", 65, f"{_FACTS}: torch.compile", low=50, high=80),
        Duration("engine.compile.cached", 5, f"{_FACTS}: torch.compile from cache", low=4, high=6),
        Duration("engine.graphs", 35, f"{_FACTS}: CUDA graphs", low=20, high=50),
        Duration("admission.job", 5, _GUESS, assumption=True),
        Duration("readiness.job", 5, _GUESS, assumption=True),
        Duration("readiness.grace", 30, _GUESS, assumption=True),
        Duration("other.job", 30, _GUESS, assumption=True),
        Duration("benchmark.job", 600, _GUESS, assumption=True),  # one to hours, by the profile
        Duration("graph.shutdown", 60, "facts/dynamo.md Observed: 60 s grace"),
    )
}


def duration(key: str) -> Duration:
    """The row called `key`. Raises `UnknownName`."""
    return look_up("duration", DURATIONS, key)
