"""The download script, with the real huggingface_hub as the Job installs it, against a pretend hub."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recipe.jobs import PACKAGES_MOUNT, REQUIREMENTS
from recipe.names import digest
from recipe.scripts import head
from recipe.weights import WEIGHT_FILES, snapshot_path
from tests.recipe.samples import plan
from tests.recipe.scripts_support import Ended, Reply, Request, Server, run_job, serve

ROOT = Path(__file__).parents[2]
REVISION = plan().model.revision
MODEL = plan().model.id
WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": b'{"model_type": "qwen3"}', "model-00001.safetensors": WEIGHTS}


@pytest.fixture(scope="session")
def packages() -> Path:
    """What the Job's init container installs, by the same arguments; kept between runs."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("the download Job's wheels are pinned for x86_64 Linux, where the Job runs")
    made = plan().objects
    requirements = made.weights_config["data"][REQUIREMENTS]
    (install,) = made.weights_job["spec"]["template"]["spec"]["initContainers"]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = ROOT / ".cache" / f"download-packages-{version}-{digest(requirements)}"
    if not target.exists():
        unfinished = target.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        (unfinished / REQUIREMENTS).write_text(requirements)
        args = [
            argument.replace(f"/scripts/{REQUIREMENTS}", f"{unfinished}/{REQUIREMENTS}").replace(
                PACKAGES_MOUNT, str(unfinished)
            )
            for argument in install["args"]
        ]
        done = subprocess.run(
            [sys.executable, *install["command"][1:], *args], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"the Job's own pip arguments do not install its packages:\n{done.stderr}"
        unfinished.rename(target)
    return target


class Hub:
    """A repository with one commit. `trouble` may answer first; None lets the hub answer."""

    def __init__(self, files: dict[str, bytes] = FILES) -> None:
        self.files = files
        self.listed = {name: self.entry(name, data) for name, data in files.items()}
        self.early: dict[str, list[Reply]] = {}
        """Replies before the real ones, by `METHOD part-of-path`."""

    @staticmethod
    def entry(name: str, data: bytes) -> dict[str, Any]:
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git}
        if name.endswith(".safetensors"):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def answer(self, request: Request) -> Reply:
        for key, replies in self.early.items():
            method, _, part = key.partition(" ")
            if request.method == method and part in request.path and replies:
                return replies.pop(0)
        if request.path.startswith(f"/api/models/{MODEL}/tree/{REVISION}"):
            return Reply(200, list(self.listed.values()))
        prefix = f"/{MODEL}/resolve/{REVISION}/"
        name = request.path.removeprefix(prefix)
        if not request.path.startswith(prefix) or name not in self.files:
            return Reply(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
        entry, data = self.listed[name], self.files[name]
        headers = {"X-Repo-Commit": REVISION, "ETag": f'"{entry.get("lfs", entry)["oid"]}"', "Accept-Ranges": "bytes"}
        start = int(
            (request.headers.get("Range") or request.headers.get("range") or "bytes=0-")
            .removeprefix("bytes=")
            .rstrip("-")
            or 0
        )
        return Reply(206 if start else 200, data[start:], headers)


def download(folder: Path, packages: Path, hub: Hub, **env: str) -> tuple[Ended, Server]:
    made = plan().objects
    with serve(hub.answer) as server:
        settings = {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(folder / "cache"),
            "PYTHONPATH": str(packages),
            "FIRST_WAIT_SECONDS": "0.05",
            "DEADLINE_SECONDS": "30",
            "HF_XET_CACHE": str(folder / "xet"),
            **env,
        }
        return run_job(made.weights_job, made.weights_config, folder, **settings), server


def snapshot(folder: Path) -> Path:
    return Path(snapshot_path(str(folder / "cache"), MODEL, REVISION))


def manifests(folder: Path) -> list[Path]:
    return list((folder / "cache" / "verified").rglob("*.json"))


# ── it gets there ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_file_of_the_commit_is_there_and_written_down(tmp_path: Path, packages: Path) -> None:
    ended, _ = download(tmp_path, packages, Hub())
    assert ended.code == 0, ended.log
    assert {name: (snapshot(tmp_path) / name).read_bytes() for name in FILES} == FILES
    (manifest,) = manifests(tmp_path)
    written = {entry["path"]: entry for entry in json.loads(manifest.read_text())["files"]}
    assert written["model-00001.safetensors"]["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert set(written) == set(FILES)


def test_how_far_it_is_stands_where_the_head_job_reads_it(tmp_path: Path, packages: Path) -> None:
    hub = Hub()
    hub.early["GET model-00001.safetensors"] = [Reply(503), Reply(503), Reply(503)]  # so that it takes a moment
    ended, _ = download(tmp_path, packages, hub, PROGRESS_SECONDS="0.02")
    assert ended.code == 0, ended.log
    folder = "models--" + MODEL.replace("/", "--")
    progress = head.read(tmp_path / "cache" / "progress" / folder / f"{REVISION}.json")
    assert progress is not None, "GPU nodes would never be asked for"
    assert progress["total"] == sum(map(len, FILES.values()))
    assert 0 <= progress["done"] <= progress["total"]
    head.left_seconds(progress)


def test_a_second_run_compares_sizes_and_asks_nobody(tmp_path: Path, packages: Path) -> None:
    download(tmp_path, packages, Hub())
    ended, server = download(tmp_path, packages, Hub())
    assert ended.code == 0
    assert server.requests == [], "a repeated `up` must not depend on the hub"


def test_a_file_that_was_cut_short_later_is_fetched_again(tmp_path: Path, packages: Path) -> None:
    download(tmp_path, packages, Hub())
    (snapshot(tmp_path) / "model-00001.safetensors").resolve().write_bytes(WEIGHTS[:100])
    ended, _ = download(tmp_path, packages, Hub())
    assert ended.code == 0, ended.log
    assert (snapshot(tmp_path) / "model-00001.safetensors").read_bytes() == WEIGHTS


def test_only_what_is_missing_is_fetched(tmp_path: Path, packages: Path) -> None:
    download(tmp_path, packages, Hub())
    manifests(tmp_path)[0].unlink()
    (snapshot(tmp_path) / "config.json").unlink()
    ended, server = download(tmp_path, packages, Hub())
    assert ended.code == 0
    assert not server.asked("GET", "model-00001"), "65 GB again for a lost manifest"


def test_what_is_left_out_is_neither_fetched_nor_taken_for_verified_later(tmp_path: Path, packages: Path) -> None:
    part, server = download(tmp_path, packages, Hub(), MODEL_FILES_WITHOUT=WEIGHT_FILES)
    assert part.code == 0, part.log
    assert [path.name for path in snapshot(tmp_path).iterdir()] == ["config.json"]
    assert not server.asked("GET", "safetensors"), "65 GB for an engine that only pretends"
    again, server = download(tmp_path, packages, Hub(), MODEL_FILES_WITHOUT=WEIGHT_FILES)
    assert (again.code, server.requests) == (0, []), "a repeated `up` must not depend on the hub"
    whole, _ = download(tmp_path, packages, Hub())
    assert whole.code == 0, whole.log
    assert (snapshot(tmp_path) / "model-00001.safetensors").read_bytes() == WEIGHTS, "a part never stands for the whole"


def test_the_whole_stands_for_a_part(tmp_path: Path, packages: Path) -> None:
    download(tmp_path, packages, Hub())
    part, server = download(tmp_path, packages, Hub(), MODEL_FILES_WITHOUT=WEIGHT_FILES)
    assert (part.code, server.requests) == (0, [])
    assert (snapshot(tmp_path) / "model-00001.safetensors").exists(), "another stack may use them"


@pytest.mark.parametrize("where", ["GET /tree/", "HEAD config.json", "GET model-00001.safetensors"])
def test_too_many_requests_are_waited_out_as_long_as_the_hub_asks(tmp_path: Path, packages: Path, where: str) -> None:
    hub = Hub()
    hub.early[where] = [Reply(429, {"error": "rate limit"}, {"Retry-After": "0.3"}) for _ in range(2)]
    ended, _ = download(tmp_path, packages, hub)
    assert ended.code == 0, ended.log
    assert not hub.early[where]


def test_retry_after_is_honoured(tmp_path: Path, packages: Path) -> None:
    hub = Hub()
    hub.early["GET /tree/"] = [Reply(429, {}, {"Retry-After": "3600"}) for _ in range(9)]
    ended, server = download(tmp_path, packages, hub)
    assert ended.code == 6, "an hour's wait does not fit the deadline, so there is no point in asking again"
    assert "429" in ended.message
    assert len(server.requests) == 1


def test_a_connection_that_breaks_in_mid_file_is_resumed(tmp_path: Path, packages: Path) -> None:
    name, weights = "model-00001.safetensors", bytes(24 << 20)
    hub = Hub({name: weights})
    headers = {"X-Repo-Commit": REVISION, "ETag": f'"{hub.listed[name]["lfs"]["oid"]}"', "Accept-Ranges": "bytes"}
    hub.early[f"GET {name}"] = [Reply(200, weights, headers, cut_short_by=1 << 20)]
    ended, server = download(tmp_path, packages, hub)
    assert ended.code == 0, ended.log
    assert (snapshot(tmp_path) / name).read_bytes() == weights
    ranges = [request.headers.get("range") or request.headers.get("Range") for request in server.asked("GET", name)]
    # huggingface_hub writes pieces of 10 MiB, so what it has of 23 MiB is 20.
    assert ranges == [None, f"bytes={20 << 20}-"], "a break near the end must not start over"


# ── it does not, and says why ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("status", "token"), [(401, ""), (403, "hf_" + "secret"), (404, "")])
def test_a_no_from_the_hub_ends_it_at_once_without_showing_the_token(
    tmp_path: Path, packages: Path, status: int, token: str
) -> None:
    hub = Hub()
    hub.early["GET /tree/"] = [Reply(status, {"error": "no"}) for _ in range(9)]
    ended, server = download(tmp_path, packages, hub, HF_TOKEN=token)
    assert ended.code == 3, ended.log
    assert str(status) in ended.message
    assert len(server.requests) == 1, "asking again changes nothing"
    assert ("weights.token" in ended.message) is not bool(token), "the next step depends on whether there is one"
    assert not token or token not in ended.log + ended.message


def test_the_token_goes_to_the_hub(tmp_path: Path, packages: Path) -> None:
    _, server = download(tmp_path, packages, Hub(), HF_TOKEN="hf_" + "secret")
    sent = {request.headers.get("authorization") or request.headers.get("Authorization") for request in server.requests}
    assert sent == {"Bearer hf_" + "secret"}


@pytest.mark.parametrize("name", list(FILES))
def test_a_file_with_the_right_size_and_wrong_content_is_not_accepted(
    tmp_path: Path, packages: Path, name: str
) -> None:
    hub = Hub()
    hub.files = {**FILES, name: bytes(len(FILES[name]))}
    ended, server = download(tmp_path, packages, hub)
    assert ended.code == 5, ended.log
    assert name in ended.message
    assert len(server.asked("GET", f"/resolve/{REVISION}/{name}")) == 3, "thrown away and fetched again, not believed"
    assert manifests(tmp_path) == [], "nobody may take this for verified"


def test_too_little_space_is_said_before_anything_is_fetched(tmp_path: Path, packages: Path) -> None:
    hub = Hub()
    hub.listed["model-00001.safetensors"]["size"] = 10**18
    ended, server = download(tmp_path, packages, hub)
    assert ended.code == 4
    assert "GB are missing" in ended.message
    assert not server.asked("GET", "/resolve/")


def test_a_hub_that_is_away_is_waited_for_until_the_deadline(tmp_path: Path, packages: Path) -> None:
    ended, _ = download(tmp_path, packages, Hub(), HF_ENDPOINT="http://127.0.0.1:9", DEADLINE_SECONDS="1")
    assert ended.code == 6
    assert "again in" in ended.log


def test_without_its_environment_it_says_what_is_missing(tmp_path: Path, packages: Path) -> None:
    made = plan().objects
    container = made.weights_job["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [entry for entry in container["env"] if entry["name"] != "MODEL_REVISION"]
    ended = run_job(made.weights_job, made.weights_config, tmp_path, PYTHONPATH=str(packages))
    assert ended.code == 2
    assert "MODEL_REVISION" in ended.message
