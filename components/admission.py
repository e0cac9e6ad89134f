"""Asks the API server, before GPUs are paid for, whether it would take the graph.

A Job posts the graph with a server-side dry run, so that schema, CEL rules and the operator's webhook all have their say.
Deliberately not here: the graph (serving.py), and any judgement of our own: the plan has made that already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components._objects import create, create_account, create_job
from recipe.plan import Plan


@dataclass(frozen=True, kw_only=True)
class AdmissionArgs:
    """What an Admission is made from."""

    plan: Plan
    namespace: pulumi.Resource
    platform: Sequence[pulumi.Resource]
    """Brings the CRD and the webhook that judge; empty where a base has it."""


class Admission(pulumi.ComponentResource):
    """The dry-run Job and the least it may do."""

    def __init__(self, name: str, args: AdmissionArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamo-recipes:admission:Admission", name, None, opts)
        objects = args.plan.objects
        inside = pulumi.ResourceOptions(parent=self, depends_on=[args.namespace])
        rights = (objects.admission_account, objects.admission_role, objects.admission_binding)
        account = create_account(name, rights, self, args.namespace)
        config = create(f"{name}-config", objects.admission_config, inside)
        job = create_job(
            f"{name}-job",
            objects.admission_job,
            pulumi.ResourceOptions(parent=self, depends_on=[*account, config, *args.platform]),
        )
        self.register_outputs({"job": job.id})
