"""Which versions belong together. A recipe that breaks the table is refused with both sides named."""

from datetime import date
from typing import Literal

from pydantic import PositiveInt

from recipe.catalogue.base import Entry, Sources, look_up

Engine = Literal["vllm", "trtllm", "mocker"]

REGISTRY = "nvcr.io/nvidia/ai-dynamo"
_RUNTIMES: dict[Engine, str] = {
    "vllm": "vllm-runtime",
    "trtllm": "tensorrtllm-runtime",
    "mocker": "dynamo-planner",  # no image of its own; this one carries the wheel (facts/dynamo.md §3)
}


class Chart(Entry):
    """A third-party Helm chart, installed unmodified."""

    name: str
    version: str
    repository: str
    as_of: date
    sources: Sources


class EngineVersion(Entry):
    """The inference engine inside a runtime image."""

    name: Engine
    version: str
    nixl: str | None = None
    cuda: str | None = None
    """Both None for the mocker, which has neither."""


class DynamoVersions(Entry):
    """One release of Dynamo: images, chart and wheels carry the same version."""

    dynamo: str
    engines: dict[Engine, EngineVersion]
    platform_chart: Chart
    min_driver: PositiveInt
    """Branch of the NVIDIA driver."""
    min_kubernetes: str
    """The chart's kubeVersion."""
    as_of: date
    sources: Sources

    def runtime_image(self, engine: str, *, efa: bool = False) -> str:
        """Image of the workers; `efa` picks the variant with libfabric for EFA. Raises `UnknownName`."""
        name = look_up("engine", {str(known): _RUNTIMES[known] for known in self.engines}, engine)
        return f"{REGISTRY}/{name}:{self.dynamo}{'-efa' if efa else ''}"

    @property
    def frontend_image(self) -> str:
        return f"{REGISTRY}/dynamo-frontend:{self.dynamo}"


class Ami(Entry):
    """An EKS-optimised image for one Kubernetes version."""

    type: Literal["AL2023_x86_64_NVIDIA", "AL2023_x86_64_STANDARD"]
    release: str
    """Release version of the node group: the newest one found, so that nodes do not change by themselves."""
    driver: PositiveInt | None
    """Branch of the NVIDIA driver it ships; None on images without one."""
    as_of: date
    sources: Sources


class KubernetesVersion(Entry):
    version: str
    standard_support_until: date
    """From this day (UTC) on, the control plane costs the extended rate."""
    extended_support_until: date
    gpu_ami: Ami
    cpu_ami: Ami
    as_of: date
    sources: Sources


_DRIVER = (
    "NVIDIA/aicr #2743 (quotes the EKS user guide: the accelerated AMIs ship driver 580)",
    "awslabs/amazon-eks-ami #2470, #2484 (580 is the default)",
)


def _kubernetes(
    version: str, standard_until: date, extended_until: date, *sources: str, release: str, seen: str, seen_on: date
) -> KubernetesVersion:
    """`release`: the newest AMI release found for that version, `seen` in a public repository that pins it on `seen_on`."""
    return KubernetesVersion(
        version=version,
        standard_support_until=standard_until,
        extended_support_until=extended_until,
        gpu_ami=Ami(type="AL2023_x86_64_NVIDIA", release=release, driver=580, as_of=seen_on, sources=(seen, *_DRIVER)),
        cpu_ami=Ami(type="AL2023_x86_64_STANDARD", release=release, driver=None, as_of=seen_on, sources=(seen,)),
        as_of=date(2026, 4, 24),
        sources=(_CALENDAR, *sources),
    )


_CALENDAR = "https://aws-samples.github.io/sample-apex-skills/docs/skills/eks-operation-review/references/cluster-lifecycle (2026-04-24)"
_USER_GUIDE = "awsdocs/amazon-eks-user-guide latest/ug/versioning/kubernetes-versions.adoc@0138560"

KUBERNETES_DEFAULT = "1.35"
KUBERNETES: dict[str, KubernetesVersion] = {
    row.version: row
    for row in (
        _kubernetes(
            "1.33",
            date(2026, 7, 29),
            date(2027, 7, 29),
            _USER_GUIDE,
            release="1.33.8-20260304",
            seen="zama-ai/terraform-mpc-modules #98",
            seen_on=date(2026, 3, 4),
        ),
        _kubernetes(
            "1.34",
            date(2026, 12, 2),
            date(2027, 12, 2),
            _USER_GUIDE,
            release="1.34.7-20260512",
            seen="entigolabs/entigo-infralib #1469 (AL2023_*)",
            seen_on=date(2026, 5, 14),
        ),
        _kubernetes(
            "1.35",
            date(2027, 3, 27),
            date(2028, 3, 27),
            "https://endoflife.date/amazon-eks (2026-02)",
            release="1.35.7-20260903",
            seen="entigolabs/entigo-infralib #1488 (AL2023_*)",
            seen_on=date(2026, 9, 3),
        ),
    )
}

