"""A benchmark on the real engine: part of an `up`, gone with the next one, and a bucket that a destroy keeps and a report counts as kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ops.app import app
from ops.edits import REMOVED
from ops.exits import OK
from rehearsal.cloud.report import KEPT_ON_PURPOSE

from .conftest import StartLife
from .life import Life, faults_file, names, said, succeed

pytestmark = pytest.mark.engine

ASKED = {"benchmark.run": "small", "benchmark.bucket": "create"}


def kept(life: Life) -> list[dict[str, Any]]:
    return [thing for thing in life.session.cloud_objects() if thing["type"] in KEPT_ON_PURPOSE]


def test_a_benchmark_comes_with_one_up_and_goes_with_the_next(start: StartLife) -> None:
    life = start()
    life.edit(ASKED)
    succeed(life.up())
    (job,) = life.exists("Job", "benchmark-job")
    assert job["extra"]["phase"] == "complete"
    ready, measured = life.one("create", "serving-ready"), life.one("create", "benchmark-job")
    assert measured["start"] >= ready["end"], "what is measured has proved that it serves"
    assert set(succeed(life.up("--expect-no-changes")).changes) == {"same"}, "a repeated `up` measures nothing again"

    life.edit({"benchmark.attempt": 2})
    assert life.preview().named("benchmark") == {"benchmark-config": "replace", "benchmark-job": "replace"}

    life.edit({"benchmark.run": REMOVED, "benchmark.attempt": REMOVED})
    steps = life.preview()
    assert set(steps.changed().values()) <= {"delete", "same"}
    assert not any(name.startswith(("serving", "gpu", "caches")) for name in steps.changed())
    succeed(life.up())
    assert life.exists("Job", "benchmark-job") == []
    assert names(kept(life)), "results outlive the benchmark"

    succeed(life.destroy())
    assert names(life.session.cloud_objects()) == names(kept(life)), "all but the bucket is gone"
    assert life.session.resources(life.stack) == []


def test_a_bucket_that_was_kept_is_taken_by_its_name(start: StartLife) -> None:
    life = start()
    life.edit({"benchmark.bucket": "create"})
    succeed(life.up())
    succeed(life.destroy())
    (bucket,) = [thing for thing in kept(life) if thing["type"].endswith(":Bucket")]
    refused = life.up()
    assert not refused.ok
    assert "BucketAlreadyOwnedByYou" in said(refused)
    life.edit({"benchmark.bucket": bucket["id"]})
    succeed(life.up())


def test_a_benchmark_that_fails_fails_the_up_and_the_next_one_measures_again(start: StartLife, tmp_path: Path) -> None:
    fault = {
        "type": "Job",
        "name_contains": "benchmark",
        "when": "after",
        "error": "c2-r1: AIPerf ended with exit code 1",
    }
    life = start(faults=faults_file(tmp_path, fault))
    life.edit({"benchmark.run": "small"})
    failed = life.up()
    assert not failed.ok
    assert "AIPerf ended with exit code 1" in said(failed)
    (graph,) = life.exists("DynamoGraphDeployment")
    assert graph["extra"]["state"] == "successful", "the stack serves, whatever its figures"
    succeed(life.up())
    (job,) = life.exists("Job", "benchmark-job")
    assert job["extra"]["phase"] == "complete"
    succeed(life.destroy())
    assert names(life.session.cloud_objects()) == []


def test_the_rehearsals_report_counts_the_bucket_as_kept_and_not_as_left(
    tmp_path: Path, engine: object, run_rehearsal: Callable[..., dict[str, Any]]
) -> None:
    data = run_rehearsal("mocker-cpu", "--set", "benchmark.bucket=create")
    assert (data["ok"], data["left"]) == (True, 0)
    assert {one["type"].rpartition(":")[2] for one in data["kept_on_purpose"]} == {"Bucket", "BucketPublicAccessBlock"}
    assert data["deleted"] == data["created"] - 2


@pytest.fixture
def run_rehearsal(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run_rehearsal(*args: str) -> dict[str, Any]:
        file = tmp_path / "rehearsal.json"
        done = CliRunner(env={"COLUMNS": "140"}).invoke(app, ["rehearse", *args, "--json", str(file)])
        assert done.exit_code == OK, done.output
        assert "Kept on purpose, 2 things" in done.output
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    return run_rehearsal
