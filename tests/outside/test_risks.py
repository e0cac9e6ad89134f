"""checkov's opinion of what the program makes: AWS resources as a CloudFormation template, Jobs and every pod of the graph as manifests.

Clean, or suppressed one by one with a reason. It finds risks, not bad values (facts/aws-checks.md); those are test_aws_inputs.py's.
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ops.packages import packages
from ops.variants import Variant, each_stack
from tests.outside.aws_mapping import Template
from tests.program.recorder import Run, run_program

ADMINS = "access.admin_principals=[arn:aws:iam::111122223333:role/ops]"
SCANNED = ("qwen3-32b-disagg", "qwen3-32b-fp8-disagg", "mocker-cpu")
"""One stack of each engine."""


@dataclass(frozen=True)
class Finding:
    """A check that failed: of which stack, and on what."""

    check: str
    resource: str
    says: str


JOB, GRAPH, ANY = "Job.*", "Pod.*graph-*", "*"
SUPPRESSED: dict[tuple[str, str], str] = {
    ("CKV_AWS_158", "AWS::Logs::LogGroup.*"): "CloudWatch encrypts log groups by itself; a key of one's own is a cost and one more thing to delete, for logs of two weeks",
    ("CKV_AWS_58", "AWS::EKS::Cluster.*"): "since Kubernetes 1.28 EKS encrypts all API data with a key of AWS' own (EKS user guide, envelope encryption)",
    ("CKV_K8S_11", ANY): "a CPU limit throttles: it would idle GPUs, and slow a download down; requests are set",
    ("CKV_K8S_43", ANY): "images are pinned by version (recipe/catalogue/versions.py); digests of the engine images cannot be had without the registry",
    ("CKV_K8S_15", ANY): "tags are versions that do not move; Always would ask the registry on every restart of a worker",
    ("CKV_K8S_38", ANY): "only where a Job or a worker speaks to the API server: the dry run, the readiness Job, and workers that find each other through it",
    ("CKV_K8S_40", JOB): "user 1000 is whom the EFS access points squash everybody to; there is no host path to conflict with",
    ("CKV2_K8S_6", ANY): "no NetworkPolicy: EKS enforces none unless the CNI is told to, and a policy that nothing enforces says less than none",
    # Pods of the graph: what is rendered is not all, and NVIDIA's images decide a good part.
    ("CKV_K8S_8", GRAPH): "the operator adds the liveness probe of each component (facts/dynamo.md)",
    ("CKV_K8S_9", GRAPH): "the operator adds the readiness probe of each component (facts/dynamo.md)",
    ("CKV_K8S_20", GRAPH): "left to the image: with no_new_privs a worker that needs IPC_LOCK by a file capability would not get it (docs/unverified.md)",
    ("CKV_K8S_22", GRAPH): "engines write compiled kernels and sockets beside their code",
    ("CKV_K8S_23", GRAPH): "the images run as their own user `dynamo`; root is a switch of the recipe (recipe/policy.py)",
    ("CKV_K8S_25", GRAPH): "IPC_LOCK: EFA pins memory (recipe/policy.py)",
    ("CKV_K8S_28", GRAPH): "dropping NET_RAW means dropping ALL, which nobody has tried with NIXL and EFA (docs/unverified.md)",
    ("CKV_K8S_29", GRAPH): "no pod-wide context: user and group are the images' own, and the caches squash every writer to one",
    ("CKV_K8S_30", GRAPH): "frontend and aggregated workers need nothing beyond the image's defaults",
    ("CKV_K8S_31", GRAPH): "the runtime's default seccomp profile forbids calls that engines on GPUs may use; nobody has tried (docs/unverified.md)",
    ("CKV_K8S_37", GRAPH): "capabilities are the runtime's defaults and IPC_LOCK (see CKV_K8S_25 and 28)",
    ("CKV_K8S_40", GRAPH): "the images' user has the id 1000, whom the EFS access points know",
}  # fmt: skip


def pods(run: Run) -> list[dict[str, Any]]:
    """Every component of the graph as a pod: checkov does not know the operator's kind."""
    graph = run.plan.objects.graph
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"graph-{component['name']}", "namespace": graph["metadata"]["namespace"], "labels": {"graph": component["name"]}},
            "spec": component["podTemplate"]["spec"],
        }
        for component in graph["spec"]["components"]
    ]  # fmt: skip