DYNAMO_DEFAULT = "1.6.1"
DYNAMO: dict[str, DynamoVersions] = {
    row.dynamo: row
    for row in (
        DynamoVersions(
            dynamo="1.6.1",
            engines={
                "vllm": EngineVersion(name="vllm", version="0.31.0", nixl="1.4.1", cuda="13.0"),
                "trtllm": EngineVersion(name="trtllm", version="1.3.0rc29", nixl="1.3.1", cuda="13.1"),
                "mocker": EngineVersion(name="mocker", version="1.6.1"),
            },
            platform_chart=Chart(
                name="dynamo-platform",
                version="1.6.1",
                repository="https://helm.ngc.nvidia.com/nvidia/ai-dynamo",
                as_of=date(2026, 11, 22),
                sources=("facts/dynamo.md §2",),
            ),
            min_driver=580,
            min_kubernetes="1.30",
            as_of=date(2026, 11, 22),
            sources=(
                "facts/dynamo.md §3 (metadata of wheel ai-dynamo 1.6.1; support matrix of 1.6.x)",
                "facts/dynamo.md §2 (kubeVersion)",
            ),
        ),
    )
}

NVIDIA_DEVICE_PLUGIN = Chart(
    name="nvidia-device-plugin",
    # 0.19.0 to 0.19.2 turn a Mellanox option on that breaks EFA; 0.20.0 exists, 0.19.3 is the oldest with the fix.
    version="0.19.3",
    repository="https://nvidia.github.io/k8s-device-plugin",
    as_of=date(2026, 8, 27),
    sources=("NVIDIA/deepops #1382 (0.19.3 in use, 0.20.0 newest)", "facts/aws.md §5 (0.19.0–0.19.2 break EFA)"),
)
NVIDIA_DEVICE_PLUGIN_IMAGE = "nvcr.io/nvidia/k8s-device-plugin:v0.19.3"
"""What the chart runs by default (values.yaml: nvcr.io/nvidia/k8s-device-plugin, tag = the chart's app version)."""

EFA_DEVICE_PLUGIN = Chart(
    name="aws-efa-k8s-device-plugin",
    # With the v, as its Chart.yaml writes it.
    version="v0.5.30",
    repository="https://aws.github.io/eks-charts",
    as_of=date(2026, 8, 17),
    sources=("aws/eks-charts #1348 and #1358 (chart v0.5.30)", "facts/aws.md §5 (p6-b200 needs 0.5.13 or later)"),
)

_BROKEN_NVIDIA_PLUGIN = ((0, 19, 0), (0, 19, 2))
"""They turn a Mellanox option on that breaks EFA (facts/aws.md §5)."""
_EFA_PLUGIN_FOR: dict[str, str] = {"b200": "0.5.13"}
"""Oldest chart of the EFA plugin by GPU (facts/aws.md §5)."""

JOB_IMAGE = "public.ecr.aws/docker/library/python:3.12.12-slim-bookworm"
"""Python for the Jobs: Docker's official image from Amazon's mirror, so that no anonymous pull limit of Docker Hub applies."""

AIPERF = "0.13.0"
"""AIPerf in the benchmark Job and in the rehearsal (facts/simulation.md §6); recipe/scripts/benchmark-requirements.txt holds its wheels."""

HUGGINGFACE_HUB = "1.16.4"
"""`huggingface_hub` in the download Job (facts/dynamo.md §4.1)."""


def versions(dynamo: str = DYNAMO_DEFAULT) -> DynamoVersions:
    """What belongs to that release of Dynamo. Raises `UnknownName`."""
    return look_up("Dynamo version", DYNAMO, dynamo)


def kubernetes(version: str = KUBERNETES_DEFAULT) -> KubernetesVersion:
    """What is known of that Kubernetes version on EKS. Raises `UnknownName`."""
    return look_up("Kubernetes version", KUBERNETES, version)


