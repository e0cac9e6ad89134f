"""How long steps tell how far they are: a bar on a terminal, a plain line now and then anywhere else."""

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_LINE_EVERY_SECONDS = 15.0


class Reporter(Protocol):
    """`done` of `total` steps of `what`; a total of None is not known yet."""

    def update(self, what: str, done: int, total: int | None = None) -> None: ...


class Bar(AbstractContextManager["Bar"]):
    """A bar that replaces itself."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("", total=None)

    def update(self, what: str, done: int, total: int | None = None) -> None:
        self._progress.update(self._task, description=what, completed=done, total=total)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class Lines(AbstractContextManager["Lines"]):
    """A line at the start of each step and then about every quarter of a minute."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._start, self._what, self._last = out, time.monotonic(), "", 0.0

    def update(self, what: str, done: int, total: int | None = None) -> None:
        now = time.monotonic()
        if what == self._what and now - self._last < _LINE_EVERY_SECONDS:
            return
        self._what, self._last = what, now
        minutes, seconds = divmod(int(now - self._start), 60)
        count = f"{done} of {total}" if total else str(done)
        self._out.write(f"{what}: {count} ({minutes} min {seconds:02} s)\n")
        self._out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def reporter() -> Bar | Lines:
    """What fits standard error: where it is a terminal, a bar."""
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines(sys.stderr)
