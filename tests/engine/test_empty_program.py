"""The real engine, the language host and the providers' protocol, with programs of a few lines and the plainest cloud."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rehearsal.engine import Engine
from rehearsal.errors import SetupError
from rehearsal.session import ROOT, Event, Result, Session
from rehearsal.watch import held_signals

pytestmark = pytest.mark.engine

Start = Callable[[str], Session]
UP = ["up", "--yes", "--skip-preview", "--stack", "dev"]
DESTROY = ["destroy", "--yes", "--skip-preview", "--stack", "dev"]
EMPTY = "import pulumi\npulumi.export('answer', 42)\n"
THING = """\
import pulumi

class Thing(pulumi.CustomResource):
    arn: pulumi.Output[str]

    def __init__(self, name, opts=None, **props):
        super().__init__("aws:plain/thing:Thing", name, {"arn": None, "echo": None, **props}, opts)

"""


def things(session: Session) -> list[str]:
    file = session.cloud_folder / "cloud.json"
    return sorted(json.loads(file.read_text())) if file.exists() else []


def succeed(result: Result) -> Result:
    assert result.ok, f"{result.command}\n{result.stdout}\n{result.stderr}"
    return result


def test_an_empty_program_goes_up_and_down_in_a_session_of_its_own(plain: Start) -> None:
    session = plain(EMPTY)
    assert succeed(session.run(UP)).changes == {"create": 1}
    outputs = session.resources("dev")[0]["outputs"]
    assert outputs == {"answer": 42}, "the host passes the program's outputs on to the engine"
    succeed(session.run(DESTROY))
    assert session.resources("dev") == [], "destroy leaves nothing in the state"


def test_the_output_of_a_run_carries_no_warning_about_how_the_engine_was_set_up(plain: Start) -> None:
    result = succeed(plain(EMPTY).run(UP))
    assert "warning" not in (result.stdout + result.stderr).lower(), result.stdout + result.stderr


def test_a_session_reads_and_writes_nothing_of_the_users(plain: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-users-own")
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://the-users-own")
    others = psutil.Process().children(recursive=True)
    session = plain("import os, pulumi\npulumi.export('env', [f'{k}={v}' for k, v in os.environ.items()])\n")
    before = (session._source / "stacks" / "Pulumi.dev.yaml").read_text()
    succeed(session.run(["config", "set", "--secret", "--stack", "dev", "token", "something"]))
    succeed(session.run(UP))
    env = session.resources("dev")[0]["outputs"]["env"]
    assert not [line for line in env if "the-users-own" in line], (
        "a rehearsal must not be able to reach the user's account"
    )
    assert (session._source / "stacks" / "Pulumi.dev.yaml").read_text() == before, (
        "stack files in the project are the user's"
    )
    assert not (session._source / ".venv").exists(), "nor does a session leave anything else in the project"
    folder, children = session.root, [one for one in psutil.Process().children(recursive=True) if one not in others]
    session.__exit__(None, None, None)
    assert children, "the providers should have been running"
    assert left_of(children, 0.1) == [], "when a session has ended, so have its processes"
    assert not folder.exists(), "a session that is not kept leaves no folder"


def test_a_resource_is_created_left_alone_when_unchanged_and_destroyed(plain: Start) -> None:
    session = plain(THING + "pulumi.export('arn', Thing('one', size=1).arn)\n")
    seen: list[Event] = []
    succeed(session.run(UP, on_event=seen.append))
    assert things(session) == ["one"]
    assert [(e.kind, e.op) for e in seen if e.name == "one"] == [("started", "create"), ("done", "create")]
    assert session.resources("dev")[0]["outputs"]["arn"] == "arn:plain:one", "computed outputs reach the program"
    assert set(succeed(session.run(UP)).changes) == {"same"}, "an unchanged program changes nothing"
    succeed(session.run(DESTROY))
    assert things(session) == [], "destroy reaches the cloud"


def test_a_preview_creates_nothing_and_leaves_computed_outputs_unknown(plain: Start) -> None:
    session = plain(THING + "one = Thing('one', size=1)\nThing('two', size=1, of=one.arn)\n")
    preview = succeed(session.run(["preview", "--json", "--stack", "dev"]))
    assert things(session) == []
    steps = {step["urn"].rpartition("::")[2]: step for step in json.loads(preview.stdout)["steps"]}
    assert "newState" in steps["two"], "what depends on an unknown is still previewed"
    assert "arn:plain" not in preview.stdout


def test_a_change_is_in_place_or_deletes_before_it_creates_as_the_cloud_says(plain: Start) -> None:
    session = plain(THING + "Thing('one', size=1, fixed='a')\n")
    succeed(session.run(UP))
    main = session._source / "__main__.py"
    main.write_text(THING + "Thing('one', size=2, fixed='a')\n")
    assert succeed(session.run(UP)).changes["update"] == 1
    main.write_text(THING + "Thing('one', size=2, fixed='b')\n")
    replaced = succeed(session.run(UP))
    ops = [e.op for e in replaced.events if e.name == "one" and e.kind == "done"]
    assert ops.index("delete-replaced") < ops.index("create-replacement"), "two of a fixed name collide otherwise"
    step = next(e for e in replaced.events if e.op == "replace")
    assert step.raw[next(k for k in step.raw if k.startswith("res"))]["metadata"]["detailedDiff"]["fixed"] == {
        "diffKind": "update-replace",
        "inputDiff": True,
    }


def test_a_wrong_property_is_refused_before_anything_is_made(plain: Start) -> None:
    session = plain(THING + "Thing('one', size=0)\n")
    result = session.run(UP)
    assert not result.ok
    assert "must be positive" in result.stderr + result.stdout
    assert things(session) == []


def test_what_the_cloud_refuses_is_not_in_the_state(plain: Start) -> None:
    session = plain(THING + "Thing('one', refuse='no capacity')\n")
    result = session.run(UP)
    assert any("no: no capacity" in message for message in result.errors), "the cloud's own words reach the user"
    assert not [r for r in session.resources("dev") if r["type"] == "aws:plain/thing:Thing"]


def test_what_exists_but_did_not_get_ready_is_in_the_state_and_is_destroyed(plain: Start) -> None:
    session = plain(THING + "Thing('one', stuck=True)\n")
    result = session.run(UP)
    assert not result.ok
    assert "it exists, but is not ready" in result.stdout + result.stderr
    one = next(r for r in session.resources("dev") if r["type"] == "aws:plain/thing:Thing")
    assert (one["id"], one["initErrors"]) == ("one", ["it exists, but is not ready"]), "otherwise nobody knows of it"
    assert one["outputs"]["arn"] == "arn:plain:one"
    succeed(session.run(DESTROY))
    assert things(session) == []


def test_a_type_the_cloud_does_not_know_is_an_error(plain: Start) -> None:
    session = plain(THING.replace("aws:plain/thing:Thing", "aws:ec2/quantum:Quantum") + "Thing('one')\n")
    result = session.run(["preview", "--stack", "dev"])
    assert not result.ok, "a pretender that accepts anything proves nothing"
    assert "aws:ec2/quantum:Quantum is not a type the pretend cloud knows" in result.stdout + result.stderr


def test_a_data_source_is_refused(plain: Start) -> None:
    session = plain("import pulumi\npulumi.runtime.invoke('aws:ec2/getVpc:getVpc', {})\n")
    result = session.run(["preview", "--stack", "dev"])
    assert not result.ok
    assert "answer no data sources" in result.stdout + result.stderr


def test_a_secret_is_nowhere_in_clear_whatever_the_cloud_makes_of_it(plain: Start) -> None:
    token = "hf_" + "notARealOne0123456789"
    session = plain(THING + "Thing('one', token=pulumi.Config().require_secret('token'))\n")
    secret = {"TOKEN": token}
    succeed(session.run(["config", "set", "--secret", "--stack", "dev", "token"], input=secret["TOKEN"]))
    preview = succeed(session.run(["preview", "--json", "--stack", "dev"]))
    up = succeed(session.run(UP))
    again = succeed(session.run(UP))
    assert set(again.changes) == {"same"}, "an unchanged secret is no change"
    echo = next(r for r in session.resources("dev") if r["type"].startswith("aws:plain"))["outputs"]["echo"]
    assert "ciphertext" in echo, "what is made from a secret is secret, too"
    places = [path for path in session.root.rglob("*") if path.is_file() and not path.is_symlink()]
    leaks = [str(path) for path in places if token.encode() in path.read_bytes()]
    assert leaks == []
    assert token not in "".join([preview.stdout, preview.stderr, up.stdout, up.stderr])


def test_an_error_of_the_cloud_that_quotes_a_secret_is_redacted(plain: Start) -> None:
    session = plain(THING + "Thing('one', refuse=pulumi.Output.secret('hush-hush-hush'))\n")
    result = session.run(UP)
    assert any("no: [secret]" in message for message in result.errors)
    assert "hush" not in result.stdout + result.stderr


def test_a_stack_without_a_file_is_refused_with_the_nearest_name(plain: Start) -> None:
    session = plain(EMPTY)
    with pytest.raises(SetupError, match="did you mean dev"):
        session.init_stack("dve")


def test_a_programs_mistake_is_shown_with_its_own_traceback_only(plain: Start) -> None:
    result = plain("def inner():\n    return 1 / 0\ninner()\n").run(UP)
    assert not result.ok
    assert "ZeroDivisionError" in result.stderr + result.stdout


def test_a_broken_faults_file_is_named_without_a_traceback(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "faults.json").write_text('{"faults": [{"type": "Cluster", "whn": "after"}]}')
    with (
        pytest.raises(SetupError, match=r"faults\.0\.whn") as refused,
        Session(faults=tmp_path / "faults.json", engine=engine),
    ):
        pass
    assert "Traceback" not in str(refused.value)


def test_a_kept_folder_is_taken_up_where_it_was_left_and_a_broken_one_is_refused(
    make_project: Callable[[str], Path], engine: Engine, tmp_path: Path
) -> None:
    project, root = make_project(EMPTY), tmp_path / "kept"
    with Session(root, engine=engine, project=project) as session:
        session.init_stack("dev")
        succeed(session.run(UP))
    with Session(root, engine=engine, project=project) as session:
        session.init_stack("dev")
        assert set(succeed(session.run(UP)).changes) == {"same"}
    (root / "cloud" / "cloud.json").write_text("{")
    with pytest.raises(SetupError, match="not a pretend cloud's snapshot") as refused, Session(root, engine=engine):
        pass
    assert "Traceback" not in str(refused.value)


def test_plain_pulumi_commands_work_inside_a_session(plain: Start, tmp_path: Path) -> None:
    session = plain(EMPTY)
    out = tmp_path / "out"
    assert session.interactive(["sh", "-c", f"pulumi up -s dev --yes --skip-preview --non-interactive > '{out}'"]) == 0
    assert "answer: 42" in out.read_text()
    assert session.interactive(["sh", "-c", "exit 3"]) == 3
    with pytest.raises(SetupError, match="no command plumi"):
        session.interactive(["plumi", "up"])


SCRIPT = """\
import sys
import time
from pathlib import Path
from rehearsal.session import Session
with Session(project=Path(sys.argv[1]), cloud="tests.engine.plain_cloud:PlainCloud") as session:
    session.init_stack("dev")
    print(session.root, flush=True)
    session.run(["up", "--yes", "--skip-preview", "--stack", "dev"],
                on_event=lambda e: print(e.kind, e.op, e.name, flush=True))
    time.sleep(float(sys.argv[2]))
