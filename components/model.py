"""A model on a foundation: caches, weights, dry run, GPU nodes, graph. The order in which money starts to be spent is here.

Deliberately not here: the foundation, and whether it is the stack's own.
"""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from components.admission import Admission, AdmissionArgs
from components.benchmark import Benchmark, BenchmarkArgs, Results, ResultsArgs
from components.foundation import Foundation
from components.identity import Identity
from components.nodes import CpuPool, GpuPool, GpuPoolArgs
from components.serving import Serving, ServingArgs
from components.storage import Caches, CachesArgs
from components.weights import Weights, WeightsArgs, WeightsHead
from recipe.plan import Plan


def serve(
    plan: Plan,
    foundation: Foundation,
    identity: Identity,
    account: aws.Provider,
    hf_token: pulumi.Output[str] | None,
) -> None:
    """Everything of a stack that is about its model. `hf_token`: secret, given exactly when the plan has a token secret."""
    caches = Caches(
        "caches",
        CachesArgs(
            plan=plan,
            late=foundation.late,
            storage=foundation.storage,
            nodes=foundation.nodes,
            shared=foundation.shared,
        ),
        foundation.objects,
    )
    inside = foundation.inside(caches.namespace)
    of_weights = WeightsArgs(plan=plan, hf_token=hf_token, caches=caches, nodes=foundation.nodes)
    weights = Weights("weights", of_weights, inside)
    admission = Admission(
        "admission",
        AdmissionArgs(plan=plan, namespace=caches.namespace, platform=foundation.platform),
        inside,
    )
    # GPUs are the last thing paid for: by now everything that can go wrong for cents has gone right.
    before_gpus = [caches, *foundation.platform, *foundation.devices, admission]
    if plan.objects.head_job:
        before_gpus.append(WeightsHead("head", of_weights, inside))
    elif plan.recipe.weights.wait:
        before_gpus.append(weights)
    workers_nodes: GpuPool | CpuPool = foundation.nodes
    if plan.gpu_pool:
        workers_nodes = GpuPool(
            "gpu",
            GpuPoolArgs(plan=plan, identity=identity, site=foundation.site, wait_for=before_gpus),
            pulumi.ResourceOptions(providers=[account]),
        )
    results = (
        [
            Results(
                "results",
                ResultsArgs(plan=plan, identity=identity, site=foundation.site),
                pulumi.ResourceOptions(providers=[account]),
            )
        ]
        if plan.bucket
        else []
    )
    if not plan.paused:
        serving = Serving(
            "serving",
            ServingArgs(plan=plan, namespace=caches.namespace, nodes=workers_nodes, wait_for=[weights, *before_gpus]),
            inside,
        )
        if plan.benchmark:
            measured = [serving, weights, caches, *results]
            args = BenchmarkArgs(plan=plan, namespace=caches.namespace, nodes=workers_nodes, wait_for=measured)
            Benchmark("benchmark", args, inside)
