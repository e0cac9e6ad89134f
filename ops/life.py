"""A stack brought up for some work, and taken away whatever happens: the guarantee behind `bench --destroy`.

    up → work → results home → logs and events → destroy → sweep

Destroy comes on failure, time-out, budget, Ctrl-C and SIGTERM. A second Ctrl-C does not skip it: it says what is still running and
costing. A run file in the results folder says how far it got, so that `resume` ends what a machine that died had begun. Results that
could not be brought home keep the file system they are on: then only the GPUs go.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final, Literal

import psutil

from ops import deployed
from ops.aws import AwsError, Keeper
from ops.deployed import Engine
from ops.exits import BAD_INPUT, FAILED, CommandError
from ops.recover import recover
from ops.removing import Say, remove_all, sum_up, table
from ops.sweep import sweep
from ops.things import Marks, Thing
from recipe.plan import Plan

Phase = Literal["up", "work", "home", "logs", "destroy", "sweep", "done"]
RUN_FILE: Final = "run.json"
SAID: Final = "said.log"
"""In the results folder: what was said when nobody listened any more."""
ATTEMPTS: Final = 3
"""At destroy; between them `recover` and `sweep`."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """The work ends here: a signal, or a limit. Engines pass it on and finish what is in flight."""


@dataclass(frozen=True)
class Limits:
    """When the work ends though it has not. Both count from the beginning of `up`."""

    minutes: float | None = None
    usd: float | None = None
    """At the plan's price for all of it, so a little early."""

    def seconds(self, plan: Plan) -> float | None:
        """Until the first of them; None where there is none."""
        times = [] if self.minutes is None else [self.minutes * 60]
        if self.usd is not None and plan.cost.usd_per_hour > 0:
            times.append(self.usd / plan.cost.usd_per_hour * 3600)
        return min(times, default=None)


