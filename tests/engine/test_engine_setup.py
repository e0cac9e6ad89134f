"""Finding, building and caching the engine. A small script plays Go, so that each case takes a moment, not minutes."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from rehearsal.engine import build, ensure_engine, required_range
from rehearsal.errors import SetupError
from rehearsal.gobuild import Source
from rehearsal.session import ROOT

VERSION = "v3.250.0"
NEXT_STEP = "https://www.pulumi.com/docs/iac/download-install/"


class Steps:
    """Progress for the tests: what was reported."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int | None]] = []

    def update(self, what: str, done: int, total: int | None = None) -> None:
        self.seen.append((what, done, total))


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of our own: a shell's bare needs, no pulumi and no Go; and an empty cache folder."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "cat", "sleep", "chmod"):
        (folder / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("DYNAMO_RECIPES_CACHE", str(tmp_path / "cache"))
    return folder


def play_go(tools: Path, *, version: str = "go1.26.8", build: str = "", seconds: float = 0) -> Path:
    """A Go that lists three packages and `builds` a pulumi that tells its version. Returns the file that counts the builds."""
    count = tools.parent / "builds"
    binary = f"#!/bin/sh\\necho {VERSION}\\n"
    executable(
        tools / "go",
        f"""\
        case "$1" in
        env) echo {version} ;;
        list) echo a; echo b; echo c ;;
        build)
          echo built >> '{count}'
          sleep {seconds}
          {build}
          while [ "$1" != -o ]; do shift; done
          echo a >&2; echo b >&2
          printf '{binary}' > "$2"; chmod 755 "$2" ;;
        esac
        """,
    )
    return count


def cached() -> Path:
    return next((build.cache_folder() / "engine").glob(f"{VERSION}-*/pulumi"))


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("v3.250.0", True),
        ("3.272.1", True),
        ("v3.260.0-alpha.1", True),
        ("v3.249.9", False),
        ("v4.0.0", False),
        ("v3.300.0-dev+dirty", True),
        ("nonsense", False),
    ],
)
def test_a_version_is_judged_by_the_projects_own_range(version: str, fits: bool) -> None:
    assert build.satisfies(version, required_range()) is fits


def test_an_installed_pulumi_that_fits_is_used(tools: Path) -> None:
    installed = executable(tools / "pulumi", "echo v3.271.0")
    engine = ensure_engine(Steps())
    assert (engine.pulumi, engine.source, engine.version) == (installed, "PATH", "v3.271.0")
    assert not engine.has_language_host
    executable(tools / "pulumi-language-python", "exit 0")
    assert engine.has_language_host, "the official CLI's own host comes before ours"


@pytest.mark.parametrize("says", ["echo v3.100.0", "exit 1"], ids=["too-old", "broken"])
def test_an_installed_pulumi_that_does_not_fit_is_passed_over(tools: Path, says: str) -> None:
    executable(tools / "pulumi", says)
    play_go(tools)
    assert ensure_engine(Steps()).source == "built"


def test_an_engine_is_built_once_and_found_again_without_any_set_up(tools: Path) -> None:
    count = play_go(tools)
    steps = Steps()
    assert ensure_engine(steps).source == "built"
    assert any(total == 3 for _, _, total in steps.seen), "progress counts packages against how many there are"
    (tools / "go").unlink()
    again = Steps()
    engine = ensure_engine(again)
    assert (engine.source, again.seen, count.read_text().count("built")) == ("cache", [], 1)
    assert sorted(path.name for path in engine.pulumi.parent.parent.iterdir() if path.is_dir()) == [
        engine.pulumi.parent.name
    ], "no work folder stays behind"


@pytest.mark.parametrize("damage", ["truncated", "emptied", "no-record", "not-executable", "gone"])
def test_a_broken_cache_entry_is_noticed_and_built_anew(tools: Path, damage: str) -> None:
    count = play_go(tools)
    ensure_engine(Steps())
    pulumi = cached()
    match damage:
        case "truncated":
            pulumi.write_text(pulumi.read_text()[:-3])
        case "emptied":
            pulumi.write_text("")
        case "no-record":
            (pulumi.parent / "built.json").write_text("{")
        case "not-executable":
            pulumi.chmod(0o644)
        case "gone":
            pulumi.unlink()
    assert ensure_engine(Steps()).source == "built"
    assert count.read_text().count("built") == 2
    assert ensure_engine(Steps()).source == "cache"


def test_two_at_once_build_once(tools: Path) -> None:
    count = play_go(tools, seconds=1)
    command = [sys.executable, "-m", "rehearsal.engine"]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "12"
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert count.read_text().count("built") == 1, "the second waits for the first and takes what it made"
    assert {"(built)" in text for text in said} == {True, False}, said


def test_a_changed_pin_builds_anew(tmp_path: Path) -> None:
    pinned = Path(build.__file__).parent
    for name in ("go.mod", "go.sum", "tools.go"):
        shutil.copy(pinned / name, tmp_path)
    command = build.engine_command(tmp_path)
    same = Source.read(command)
    assert same == Source.read(build.engine_command())
    with (tmp_path / "go.sum").open("a") as file:
        file.write("\n")
    assert Source.read(command).key != same.key


