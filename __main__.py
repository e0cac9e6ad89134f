"""The program: read the recipe, plan, create, export. What is decided is in `recipe/`, what is created in `components/`."""

from __future__ import annotations

import os

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from components.admission import Admission, AdmissionArgs
from components.benchmark import Benchmark, BenchmarkArgs, Results, ResultsArgs
from components.cluster import Cluster, ClusterArgs
from components.devices import Devices, DevicesArgs
from components.identity import Identity, IdentityArgs
from components.network import Network, NetworkArgs
from components.nodes import CpuPool, GpuPool, GpuPoolArgs, PoolArgs
from components.platform import Platform, PlatformArgs
from components.serving import Serving, ServingArgs
from components.storage import Caches, CachesArgs, FileSystem, FileSystemArgs
from components.weights import Weights, WeightsArgs
from recipe.advice import when_gpu_nodes_fail
from recipe.config import RECIPE_KEY, parse
from recipe.errors import RecipeError
from recipe.planner import make_plan

config = pulumi.Config()
try:
    plan = make_plan(
        pulumi.get_stack(),
        parse(config.get_object(RECIPE_KEY)),
        # For the rehearsal and for previews without an account: documentation values stand for what only the user knows.
        placeholders=os.environ.get("DYNAMO_RECIPES_PLACEHOLDERS") == "1",
    )
except RecipeError as error:
    raise pulumi.RunError(str(error)) from None
for warning in plan.warnings:
    pulumi.log.warn(warning)
for note in plan.notes:
    pulumi.log.info(note)
if plan.gpu_pool and not pulumi.runtime.is_dry_run():
    pulumi.log.info(when_gpu_nodes_fail(plan))

access = plan.recipe.access
assert access.account_id is not None, "a plan without it is refused"
identity = Identity("identity", IdentityArgs(plan=plan))
account = aws.Provider(
    "aws",
    region=access.region,
    allowed_account_ids=[access.account_id],
    # Another region waits until everything is gone from the old one. Not through `tie`: a provider that is itself replaced is
    # closed by the engine before it could delete anything.
    opts=pulumi.ResourceOptions(depends_on=[identity]),
)
on_aws = pulumi.ResourceOptions(providers=[account])
network = Network("network", NetworkArgs(plan=plan, identity=identity), on_aws)
cluster = Cluster("cluster", ClusterArgs(plan=plan, identity=identity, network=network), on_aws)
cpu = CpuPool("cpu", PoolArgs(plan=plan, identity=identity, network=network, cluster=cluster), on_aws)
files = FileSystem(
    "files", FileSystemArgs(plan=plan, identity=identity, network=network, cluster=cluster, nodes=cpu), on_aws
)


def api_server(name: str, identifier: pulumi.Input[str]) -> kubernetes.Provider:
    """A provider for the cluster."""
    return kubernetes.Provider(
        name,
        kubeconfig=cluster.kubeconfig,
        # A kubeconfig unknown in a preview then does not count as another cluster, which would replace every object.
        cluster_identifier=identifier,
        enable_server_side_apply=True,
        # After a failed delete of the cluster its objects are gone from the state only: the next `up` adopts them.
        upsert_existing_objects=True,
        # Names are fixed, so a changed ConfigMap or Secret changes in place instead of being deleted and made again.
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
    )


# Objects go with their cluster: no finalizer and no lost kubeconfig can hold up the release of GPU nodes. Their provider is
# replaced with the identity, and they with it.
in_cluster = pulumi.ResourceOptions(
    providers=[api_server("kubernetes", identity.tie(plan.cluster.identifier))], deleted_with=cluster.cluster
)
# Charts do not: the provider never adopts a release, so one that was only forgotten would block the next `up`. GPU nodes
# depend on them and are gone before any is uninstalled. A provider of their own, because the engine closes one that is
# replaced before it has deleted anything; the releases themselves hang on the identity.
charts = pulumi.ResourceOptions(providers=[api_server("helm", plan.cluster.identifier)])
caches = Caches("caches", CachesArgs(plan=plan, files=files), in_cluster)
hf_token = config.require_secret("hfToken") if plan.objects.token_secret else None
weights = Weights("weights", WeightsArgs(plan=plan, hf_token=hf_token, caches=caches, nodes=cpu), in_cluster)
platform = Platform("platform", PlatformArgs(plan=plan, identity=identity, nodes=cpu), charts)
devices = (
    [Devices("devices", DevicesArgs(plan=plan, identity=identity, cluster=cluster), charts)] if plan.devices else []
)
admission = Admission("admission", AdmissionArgs(plan=plan, namespace=caches.namespace, platform=platform), in_cluster)

# GPUs are the last thing paid for: by now everything that can go wrong for cents has gone right.
before_gpus = [caches, platform, *devices, admission, *([weights] if plan.recipe.weights.wait else [])]
workers_nodes: GpuPool | CpuPool = cpu
if plan.gpu_pool:
    gpu_args = GpuPoolArgs(plan=plan, identity=identity, network=network, cluster=cluster, wait_for=before_gpus)
    workers_nodes = GpuPool("gpu", gpu_args, on_aws)
names = plan.names
results = (
    [Results("results", ResultsArgs(plan=plan, identity=identity, cluster=cluster), on_aws)] if plan.bucket else []
)
if not plan.paused:
    serving = Serving(
        "serving",
        ServingArgs(plan=plan, namespace=caches.namespace, nodes=workers_nodes, wait_for=[weights, *before_gpus]),
        in_cluster,
    )
    if plan.benchmark:
        measured = [serving, weights, caches, *results]
        benchmark = BenchmarkArgs(plan=plan, namespace=caches.namespace, nodes=workers_nodes, wait_for=measured)
        Benchmark("benchmark", benchmark, in_cluster)
    forward = f"kubectl -n {names.namespace} port-forward service/{names.frontend_service} 8000:8000"
    pulumi.export("endpoint", f"http://{names.frontend_service}.{names.namespace}:8000/v1")
    pulumi.export("portForward", forward)
pulumi.export("kubeconfig", f"aws eks update-kubeconfig --region {access.region} --name {names.cluster}")
pulumi.export("namespace", names.namespace)
pulumi.export("graph", names.graph)
pulumi.export("gpus", plan.gpus)
pulumi.export("usdPerHour", plan.cost.usd_per_hour)
pulumi.export("weightsRevision", plan.model.revision)
pulumi.export("versions", plan.versions)
