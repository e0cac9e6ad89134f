"""The pretend cloud's books as an AWS account (`ops.aws.Account`), and how a command deletes in it.

Reading needs nothing but the cloud's folder, also after its session has ended. Deleting asks the pretend provider itself where one runs
(a session's environment says where), so that whatever refuses a delete refuses this one; where none runs, a cloud is opened on
the folder for the moment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ops.aws import AwsError, Identity, Issue, Part, Refusal, Reservation
from ops.things import KINDS, Marks, Thing, has_gpus
from recipe import catalogue
from recipe.checks import PLACEHOLDER_ACCOUNT
from recipe.config import PROJECT
from rehearsal.clock import ManualClock
from rehearsal.cloud import Cloud, rules
from rehearsal.cloud.faults import Faults, Pretended
from rehearsal.cloud.store import Record, Store
from rehearsal.cloud.values import CloudError, many

EPOCH: Final = datetime(2026, 11, 23, tzinfo=UTC)
"""Second 0 of every pretend cloud."""
FAULTS: Final = "faults.json"
"""Beside cloud.json: a copy of what the session was told goes wrong."""


@dataclass
class PretendAccount:
    """`folder` is the pretend cloud's, as the session has it."""

    folder: Path
    region: str
    pause_seconds: float = 0.2
    ports: dict[str, str] | None = None
    """The running providers' ports by package; None: as the environment says."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    # ---- the books

    def store(self) -> Store:
        """What exists now, read anew."""
        return Store(self.folder)

    def facts(self) -> Pretended:
        """What the account is like, by the session's faults file."""
        file = self.folder / FAULTS
        found = Faults.load(file).account if file.exists() else Pretended()
        if found.credentials != "valid":
            code, message = {
                "expired": ("ExpiredToken", "The security token included in the request is expired"),
                "none": ("NoCredentialsError", "Unable to locate credentials"),
            }[found.credentials]
            raise AwsError(code, message, "sts:get_caller_identity")
        return found

    # ---- ops.aws.Account

    def identity(self) -> Identity:
        account = self.facts().account or self._seen_account() or PLACEHOLDER_ACCOUNT
        return Identity(account, f"arn:aws:iam::{account}:user/rehearsal")

    def _seen_account(self) -> str | None:
        arns = (str(record.outputs.get("arn", "")) for record in self.store().records.values())
        return next((found[1] for arn in arns if (found := re.match(r"arn:aws:\w+:[\w-]*:(\d{12}):", arn))), None)

    def zones(self) -> tuple[str, ...]:
        self.facts()
        return tuple(zone.id for zone in catalogue.zones(self.region))

    def zones_offering(self, instance_type: str) -> tuple[str, ...]:
        without = self.facts().zones_without.get(instance_type, ())
        return tuple(zone for zone in self.zones() if zone not in without)

    def quota(self, code: str) -> float:
        return self.facts().quotas.get(code, 10_000.0)

    def running(self) -> dict[str, int]:
        self.facts()
        counts: dict[str, int] = {}
        for instance in self.store().of(rules.INSTANCE):
            name = instance.inputs["instanceType"]
            counts[name] = counts.get(name, 0) + 1
        return counts

    def reservation(self, reservation_id: str) -> Reservation | None:
        held = self.facts().reservations.get(reservation_id)
        if held is None:
            return None
        return Reservation(
            id=reservation_id,
            instance_type=held.instance_type,
            zone_id=held.zone_id,
            state=held.state,
            total=held.total,
            available=held.total if held.available is None else held.available,
            block=held.block,
            start=held.start,
            end=held.end,
        )

    def cluster(self, name: str) -> Part | None:
        self.facts()
        found = self.store().find(rules.CLUSTER, name)
        return Part(name, found.status) if found else None

    def node_groups(self, cluster: str) -> tuple[Part, ...]:
        self.facts()
        return tuple(self._part(group, "nodeGroupName") for group in self._inside(rules.NODE_GROUP, cluster))

    def addons(self, cluster: str) -> tuple[Part, ...]:
        self.facts()
        return tuple(self._part(addon, "addonName") for addon in self._inside(rules.ADDON, cluster))

    def _inside(self, typ: str, cluster: str) -> Iterator[Record]:
        return (record for record in self.store().of(typ) if record.inputs["clusterName"] == cluster)

    @staticmethod
    def _part(record: Record, name: str) -> Part:
        status = str(record.outputs.get("status") or record.status)
        return Part(record.inputs[name], status, tuple(Issue(*issue) for issue in record.extra.get("issues", ())))

    def interfaces(self, vpc_tag: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        self.facts()
        key, value = vpc_tag
        store = self.store()
        vpcs = {vpc.id for vpc in store.of(rules.VPC) if vpc.inputs.get("tags", {}).get(key) == value}
        subnets = {subnet.id for subnet in store.of(rules.SUBNET) if subnet.inputs["vpcId"] in vpcs}
        left = [one for one in store.of(rules.NETWORK_INTERFACE) if one.inputs["subnetId"] in subnets]
        return tuple((one.id, one.inputs["description"]) for one in left)

    def refusals(self, since: datetime) -> tuple[Refusal, ...]:  # noqa: ARG002
        """Of each thing the last word; what went well afterwards is no refusal any more. All of the books: their time is virtual."""
        self.facts()
        last: dict[tuple[str, str], dict[str, Any]] = {}
        for line in self.store().journal:
            if line["op"] in ("create", "update", "delete"):
                last[line["op"], line["urn"] or line["name"]] = line
        refused = [line for line in last.values() if line["outcome"] in ("refused", "unfinished")]
        found = [
            Refusal(
                at=EPOCH + timedelta(seconds=line["end"]),
                call=f"{line['op'].capitalize()}{line['type'].rpartition(':')[2]}",
                code=_code(line["message"]),
                message=line["message"],
                resource=line["name"],
            )
            for line in refused
        ]
        return tuple(sorted(found, key=lambda refusal: refusal.at, reverse=True))

    # ---- what belongs to a deployment

    def gpu_groups(self) -> tuple[Thing, ...]:
        self.facts()
        groups = (one for one in self.store().of(rules.NODE_GROUP) if has_gpus(one.inputs))
        return tuple(_thing(one) for one in groups if (one.inputs.get("tags") or {}).get("project") == PROJECT)

    def things(self, marks: Marks) -> tuple[Thing, ...]:
        """By what AWS would tell: tags, names, and what hangs on what. The books' own memory of who asked is not looked at."""
        self.facts()
        store = self.store()
        aws = {record.key: record for record in store.records.values() if record.type in KINDS}
        found = {key for key, record in aws.items() if _marked(record, marks)}
        while more := {key for key, record in aws.items() if key not in found and _hangs_on(record, found)}:
            found |= more
        return tuple(_thing(aws[key]) for key in sorted(found, key=lambda key: aws[key].order))

    def remove(self, thing: Thing) -> None:
        record = self.store().records.get(f"{thing.type}||{thing.id}")
        if record is None:  # made by a service: in a cluster
            record = next((r for r in self.store().of(thing.type) if r.id == thing.id), None)
        if record is not None and record.status != "DELETING":
            self.delete(record)

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.store().now)

    # ---- deleting

    def delete(self, record: Record) -> None:
        """Delete the thing as its provider would. Raises AwsError with the cloud's words."""
        said = os.environ.get("PULUMI_DEBUG_PROVIDERS", "")
        ports = self.ports if self.ports is not None else dict(item.split(":") for item in said.split(",") if item)
        package = record.type.partition(":")[0]
        if package in ports:
            self._delete_by_provider(ports[package], record)
            return
        cloud = self._cloud()
        try:
            cloud.delete(record.type, record.urn, record.id, record.inputs, record.outputs, timeout_s=None)
        except CloudError as refused:
            raise AwsError(_code(str(refused)), str(refused), f"delete {record.id}") from None
        finally:
            cloud.close()

    def _cloud(self) -> Cloud:
        return Cloud(self.folder, ManualClock())

    @staticmethod
    def _delete_by_provider(port: str, record: Record) -> None:
        import grpc
        from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            request = provider_pb2.DeleteRequest(id=record.id, urn=record.urn, type=record.type)
            try:
                provider_pb2_grpc.ResourceProviderStub(channel).Delete(request)
            except grpc.RpcError as refused:
                said = str(refused.details())
                raise AwsError(_code(said), said, f"delete {record.id}") from None


