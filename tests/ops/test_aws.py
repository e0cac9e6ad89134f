"""The real way to AWS: the child process, boto3 and moto's AWS on loopback, and answers of our own for what moto does not have."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from ops.aws import AwsAccount, AwsError, Reservation
from ops.packages import packages
from ops.removing import remove_all
from ops.things import Marks

pytestmark = pytest.mark.slow
REGION = "us-east-2"
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_SESSION_TOKEN": "testing", "NO_PROXY": "127.0.0.1",
    "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The address of a fresh pretend AWS (installed on first use, from the package index)."""
    path = packages(Path(__file__).with_name("requirements-moto.txt"), "moto")
    port = free_port()
    script = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(path), "HOME": str(path)}
    server = subprocess.Popen(
        [sys.executable, "-P", "-c", script], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def account(moto: str) -> Iterator[AwsAccount]:
    with AwsAccount(REGION, {**KEYS, "AWS_ENDPOINT_URL": moto}) as found:
        yield found


def test_who_asks_and_where_the_types_are(account: AwsAccount) -> None:
    assert account.identity().account == "123456789012"
    assert set(account.zones()) >= {"use2-az1", "use2-az2"}
    assert set(account.zones_offering("m5.large")) <= set(account.zones())
    assert account.zones_offering("no-such.type") == ()


def test_a_cluster_with_its_groups_and_addons(account: AwsAccount) -> None:
    assert account.cluster("nobody") is None
    role = "arn:aws:iam::123456789012:role/x"
    account.call(
        "eks", "create_cluster", name="c", roleArn=role, resourcesVpcConfig={"subnetIds": ["subnet-1", "subnet-2"]}
    )
    account.call("eks", "create_nodegroup", clusterName="c", nodegroupName="gpu", nodeRole=role, subnets=["subnet-1"])
    found = account.cluster("c")
    assert found is not None
    assert found.status == "ACTIVE"
    assert [(part.name, part.status, part.issues) for part in account.node_groups("c")] == [("gpu", "ACTIVE", ())]


def test_only_what_counts_against_a_quota_is_counted(account: AwsAccount) -> None:
    image = account.call("ec2", "describe_images", Owners=["amazon"])["Images"][0]["ImageId"]
    account.call("ec2", "run_instances", ImageId=image, InstanceType="m5.large", MinCount=3, MaxCount=3)
    one = account.call("ec2", "describe_instances")["Reservations"][0]["Instances"][0]["InstanceId"]
    account.call("ec2", "terminate_instances", InstanceIds=[one])
    assert account.running() == {"m5.large": 2}


def test_only_interfaces_that_nothing_uses_are_left(account: AwsAccount) -> None:
    vpc = account.call("ec2", "create_vpc", CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = account.call("ec2", "create_subnet", VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    account.call("ec2", "create_tags", Resources=[vpc], Tags=[{"Key": "stack", "Value": "mine"}])
    made = account.call("ec2", "create_network_interface", SubnetId=subnet, Description="aws-K8S-i-1")[
        "NetworkInterface"
    ]
    assert account.interfaces(("stack", "mine")) == ((made["NetworkInterfaceId"], "aws-K8S-i-1"),)
    assert account.interfaces(("stack", "other")) == ()


def test_a_refusal_carries_aws_own_code(account: AwsAccount) -> None:
    with pytest.raises(AwsError) as refused:
        account.call("ec2", "describe_vpcs", VpcIds=["vpc-00000000000000000"])
    assert refused.value.code == "InvalidVpcID.NotFound"
    assert refused.value.asked == "ec2:describe_vpcs"


def test_without_credentials_it_says_so_and_no_secret_is_said() -> None:
    secret = "wJalr" + "XUtnFEMI"
    with (
        AwsAccount(
            REGION,
            {**KEYS, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": secret, "AWS_EC2_METADATA_DISABLED": "true"},
        ) as account,
        pytest.raises(AwsError) as nobody,
    ):
        account.identity()
    assert nobody.value.code in ("NoCredentialsError", "PartialCredentialsError")
    assert secret not in str(nobody.value)


def test_parameters_that_cannot_be_are_refused_before_they_are_sent(account: AwsAccount) -> None:
    with pytest.raises(AwsError) as wrong:
        account.call("ec2", "describe_vpcs", NoSuchThing=1)
    assert wrong.value.code == "ParamValidationError"


# ── answers of our own


@contextmanager
def answering(*answers: tuple[int, str, str]) -> Iterator[tuple[AwsAccount, list[dict[str, Any]]]]:
    """An AWS that gives these (status, content type, body), one after the other and the last one for ever, and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            json_ = body.startswith("{")
            asked.append(json.loads(body) if json_ else {key: value[0] for key, value in parse_qs(body).items()})
            status, kind, text = answers[min(len(asked), len(answers)) - 1]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        with AwsAccount(REGION, {**KEYS, "AWS_ENDPOINT_URL": address}) as account:
            yield account, asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


RESERVATION = """<DescribeCapacityReservationsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><capacityReservationSet><item>
<capacityReservationId>cr-0123456789abcdef0</capacityReservationId><instanceType>p5.48xlarge</instanceType><availabilityZoneId>use2-az1</availabilityZoneId>
<state>active</state><totalInstanceCount>4</totalInstanceCount><availableInstanceCount>2</availableInstanceCount><reservationType>capacity-block</reservationType>
<startDate>2026-11-24T11:30:00.000Z</startDate><endDate>2026-11-26T11:30:00.000Z</endDate></item></capacityReservationSet></DescribeCapacityReservationsResponse>"""
NO_RESERVATION = "<Response><Errors><Error><Code>InvalidCapacityReservationId.NotFound</Code><Message>no</Message></Error></Errors></Response>"


def test_a_reservation_as_ec2_describes_it() -> None:
    with answering((200, "text/xml", RESERVATION)) as (account, asked):
        found = account.reservation("cr-0123456789abcdef0")
    assert found == Reservation(
        "cr-0123456789abcdef0", "p5.48xlarge", "use2-az1", "active", 4, 2, True,
        datetime(2026, 11, 24, 11, 30, tzinfo=UTC), datetime(2026, 11, 26, 11, 30, tzinfo=UTC),
    )  # fmt: skip
    assert asked[0]["CapacityReservationId.1"] == "cr-0123456789abcdef0"


def test_no_reservation_is_no_error() -> None:
    with answering((400, "text/xml", NO_RESERVATION)) as (account, _):
        assert account.reservation("cr-0123456789abcdef0") is None


def test_a_quota_as_service_quotas_gives_it() -> None:
    body = json.dumps({"Quota": {"QuotaCode": "L-417A185B", "Value": 384.0}})
    with answering((200, "application/x-amz-json-1.1", body)) as (account, asked):
        assert account.quota("L-417A185B") == 384
    assert asked[0] == {"ServiceCode": "ec2", "QuotaCode": "L-417A185B"}


def test_refused_calls_are_those_with_an_error_newest_first() -> None:
    def event(at: int, code: str | None) -> dict[str, Any]:
        more = {"errorCode": code, "errorMessage": f"{code}!"} if code else {}
        return {
            "EventName": "CreateNodegroup", "EventTime": at, "Resources": [{"ResourceName": "gpu"}], "CloudTrailEvent": json.dumps(more)
        }  # fmt: skip

    events = [event(1764000000, "Throttled"), event(1764000100, None), event(1764000200, "AccessDenied")]
    body = json.dumps({"Events": events})
    with answering((200, "application/x-amz-json-1.1", body)) as (account, asked):
        found = account.refusals(datetime(2026, 11, 24, tzinfo=UTC))
    assert [(one.call, one.code, one.resource) for one in found] == [
        ("CreateNodegroup", "AccessDenied", "gpu"), ("CreateNodegroup", "Throttled", "gpu")
    ]  # fmt: skip
    assert asked[0]["LookupAttributes"] == [{"AttributeKey": "ReadOnly", "AttributeValue": "false"}]


def test_pages_are_put_together() -> None:
    def page(vpc: str, then: str) -> tuple[int, str, str]:
        more = f"<nextToken>{then}</nextToken>" if then else ""
        body = f"<vpcSet><item><vpcId>{vpc}</vpcId></item></vpcSet>{more}"
        return (
            200,
            "text/xml",
            f'<DescribeVpcsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">{body}</DescribeVpcsResponse>',
        )

    with answering(page("vpc-1", "more"), page("vpc-2", "")) as (account, asked):
        assert [vpc["VpcId"] for vpc in account.call("ec2", "describe_vpcs")["Vpcs"]] == ["vpc-1", "vpc-2"]
    assert asked[1]["NextToken"] == "more"


def test_throttling_is_tried_three_times_and_then_said() -> None:
    busy = "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>slow down</Message></Error></Errors></Response>"
    with answering((503, "text/xml", busy)) as (account, asked), pytest.raises(AwsError) as refused:
        account.zones()
    assert refused.value.code == "RequestLimitExceeded"
    assert len(asked) == 3


# What belongs to a deployment, and its end


def tagged(name: str, deployment: str = "main") -> list[dict[str, str]]:
    tags = {"project": "dynamo-recipes", "stack": "mine", "deployment": deployment, "Name": name}
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def make_network(account: AwsAccount, deployment: str) -> str:
    """A VPC with what hangs on it, file system, template, role and log group. Returns the VPC's id."""

    def specify(kind: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": tagged(kind, deployment)}]

    vpc = account.call("ec2", "create_vpc", CidrBlock="10.8.0.0/16", TagSpecifications=specify("vpc"))["Vpc"]["VpcId"]
    subnet = account.call(
        "ec2", "create_subnet", VpcId=vpc, CidrBlock="10.8.1.0/24", TagSpecifications=specify("subnet")
    )["Subnet"]["SubnetId"]
    gateway = account.call("ec2", "create_internet_gateway", TagSpecifications=specify("internet-gateway"))
    igw = gateway["InternetGateway"]["InternetGatewayId"]
    account.call("ec2", "attach_internet_gateway", InternetGatewayId=igw, VpcId=vpc)
    address = account.call("ec2", "allocate_address", Domain="vpc", TagSpecifications=specify("elastic-ip"))[
        "AllocationId"
    ]
    account.call(
        "ec2", "create_nat_gateway", SubnetId=subnet, AllocationId=address, TagSpecifications=specify("natgateway")
    )
    table = account.call("ec2", "create_route_table", VpcId=vpc, TagSpecifications=specify("route-table"))
    routes = table["RouteTable"]["RouteTableId"]
    account.call("ec2", "create_route", RouteTableId=routes, DestinationCidrBlock="0.0.0.0/0", GatewayId=igw)
    account.call("ec2", "associate_route_table", RouteTableId=routes, SubnetId=subnet)
    group = account.call(
        "ec2",
        "create_security_group",
        GroupName="efs",
        Description="efs",
        VpcId=vpc,
        TagSpecifications=specify("security-group"),
    )["GroupId"]
    system = account.call("efs", "create_file_system", CreationToken=f"t-{deployment}", Tags=tagged("efs", deployment))[
        "FileSystemId"
    ]
    account.call("efs", "create_mount_target", FileSystemId=system, SubnetId=subnet, SecurityGroups=[group])
    account.call("efs", "create_access_point", FileSystemId=system, Tags=tagged("point", deployment), ClientToken="c")
    account.call("ec2", "create_network_interface", SubnetId=subnet, Description="aws-K8S-left", Groups=[group])
    return str(vpc)


MINE = Marks(
    {"project": "dynamo-recipes", "stack": "mine", "deployment": "main"}, "c-mine", owns_cluster=True, roles=("r-mine",), log_groups=("/mine",)
)  # fmt: skip


class WithoutGaps(AwsAccount):
    """Answers for what moto has not: nothing of it is there."""

    def call(self, service: str, operation: str, *, region: str | None = None, **parameters: Any) -> dict[str, Any]:
        missing = {"describe_placement_groups": "PlacementGroups"}
        if operation in missing:
            return {missing[operation]: []}
        return super().call(service, operation, region=region, **parameters)


def test_a_whole_network_is_found_and_deleted_in_an_order_that_works_and_a_foreign_one_is_not_touched(
    moto: str,
) -> None:
    with WithoutGaps(REGION, {**KEYS, "AWS_ENDPOINT_URL": moto}) as account:
        whole_network(account)


def whole_network(account: AwsAccount) -> None:
    make_network(account, "main")
    foreign = make_network(account, "other")
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    account.call("iam", "create_role", RoleName="r-mine", AssumeRolePolicyDocument=trust, Tags=tagged("role"))
    statement = {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    policy = account.call("iam", "create_policy", PolicyName="p-mine", PolicyDocument=document)["Policy"]["Arn"]
    account.call("iam", "attach_role_policy", RoleName="r-mine", PolicyArn=policy)
    account.call("logs", "create_log_group", logGroupName="/mine")

    found = account.things(MINE)
    kinds = {thing.type.rpartition(":")[2] for thing in found}
    assert kinds >= {
        "Vpc", "Subnet", "InternetGateway", "Eip", "NatGateway", "RouteTable", "Route", "RouteTableAssociation", "SecurityGroup", "FileSystem",
        "MountTarget", "AccessPoint", "NetworkInterface", "Role", "RolePolicyAttachment", "LogGroup",
    }  # fmt: skip
    assert foreign not in {thing.id for thing in found}

    account.pause_seconds = 0.05
    removed = remove_all(account, MINE, found, lambda _: None, patience_seconds=10)
    assert removed.left == {}
    assert account.things(MINE) == ()
    vpcs = account.call("ec2", "describe_vpcs", VpcIds=[foreign])["Vpcs"]
    assert len(vpcs) == 1, "what carries another deployment's tags is somebody else's"
