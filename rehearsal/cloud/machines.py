"""Instance types and zones as the pretend EC2 knows them: what a node offers to pods.

`Machines` is injectable, so that a test or the recipe's catalogue can bring its own table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

# facts/aws.md §1, §3 (GPUs, EFA interfaces, vCPU of p5); vCPU and memory of the others as on the EC2 instance type pages.
_GPU = {
    "p5.48xlarge": (192, 2048, 8, 32),
    "p5e.48xlarge": (192, 2048, 8, 32),
    "p5en.48xlarge": (192, 2048, 8, 16),
    "p6-b200.48xlarge": (192, 2048, 8, 8),
    "g6e.2xlarge": (8, 64, 1, 0),
    "g7e.12xlarge": (48, 512, 2, 2),
}
_SIZES = {
    "large": 2,
    "xlarge": 4,
    "2xlarge": 8,
    "4xlarge": 16,
    "8xlarge": 32,
    "12xlarge": 48,
    "16xlarge": 64,
    "24xlarge": 96,
    "32xlarge": 128,
    "48xlarge": 192,
}
_GIB_PER_VCPU = {"c": 2, "m": 4, "r": 8}
_FAMILY = re.compile(r"^([cmr])(5|5a|5n|6i|6a|7i|7a|8i|8a)\.(\w+)$")


@dataclass(frozen=True, slots=True)
class Machine:
    """One instance type. Memory in GiB, ephemeral storage in GiB once the instance store is a RAID0 (0: the root volume's rest)."""

    name: str
    vcpu: int
    memory_gib: float
    gpus: int = 0
    efa: int = 0
    store_gib: float = 0

    def allocatable(self) -> dict[str, float]:
        """What pods may ask for, before device plugins: CPU cores, bytes of memory and of ephemeral storage, pods.

        CPU and memory are reserved as the EKS AMI does (awslabs/amazon-eks-ami nodeadm: 6/1/0.5/0.25 % of the cores, 255 MiB + 11 MiB a pod,
        100 MiB eviction threshold); 3 % of the memory never reaches the kernel (assumption).
        """
        cores = self.vcpu
        reserved = (
            0.06 * min(cores, 1)
            + 0.01 * min(max(cores - 1, 0), 1)
            + 0.005 * min(max(cores - 2, 0), 2)
            + 0.0025 * max(cores - 4, 0)
        )
        pods = 110 if cores <= 30 else 250  # max-pods recommended by AWS for prefix delegation
        memory = self.memory_gib * 2**30 * 0.97 - (255 + 11 * pods + 100) * 2**20
        return {
            "cpu": cores - reserved,
            "memory": memory,
            "ephemeral-storage": (self.store_gib or 80) * 0.9 * 2**30,
            "pods": float(pods),
        }


@dataclass(frozen=True, slots=True)
class Machines:
    """Looks a type up: in `table` first, then among those known here."""

    table: Mapping[str, Machine] = field(default_factory=dict)

    def get(self, name: str) -> Machine | None:
        if name in self.table:
            return self.table[name]
        if name in _GPU:
            vcpu, memory, gpus, efa = _GPU[name]
            store = 8 * 3840 * 0.93 if name.startswith("p") else 450.0  # facts/aws.md §5: 8 x 3.84 TB
            return Machine(name, vcpu, memory, gpus, efa, store)
        if (match := _FAMILY.match(name)) and match[3] in _SIZES:
            vcpu = _SIZES[match[3]]
            return Machine(name, vcpu, vcpu * _GIB_PER_VCPU[match[1]])
        if name == "t3.medium":  # what EKS takes when nothing is said
            return Machine(name, 2, 4)
        return None


_COMPASS = {
    "north": "n",
    "south": "s",
    "east": "e",
    "west": "w",
    "central": "c",
    "northeast": "ne",
    "southeast": "se",
    "northwest": "nw",
    "southwest": "sw",
}


def zone_prefix(region: str) -> str:
    """The start of the region's zone ids: us-east-2 -> use2."""
    *area, direction, number = region.split("-")
    return "".join(area) + _COMPASS.get(direction, direction) + number


def zone_name(region: str, zone_id: str) -> str | None:
    """The zone's name in the pretend account, or None when the id is not of this region. (Real accounts map ids to names each in its own way.)"""
    match = re.fullmatch(re.escape(zone_prefix(region)) + r"-az([1-6])", zone_id)
    return f"{region}{'abcdef'[int(match[1]) - 1]}" if match else None


def zone_id(region: str, name: str) -> str | None:
    match = re.fullmatch(re.escape(region) + r"([a-f])", name)
    return f"{zone_prefix(region)}-az{'abcdef'.index(match[1]) + 1}" if match else None
