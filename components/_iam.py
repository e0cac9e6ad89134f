"""IAM roles assumed by AWS services."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import pulumi
import pulumi_aws as aws

from components._tags import named


def service_role(
    name: str,
    physical_name: pulumi.Input[str],
    label: str,
    service: str,
    policies: Iterable[str],
    tags: Mapping[str, str],
    opts: pulumi.ResourceOptions,
) -> tuple[aws.iam.Role, list[aws.iam.RolePolicyAttachment]]:
    """A role for `service` with AWS' managed `policies` (the part of the ARN behind `policy/`), and the attachments.

    `label` is its Name tag. Whatever uses the role should depend on the attachments: without them on destroy, the service cannot clean up.
    """
    actions = ["sts:AssumeRole", "sts:TagSession"] if service == "pods.eks.amazonaws.com" else ["sts:AssumeRole"]
    statement = {"Effect": "Allow", "Action": actions, "Principal": {"Service": service}}
    role = aws.iam.Role(
        name,
        name=physical_name,
        assume_role_policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        tags=named(tags, label),
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(delete_before_replace=True)),
    )
    attachments = [
        aws.iam.RolePolicyAttachment(
            f"{name}-{policy.rsplit('/', 1)[-1]}",
            role=role.name,
            policy_arn=f"arn:aws:iam::aws:policy/{policy}",
            opts=opts,
        )
        for policy in policies
    ]
    return role, attachments
