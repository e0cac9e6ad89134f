"""The AWS account, as commands see it: one small interface, the real account behind it or the pretend cloud.

`connect(region)` chooses: inside a rehearsal (`ops rehearse --shell`, a `Session`) the pretend cloud, else AWS. What a command asks is
here or goes through `Account.call`; nothing else in `ops/` talks to AWS. Planning never comes here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from ops.exits import FAILED, CommandError
from ops.packages import ROOT, packages
from ops.things import Marks, Thing

REQUIREMENTS: Final = ROOT / "requirements-aws.txt"
PRETEND: Final = "DYNAMO_RECIPES_PRETEND_CLOUD"
"""Environment variable: the folder of the pretend cloud to ask instead of AWS. A rehearsal's session sets it."""


_MOST_EVENTS: Final = 500
"""Of CloudTrail's newest: it answers two questions a second, fifty events each."""


class AwsError(Exception):
    """AWS said no, or could not be asked. `code` is AWS' own word (ExpiredToken, UnauthorizedOperation, …) or botocore's."""

    def __init__(self, code: str, message: str, asked: str = "") -> None:
        super().__init__(f"{asked}: {code}: {message}" if asked else f"{code}: {message}")
        self.code, self.message, self.asked = code, message, asked


@dataclass(frozen=True)
class Identity:
    """Who asks."""

    account: str
    arn: str


EKS_TAKES_NODES: Final = timedelta(minutes=40)
"""Before a Capacity Block's end, EKS scales its nodes down (facts/aws.md §3)."""
EC2_STOPS: Final = timedelta(minutes=30)
"""Before its end, EC2 ends the instances."""


@dataclass(frozen=True)
class Reservation:
    """A capacity reservation or a Capacity Block. `end` None: until it is cancelled."""

    id: str
    instance_type: str
    zone_id: str
    state: str
    total: int
    available: int
    block: bool
    """Whether it is a Capacity Block."""
    start: datetime | None
    end: datetime | None


@dataclass(frozen=True)
class Issue:
    """What a service itself says is wrong with a thing of it."""

    code: str
    message: str


