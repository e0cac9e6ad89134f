"""What a command's failures become: a message, a next step, an exit code."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from ops.aws import AwsError
from ops.cli import command
from ops.exits import BAD_INPUT, FAILED, INTERRUPTED, MISSING, CommandError
from ops.stacks import ROOT


def ends(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and words of a command in which that is raised."""

    def run() -> None:
        raise error

    guarded: Callable[[], None] = command(run)
    with pytest.raises(typer.Exit) as end:
        guarded()
    return end.value.exit_code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CommandError("no", "do that", BAD_INPUT), BAD_INPUT, "no\nNext: do that"),
        (
            AwsError("ExpiredToken", "The security token included in the request is expired", "ec2:describe_vpcs"),
            FAILED,
            "AWS: ec2:describe_vpcs: ExpiredToken: The security token included in the request is expired\nNext: ",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), FAILED, "No space left on device\nNext: free space"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "there/x.md"),
            FAILED,
            "there/x.md: No such file or directory\nNext: ",
        ),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
        (KeyboardInterrupt("stopped, and all is well"), INTERRUPTED, "stopped, and all is well"),
        (typer.Abort(), INTERRUPTED, "interrupted"),
    ],
)
def test_what_can_be_expected_ends_in_words_and_never_in_a_traceback(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, words = ends(error, capsys)
    assert (found, said in words) == (code, True), words


def test_a_fault_of_ours_stays_a_traceback() -> None:
    def run() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command(run)()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_one_message_and_nothing_more() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ops", "plan", "mocker-cpu", "--json"],
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == FAILED, done.stderr
    assert done.stderr.splitlines()[0] == "No space left on device"
    assert len(done.stderr.splitlines()) == 2, done.stderr


def test_without_the_packages_it_says_how_to_get_them() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "ops", "sweep", "mine"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == MISSING, done.stderr
    assert done.stderr.endswith("Next: make setup, then .venv/bin/python -m ops sweep mine\n")
    assert "Traceback" not in done.stderr, "it is what people paste in an emergency"
