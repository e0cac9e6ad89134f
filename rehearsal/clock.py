"""Virtual time for the pretend cloud, by discrete events.

An operation that takes twelve minutes on AWS calls `wait(720)`. Time then jumps to the next thing that is due, but only while nobody is
working: every operation in flight is waiting, no request came or went for a moment, and the watched process tree (engine, language host,
program) used no CPU in that moment. So the minutes reported do not depend on how fast the machine is. Seconds throughout.
"""

from __future__ import annotations

import abc
import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil

_EPSILON = 1e-9


class Clock(abc.ABC):
    """Virtual seconds since the store was made, and the one lock that guards the cloud's state."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._now = 0.0
        self._settle: Callable[[], None] = lambda: None
        self._next_event: Callable[[], float | None] = lambda: None

    def attach(self, settle: Callable[[], None], next_event: Callable[[], float | None], start_at: float) -> None:
        """`settle` is called whenever time moved; `next_event` tells when the cloud's state changes next by itself (None: never)."""
        with self.lock:
            self._settle, self._next_event = settle, next_event
            self._now = max(self._now, start_at)

    def now(self) -> float:
        return self._now

    @contextlib.contextmanager
    def operation(self) -> Iterator[None]:
        """One request being served. Time does not move while one is and is not waiting."""
        with self.lock:
            yield

    @abc.abstractmethod
    def wait(self, seconds: float) -> None:
        """Return when `seconds` of virtual time have passed. Call it inside `operation()`; the lock is free meanwhile."""

    @abc.abstractmethod
    def wait_for(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Return True as soon as `ready()` holds, False when `timeout_s` virtual seconds passed first."""

    def notify(self) -> None:  # noqa: B027  (only a clock with other threads has somebody to tell)
        """The cloud's state changed: whoever waits for it should look again."""

    def close(self) -> None:  # noqa: B027
        """Stop the clock's threads. Who still waits is released."""

    def _step_to(self, target: float) -> None:
        self._now = max(self._now, target)
        self._settle()

    def _due(self) -> float | None:
        event = self._next_event()
        return None if event is None else max(event, self._now)


class ManualClock(Clock):
    """No threads and no real waiting: whoever waits moves the time. For tests, and for a rehearsal with the clock off."""

    def wait(self, seconds: float) -> None:
        self.wait_for(lambda: False, seconds)

    def wait_for(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        with self.lock:
            deadline = self._now + max(0.0, timeout_s)
            while not ready():
                due = self._due()
                if due is None or due > deadline + _EPSILON:
                    self._step_to(deadline)
                    return ready()
                before = (self._now, due)
                self._step_to(due)
                if self._due() == before[1] == before[0]:  # an event that never goes away would spin for ever
                    raise RuntimeError(f"the cloud has an event at {due} s that settling does not consume")
            return True

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, as if somebody had waited."""
        self.wait(seconds)


@dataclass(eq=False)
class _Waiter:
    deadline: float
    ready: Callable[[], bool]
    released: bool = False
    outcome: bool = False


class TreeActivity:
    """CPU used by a process and its descendants, this process and its own children left out."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def sample(self) -> dict[int, float]:
        """CPU seconds by process id; infinite for one that could run right now, also where a busy machine does not let it.

        Empty when the watched process is gone.
        """
        used: dict[int, float] = {}
        try:
            root = psutil.Process(self._pid)
            todo = [root, *root.children(recursive=True)]
        except psutil.Error:
            return used
        try:
            mine = {os.getpid(), *(c.pid for c in psutil.Process().children(recursive=True))}
        except psutil.Error:
            mine = {os.getpid()}
        for process in todo:
            if process.pid in mine and process.pid != self._pid:
                continue
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                runs = process.status() == psutil.STATUS_RUNNING
                used[process.pid] = math.inf if runs else times.user + times.system
        return used

    @staticmethod
    def busy(before: dict[int, float], after: dict[int, float], allowed_s: float) -> bool:
        """A process came, went, could run, or they together used more than `allowed_s` CPU seconds."""
        if before.keys() != after.keys() or math.inf in after.values():
            return True
        return sum(after.values()) - sum(used for used in before.values() if used < math.inf) > allowed_s


@dataclass
class _Quiet:
    """Since when nothing happened, and what CPU the tree had used then."""

    activity: int = -1
    since: float = 0.0
    cpu: dict[int, float] = field(default_factory=dict)


class DiscreteClock(Clock):
    """The rehearsal's clock. `watch_pid` is the session whose descendants do the work; None watches requests only.

    `quiet_s`: how long nothing may have happened before time jumps. CPU times come in ticks of 10 ms, hence at least two are allowed.
    """

    def __init__(self, watch_pid: int | None = None, *, quiet_s: float = 0.1, allowed_cpu: float = 0.2) -> None:
        super().__init__()
        self._tree = TreeActivity(watch_pid) if watch_pid is not None else None
        self._quiet_s, self._allowed_s = quiet_s, max(0.02, allowed_cpu * quiet_s)
        self._changed = threading.Condition(self.lock)
        self._waiters: list[_Waiter] = []
        self._in_flight = 0
        self._activity = 0
        self._closed = False
        self._failure: BaseException | None = None
        self._ticker: threading.Thread | None = None

    @contextlib.contextmanager
    def operation(self) -> Iterator[None]:
        with self.lock:
            self._in_flight += 1
            self._activity += 1
            try:
                yield
            finally:
                self._in_flight -= 1
                self._activity += 1

    def wait(self, seconds: float) -> None:
        self.wait_for(lambda: False, seconds)

    def wait_for(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        with self.lock:
            if ready():
                return True
            if timeout_s <= 0 or self._closed:
                return False
            waiter = _Waiter(self._now + timeout_s, ready)
            self._waiters.append(waiter)
            self._activity += 1
            if self._ticker is None:
                self._ticker = threading.Thread(target=self._run, name="rehearsal-clock", daemon=True)
                self._ticker.start()
            self._changed.notify_all()
            while not waiter.released:
                self._changed.wait()
            self._waiters.remove(waiter)
            self._activity += 1
            if self._failure is not None:
                raise RuntimeError("the rehearsal's clock stopped") from self._failure
            return waiter.outcome

    def notify(self) -> None:
        with self.lock:
            self._release()

    def close(self) -> None:
        with self.lock:
            self._closed = True
            for waiter in self._waiters:
                waiter.released = True
            self._changed.notify_all()

    def _release(self) -> bool:
        woken = False
        for waiter in self._waiters:
            if waiter.released:
                continue
            if waiter.ready():
                waiter.released = waiter.outcome = True
            elif waiter.deadline <= self._now + _EPSILON:
                waiter.released = True
            woken = woken or waiter.released
        if woken:
            self._activity += 1
            self._changed.notify_all()
        return woken

    def _all_wait(self) -> bool:
        return (
            bool(self._waiters) and self._in_flight == len(self._waiters) and not any(w.released for w in self._waiters)
        )

    def _jump(self) -> None:
        """Move to the next due time that wakes somebody. Nobody outside sees the states between."""
        while True:
            due = self._due()
            deadline = min(w.deadline for w in self._waiters)
            target = deadline if due is None else min(deadline, due)
            before = self._now
            self._step_to(target)
            if self._release():
                return
            if self._due() == due == before:
                raise RuntimeError(f"the cloud has an event at {due} s that settling does not consume")

    def _run(self) -> None:
        try:
            self._tick()
        except BaseException as failure:  # whoever waits must hear of it: nobody else moves the time
            self._failure = failure
            self.close()

    def _tick(self) -> None:
        quiet = _Quiet()
        while True:
            with self.lock:
                if self._closed:
                    return
                if not self._all_wait():
                    self._changed.wait(None if not self._waiters else self._quiet_s)
                    quiet.activity = -1
                    continue
                activity = self._activity
            if quiet.activity != activity:
                quiet = _Quiet(activity, time.monotonic(), self._tree.sample() if self._tree else {})
            left = quiet.since + self._quiet_s - time.monotonic()
            if left > 0:
                time.sleep(left)
            if self._tree is not None:
                cpu = self._tree.sample()
                if self._tree.busy(quiet.cpu, cpu, self._allowed_s):
                    quiet = _Quiet(activity, time.monotonic(), cpu)
                    continue
            with self.lock:
                if not self._closed and self._activity == activity and self._all_wait():
                    self._jump()
