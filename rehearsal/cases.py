"""What can go wrong, each at each place where it can happen: a fault, when it strikes, and the row of ops/symptoms.py that has to name it.

Tried by `make chaos` (ops/chaos.py), which ends each with a destroy, and by the doctor's tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rehearsal.cloud import rules

ALWAYS = None
P_QUOTA, CPU_QUOTA = "L-417A185B", "L-1216C47A"
NEVER_ASKED = {rules.EGRESS_RULE, rules.BUCKET, rules.BUCKET_ACCESS, rules.INLINE_POLICY}
"""Types that no stack here has any of: a fault that strikes nothing proves nothing. The last three come with a benchmark's bucket only."""


@dataclass(frozen=True)
class Case:
    """`stage`: the command it strikes in; `pause`: an edit that takes the graph away, before `destroy` would take all.

    `on_base`: it can only strike a stack on a base, where objects do not go with their cluster.
    """

    name: str
    symptom: str
    faults: tuple[Mapping[str, Any], ...] = ()
    account: Mapping[str, Any] = field(default_factory=dict)
    capacity: Mapping[str, int] = field(default_factory=dict)
    stage: Literal["up", "destroy", "pause"] = "up"
    on_base: bool = False

    def as_file(self) -> dict[str, Any]:
        """A faults file (rehearsal/cloud/faults.py)."""
        return {"faults": list(self.faults), "account": dict(self.account), "capacity": dict(self.capacity)}


def _before(typ: str, error: str, op: str = "create", name: str = "") -> dict[str, Any]:
    return {"op": op, "type": typ, "error": error, "name_contains": name, "times": 1}


def _after(typ: str, error: str, op: str = "create", name: str = "", **more: Any) -> dict[str, Any]:
    return {"op": op, "type": typ, "when": "after", "error": error, "name_contains": name, **more}


AWS_TYPES = tuple(sorted(typ for typ in rules.TYPES if typ.startswith("aws:") and typ not in NEVER_ASKED))


def _everywhere() -> Iterator[Case]:
    """What can strike any call."""
    for typ in AWS_TYPES:
        kind = typ.rpartition(":")[2]
        yield Case(f"throttled at {kind}", "throttled", (_before(typ, "ThrottlingException: Rate exceeded"),))
        yield Case(f"credentials expire at {kind}", "credentials-expired", (_before(typ, "expired"),))
        # Nothing is asked to end an attachment of the last role before the cluster itself is gone: all of them are deletes.
        yield Case(
            f"throttled when {kind} goes",
            "throttled",
            (_before(typ, "RequestLimitExceeded: Request limit exceeded.", "delete"),),
            stage="destroy",
        )
    for typ in (rules.NAMESPACE, rules.CONFIG_MAP, rules.PV, rules.PVC, rules.JOB, rules.RELEASE):
        kind = typ.rpartition(":")[2]
        yield Case(f"credentials expire at {kind}", "credentials-expired", (_before(typ, "expired"),))


