"""The admission script against a pretend API server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.recipe.samples import plan
from tests.recipe.scripts_support import Ended, Reply, Request, Server, run_job, serve


def status(code: int, message: str, reason: str = "", **details: Any) -> Reply:
    return Reply(code, {"kind": "Status", "message": message, "reason": reason, "details": details})


NO_CRD = status(404, "the server could not find the requested resource", "NotFound")
WEBHOOK_DOWN = status(500, 'failed calling webhook "vdgd.nvidia.com": connect: connection refused', "InternalError")
DENIED = status(
    403, 'admission webhook "vdgd.nvidia.com" denied the request: image of container main is required', "Forbidden"
)
INVALID = status(
    422,
    "DynamoGraphDeployment is invalid",
    "Invalid",
    causes=[{"field": "spec.components[0].name", "message": "too long"}, {"field": "spec.x", "message": "unknown"}],
)
EXISTS = status(409, "already exists", "AlreadyExists", kind="dynamographdeployments")
CONFLICT = status(409, "the object has been modified", "Conflict")
NO_RIGHTS = status(403, "cannot create resource dynamographdeployments", "Forbidden")
NO_NAMESPACE = status(404, 'namespaces "x" not found', "NotFound", kind="namespaces")
ACCEPTED = Reply(201, {})


def admit(folder: Path, *replies: Reply, **env: str) -> tuple[Ended, Server]:
    """The script against a server that gives these replies, the last one for ever."""
    left = list(replies)
    answer: Callable[[Request], Reply] = lambda _: left.pop(0) if len(left) > 1 else left[0]  # noqa: E731
    made = plan().objects
    with serve(answer) as server:
        settings = {"KUBERNETES_API": server.url, "RETRY_SECONDS": "0.05", "ACCESS_GRACE_SECONDS": "0.5", **env}
        return run_job(made.admission_job, made.admission_config, folder, **settings), server


def test_the_graph_is_judged_as_it_would_be_created_and_nothing_is_created(tmp_path: Path) -> None:
    ended, server = admit(tmp_path, ACCEPTED)
    assert ended.code == 0, ended.log
    (request,) = server.requests
    assert request.method == "POST"
    assert "dryRun=All" in request.path, "without it the graph would be created, before there are GPUs"
    assert "fieldValidation=Strict" in request.path, "else a misspelt field is dropped in silence"
    assert request.body == plan().objects.graph
    assert request.headers["Authorization"] == "Bearer the-accounts-token"


def test_a_graph_that_exists_already_has_passed_the_same_checks(tmp_path: Path) -> None:
    assert admit(tmp_path, EXISTS)[0].code == 0


@pytest.mark.parametrize("early", [NO_CRD, WEBHOOK_DOWN, NO_RIGHTS, status(429, "slow down")])
def test_what_only_needs_time_gets_it(tmp_path: Path, early: Reply) -> None:
    ended, server = admit(tmp_path, early, early, early, ACCEPTED)
    assert ended.code == 0, ended.log
    assert len(server.requests) == 4
    assert ended.log.count("waiting:") == 1, "the same line every five seconds would bury the rest"


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (DENIED, "image of container main is required"),
        (INVALID, "spec.components[0].name: too long"),
        (NO_NAMESPACE, 'namespaces "x" not found'),
        (CONFLICT, "has been modified"),
        (status(400, 'strict decoding error: unknown field "spec.foo"', "BadRequest"), "spec.foo"),
    ],
)
def test_a_refusal_ends_it_at_once_with_the_servers_words(tmp_path: Path, answer: Reply, named: str) -> None:
    ended, server = admit(tmp_path, answer)
    assert ended.code == 1
    assert named in ended.message, "the termination message is what a person sees first"
    assert len(server.requests) == 1


def test_missing_rights_are_a_refusal_once_the_binding_had_its_time(tmp_path: Path) -> None:
    ended, _ = admit(tmp_path, NO_RIGHTS)
    assert ended.code == 1
    assert "cannot create" in ended.message


def test_the_deadline_ends_the_waiting_and_says_for_what(tmp_path: Path) -> None:
    ended, _ = admit(tmp_path, NO_CRD, DEADLINE_SECONDS="0.4")
    assert ended.code == 3
    assert "applies its CRD" in ended.message


def test_a_server_that_does_not_answer_is_waited_for(tmp_path: Path) -> None:
    made = plan().objects
    settings = {"KUBERNETES_API": "http://127.0.0.1:9", "RETRY_SECONDS": "0.05", "DEADLINE_SECONDS": "0.3"}
    ended = run_job(made.admission_job, made.admission_config, tmp_path, **settings)
    assert ended.code == 3
    assert "does not answer" in ended.message
