"""`python -m ops`: every command, registered in the order of a stack's life."""

from __future__ import annotations

import io
import sys

from ops.cli import app

# Importing registers the commands, in this order.
# isort: off
from ops.commands import before  # noqa: F401
from ops.commands import running  # noqa: F401
from ops.commands import after  # noqa: F401
# isort: on

__all__ = ["app", "main"]


def main() -> None:
    """Run, and end with the documented exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 gets question marks, not a traceback
    app(prog_name="python -m ops")
