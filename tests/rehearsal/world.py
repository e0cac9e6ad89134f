"""A small stack made by hand, call by call, for the tests of the pretend cloud."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rehearsal.clock import ManualClock
from rehearsal.cloud import Cloud, CloudError, Faults, Unfinished
from rehearsal.cloud import rules as r
from rehearsal.durations import Durations

GPU_TAINT = {"key": "nvidia.com/gpu", "value": "true", "effect": "NO_SCHEDULE"}
TOLERATE = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


class World:
    """Creates, updates and deletes as the engine would, and remembers what it made."""

    def __init__(self, folder: Path, faults: Faults | None = None, **durations: float) -> None:
        self.clock = ManualClock()
        self.cloud = Cloud(
            folder, self.clock, faults, region="us-east-2", account="111122223333", durations=Durations(durations)
        )
        self.made: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {}

    def copy(self, folder: Path, faults: Faults | None = None, **durations: float) -> World:
        """The same stack in another store, read back from disk; what was made here stays as it is."""
        shutil.copytree(self.cloud.store.folder, folder)
        other = World(folder, faults, **durations)
        other.made = copy.deepcopy(self.made)
        return other

    def refused(self, typ: str, name: str, /, **inputs: Any) -> str:
        """The text with which the cloud refuses to create this."""
        with pytest.raises(CloudError) as refused:
            self.make(typ, name, None, **inputs)
        return str(refused.value)

    def unfinished(self, work: Callable[[], object]) -> str:
        """The reasons why what `work` made is not what was asked for. It exists, and is remembered as the engine would."""
        with pytest.raises(Unfinished) as unfinished:
            work()
        return "; ".join(unfinished.value.reasons)

    def stuck(self, name: str, timeout_s: float | None = None) -> str:
        """The text with which the cloud refuses to delete this."""
        with pytest.raises(CloudError) as refused:
            self.drop(name, timeout_s)
        return str(refused.value)

    def again(self, name: str, **changes: Any) -> str:
        """The text with which a repeated create of `name` is refused."""
        typ, _, inputs, _ = self.made[name]
        return self.refused(typ, f"{name}-again", **(inputs | changes))

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.cloud.store.journal if e["op"] == "event" and e["type"] == kind]

    def urn(self, typ: str, name: str) -> str:
        return f"urn:pulumi:dev::dynamo-recipes::{typ}::{name}"

    def make(self, typ: str, name: str, timeout_s: float | None = None, /, **inputs: Any) -> dict[str, Any]:
        urn = self.urn(typ, name)
        checked = self.cloud.check(typ, urn, None, inputs)
        assert not checked.failures, checked.failures
        try:
            made, outputs = self.cloud.create(typ, urn, checked.inputs, preview=False, timeout_s=timeout_s)
        except Unfinished as unfinished:  # the engine records it all the same
            self.made[name] = (typ, unfinished.id, checked.inputs, unfinished.outputs)
            raise
        self.made[name] = (typ, made, checked.inputs, outputs)
        return {**outputs, "id": made}

    def drop(self, name: str, timeout_s: float | None = None) -> None:
        typ, made, inputs, outputs = self.made[name]
        self.cloud.delete(typ, self.urn(typ, name), made, inputs, outputs, timeout_s=timeout_s)
        del self.made[name]

    def change(self, name: str, timeout_s: float | None = None, /, **inputs: Any) -> dict[str, Any]:
        typ, made, old, outputs = self.made[name]
        new = self.cloud.check(typ, self.urn(typ, name), old, inputs).inputs
        out = self.cloud.update(typ, self.urn(typ, name), made, old, outputs, new, preview=False, timeout_s=timeout_s)
        self.made[name] = (typ, made, new, out)
        return out

    def id(self, name: str) -> str:
        return self.made[name][1]

    def out(self, name: str) -> dict[str, Any]:
        typ, made, _, _ = self.made[name]
        try:
            found = self.cloud.read(typ, made)
        except Unfinished as unfinished:  # it exists, and the engine would record it so
            return unfinished.outputs
        assert found is not None, f"{name} is gone"
        return found[2]

    # ---- the layers, in the order of the program

    def network(self) -> World:
        vpc = self.make(r.VPC, "vpc", cidrBlock="10.0.0.0/16", enableDnsHostnames=True)["id"]
        igw = self.make(r.IGW, "igw", vpcId=vpc)["id"]
        public = self.make(r.SUBNET, "public", vpcId=vpc, cidrBlock="10.0.0.0/24", availabilityZoneId="use2-az1")["id"]
        nodes = self.make(r.SUBNET, "nodes", vpcId=vpc, cidrBlock="10.0.16.0/20", availabilityZoneId="use2-az1")["id"]
        self.make(r.SUBNET, "second", vpcId=vpc, cidrBlock="10.0.1.0/24", availabilityZoneId="use2-az2")
        eip = self.make(r.EIP, "eip", domain="vpc")["id"]
        for name, subnet in (("public", public), ("nodes", nodes)):
            table = self.make(r.ROUTE_TABLE, f"{name}-table", vpcId=vpc)["id"]
            self.make(r.ROUTE_TABLE_ASSOCIATION, f"{name}-link", routeTableId=table, subnetId=subnet)
            if name == "public":
                self.make(r.ROUTE, "public-route", routeTableId=table, destinationCidrBlock="0.0.0.0/0", gatewayId=igw)
            else:
                nat = self.make(r.NAT, "nat", allocationId=eip, subnetId=public)["id"]
                self.make(
                    r.ROUTE, "nodes-route", routeTableId=table, destinationCidrBlock="0.0.0.0/0", natGatewayId=nat
                )
        group = self.make(r.SECURITY_GROUP, "efs-group", vpcId=vpc, name="q-efs", description="EFS")["id"]
        self.make(
            r.INGRESS_RULE,
            "nfs",
            securityGroupId=group,
            ipProtocol="tcp",
            fromPort=2049,
            toPort=2049,
            cidrIpv4="10.0.0.0/16",
        )
        return self

    def role(self, name: str, *policies: str) -> str:
        arn = self.make(r.ROLE, name, name=f"q-{name}", assumeRolePolicy=json.dumps({"Version": "2012-10-17"}))["arn"]
        for policy in policies:
            self.make(
                r.ROLE_POLICY, f"{name}-{policy}", role=f"q-{name}", policyArn=f"arn:aws:iam::aws:policy/{policy}"
            )
        return str(arn)

    def cluster(self, **more: Any) -> World:
        self.make(r.LOG_GROUP, "logs", name="/aws/eks/q/cluster", retentionInDays=7)
        role = self.role("cluster-role", "AmazonEKSClusterPolicy")
        inputs: dict[str, Any] = {
            "name": "q", "roleArn": role, "version": "1.35", "bootstrapSelfManagedAddons": False, "enabledClusterLogTypes": ["api"],
            "vpcConfig": {"subnetIds": [self.id("nodes"), self.id("second")], "endpointPublicAccess": True, "publicAccessCidrs": ["198.51.100.0/24"]},
            "accessConfig": {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": True},
        }  # fmt: skip
        self.make(r.CLUSTER, "cluster", **(inputs | more))
        for addon in ("vpc-cni", "kube-proxy", "eks-pod-identity-agent"):
            self.make(r.ADDON, addon, clusterName="q", addonName=addon)
        return self

    def pool(
        self,
        name: str,
        instance: str,
        count: int,
        *,
        gpu: bool = False,
        timeout_s: float | None = None,
        efa: int = 32,
        labels: dict[str, str] | None = None,
    ) -> World:
        if "node-role" not in self.made:
            self.role("node-role", "AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy")
        group = self.out("cluster")["vpcConfig"]["clusterSecurityGroupId"]
        nics = [
            {
                "networkCardIndex": 0,
                "deviceIndex": 0,
                "interfaceType": "interface",
                "securityGroups": [group],
                "deleteOnTermination": "true",
            }
        ]
        if gpu:
            nics += [{"networkCardIndex": 0, "deviceIndex": 1, "interfaceType": "efa-only", "securityGroups": [group]}]
            nics += [
                {"networkCardIndex": i, "deviceIndex": 0, "interfaceType": "efa-only", "securityGroups": [group]}
                for i in range(1, efa)
            ]
        template = self.make(
            r.LAUNCH_TEMPLATE, f"{name}-template", name=f"q-{name}", instanceType=instance, networkInterfaces=nics
        )
        self.make(
            r.NODE_GROUP, name, timeout_s, clusterName="q", nodeGroupName=f"q-{name}", nodeRoleArn=self.out("node-role")["arn"], subnetIds=[self.id("nodes")],
            scalingConfig={"desiredSize": count, "minSize": count, "maxSize": count}, launchTemplate={"id": template["id"], "version": str(template["latestVersion"])},
            amiType="AL2023_x86_64_NVIDIA" if gpu else "AL2023_x86_64_STANDARD", labels=labels or {"dynamo-recipes/stack": "q", "pool": name}, **({"taints": [GPU_TAINT]} if gpu else {}),
        )  # fmt: skip
        return self

    def cpu_pool(self) -> World:
        return self.pool("cpu", "m7i.8xlarge", 2)

    def gpu_pool(self, timeout_s: float | None = None) -> World:
        return self.pool("gpu", "p5.48xlarge", 2, gpu=True, timeout_s=timeout_s)

    def file_system(self) -> World:
        self.make(r.ADDON, "coredns", clusterName="q", addonName="coredns")
        fs = self.make(r.FILE_SYSTEM, "efs", creationToken="q", encrypted=True, throughputMode="elastic")["id"]
        self.make(
            r.MOUNT_TARGET, "target", fileSystemId=fs, subnetId=self.id("nodes"), securityGroups=[self.id("efs-group")]
        )
        role = self.role("efs-role", "service-role/AmazonEFSCSIDriverPolicy")
        self.make(
            r.POD_IDENTITY,
            "association",
            clusterName="q",
            namespace="kube-system",
            serviceAccount="efs-csi-controller-sa",
            roleArn=role,
        )
        self.make(r.ADDON, "efs-csi", clusterName="q", addonName="aws-efs-csi-driver")
        return self

    def storage(self) -> World:
        fs = self.file_system().id("efs")
        point = self.make(r.ACCESS_POINT, "point", fileSystemId=fs, posixUser={"uid": 1000, "gid": 1000})["id"]
        self.kube(r.NAMESPACE, "namespace", "serving", namespace=None)
        self.make(
            r.STORAGE_CLASS,
            "class",
            metadata={"name": "q-efs"},
            provisioner="efs.csi.aws.com",
            volumeBindingMode="Immediate",
        )
        spec = {"capacity": {"storage": "100Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "q-efs", "persistentVolumeReclaimPolicy": "Retain",
                "csi": {"driver": "efs.csi.aws.com", "volumeHandle": f"{fs}::{point}"}}  # fmt: skip
        self.make(r.PV, "volume", metadata={"name": "q-model"}, spec=spec)
        self.claim("claim")
        return self

    def claim(self, name: str, **more: Any) -> dict[str, Any]:
        spec = {
            "storageClassName": "q-efs",
            "volumeName": "q-model",
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "100Gi"}},
        }
        return self.kube(r.PVC, name, "model", spec=spec | more)

    def kube(
        self,
        typ: str,
        name: str,
        object_name: str,
        /,
        *,
        namespace: str | None = "serving",
        labels: dict[str, str] | None = None,
        **inputs: Any,
    ) -> dict[str, Any]:
        timeout_s = inputs.pop("timeout_s", None)
        metadata = {
            "name": object_name,
            **({"namespace": namespace} if namespace else {}),
            **({"labels": labels} if labels else {}),
            **inputs.pop("metadata", {}),
        }
        return self.make(typ, name, timeout_s, metadata=metadata, **inputs)

    def job(
        self, name: str, kind: str, timeout_s: float | None = 3600, spec: dict[str, Any] | None = None, **resources: str
    ) -> dict[str, Any]:
        container = {
            "name": "main",
            "image": "python:3.12-slim",
            # Devices have no request without a limit.
            "resources": {
                "requests": {"cpu": "2", "memory": "8Gi", **resources},
                "limits": {name: amount for name, amount in resources.items() if "/" in name},
            },
        }
        pod = {"containers": [container], "restartPolicy": "Never", **(spec or {})}
        return self.kube(
            r.JOB,
            name,
            f"q-{kind}",
            labels={"dynamo-recipes/job": kind},
            spec={"template": {"spec": pod}},
            timeout_s=timeout_s,
        )

    def weights(self) -> World:
        self.job(
            "weights", "weights", spec={"volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "model"}}]}
        )
        return self

    def release(self, name: str, chart: str, repo: str, **values: Any) -> dict[str, Any]:
        return self.make(
            r.RELEASE, name, name=name, namespace="serving", chart=chart, version="1.6.1", repositoryOpts={"repo": repo}, values=values, atomic=True
        )  # fmt: skip

    def platform(self) -> World:
        self.release("dynamo-platform", "dynamo-platform", "https://helm.ngc.nvidia.com/nvidia/ai-dynamo")
        return self

    def admission(self, graph: dict[str, Any] | None = None) -> World:
        self.kube(r.CONFIG_MAP, "graph-map", "graph", data={"graph.json": json.dumps(graph or self.graph_object())})
        self.job("admission", "admission", spec={"volumes": [{"name": "g", "configMap": {"name": "graph"}}]})
        return self

    def devices(self) -> World:
        self.release("nvidia", "nvidia-device-plugin", "https://nvidia.github.io/k8s-device-plugin")
        self.release(
            "efa",
            "aws-efa-k8s-device-plugin",
            "https://aws.github.io/eks-charts",
            tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
        )
        return self

    def graph_object(self, **components: dict[str, Any]) -> dict[str, Any]:
        def component(kind: str, replicas: int, gpus: int) -> dict[str, Any]:
            resources = {
                "cpu": "8",
                "memory": "64Gi",
                **({"nvidia.com/gpu": str(gpus), "vpc.amazonaws.com/efa": str(4 * gpus)} if gpus else {}),
            }
            args = ["--load-format", "runai_streamer"] if gpus else []
            container = {
                "name": "main",
                "image": "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1-efa",
                "args": args,
                "resources": {"requests": dict(resources), "limits": resources},
            }
            spec: dict[str, Any] = {
                "containers": [container],
                "volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "model"}}],
            }
            if gpus:
                spec |= {"tolerations": TOLERATE, "nodeSelector": {"dynamo-recipes/stack": "q"}}
            return {"name": kind.capitalize(), "type": kind, "replicas": replicas, "podTemplate": {"spec": spec}}

        parts = {
            "frontend": component("frontend", 1, 0),
            "prefill": component("prefill", 6, 2),
            "decode": component("decode", 2, 2),
        }
        for name, extra in components.items():
            parts[name] = parts[name] | extra
        metadata = {
            "name": "q",
            "namespace": "serving",
            "annotations": {"pulumi.com/deletionPropagationPolicy": "background"},
        }
        return {
            "apiVersion": "nvidia.com/v1beta1",
            "kind": "DynamoGraphDeployment",
            "metadata": metadata,
            "spec": {"backendFramework": "vllm", "components": list(parts.values())},
        }

    def graph(self, **components: dict[str, Any]) -> World:
        self.make(r.DGD, "graph", **self.graph_object(**components))
        return self

    def readiness(self, timeout_s: float = 7200) -> World:
        self.job("readiness", "readiness", timeout_s)
        return self

    def before_gpus(self) -> World:
        return self.network().cluster().cpu_pool().storage().weights().platform().admission()

    def whole(self) -> World:
        return self.before_gpus().gpu_pool().devices().graph().readiness()

    def destroy(self) -> World:
        """As the engine does where the cluster is owned: nothing inside the cluster is asked for, it goes with it."""
        order = ["gpu", "cpu", "gpu-template", "cpu-template", "efs-csi", "association", "coredns", "eks-pod-identity-agent", "kube-proxy", "vpc-cni", "cluster", "logs",
                 "point", "target", "efs", "nfs", "efs-group", "nodes-route", "public-route", "nodes-link", "public-link", "nodes-table", "public-table", "nat", "eip",
                 "igw", "nodes", "second", "public", "vpc"]  # fmt: skip
        roles = [n for n, m in self.made.items() if m[0] == r.ROLE_POLICY] + [
            n for n, m in self.made.items() if m[0] == r.ROLE
        ]
        for name in [*order, *roles]:
            if name in self.made:
                self.drop(name)
        return self