@dataclass(frozen=True)
class Part:
    """A cluster, node group or add-on: its state and what EKS says about it."""

    name: str
    status: str
    issues: tuple[Issue, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """A call that AWS refused, as CloudTrail keeps it (up to a quarter of an hour late)."""

    at: datetime
    call: str
    """What was asked, like CreateNodegroup."""
    code: str
    message: str
    resource: str = ""


class Account(Protocol):
    """What commands ask of an account in one region. Every method may raise AwsError."""

    region: str

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def identity(self) -> Identity:
        """Whose credentials these are."""

    def zones(self) -> tuple[str, ...]:
        """Ids of the region's availability zones that the account may use."""

    def zones_offering(self, instance_type: str) -> tuple[str, ...]:
        """Ids of the zones that have the type at all."""

    def quota(self, code: str) -> float:
        """The value of an EC2 quota (vCPUs)."""

    def running(self) -> dict[str, int]:
        """Instances by type that count against on-demand quotas: pending or running, in no reservation and not spot."""

    def reservation(self, reservation_id: str) -> Reservation | None:
        """The reservation, or None where the account has none of that id in this region."""

    def cluster(self, name: str) -> Part | None:
        """The EKS cluster, or None."""

    def node_groups(self, cluster: str) -> tuple[Part, ...]:
        """The cluster's node groups."""

    def addons(self, cluster: str) -> tuple[Part, ...]:
        """The cluster's add-ons."""

    def interfaces(self, vpc_tag: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        """Network interfaces in VPCs with that tag that belong to nothing any more: (id, what EC2 says it was for)."""

    def refusals(self, since: datetime) -> tuple[Refusal, ...]:
        """What AWS refused since then, newest first."""


class Keeper(Account, Protocol):
    """What commands ask that take things in and away (`recover`, `sweep`). Every method may raise AwsError."""

    def gpu_groups(self) -> tuple[Thing, ...]:
        """Node groups with GPUs that carry this project's tag, of every stack and whoever made them."""

    def things(self, marks: Marks) -> tuple[Thing, ...]:
        """Everything that exists and belongs to the deployment, what services made by themselves included."""

    def remove(self, thing: Thing) -> None:
        """Ask for its end, which may take a while; that it is gone already is fine."""

    def now(self) -> datetime:
        """The account's time."""

    pause_seconds: float
    """How long to wait before looking again at what takes its time."""


def connect(region: str) -> Keeper:
    """The account that the environment leads to. Use it as a context manager."""
    if folder := os.environ.get(PRETEND):
        from ops.aws_pretend import PretendAccount  # here alone: it brings the rehearsal

        return PretendAccount(Path(folder), region)
    return AwsAccount(region)


@dataclass
class AwsAccount:
    """AWS itself, through boto3 in a process of its own (requirements-aws.txt says why)."""

    region: str
    environment: dict[str, str] = field(default_factory=dict)
    """Variables for that process alone, such as AWS_ENDPOINT_URL."""
    _child: subprocess.Popen[str] | None = None
    pause_seconds: float = 10.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.wait()
            for stream in (self._child.stdin, self._child.stdout):
                if stream is not None:
                    stream.close()
            self._child = None

    def call(self, service: str, operation: str, *, region: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The whole answer to one operation by its boto3 name, all pages of it. Raises AwsError."""
        child = self._started()
        assert child.stdin is not None
        assert child.stdout is not None
        asked = {
            "service": service, "operation": operation, "region": region or self.region, "parameters": parameters
        }  # fmt: skip
        try:
            child.stdin.write(json.dumps(asked) + "\n")
            child.stdin.flush()
            answer = json.loads(child.stdout.readline())
        except (BrokenPipeError, ValueError):
            self._end()  # the next call starts another one
            raise CommandError(
                "the process that asks AWS ended",
                "the same command again; if it stays: rm -r .cache",
                FAILED,
            ) from None
        except BaseException:  # Ctrl-C: its answer would be taken for that to the next question
            self._end()
            raise
        if "ok" not in answer:
            raise AwsError(answer["code"], answer["message"], f"{service}:{operation}")
        found: dict[str, Any] = answer["ok"]
        return found

    def _started(self) -> subprocess.Popen[str]:
        if self._child is None:
            path = packages(REQUIREMENTS, "aws")
            self._child = subprocess.Popen(
                [sys.executable, "-P", str(ROOT / "ops" / "aws_child.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **self.environment, "PYTHONPATH": str(path)},
                start_new_session=True,  # Ctrl-C is for us to hear: whoever cleans up needs it until the end
            )
        return self._child

    def identity(self) -> Identity:
        found = self.call("sts", "get_caller_identity")
        return Identity(found["Account"], found["Arn"])

    def zones(self) -> tuple[str, ...]:
        found = self.call("ec2", "describe_availability_zones")["AvailabilityZones"]
        # Local and wavelength zones are no place for EKS nodes with EFA.
        return tuple(
            sorted(zone["ZoneId"] for zone in found if zone.get("ZoneType", "availability-zone") == "availability-zone")
        )

    def zones_offering(self, instance_type: str) -> tuple[str, ...]:
        wanted = [{"Name": "instance-type", "Values": [instance_type]}]
        found = self.call(
            "ec2", "describe_instance_type_offerings", LocationType="availability-zone-id", Filters=wanted
        )
        return tuple(sorted(offer["Location"] for offer in found["InstanceTypeOfferings"]))

    def quota(self, code: str) -> float:
        return float(
            self.call("service-quotas", "get_service_quota", ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
        )

    def running(self) -> dict[str, int]:
        states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        counts: dict[str, int] = {}
        for reservation in self.call("ec2", "describe_instances", Filters=states)["Reservations"]:
            for instance in reservation["Instances"]:
                if instance.get("InstanceLifecycle") is None and instance.get("CapacityReservationId") is None:
                    counts[instance["InstanceType"]] = counts.get(instance["InstanceType"], 0) + 1
        return counts

    def reservation(self, reservation_id: str) -> Reservation | None:
        try:
            found = self.call("ec2", "describe_capacity_reservations", CapacityReservationIds=[reservation_id])
        except AwsError as error:
            if "NotFound" in error.code or "Malformed" in error.code:
                return None
            raise
        for one in found["CapacityReservations"]:
            return Reservation(
                id=one["CapacityReservationId"],
                instance_type=one["InstanceType"],
                zone_id=one.get("AvailabilityZoneId", ""),
                state=one["State"],
                total=one["TotalInstanceCount"],
                available=one["AvailableInstanceCount"],
                block=one.get("ReservationType") == "capacity-block",
                start=_time(one.get("StartDate")),
                end=_time(one.get("EndDate")),
            )
        return None

    def cluster(self, name: str) -> Part | None:
        try:
            found = self.call("eks", "describe_cluster", name=name)["cluster"]
        except AwsError as error:
            if error.code == "ResourceNotFoundException":
                return None
            raise
        return Part(name, found["status"], _issues(found))

    def node_groups(self, cluster: str) -> tuple[Part, ...]:
        names = self.call("eks", "list_nodegroups", clusterName=cluster)["nodegroups"]
        return tuple(
            Part(name, found["status"], _issues(found))
            for name in names
            for found in [self.call("eks", "describe_nodegroup", clusterName=cluster, nodegroupName=name)["nodegroup"]]
        )

    def addons(self, cluster: str) -> tuple[Part, ...]:
        names = self.call("eks", "list_addons", clusterName=cluster)["addons"]
        return tuple(
            Part(name, found["status"], _issues(found))
            for name in names
            for found in [self.call("eks", "describe_addon", clusterName=cluster, addonName=name)["addon"]]
        )

    def interfaces(self, vpc_tag: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        key, value = vpc_tag
        vpcs = self.call("ec2", "describe_vpcs", Filters=[{"Name": f"tag:{key}", "Values": [value]}])["Vpcs"]
        if not vpcs:
            return ()
        inside = [
            {"Name": "vpc-id", "Values": [vpc["VpcId"] for vpc in vpcs]},
            {"Name": "status", "Values": ["available"]},  # not attached
        ]
        found = self.call("ec2", "describe_network_interfaces", Filters=inside)["NetworkInterfaces"]
        return tuple((one["NetworkInterfaceId"], one.get("Description", "")) for one in found)

    def refusals(self, since: datetime) -> tuple[Refusal, ...]:
        found: list[Refusal] = []
        # Whatever changes something; what only reads fails for reasons of its own.
        wanted = [{"AttributeKey": "ReadOnly", "AttributeValue": "false"}]
        answer = self.call(
            "cloudtrail",
            "lookup_events",
            LookupAttributes=wanted,
            StartTime=since.isoformat(),
            PaginationConfig={"MaxItems": _MOST_EVENTS},
        )
        for row in answer["Events"]:
            event = json.loads(row.get("CloudTrailEvent") or "{}")
            if code := event.get("errorCode"):
                names: Sequence[dict[str, str]] = row.get("Resources") or ()
                found.append(
                    Refusal(
                        at=datetime.fromisoformat(row["EventTime"]),
                        call=row["EventName"],
                        code=code,
                        message=event.get("errorMessage", ""),
                        resource=next((one.get("ResourceName", "") for one in names), ""),
                    )
                )
        return tuple(sorted(found, key=lambda refusal: refusal.at, reverse=True))

    def gpu_groups(self) -> tuple[Thing, ...]:
        from ops import aws_things  # it builds on this module

        return aws_things.gpu_groups(self.call)

    def things(self, marks: Marks) -> tuple[Thing, ...]:
        from ops import aws_things  # it builds on this module

        return aws_things.listed(self.call, marks)

    def remove(self, thing: Thing) -> None:
        from ops import aws_things

        try:
            aws_things.remove(self.call, thing)
        except AwsError as error:
            if not aws_things.gone(error):
                raise

    def now(self) -> datetime:
        return datetime.now(UTC)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _issues(found: dict[str, Any]) -> tuple[Issue, ...]:
    listed = (found.get("health") or {}).get("issues") or ()
    return tuple(Issue(one["code"], one.get("message", "")) for one in listed)
