"""What the program tells whoever runs it, beside errors and warnings."""

from __future__ import annotations

from recipe.plan import Plan


def when_gpu_nodes_fail(plan: Plan) -> str:
    """What to know and do when the GPU node group fails or times out.

    Said before it happens: the error itself is the provider's, and a hook on it would hide the errors of a destroy
    (docs/decisions, 23).
    """
    pool, access = plan.gpu_pool, plan.recipe.access
    assert pool is not None, "asked of a plan with GPU nodes only"
    usd = sum(line.usd_per_hour for line in plan.cost.lines if line.what.startswith("GPU nodes"))
    price = f"${usd:.2f} an hour" if usd else "a price the catalogue does not know"
    look = (
        f"aws eks describe-nodegroup --region {access.region} --cluster-name {plan.names.cluster} "
        f"--nodegroup-name {plan.names.gpu_node_group} --query nodegroup.status"
    )
    return (
        f"GPU nodes, {pool.count} x {pool.instance_type}, come last and cost {price} once they run. "
        "If their node group fails or times out, nothing is paid for GPUs yet, but AWS may still deliver them. Look:\n"
        f"    {look}\n"
        f"  ACTIVE: `pulumi refresh -s {plan.stack}`, then `pulumi up -s {plan.stack}`, keeps them. "
        f"Anything else: `pulumi up -s {plan.stack}` asks again, `pulumi destroy -s {plan.stack}` gives everything back."
    )
