"""Logs and events come home, as far as they can be had, and never stand in the way of a destroy. The API server is made up."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.collect import collect
from ops.kube import KubeError, Object
from ops.planning import planned

PLAN = planned("qwen3-32b-disagg", []).model
NAMESPACE = PLAN.names.namespace
TOKEN = "hf_" + "NotARealTokenButLong0123456789"
KEY = "AKIA" + "NOTREALNOTREAL00"
SECRET = "notReal/secret+key/" + "0123456789abcdefghijk"
SECRETS = (
    f"AWS_SECRET_ACCESS_KEY={SECRET}\n{{'AWS_SESSION_TOKEN': '{SECRET}', 'other': 1}}\naws_session_token = {SECRET}\n"
)


def pod(name: str, namespace: str = NAMESPACE, restarts: int = 0) -> Object:
    status = {"containerStatuses": [{"name": "main", "restartCount": restarts}]}
    metadata = {"name": name, "namespace": namespace, "managedFields": [1]}
    return {"metadata": metadata, "spec": {"containers": [{"name": "main"}]}, "status": status}


@dataclass
class FakeKube:
    pods: list[Object]
    events: list[Object] = field(default_factory=list)
    silent: bool = False
    asked: list[str] = field(default_factory=list)

    def items(self, path: str) -> list[Object]:
        if self.silent:
            raise KubeError("configured Kubernetes cluster is unreachable: timed out")
        kind = path.rpartition("/")[2]
        found: Any = {"pods": self.pods, "events": self.events}.get(kind, [])
        return [one for one in found if f"/namespaces/{one['metadata']['namespace']}/" in path]

    def text(self, path: str) -> str:
        self.asked.append(path)
        if "broken" in path:
            raise KubeError("GET: 500")
        return f"loading {TOKEN} with {KEY}\n{SECRETS}"


def test_every_pods_log_and_the_graphs_events_come_home(tmp_path: Path) -> None:
    event = {"metadata": {"name": "e", "namespace": NAMESPACE}, "message": "0/2 nodes are available"}
    kube = FakeKube([pod("decode-0"), pod("operator", "dynamo-system")], [event])
    found = collect(PLAN, kube, tmp_path)
    logs = sorted(file for file in found.files if file.startswith("logs/"))
    assert logs == ["logs/dynamo-system.operator.main.log", f"logs/{NAMESPACE}.decode-0.main.log"]
    assert "0/2 nodes" in (tmp_path / "events.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "pods.json").read_text(encoding="utf-8"))
    assert "managedFields" not in (tmp_path / "pods.json").read_text(encoding="utf-8"), "half of the file, for nobody"
    assert kube.asked[0].startswith(f"/api/v1/namespaces/{NAMESPACE}/"), (
        "the workers' first: there may not be time for all"
    )


def test_a_container_that_crashed_says_what_it_said_before(tmp_path: Path) -> None:
    found = collect(PLAN, FakeKube([pod("decode-0", restarts=3)]), tmp_path)
    assert any(file.endswith(".previous.log") for file in found.files), "the new one has not reached the reason yet"


def test_no_secret_that_a_program_printed_comes_home(tmp_path: Path) -> None:
    collect(PLAN, FakeKube([pod("decode-0")]), tmp_path)
    text = "".join(file.read_text(encoding="utf-8") for file in tmp_path.rglob("*.*") if file.is_file())
    assert "[secret]" in text
    assert TOKEN not in text
    assert KEY not in text
    assert SECRET not in text
    assert "'other': 1" in text, "the rest of the line stays"


def test_a_log_that_cannot_be_had_is_named_and_the_others_come(tmp_path: Path) -> None:
    found = collect(PLAN, FakeKube([pod("broken"), pod("decode-0")]), tmp_path)
    assert [one for one in found.missing if "broken" in one]
    assert f"logs/{NAMESPACE}.decode-0.main.log" in found.files
    assert "could not be had" in found.say()


def test_a_cluster_that_does_not_answer_holds_up_nothing(tmp_path: Path) -> None:
    found = collect(PLAN, FakeKube([], silent=True), tmp_path)
    assert found.files == []
    assert "unreachable" in found.say()


def test_it_ends_when_its_time_is_over(tmp_path: Path) -> None:
    times = iter(range(0, 10_000, 50))
    pods = [pod(f"decode-{number}") for number in range(20)]
    found = collect(PLAN, FakeKube(pods), tmp_path, seconds=120, clock=lambda: float(next(times)))
    assert any("seconds for it were over" in one for one in found.missing), "each minute costs $1.83"
