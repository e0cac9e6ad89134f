"""`python -m rehearsal.cluster.supervisor SPEC`: starts the control plane's programs, and ends them however its owner ends.

A kill -9 of a test sends its children nothing, so this process stands between: it looks after its owner's process id, and
where there is prctl the programs in turn end with it. It prints one JSON line, `{"ready": …}` or `{"error": …}`.
"""

import ctypes
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from rehearsal.watch import end_with, quiet_signals

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_START_SECONDS = 120  # a machine under load; alone it is about 4
_STOP_SECONDS = 1.5  # nothing is to be kept; the API server alone would take 5 for its connections
_POLL_SECONDS = 0.1


class Supervisor:
    """The programs of one control plane, in the order of their start."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.folder = Path(spec["folder"])
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._ending = threading.RLock()  # a signal may come while it ends already
        self._before = _die_with_parent()

    def start(self, name: str) -> None:
        """Start the program; what it says goes to NAME.log."""
        log: IO[bytes]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                self.spec["commands"][name],
                cwd=self.folder,
                env=self.spec["environment"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Only prctl is called there, looked up beforehand.
                preexec_fn=self._before,
            )

    def dead(self) -> str | None:
        """The first program that has ended."""
        return next((name for name, process in self.running.items() if process.poll() is not None), None)

    def wait_ready(self) -> str | None:
        """None once the API server answers and every controller runs; else why not."""
        self.start("etcd")
        self.start("kube-apiserver")
        if problem := self._wait(lambda: self._get("/readyz") is not None):
            return problem
        for name in ("kube-controller-manager", "kube-scheduler", "kwok"):
            self.start(name)
        # The controller manager makes this account: then its controllers run.
        return self._wait(lambda: self._get("/api/v1/namespaces/default/serviceaccounts/default") is not None)

    def _wait(self, done: Callable[[], bool]) -> str | None:
        until = time.monotonic() + _START_SECONDS
        while not done():
            if name := self.dead():
                return f"{name} ended: {self._last_words(name)}"
            if time.monotonic() > until:
                name = list(self.running)[-1]
                return f"not ready after {_START_SECONDS} s; {name} says: {self._last_words(name)}"
            time.sleep(_POLL_SECONDS)
        return None

    def _last_words(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        wrong = [line for line in lines if line.startswith(("E", "F")) or "error" in line.lower()]
        return " | ".join((wrong or lines)[-2:])[-800:] or "nothing"

    def _get(self, path: str) -> bytes | None:
        context = ssl.create_default_context(cafile=self.spec["authority"])
        context.load_cert_chain(self.spec["certificate"], self.spec["key"])
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(self.spec["server"] + path, timeout=5) as answer:
                return bytes(answer.read())
        except (OSError, urllib.error.URLError):
            return None

    def end(self) -> None:
        """End everything this process started, the last first, and the folder where it is ours to remove."""
        with self._ending:
            for process in reversed(self.running.values()):
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            until = time.monotonic() + _STOP_SECONDS
            for process in reversed(self.running.values()):
                try:
                    process.wait(timeout=max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if self.spec["remove"]:
                shutil.rmtree(self.folder, ignore_errors=True)


def _die_with_parent() -> Callable[[], None] | None:
    """What a child calls before it becomes a program, so that it ends with this process. Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    supervisor = Supervisor(spec)

    def leave() -> None:
        supervisor.end()
        os._exit(0)

    # Ctrl-C is the owner's: it still talks to the API server while it cleans up.
    quiet_signals(also_interrupt=False)
    signal.signal(signal.SIGTERM, lambda _number, _frame: leave())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_with(spec["watch"], leave)
    problem = supervisor.wait_ready()
    pids = {name: process.pid for name, process in supervisor.running.items()}
    if problem is not None:
        supervisor.end()
    sys.stdout.write(json.dumps({"error": problem} if problem else {"ready": pids}) + "\n")
    sys.stdout.flush()
    while problem is None:
        if name := supervisor.dead():
            sys.stderr.write(f"{name} ended: {supervisor._last_words(name)}\n")
            supervisor.end()
            sys.exit(1)
        time.sleep(0.5)


if __name__ == "__main__":
    main()
