"""What must hold for every resource of the program, whatever component it comes from."""

import importlib
import inspect
from typing import Any

import pytest

from recipe.constants import GPU_TOLERATION
from tests.program.recorder import Registered, Run, plain
from tests.recipe.samples import gpu_pool

BESIDES = ("pulumi:providers:aws", "pulumi:providers:kubernetes", "pulumi:index:Stash")

# Physical name of each kind that has one. A repeated create after a crash must collide with it (facts/rehearsal.md §4).
NAMED_BY = {
    "aws:eks/cluster:Cluster": "name",
    "aws:eks/nodeGroup:NodeGroup": "nodeGroupName",
    "aws:efs/fileSystem:FileSystem": "creationToken",
    "aws:ec2/launchTemplate:LaunchTemplate": "name",
    "aws:ec2/placementGroup:PlacementGroup": "name",
    "aws:ec2/securityGroup:SecurityGroup": "name",
    "aws:iam/role:Role": "name",
    "aws:cloudwatch/logGroup:LogGroup": "name",
}
# What costs by the hour and has no unique name on AWS: found by its tags.
FOUND_BY_TAG = {"aws:ec2/natGateway:NatGateway", "aws:ec2/eip:Eip"}
COSTS_BY_THE_HOUR = {
    "aws:eks/cluster:Cluster",
    "aws:eks/nodeGroup:NodeGroup",
    "aws:efs/fileSystem:FileSystem",
    *FOUND_BY_TAG,
}


def sdk_inputs(type_: str) -> set[str]:
    """Names of the arguments the SDK has for an AWS type such as `aws:ec2/vpc:Vpc`."""
    _, module, name = type_.split(":")
    cls = getattr(importlib.import_module(f"pulumi_aws.{module.split('/')[0]}"), name)
    return set(inspect.signature(cls._internal_init).parameters)


def test_everything_has_a_component_as_parent(every: Run) -> None:
    components = {one.urn for one in every.components}
    for one in every.custom:
        assert one.parent in components, f"{one.name} would stand loose in the stack's tree"


def test_every_component_registers_its_outputs_once(every: Run) -> None:
    for one in every.components:
        assert every.finished.count(one.urn) == 1, f"{one.name}: the engine never learns that it is complete, or twice"


def test_whatever_can_carry_tags_does(every: Run) -> None:
    """The SDK says which types take tags; what a failed teardown leaves behind is found by them."""
    checked = 0
    for one in every.custom:
        if one.type.startswith("aws:") and "tags" in sdk_inputs(one.type):
            tags = one.inputs.get("tags", {})
            assert every.plan.tags.items() <= tags.items(), f"{one.type} {one.name} cannot be traced to its stack"
            assert tags.get("Name"), f"{one.type} {one.name} shows without a name in the console"
            checked += 1
    assert checked > 3, "the list of taggable types came out too short to be true"


def test_no_tag_changes_with_time(run: Run) -> None:
    assert set(run.plan.tags) == {"project", "stack", "deployment", "owner", "ttl-hours"}


def test_launch_templates_tag_what_they_start(every: Run) -> None:
    for one in every.of("aws:ec2/launchTemplate:LaunchTemplate"):
        tagged = {spec["resourceType"]: spec["tags"] for spec in one.inputs["tagSpecifications"]}
        assert set(tagged) == {"instance", "volume", "network-interface"}
        assert all(every.plan.tags.items() <= tags.items() for tags in tagged.values()), one.name


@pytest.mark.parametrize("type_", sorted(NAMED_BY))
def test_names_are_fixed_and_replacements_delete_first(run: Run, type_: str) -> None:
    found = run.of(type_)
    assert found
    for one in found:
        name = one.inputs.get(NAMED_BY[type_])
        assert name in set(run.plan.names.model_dump().values()), f"{one.name}: {name} is not a name of the plan"
        assert one.delete_before_replace, f"{one.name}: its replacement would collide with itself"


def test_nothing_that_costs_by_the_hour_is_named_by_chance(run: Run) -> None:
    for one in run.custom:
        if one.type in COSTS_BY_THE_HOUR - FOUND_BY_TAG:
            assert one.inputs.get(NAMED_BY[one.type]), f"{one.name}: a create repeated after a crash would double it"
    assert {one.type for one in run.custom} >= COSTS_BY_THE_HOUR


