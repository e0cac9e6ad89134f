"""The last part of a rehearsal's `up`, without Dynamo: when it is left out, what it says, and what its failures are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from ops import serving
from ops.exits import MISSING
from ops.planning import planned
from ops.serving import Served, in_cloud, prepare, said, serve_and_ask
from rehearsal.cloud import rules
from rehearsal.engine import Engine
from rehearsal.errors import SetupError
from rehearsal.serving import Answer
from tests.ops.conftest import STACK

Run = Callable[..., Result]
ANSWER = Answer(text="alpha  beta\ngamma", prompt_tokens=2705, tokens=32, ttft_ms=184.7, itl_ms=15.17, total_ms=655.0)
SERVED = Served(
    workers=8,
    timing="NVIDIA's performance database for h100_sxm",
    model="Qwen/Qwen3-32B",
    answer=ANSWER,
    served_by=("prefill-0", "decode-1"),
    admissions={"decode": 1, "prefill": 1},
    endpoint_check="Qwen/Qwen3-32B answers at http://127.0.0.1:8000 (first completion after 0.3 s)",
    start_seconds=5.1,
    memory_mib=609,
)


def no_network() -> Path:
    raise SetupError("the packages could not be installed (a package registry cannot be reached):\n  …", "again later")


def test_where_it_cannot_be_set_up_one_line_says_so_and_the_rehearsal_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving, "ensure_environment", no_network)
    assert prepare(wanted=None) is False
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert "a package registry cannot be reached" in told[0]
    assert "SERVE=0" in told[0]


def test_whoever_insists_gets_a_failure_instead(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(serving, "ensure_environment", no_network)
    monkeypatch.setattr("ops.rehearsing.ensure_engine", lambda: Engine(Path("pulumi"), (), "PATH", "v3.250.0"))
    result = run("rehearse", STACK, "--serve")
    assert result.exit_code == MISSING
    assert result.stderr.endswith("Next: again later\n")


@pytest.mark.parametrize("how", [{"SERVE": "0"}, {"SERVE": "false"}])
def test_serve_0_sets_nothing_up(how: dict[str, str], monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    asked: list[bool | None] = []

    def rehearse(*_: Any, serve: bool | None, **__: Any) -> int:
        asked.append(serve)
        return 0

    monkeypatch.setattr("ops.rehearsing.rehearse", rehearse)
    for name, value in how.items():
        monkeypatch.setenv(name, value)
    run("rehearse", STACK)
    monkeypatch.delenv("SERVE")
    for args in ((), ("--serve",), ("--no-serve",)):
        run("rehearse", STACK, *args)
    assert asked == [False, None, True, False]

    def never() -> Path:
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr(serving, "ensure_environment", never)
    assert prepare(wanted=False) is False


def test_what_is_said_names_time_model_workers_and_what_the_times_are_worth() -> None:
    text = "\n".join(said(SERVED))
    for part in (
        "a prompt of 2705 tokens: first token after 185 ms, then one every 15.2 ms",
        "32 tokens, random ones: alpha beta gamma",
        "served by prefill-0 and decode-1; the router admitted 1 to prefill, 1 to decode",
        "simulated times: NVIDIA's performance database for h100_sxm",
        "the readiness Job's own check: Qwen/Qwen3-32B answers",
    ):
        assert part in text


def test_the_keys_for_scripts_are_marked_simulated() -> None:
    data = SERVED.as_data()
    assert data["simulated"] is True
    assert data["answer"]["ttft_ms"] == 184.7
    assert data["timing"]
    assert set(data) >= {"failure", "workers", "model", "served_by", "admissions", "endpoint_check", "memory_mib"}


def test_the_graph_and_its_config_maps_are_taken_from_the_cloud_as_it_is() -> None:
    def graph(name: str, namespace: str) -> dict[str, Any]:
        return {"type": rules.DGD, "inputs": {"metadata": {"name": name, "namespace": namespace}, "spec": {}}}

    config = {"metadata": {"name": "c", "namespace": "ours"}, "data": {}}
    records = [
        {"type": rules.CLUSTER, "inputs": {}},
        {"type": rules.CONFIG_MAP, "inputs": config},
        graph("g", "ours"),
        graph("g", "another-stack-on-the-same-base"),
        {"type": rules.CONFIG_MAP, "inputs": {"metadata": {"name": "c", "namespace": "elsewhere"}, "data": {"x": "y"}}},
    ]
    wanted = {"name": "g", "namespace": "ours"}
    assert in_cloud(records, wanted) == (records[2]["inputs"], {"c": config})
    assert in_cloud(records[:2], wanted)[0] is None
    assert serve_and_ask(planned(STACK, []).model, records[:1]) is None, "paused: there is nothing to serve"


def test_what_does_not_start_is_a_failure_of_the_rehearsal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise SetupError("frontend-0 ended: unrecognized arguments: --nonsense", "run this again")

    monkeypatch.setattr(serving, "serve", broken)
    made = planned(STACK, []).model
    served = serve_and_ask(made, [{"type": rules.DGD, "inputs": made.objects.graph}])
    assert served is not None
    assert served.failure == "serving failed: frontend-0 ended: unrecognized arguments: --nonsense"
    assert "--nonsense" in capsys.readouterr().err
