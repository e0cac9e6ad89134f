"""The program: read the recipe, plan, create, export. What is decided is in `recipe/`, what is created in `components/`."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pulumi
import pulumi_aws as aws

from components import foundation as foundations
from components.identity import Identity, IdentityArgs
from components.model import serve
from recipe.advice import when_gpu_nodes_fail
from recipe.checks import check_token
from recipe.config import RECIPE_KEY, FromBase, parse_any
from recipe.errors import RecipeError
from recipe.plan import BasePlan, Plan
from recipe.planner import make_plan
from recipe.stack_file import read_base

config = pulumi.Config()
try:
    recipe = parse_any(config.get_object(RECIPE_KEY))
    plan = make_plan(
        pulumi.get_stack(),
        recipe,
        # For the rehearsal and for previews without an account: documentation values stand for what only the user knows.
        placeholders=os.environ.get("DYNAMO_RECIPES_PLACEHOLDERS") == "1",
        # From its file, as `ops plan` reads it too: a plan asks nobody. The base's outputs are then held against it.
        base=read_base(recipe, Path(__file__).parent / "stacks"),
    )
    token = f"{config.name}:hfToken"
    if problems := check_token(
        pulumi.get_stack(),
        needed=isinstance(plan, Plan) and plan.objects.token_secret is not None,
        value=pulumi.runtime.get_config(token),
        secret=pulumi.runtime.is_config_secret(token),
    ):
        raise RecipeError(problems, "the stack's config")
except RecipeError as error:
    raise pulumi.RunError(str(error)) from None
# A program of one second that keeps nearly all it makes: walking the SDKs' classes again and again for garbage is a seventh of a preview.
gc.disable()
for warning in plan.warnings:
    pulumi.log.warn(warning)
for note in plan.notes:
    pulumi.log.info(note)
if isinstance(plan, Plan) and plan.gpu_pool and not pulumi.runtime.is_dry_run():
    pulumi.log.info(when_gpu_nodes_fail(plan))

names, access = plan.names, plan.recipe.access
assert access.account_id is not None, "a plan without it is refused"
protect = pulumi.ResourceOptions(protect=True) if isinstance(plan, BasePlan) else None
found = foundations.base_outputs(plan) if isinstance(plan, Plan) and plan.base else None
identity = Identity("identity", IdentityArgs(plan=plan, after=found), protect)
account = aws.Provider(
    "aws",
    region=access.region,
    allowed_account_ids=[access.account_id],
    # Another region waits until everything is gone from the old one. Not through `tie`: a provider that is itself replaced is
    # closed by the engine before it could delete anything.
    opts=pulumi.ResourceOptions.merge(protect, pulumi.ResourceOptions(depends_on=[identity])),
)
pulumi.export("kubeconfig", f"aws eks update-kubeconfig --region {access.region} --name {names.cluster}")
pulumi.export("usdPerHour", plan.cost.usd_per_hour)
pulumi.export("versions", plan.versions)

if isinstance(plan, BasePlan):
    foundation = foundations.create_foundation(plan, identity, account)
    pulumi.export(foundations.OUTPUT, foundations.outputs(plan, foundation))
else:
    if found is not None and isinstance(plan.recipe.foundation, FromBase):
        foundation = foundations.take_foundation(plan, found, identity, account)
        pulumi.export("base", foundations.base_reference(plan.recipe.foundation))
    else:
        foundation = foundations.create_foundation(plan, identity, account)
    hf_token = config.require_secret("hfToken") if plan.objects.token_secret else None
    serve(plan, foundation, identity, account, hf_token)
    if not plan.paused:
        forward = f"kubectl -n {names.namespace} port-forward service/{names.frontend_service} 8000:8000"
        pulumi.export("endpoint", f"http://{names.frontend_service}.{names.namespace}:8000/v1")
        pulumi.export("portForward", forward)
    pulumi.export("namespace", names.namespace)
    pulumi.export("graph", names.graph)
    pulumi.export("gpus", plan.gpus)
    pulumi.export("weightsRevision", plan.model.revision)
# Everything is registered; `up` now waits for up to an hour. What is loaded by now stays, and is not looked at again.
gc.freeze()
gc.enable()
