"""What the workflows run, with events like GitHub's and a small GitHub on loopback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ops import ci, diff_view, diffing
from ops.stacks import ROOT
from tests.ops.test_diff import data

REPOSITORY, FORK, SHA = "owner/dynamo-recipes", "somebody/dynamo-recipes", "a" * 40
TOKEN = "ghs_" + "0" * 20
BOT = {"login": "github-actions[bot]", "type": "Bot"}
LOST = {"gives_up": ["gpu-nodes is replaced: 2 GPU nodes"]}


class GitHub:
    """The two collections a comment needs, behind GitHub's paths."""

    def __init__(self) -> None:
        self.pulls = [self.pull(7)]
        self.comments: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.wrong = 0
        """The status everything is answered with; 0: as it should be."""

    @staticmethod
    def pull(number: int, repository: str | None = FORK, sha: str = SHA) -> dict[str, Any]:
        return {"number": number, "head": {"sha": sha, "repo": repository and {"full_name": repository}}}

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.calls.append(f"{method} {path}")
        parts, query = urlsplit(path).path, parse_qs(urlsplit(path).query)
        if self.wrong:
            return self.wrong, {"message": "no"}
        page, size = int(query.get("page", ["1"])[0]), int(query.get("per_page", ["30"])[0])
        at = slice((page - 1) * size, page * size)
        if method == "GET" and parts == f"/repos/{REPOSITORY}/pulls":
            assert query["state"] == ["open"]
            assert query["head"] == [f"{FORK.partition('/')[0]}:edit"]
            return 200, self.pulls[at]
        if method == "GET" and parts == f"/repos/{REPOSITORY}/issues/7/comments":
            return 200, self.comments[at]
        if method == "POST" and parts == f"/repos/{REPOSITORY}/issues/7/comments":
            self.comments.append({"id": 1000 + len(self.comments), "user": BOT, "body": body["body"]})
            return 201, self.comments[-1]
        if method == "PATCH" and (found := re.fullmatch(rf"/repos/{REPOSITORY}/issues/comments/(\d+)", parts)):
            (one,) = (one for one in self.comments if one["id"] == int(found[1]))
            one["body"] = body["body"]
            return 200, one
        return 404, {"message": f"nothing at {method} {path}"}


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GitHub]:
    """A GitHub on loopback, and the environment of a runner that belongs to it."""
    pretend = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            assert self.headers["Authorization"] == f"Bearer {TOKEN}"
            length = int(self.headers.get("Content-Length") or 0)
            status, body = pretend.answer(self.command, self.path, json.loads(self.rfile.read(length) or b"null"))
            payload = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PATCH = _serve

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    happened(monkeypatch, tmp_path, workflow_run={
        "head_sha": SHA, "head_branch": "edit", "head_repository": {"full_name": FORK}, "html_url": "https://github.example/run/1",
        "pull_requests": [],
    })  # fmt: skip
    yield pretend
    server.shutdown()
    server.server_close()
    thread.join()


def happened(monkeypatch: pytest.MonkeyPatch, folder: Path, **event: Any) -> None:
    file = folder / "event.json"
    file.write_text(json.dumps(event), encoding="utf-8")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(file))


def result(folder: Path, **stack: Any) -> Path:
    found = folder / "preview"
    found.mkdir(exist_ok=True)
    (found / ci.RESULT).write_text(json.dumps(data(**stack)), encoding="utf-8")
    return found


# ── the comment


def test_the_comment_is_made_once_and_then_kept_up_to_date(github: GitHub, tmp_path: Path) -> None:
    github.comments.append({"id": 1, "user": {"login": "person", "type": "User"}, "body": "nice"})
    assert ci.main(["comment", str(result(tmp_path))]) == 0
    assert [one["id"] for one in github.comments] == [1, 1001]
    first = github.comments[1]["body"]
    assert ci.main(["comment", str(result(tmp_path, **LOST))]) == 0
    assert len(github.comments) == 2, "one comment however many commits"
    assert github.comments[1]["body"] != first
    assert "approve-replacement" in github.comments[1]["body"]
    before = len(github.calls)
    assert ci.main(["comment", str(result(tmp_path, **LOST))]) == 0
    assert {call.split()[0] for call in github.calls[before:]} == {"GET"}, (
        "an edit that changes nothing still notifies people"
    )


def test_the_comment_is_found_behind_a_hundred_others_and_not_taken_from_a_person(
    github: GitHub, tmp_path: Path
) -> None:
    person = {"login": "person", "type": "User"}
    github.comments += [
        {"id": n, "user": person, "body": f"{diff_view.MARKER} mine" if n == 3 else "-"} for n in range(130)
    ]
    github.comments.append({"id": 500, "user": BOT, "body": f"{diff_view.MARKER}\nold"})
    assert ci.main(["comment", str(result(tmp_path))]) == 0
    assert len(github.comments) == 131
    assert github.comments[3]["body"].endswith("mine")
    assert "old" not in github.comments[-1]["body"]


