"""The EC2 types: GPUs, EFA layout, and what the kubelet leaves for pods."""

from typing import Literal

from pydantic import PositiveInt

from recipe.catalogue.base import GIB, MIB, Entry, Sources, UnknownName, look_up

Gpu = Literal["h100", "h200", "b200"]
NicType = Literal["interface", "efa", "efa-only"]
NicLayout = Literal["device0", "device1"]
"""`device0`: the current rule of EC2's user guide. `device1`: the older layout of pulumi-eks and terraform-aws-eks."""

# The guest sees less memory than EC2 advertises. No table by type is public; Karpenter subtracts this share from every type.
# aws/karpenter-provider-aws website/content/en/preview/reference/settings.md, VM_MEMORY_OVERHEAD_PERCENT (default 0.075).
VM_MEMORY_OVERHEAD = 0.075

# nodeadm's reserve (awslabs/amazon-eks-ami nodeadm/internal/kubelet/config.go@0137549): kubeReserved memory 255 Mi + 11 Mi per pod,
# ephemeral-storage 1 Gi, CPU in hundredths of a percent of each band; evictionHard memory.available 100Mi, nodefs.available 10%.
_RESERVED_MEMORY_MIB = 255
_RESERVED_MEMORY_MIB_PER_POD = 11
_RESERVED_CPU_BANDS = ((0, 1000, 600), (1000, 2000, 100), (2000, 4000, 50), (4000, None, 25))
_RESERVED_EPHEMERAL_BYTES = 1 * GIB
_EVICTION_MEMORY_MIB = 100
_EVICTION_NODEFS = 0.10

# The AL2023 NVIDIA AMI sets aside 5128 pages of 2 MiB where EFA is present; the kubelet takes them off allocatable memory (facts/aws.md §4).
_EFA_HUGE_PAGES_MIB = 5128 * 2


class Nic(Entry):
    """One network interface of a launch template."""

    card: int
    device: int
    type: NicType


class Allocatable(Entry):
    """What pods of one node may request together, DaemonSets included."""

    cpu_millis: int
    memory_bytes: int
    ephemeral_bytes: int
    pods: int

    @property
    def cpu(self) -> float:
        return self.cpu_millis / 1000

    @property
    def memory_gib(self) -> float:
        return self.memory_bytes / GIB


class Instance(Entry):
    """What CPU and GPU types share."""

    name: str
    vcpus: PositiveInt
    memory_gib: PositiveInt
    """As advertised; the guest sees less (`allocatable`)."""
    max_pods: PositiveInt
    """nodeadm's figure: ENIs × (addresses - 1) + 2, on network card 0. Decides how much memory the kubelet reserves."""
    quota_name: str
    """EC2 quota that counts this type, in vCPUs."""
    quota_code: str
    sources: Sources

    @property
    def pods(self) -> int:
        """Pods a managed node group lets run: it caps `max_pods` at 110 below 30 vCPUs and at 250 from there on
        (EKS user guide, cni-increase-ip-addresses)."""
        return min(self.max_pods, 110 if self.vcpus < 30 else 250)

    def _allocatable(self, disk_bytes: int, huge_pages_mib: int) -> Allocatable:
        millis = self.vcpus * 1000
        reserved_millis = sum(
            (min(millis, end or millis) - start) * share // 10000
            for start, end, share in _RESERVED_CPU_BANDS
            if millis > start
        )
        seen_mib = int(self.memory_gib * 1024 * (1 - VM_MEMORY_OVERHEAD))
        reserved_mib = (
            _RESERVED_MEMORY_MIB + _RESERVED_MEMORY_MIB_PER_POD * self.max_pods + _EVICTION_MEMORY_MIB + huge_pages_mib
        )
        return Allocatable(
            cpu_millis=millis - reserved_millis,
            memory_bytes=(seen_mib - reserved_mib) * MIB,
            ephemeral_bytes=max(0, int(disk_bytes * (1 - _EVICTION_NODEFS)) - _RESERVED_EPHEMERAL_BYTES),
            pods=self.pods,
        )


class CpuInstance(Instance):
    """A type for everything that needs no GPU: download, frontend, operator, add-ons."""

    def allocatable(self, root_gib: int) -> Allocatable:
        """What is left for pods with a root volume of `root_gib`."""
        return self._allocatable(root_gib * GIB, huge_pages_mib=0)


class GpuInstance(Instance):
    """A type with eight GPUs and EFA on every network card."""

    gpu: Gpu
    gpus: PositiveInt
    gpu_architecture: Literal["hopper", "blackwell"]
    spot_quota_name: str = ""
    spot_quota_code: str = ""
    """Of the quota that counts it as spot, in vCPUs; empty where none was found."""
    gpu_memory_mib: PositiveInt
    """As nvidia-smi shows it. What CUDA hands out is up to 0.5 % less (pytorch/ao #4002: 178.35 of 179.06 GiB on a B200)."""
    network_cards: PositiveInt
    efa_devices: PositiveInt
    """`vpc.amazonaws.com/efa` of the node."""
    nvme_count: PositiveInt
    nvme_gb: PositiveInt
    """One disk of the instance store, decimal GB as advertised."""

    @property
    def gpu_memory_gib(self) -> float:
        return self.gpu_memory_mib / 1024

    @property
    def efa_per_gpu(self) -> int:
        return self.efa_devices // self.gpus

    def efa_for(self, gpus: int) -> int:
        """EFA devices that go with `gpus` GPUs, so that a full node uses all of both."""
        return gpus * self.efa_per_gpu

    def network_interfaces(self, layout: NicLayout = "device0") -> tuple[Nic, ...]:
        """The fewest interfaces that carry every EFA device, primary first (facts/aws.md §1).

        EFA beside the primary is `efa-only`: a plain `efa` there takes an address and keeps the node from joining.
        """
        others = range(1, self.network_cards)
        if layout == "device1":
            return (Nic(card=0, device=0, type="efa"), *(Nic(card=card, device=1, type="efa-only") for card in others))
        return (
            Nic(card=0, device=0, type="interface"),
            Nic(card=0, device=1, type="efa-only"),
            *(Nic(card=card, device=0, type="efa-only") for card in others),
        )

    def allocatable(self, root_gib: int = 100, *, raid0: bool = True) -> Allocatable:
        """What is left for pods. With `raid0`, kubelet and containerd live on the instance store and `root_gib` does not matter."""
        disk = self.nvme_count * self.nvme_gb * 1000**3 if raid0 else root_gib * GIB
        return self._allocatable(disk, huge_pages_mib=_EFA_HUGE_PAGES_MIB)


