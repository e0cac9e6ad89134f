"""Starting what a graph describes, and telling where it listens (see the package's docstring)."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil

from recipe.plan import Manifest, Plan
from rehearsal.engine.progress import Reporter
from rehearsal.errors import SetupError
from rehearsal.serving.commands import DATABASE, Commands, Facts, Pool, commands, database_version, model_arg
from rehearsal.serving.environment import ensure_environment, model_folder
from rehearsal.serving.probe import REQUESTS, NoAnswer, ask, scrape
from rehearsal.supervising import Supervised, free_ports
from rehearsal.watch import held_signals

_PREFIX: Final = "dynamo-recipes-serving-"
_START_SECONDS: Final = 240
_ATTEMPTS: Final = 3  # a port that was free a moment ago may be taken
_BOUND: Final = re.compile(r"system status server bound to: (\S+:\d+)")
FORMULA: Final = "the mock engine's own formula, made for no model and no GPU in particular, at speed-up 1"


@dataclass(frozen=True)
class Worker:
    """One worker: with the real engine it would be a pod."""

    name: str
    """prefill-0."""
    role: str
    component: str
    id: str
    """As the frontend's metrics have it."""
    metrics_url: str

    def requests(self) -> int:
        """How many requests it has taken on."""
        return round(
            sum(
                one.value
                for one in scrape(self.metrics_url)
                if one.name == REQUESTS and one.labels.get("dynamo_endpoint") == "generate"
            )
        )


@dataclass(frozen=True)
class Serving:
    """What runs."""

    urls: tuple[str, ...]
    """One per frontend replica."""
    model: str
    model_folder: Path
    workers: tuple[Worker, ...]
    timing: str
    """What the times come from; belongs beside every figure."""
    pids: dict[str, int]
    """By process."""
    start_seconds: float
    folder: Path
    """Logs: one file per process."""

    @property
    def url(self) -> str:
        """Of the first frontend."""
        return self.urls[0]

    @property
    def metrics_urls(self) -> dict[str, str]:
        """One per frontend and worker."""
        frontends = {f"frontend-{number}": f"{url}/metrics" for number, url in enumerate(self.urls)}
        return frontends | {worker.name: worker.metrics_url for worker in self.workers}

    def requests(self) -> dict[str, int]:
        """How many requests each worker has taken on, by name."""
        return {worker.name: worker.requests() for worker in self.workers}

    def memory_mib(self) -> float:
        """Resident memory of all processes together; pages they share are counted more than once."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.pids.values()) / 2**20


@contextmanager
def serve(
    graph: Manifest, facts: Plan | Facts, *, progress: Reporter | None = None, model_timing: bool = True
) -> Iterator[Serving]:
    """What `graph` describes, for as long as the context lasts. `facts`: what the graph does not say of itself.

    `model_timing` False takes the mock engine's formula even where there is a timing model. SetupError: the environment cannot be
    set up, the graph has something without a counterpart here, or it does not start.
    """
    facts = Facts.of(facts) if isinstance(facts, Plan) else facts
    wanted = commands(graph, facts)
    python = ensure_environment(progress)
    files = model_folder(python, wanted.model)
    started = _Started(wanted, python, files)
    try:
        yield started.start(with_model=model_timing and wanted.with_model)
    finally:
        started.stop()


class _Started:
    """One set of processes."""

    def __init__(self, wanted: Commands, python: Path, files: Path) -> None:
        self.wanted, self.python, self.files = wanted, python, files
        self.folder: Path | None = None
        self._supervised: Supervised | None = None

    def start(self, *, with_model: bool) -> Serving:
        """With the formula where an engine ends at once with the timing model: it has none for every GPU, engine and model."""
        pools = [f"{pool.component} ended:" for pool in self.wanted.pools]
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._start(with_model=with_model)
            except SetupError as error:
                self.stop()
                if "address already in use" in error.message.lower() and attempt < _ATTEMPTS:
                    continue
                if with_model and any(sign in error.message for sign in pools):
                    why = " ".join(error.message.rpartition("|")[2].split())[:200]
                    return replace(self.start(with_model=False), timing=f"{FORMULA} (no timing model: {why})")
                raise
        raise AssertionError("the last attempt raises or returns")

    def stop(self) -> None:
        """Nothing of it runs or lies about afterwards."""
        if self._supervised is not None:
            self._supervised.stop()
        self._supervised = None
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = None

    def _start(self, *, with_model: bool) -> Serving:
        began = time.monotonic()
        wanted = self.wanted
        urls = [f"http://127.0.0.1:{port}" for port in free_ports(wanted.frontends)]
        with held_signals():
            self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
            spec = _write_spec(self.folder, wanted, self.python, self.files, urls, with_model=with_model)
            self._supervised = Supervised("rehearsal.serving.supervisor", spec)
        said = self._supervised.first_line(_START_SECONDS)
        if "ready" not in said:
            raise SetupError(
                f"frontend and mock engines did not start: {said.get('error')}",
                f"run this again; if it says the same, remove {self.python.parents[1]}",
            )
        workers = [worker for pool in wanted.pools for worker in _workers(pool, self.folder)]
        for url in urls:
            _answer_once(url, wanted.model)
        log = "".join((self.folder / f"{pool.component}.log").read_text(errors="replace") for pool in wanted.pools)
        return Serving(
            urls=tuple(urls),
            model=wanted.model,
            model_folder=self.files,
            workers=tuple(workers),
            timing=_timing(wanted, log) if with_model else FORMULA,
            pids=said["ready"],
            start_seconds=time.monotonic() - began,
            folder=self.folder,
        )


def _timing(wanted: Commands, log: str) -> str:
    first = wanted.pools[0].timing
    system = first[first.index("--ais-system") + 1]
    sizes = sorted({pool.timing[pool.timing.index("--ais-tp-size") + 1] for pool in wanted.pools})
    version = database_version(log) or "of unknown version"
    return f"NVIDIA's performance database for {system}, TP {' and '.join(sizes)}, engine {version} ({DATABASE})"


def _workers(pool: Pool, folder: Path) -> list[Worker]:
    """Where each worker of a pool tells its metrics, by the process' log: they choose a free port each."""
    log = (folder / f"{pool.component}.log").read_text(errors="replace")
    found = []
    for number, address in enumerate(_BOUND.findall(log)):
        url = f"http://{address}/metrics"
        own = next((one.labels["worker_id"] for one in scrape(url) if "worker_id" in one.labels), "")
        found.append(Worker(f"{pool.component}-{number}", pool.role, pool.component, own, url))
    if len(found) != pool.replicas:
        raise SetupError(
            f"{len(found)} of the {pool.replicas} workers of {pool.component} say where their metrics are",
            "run this again; its log is below the system's folder for temporary files while it runs",
        )
    return found


