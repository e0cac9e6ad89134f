"""A rehearsal session: the real engine and the real program against the pretend cloud, in a folder of its own.

    with Session() as session:
        session.init_stack("qwen3-32b-disagg")
        session.run(["up", "--yes", "--skip-preview", "--stack", "qwen3-32b-disagg"], on_event=show)

Nothing of the user's is read or written: the environment is stripped of AWS's, Pulumi's and Kubernetes' variables, and
`pulumi` works in `FOLDER/project`, where the project's files are links but Pulumi.yaml and the stack files are copies:
Pulumi writes the encryption salt and `config set` into stack files, and `--config-file` is no help, because not every
command takes it.

FOLDER: project/ (what pulumi works in), state/ (its backend), home/ (PULUMI_HOME, with the language host), cloud/ (what exists in the pretend
cloud, and its journal), events/ (one file per run), passphrase.
"""

import difflib
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import psutil
import yaml

from rehearsal.cloud.cloud import HELD
from rehearsal.cloud.faults import TOLD, Faults
from rehearsal.engine import Engine, ensure_engine
from rehearsal.errors import SetupError
from rehearsal.watch import SESSION, held_signals

ROOT = Path(__file__).resolve().parents[1]
# The engine's default follows the number of cores; what the pretend cloud does at once must not.
PARALLEL = 32
PLACEHOLDERS = "DYNAMO_RECIPES_PLACEHOLDERS"
STACK_FILES = "DYNAMO_RECIPES_STACKS"  # and the session's copies of the stack files (ops/stacks.py)
PRETEND_CLOUD = "DYNAMO_RECIPES_PRETEND_CLOUD"  # where commands find the books instead of asking AWS (ops/aws.py)
_STRIPPED = (
    "AWS_",
    "PULUMI_",
    "KUBE",
    "HELM_",
    "GOOGLE_",
    "AZURE_",
    "ARM_",
    "PYTHON",
    "VIRTUAL_ENV",
    "HF_",
    "DYNAMO_RECIPES_PLACEHOLDERS",
    "DYNAMO_RECIPES_PRETEND_CLOUD",
    "DYNAMO_RECIPES_STACKS",
)
_LEFT_OUT = {".venv", ".git", ".cache", "__pycache__", "Pulumi.yaml"}
_WITH_EVENTS = {"up", "update", "preview", "destroy", "refresh", "import"}
_START_SECONDS = 60
_STOP_SECONDS = 60  # for what is in flight to finish after Ctrl-C: virtual minutes, so real seconds
_KILL_AFTER_SECONDS = 5
_POLL_SECONDS = 0.05
_HEAD_BYTES = 256  # of an event log: with the time of its first event, enough to tell one run's log from the next
# What an encrypted value of a stack file becomes: the real one is for whoever holds the real passphrase.
REHEARSED_SECRET = "rehearsed-secret"  # noqa: S105


@dataclass(frozen=True)
class Event:
    """One line of the engine's event log.

    kind: `prelude`, `started` (an operation on `urn`), `done`, `failed`, `diagnostic`, `stdout`, `summary`, `cancel` or `other`.
    """

    kind: str
    sequence: int
    timestamp: int  # seconds since 1970, by the real clock
    op: str = ""
    urn: str = ""
    type: str = ""
    planning: bool = False
    message: str = ""
    severity: str = ""
    changes: dict[str, int] = field(default_factory=dict)  # of a summary: how many resources per op
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The resource's logical name."""
        return self.urn.rpartition("::")[2]

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> "Event":
        event = cls("other", int(raw.get("sequence", 0)), int(raw.get("timestamp", 0)), raw=raw)
        for key, kind in _RESOURCE_EVENTS.items():
            if body := raw.get(key):
                step: dict[str, Any] = {name: body["metadata"].get(name) or "" for name in ("op", "urn", "type")}
                return replace(event, kind=kind, planning=bool(body.get("planning")), **step)
        if body := raw.get("diagnosticEvent"):
            told: dict[str, Any] = {name: body.get(name) or "" for name in ("message", "severity", "urn")}
            return replace(event, kind="diagnostic", **told | {"message": told["message"].rstrip()})
        if body := raw.get("summaryEvent"):
            counts = dict(body.get("resourceChanges") or {})
            return replace(event, kind="summary", changes=counts, planning=bool(body.get("isPreview")))
        if body := raw.get("stdoutEvent"):
            return replace(event, kind="stdout", message=str(body.get("message") or ""))
        kinds = {"preludeEvent": "prelude", "cancelEvent": "cancel"}
        return replace(event, kind=next((kind for key, kind in kinds.items() if key in raw), "other"))


