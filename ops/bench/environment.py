"""AIPerf on this machine, from the very lock file the Job installs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from recipe.catalogue import AIPERF
from recipe.jobs import SCRIPTS
from rehearsal.engine.progress import Reporter
from rehearsal.pyenv import PythonEnvironment, ensure

ENVIRONMENT: Final = PythonEnvironment(
    title=f"AIPerf {AIPERF}",
    group="aiperf",
    lock=SCRIPTS / "benchmark-requirements.txt",
    probe=("aiperf", "transformers", "botocore"),
    next_step="run this again once the network is back; on AWS the Job installs its own",
    platforms=("linux-x86_64",),
    # 1.2 GB installed and 0.23 GB of downloads, seen on Linux x86-64 with Python 3.11; the rest is room.
    room_bytes=3 * 1024**3,
)


def ensure_aiperf(progress: Reporter | None = None) -> Path:
    """Its Python: from the cache, or installed now (1.2 GB, about 2 minutes). SetupError says why not."""
    return ensure(ENVIRONMENT, progress)