@dataclass(frozen=True)
class RunFile:
    """What is written down of a run."""

    stack: str
    deployment: str
    account: str
    region: str
    usd_per_hour: float
    begun: str
    phase: Phase
    pid: int
    host: str
    stopped: str = ""
    """Why the work ended early; empty where it did not."""

    def write(self, folder: Path) -> None:
        """All or nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / f".{RUN_FILE}.new"
        staged.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        staged.replace(folder / RUN_FILE)

    @classmethod
    def read(cls, folder: Path) -> RunFile:
        """Raises CommandError: no run file there, or not one."""
        try:
            return cls(**json.loads((folder / RUN_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise CommandError(
                f"{folder} holds no {RUN_FILE} of a run", "name the results folder of the run", BAD_INPUT
            ) from None

    @property
    def alive(self) -> bool:
        """Whether its process still runs, as far as can be seen from here."""
        return self.host == socket.gethostname() and psutil.pid_exists(self.pid) and self.pid != os.getpid()


@dataclass
class Ending:
    """How a run ended."""

    stopped: str = ""
    failures: list[str] = field(default_factory=list)
    gpus_gone_minutes: float | None = None
    """After destroy began; None: there were none, or they are still there."""
    left: list[Thing] = field(default_factory=list)
    """What still exists of the stack."""

    @property
    def ok(self) -> bool:
        """The work was done, its results are home, and nothing is left."""
        return not self.stopped and not self.failures and not self.left


def _outliving(say: Say, folder: Path) -> Say:
    """`say`, for as long as somebody listens; afterwards into a file. A terminal that is closed must not keep GPUs running."""

    def said(line: str) -> None:
        try:
            say(line)
        except (OSError, ValueError):  # a pipe without a reader, a terminal that hung up, a stream that was closed
            with suppress(OSError), (folder / SAID).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    return said


@dataclass
class Life:
    """One run. `work` and `home` get the results folder; `home` runs whether or not `work` ended well, and both may raise anything.

    `connect` gives an account of its own to the thread that watches the GPUs go. `logs` brings logs and events home.
    """

    plan: Plan
    engine: Engine
    connect: Callable[[], Keeper]
    folder: Path
    say: Say
    work: Callable[[Path], None]
    home: Callable[[Path], None] = lambda _: None
    logs: Callable[[Path], None] = lambda _: None
    limits: Limits = field(default_factory=Limits)
    work_brings_up: bool = False
    """The work runs `up` itself: then it is the whole of it that is interrupted, and there may be results from its beginning."""
    evidence: Path | None = None
    sleep: Callable[[float], None] = time.sleep
    _protected: bool = False
    _file: RunFile | None = None
    _worked: bool = False
    """Whether the work was begun: only then there may be results."""

    def __post_init__(self) -> None:
        self.say = _outliving(self.say, self.folder)

    # ---- the way through

    def run(self) -> Ending:
        """All of it. Never raises what `work` or a signal raised: that is in the Ending."""
        ending = Ending()
        access = self.plan.recipe.access
        self._file = RunFile(
            stack=self.plan.stack,
            deployment=self.plan.recipe.deployment_id,
            account=str(access.account_id),
            region=access.region,
            usd_per_hour=self.plan.cost.usd_per_hour,
            begun=datetime.now(UTC).isoformat(timespec="seconds"),
            phase="up",
            pid=os.getpid(),
            host=socket.gethostname(),
        )
        with self._signals():
            with self.connect() as account:
                deployed.guard(self.plan, account)  # before anything is asked of anybody
            try:
                self._file.write(self.folder)
                self._alarm(self.limits.seconds(self.plan))
                if not self.work_brings_up:
                    self._up()
                self._reach("work")
                self._worked = True
                self.work(self.folder)
            except Stopped as stopped:
                ending.stopped = str(stopped)
            except Exception as error:  # whatever it was, the stack goes
                ending.failures.append(f"{type(error).__name__}: {error}")
            self._protected = True
            self._alarm(None)
            if ending.stopped:
                self._file = replace(self._file, stopped=ending.stopped)
                self.say(f"stopped: {ending.stopped}. Results come home, then everything is destroyed")
            for failure in ending.failures:
                self.say(f"failed: {failure}")
            self._end(ending)
        return ending

    def resume(self) -> Ending:
        """End what a run had begun whose process is gone: results home, logs, destroy, sweep. Raises CommandError: it still runs."""
        self._file = RunFile.read(self.folder)
        if self._file.alive:
            raise CommandError(
                f"the run in {self.folder} goes on (process {self._file.pid})", f"wait for it, or kill -TERM {self._file.pid}: it destroys first", FAILED
            )  # fmt: skip
        found = self._file
        if (found.stack, found.deployment) != (self.plan.stack, self.plan.recipe.deployment_id):
            raise CommandError(
                f"the run in {self.folder} was of {found.stack} ({found.deployment})",
                "name that stack's results folder",
                BAD_INPUT,
            )
        ending = Ending()
        if found.phase == "done":
            self.say(f"the run in {self.folder} has ended; nothing to do")
            return ending
        self.say(f"the run of {found.stack} begun {found.begun} got as far as {found.phase}; ending it")
        self._worked = found.phase != "up"
        self._file = replace(found, pid=os.getpid(), host=socket.gethostname())
        with self._signals():
            self._protected = True
            with self.connect() as account:
                deployed.guard(self.plan, account)
                try:
                    self._recover(account)
                except (AwsError, CommandError) as error:
                    ending.failures.append(str(error))
            self._end(ending)
        return ending

    def _up(self) -> None:
        self.say(f"up: {self.plan.stack}, ${self.plan.cost.usd_per_hour:.2f} an hour once all of it runs")
        deployed.run(
            self.engine, ["up", "--yes", "--skip-preview", "--stack", self.plan.stack], f"bring {self.plan.stack} up"
        )

    def _end(self, ending: Ending) -> None:
        """Results home, logs, destroy, sweep. Whatever one of them raises, the next one runs."""
        home = True
        if self._worked:
            self._reach("home")
            try:
                self.home(self.folder)
            except Exception as error:  # whatever it was, the GPUs go
                home = False
                ending.failures.append(f"results are not home: {type(error).__name__}: {error}")
                self.say(ending.failures[-1])
        self._reach("logs")
        try:
            self.logs(self.folder)
        except Exception as error:
            self.say(f"logs: {type(error).__name__}: {error}")
        self._reach("destroy")
        gone = False
        with self.connect() as account:
            with self._watched(ending):
                try:
                    gone = self._destroy(account, keep_files=not home)
                except Exception as error:
                    ending.failures.append(f"destroy: {type(error).__name__}: {error}")
                    self.say(ending.failures[-1])
                    self._gpus_by_api(account)
            if gone:
                self._reach("done")
                self.say(f"{self.plan.stack}: nothing is left")
                return
            ending.left = self._left(account)
        stack = self.plan.stack
        self.say(f"STILL THERE: {sum_up(ending.left)}")
        for line in table(ending.left):
            self.say(line)
        if home:
            ending.failures.append("not everything is gone")
            self.say(f"Next: python -m ops recover {stack}, pulumi destroy -s {stack}, python -m ops sweep {stack}")
        else:
            self.say(f"Next: the results are on the stack's file system: fetch them, then pulumi destroy -s {stack}")

    # ---- taking away

    def _destroy(self, account: Keeper, *, keep_files: bool) -> bool:
        """Whether nothing is left."""
        stack = self.plan.stack
        command = ["destroy", "--yes", "--skip-preview", "--stack", stack]
        if keep_files:
            if (gpus := self._gpu_urn()) is None:
                return False
            command += ["--target", gpus, "--target-dependents"]
        for attempt in range(ATTEMPTS):
            if attempt:
                self.say(f"destroy, attempt {attempt + 1} of {ATTEMPTS}")
            ran = self.engine.run(command)
            if ran.ok:
                break
            self.say(f"destroy failed:\n{deployed.last_words(ran)}")
            self._put_right(account)
        else:
            self._gpus_by_api(account)
            return False
        if keep_files:
            return False
        self._reach("sweep")
        try:
            return sweep(self.plan, self.engine, account, self.say, lambda _: True, sleep=self.sleep).clean
        except (AwsError, CommandError) as error:
            self.say(f"sweep: {error}")
            return False

    def _put_right(self, account: Keeper) -> None:
        for step in (self._recover, self._sweep_services):
            try:
                step(account)
            except (AwsError, CommandError) as error:
                self.say(str(error))

    def _recover(self, account: Keeper) -> None:
        evidence = self.evidence or self.folder / "recover.json"
        recover(self.plan, self.engine, account, self.say, lambda _: True, evidence, sleep=self.sleep)

    def _sweep_services(self, account: Keeper) -> None:
        sweep(self.plan, self.engine, account, self.say, lambda _: True, sleep=self.sleep)

    def _gpu_urn(self) -> str | None:
        """The GPU node group in the state; None where it is not there."""
        found = [
            one["urn"]
            for one in deployed.exported(self.engine, self.plan.stack)["deployment"].get("resources") or ()
            if one["type"].endswith(":NodeGroup") and one["urn"].endswith("::gpu-nodes")
        ]
        return str(found[0]) if found else None

    def _gpus_by_api(self, account: Keeper) -> None:
        """The last resort: what costs most, without the engine. The state learns of it at the next `recover`."""
        marks = Marks.of(self.plan)
        try:
            groups = [one for one in account.gpu_groups() if marks.on(one.facts["tags"])]
            if groups:
                self.say("the engine cannot: GPU nodes are deleted by the API")
                remove_all(account, marks, groups, self.say, sleep=self.sleep)
        except AwsError as error:
            self.say(f"GPU nodes cannot be deleted: {error}")

    def _left(self, account: Keeper) -> list[Thing]:
        try:
            return list(account.things(Marks.of(self.plan)))
        except AwsError as error:
            self.say(f"what is left cannot be listed: {error}")
            return []

    @contextmanager
    def _watched(self, ending: Ending) -> Iterator[None]:
        """Say when the GPUs are gone, as soon as they are: the rest of a destroy takes minutes and costs cents."""
        marks, begun, over = Marks.of(self.plan), time.monotonic(), threading.Event()

        def watch() -> None:
            try:
                with self.connect() as account:
                    seen = False
                    while not over.is_set():
                        there = any(marks.on(one.facts["tags"]) for one in account.gpu_groups())
                        seen = seen or there
                        if seen and not there:
                            ending.gpus_gone_minutes = (time.monotonic() - begun) / 60
                            self.say(
                                f"GPU nodes are gone, {ending.gpus_gone_minutes:.1f} minutes after destroy began; the rest follows"
                            )
                            return
                        over.wait(account.pause_seconds)
            except (AwsError, CommandError) as error:
                self.say(f"when the GPUs are gone cannot be said: {error}")

        watcher = threading.Thread(target=watch, name="gpus-gone", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join(timeout=5)

    # ---- signals and limits

    def _reach(self, phase: Phase) -> None:
        assert self._file is not None
        self._file = replace(self._file, phase=phase)
        try:
            self._file.write(self.folder)
        except OSError as error:  # a full disk is no reason to leave GPUs running
            self.say(f"{self.folder / RUN_FILE} cannot be written: {error.strerror}")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, _frame: FrameType | None) -> None:
            why = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            self._stop(why)

        before = {number: signal.signal(number, stop) for number in (*_SIGNALS, signal.SIGALRM)}
        try:
            yield
        finally:
            self._alarm(None)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, why: str) -> None:
        if self._protected:
            assert self._file is not None
            self.say(
                f"{why}: {self._file.phase} goes on. Without it {self.plan.stack} would go on costing up to "
                f"${self.plan.cost.usd_per_hour:.2f} an hour; to leave it all the same: kill -9 {os.getpid()}, and then "
                f"python -m ops bench {self.plan.stack} --resume, which ends it"
            )
            return
        self._protected = True  # from now on it ends, whatever else is pressed
        if why == signal.SIGALRM.name:
            why = f"the limit of {self._limit_words()} is reached"
        raise Stopped(why)

    def _limit_words(self) -> str:
        parts = [f"{self.limits.minutes:g} minutes"] if self.limits.minutes is not None else []
        parts += [f"${self.limits.usd:g}"] if self.limits.usd is not None else []
        return " or ".join(parts)

    @staticmethod
    def _alarm(seconds: float | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0 if seconds is None else max(seconds, 0.001))
