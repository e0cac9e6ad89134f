"""Programs that end however their owner ends.

A kill -9 of an owner sends its children nothing, so a supervisor process stands between: it looks after its owner's process id,
and where there is prctl the programs in turn end with it. It prints one JSON line, `{"ready": …}` or `{"error": …}`. Owner's side:
`Supervised`. Supervisor's side: a subclass of `Supervisor` that knows what to start and when it is ready, and `supervise`.
"""

import ctypes
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, ClassVar, Final

from rehearsal.watch import end_with, held_signals, quiet_signals

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_POLL_SECONDS: Final = 0.1
_ROOT: Final = Path(__file__).resolve().parents[1]
_STOP_SECONDS: Final = 20
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")


class Supervisor:
    """Programs in the order of their start. `spec`: folder, commands and environment (each by name or for all), remove, watch."""

    start_seconds: ClassVar[float] = 120  # a machine under load
    stop_seconds: ClassVar[float] = 1.5  # nothing is to be kept

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.folder = Path(spec["folder"])
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._ending = threading.RLock()  # a signal may come while it ends already
        self._before = _die_with_parent()

    def wait_ready(self) -> str | None:
        """Start everything. None once it works; else why it does not."""
        raise NotImplementedError

    def ready(self) -> dict[str, Any]:
        """What the owner is told: process ids by name."""
        return {name: process.pid for name, process in self.running.items()}

    def start(self, name: str) -> None:
        """Start the program; what it says goes to NAME.log."""
        log: IO[bytes]
        own = self.spec.get("environments", {}).get(name, {})
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                self.spec["commands"][name],
                cwd=self.folder,
                env=self.spec["environment"] | own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Only prctl is called there, looked up beforehand.
                preexec_fn=self._before,
            )

    def dead(self) -> str | None:
        """The first program that has ended."""
        return next((name for name, process in self.running.items() if process.poll() is not None), None)

    def wait_for(self, done: Callable[[], bool]) -> str | None:
        """None as soon as `done`; else which program ended, or that it took too long."""
        until = time.monotonic() + self.start_seconds
        while not done():
            if name := self.dead():
                return f"{name} ended: {self.last_words(name)}"
            if time.monotonic() > until:
                name = list(self.running)[-1]
                return f"not ready after {self.start_seconds:.0f} s; {name} says: {self.last_words(name)}"
            time.sleep(_POLL_SECONDS)
        return None

    def last_words(self, name: str) -> str:
        """What its log ends with, errors first."""
        text = _COLOURS.sub("", (self.folder / f"{name}.log").read_text(errors="replace"))
        lines = text.strip().splitlines()
        wrong = [line for line in lines if line.startswith(("E", "F")) or "error" in line.lower()]
        return " | ".join((wrong or lines)[-2:])[-800:] or "nothing"

    def end(self) -> None:
        """End everything this process started, the last first, and the folder where it is ours to remove."""
        with self._ending:
            for process in reversed(self.running.values()):
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            until = time.monotonic() + self.stop_seconds
            for process in reversed(self.running.values()):
                try:
                    process.wait(timeout=max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if self.spec["remove"]:
                shutil.rmtree(self.folder, ignore_errors=True)


def supervise(kind: type[Supervisor]) -> None:
    """The main of a supervisor process: `python -m … SPEC`."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    supervisor = kind(spec)

    def leave() -> None:
        supervisor.end()
        os._exit(0)

    # Ctrl-C is the owner's: it still needs the programs while it cleans up.
    quiet_signals(also_interrupt=False)
    signal.signal(signal.SIGTERM, lambda _number, _frame: leave())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_with(spec["watch"], leave)
    problem = supervisor.wait_ready()
    ready = supervisor.ready()
    if problem is not None:
        supervisor.end()
    sys.stdout.write(json.dumps({"error": problem} if problem else {"ready": ready}) + "\n")
    sys.stdout.flush()
    while problem is None:
        if name := supervisor.dead():
            sys.stderr.write(f"{name} ended: {supervisor.last_words(name)}\n")
            supervisor.end()
            sys.exit(1)
        time.sleep(0.5)


def _die_with_parent() -> Callable[[], None] | None:
    """What a child calls before it becomes a program, so that it ends with this process. Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Supervised:
    """A supervisor process, as its owner sees it."""

    def __init__(self, module: str, spec: Path) -> None:
        """Start `python -m MODULE SPEC`."""
        self.errors = spec.parent / "supervisor.log"
        with held_signals(), self.errors.open("w") as log:
            self._process: subprocess.Popen[str] | None = subprocess.Popen(
                [sys.executable, "-m", module, str(spec)],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # Ctrl-C reaches the whole foreground group at once; the owner still needs the programs to clean up.
                start_new_session=True,
            )

    def first_line(self, timeout_seconds: float) -> dict[str, Any]:
        """`{"ready": …}` or `{"error": …}`."""
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_seconds):
                return {"error": f"not ready after {timeout_seconds:.0f} s"}
        with suppress(ValueError):
            found: dict[str, Any] = json.loads(self._process.stdout.readline())
            return found
        said = self.errors.read_text(errors="replace").strip()[-800:] if self.errors.exists() else ""
        return {"error": said or "it ended without a word"}

    def stop(self) -> None:
        """End it and all it started. Harmless a second time."""
        process, self._process = self._process, None
        if process is None:
            return
        with held_signals():
            process.terminate()
            try:
                process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                # Where there is prctl its programs end with it.
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now. All are held until the last is found, so they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
