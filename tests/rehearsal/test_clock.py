"""Virtual time: it passes while nobody works, and only then."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from recipe.catalogue import DURATIONS
from rehearsal.clock import DiscreteClock, ManualClock, TreeActivity
from rehearsal.durations import Durations

QUIET = 0.02


@pytest.fixture
def clock() -> Iterator[DiscreteClock]:
    clock = DiscreteClock(quiet_s=QUIET)
    yield clock
    clock.close()


def _in_thread(clock: DiscreteClock, seconds: float, ended: dict[str, float], name: str) -> threading.Thread:
    def run() -> None:
        with clock.operation():
            clock.wait(seconds)
            ended[name] = clock.now()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_an_hour_passes_in_a_moment(clock: DiscreteClock) -> None:
    start = time.monotonic()
    with clock.operation():
        clock.wait(3600)
    assert clock.now() == 3600
    assert time.monotonic() - start < 2


def test_operations_at_the_same_time_overlap(clock: DiscreteClock) -> None:
    ended: dict[str, float] = {}
    threads = [_in_thread(clock, s, ended, str(s)) for s in (600, 100, 350)]
    for thread in threads:
        thread.join(10)
    assert ended == {"600": 600, "100": 100, "350": 350}, "not one after the other"


def test_time_stands_still_while_a_request_is_being_served(clock: DiscreteClock) -> None:
    ended: dict[str, float] = {}
    working, done = threading.Event(), threading.Event()

    def work() -> None:
        with clock.operation():
            working.set()
            clock.lock.release()  # serving, without holding anybody up: only the count of requests keeps time still
            done.wait(5)
            clock.lock.acquire()

    worker = threading.Thread(target=work)
    worker.start()
    working.wait(5)
    waiter = _in_thread(clock, 10, ended, "waiter")
    time.sleep(10 * QUIET)
    assert not ended, "time passed although somebody worked"
    done.set()
    for thread in (worker, waiter):
        thread.join(10)
    assert ended == {"waiter": 10}


def test_time_stands_still_while_requests_keep_coming() -> None:
    clock = DiscreteClock(quiet_s=0.2)
    ended: dict[str, float] = {}
    waiter = _in_thread(clock, 10, ended, "waiter")
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        with clock.operation():
            pass
        time.sleep(0.01)
    assert not ended, "time passed between two requests of a busy engine"
    waiter.join(10)
    clock.close()
    assert ended == {"waiter": 10}


def test_time_stands_still_while_the_watched_process_computes() -> None:
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    clock = DiscreteClock(child.pid, quiet_s=0.1)
    ended: dict[str, float] = {}
    try:
        waiter = _in_thread(clock, 10, ended, "waiter")
        time.sleep(0.8)
        assert not ended, "time passed although the program computed"
        child.kill()
        child.wait()
        waiter.join(10)
        assert ended == {"waiter": 10}
    finally:
        child.kill()
        child.wait()
        clock.close()


def test_a_process_that_came_or_went_counts_as_work() -> None:
    assert TreeActivity.busy({1: 5.0}, {1: 5.0, 2: 0.0}, 0.02)
    assert TreeActivity.busy({1: 5.0, 2: 0.0}, {1: 5.0}, 0.02)
    assert TreeActivity.busy({1: 5.0}, {1: 5.1}, 0.02)
    assert not TreeActivity.busy({1: 5.0}, {1: 5.01}, 0.02)


def test_a_process_that_is_not_let_run_counts_as_work() -> None:
    assert TreeActivity.busy({1: 5.0}, {1: math.inf}, 0.02), "a busy machine must not make time pass"


def test_who_waits_for_a_state_is_woken_by_it_and_not_by_the_clock(clock: DiscreteClock) -> None:
    state: list[int] = []
    outcome: list[tuple[bool, float]] = []

    def wait() -> None:
        with clock.operation():
            outcome.append((clock.wait_for(lambda: bool(state), 1000), clock.now()))

    def make() -> None:
        with clock.operation():
            clock.wait(30)
            state.append(1)
            clock.notify()

    threads = [threading.Thread(target=wait), threading.Thread(target=make)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert outcome == [(True, 30)]


def test_a_wait_for_a_state_that_never_comes_ends_at_its_timeout(clock: DiscreteClock) -> None:
    with clock.operation():
        assert not clock.wait_for(lambda: False, 60)
    assert clock.now() == 60


def test_events_of_the_cloud_happen_on_the_way() -> None:
    seen: list[float] = []
    due = [5.0, 20.0]
    clock = ManualClock()

    def settle() -> None:
        while due and due[0] <= clock.now():
            seen.append(clock.now())
            due.pop(0)

    clock.attach(settle, lambda: due[0] if due else None, 0)
    clock.advance(60)
    assert seen == [5, 20]
    assert clock.now() == 60


def test_closing_the_clock_releases_who_waits(clock: DiscreteClock) -> None:
    busy = threading.Event()
    ended: dict[str, float] = {}
    with clock.operation():  # keeps time still
        waiter = _in_thread(clock, 10, ended, "waiter")
        busy.wait(5 * QUIET)
    clock.close()
    waiter.join(5)
    assert not waiter.is_alive()


def test_a_mistake_in_the_cloud_reaches_who_waits_instead_of_hanging(clock: DiscreteClock) -> None:
    def broken() -> None:
        raise ValueError("mistake")

    clock.attach(broken, lambda: None, 0)
    with clock.operation(), pytest.raises(RuntimeError, match="clock stopped"):
        clock.wait(10)


def test_every_duration_has_a_source_or_says_that_it_is_assumed() -> None:
    for row in DURATIONS.values():
        assert row.source
        assert row.date
        assert row.assumption or not row.source.startswith("no measurement"), row
        assert (row.low or 0) <= row.seconds <= (row.high or row.seconds), f"{row.key} is outside of what was seen"


def test_moving_twice_the_weights_takes_twice_as_long_unless_somebody_said_how_long() -> None:
    once, twice = (Durations().of_bytes("weights.download", size) for size in (65.5e9, 131e9))
    assert once == pytest.approx(200)
    assert twice == pytest.approx(400)
    assert Durations().of_bytes("engine.init", 131e9) == 48, "only what moves bytes"
    assert Durations({"weights.download": 60}).of_bytes("weights.download", 131e9) == 60


def test_durations_can_be_overridden_by_a_name_that_exists() -> None:
    assert Durations({"node.gpu.ready": 900})["node.gpu.ready"] == 900
    with pytest.raises(ValueError, match=r"unknown node\.gpu\.redy; known are"):
        Durations({"node.gpu.redy": 900})