def _numbers(version: str) -> tuple[int, ...]:
    """`v0.5.30` as (0, 5, 30); what follows a dash does not count."""
    return tuple(int(part) for part in version.removeprefix("v").partition("-")[0].split("."))


def _minor(version: str) -> tuple[int, ...]:
    return _numbers(version)[:2]


def check(
    dynamo: str,
    kubernetes_version: str,
    *,
    driver: int | None = None,
    ami_release: str | None = None,
    engine: str | None = None,
    engine_version: str | None = None,
    platform_chart: str | None = None,
    nvidia_device_plugin: str | None = None,
    efa_device_plugin: str | None = None,
    gpu: str | None = None,
) -> list[str]:
    """What does not belong together, each as a sentence that names both sides; empty where all is well.

    `driver`: NVIDIA driver branch of the nodes, by default that of the AMI. `ami_release`: a release version set in the recipe.
    `engine_version`: what is expected in the runtime image of `engine`. Charts by default those of the tables.
    Raises `UnknownName` for a Dynamo or Kubernetes version that the tables do not hold.
    """
    release, cluster = versions(dynamo), kubernetes(kubernetes_version)
    problems = []
    if engine_version:
        shipped = next((row.version for name, row in release.engines.items() if name == engine), "of no version known")
        if engine_version.removeprefix("v") != shipped:
            problems.append(f"Dynamo {dynamo} runs {engine} {shipped}, the recipe expects {engine_version}")
    chart = platform_chart or release.platform_chart.version
    if chart.removeprefix("v") != dynamo:
        problems.append(f"Dynamo {dynamo} needs its own {release.platform_chart.name} {dynamo}, the recipe has {chart}")
    plugin = nvidia_device_plugin or NVIDIA_DEVICE_PLUGIN.version
    if _BROKEN_NVIDIA_PLUGIN[0] <= _numbers(plugin) <= _BROKEN_NVIDIA_PLUGIN[1]:
        problems.append(
            f"NVIDIA device plugin {plugin} takes the EFA devices over (0.19.0 to 0.19.2 do): "
            f"{EFA_DEVICE_PLUGIN.name} needs 0.19.3 or newer beside it, or one older than 0.19"
        )
    efa = efa_device_plugin or EFA_DEVICE_PLUGIN.version
    needed = _EFA_PLUGIN_FOR.get(gpu or "")
    if needed and _numbers(efa) < _numbers(needed):
        problems.append(f"{gpu} needs the EFA device plugin {needed} or newer, the recipe has {efa}")
    if _minor(cluster.version) < _minor(release.min_kubernetes):
        problems.append(
            f"Dynamo {dynamo} needs Kubernetes {release.min_kubernetes} or newer, the cluster has {cluster.version}"
        )
    driver = driver or cluster.gpu_ami.driver
    if driver is not None and driver < release.min_driver:
        problems.append(f"Dynamo {dynamo} needs NVIDIA driver {release.min_driver} or newer, the nodes have {driver}")
    if ami_release is not None and (problem := check_ami(ami_release, cluster)):
        problems.append(problem)
    return problems


_PARALLEL_PULL_SINCE = "20260115"
"""By then nodeadm's gate FastImagePull is there, with its images on the instance store (awslabs/amazon-eks-ami #2352, #2548, #2588)."""
_PARALLEL_PULL_BROKEN = ("20260505", "20260818")
"""From the first release on nodes with the gate never became Ready (awslabs/amazon-eks-ami #2710, #2712, #2729; mended by #2717, in
which release is not known); of the second one it is known to work (pytorch/ci-infra #1033)."""


def check_parallel_pull(release: str | None) -> str | None:
    """Why nodes of that AMI release had better not pull images in parallel; None where they can."""
    if release is None:
        return "no AMI release is pinned, and some of 2026 never become Ready with it"
    day = release.rpartition("-")[2]
    if day < _PARALLEL_PULL_SINCE:
        return f"AMI release {release} is older than nodeadm's FastImagePull with images on the instance store"
    first, mended = _PARALLEL_PULL_BROKEN
    if first <= day < mended:
        return f"AMI release {release} may be one of those whose nodes never become Ready with it (awslabs/amazon-eks-ami #2712)"
    return None


def check_ami(release: str, cluster: KubernetesVersion) -> str | None:
    """Why nodes of that AMI release cannot join a cluster of that version; None where they can."""
    if release.startswith(f"{cluster.version}."):
        return None
    return f"AMI release {release} is not built for the cluster's Kubernetes {cluster.version}"