"""
SLOW = THING + "import asyncio\nThing('one')\nThing('two', of=pulumi.Output.from_input(asyncio.sleep(60, result=1)))\n"


def start_script(project: Path, stays_s: float = 0) -> tuple[subprocess.Popen[str], Path, list[psutil.Process]]:
    """A process with a session in mid-up: itself, the session's folder, and everything it started."""
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(project), str(stays_s)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert script.stdout is not None
    folder = Path(script.stdout.readline().strip())
    for line in script.stdout:
        if line.strip() == "done create one":
            break
    children = psutil.Process(script.pid).children(recursive=True)
    assert len(children) >= 3, "engine, language host and providers should be running"
    return script, folder, children


def left_of(processes: list[psutil.Process], within_s: float) -> list[psutil.Process]:
    _, left = psutil.wait_procs(processes, timeout=within_s)
    return [process for process in left if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_in_mid_up_ends_everything_and_leaves_nothing(
    number: signal.Signals, engine: Engine, make_project: Callable[[str], Path]
) -> None:
    script, folder, children = start_script(make_project(SLOW))
    began = time.monotonic()
    os.kill(script.pid, number)
    _, errors = script.communicate(timeout=60)
    assert left_of(children, 5) == [], "a rehearsal's processes must not outlive it"
    assert time.monotonic() - began < 30, "nobody waits a minute after Ctrl-C"
    assert not folder.exists(), "nor does its folder stay"
    assert script.returncode != 0
    if number is signal.SIGTERM:
        assert errors == "", "a stopped rehearsal says nothing on its way out"


def test_ctrl_c_while_a_process_is_being_started_does_not_lose_the_process() -> None:
    """Seen: the exception came up inside Popen, and an engine nobody knew of ran on in a folder just removed."""
    started: list[str] = []

    def start() -> None:
        with held_signals():
            os.kill(os.getpid(), signal.SIGINT)
            started.append("the process's id is known")
        started.append("never reached")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert started == ["the process's id is known"]


def test_kill_9_of_the_session_leaves_no_process_behind(engine: Engine, make_project: Callable[[str], Path]) -> None:
    script, _, children = start_script(make_project(SLOW))
    os.kill(script.pid, signal.SIGKILL)
    script.communicate()
    assert left_of(children, 30) == [], "kill -9 tells children nothing: they have to look for themselves"


def test_kill_9_of_the_engine_leaves_no_language_host(engine: Engine, make_project: Callable[[str], Path]) -> None:
    script, _, children = start_script(make_project(SLOW), stays_s=60)
    host = [p for p in children if "rehearsal.host" in p.cmdline()]
    assert len(host) == 1
    parent = host[0].parent()
    assert parent is not None
    parent.kill()
    assert left_of(host, 5) == [], "the session is still there, so it is not by the session's end that the host ends"
    script.terminate()
    script.communicate(timeout=60)
