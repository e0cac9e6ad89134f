"""The guarantee of `ops.life`: whatever ends the work, results come home, everything is destroyed, and a second Ctrl-C does not skip it."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.exits import CommandError
from ops.life import RUN_FILE, SAID, Ending, Limits, RunFile
from ops.life import Life as Run
from recipe.plan import Plan
from rehearsal.cloud.faults import Faults

from .conftest import StartLife
from .crash import Crash
from .life import names

pytestmark = pytest.mark.engine

Work = Callable[[Path], None]


def nothing(_folder: Path) -> None:
    """Work that needs no time."""


class Rig:
    """A run on a session, with what it said and in what order things happened."""

    def __init__(self, crash: Crash, folder: Path) -> None:
        self.crash, self.folder = crash, folder
        self.said: list[str] = []
        self.steps: list[str] = []
        self.session = crash.life.session

    def run(self, args: Sequence[str], *, env: Any = None) -> Any:
        self.steps.append(args[0])
        return self.session.run(args, env=env)

    def life(self, work: Work = nothing, home: Work | None = None, **how: Any) -> Run:
        plan = self.crash.plan
        assert isinstance(plan, Plan)

        def fetched(folder: Path) -> None:
            self.steps.append("home")
            (folder / "result.json").write_text("{}", encoding="utf-8")

        return Run(
            plan=plan,
            engine=self,
            connect=lambda: self.crash.account,
            folder=self.folder,
            say=self.said.append,
            work=work,
            home=home or fetched,
            logs=lambda _: self.steps.append("logs"),
            sleep=lambda _: None,
            **how,
        )

    def nothing_is_left(self) -> None:
        assert names(self.session.cloud_objects()) == []
        assert RunFile.read(self.folder).phase == "done"


@pytest.fixture
def rig(start: StartLife, tmp_path: Path) -> Rig:
    return Rig(Crash(start()), tmp_path / "results")


def press(number: int) -> Work:
    def work(_folder: Path) -> None:
        os.kill(os.getpid(), number)

    return work


def fail(_folder: Path) -> None:
    raise RuntimeError("the benchmark broke")


def test_work_that_ends_well_is_followed_by_its_results_a_destroy_and_nothing_left(rig: Rig) -> None:
    ending = rig.life().run()
    assert ending.ok, ending
    order = [step for step in rig.steps if step in ("up", "home", "logs", "destroy")]
    assert order == ["up", "home", "logs", "destroy"], "what is on the cluster comes home before it goes"
    assert (rig.folder / "result.json").exists()
    assert any("GPU nodes are gone" in line for line in rig.said)
    rig.nothing_is_left()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "word"),
    [(press(signal.SIGINT), "Ctrl-C"), (press(signal.SIGTERM), "SIGTERM"), (press(signal.SIGHUP), "SIGHUP")],
    ids=["Ctrl-C", "SIGTERM", "a closed terminal"],
)
def test_a_signal_ends_the_work_and_not_the_destroy(rig: Rig, work: Work, word: str) -> None:
    ending = rig.life(work).run()
    assert ending.stopped == word
    assert not ending.ok, "whoever looks at the exit code must learn that the work was not done"
    assert "home" in rig.steps
    rig.nothing_is_left()


def test_that_nobody_listens_any_more_keeps_no_gpus_running(rig: Rig) -> None:
    """`… 2>&1 | tee log` and Ctrl-C takes the reader away first; a closed terminal the same."""
    reader, writer = os.pipe()
    os.close(reader)

    def say(line: str) -> None:
        os.write(writer, line.encode())

    ending = replace(rig.life(press(signal.SIGINT)), say=say).run()
    os.close(writer)
    assert ending.stopped == "Ctrl-C"
    rig.nothing_is_left()
    assert "GPU nodes are gone" in (rig.folder / SAID).read_text(encoding="utf-8"), "and what was said is kept"


@pytest.mark.slow
def test_a_full_disk_keeps_no_gpus_running(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_run: RunFile, _folder: Path) -> None:
        raise OSError(28, "No space left on device")

    def work(_folder: Path) -> None:
        monkeypatch.setattr(RunFile, "write", full)

    ending = rig.life(work).run()
    assert names(rig.session.cloud_objects()) == [], ending
    assert any("No space left on device" in line for line in rig.said)


@pytest.mark.slow
def test_work_that_fails_is_destroyed_and_its_reason_told(rig: Rig) -> None:
    ending = rig.life(fail).run()
    assert ending.failures == ["RuntimeError: the benchmark broke"]
    assert "home" in rig.steps, "half of the results are results"
    rig.nothing_is_left()


@pytest.mark.parametrize(
    ("limits", "words"),
    [(Limits(minutes=1 / 60 / 10), "minutes"), (Limits(usd=0.003), "$0.003")],
    ids=["time", "budget"],
)
def test_a_limit_ends_it_also_in_the_middle_of_up(rig: Rig, limits: Limits, words: str) -> None:
    ending = rig.life(limits=limits).run()
    assert ending.stopped.startswith("the limit of")
    assert words in ending.stopped
    assert "home" not in rig.steps, "there are no results of work that was never begun"
    rig.nothing_is_left()


def test_a_second_ctrl_c_says_what_goes_on_and_skips_nothing(rig: Rig) -> None:
    class Impatient(Rig):
        def run(self, args: Sequence[str], *, env: Any = None) -> Any:
            if args[0] == "destroy":
                for seconds in (0.2, 0.5, 0.8):
                    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
            return super().run(args, env=env)

    impatient = Impatient(rig.crash, rig.folder)
    ending = impatient.life(press(signal.SIGINT)).run()
    assert ending.stopped == "Ctrl-C"
    told = [line for line in impatient.said if "destroy goes on" in line]
    assert told, "who presses again wants to know what it is waiting for"
    assert "$1" in told[0], "and what it costs"
    assert "--resume" in told[0], "a sweep would leave what the state knows"
    impatient.nothing_is_left()


@pytest.mark.slow
def test_an_up_that_fails_is_destroyed(rig: Rig) -> None:
    rig.session.tell(
        Faults.model_validate(
            {"faults": [{"type": "Job", "name_contains": "weights", "when": "after", "error": "401"}]}
        )
    )
    ending = rig.life().run()
    assert "401 Client Error" in ending.failures[0]
    assert "home" not in rig.steps
    rig.nothing_is_left()


def test_a_destroy_that_fails_is_put_right_and_tried_again(rig: Rig) -> None:
    class Left(Rig):
        def run(self, args: Sequence[str], *, env: Any = None) -> Any:
            if args[0] == "destroy" and "destroy" not in self.steps:
                fault = {
                    "op": "delete",
                    "type": "NodeGroup",
                    "when": "after",
                    "error": "interface-left",
                    "name_contains": "gpu",
                }
                self.session.tell(Faults.model_validate({"faults": [fault]}))
            return super().run(args, env=env)

    left = Left(rig.crash, rig.folder)
    ending = left.life().run()
    assert ending.ok, ending
    assert left.steps.count("destroy") == 2
    assert any("NetworkInterface" in line for line in left.said), "it is said what held it up"
    left.nothing_is_left()


@pytest.mark.slow
def test_where_the_engine_cannot_destroy_the_gpus_go_by_the_api_and_the_rest_is_told(rig: Rig) -> None:
    class Broken(Rig):
        def run(self, args: Sequence[str], *, env: Any = None) -> Any:
            if args[0] == "destroy":
                self.steps.append("destroy")
                return self.session.run(["destroy", "--no-such-flag"])
            return super().run(args, env=env)

    broken = Broken(rig.crash, rig.folder)
    ending = broken.life().run()
    assert not ending.ok
    assert not [
        one for one in rig.session.cloud_objects() if one["type"].endswith(":Instance") and one["extra"]["gpus"]
    ]
    assert ending.left, "what is still there is told with its price"
    assert any(line.startswith("STILL THERE") for line in broken.said)
    assert any("python -m ops recover" in line for line in broken.said)
    assert RunFile.read(broken.folder).phase == "destroy", "so that a later resume goes on here"


@pytest.mark.slow
def test_results_that_cannot_be_brought_home_keep_their_file_system_and_the_gpus_go(rig: Rig) -> None:
    def lost(_folder: Path) -> None:
        raise ConnectionError("the cluster does not answer")

    ending = rig.life(home=lost).run()
    assert not ending.ok
    kinds = [one["type"].rpartition(":")[2] for one in rig.session.cloud_objects()]
    assert "FileSystem" in kinds, "results are never lost"
    assert not [
        one for one in rig.session.cloud_objects() if one["type"].endswith(":Instance") and one["extra"]["gpus"]
    ]
    assert any("fetch them" in line for line in rig.said)


def test_what_a_machine_that_died_had_begun_is_ended_by_resume(rig: Rig) -> None:
    crash = rig.crash
    file = RunFile(
        "qwen3-32b-disagg",
        "main",
        "123456789012",
        "us-east-2",
        113.0,
        "2026-11-25T08:00:00+00:00",
        "up",
        2**22 + 1,
        "gone",
    )
    file.write(rig.folder)
    crash.kill("NodeGroup", "after", name="gpu-nodes")
    ending = rig.life().resume()
    assert ending.ok, ending
    rig.nothing_is_left()
    assert rig.life().resume().ok, "a second one finds nothing to do"


@pytest.mark.slow
def test_a_run_that_goes_on_is_not_ended_by_another(rig: Rig) -> None:
    here = os.uname().nodename
    file = RunFile("qwen3-32b-disagg", "main", "123456789012", "us-east-2", 113.0, "2026", "work", os.getppid(), here)
    file.write(rig.folder)
    with pytest.raises(CommandError, match="goes on"):
        rig.life().resume()


@pytest.mark.slow
def test_a_foreign_account_is_refused_before_anything_is_asked(rig: Rig) -> None:
    rig.session.tell(Faults.model_validate({"account": {"account": "999999999999"}}))
    with suppress(CommandError):
        rig.life().run()
        pytest.fail("it went on")
    assert rig.steps == []


@pytest.mark.slow
def test_the_run_file_is_written_whole(rig: Rig) -> None:
    rig.life().run()
    assert json.loads((rig.folder / RUN_FILE).read_text(encoding="utf-8"))["stack"] == "qwen3-32b-disagg"
    assert isinstance(Ending().ok, bool)
