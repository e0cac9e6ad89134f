"""The script that says when GPU nodes should be asked for, on a folder instead of EFS."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from recipe.scripts import head
from tests.recipe.samples import plan

MODEL, REVISION = "Qwen/Qwen3-32B", "9216db5781bf21249d130ec9da846c4624c16137"
FOLDER = "models--Qwen--Qwen3-32B"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    told = {
        "MODEL_ID": MODEL, "MODEL_REVISION": REVISION, "HF_HOME": str(tmp_path), "LEAD_SECONDS": "300", "DEADLINE_SECONDS": "5",
        "ASK_SECONDS": "0.02", "STILL_SECONDS": "0.3",
    }  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def write(home: Path, kind: str, content: dict[str, float]) -> None:
    file = home / kind / FOLDER / f"{REVISION}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def progress(home: Path, done: float, rate: float, mean: float) -> None:
    write(home, "progress", {"done": done, "total": 1000.0, "rate": rate, "mean_rate": mean})


def test_it_waits_until_the_rest_takes_no_longer_than_nodes(home: Path) -> None:
    progress(home, 100, 1, 1)
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(head.main()))
    thread.start()
    time.sleep(0.1)
    assert ended == [], "900 s to go, and nodes take 300"
    progress(home, 701, 1, 1)
    thread.join(timeout=3)
    assert ended == [0]


def test_it_counts_with_the_slower_rate(home: Path) -> None:
    assert head.left_seconds({"done": 400, "total": 1000, "rate": 10, "mean_rate": 2}) == 300
    assert head.left_seconds({"done": 400, "total": 1000, "rate": 1, "mean_rate": 2}) == 600
    assert head.left_seconds({"done": 0, "total": 1000, "rate": 0, "mean_rate": 0}) is None
    progress(home, 400, 0.1, 100)
    assert head.main() == 5, "a download that has become slow is not near its end"


def test_what_was_verified_before_is_waited_for_no_longer(home: Path) -> None:
    write(home, "verified", {})
    assert head.main() == 0


def test_a_download_that_does_not_move_gets_no_gpu_nodes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert head.main() == 5
    assert "has not moved" in capsys.readouterr().out


def test_started_without_its_job_it_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEAD_SECONDS")
    assert head.main() == 2


def test_the_job_exists_only_where_it_is_asked_for_and_cannot_write_to_the_cache() -> None:
    assert plan().objects.head_job is None
    job = plan(weights__wait="overlap").objects.head_job
    assert job is not None
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == "model-cache")
    assert mount["readOnly"], "only the download writes there"