def test_objects_go_with_the_cluster_and_aws_resources_do_not(each: Run) -> None:
    cluster = each.only("aws:eks/cluster:Cluster").urn
    for one in each.custom:
        if one in each.in_cluster and "helm.sh" not in one.type:
            assert one.deleted_with == cluster, (
                f"{one.name}: a finalizer or a lost kubeconfig could hold up the destroy"
            )
        else:
            assert not one.deleted_with, f"{one.name} would be forgotten, and billed, without being deleted"


def test_objects_have_fixed_names_and_replacements_delete_first(every: Run) -> None:
    for one in every.in_cluster:
        assert one.delete_before_replace, f"{one.name}: its replacement would collide with itself"
        assert one.inputs.get("metadata", one.inputs).get("name"), f"{one.name} has a name made up by the provider"


def test_nothing_in_the_cluster_owns_things_on_aws(every: Run) -> None:
    """Objects are deleted with the cluster: nobody would remove their load balancers and disks."""
    for one in every.in_cluster:
        assert not one.type.endswith(":Ingress"), one.name
        assert one.inputs.get("spec", {}).get("type") != "LoadBalancer", one.name
        if one.type.endswith(":StorageClass"):
            assert one.inputs["provisioner"] in ("efs.csi.aws.com", "fsx.csi.aws.com"), "EBS volumes would outlive it"
            assert "parameters" not in one.inputs, "it would make file systems for claims"


def api_servers(run: Run) -> list[Registered]:
    return [run.named("helm"), run.named("kubernetes")]


def test_every_resource_uses_the_explicit_providers(each: Run) -> None:
    aws, (helm, kubernetes) = each.only("pulumi:providers:aws"), api_servers(each)
    for one in each.custom:
        wanted = (
            aws if one not in each.in_cluster else helm if one.type == "kubernetes:helm.sh/v3:Release" else kubernetes
        )
        assert one.provider.startswith(wanted.urn), f"{one.name} would go to whatever account or cluster is the default"


def test_the_account_and_region_are_pinned(run: Run) -> None:
    inputs = run.only("pulumi:providers:aws").inputs
    assert inputs["allowedAccountIds"] == '["123456789012"]'
    assert inputs["region"] == run.plan.recipe.access.region
    assert "defaultTags" not in inputs, "tags stand on each resource, where a diff shows them"


def test_the_cluster_provider_keeps_its_objects_on_updates(run: Run) -> None:
    for one in api_servers(run):
        assert one.inputs["clusterIdentifier"] == run.plan.cluster.identifier
        assert one.inputs["upsertExistingObjects"] == "true", (
            "`up` after a failed cluster delete would find everything taken"
        )


def test_the_taint_of_gpu_nodes_is_what_workers_tolerate(run: Run) -> None:
    (taint,) = run.named("gpu-nodes").inputs["taints"]
    assert taint["effect"] == "NO_SCHEDULE", "EKS spells it so; Kubernetes writes NoSchedule"
    assert (taint["key"], "NoSchedule") == (GPU_TOLERATION["key"], GPU_TOLERATION["effect"])
    for pod in _pods(run, gpu=True):
        assert GPU_TOLERATION in pod["tolerations"], "a worker could never be scheduled"
    # NVIDIA's chart tolerates its own taint by default; the EFA chart does not (facts/aws.md §5).
    efa = run.named("devices-aws-efa-k8s-device-plugin").inputs["values"]
    assert GPU_TOLERATION in efa["tolerations"], "the plugin would skip the GPU nodes, and no worker would get EFA"


def test_every_pod_is_bound_to_a_pool_that_exists(run: Run) -> None:
    pools = [run.named("cpu-nodes").inputs["labels"], run.named("gpu-nodes").inputs["labels"]]
    for pod in [*_pods(run, gpu=True), *_pods(run, gpu=False)]:
        selector = pod["nodeSelector"]
        assert any(selector.items() <= labels.items() for labels in pools), f"no node has {selector}"
    assert all(pod["nodeSelector"].items() <= pools[1].items() for pod in _pods(run, gpu=True))


def test_what_takes_long_has_a_timeout_of_its_own(run: Run) -> None:
    assert run.named("gpu-nodes").timeouts["create"] == f"{run.plan.recipe.hardware.create_timeout_minutes}m"
    assert run.only("aws:eks/cluster:Cluster").timeouts.keys() == {"create", "update", "delete"}
    for job in run.of("kubernetes:batch/v1:Job"):
        own = job.inputs["spec"]["activeDeadlineSeconds"]
        assert _seconds(job.timeouts["create"]) > own, f"{job.name}: Pulumi gives up before the Job can say why"
    for release in run.of("kubernetes:helm.sh/v3:Release"):
        assert _seconds(release.timeouts["create"]) > release.inputs["timeout"], (
            f"{release.name}: Helm must give up first"
        )


