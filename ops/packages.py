"""Packages that cannot live beside those of .venv: installed on first use into `.cache/`, by the content of their requirements."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from ops.exits import MISSING, CommandError
from recipe.names import digest

ROOT = Path(__file__).resolve().parent.parent


def packages(requirements: Path, name: str) -> Path:
    """The folder with what `requirements` pins, whole; made where it is not there. Raises CommandError where it cannot be.

    Every process that needs it may ask at the same time: the first finished one is kept.
    """
    wanted = requirements.read_text(encoding="utf-8")
    key = digest(f"{sysconfig.get_platform()} {sysconfig.get_python_version()} {wanted}")
    target = ROOT / ".cache" / f"{name}-{key}"
    if target.exists():
        return target
    unfinished = target.with_suffix(f".{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(unfinished), "-r", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CommandError(
            f"the packages of {requirements.name} cannot be installed:\n{done.stderr.strip()[-1000:]}",
            "check that the Python package index is reachable and the disk has 300 MB free, then repeat the command",
            MISSING,
        )
    if target.exists():  # somebody else was faster
        shutil.rmtree(unfinished)
    else:
        unfinished.rename(target)
    return target