_MAX_PODS = "awslabs/amazon-eks-ami templates/shared/runtime/eni-max-pods.txt@0254c5b (max pods)"
_NICS = "facts/aws.md §1 (network cards, EFA)"
_NVME = "facts/aws.md §5 (8 × 3.84 TB, given for p5)"
_H100 = "modal-labs/modal-client #2797 and NVIDIA/nccl #1264 (nvidia-smi: 81559 MiB)"
_H200 = "nvidia-smi: 143771 MiB in many public listings; NVIDIA/mig-parted #120 gives 139.75 GiB for the whole-GPU MIG slice"
_B200 = "NVIDIA/TensorRT-LLM #10278 (nvidia-smi: 183359 MiB)"


# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-spot-limits.html names it for P5; which one counts P6 is not said there.
_P5_SPOT = {"spot_quota_name": "All P5 Spot Instance Requests", "spot_quota_code": "L-C4BD4855"}


def _p_instance(name: str, gpu: Gpu, memory_mib: int, cards: int, max_pods: int, *sources: str) -> GpuInstance:
    return GpuInstance(
        name=name,
        vcpus=192,
        memory_gib=2048,
        max_pods=max_pods,
        quota_name="Running On-Demand P instances",
        quota_code="L-417A185B",
        gpu=gpu,
        gpus=8,
        gpu_architecture="blackwell" if gpu == "b200" else "hopper",
        **(_P5_SPOT if name.startswith("p5") else {}),
        gpu_memory_mib=memory_mib,
        network_cards=cards,
        efa_devices=cards,
        nvme_count=8,
        nvme_gb=3840,
        sources=(_NICS, _MAX_PODS, _NVME, "facts/aws.md §3 (quota)", *sources),
    )


# Where a GPU comes in several types, the first one is the default.
GPU_INSTANCES: dict[str, GpuInstance] = {
    row.name: row
    for row in (
        _p_instance("p5.48xlarge", "h100", 81559, 32, 100, _H100, "pytorch/ci-infra #529 (vCPUs, memory)"),
        _p_instance("p5en.48xlarge", "h200", 143771, 16, 198, _H200, "dstackai/dstack #4110 (vCPUs, memory)"),
        _p_instance("p5e.48xlarge", "h200", 143771, 32, 100, _H200, "meta-pytorch/torchx #1098 (vCPUs, memory)"),
        _p_instance("p6-b200.48xlarge", "b200", 183359, 8, 198, _B200, "pytorch/ci-infra #529 (vCPUs, memory)"),
    )
}


def _cpu_instance(name: str, vcpus: int, gib_per_vcpu: int, max_pods: int) -> CpuInstance:
    return CpuInstance(
        name=name,
        vcpus=vcpus,
        memory_gib=vcpus * gib_per_vcpu,
        max_pods=max_pods,
        quota_name="Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
        quota_code="L-1216C47A",
        sources=(_MAX_PODS, "https://aws.amazon.com/ec2/instance-types/ (vCPUs; m7i 4 GiB per vCPU, r7i 8 GiB)"),
    )


CPU_INSTANCES: dict[str, CpuInstance] = {
    row.name: row
    for row in (
        _cpu_instance("m7i.xlarge", 4, 4, 58),
        _cpu_instance("m7i.2xlarge", 8, 4, 58),
        _cpu_instance("m7i.4xlarge", 16, 4, 234),
        _cpu_instance("m7i.8xlarge", 32, 4, 234),
        _cpu_instance("m7i.12xlarge", 48, 4, 234),
        _cpu_instance("m7i.16xlarge", 64, 4, 737),
        _cpu_instance("r7i.4xlarge", 16, 8, 234),
        _cpu_instance("r7i.8xlarge", 32, 8, 234),
    )
}


def gpu_instance(name: str) -> GpuInstance:
    """The GPU type of that name. Raises `UnknownName`."""
    return look_up("GPU instance type", GPU_INSTANCES, name)


def cpu_instance(name: str) -> CpuInstance:
    """The CPU type of that name. Raises `UnknownName`."""
    return look_up("CPU instance type", CPU_INSTANCES, name)


def gpu_instances(gpu: str) -> tuple[GpuInstance, ...]:
    """The types with that GPU, the default first. Raises `UnknownName`."""
    found = tuple(row for row in GPU_INSTANCES.values() if row.gpu == gpu)
    if not found:
        raise UnknownName("GPU", gpu, dict.fromkeys(row.gpu for row in GPU_INSTANCES.values()))
    return found
