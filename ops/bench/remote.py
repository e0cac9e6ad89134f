"""Following a benchmark Job in the cluster, through the Kubernetes API alone: no exec into a pod, no port-forward, no copy of a volume.

What it knows of the Job is its status, its pods' states and their logs. Each look asks anew, so a desk that slept, lost its network or was
stopped goes on where it was; what was measured is kept the moment its last line has been seen.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ops.bench.results import LogReader, folder_of, save
from ops.exits import FAILED, MISSING, CommandError
from recipe.constants import JOB_LABEL
from recipe.plan import Plan

POLL_SECONDS: Final = 5.0
TAIL_LINES: Final = 40
"""Of each look while the Job runs; at a point's end, and at the Job's, the whole log is read."""
PATIENCE_SECONDS: Final = 120.0
"""How long the API may be silent before that is worth a line."""
REFUSED_SECONDS: Final = 180.0
"""How long the API may answer 401: credentials that are being renewed take less."""
_MEASURED: Final = re.compile(r"point \d+ of \d+, (\S+): (?:TTFT|measured before)")
"""The line after which a point's result follows in the log."""

Say = Callable[[str], None]


@contextlib.contextmanager
def cluster_access(plan: Plan) -> Iterator[Any]:
    """The cluster's API, by the `aws` CLI's credentials as everywhere else. Raises CommandError."""
    from kubernetes import client
    from kubernetes.config import load_kube_config

    access = plan.recipe.access
    if shutil.which("aws") is None:
        raise CommandError("there is no `aws` on PATH", "install the AWS CLI v2 (README, prerequisites)", MISSING)
    with tempfile.TemporaryDirectory(prefix="dynamo-recipes-") as folder:
        file = Path(folder) / "kubeconfig"
        command = ["aws", "eks", "update-kubeconfig", "--region", access.region, "--name", plan.names.cluster]
        done = subprocess.run([*command, "--kubeconfig", str(file)], capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it says nothing"]
            raise CommandError(
                f"the cluster {plan.names.cluster} cannot be reached: {said[0]}", f"`{' '.join(command)}`", FAILED
            )
        settings = client.Configuration()
        load_kube_config(str(file), client_configuration=settings)  # type: ignore[no-untyped-call]
        with client.ApiClient(settings) as api:
            yield api


@dataclass
class Follower:
    """Looks at one benchmark Job and keeps what it measured below `out`."""

    api: Any
    """kubernetes.client.ApiClient."""
    namespace: str
    job_prefix: str | None
    """Beginning of the Job's name; None: the newest benchmark Job there is."""
    out: Path
    say: Say
    folder: Path | None = None
    """The run's own, once its run.json was seen."""
    kept: list[str] = field(default_factory=list)
    status: dict[str, Any] | None = None
    """status.json, as the Job ended."""
    answered: bool = False
    """Whether the API has answered at all."""
    ended: str | None = None
    """Complete or Failed, of the Job."""
    why: str = ""
    """The Job's own reason, or the last pod's."""
    seen_job: str | None = None
    _held: dict[str, dict[str, Any]] = field(default_factory=dict)
    _last: dict[str, str] = field(default_factory=dict)
    _states: dict[str, str] = field(default_factory=dict)
    _due: set[str] = field(default_factory=set)
    """Points that were measured, so that their results must come."""
    _silent_since: float | None = None
    _refused_since: float | None = None

    def look(self) -> bool:
        """One look. True: the Job has ended, and all of its log that is to be had was read."""
        try:
            job = self._job()
            self.answered = True
            if job is None:
                return False
            pods = self._pods(job.metadata.name)
            ended = _ended(job)
            for pod in pods:
                self._look_at(pod, whole=ended is not None)
            self._silent_since = self._refused_since = None
        except Exception as error:  # the client's errors, urllib3's, an expired token: all of them may pass
            if not _is_network(error):
                raise
            self._refusal(error)
            self._silence(error)
            return False
        if ended is None:
            return False
        self.ended, reason = ended
        self.why = self.why or reason
        return True

    def follow(self, poll_seconds: float = POLL_SECONDS, until: Callable[[], bool] = lambda: False) -> None:
        """Look until the Job has ended, or `until` says that nothing more will come. CommandError: the API refuses these credentials."""
        while not self.look():
            if until():
                self.look()  # what came between the last look and the end
                return
            time.sleep(poll_seconds)

    def finish(self) -> None:
        """Where the Job left no status of its own (evicted, killed, its log lost): one that says so."""
        if self.folder is None and self._held:
            self.folder = self.out / (self.seen_job or "benchmark")
            self._write_held()
        if self.folder is None or self.status is not None:
            return
        reason = self.why or "the Job's last lines were not seen"
        self.status = {"state": "cut short", "code": None, "reason": reason, "measured": self.kept, "missing": None}
        save(self.folder, "status.json", self.status)

    # ── the API ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _job(self) -> Any:
        from kubernetes import client

        # The client's types say that every field may be missing; of what the server sends none of these is.
        batch: Any = client.BatchV1Api(self.api)
        found = batch.list_namespaced_job(self.namespace, label_selector=f"{JOB_LABEL}=benchmark", _request_timeout=30)
        jobs = [job for job in found.items if self.job_prefix is None or job.metadata.name.startswith(self.job_prefix)]
        if not jobs:
            return None
        job = max(jobs, key=lambda one: one.metadata.creation_timestamp)
        if self.seen_job != job.metadata.name:
            self.seen_job = job.metadata.name
            self.say(f"Job {job.metadata.name}")
        return job

    def _pods(self, job: str) -> list[Any]:
        from kubernetes import client

        found = client.CoreV1Api(self.api).list_namespaced_pod(
            self.namespace, label_selector=f"batch.kubernetes.io/job-name={job}", _request_timeout=30
        )
        return sorted(found.items, key=lambda pod: pod.metadata.creation_timestamp)

    def _look_at(self, pod: Any, *, whole: bool) -> None:
        name = pod.metadata.name
        state, message = _pod_state(pod)
        if self._states.get(name) != state:
            self._states[name] = state
            self.say(f"pod {name}: {state}{f' ({message})' if message else ''}")
        if message:
            self.why = message
        if state in ("Pending", "installing AIPerf"):
            return
        text = self._log(name, None if whole else TAIL_LINES)
        if text is None:
            return
        fresh = self._fresh(name, [line for line in text.splitlines() if line and not line.startswith("@@ ")])
        for line in fresh:
            self.say(line)
        self._due |= {found.group(1) for line in fresh if (found := _MEASURED.search(line))}
        # A large result has more lines than are looked at, and pushes the line that tells of it out of sight.
        begun = {Path(line.split(" ", 2)[1]).stem for line in text.splitlines() if line.startswith("@@ points/")}
        if not whole and (self._due | begun) - set(self.kept):
            text = self._log(name, None) or text
        self._keep(text)

    def _log(self, pod: str, tail: int | None) -> str | None:
        """The pod's log; None where the kubelet has none (yet, or any more)."""
        from kubernetes import client

        more = {} if tail is None else {"tail_lines": tail}
        try:
            # Undecoded: the client would take a log of one JSON line for an object.
            core: Any = client.CoreV1Api(self.api)
            answer = core.read_namespaced_pod_log(
                pod, self.namespace, container="main", _preload_content=False, _request_timeout=60, **more
            )
            return str(answer.data.decode("utf-8", errors="replace"))
        except client.ApiException as error:
            if error.status in (400, 404):
                return None
            raise

    def _fresh(self, pod: str, lines: list[str]) -> list[str]:
        """Lines that were not said yet: those behind the last one that was."""
        last = self._last.get(pod)
        if lines:
            self._last[pod] = lines[-1]
        if last in lines:
            return lines[len(lines) - lines[::-1].index(last) :]
        return lines

    def _refusal(self, error: Exception) -> None:
        """Credentials the API does not take. Raises CommandError for good ones too weak (403), and for bad ones after a while (401)."""
        status, reason = getattr(error, "status", None), getattr(error, "reason", None)
        if status not in (401, 403):
            self._refused_since = None
            return
        said = f"the cluster refuses your credentials: {status} {reason or ''}".rstrip()
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
            if status == 401:
                self.say(f"{said}; trying again for {REFUSED_SECONDS / 60:.0f} minutes")
        if status == 403 or now - self._refused_since >= REFUSED_SECONDS:
            raise CommandError(
                said,
                "log in as one with access to the cluster (`aws sts get-caller-identity` says who you are), then: ops bench STACK --attach",
                FAILED,
            )

    def _silence(self, error: Exception) -> None:
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since > PATIENCE_SECONDS:
            self._silent_since = now
            self.say(
                f"the cluster does not answer ({type(error).__name__}); the Job goes on without this desk, trying again"
            )

    # ── keeping ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _keep(self, text: str) -> None:
        reader = LogReader()
        for line in text.splitlines():
            if (found := reader.feed(line)) is None:
                continue
            name, data = found
            self._held[name] = data
            if name == "run.json":
                self.folder = folder_of(self.out, data)
            elif name == "status.json":
                self.status = data
                self.why = str(data.get("reason", ""))
        self._write_held()

    def _write_held(self) -> None:
        if self.folder is None:
            return
        for name, data in self._held.items():
            save(self.folder, name, data)
            key = Path(name).stem
            if name.startswith("points/") and key not in self.kept:
                self.kept.append(key)
        self._held = {}


def _ended(job: Any) -> tuple[str, str] | None:
    for condition in job.status.conditions or ():
        if condition.type in ("Complete", "Failed") and condition.status == "True":
            return condition.type, ": ".join(filter(None, (condition.reason, condition.message)))
    return None


def _pod_state(pod: Any) -> tuple[str, str]:
    """A word for what the pod does, and its own reason where it ended badly."""
    status = pod.status
    evicted = next(
        (one for one in status.conditions or () if one.type == "DisruptionTarget" and one.status == "True"), None
    )
    if evicted is not None:
        return "evicted", ": ".join(filter(None, (evicted.reason, evicted.message)))
    for container in status.container_statuses or ():
        if ended := container.state.terminated:
            if ended.exit_code == 0:
                return "done", ""
            said = (ended.message or ended.reason or "").strip()
            return f"ended with exit code {ended.exit_code}", said.splitlines()[-1] if said else ""
        if container.state.running:
            return "running", ""
    if any(one.state.running for one in status.init_container_statuses or ()):
        return "installing AIPerf", ""
    return str(status.phase or "Pending"), ""


def _is_network(error: Exception) -> bool:
    """Whether another look may succeed: no answer, or one that says later, or credentials that are being renewed (how long: `_refusal`)."""
    from kubernetes import client
    from urllib3.exceptions import HTTPError

    if isinstance(error, client.ApiException):
        return error.status in (401, 403, 408, 429) or int(error.status or 0) >= 500
    return isinstance(error, HTTPError | OSError | TimeoutError) and not isinstance(
        error, FileNotFoundError | PermissionError
    )