def scan(folder: Path, template: Any, manifests: Iterable[Any] = ()) -> set[Finding]:
    """What checkov says of a template and manifests. No network."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "template.json").write_text(json.dumps(template), encoding="utf-8")
    for number, manifest in enumerate(manifests):
        # Values only the cloud knows would make it skip the whole object.
        text = json.dumps(_known(manifest))
        (folder / f"{number:02}.json").write_text(text, encoding="utf-8")
    path = packages(Path(__file__).with_name("requirements-checkov.txt"), "checkov")
    env = {"PATH": os.defpath, "PYTHONPATH": str(path), "HOME": str(folder), "BC_SKIP_MAPPING": "TRUE"}
    command = [
        sys.executable,
        "-P",
        "-m",
        "checkov.main",
        "--skip-download",
        "--quiet",
        "--compact",
        "--soft-fail",
        "--output",
        "json",
    ]
    command += ["--directory", str(folder), "--framework", "cloudformation", "kubernetes"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    found = set()
    for part in answer if isinstance(answer, list) else [answer]:
        assert part["summary"]["parsing_errors"] == 0, "what cannot be read is not looked at"
        found |= {
            Finding(one["check_id"], one["resource"], one["check_name"]) for one in part["results"]["failed_checks"]
        }
    return found


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_known(inner) for inner in value]
    return (
        value.replace("${", "").replace("}", "").replace("_", "-")
        if isinstance(value, str) and "${" in value
        else value
    )


def suppressed(finding: Finding) -> tuple[str, str] | None:
    """The row that says why it may stay."""
    return next(
        (row for row in SUPPRESSED if row[0] == finding.check and fnmatch.fnmatchcase(finding.resource, row[1])), None
    )


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> set[Finding]:
    """Of one stack of each engine, all in one go each."""
    chosen: list[Variant] = [variant for variant in each_stack() if variant.stack in SCANNED]
    assert len(chosen) == len(SCANNED)
    found: set[Finding] = set()
    for variant in chosen:
        run = run_program(variant.stack, variant.changed(ADMINS))
        template = Template()
        template.add(run, variant.stack)
        manifests = [one for one in run.plan.objects.all() if one["kind"] != "DynamoGraphDeployment"]
        found |= scan(tmp_path_factory.mktemp(variant.stack), template.document(), [*manifests, *pods(run)])
    return found


def test_nothing_is_found_but_what_has_its_reason(findings: set[Finding]) -> None:
    assert sorted(str(one) for one in findings if suppressed(one) is None) == []


def test_every_reason_is_for_something_that_is_found(findings: set[Finding]) -> None:
    used = {suppressed(one) for one in findings}
    unused = ", ".join(sorted(f"{check} {where}" for check, where in SUPPRESSED.keys() - used))
    assert not unused, f"{unused}: a suppression that nothing needs hides what comes next"


def test_it_says_no(tmp_path: Path) -> None:
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {
            "Files": {"Type": "AWS::EFS::FileSystem", "Properties": {"Encrypted": False}},
            "Template": {"Type": "AWS::EC2::LaunchTemplate", "Properties": {"LaunchTemplateData": {"MetadataOptions": {"HttpTokens": "optional"}}}},
        },
    }  # fmt: skip
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
        "spec": {"hostNetwork": True, "containers": [{"name": "c", "image": "x", "securityContext": {"privileged": True}}]},
    }  # fmt: skip
    checks = {one.check for one in scan(tmp_path, template, [pod])}
    assert {"CKV_AWS_42", "CKV_AWS_79", "CKV_K8S_16", "CKV_K8S_19"} <= checks
