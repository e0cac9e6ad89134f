"""Ending with one's parent. A kill -9 sends children nothing, and the engine puts its plugins into process groups of
their own, so whoever must not outlive another process has to look for itself.

Standard library and psutil only: the language host imports this before anything slow.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

SESSION = "DYNAMO_RECIPES_SESSION"  # environment variable with the process id of the rehearsal's session
_POLL_SECONDS = 0.25


def end_with(pid: int, on_end: Callable[[], None] = lambda: os._exit(0)) -> None:
    """Call `on_end` (default: exit at once, quietly) within about a quarter of a second of process `pid` ending."""
    try:
        watched = psutil.Process(pid)
        watched.create_time()  # pins the identity: a reused pid is another process
    except psutil.NoSuchProcess:
        on_end()
        return

    def watch() -> None:
        while alive(watched):
            time.sleep(_POLL_SECONDS)
        on_end()

    threading.Thread(target=watch, name=f"end-with-{pid}", daemon=True).start()


def alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie counts as ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def quiet_signals(*, also_interrupt: bool) -> None:
    """End at once and without a word on SIGTERM and SIGHUP.

    The engine ends its plugins, which lead groups of their own, with SIGINT and waits seconds for it: `also_interrupt` is
    for those. Everybody else leaves Ctrl-C to the engine, which then finishes what is in flight.
    """
    signal.signal(signal.SIGINT, _leave if also_interrupt else signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


@contextmanager
def held_signals() -> Iterator[None]:
    """Let Ctrl-C and its like wait until the block has ended.

    An exception in the middle of starting a process loses it: it runs, and nobody knows its id. Handlers, unlike masks,
    are not inherited by what is started inside.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread only
        return
    held: list[int] = []
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in previous:
        signal.signal(number, lambda number, _frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if held:
            signal.raise_signal(held[0])
