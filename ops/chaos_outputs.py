"""What we write for others to read, made with the token set and credentials in the environment, to be searched for them afterwards.

The engine's preview, the diff of a pull request, what the workflow's steps leave and print, a plan, and the page of a comparison.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ops import stacks
from ops.exits import GIVES_UP, OK
from ops.planning import planned
from recipe.benchmark import SPEC_FILE
from rehearsal.session import STACK_FILES, Session

FOLDER: Final = "outputs"
"""Below the session's root."""
MADE: Final = (
    "preview.json", "preview.diff", "diff.json", "diff.md", "workflow.log", "workflow/diff.json", "summary.md", "comment.md", "plan.json",
    "compare.html", "compare.json",
)  # fmt: skip
"""Every file there has to be: what was not made was not searched."""
_WORKFLOW: Final = """
import sys
from pathlib import Path
from ops import ci, diff_view
ci.TARGET = "HEAD"  # a shallow clone has no parent; the session's stack files differ from it as a pull request's would
code = ci.preview(Path("workflow"))
run = {"head_sha": "a" * 40, "html_url": "https://example.invalid"}
Path("comment.md").write_text(ci._body(Path("workflow"), run), encoding="utf-8")
sys.exit(code)
"""


def write(session: Session, stack: str, secrets: Mapping[str, str]) -> list[str]:
    """All of MADE below the session's root; `secrets` by environment variable. What could not be made, and why."""
    folder = session.root / FOLDER
    folder.mkdir(exist_ok=True)
    env = os.environ | secrets | {STACK_FILES: str(session.project / "stacks")}
    wrong: list[str] = []

    def ours(
        args: Sequence[str], *files: str, ok: Sequence[int] = (OK, GIVES_UP), more: Mapping[str, str] | None = None
    ) -> None:
        done = subprocess.run(
            [sys.executable, *args], cwd=folder, env=env | {"PYTHONPATH": str(stacks.ROOT)} | dict(more or {}),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        for file, text in zip(files, (done.stdout, done.stderr), strict=False):
            (folder / file).write_text(text, encoding="utf-8")
        (folder / f"stderr-of-{files[0]}").write_text(done.stderr, encoding="utf-8")
        if done.returncode not in ok:
            wrong.append(f"{files[0]}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")

    for flag, file in (("--json", "preview.json"), ("--diff", "preview.diff")):
        result = session.run(["preview", "--stack", stack, flag], env=secrets)
        (folder / file).write_text(f"{result.stdout}\n{result.stderr}", encoding="utf-8")
        if not result.ok:
            wrong.append(f"{file}: {result.errors[-2:]}")
    ours(["-m", "ops", "diff", stack, "--against", "HEAD", "--json"], "diff.json")
    ours(["-m", "ops", "diff", stack, "--against", "HEAD", "--markdown"], "diff.md")
    ours(["-m", "ops", "plan", stack, "--json"], "plan.json")
    event = folder / "event.json"
    event.write_text(json.dumps({"pull_request": {"labels": []}}), encoding="utf-8")
    runner = {"GITHUB_STEP_SUMMARY": str(folder / "summary.md"), "GITHUB_EVENT_PATH": str(event)}
    ours(["-c", _WORKFLOW], "workflow.log", ok=(0, 1), more=runner)
    runs = [str(_results(folder, session, stack, router)) for router in ("kv", "round-robin")]
    ours(["-m", "ops", "compare", *runs, "--html", str(folder / "compare.html"), "--json"], "compare.json")
    made = {file: folder / file for file in MADE}
    return wrong + [
        f"{file} was not made" for file, path in made.items() if not path.exists() or not path.stat().st_size
    ]


def _results(folder: Path, session: Session, stack: str, router: str) -> Path:
    """Results as the benchmark's Job would leave them: its own spec, out of the plan, with a figure or two."""
    file = session.project / "stacks" / f"Pulumi.{stack}.yaml"
    raw = stacks.load(stack, file.parent).raw
    settings = {key: value for key, value in raw.items() if key != "foundation"}
    plan = planned(stack, [f"{key}={json.dumps(value)}" for key, value in settings.items() if key not in _DECIDED]
                   + [f"router={{mode: {router}}}", "benchmark.run=small"]).model  # fmt: skip
    assert plan.objects.benchmark_config is not None
    spec: dict[str, Any] = json.loads(plan.objects.benchmark_config["data"][SPEC_FILE])
    spec |= {"run": f"1-{router}", "trace": {"origin": "generated", "digest": "0" * 16}}
    run = folder / "results" / router
    (run / "points").mkdir(parents=True, exist_ok=True)
    for point in spec["points"]:
        metrics = {
            "time_to_first_token": {"avg": 400.0, "p50": 390.0, "p99": 900.0},
            "request_latency": {"avg": 5000.0},
        }
        metrics |= {"output_token_throughput": {"avg": 640.0}}
        found = {"point": point, "seconds": 60.0, "errors": 1, "error_kinds": ["500"], "metrics": metrics}
        requests = {"ttft_ms": [390.0, 410.0], "itl_ms": [14.0, 15.0]}
        (run / "points" / f"{point['key']}.json").write_text(
            json.dumps(found | {"requests": requests}), encoding="utf-8"
        )
    (run / "run.json").write_text(json.dumps(spec), encoding="utf-8")
    (run / "status.json").write_text(json.dumps({"state": "cut short", "reason": "for the search"}), encoding="utf-8")
    return run


_DECIDED: Final = ("router", "benchmark")
