"""Ends when the download has about as long to go as GPU nodes take to start (`weights.wait: overlap`), or is done.

Reads what recipe/scripts/download.py writes beside the cache. Exit codes: 0 time to ask for GPU nodes, 2 wrongly started, 5 the download
does not move, 6 the deadline came first. GPU nodes are then not asked for; whether the weights are good is the download's to say.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ASK_SECONDS = 5.0
STILL_SECONDS = 600.0
"""Longer without a byte is no pause between attempts (at most 120 s each), but a download that has ended or hangs."""


def say(message: str) -> None:
    """One line of the log, at once."""
    print(time.strftime("%H:%M:%S"), message, flush=True)  # noqa: T201 - a pod's log is its standard output


def left_seconds(progress: dict[str, Any]) -> float | None:
    """How long the rest takes at the slower of the rates of late and of the whole download; None before there is one."""
    rate = min(float(progress["rate"]), float(progress["mean_rate"]))
    return (progress["total"] - progress["done"]) / rate if rate > 0 else None


def read(path: Path) -> dict[str, Any] | None:
    """The file's content, or None where there is none yet. It is replaced in one step, so it is never half of one."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found


def main() -> int:
    """Wait. The exit code."""
    try:
        model, revision, home = os.environ["MODEL_ID"], os.environ["MODEL_REVISION"], Path(os.environ["HF_HOME"])
        lead, deadline = float(os.environ["LEAD_SECONDS"]), float(os.environ["DEADLINE_SECONDS"])
    except KeyError as error:
        say(f"the environment variable {error.args[0]} is missing: this script is started by its Job")
        return 2
    ask = float(os.environ.get("ASK_SECONDS", ASK_SECONDS))
    still = float(os.environ.get("STILL_SECONDS", STILL_SECONDS))
    folder = "models--" + model.replace("/", "--")
    verified, file = home / "verified" / folder / f"{revision}.json", home / "progress" / folder / f"{revision}.json"
    begun = moved = time.monotonic()
    done = -1
    while True:
        if verified.exists():
            say(f"{model}@{revision} was verified before: time for GPU nodes")
            return 0
        progress = read(file)
        if progress is not None and progress["done"] != done:
            done, moved = progress["done"], time.monotonic()
            left = left_seconds(progress)
            if left is not None and left <= lead:
                say(f"{left:.0f} s to go of the download, and GPU nodes take {lead:.0f} s: time for them")
                return 0
            say("no rate yet" if left is None else f"{left:.0f} s to go, GPU nodes take {lead:.0f} s")
        now = time.monotonic()
        if now - begun > deadline:
            say("the deadline came before the end of the download was near")
            return 6
        if now - moved > still:
            say(f"the download has not moved for {now - moved:.0f} s: its own Job says why")
            return 5
        time.sleep(ask)


if __name__ == "__main__":
    sys.exit(main())