_RESOURCE_EVENTS = {"resourcePreEvent": "started", "resOutputsEvent": "done", "resOpFailedEvent": "failed"}


@dataclass(frozen=True)
class Result:
    """How a pulumi command ended."""

    command: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    events: tuple[Event, ...] = ()

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    @property
    def changes(self) -> dict[str, int]:
        """Resources per operation, as the engine counted them in its last summary (`same` included)."""
        return next((event.changes for event in reversed(self.events) if event.kind == "summary"), {})

    def expect(self, what: str) -> Self:
        """This, if the command succeeded; SetupError with what it said if not."""
        if self.ok:
            return self
        said = "\n".join(f"  {line}" for line in (self.stderr or self.stdout).strip().splitlines()[-8:])
        raise SetupError(f"pulumi could not {what}:\n{said}", f"see what `pulumi {' '.join(self.command)}` says")

    @property
    def errors(self) -> list[str]:
        return [event.message for event in self.events if event.kind == "diagnostic" and event.severity == "error"]


class Session:
    """A context manager: what it started is gone when it ends, however it ends; its folder too, unless kept.

    `root`: the session's folder. None makes one that is removed at the end unless `keep`; a given one always stays, and
    one of an earlier session is taken up where that left off. `project`: the project to rehearse. `clock`: `events`
    counts virtual minutes, `off` does not wait. `cloud`: `module:class` in place of the pretend cloud.
    """

    def __init__(
        self,
        root: Path | None = None,
        keep: bool = False,
        faults: Path | None = None,
        clock: Literal["events", "off"] = "events",
        *,
        project: Path = ROOT,
        engine: Engine | None = None,
        cloud: str | None = None,
    ) -> None:
        self.keep = keep or root is not None
        self._wanted_root, self._faults, self._clock, self._cloud = root, faults, clock, cloud
        self._source, self._engine = project.resolve(), engine
        self._providers: subprocess.Popen[str] | None = None
        self._running: subprocess.Popen[bytes] | None = None
        self._old_handlers: dict[int, Any] = {}
        self._runs = 0

    # Where things are.

    @property
    def project(self) -> Path:
        """The folder pulumi works in."""
        return self.root / "project"

    @property
    def cloud_folder(self) -> Path:
        return self.root / "cloud"

    # Beginning and end.

    def __enter__(self) -> Self:
        self._engine = self._engine or ensure_engine()
        self._catch_signals()
        try:
            with held_signals():
                self._make_folder()
            self.env = self._environment()
            self.env["PULUMI_DEBUG_PROVIDERS"] = self._start_providers()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        try:
            with held_signals():  # a second Ctrl-C must not stop the clearing away
                for process in (self._running, self._providers):
                    if process is not None:
                        end_tree(process)
                        if process.stdout is not None:
                            process.stdout.close()
                self._running = self._providers = None
                if not self.keep and hasattr(self, "root"):
                    shutil.rmtree(self.root, ignore_errors=True)
        finally:
            for number, handler in self._old_handlers.items():
                signal.signal(number, handler)
            self._old_handlers.clear()

    def _catch_signals(self) -> None:
        """SIGTERM and SIGHUP end a session like an exception does; only the main thread can say so."""
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(number: int, _frame: FrameType | None) -> None:
            raise SystemExit(128 + number)

        for number in (signal.SIGTERM, signal.SIGHUP):
            self._old_handlers[number] = signal.signal(number, stop)

    def _make_folder(self) -> None:
        try:
            if self._wanted_root is None:
                self.root = Path(tempfile.mkdtemp(prefix="dynamo-recipes-")).resolve()
            else:
                self.root = self._wanted_root.resolve()
            for name in ("project", "state", "home", "cloud", "events"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            passphrase = self.root / "passphrase"
            if not passphrase.exists():
                passphrase.touch(mode=0o600)
                passphrase.write_text(secrets.token_hex(16), encoding="utf-8")
            self._link_project()
        except OSError as error:
            where = getattr(self, "root", tempfile.gettempdir())
            raise SetupError(
                f"the rehearsal's folder {where} cannot be written ({error.strerror or error})",
                "make room or mend its permissions; TMPDIR chooses another disk",
            ) from None

    def _link_project(self) -> None:
        wanted = {path.name: path for path in self._source.iterdir() if path.name not in _LEFT_OUT}
        settings = yaml.safe_load((self._source / "Pulumi.yaml").read_text(encoding="utf-8"))
        stacks = self._stacks = settings.get("stackConfigDir", ".")
        shutil.copy(self._source / "Pulumi.yaml", self.project)
        venv = self.project / ".venv"
        if not venv.is_symlink():
            venv.symlink_to(sys.prefix)  # what an official language host runs the program with
        for link in self.project.iterdir():
            if link.is_symlink() and link.name != ".venv" and (link.name not in wanted or not link.exists()):
                link.unlink()
        (self.project / stacks).mkdir(exist_ok=True)
        for name, path in wanted.items():
            target = self.project / name
            if name != stacks and not name.startswith("Pulumi.") and not target.is_symlink():
                target.symlink_to(path)
        for file in (self._source / stacks).glob("Pulumi.*.yaml"):
            copy = self.project / stacks / file.name
            if not copy.exists():
                copy.write_text(_without_encryption(file), encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        assert self._engine is not None
        env = {key: value for key, value in os.environ.items() if not key.upper().startswith(_STRIPPED)}
        if not self._engine.has_language_host:
            self._write_host()
        return env | {
            "PATH": os.pathsep.join([*map(str, self._engine.bin_dirs), env.get("PATH", os.defpath)]),
            "PULUMI_BACKEND_URL": f"file://{quote(str(self.root / 'state'))}?metadata=skip",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(self.root / "passphrase"),
            "PULUMI_HOME": str(self.root / "home"),
            "PULUMI_PARALLEL": str(PARALLEL),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_IGNORE_AMBIENT_PLUGINS": "true",  # one the user happens to have on PATH
            "PULUMI_DEBUG_COMMANDS": "true",  # --event-log exists only with it
            "KUBECONFIG": os.devnull,
            SESSION: str(os.getpid()),
            PLACEHOLDERS: "1",
            PRETEND_CLOUD: str(self.cloud_folder),
            STACK_FILES: str(self.project / self._stacks),
        }

    def _write_host(self) -> None:
        """Put our language host among the session's plugins. On PATH it would do, too, with a warning in every output."""
        assert self._engine is not None
        shim = self.root / "home" / "plugins" / f"language-python-{self._engine.version}" / "pulumi-language-python"
        shim.parent.mkdir(parents=True, exist_ok=True)
        script = f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m rehearsal.host "$@"\n'
        shim.write_text(script, encoding="utf-8")
        shim.chmod(0o755)

    def _start_providers(self) -> str:
        command = [
            sys.executable,
            "-m",
            "rehearsal.providers",
            "--store",
            str(self.cloud_folder),
            "--watch",
            str(os.getpid()),
        ]
        command += ["--clock", self._clock]
        command += ["--faults", str(self._faults.resolve())] if self._faults else []
        command += ["--cloud", self._cloud] if self._cloud else []
        told = self.cloud_folder / TOLD
        told.unlink(missing_ok=True)
        if self._faults:
            shutil.copy(self._faults, told)
        errors = self.root / "providers.err"
        with errors.open("w", encoding="utf-8") as err, held_signals():
            self._providers = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self.env, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                start_new_session=True,
            )
        line = _first_line(self._providers, _START_SECONDS)
        try:
            ports: dict[str, int] = json.loads(line)
        except ValueError:
            said = errors.read_text(encoding="utf-8").strip()
            raise SetupError(
                f"the pretend providers did not start:\n{said or '(they said nothing)'}",
                "mend what the message names; a broken installation is made anew by `make clean setup`",
            ) from None
        return ",".join(f"{name}:{port}" for name, port in ports.items())

    # Work.

    def init_stack(self, stack: str) -> None:
        """Make the stack in the session's backend, unless it is there. SetupError if the project has no file for it."""
        names = self.stack_names()
        if stack not in names:
            near = difflib.get_close_matches(stack, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
            raise SetupError(f"stack {stack} has no file Pulumi.{stack}.yaml in {self._source / self._stacks}", hint)
        listed = self.run(["stack", "ls", "--json"]).expect("list the stacks")
        if stack in [item["name"] for item in json.loads(listed.stdout or "[]")]:
            return
        self.run(["stack", "init", stack]).expect(f"make the stack {stack}")
        for key in _secret_keys(self._source / self._stacks / f"Pulumi.{stack}.yaml"):
            self.run(["config", "set", "--secret", "--stack", stack, key, REHEARSED_SECRET]).expect(f"set {key}")

    def stack_names(self) -> list[str]:
        """Stacks that have a file in the project."""
        files = (self.project / self._stacks).glob("Pulumi.*.yaml")
        return sorted(file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files)

    def run(
        self,
        args: Sequence[str],
        *,
        on_event: Callable[[Event], None] | None = None,
        on_tick: Callable[[], None] | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
    ) -> Result:
        """Run `pulumi ARGS` to its end; `on_event` hears the engine's events as they come, `input` is its standard input.

        `on_tick` is called some 20 times a second meanwhile.

        Ctrl-C and SIGTERM are passed on: the engine finishes what is in flight, and then KeyboardInterrupt or SystemExit
        goes on its way. A second one ends everything at once.
        """
        assert self._engine is not None
        self._runs += 1
        log, out, err = (
            self.root / "events" / f"{self._runs:03}-{name}" for name in ("events.jsonl", "stdout", "stderr")
        )
        command = [str(self._engine.pulumi), *args, "--non-interactive", "--color", "never"]
        command += ["--event-log", str(log)] if args[0] in _WITH_EVENTS else []
        follow = _Follower(log, on_event)
        try:
            with out.open("w", encoding="utf-8") as stdout, err.open("w", encoding="utf-8") as stderr, held_signals():
                process = self._running = subprocess.Popen(
                    command,
                    cwd=self.project,
                    env={**self.env, **(env or {})},
                    stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
                )
            if process.stdin is not None:
                process.stdin.write((input or "").encode())
                process.stdin.close()
            _wait(process, follow, on_tick)
        finally:
            self._end_running()
        said, complained = (path.read_text(encoding="utf-8", errors="replace") for path in (out, err))
        return Result(tuple(args), process.returncode, said, complained, tuple(follow.events))

    def interactive(self, command: Sequence[str]) -> int:
        """Run any command on this terminal with the session's environment, in its project folder; the exit code."""
        # The command in the foreground gets Ctrl-C, too. A handler, unlike SIG_IGN, is not passed on to it.
        previous = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            with held_signals():
                process = self._running = subprocess.Popen(command, cwd=self.project, env=self.env)
            return process.wait()
        except FileNotFoundError:
            raise SetupError(f"there is no command {command[0]}", "name one that is on PATH") from None
        finally:
            signal.signal(signal.SIGINT, previous)
            self._end_running()

    def tell(self, faults: Faults) -> None:
        """What goes wrong from now on, in place of what did so far."""
        told = self.cloud_folder / TOLD
        written = told.with_suffix(".new")
        written.write_text(faults.model_dump_json(), encoding="utf-8")
        written.replace(told)
        (self.cloud_folder / HELD).unlink(missing_ok=True)

    def held(self) -> list[dict[str, str]]:
        """The operations (op, type, name, when) that faults with `hold` have kept in the pretend cloud since the last `tell`."""
        file = self.cloud_folder / HELD
        return list(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else []

    def kill(self) -> None:
        """End the running engine as a crash of the machine would: at once, and it alone."""
        if self._running is not None:
            with suppress(ProcessLookupError):
                self._running.kill()

    def _end_running(self) -> None:
        with held_signals():
            if self._running is not None:
                end_tree(self._running)
            self._running = None

    # What came of it.

    def export_stack(self, stack: str) -> dict[str, Any]:
        """The stack's state as the engine exports it, secrets encrypted."""
        exported = self.run(["stack", "export", "--stack", stack]).expect(f"export the state of {stack}")
        return dict(json.loads(exported.stdout))

    def resources(self, stack: str) -> list[dict[str, Any]]:
        """What the engine has in its state, the stack itself and providers included."""
        return list(self.export_stack(stack)["deployment"].get("resources") or [])

    def cloud_objects(self) -> list[dict[str, Any]]:
        """What exists in the pretend cloud, whatever the engine knows of it."""
        file = self.cloud_folder / "cloud.json"
        return list(json.loads(file.read_text(encoding="utf-8"))["records"]) if file.exists() else []

    def journal(self) -> list[dict[str, Any]]:
        """Every operation of the pretend cloud, in order, with its virtual start and end in seconds."""
        file = self.cloud_folder / "journal.jsonl"
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


class _Follower:
    """Reads an event log while it is being written."""

    def __init__(self, path: Path, on_event: Callable[[Event], None] | None) -> None:
        self.events: list[Event] = []
        self._path, self._on_event, self._offset, self._rest, self._head = path, on_event, 0, b"", b""

    def read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            # A command that previews first (refresh --yes) writes the file twice, from the beginning.
            head = file.read(_HEAD_BYTES)
            if not head.startswith(self._head):
                self._offset, self._rest = 0, b""
            self._head = head
            file.seek(self._offset)
            *lines, self._rest = (self._rest + file.read()).split(b"\n")
            self._offset = file.tell()
        for line in filter(None, lines):
            event = Event.parse(json.loads(line))
            self.events.append(event)
            if self._on_event is not None:
                self._on_event(event)


def _wait(process: subprocess.Popen[bytes], follow: _Follower, on_tick: Callable[[], None] | None = None) -> None:
    stopped: BaseException | None = None
    deadline = float("inf")
    while True:
        try:
            ended = process.poll() is not None
            follow.read()
            if ended:
                break
            if time.monotonic() > deadline:
                end_tree(process)
            if on_tick is not None:
                on_tick()
            time.sleep(_POLL_SECONDS)
        except (KeyboardInterrupt, SystemExit) as signalled:
            if stopped is not None:
                raise
            stopped, deadline = signalled, time.monotonic() + _STOP_SECONDS
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
    if stopped is not None:
        raise stopped


def end_tree(process: subprocess.Popen[Any]) -> None:
    """End a process and all it started, gently if they let themselves be. Harmless where nothing is left.

    The engine puts its plugins into groups of their own, so their group is not enough.
    """
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_AFTER_SECONDS)
    if process.poll() is None:
        process.kill()
        process.wait()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=_KILL_AFTER_SECONDS)


def _first_line(process: subprocess.Popen[str], timeout_s: float) -> str:
    """The first line a process prints, or nothing if it ends or takes too long."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(timeout_s) else ""


_ENCRYPTION_KEYS = ("secretsprovider", "encryptionsalt", "encryptedkey")


def _secret_keys(file: Path) -> list[str]:
    """Config keys of a stack file whose values are encrypted, for whoever holds the real passphrase."""
    config = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("config") or {}
    return [key for key, value in config.items() if isinstance(value, dict) and "secure" in value]


def _without_encryption(file: Path) -> str:
    """The stack file, comments and all, unless it holds what only its real secrets provider can read: then without that."""
    text = file.read_text(encoding="utf-8")
    settings = yaml.safe_load(text) or {}
    secret = _secret_keys(file)
    if not secret and not any(key in settings for key in _ENCRYPTION_KEYS):
        return text
    kept = {key: value for key, value in settings.items() if key not in _ENCRYPTION_KEYS}
    kept["config"] = {key: value for key, value in (settings.get("config") or {}).items() if key not in secret}
    return yaml.safe_dump(kept, sort_keys=False)