def _each() -> Iterator[Case]:
    yield Case(
        "no GPU capacity", "no-capacity", (_after(rules.NODE_GROUP, "InsufficientInstanceCapacity", name="gpu"),)
    )
    yield Case("capacity for one of two nodes", "no-capacity", capacity={"p5.48xlarge": 1})
    yield Case("no CPU capacity", "no-capacity", capacity={"m7i.8xlarge": 0})
    yield Case("quota of P instances", "quota", account={"quotas": {P_QUOTA: 192}})
    yield Case("quota of standard instances", "quota", account={"quotas": {CPU_QUOTA: 32}})
    yield Case(
        "quota of addresses",
        "quota",
        (_before(rules.EIP, "AddressLimitExceeded: The maximum number of addresses has been reached."),),
    )
    yield Case(
        "quota of VPCs",
        "quota",
        (_before(rules.VPC, "VpcLimitExceeded: The maximum number of VPCs has been reached."),),
    )
    yield Case(
        "quota of clusters",
        "quota",
        (_before(rules.CLUSTER, "ResourceLimitExceededException: You have reached the maximum number of clusters"),),
    )
    yield Case(
        "quota of file systems",
        "quota",
        (_before(rules.FILE_SYSTEM, "FileSystemLimitExceeded: too many file systems"),),
    )
    yield Case("no GPU type in the zone", "zone-without-type", account={"zones_without": {"p5.48xlarge": ["use2-az1"]}})
    yield Case("no CPU type in the zone", "zone-without-type", account={"zones_without": {"m7i.8xlarge": ["use2-az1"]}})
    yield Case(
        "a zone that is not open",
        "zone-unknown",
        (
            _before(
                rules.SUBNET, "InvalidParameterValue: Value (use2-az1) for parameter availabilityZoneId is invalid."
            ),
        ),
    )
    yield Case(
        "not allowed to make roles",
        "not-permitted",
        (_before(rules.ROLE, "AccessDenied: User is not authorized to perform: iam:CreateRole"),),
    )
    yield Case("weights: 401", "token-refused", (_after(rules.JOB, "401", name="weights"),))
    yield Case(
        "weights: 429 until the deadline", "hub-slow", (_after(rules.JOB, "429", name="weights", delay_s=20_000),)
    )
    yield Case("weights: disk full", "disk-full", (_after(rules.JOB, "disk-full", name="weights"),))
    yield Case("weights: truncated", "weights-damaged", (_after(rules.JOB, "truncated", name="weights"),))
    yield Case("EFS driver late", "driver-late", (_after(rules.ADDON, "late", name="driver", delay_s=1200),))
    silent = (
        'failed calling webhook "vdynamographdeployment.kb.io": dial tcp 10.100.0.9:443: connect: connection refused'
    )
    yield Case("webhook silent", "webhook-silent", ({"type": rules.DGD, "error": silent, "times": ALWAYS},))
    yield Case(
        "graph refused",
        "graph-refused",
        ({"type": rules.DGD, "error": "admission webhook denied the request: spec.components[1]: no", "times": 1},),
    )
    yield Case("graph failed", "graph-failed", (_after(rules.DGD, "failed"),))
    yield Case("image cannot be pulled", "image-unknown", (_after(rules.DGD, "ImagePullBackOff"),))
    yield Case("workers crash", "crash-loop", (_after(rules.DGD, "CrashLoopBackOff"),))
    yield Case(
        "a chart times out",
        "chart-failed",
        (
            _before(
                rules.RELEASE,
                "Helm release dynamo-system/dynamo-platform was created, but failed to initialize completely: context deadline exceeded",
                name="platform",
            ),
        ),
    )
    yield Case(
        "something exists already",
        "already-exists",
        (_before(rules.CLUSTER, "ResourceInUseException: Cluster already exists with name: x"),),
    )
    yield Case("graph's finalizer hangs", "graph-stays", (_before(rules.DGD, "stuck", "delete"),), stage="pause")
    timeout = "configured Kubernetes cluster is unreachable: unable to load schema information from the API server: dial tcp 203.0.113.9:443: i/o timeout"
    for release in ("platform", "nvidia", "efa"):
        yield Case(
            f"cluster unreachable when {release} goes",
            "cluster-unreachable",
            (_before(rules.RELEASE, timeout, "delete", release),),
            stage="destroy",
        )
    yield Case(
        "interface left by GPU nodes",
        "interface-left",
        (_after(rules.NODE_GROUP, "interface-left", "delete", "gpu"),),
        stage="destroy",
    )
    yield Case(
        "interface left by CPU nodes",
        "interface-left",
        (_after(rules.NODE_GROUP, "interface-left", "delete", "cpu"),),
        stage="destroy",
    )
    yield Case(
        "interface left by the cluster",
        "interface-left",
        (_after(rules.CLUSTER, "interface-left", "delete"),),
        stage="destroy",
    )


def _on_base() -> Iterator[Case]:
    """In a cluster that stays, what is in it has to go by itself."""
    stuck = (_before(rules.PV, "stuck", "delete"),)
    yield Case("PersistentVolume stays Terminating on a base", "claim-stays", stuck, stage="destroy", on_base=True)
    for typ in (rules.NODE_GROUP, rules.LAUNCH_TEMPLATE, rules.PV, rules.NAMESPACE):
        kind = typ.rpartition(":")[2]
        fault = _before(typ, "expired", "delete")
        yield Case(
            f"credentials expire when {kind} goes on a base",
            "credentials-expired",
            (fault,),
            stage="destroy",
            on_base=True,
        )


CASES = {case.name: case for case in (*_each(), *_everywhere(), *_on_base())}
KINDS = {case.name: case for case in _each()}
"""One of each kind and place that is not simply any call."""