def test_every_interface_of_gpu_nodes_has_a_group_and_goes_with_its_instance(model: Run) -> None:
    interfaces = model.named("gpu-template").inputs["networkInterfaces"]
    assert len(interfaces) == len(gpu_pool(model.plan).nics) == 33, "p5.48xlarge: one for IP and 32 for EFA"
    for nic in interfaces:
        assert nic["securityGroups"] == ["sg-cluster"], "EKS adds no group to a template that lists interfaces"
        assert nic["deleteOnTermination"] == "true", "leftover interfaces block the subnet's deletion"
        assert "associatePublicIpAddress" not in nic, "EC2 refuses it with more than one interface"
    assert "vpcSecurityGroupIds" not in model.named("gpu-template").inputs, "EC2 refuses groups beside interfaces"


def test_nodes_are_reached_with_tokens_only_and_disks_are_encrypted(every: Run) -> None:
    for template in every.of("aws:ec2/launchTemplate:LaunchTemplate"):
        assert template.inputs["metadataOptions"]["httpTokens"] == "required", template.name
        assert template.inputs["metadataOptions"]["httpPutResponseHopLimit"] == 2, template.name
        assert all(disk["ebs"]["encrypted"] == "true" for disk in template.inputs["blockDeviceMappings"]), template.name


def test_the_instance_type_stands_in_the_template_only(model: Run) -> None:
    """EKS takes it from one place; with a Capacity Block that has to be the template."""
    for group in model.of("aws:eks/nodeGroup:NodeGroup"):
        assert "instanceTypes" not in group.inputs, group.name
        assert "diskSize" not in group.inputs, "EKS refuses it beside a template"
        assert "remoteAccess" not in group.inputs, group.name
    assert model.named("gpu-template").inputs["instanceType"] == "p5.48xlarge"


def test_a_capacity_block_is_asked_for_in_both_places(with_block: Run) -> None:
    template, group = with_block.named("gpu-template").inputs, with_block.named("gpu-nodes").inputs
    assert group["capacityType"] == "CAPACITY_BLOCK"
    assert template["instanceMarketOptions"] == {"marketType": "capacity-block"}
    target = template["capacityReservationSpecification"]["capacityReservationTarget"]
    assert target == {"capacityReservationId": gpu_pool(with_block.plan).reservation_id}
    assert "placement" not in template, "a placement group makes launches from a reservation fail"
    assert not with_block.of("aws:ec2/placementGroup:PlacementGroup")


def test_on_demand_nodes_ask_for_no_reservation(run: Run) -> None:
    template = run.named("gpu-template").inputs
    assert "instanceMarketOptions" not in template
    assert "capacityReservationSpecification" not in template
    assert template["placement"]["groupName"] == run.plan.names.placement_group


def test_all_nodes_and_the_cache_are_in_one_subnet(run: Run) -> None:
    subnet = "network-nodes-id"
    for group in run.of("aws:eks/nodeGroup:NodeGroup"):
        assert group.inputs["subnetIds"] == [subnet], "EFA does not cross zones, and crossing them costs per GB"
    assert run.only("aws:efs/mountTarget:MountTarget").inputs["subnetId"] == subnet
    zones = {one.name: one.inputs["availabilityZoneId"] for one in run.of("aws:ec2/subnet:Subnet")}
    assert zones["network-nodes"] == zones["network-public"] != zones["network-control-plane"]


def test_the_api_is_open_to_the_named_networks_only(run: Run) -> None:
    assert run.only("aws:eks/cluster:Cluster").inputs["vpcConfig"]["publicAccessCidrs"] == ["203.0.113.0/24"]
    rule = run.only("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule").inputs
    assert (rule["fromPort"], rule["toPort"], rule["referencedSecurityGroupId"]) == (2049, 2049, "sg-cluster")
    assert "cidrIpv4" not in rule


def test_admin_principals_become_admins(with_token: Run) -> None:
    entry = with_token.only("aws:eks/accessEntry:AccessEntry").inputs
    policy = with_token.only("aws:eks/accessPolicyAssociation:AccessPolicyAssociation").inputs
    assert entry["principalArn"] == policy["principalArn"] == "arn:aws:iam::123456789012:role/ops/admin"
    assert policy["policyArn"].endswith("AmazonEKSClusterAdminPolicy")


