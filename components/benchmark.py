"""The benchmark: a Job that measures the stack, and what lets it copy its results to S3.

`Results` is AWS' half: the bucket, where this stack makes one, and the Job's right to put objects below one prefix of it, by Pod Identity.
`Benchmark` is the cluster's half. Deliberately not here: who runs it (`ops bench`) and what is measured (recipe/benchmark.py); and nothing
at all unless the recipe asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components._iam import service_role
from components._objects import create, create_job, fill
from components._tags import named
from components.identity import Identity
from components.nodes import CpuPool, GpuPool
from components.site import Site
from recipe.benchmark import ACCOUNT
from recipe.plan import Late, Plan


@dataclass(frozen=True, kw_only=True)
class ResultsArgs:
    """What Results are made from."""

    plan: Plan
    identity: Identity
    site: Site


class Results(pulumi.ComponentResource):
    """The bucket of results, kept when everything else goes, and while a benchmark is asked for the Job's way into it."""

    def __init__(self, name: str, args: ResultsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:benchmark:Results", name, None, opts)
        plan, bucket = args.plan, args.plan.bucket
        assert bucket is not None, "the plan has a bucket"
        needed: list[pulumi.Resource] = []
        if bucket.created:
            # What was measured for dollars a minute outlives the stack: the engine forgets both, nothing deletes them.
            kept = pulumi.ResourceOptions(parent=self, retain_on_delete=True)
            made = aws.s3.Bucket(f"{name}-bucket", bucket=bucket.name, tags=named(plan.tags, bucket.name), opts=kept)
            closed = aws.s3.BucketPublicAccessBlock(
                f"{name}-private",
                bucket=made.id,
                block_public_acls=True,
                block_public_policy=True,
                ignore_public_acls=True,
                restrict_public_buckets=True,
                opts=kept,
            )
            needed = [made, closed]
        if plan.benchmark:
            child = pulumi.ResourceOptions(parent=self)
            role_name = plan.names.benchmark_role
            role, _ = service_role(
                f"{name}-role", args.identity.tie(role_name), role_name, "pods.eks.amazonaws.com", (), plan.tags, child
            )
            objects = f"arn:aws:s3:::{bucket.name}/{bucket.prefix}{plan.stack}/*"
            statement = {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": [objects]}
            policy = aws.iam.RolePolicy(
                f"{name}-put",
                name="put-results",
                role=role.name,
                policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
                opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),  # its name is unique in the role
            )
            aws.eks.PodIdentityAssociation(
                f"{name}-identity",
                cluster_name=args.site.cluster_name,
                namespace=plan.names.namespace,
                service_account=ACCOUNT,
                role_arn=role.arn,
                tags=named(plan.tags, role_name),
                opts=pulumi.ResourceOptions(
                    parent=self,
                    # policy: the Job must find it in force. Behind the site, where it is ours, stand the add-ons with the Pod Identity agent.
                    depends_on=[policy, *args.site.outlives_nodes, *needed],
                    delete_before_replace=True,  # one per service account
                ),
            )
        self.register_outputs({"bucket": bucket.name})


@dataclass(frozen=True, kw_only=True)
class BenchmarkArgs:
    """What a Benchmark is made from."""

    plan: Plan
    namespace: pulumi.Resource
    nodes: GpuPool | CpuPool
    """Where the workers run: the Job's name carries which ones were measured."""
    wait_for: Sequence[pulumi.Resource]
    """The stack, proved to serve: what it measures must be what this `up` made."""


class Benchmark(pulumi.ComponentResource):
    """The benchmark Job, awaited: a benchmark that fails fails the `up`, with the reason."""

    def __init__(self, name: str, args: BenchmarkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:benchmark:Benchmark", name, None, opts)
        objects = args.plan.objects
        assert objects.benchmark_config, "the plan has a benchmark"
        assert objects.benchmark_job
        inside = pulumi.ResourceOptions(parent=self, depends_on=[args.namespace])
        config = create(f"{name}-config", objects.benchmark_config, inside)
        accounts = [create(f"{name}-account", objects.benchmark_account, inside)] if objects.benchmark_account else []
        job = create_job(
            f"{name}-job",
            fill(objects.benchmark_job, dict.fromkeys((Late.GPU_NODES, Late.CPU_NODES), args.nodes.generation)),
            pulumi.ResourceOptions(parent=self, depends_on=[config, *accounts, *args.wait_for]),
        )
        self.register_outputs({"job": job.id})
