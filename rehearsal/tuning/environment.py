"""The environment of aiconfigurator 0.12.0: the search, its models and its performance database. No GPU, no network once installed."""

from pathlib import Path
from typing import Final

from rehearsal.engine.progress import Reporter
from rehearsal.pyenv import PythonEnvironment, ensure

AICONFIGURATOR: Final = "0.12.0"
"""As requirements.in has it, and as every prediction names it; a test holds the two together."""
ENVIRONMENT: Final = PythonEnvironment(
    title=f"aiconfigurator {AICONFIGURATOR}",
    group="tuning",
    lock=Path(__file__).parent / "requirements.lock",
    probe=("aiconfigurator", "aiconfigurator_core"),
    next_step="run this again once the network is back; everything but `ops tune` goes on without it",
    # 0.8 GB installed, seen on Linux x86-64, and as much again while pip unpacks; the rest is room.
    room_bytes=2 * 1024**3,
)


def ensure_environment(progress: Reporter | None = None) -> Path:
    """Its Python: from the cache, or installed now (0.8 GB, about a minute). SetupError says why not."""
    return ensure(ENVIRONMENT, progress)