def test_a_forks_pull_request_is_found_by_its_commit(github: GitHub, tmp_path: Path) -> None:
    github.pulls = [
        github.pull(5, None),
        github.pull(6, sha="b" * 40),
        github.pull(8, "else/dynamo-recipes"),
        github.pull(7),
    ]
    assert ci.main(["comment", str(result(tmp_path))]) == 0
    assert len(github.comments) == 1


def test_a_run_that_is_overtaken_says_nothing(
    github: GitHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    github.pulls = [github.pull(7, sha="c" * 40)]
    assert ci.main(["comment", str(result(tmp_path))]) == 0
    assert github.comments == []
    assert "newer commits" in capsys.readouterr().out


def test_a_preview_without_a_result_is_said_with_its_log(github: GitHub, tmp_path: Path) -> None:
    assert ci.main(["comment", str(tmp_path / "nothing")]) == 0
    assert "https://github.example/run/1" in github.comments[0]["body"]


@pytest.mark.parametrize("text", ["[]", "{}", "no json", '{"stacks": [1], "against": {}}'])
def test_data_that_is_no_diff_is_refused(
    github: GitHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    folder = result(tmp_path)
    (folder / ci.RESULT).write_text(text, encoding="utf-8")
    assert ci.main(["comment", str(folder)]) == 1
    assert github.comments == []
    assert "::error::diff.json is not a diff" in capsys.readouterr().out


def test_what_github_refuses_is_said_without_the_token(
    github: GitHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    github.wrong = 403
    assert ci.main(["comment", str(result(tmp_path))]) == 1
    said = capsys.readouterr().out
    assert "403" in said
    assert TOKEN not in said


def test_the_comment_needs_nothing_installed(tmp_path: Path) -> None:
    script = "import sys; from ops import ci; bad = {'typer', 'pydantic', 'yaml', 'rich', 'pulumi'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ── the label


def previewed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, labels: list[str], **stack: Any
) -> tuple[int, dict[str, Any]]:
    happened(monkeypatch, folder, pull_request={"labels": [{"name": label} for label in labels]})
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    asked: list[Any] = []

    def diff(*args: Any) -> dict[str, Any]:
        asked.append(args)
        return data(**stack)

    monkeypatch.setattr(diffing, "diff", diff)
    code = ci.main(["preview", str(folder / "preview")])
    assert asked == [([], "HEAD^1")], "every stack, against the branch it was merged with"
    return code, json.loads((folder / "preview" / ci.RESULT).read_text(encoding="utf-8"))


def test_giving_up_gpus_needs_the_label(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = previewed(monkeypatch, tmp_path, ["documentation"], **LOST)
    assert code == 1
    assert found["stacks"][0]["gives_up"] == LOST["gives_up"], "the comment is written all the same"
    assert f"put the label {ci.LABEL} on the pull request" in capsys.readouterr().out
    assert diff_view.MARKER in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert previewed(monkeypatch, tmp_path, [ci.LABEL], **LOST)[0] == 0
    assert previewed(monkeypatch, tmp_path, [])[0] == 0


def test_no_label_excuses_a_stack_that_cannot_be_planned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert previewed(monkeypatch, tmp_path, [ci.LABEL], problems=["workers: wrong"])[0] == 1


def test_text_of_the_pull_request_cannot_give_the_runner_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    previewed(monkeypatch, tmp_path, [], problems=["x\n  ::add-mask::everything ##[debug]"])
    said = capsys.readouterr().out
    assert "##[" not in said.replace("%0A", "\n").partition("::error::")[0]
    annotations = [line for line in said.splitlines() if line.lstrip().startswith("::")]
    assert all(line.startswith("::error::") for line in annotations), annotations


# ── the real preview


@pytest.mark.parametrize(
    ("head", "role", "there", "says"),
    [
        (REPOSITORY, "arn:aws:iam::123456789012:role/preview", "true", ""),
        (REPOSITORY, "", "false", "no variable PREVIEW_ROLE"),
        (FORK, "arn:aws:iam::123456789012:role/preview", "false", "from a fork"),
    ],
)
def test_the_real_preview_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], head: str, role: str, there: str, says: str
) -> None:  # fmt: skip
    happened(monkeypatch, tmp_path, pull_request={
        "head": {"repo": {"full_name": head}}, "base": {"repo": {"full_name": REPOSITORY}}
    })  # fmt: skip
    for name in ("PREVIEW_REGION", "PREVIEW_STACKS", "PULUMI_BACKEND_URL"):
        monkeypatch.setenv(name, "given")
    monkeypatch.setenv("PREVIEW_ROLE", role)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    assert ci.main(["credentials"]) == 0
    assert (tmp_path / "output").read_text(encoding="utf-8") == f"there={there}\n"
    assert says in capsys.readouterr().out


def test_every_stack_is_previewed_even_after_one_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pulumi = tmp_path / "pulumi"
    pulumi.write_text('#!/bin/sh\necho "pulumi $*"\n[ "$3" != two ]\n', encoding="utf-8")
    pulumi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("PREVIEW_STACKS", "one two three")
    assert ci.main(["real-preview"]) == 1
    said = capfd.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("pulumi ")] == [
        f"pulumi preview --stack {stack} --non-interactive --diff --color never" for stack in ("one", "two", "three")
    ]
    assert "pulumi preview of two failed" in said
