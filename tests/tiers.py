"""What the slow rooms share: a mark for all their tests, and figures that are printed when everything has run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest


def mark(items: list[pytest.Item], folder: Path, name: str) -> None:
    """Mark every test below `folder` as slow, and with the room's name."""
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(name)


def show(terminalreporter: pytest.TerminalReporter, title: str, figures: Mapping[str, float]) -> None:
    """A section with the figures; none where nothing was measured."""
    if not figures:
        return
    terminalreporter.section(title)
    for name, value in figures.items():
        terminalreporter.write_line(f"{name}: {value:.1f}")