def _answer_once(url: str, model: str) -> None:
    """The timing model is loaded by the first request of a process, which takes seconds that are nobody's."""
    try:
        ask(url, model, "Good morning.", tokens=2)
    except NoAnswer as error:
        raise SetupError(f"frontend and mock engines started, but did not answer: {error}", "run this again") from None


def _write_spec(
    folder: Path, wanted: Commands, python: Path, files: Path, urls: list[str], *, with_model: bool
) -> Path:
    (folder / "discovery").mkdir()
    programs: dict[str, list[str]] = {}
    environments: dict[str, dict[str, str]] = {}
    for number, url in enumerate(urls):
        name = f"frontend-{number}"
        listen = ("--http-host", "127.0.0.1", "--http-port", url.rpartition(":")[2])
        programs[name] = [str(python), "-m", "dynamo.frontend", *wanted.frontend_args, *listen]
        environments[name] = wanted.frontend_env | _LOOPBACK
    for pool in wanted.pools:
        timing = pool.timing if with_model else ()
        programs[pool.component] = [
            *(str(python), "-m", "dynamo.mocker", *model_arg(files), *pool.args, *timing),
            *("--num-workers", str(pool.replicas)),
        ]
        environments[pool.component] = pool.env | _LOOPBACK | {"DYN_SYSTEM_PORT": "0", "DYN_SYSTEM_HOST": "127.0.0.1"}
    workers: dict[str, int] = {}
    for pool in wanted.pools:
        workers[pool.endpoint] = workers.get(pool.endpoint, 0) + pool.replicas
    spec = {
        "folder": str(folder),
        "remove": True,
        "watch": os.getpid(),
        "commands": programs,
        "environment": {
            "PATH": os.defpath,
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "HF_HUB_OFFLINE": "1",
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": str(folder / "discovery"),
            "DYN_SDK_DISABLE_ANSI_LOGGING": "1",
        },
        "environments": environments,
        "urls": urls,
        "model": wanted.model,
        "workers": workers,
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


_LOOPBACK: Final = {
    "DYN_REQUEST_PLANE": "tcp",
    "DYN_EVENT_PLANE": "zmq",
    # Else it is the host's own address. Its ZMQ sockets listen on every interface all the same (facts/simulation.md §2.3).
    "DYN_TCP_RPC_HOST": "127.0.0.1",
    "DYN_EVENT_PLANE_HOST": "127.0.0.1",
    "DYN_TCP_RESPONSE_STREAM_HOST": "127.0.0.1",
    "DYN_HTTP_RPC_HOST": "127.0.0.1",
}