def test_a_go_that_is_too_old_is_not_used(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = play_go(tools, version="go1.21.0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SetupError):
        ensure_engine(Steps())
    assert not count.exists()


def test_no_pulumi_no_go_and_no_network_is_a_message_with_the_way_out(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_FIND_LINKS": ""}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SetupError) as refused:
        ensure_engine(Steps())
    assert "no Go toolchain could be fetched" in refused.value.message
    assert NEXT_STEP in refused.value.next_step
    assert required_range() in refused.value.next_step, "which version to install is part of the way out"


def test_a_go_proxy_out_of_reach_is_named(tools: Path) -> None:
    play_go(tools, build="echo 'dial tcp: lookup proxy.golang.org: no such host' >&2; exit 1")
    with pytest.raises(SetupError, match="a package registry cannot be reached"):
        ensure_engine(Steps())
    assert not list((build.cache_folder() / "engine").glob(".*")), "no half file stays behind"


def test_a_full_disk_is_named_before_and_while_building(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_go(tools, build="echo 'write a.o: no space left on device' >&2; exit 1")
    with pytest.raises(SetupError, match="too little room"):
        ensure_engine(Steps())
    count = play_go(tools)
    count.unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(SetupError, match="DYNAMO_RECIPES_CACHE"):
        ensure_engine(Steps())
    assert not count.exists(), "what cannot end well is not begun"


def test_a_cache_folder_that_cannot_be_is_named(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DYNAMO_RECIPES_CACHE", str(tmp_path / "file" / "below"))
    play_go(tools)
    with pytest.raises(SetupError, match="cannot be written") as refused:
        ensure_engine(Steps())
    assert "DYNAMO_RECIPES_CACHE" in refused.value.next_step


def test_an_engine_that_does_not_run_is_not_kept(tools: Path) -> None:
    play_go(tools)
    (tools / "go").write_text((tools / "go").read_text().replace(f"echo {VERSION}", "exit 1"))
    with pytest.raises(SetupError, match="does not run"):
        ensure_engine(Steps())
    assert not list((build.cache_folder() / "engine").glob(f"{VERSION}-*/pulumi"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_while_building_leaves_no_process_and_no_half_file(tools: Path, number: signal.Signals) -> None:
    count = play_go(tools, seconds=60)
    command = [sys.executable, "-m", "rehearsal.engine"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 30
    while not count.exists() and time.monotonic() < until:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2, "the compiler and what it started should be running"
    os.kill(process.pid, number)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in errors, errors
    assert psutil.wait_procs(children, timeout=5)[1] == []
    folder = build.cache_folder() / "engine"
    assert [path for path in folder.iterdir() if path.suffix != ".lock"] == []


def test_plain_progress_is_a_line_now_and_then() -> None:
    script = """\
from rehearsal.engine.progress import reporter
with reporter() as steps:
    for i in range(100):
        steps.update('compiling', i, 100)
"""
    command = [sys.executable, "-c", script]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stderr == "compiling: 0 of 100 (0 min 00 s)\n", "a log is not to be flooded"


def test_the_pinned_modules_are_complete() -> None:
    sums = (Path(build.__file__).parent / "go.sum").read_text()
    assert f"github.com/pulumi/pulumi/pkg/v3 {VERSION} h1:" in sums, (
        "go build -mod=readonly takes what go.sum knows, only"
    )


# make setup


def no_outer_make() -> dict[str, str]:
    """The environment without what a `make test` around this would tell a make inside."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}


def test_a_second_make_setup_does_nothing() -> None:
    made = [ROOT / ".venv" / "made-from.txt", ROOT / ".venv" / "pyvenv.cfg"]
    if not made[0].exists() or (ROOT / ".venv").is_symlink():
        pytest.skip("this environment was not made by `make setup` here")
    before = [(path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in made]
    second = subprocess.run(
        ["make", "setup"], cwd=ROOT, capture_output=True, text=True, check=True, env=no_outer_make()
    )
    assert (second.stdout, second.stderr) == ("", "")
    assert [(path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in made] == before


def make_setup(folder: Path, python: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """`make setup` in a copy of what it reads, with `python` as every Python there is."""
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    bin_folder = folder / "bin"
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
        executable(bin_folder / name, python)
    env = no_outer_make() | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"} | settings
    return subprocess.run(["make", "setup"], cwd=folder, capture_output=True, text=True, env=env)


def test_make_setup_leaves_an_environment_alone_that_is_only_linked_here(tmp_path: Path) -> None:
    others = tmp_path / "others"
    (others / "lib").mkdir(parents=True)
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / ".venv").symlink_to(others)
    refused = make_setup(folder, "exit 0")
    assert refused.returncode != 0
    assert str(others) in refused.stderr
    assert (others / "lib").exists(), "`venv --clear` follows the link and empties what somebody else works with"


def test_make_setup_names_the_python_it_needs_and_the_one_it_found(tmp_path: Path) -> None:
    refused = make_setup(tmp_path, 'case "$1" in --version) echo Python 3.9.7;; *) exit 1;; esac')
    assert refused.returncode != 0
    assert "Python 3.11 or newer is needed; python3 here is: Python 3.9.7" in refused.stderr
    assert "Next: " in refused.stderr


def test_make_setup_that_cannot_fetch_says_so_and_is_not_taken_for_done(tmp_path: Path) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    failed = make_setup(tmp_path, f'exec "{sys.executable}" "$@"', **offline)
    assert failed.returncode != 0
    assert "the pinned packages could not be installed" in failed.stderr
    assert "Next: " in failed.stderr
    assert not (tmp_path / ".venv" / "made-from.txt").exists(), "otherwise the next run believes it is complete"