_PARENTS: Final = {
    "routeTableId": rules.ROUTE_TABLE, "fileSystemId": rules.FILE_SYSTEM, "role": rules.ROLE, "clusterName": rules.CLUSTER, "vpcId": rules.VPC,
    "subnetId": rules.SUBNET, "securityGroupId": rules.SECURITY_GROUP, "subnets": rules.SUBNET,
}  # fmt: skip
"""Inputs by which a thing without tags of its own is found: whose they name."""


def _marked(record: Record, marks: Marks) -> bool:
    tags = record.inputs.get("tags") or {}
    if tags:
        return marks.on(tags)
    if record.type == rules.VOLUME:  # the driver tags it with the cluster's name
        return marks.owns_cluster and record.owner.split("|")[1:2] == [marks.cluster]
    return record.type == rules.LOG_GROUP and record.id in marks.log_groups


def _hangs_on(record: Record, found: set[str]) -> bool:
    if record.inputs.get("tags"):
        return False
    holders = ((kind, value) for name, kind in _PARENTS.items() for value in many(record.inputs.get(name)))
    return any(f"{kind}||{value}" in found for kind, value in holders)


def _thing(record: Record) -> Thing:
    facts = {**record.outputs, **record.inputs}
    created = EPOCH + timedelta(seconds=record.created_at)
    if record.type == rules.FILE_SYSTEM:
        facts["bytes"] = 0
    if record.type == rules.VOLUME:
        facts["gb"] = _gb(str(record.inputs.get("size") or "0"))
    service = record.owner.partition("|")[0].rpartition(":")[2] or "a service" if not record.urn else ""
    status = record.status if record.status != "ACTIVE" else str(facts.get("status") or record.status)
    return Thing(record.type, record.id, facts | {"createdAt": created.isoformat()}, status, service)


def _gb(size: str) -> float:
    return float(re.sub(r"\D", "", size) or 0)


def _code(message: str) -> str:
    """AWS' code in the pretend cloud's words: `creating EKS Node Group (gpu-nodes): ResourceInUseException: …`."""
    found = re.search(r"(?<![\w.])([A-Z][a-z]+[A-Z]\w*(?:\.\w+)*): ", message)
    return found[1] if found else "Refused"
