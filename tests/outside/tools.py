"""The outside tools: installed on first use into `.cache/`, by the content of their requirements, and asked in a process of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

from recipe.names import digest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REQUIREMENTS = HERE / "requirements.txt"


@cache
def packages() -> Path:
    """The folder with the tools; made when it is not there (about 20 s and 300 MB, from the package index)."""
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    key = digest(f"{sysconfig.get_platform()} {sysconfig.get_python_version()} {wanted}")
    target = ROOT / ".cache" / f"outside-{key}"
    if not target.exists():
        unfinished = target.with_suffix(f".{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:")
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, "--target", unfinished, "-r", REQUIREMENTS],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (
            f"the outside tools cannot be installed (is the package index there?):\n{done.stderr}"
        )
        if target.exists():  # somebody else was faster
            shutil.rmtree(unfinished)
        else:
            unfinished.rename(target)
    return target


def ask(question: str, data: Any) -> Any:
    """What `checker.py` answers to `question` about `data`, plain data both ways. No network, no credentials."""
    env = {
        "PATH": os.defpath,
        "PYTHONPATH": str(packages()),
        "HOME": str(packages()),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    done = subprocess.run(
        [sys.executable, HERE / "checker.py", question],
        input=json.dumps(data),
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