def _pods(run: Run, *, gpu: bool) -> list[dict[str, Any]]:
    """Pod specs of the graph and the Jobs; with `gpu` those that ask for GPUs, else the others."""
    graph = run.only("kubernetes:nvidia.com/v1beta1:DynamoGraphDeployment").inputs
    pods = [component["podTemplate"]["spec"] for component in graph["spec"]["components"]]
    pods += [job.inputs["spec"]["template"]["spec"] for job in run.of("kubernetes:batch/v1:Job")]
    found = [pod for pod in pods if _asks_for_gpus(pod) == gpu]
    assert found
    return found


def _asks_for_gpus(pod: dict[str, Any]) -> bool:
    return any("nvidia.com/gpu" in container.get("resources", {}).get("limits", {}) for container in pod["containers"])


def _seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration[:-1])


def test_components_and_providers_are_all_there_is_beside_custom_resources(run: Run) -> None:
    others: list[Registered] = [
        one for one in run.resources.values() if one not in run.custom and one not in run.components
    ]
    # The SDK registers the stack itself once per process, so only the first program of a test run has it.
    assert {one.type for one in others} - {"pulumi:pulumi:Stack"} == set(BESIDES)


def test_a_graph_with_other_components_is_replaced_rather_than_refused(run: Run) -> None:
    graph = run.named("serving-graph")
    assert graph.replacement_trigger, "the operator refuses to change the set of components"
    assert graph.inputs["metadata"]["annotations"]["pulumi.com/deletionPropagationPolicy"] == "background"


TIED = {
    "aws:ec2/vpc:Vpc": "cidrBlock",
    "aws:ec2/eip:Eip": "domain",
    "aws:efs/fileSystem:FileSystem": "creationToken",
    "aws:eks/cluster:Cluster": "name",
    "aws:ec2/launchTemplate:LaunchTemplate": "name",
    "aws:ec2/placementGroup:PlacementGroup": "name",
    "aws:eks/nodeGroup:NodeGroup": "nodeGroupName",
    "aws:iam/role:Role": "name",
    "aws:cloudwatch/logGroup:LogGroup": "name",
    "kubernetes:helm.sh/v3:Release": "name",
}
"""Create-only properties through which the engine learns that a resource goes with the identity."""


def test_everything_goes_with_the_identity(run: Run) -> None:
    """One root of a replacement: with several, one chain deletes what another one still uses (seen on the engine)."""
    value = run.only("pulumi:index:Stash")
    assert value.replacement_trigger == run.plan.cluster.identifier
    assert value.delete_before_replace
    for type_, key in TIED.items():
        for one in run.of(type_):
            assert value.urn in one.property_depends_on[key], f"{one.name} would stay behind when the deployment moves"
    objects = run.named("kubernetes").property_depends_on["clusterIdentifier"]
    assert value.urn in objects, "the objects in the cluster go with their provider"


def test_a_provider_that_deletes_something_is_not_replaced_with_the_identity(run: Run) -> None:
    """The engine (3.250) closes a provider that is, and then deletes through it: `the client connection is closing`."""
    identity = run.only("pulumi:index:Stash").urn
    for one in (run.named("aws"), run.named("helm")):
        assert not any(identity in urns for urns in one.property_depends_on.values()), one.name
    assert identity in run.named("aws").depends_on, "another region has to wait until the old one is empty"


def test_new_nodes_have_to_prove_themselves(run: Run) -> None:
    assert run.named("serving-ready").replacement_trigger == plain(gpu_pool(run.plan).model_dump(mode="json"))


@pytest.mark.parametrize("nodes", ["cpu-nodes", "gpu-nodes"])
def test_a_node_group_that_failed_is_made_again(run: Run, nodes: str) -> None:
    """`#initerror` is the engine's word for "its create ended in an error"; EKS never mends such a group."""
    assert run.named(nodes).replace_on_changes == ("#initerror",), "the next `up` would take the failed group for good"


def test_gpu_nodes_roll_without_spare_ones(every: Run) -> None:
    """By EKS' default a node group rolls by starting another node first: there is no spare p5 to be had."""
    for one in every.of("aws:eks/nodeGroup:NodeGroup"):
        if "gpu" in one.name:
            assert one.inputs["updateConfig"] == {"maxUnavailable": 1, "updateStrategy": "MINIMAL"}, one.name


def test_add_ons_are_managed_from_the_start(every: Run) -> None:
    """By EKS' default a cluster comes with unmanaged copies, which a managed add-on would have to adopt."""
    for one in every.of("aws:eks/cluster:Cluster"):
        assert one.inputs["bootstrapSelfManagedAddons"] is False, one.name
