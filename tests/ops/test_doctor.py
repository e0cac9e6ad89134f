"""The doctor before anything is paid for, what it reads out of a cluster, and the table it speaks from."""

from __future__ import annotations

import json
import re
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
import trustme

from ops import diagnosis, doctor, reach, symptoms
from ops.app import app
from ops.aws import AwsError, Identity, Issue, Part, Refusal, Reservation
from ops.diagnosis import Evidence
from ops.kube import HttpKube, KubeError, Snapshot, snapshot
from ops.stacks import ROOT
from ops.things import Marks, Thing
from recipe.config import parse
from recipe.plan import Plan
from recipe.planner import make_plan
from tests.recipe.samples import raw

ACCOUNT, ZONE, P_QUOTA = "111122223333", "use2-az1", "L-417A185B"
NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)
RESERVED = "cr-0123456789abcdef0"


@dataclass
class Pretended:
    """An account in which everything is as one would wish, unless told."""

    region: str = "us-east-2"
    account: str = ACCOUNT
    zone_ids: tuple[str, ...] = ("use2-az1", "use2-az2", "use2-az3")
    without: dict[str, tuple[str, ...]] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    reserved: Reservation | None = None
    groups: tuple[Part, ...] = ()
    fails: dict[str, AwsError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    pause_seconds: float = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if what in self.fails:
            raise self.fails[what]

    def identity(self) -> Identity:
        self._ask("identity")
        return Identity(self.account, f"arn:aws:iam::{self.account}:user/me")

    def zones(self) -> tuple[str, ...]:
        self._ask("zones")
        return self.zone_ids

    def zones_offering(self, instance_type: str) -> tuple[str, ...]:
        return tuple(zone for zone in self.zone_ids if zone not in self.without.get(instance_type, ()))

    def quota(self, code: str) -> float:
        self._ask("quota")
        return self.limits.get(code, 10_000)

    def running(self) -> dict[str, int]:
        return self.runs

    def reservation(self, reservation_id: str) -> Reservation | None:
        self._ask("reservation")
        return self.reserved

    def cluster(self, name: str) -> Part | None:
        return Part(name, "CREATING") if self.groups else None

    def node_groups(self, cluster: str) -> tuple[Part, ...]:
        return self.groups

    def addons(self, cluster: str) -> tuple[Part, ...]:
        return ()

    def interfaces(self, vpc_tag: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        return ()

    def refusals(self, since: datetime) -> tuple[Refusal, ...]:
        return ()

    def gpu_groups(self) -> tuple[Thing, ...]:
        return ()

    def things(self, marks: Marks) -> tuple[Thing, ...]:
        return ()

    def remove(self, thing: Thing) -> None:
        raise AssertionError("the doctor looks, and changes nothing")

    def now(self) -> datetime:
        return NOW


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pulumi and aws as they should be, and nothing else on PATH."""
    for name, says in (("pulumi", "v3.250.0"), ("aws", "aws-cli/2.17.0 Python/3.11 Linux")):
        tool(tmp_path, name, says)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def tool(folder: Path, name: str, says: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="utf-8")
    file.chmod(0o755)


def plan(**changes: Any) -> Plan:
    """The sample on a stack that knows its own account, zone and networks; keys are dotted with `__`."""
    recipe = raw()
    recipe.setdefault("access", {})
    recipe["access"] |= {"account_id": ACCOUNT, "zone_id": ZONE, "endpoint_cidrs": ["198.51.100.0/24"]}
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = recipe
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
    return make_plan("qwen3-32b-disagg", parse(recipe), placeholders=True)


def look(account: Pretended | None = None, what: Plan | None = None, **more: Any) -> doctor.Report:
    found = what or plan()
    return doctor.examine(
        found,
        dict.fromkeys(found.placeholders, "command"),
        account or Pretended(),
        now=NOW,
        **{"online": False, **more},
    )


def keys(report: doctor.Report) -> list[str]:
    return [finding.symptom.key for finding in report.findings]


def block(**more: Any) -> Reservation:
    told = {"id": RESERVED, "instance_type": "p5.48xlarge", "zone_id": ZONE, "state": "active", "total": 2, "available": 2, "block": True,
            "start": NOW - timedelta(hours=1), "end": NOW + timedelta(days=2)}  # fmt: skip
    return Reservation(**{**told, **more})


def on_block() -> Plan:
    return plan(hardware__capacity={"kind": "capacity-block", "reservation_id": RESERVED})


# ── before paying


def test_where_all_is_well_nothing_is_wrong() -> None:
    report = look()
    assert report.well, doctor.text(report)
    assert doctor.text(report).endswith("nothing is wrong")


@pytest.mark.parametrize(
    ("name", "says", "key"),
    [("pulumi", None, "tool-missing"), ("pulumi", "v3.100.0", "tool-missing"), ("aws", None, "tool-missing"), ("aws", "aws-cli/1.16.0 x", "tool-missing"), ("aws", "nonsense", "tool-missing")],
)  # fmt: skip
def test_tools(tools: Path, name: str, says: str | None, key: str) -> None:
    (tools / name).unlink()
    if says:
        tool(tools, name, says)
    report = look()
    assert keys(report) == [key]
    assert name in report.findings[0].evidence[0].thing


def test_credentials_that_are_not_there_end_the_questions_to_aws() -> None:
    account = Pretended(
        fails={"identity": AwsError("NoCredentialsError", "Unable to locate credentials", "sts:get_caller_identity")}
    )
    assert keys(look(account)) == ["credentials-missing"]
    assert account.asked == ["identity"]
    expired = Pretended(
        fails={"identity": AwsError("ExpiredToken", "The security token included in the request is expired")}
    )
    assert keys(look(expired)) == ["credentials-expired"]


def test_another_account_is_asked_nothing_more() -> None:
    account = Pretended(account="999999999999")
    report = look(account)
    assert keys(report) == ["account-foreign"]
    assert account.asked == ["identity"], "a stack does not look around in an account that is not its own"
    assert ACCOUNT in report.findings[0].fix


def test_unset_values_come_with_their_command() -> None:
    unset = plan(access__account_id=None, access__zone_id=None, access__endpoint_cidrs=None)
    report = look(what=unset)
    assert keys(report) == ["not-set"]
    assert len(report.findings[0].evidence) == 3


def test_a_zone_that_has_not_the_type_says_which_have() -> None:
    report = look(Pretended(without={"p5.48xlarge": ("use2-az1", "use2-az3")}))
    assert keys(report) == ["zone-without-type"]
    assert "offered in use2-az2" in report.findings[0].evidence[0].text


def test_a_zone_the_account_does_not_have() -> None:
    assert "zone-unknown" in keys(look(Pretended(zone_ids=("use2-az2", "use2-az3"))))


def test_the_quota_counts_what_runs_and_this_stack_once() -> None:
    wanted = 2 * 192
    assert keys(look(Pretended(limits={P_QUOTA: wanted}))) == []
    assert keys(look(Pretended(limits={P_QUOTA: wanted - 1}))) == ["quota"]
    busy = Pretended(limits={P_QUOTA: wanted}, runs={"p5en.48xlarge": 1})
    report = look(busy)
    assert keys(report) == ["quota"]
    assert "384 vCPUs wanted and 192 in use of 384" in report.findings[0].evidence[0].text
    own = plan()
    running = Pretended(
        limits={P_QUOTA: wanted}, runs={"p5.48xlarge": 2}, groups=(Part(own.names.gpu_node_group, "ACTIVE"),)
    )
    assert "quota" not in keys(look(running, own)), "the nodes that count are this stack's own"


def test_a_reservation_needs_no_quota() -> None:
    account = Pretended(limits={P_QUOTA: 0}, reserved=block())
    assert keys(look(account, on_block())) == []


@pytest.mark.parametrize(
    ("reserved", "key", "words"),
    [
        (None, "reservation-unknown", "no such reservation"),
        (block(instance_type="p5e.48xlarge"), "reservation-misfit", "p5e.48xlarge"),
        (block(zone_id="use2-az3"), "reservation-misfit", "use2-az3"),
        (block(available=1), "reservation-misfit", "1 of 2 instances free"),
        (block(block=False), "reservation-misfit", "kind must be odcr"),
        (block(state="expired"), "block-ends", "expired"),
        (block(state="scheduled", available=0, start=NOW + timedelta(hours=3)), "block-not-begun", "in 3 h"),
        (block(end=NOW - timedelta(minutes=1)), "block-ends", "has ended"),
        (block(end=NOW + timedelta(minutes=29)), "block-ends", "EC2 ends its instances now"),
        (block(end=NOW + timedelta(minutes=39)), "block-ends", "EKS takes its nodes away now, EC2 ends them in 9 min"),
        (block(end=NOW + timedelta(hours=8, minutes=39)), "block-ends", "sooner than budget.ttl_hours"),
    ],
)  # fmt: skip
def test_a_reservation_has_to_fit_now(reserved: Reservation | None, key: str, words: str) -> None:
    report = look(Pretended(reserved=reserved), on_block())
    assert keys(report) == [key]
    assert any(words in one.text for one in report.findings[0].evidence), doctor.text(report)


def test_a_block_that_ends_after_the_stack_is_no_worry() -> None:
    assert keys(look(Pretended(reserved=block(end=NOW + timedelta(hours=8, minutes=41))), on_block())) == []


def test_a_permission_that_lacks_is_said_and_the_rest_goes_on() -> None:
    account = Pretended(fails={"quota": AwsError("AccessDeniedException", "no", "service-quotas:get_service_quota")})
    assert keys(look(account)) == ["not-permitted"]
    assert "zones" in account.asked


# ── registries, repositories, the hub

Answers = Mapping[str, reach.Answer]


def web(answers: Answers) -> Callable[[str, Mapping[str, str]], reach.Answer]:
    def fetch(url: str, headers: Mapping[str, str]) -> reach.Answer:
        found = next((answer for start, answer in answers.items() if url.startswith(start)), None)
        if found is None:
            raise reach.Unreachable("no network")
        if "www-authenticate" in found.headers and "Authorization" in headers:
            assert headers["Authorization"] == "Bearer anyone"
            return reach.Answer(200)
        return found

    return fetch


def test_without_a_network_nothing_is_known_and_nothing_is_wrong() -> None:
    report = look(online=True, fetch=web({}))
    assert report.well
    assert sum(one.left_out for one in report.checked) >= 6


def test_an_image_behind_an_anonymous_login_is_found_and_a_missing_one_named() -> None:
    login = reach.Answer(401, headers={"www-authenticate": 'Bearer realm="https://nvcr.io/proxy_auth",scope="x"'})
    answers = {"https://nvcr.io/proxy_auth": reach.Answer(200, b'{"token": "anyone"}'), "https://nvcr.io/v2": login, "https://public.ecr.aws": reach.Answer(404)}  # fmt: skip
    report = look(online=True, fetch=web(answers))
    assert keys(report) == ["image-unknown"]
    assert [one.thing.partition("/")[0] for one in report.findings[0].evidence] == ["public.ecr.aws"]


def test_a_chart_version_that_is_not_listed_says_which_are() -> None:
    index = b"entries: {dynamo-platform: [{version: 9.9.9}], nvidia-device-plugin: [{version: 0.19.3}], aws-efa-k8s-device-plugin: [{version: v0.5.30}]}"
    report = look(
        online=True,
        fetch=web(
            {f"https://{host}": reach.Answer(200, index) for host in ("helm.ngc", "nvidia.github", "aws.github")}
        ),
    )
    assert keys(report) == ["chart-unknown"]
    assert "it has 9.9.9" in report.findings[0].evidence[0].text


@pytest.mark.parametrize(
    ("who", "revision", "token", "key"),
    [
        (200, 200, "t", None),
        (401, 200, "t", "token-refused"),
        (200, 403, "t", "token-no-access"),
        (200, 401, None, "token-refused"),
        (200, 404, None, "revision-unknown"),
    ],
)
def test_the_token_is_tried_on_the_repository_it_is_for(
    who: int, revision: int, token: str | None, key: str | None
) -> None:
    said = reach.weights(
        plan(),
        token,
        web({f"{reach._HUB}/api/whoami": reach.Answer(who), f"{reach._HUB}/api/models": reach.Answer(revision)}),
    )
    assert (said and symptoms.recognise(said).key) == key


def test_a_token_of_the_stack_is_asked_of_pulumi_and_never_shown(tools: Path) -> None:
    token = "hf_" + "abcdefghijklmnop"
    (tools / "pulumi").write_text(f'#!/bin/sh\n[ "$1" = version ] && echo v3.250.0 || echo {token}\n', encoding="utf-8")
    seen: list[str] = []

    def fetch(url: str, headers: Mapping[str, str]) -> reach.Answer:
        seen.append(headers.get("Authorization", ""))
        return reach.Answer(401 if "whoami" in url else 200)

    report = look(what=plan(weights__token=True), online=True, fetch=fetch)
    assert f"Bearer {token}" in seen
    assert "token-refused" in keys(report)
    assert token not in doctor.text(report) + json.dumps(report.as_data())


# ── a cluster, as an API server shows it


def pod(name: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n"}, "spec": {}, "status": status}


def read(what: Plan | None = None, **seen: Any) -> list[str]:
    found = diagnosis.of_cluster(Snapshot(**{key: tuple(value) for key, value in seen.items()}), what or plan())
    return [finding.symptom.key for finding in diagnosis.findings(found, doctor._facts(plan()))]


def node(ready: str = "True", gpus: str = "8", efa: str = "32") -> dict[str, Any]:
    labels = {"dynamo-recipes/pool": plan().names.prefix}
    conditions = [
        {"type": "Ready", "status": ready, "reason": "KubeletNotReady", "message": "cni plugin not initialized"}
    ]
    return {
        "metadata": {"name": "ip-1", "labels": labels},
        "status": {"conditions": conditions, "allocatable": {"nvidia.com/gpu": gpus, "vpc.amazonaws.com/efa": efa}},
    }


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"nodes": [node()]}, []),
        ({"nodes": [node(ready="False")]}, ["node-not-ready"]),
        ({"nodes": [node(gpus="0")]}, ["gpus-not-offered"]),
        ({"nodes": [node(efa="31")]}, ["efa-not-offered"]),
        ({"pods": [pod("p", phase="Pending", conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."}])]}, ["unschedulable"]),
        ({"pods": [pod("p", containerStatuses=[{"name": "main", "image": "x:1", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}])]}, ["image-unknown"]),
        ({"pods": [pod("p", containerStatuses=[{"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}])]}, []),
        ({"pods": [pod("p", containerStatuses=[{"name": "main", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}])]}, ["out-of-memory", "crash-loop"]),
        ({"pods": [pod("p", containerStatuses=[{"name": "main", "state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'configmap "x" not found'}}}])]}, ["config-missing"]),
        ({"pods": [pod("p", phase="Pending")], "events": [{"type": "Warning", "reason": "FailedMount", "message": "MountVolume.MountDevice failed: driver name efs.csi.aws.com not found in the list of registered CSI drivers", "involvedObject": {"kind": "Pod", "name": "p"}}]}, ["driver-late"]),
        ({"events": [{"type": "Warning", "reason": "FailedMount", "message": "MountVolume failed", "involvedObject": {"kind": "Pod", "name": "long-gone"}}]}, []),
        ({"claims": [{"metadata": {"name": "c"}, "status": {"phase": "Pending"}}]}, ["claim-pending"]),
        ({"claims": [{"metadata": {"name": "c", "deletionTimestamp": "t", "finalizers": ["kubernetes.io/pvc-protection"]}, "status": {"phase": "Bound"}}]}, ["claim-stays"]),
        ({"jobs": [{"metadata": {"name": "weights-1"}, "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "401 Client Error"}]}}]}, ["token-refused"]),
        ({"jobs": [{"metadata": {"name": "weights-1"}, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}]}, []),
        ({"graphs": [{"metadata": {"name": "g"}, "status": {"state": "failed", "conditions": [{"type": "Ready", "status": "False", "reason": "x", "message": "y"}]}}]}, ["graph-failed"]),
        ({"graphs": [{"metadata": {"name": "g", "deletionTimestamp": "t", "finalizers": ["nvidia.com/finalizer"]}}]}, ["graph-stays"]),
        ({"graphs": [{"metadata": {"name": "g"}, "status": {"state": "successful"}}]}, []),
    ],
)  # fmt: skip
def test_what_an_api_server_shows(seen: dict[str, Any], expected: list[str]) -> None:
    assert read(**seen) == expected


def test_what_causes_others_comes_first() -> None:
    waiting = pod(
        "p",
        conditions=[
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "Insufficient nvidia.com/gpu",
            }
        ],
    )
    assert read(nodes=[node(gpus="0")], pods=[waiting])[0] == "gpus-not-offered"
    refused = diagnosis.of_parts(
        None, [Part("gpu", "CREATE_FAILED", (Issue("AsgInstanceLaunchFailures", "InsufficientInstanceCapacity"),))], ()
    )
    pending = diagnosis.of_cluster(Snapshot(pods=(waiting,)), plan())
    found = diagnosis.findings([*pending, *refused], doctor._facts(plan()))
    assert [finding.symptom.key for finding in found] == ["no-capacity", "unschedulable"]


def test_the_state_tells_of_a_killed_engine_and_of_what_did_not_get_ready() -> None:
    state = {
        "pending_operations": [{"type": "creating", "resource": {"urn": "urn:pulumi:s::p::aws:x::nat"}}],
        "resources": [
            {"urn": "urn:pulumi:s::p::k::weights-job", "initErrors": ["Job failed: No space left on device"]},
            {"urn": "x"},
        ],
    }
    found = diagnosis.findings(diagnosis.of_state(state), doctor._facts(plan()))
    assert [(finding.symptom.key, finding.evidence[0].thing) for finding in found] == [
        ("disk-full", "weights-job"),
        ("unfinished", "nat"),
    ]


def test_output_is_read_for_what_nothing_else_remembers() -> None:
    text = """
     +  aws:eks:NodeGroup gpu-nodes creating
    error: the stack is currently locked by 1 lock(s). Either wait for the other process(es) to end
     aws:ec2:NatGateway (network-nat):
        error: creating EC2 NAT Gateway: ThrottlingException: Rate exceeded
    Resources: 12 created
    """
    found = diagnosis.findings(diagnosis.of_output(text), doctor._facts(plan()))
    assert [finding.symptom.key for finding in found] == ["throttled", "locked"]


def test_words_nobody_knows_are_shown_only_where_nothing_is_recognised() -> None:
    strange = Evidence("job", "j", "xyzzy")
    facts = doctor._facts(plan())
    assert [finding.symptom.key for finding in diagnosis.findings([strange], facts)] == ["other"]
    both = diagnosis.findings([strange, Evidence("x", "y", "Rate exceeded")], facts)
    assert [finding.symptom.key for finding in both] == ["throttled"]


# ── HTTPS


@contextmanager
def api_server(answers: Mapping[str, Any], token: str) -> Iterator[tuple[str, str]]:
    """An API server on loopback: its address and its CA as EKS gives it."""
    authority = trustme.CA()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["Authorization"] == f"Bearer {token}"
            status = 401 if not known else 200 if self.path in answers else 404
            body = json.dumps({"items": answers.get(self.path, [])}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", b64encode(authority.cert_pem.bytes()).decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_real_cluster_is_read_over_https_with_its_own_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    answers = {
        "/api/v1/nodes": [node()],
        "/api/v1/namespaces/n/pods": [pod("mine")],
        "/api/v1/namespaces/kube-system/pods": [pod("theirs")],
    }
    with api_server(answers, "secret") as (address, authority):
        seen = snapshot(HttpKube(address, authority, "secret"), "n", ("kube-system",))
        assert [len(seen.nodes), [one["metadata"]["name"] for one in seen.pods]] == [1, ["mine", "theirs"]]
        assert seen.graphs == (), "a kind the server does not know is no error"
        with pytest.raises(KubeError, match="401"):
            HttpKube(address, authority, "other").items("/api/v1/nodes")
        stranger = b64encode(trustme.CA().cert_pem.bytes()).decode()
        with pytest.raises(KubeError, match="unreachable"):
            HttpKube(address, stranger, "secret").items("/api/v1/nodes")
    with pytest.raises(KubeError, match="unreachable"):
        HttpKube(address, authority, "secret").items("/api/v1/nodes")
    assert "secret" not in repr(HttpKube(address, authority, "secret"))


# ── the table


def test_the_document_lists_the_table() -> None:
    assert (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8") == symptoms.document(), symptoms.__doc__


def test_every_row_can_be_found_and_filled_in() -> None:
    facts = doctor._facts(plan())
    assert len({symptom.key for symptom in symptoms.SYMPTOMS}) == len(symptoms.SYMPTOMS)
    for symptom in symptoms.SYMPTOMS:
        assert symptom.help(facts)
        assert symptom.cause.endswith(".")
        re.compile(symptom.words)


def test_every_command_of_ours_that_a_fix_names_is_there() -> None:
    named = set(re.findall(r"\bops ([a-z-]+)", symptoms.document()))
    assert {"doctor", "recover", "sweep", "plan"} <= named
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert named - {"symptoms"} <= known


def test_the_doctor_uses_every_row_it_finds_by_looking() -> None:
    text = "".join((ROOT / "ops" / name).read_text(encoding="utf-8") for name in ("doctor.py", "diagnosis.py"))
    by_looking = [symptom.key for symptom in symptoms.SYMPTOMS if not symptom.words]
    assert by_looking == ["tool-missing"]
    named = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', text)) & set(symptoms.BY_KEY)
    assert {"tool-missing", "zone-unknown", "block-not-begun", "reservation-misfit"} <= named


def test_the_command_tells_and_ends_with_its_code(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]) -> None:
    monkeypatch.setattr("ops.aws.connect", lambda region: Pretended(account="123456789012"))
    result = run("doctor", "qwen3-32b-disagg", "--offline", "--json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert [finding["key"] for finding in data["findings"]] == ["not-set"]
    assert data["findings"][0]["fix"]
