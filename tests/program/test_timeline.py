"""The steps of `recipe/timeline.py` wait for each other as the program's resources do."""

from __future__ import annotations

from recipe.timeline import timeline
from tests.program.recorder import Run

RESOURCES = {
    "VPC and subnets": ("network-vpc", "network-public", "network-public-association"),
    "NAT gateway and route": ("network-nat", "network-to-nat"),
    "EKS control plane": ("cluster-eks",),
    "add-ons of every node": ("cluster-vpc-cni", "cluster-kube-proxy", "cluster-eks-pod-identity-agent"),
    "CPU nodes": ("cpu-nodes",),
    "CoreDNS": ("cpu-coredns",),
    "EFS mount target": ("files-mount-target",),
    "EFS driver": ("files-driver",),
    "FSx file system": ("lustre-group", "lustre-among-servers-988", "lustre-fsx"),
    "FSx driver": ("lustre-driver",),
    "claims": ("caches-perf-claim",),
    "weights": ("weights-job",),
    "head of the weights": ("head-job",),
    "platform": ("platform-release",),
    "dry run of the graph": ("admission-job",),
    "device plugins": ("devices-nvidia-device-plugin", "devices-aws-efa-k8s-device-plugin"),
    "GPU nodes": ("gpu-nodes",),
    "graph": ("serving-graph",),
    "first completion": ("serving-ready",),
}
"""The last resource of each step, after those that are part of it. `name of the mount target` and `workers` are no resources."""
NO_RESOURCE = {"name of the mount target": "EFS mount target", "workers": "graph"}


def test_a_step_waits_for_another_exactly_where_the_programs_resources_do(model: Run) -> None:
    steps = {step.name: step for step in timeline(model.plan).steps}
    made = {one.name for one in model.custom}
    there = {name for name, resources in RESOURCES.items() if resources[-1] in made}
    assert steps.keys() == there | {name for name, of in NO_RESOURCE.items() if of in there}

    def transitive(name: str) -> set[str]:
        return {name, *(one for before in steps[name].after for one in transitive(before))}

    for name in steps.keys() & RESOURCES.keys():
        behind = model.behind(model.named(RESOURCES[name][-1]))
        waited_for = {NO_RESOURCE.get(one, one) for one in transitive(name)} - {name}
        really = {
            other
            for other in steps.keys() & RESOURCES.keys() - {name}
            if all(resource in behind for resource in RESOURCES[other])
        }
        assert really == waited_for, f"{name}: the expected minutes would follow another order than `up`"
