"""However the owner ends, nothing of it runs afterwards, and nothing lies about."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rehearsal.session import ROOT
from rehearsal.watch import alive

OWNER = """
import json, sys, time
from rehearsal.serving import serve
from tests.recipe.samples import plan
made = plan(mode="agg", workers={"worker": {"replicas": 2, "tensor_parallel": 2}})
with serve(made.objects.graph, made, model_timing=False) as serving:
    print(json.dumps({"pids": list(serving.pids.values()), "folder": str(serving.folder)}), flush=True)
    while True:
        time.sleep(1)
"""


class Owned:
    """A process that serves, and everything below it."""

    def __init__(self, folder: Path) -> None:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
        self.owner = subprocess.Popen(
            [sys.executable, "-c", OWNER], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.owner.stdout is not None
        found = json.loads(self.owner.stdout.readline())
        self.folder = Path(found["folder"])
        self.programs = [psutil.Process(pid) for pid in found["pids"]]
        self.supervisor = next(
            one for one in psutil.Process(self.owner.pid).children() if "rehearsal.serving.supervisor" in one.cmdline()
        )
        assert all(alive(one) for one in self.programs)

    def gone(self, within_seconds: float = 15) -> bool:
        until = time.monotonic() + within_seconds
        while any(alive(one) for one in (*self.programs, self.supervisor)) or self.folder.exists():
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True

    def close(self) -> None:
        for one in (*self.programs, self.supervisor):
            if alive(one):
                one.kill()
        self.owner.kill()
        self.owner.wait()
        if self.owner.stdout is not None:
            self.owner.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_nothing_is_left_however_the_owner_ends(environment: Path, tmp_path: Path, number: signal.Signals) -> None:
    owned = Owned(tmp_path)
    try:
        owned.owner.send_signal(number)
        assert owned.gone()
    finally:
        owned.close()


def test_the_programs_end_also_with_a_supervisor_that_is_killed(environment: Path, tmp_path: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux has prctl; on macOS the programs would go on")
    owned = Owned(tmp_path)
    try:
        owned.supervisor.kill()
        until = time.monotonic() + 15
        while any(alive(one) for one in owned.programs) and time.monotonic() < until:
            time.sleep(0.1)
        assert not [one for one in owned.programs if alive(one)]
    finally:
        owned.close()
