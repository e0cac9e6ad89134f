"""`ops rehearse --serve`, as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.exits import OK
from rehearsal.engine import Engine
from rehearsal.session import ROOT


@pytest.mark.engine
def test_a_rehearsal_ends_its_up_with_tokens_and_leaves_nothing(
    environment: Path, engine: Engine, tmp_path: Path
) -> None:
    temp, out = tmp_path / "temp", tmp_path / "out.json"
    temp.mkdir()
    path = os.pathsep.join([*map(str, engine.bin_dirs), os.environ["PATH"]])
    command = [sys.executable, "-m", "ops", "rehearse", "qwen3-32b-disagg", "--serve", "--json", str(out)]
    ran = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(temp), "PATH": path}, capture_output=True, text=True
    )
    assert ran.returncode == OK, ran.stdout + ran.stderr
    data = json.loads(out.read_text())
    served = data["serving"]
    assert served["simulated"] is True
    assert served["failure"] is None
    assert served["workers"] == 8
    assert served["answer"]["tokens"] == 32
    assert {name.rpartition("-")[0] for name in served["served_by"]} == {"prefill", "decode"}
    assert served["admissions"] == {"prefill": 1, "decode": 1}, "by the frontend's own count"
    assert "h100_sxm" in served["timing"]
    assert ran.stdout.index("\nup") < ran.stdout.index("\nserving") < ran.stdout.index("\ndestroy")
    assert served["timing"] in ran.stdout, "no figure without what it comes from"
    assert (data["left"], list(temp.glob("dynamo-recipes-*"))) == (0, [])
