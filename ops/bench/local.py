"""The benchmark in the rehearsal: the Job's own script and AIPerf's own packages, against the real frontend with mock engines.

Nothing is imitated but the cluster around it: what runs is what the rendered Job runs, taken out of its manifests. Every figure is
simulated, and the results say by what.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ops.bench.environment import ensure_aiperf
from ops.bench.results import folder_of
from ops.exits import BAD_INPUT, FAILED, OK, CommandError
from recipe.benchmark import SPEC_FILE
from recipe.jobs import SCRIPTS_MOUNT
from recipe.plan import Plan
from rehearsal.watch import held_signals

REHEARSED: Final = "rehearsed"
"""In place of the nodes' generation in the name of a run."""
WORKERS: Final = 2
"""Of AIPerf: the mock engines need the CPU as well."""
_STRIPPED: Final = ("AWS_", "HF_", "PYTHON", "AIPERF", "VIRTUAL_ENV", "DYN_")
_STOP_SECONDS: Final = 40
"""The script's own time to end AIPerf and to say what there is."""

Say = Callable[[str], None]


def measure(plan: Plan, out: Path, say: Say, *, model_timing: bool = True) -> tuple[int, Path]:
    """Serve `plan`'s graph, run its benchmark and keep the results below `out`. The exit code, and the run's folder.

    Called again, it goes on with the points that are missing. SetupError: what it needs cannot be set up.
    """
    from rehearsal.serving import serve  # here alone: it is the rehearsal's largest part

    python = ensure_aiperf()
    with serve(plan.objects.graph, plan, model_timing=model_timing) as serving:
        say(f"serving: {len(serving.workers)} workers, times from {serving.timing}")
        return run_script(plan, out, say, python, serving.url, serving.model_folder, serving.timing)


def run_script(
    plan: Plan, out: Path, say: Say, python: Path, url: str, model_folder: Path, timing: str, **env: str
) -> tuple[int, Path]:
    """The Job's container, as a process here, against `url`; the claim is `out`."""
    job, config = plan.objects.benchmark_job, plan.objects.benchmark_config
    assert plan.benchmark, "the plan has a benchmark"
    assert job, "and its Job"
    assert config
    run = f"{plan.benchmark.run}-{REHEARSED}"
    folder = folder_of(out, {"stack": plan.stack, "profile": plan.benchmark.profile, "run": run})
    container = job["spec"]["template"]["spec"]["containers"][0]
    with _prepared(job, config, model_folder, plan.model.revision) as work:
        given = {entry["name"]: str(entry["value"]) for entry in container["env"]}
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(_STRIPPED)}
        own = {
            "BENCH_FILE": given["BENCH_FILE"].replace(SCRIPTS_MOUNT, str(work / "scripts")),
            "FRONTEND_URL": url,
            "HF_HOME": str(work / "hf"),
            "HF_HUB_CACHE": str(work / "hub"),
            "HOME": str(work),
            "PYTHONPATH": "",
            "RESULTS": str(out.resolve()),
            "RUN": run,
            "SIMULATED": timing,
            "TERMINATION_LOG": str(work / "termination"),
            "WORK": str(work),
            "WORKERS": str(WORKERS),
        }
        command = [str(python), *container["command"][1:]]
        code = _follow(command, inherited | given | own | env, work / "scripts", say)
    return code, folder


@contextmanager
def _prepared(job: Mapping[str, Any], config: Mapping[str, Any], model_folder: Path, revision: str) -> Iterator[Path]:
    """A folder with the Job's files where its volume puts them, and the tokenizer as the model cache holds it."""
    with held_signals():
        work = Path(tempfile.mkdtemp(prefix="dynamo-recipes-bench-"))
    try:
        for item in job["spec"]["template"]["spec"]["volumes"][0]["configMap"]["items"]:
            path = work / "scripts" / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(config["data"][item["key"]], encoding="utf-8")
        # A path is taken for a repository's name by AIPerf's processes, so it has to look like the hub's cache (facts/simulation.md §6).
        model = str(json.loads(config["data"][SPEC_FILE])["tokenizer"])
        snapshot = work / "hub" / f"models--{model.replace('/', '--')}" / "snapshots" / revision
        shutil.copytree(model_folder, snapshot)
        yield work
    except OSError as error:
        raise CommandError(f"no room to work in: {error}", "make room, or set TMPDIR to another disk", FAILED) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _follow(command: list[str], env: dict[str, str], folder: Path, say: Say) -> int:
    """Run it to its end and say what it says. Ctrl-C lets it write down what it has."""
    with held_signals():
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
        )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if not line.startswith("@@ "):  # results are in `out` already
                say(line.rstrip())
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGTERM)
        try:
            for line in process.stdout:
                if not line.startswith("@@ "):
                    say(line.rstrip())
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def check_out(out: Path) -> None:
    """Whether results can be written below `out`: now, rather than after the benchmark."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise CommandError(
            f"{out} cannot be written: {error.strerror}", "name another folder: --out DIR", BAD_INPUT
        ) from None


def exit_code(code: int) -> int:
    """Ours for the script's."""
    return OK if code == 0 else FAILED
