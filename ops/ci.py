"""What the workflows in .github/workflows run. `credentials` and `comment` need the standard library only: nothing is installed there.

python -m ops.ci preview FOLDER        the diff against the target branch into FOLDER; fails on a loss of GPUs without the label
python -m ops.ci comment FOLDER        the pull request's one comment, made or brought up to date from FOLDER
python -m ops.ci credentials           whether there is a role to preview with; says why not
python -m ops.ci real-preview          `pulumi preview` of each stack in PREVIEW_STACKS
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from ops import diff_view

LABEL: Final = "approve-replacement"
"""On a pull request: replacing, rolling or destroying what holds GPUs or weights is meant."""
RESULT: Final = "diff.json"
TARGET: Final = "HEAD^1"
"""A pull request's run has its merge commit checked out, whose first parent is the target branch as it was merged with."""
_MOST_BYTES: Final = 20_000_000
_PAGE: Final = 100


class CiError(Exception):
    """Ends a step with a message."""


# ── preview ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def preview(folder: Path) -> int:
    """The diff of every stack into `folder`, a summary for the run's page, and the judgement. The exit code."""
    from ops.diffing import diff  # here alone: it needs what `make setup` installs
    from ops.exits import CommandError

    try:
        found = diff([], TARGET)
    except CommandError as error:
        raise CiError(str(error)) from None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).write_text(json.dumps(found), encoding="utf-8")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(diff_view.markdown(found, LABEL))
    _say(_harmless(diff_view.text(found)))
    for one in found["stacks"]:
        for problem in one["problems"]:
            _annotate("error", f"{one['stack']} cannot be planned: {problem}")
    broken = any(one["problems"] for one in found["stacks"])
    lost = diff_view.gives_up(found)
    approved = LABEL in _labels()
    if lost and not approved:
        _annotate("error", f"{'; '.join(lost)}. If that is meant, put the label {LABEL} on the pull request.")
    elif lost:
        _annotate("notice", f"approved by the label {LABEL}: {'; '.join(lost)}")
    return int(broken or bool(lost and not approved))


def _labels() -> set[str]:
    return {str(label["name"]) for label in _event()["pull_request"].get("labels", ())}


# ── comment ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def comment(folder: Path) -> int:
    """Make or update the comment of the pull request whose preview this is. The exit code."""
    run = _event()["workflow_run"]
    number = _pull_request(run)
    if number is None:
        _annotate("notice", "the pull request is closed or has newer commits: nothing to say")
        return 0
    body = _body(folder, run)
    path = f"/repos/{_repository()}/issues/{number}/comments"
    ours = next((one for one in _pages(path) if _is_ours(one)), None)
    if ours is None:
        _call("POST", path, {"body": body})
    elif ours["body"] != body:
        _call("PATCH", f"/repos/{_repository()}/issues/comments/{ours['id']}", {"body": body})
    return 0


def _pull_request(run: Any) -> int | None:
    """The open pull request with the run's commit as its head. A fork's run does not name it, and its artifact is not asked."""
    head = run["head_repository"]["full_name"]
    query = urllib.parse.urlencode({"state": "open", "head": f"{head.partition('/')[0]}:{run['head_branch']}"})
    for one in _pages(f"/repos/{_repository()}/pulls?{query}"):
        source = (one["head"].get("repo") or {}).get("full_name")  # None: the fork is deleted
        if one["head"]["sha"] == run["head_sha"] and source == head:
            return int(one["number"])
    return None


def _is_ours(one: Any) -> bool:
    """A person can write the marker as well."""
    return bool(one["user"]["type"] == "Bot" and (one["body"] or "").startswith(diff_view.MARKER))


def _body(folder: Path, run: Any) -> str:
    file = folder / RESULT
    if not file.is_file():
        return f"{diff_view.MARKER}\nThe preview of `{run['head_sha'][:12]}` ended without a result: {run['html_url']}"
    if file.stat().st_size > _MOST_BYTES:
        raise CiError(f"{RESULT} is larger than {_MOST_BYTES} bytes")
    try:
        return diff_view.markdown(json.loads(file.read_text(encoding="utf-8")), LABEL)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CiError(f"{RESULT} is not a diff: {type(error).__name__}: {error}") from None


def _repository() -> str:
    return os.environ["GITHUB_REPOSITORY"]


def _pages(path: str) -> Iterator[Any]:
    page = 1
    while True:
        found = _call("GET", f"{path}{'&' if '?' in path else '?'}per_page={_PAGE}&page={page}")
        yield from found
        if len(found) < _PAGE:
            return
        page += 1


def _call(method: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(  # noqa: S310 - GitHub's own address, from the runner
        os.environ.get("GITHUB_API_URL", "https://api.github.com") + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "Accept": "application/vnd.github+json",
            "Content-Type": "application/json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:300]
        raise CiError(f"{method} {path}: {error.code} {said}") from None
    except urllib.error.URLError as error:
        raise CiError(f"{method} {path}: {error.reason}") from None


# ── the real preview ─────────────────────────────────────────────────────────────────────────────────────────────────


def credentials() -> int:
    """Say whether the job goes on, and why not. The exit code."""
    event = _event()["pull_request"]
    fork = (event["head"].get("repo") or {}).get("full_name") != event["base"]["repo"]["full_name"]
    wanted = ("PREVIEW_ROLE", "PREVIEW_REGION", "PREVIEW_STACKS", "PULUMI_BACKEND_URL")
    missing = [name for name in wanted if not os.environ.get(name)]
    if fork:
        _annotate("notice", "no `pulumi preview`: a pull request from a fork gets no credentials")
    elif missing:
        _annotate("notice", f"no `pulumi preview`: the repository has no variable {', '.join(missing)}")
    with Path(os.environ["GITHUB_OUTPUT"]).open("a", encoding="utf-8") as file:
        file.write(f"there={str(not (fork or missing)).lower()}\n")
    return 0


def real_preview() -> int:
    """`pulumi preview` of each stack; all of them are tried. The exit code."""
    failed = []
    for stack in os.environ["PREVIEW_STACKS"].split():
        _say(f"::group::{stack}")
        command = ["pulumi", "preview", "--stack", stack, "--non-interactive", "--diff", "--color", "never"]
        done = subprocess.run(command, check=False)
        _say("::endgroup::")
        if done.returncode:
            failed.append(stack)
            _annotate("error", f"pulumi preview of {stack} failed with exit code {done.returncode}")
    return int(bool(failed))


# ── the runner ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _event() -> Any:
    return json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))


def _annotate(level: str, message: str) -> None:
    """A line on the run's page. Newlines and percent signs would end or change the command."""
    safe = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    _say(f"::{level}::{safe}")


def _harmless(text: str) -> str:
    """Text from stack files in which the runner finds no command, in neither of its two spellings."""
    return re.sub(r"(?m)^(\s*):(?=:)", r"\1: ", text).replace("##[", "## [")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the log of the run


def main(args: list[str]) -> int:
    """Run one step. The exit code."""
    steps: dict[str, Callable[..., int]] = {
        "preview": preview, "comment": comment, "credentials": credentials, "real-preview": real_preview
    }  # fmt: skip
    if not args or args[0] not in steps:
        _say(__doc__ or "")
        return 2
    try:
        return steps[args[0]](*map(Path, args[1:]))
    except CiError as error:
        _annotate("error", str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
