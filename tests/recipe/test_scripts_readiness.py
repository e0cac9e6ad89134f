"""The readiness script against a pretend API server and frontend."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.recipe.samples import plan
from tests.recipe.scripts_support import Ended, Reply, Request, Server, run_job, serve

MODEL = "Qwen/Qwen3-32B"
READY: dict[str, Any] = {
    "metadata": {"generation": 2},
    "status": {
        "state": "successful",
        "observedGeneration": 2,
        "conditions": [{"type": "Ready", "status": "True", "reason": "all_resources_are_ready"}],
    },
}
NOT_READY: dict[str, Any] = {
    "metadata": {"generation": 2},
    "status": {
        "state": "pending",
        "observedGeneration": 2,
        "conditions": [{"type": "Ready", "status": "False", "reason": "pods_not_ready", "message": "decode"}],
    },
}
FAILED = {**NOT_READY, "status": {**NOT_READY["status"], "state": "failed"}}
MODELS = {"data": [{"id": MODEL}]}
EMPTY = {"choices": [{"message": {"content": ""}}]}
ANSWER = {"choices": [{"message": {"content": "Hello."}}]}


def pod(name: str = "graph-decode-abc", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"phase": "Pending", **status}}


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    container = {"image": "nvcr.io/x:1", "ready": False, "state": {"waiting": {"reason": reason, "message": message}}}
    return pod(containerStatuses=[{**container, **more}])


def unschedulable(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return pod(conditions=[condition])


class World:
    """What the servers answer; each value may be a list, then one item per request and the last for ever."""

    def __init__(self, **answers: Any) -> None:
        self.graph: Any = READY
        self.pods: Any = {"items": []}
        self.models: Any = MODELS
        self.chat: Any = ANSWER
        self.events: Any = {"items": []}
        vars(self).update(answers)

    def answer(self, request: Request) -> Reply:
        name = (
            "graph" if "dynamographdeployments" in request.path
            else "pods" if "/pods" in request.path
            else "events" if "/events" in request.path
            else "models" if "/models" in request.path
            else "chat"
        )  # fmt: skip
        value = getattr(self, name)
        if isinstance(value, list):
            value = value.pop(0) if len(value) > 1 else value[0]
        return value if isinstance(value, Reply) else Reply(200, value)


def wait(folder: Path, world: World, **env: str) -> tuple[Ended, Server]:
    made = plan().objects
    with serve(world.answer) as server:
        settings = {
            "KUBERNETES_API": server.url,
            "FRONTEND_URL": server.url,
            "POLL_SECONDS": "0.02",
            "DEADLINE_SECONDS": "20",
            "UNSCHEDULABLE_GRACE_SECONDS": "0.3",
            "IMAGE_GRACE_SECONDS": "0.3",
            **env,
        }
        return run_job(made.readiness_job, made.readiness_config, folder, **settings), server


def items(*pods: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(pods)}


# ── yes ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_yes_only_after_a_real_answer_of_the_listed_model(tmp_path: Path) -> None:
    world = World(
        graph=[Reply(404, {}), NOT_READY, READY],
        models=[Reply(503, {}), {"data": []}, MODELS],
        chat=[Reply(500, {}), EMPTY, ANSWER],
    )
    ended, server = wait(tmp_path, world)
    assert ended.code == 0, ended.log
    assert "answers" in ended.message
    first, *more = server.asked("POST", "/v1/chat/completions")
    assert len(more) == 2, "an error and an empty text are no answer"
    asked_before = server.requests[: server.requests.index(first)]
    assert sum("/v1/models" in request.path for request in asked_before) == 3, "asked before the model was listed"
    assert first.body["model"] == MODEL
    assert first.body["max_tokens"] <= 64, "without a limit Dynamo 1.6.0 may generate to the end of the context"


def test_a_status_of_an_older_generation_does_not_count(tmp_path: Path) -> None:
    stale = copy.deepcopy(READY)
    stale["metadata"]["generation"] = 3
    fresh = copy.deepcopy(stale)
    fresh["status"]["observedGeneration"] = 3
    ended, server = wait(tmp_path, World(graph=[stale, stale, fresh]))
    assert ended.code == 0
    assert len(server.asked("GET", "dynamographdeployments")) == 3, (
        "the old graph's Ready says nothing about the new one"
    )


def test_reasoning_is_text_too(tmp_path: Path) -> None:
    thinking = {"choices": [{"message": {"content": None, "reasoning_content": "The user wants"}}]}
    assert wait(tmp_path, World(chat=thinking))[0].code == 0, "Qwen3 thinks before it speaks"


def test_pods_of_another_graph_are_not_asked_for(tmp_path: Path) -> None:
    _, server = wait(tmp_path, World())
    assert (
        "labelSelector=nvidia.com/dynamo-graph-deployment-name%3Dqwen3-32b-disagg"
        in server.asked("GET", "/pods")[0].path
    )


# ── no, and why ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("trouble", "named"),
    [
        (waiting("InvalidImageName", "couldn't parse image"), "couldn't parse image"),
        (waiting("CreateContainerConfigError", 'secret "x" not found'), 'secret "x" not found'),
        (waiting("ErrImagePull", "manifest unknown: 1.6.1-efa"), "manifest unknown"),
        (waiting("ImagePullBackOff", "401 Unauthorized"), "nvcr.io/x:1"),
        (
            waiting(
                "CrashLoopBackOff",
                restartCount=3,
                lastState={"terminated": {"reason": "OOMKilled", "exitCode": 137}},
            ),
            "OOMKilled, exit code 137",
        ),
    ],
)
def test_what_never_mends_ends_it_at_once_with_the_reason(tmp_path: Path, trouble: dict[str, Any], named: str) -> None:
    ended, server = wait(tmp_path, World(graph=NOT_READY, pods=items(trouble)))
    assert ended.code == 1
    assert named in ended.message
    assert "kubectl" in ended.message, "the next step"
    assert len(server.asked("GET", "/pods")) == 1, "every further poll costs two nodes' GPUs"


def test_a_failed_graph_ends_it_but_one_failed_reconcile_does_not(tmp_path: Path) -> None:
    ended, _ = wait(tmp_path, World(graph=[FAILED, NOT_READY, READY]))
    assert ended.code == 0
    ended, _ = wait(tmp_path, World(graph=FAILED))
    assert ended.code == 1
    assert "pods_not_ready" in ended.message


def test_a_pod_without_a_place_has_time_until_devices_register_and_no_more(tmp_path: Path) -> None:
    lacking = items(unschedulable("0/4 nodes are available: 2 Insufficient vpc.amazonaws.com/efa"))
    ended, _ = wait(tmp_path, World(graph=[NOT_READY, NOT_READY, READY], pods=[lacking, lacking, items()]))
    assert ended.code == 0, "device plugins register after the node joins"
    ended, _ = wait(tmp_path, World(graph=NOT_READY, pods=lacking))
    assert ended.code == 1
    assert "Insufficient vpc.amazonaws.com/efa" in ended.message


def test_an_image_that_may_still_come_gets_time_and_no_more(tmp_path: Path) -> None:
    slow = items(waiting("ImagePullBackOff", "i/o timeout"))
    assert wait(tmp_path, World(graph=[NOT_READY, READY], pods=[slow, items()]))[0].code == 0
    ended, _ = wait(tmp_path, World(graph=NOT_READY, pods=slow))
    assert ended.code == 1
    assert "i/o timeout" in ended.message


def test_a_single_crash_is_not_the_end(tmp_path: Path) -> None:
    once = items(waiting("CrashLoopBackOff", restartCount=1))
    assert wait(tmp_path, World(graph=[NOT_READY, READY], pods=[once, items()]))[0].code == 0


def test_pods_on_their_way_out_do_not_count(tmp_path: Path) -> None:
    leaving = waiting("CrashLoopBackOff", restartCount=9)
    leaving["metadata"]["deletionTimestamp"] = "2026-11-23T00:00:00Z"
    assert wait(tmp_path, World(pods=items(leaving)))[0].code == 0


def test_a_ready_graph_that_never_answers_is_a_failure_long_before_the_deadline(tmp_path: Path) -> None:
    ended, server = wait(tmp_path, World(chat=Reply(500, {"error": "no prefill workers"})))
    assert ended.code == 1
    assert "no prefill workers" in ended.message
    assert len(server.asked("POST", "/v1/chat/completions")) == 5


def test_the_deadline_says_what_it_was_waiting_for_and_shows_the_newest_warnings(tmp_path: Path) -> None:
    event = {
        "involvedObject": {"name": "qwen3-32b-disagg-decode-1"},
        "reason": "FailedMount",
        "message": "MountVolume.SetUp failed",
        "lastTimestamp": "2026-11-23T00:00:00Z",
    }
    foreign = {**event, "involvedObject": {"name": "somebody-else"}, "message": "not ours"}
    world = World(graph=NOT_READY, pods=items(waiting("ContainerCreating")), events={"items": [event, foreign]})
    ended, _ = wait(tmp_path, world, DEADLINE_SECONDS="0.4")
    assert ended.code == 3
    assert "0 of 1 pods ready (1 ContainerCreating)" in ended.message
    assert "MountVolume.SetUp failed" in ended.message
    assert "not ours" not in ended.message


def test_api_server_and_frontend_may_be_away_for_a_while(tmp_path: Path) -> None:
    world = World(
        graph=[Reply(503, b"upstream"), READY], pods=[Reply(500, {}), items()], models=[Reply(502, b"<html>"), MODELS]
    )
    assert wait(tmp_path, world)[0].code == 0
