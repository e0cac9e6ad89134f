"""The control plane itself: how it starts, and that nothing is left of it however its owner ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from rehearsal.cluster import Cluster, ControlPlane, connected, controlplane
from rehearsal.cluster.controlplane import FAKE_NODE, KUBECONFIG
from rehearsal.errors import SetupError
from rehearsal.watch import alive

ROOT = Path(__file__).parents[2]
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
_GONE_SECONDS = 15


@dataclass
class Owned:
    """A control plane that another process runs: `python -m rehearsal.cluster run`."""

    owner: subprocess.Popen[str]
    below: list[psutil.Process]
    """The supervisor and its programs."""
    folder: Path

    def of(self, name: str) -> psutil.Process:
        return next(process for process in self.below if name in " ".join(process.cmdline()))

    def all_gone(self) -> bool:
        until = time.monotonic() + _GONE_SECONDS
        while time.monotonic() < until:
            if not any(alive(process) for process in self.below) and not self.folder.exists():
                return True
            time.sleep(0.1)
        return False


@contextmanager
def owned() -> Iterator[Owned]:
    # A group of its own, as a shell gives it, so that Ctrl-C can be sent to all of it.
    owner = subprocess.Popen(
        [sys.executable, "-m", "rehearsal.cluster", "run"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != KUBECONFIG},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert owner.stdout is not None
    assert owner.stderr is not None
    try:
        found = next((match for line in owner.stdout if (match := re.search(r"--kubeconfig (\S+)", line))), None)
        assert found is not None, f"it ended without saying where: {owner.stderr.read()}"
        yield Owned(owner, psutil.Process(owner.pid).children(recursive=True), Path(found[1]).parent)
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
        owner.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_runs_on_and_no_folder_stays_when_the_owner_ends(number: signal.Signals) -> None:
    with owned() as plane:
        assert all(plane.of(name) for name in PROGRAMS)
        if number == signal.SIGINT:
            os.killpg(plane.owner.pid, number)  # a terminal sends Ctrl-C to the whole group
        else:
            plane.owner.send_signal(number)
        plane.owner.wait(timeout=30)
        assert plane.all_gone(), [process.cmdline()[:1] for process in plane.below if alive(process)]
        if number != signal.SIGKILL:
            assert plane.owner.returncode == 130
            assert plane.owner.stderr is not None
            said = plane.owner.stderr.read()
            assert "stopped" in said, "a person wants to know that it is gone"
            assert "Traceback" not in said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a process with its parent (prctl)")
def test_the_programs_end_also_with_a_supervisor_that_is_killed() -> None:
    with owned() as plane:
        supervisor = plane.of("rehearsal.cluster.supervisor")
        supervisor.kill()
        until = time.monotonic() + _GONE_SECONDS
        programs = [process for process in plane.below if process != supervisor]
        while any(alive(process) for process in programs) and time.monotonic() < until:
            time.sleep(0.1)
        assert not any(alive(process) for process in programs)


def test_when_one_program_dies_none_is_left() -> None:
    with owned() as plane:
        plane.of("etcd").kill()
        assert plane.all_gone(), "half a control plane answers with time-outs instead of errors"


def test_two_at_once_know_nothing_of_each_other(cluster: Cluster) -> None:
    name = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "only-in-one"}}
    with ControlPlane() as other:
        other.api.create(name)
        assert cluster.api.read(name) is None
        assert not {*other.pids.values()} & {*cluster.pids.values()}
        folder = other.kubeconfig.parent
    assert not folder.exists()
    assert cluster.version.startswith("v"), "the end of one is not the end of the other"


def test_a_folder_with_something_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "certificates" / "my.key"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(SetupError, match="no control plane put there"), ControlPlane(tmp_path):
        pass
    assert mine.read_text() == "mine"


def test_a_folder_is_one_control_planes_at_a_time_and_can_be_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with ControlPlane(folder) as first:
        with pytest.raises(SetupError, match="another control plane runs in"), ControlPlane(folder):
            pass
        assert first.api.list("v1", "Namespace"), "the first one is not disturbed"
    with ControlPlane(folder) as again:
        assert again.api.list("v1", "Namespace")


@pytest.mark.parametrize("text", ["", "a: [", "apiVersion: v1"])
def test_a_file_that_is_no_kubeconfig_is_said(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(SetupError, match="is no kubeconfig"), connected(file):
        pass


def test_an_empty_cluster_somewhere_else_is_not_taken_for_a_pretended_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere:
        host = "https://ABC.gr7.us-east-2.eks.amazonaws.com"

        def __init__(self, _: Path) -> None:
            pass

        def list(self, *_: str) -> list[dict[str, object]]:
            return []

    monkeypatch.setattr(controlplane, "Api", Elsewhere)
    with pytest.raises(SetupError, match="nobody can tell whose it is"), connected(cluster.kubeconfig):
        pass


def test_a_kubeconfig_that_is_given_is_used_and_left_running(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KUBECONFIG, str(cluster.kubeconfig))
    with connected() as found:
        assert found.api.host == cluster.api.host
        assert found.pids == {}, "nothing was started"
    assert cluster.api.list("v1", "Namespace"), "it belongs to somebody else"


def test_a_cluster_with_real_nodes_is_never_used(cluster: Cluster) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "somebodys-machine"}}
    cluster.api.create(node)
    try:
        with pytest.raises(SetupError, match=r"real nodes.*somebodys-machine"), connected(cluster.kubeconfig):
            pass
        marked = {"metadata": {"annotations": dict(FAKE_NODE)}}
        cluster.api.patch(node, marked)
        with connected(cluster.kubeconfig) as found:
            assert found.api.host == cluster.api.host
    finally:
        cluster.api.delete(node)


def test_a_kubeconfig_that_leads_nowhere_is_said_with_the_way_out(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="there is no kubeconfig") as missing, connected(tmp_path / "none"):
        pass
    assert KUBECONFIG in str(missing.value)
    dead = tmp_path / "dead.kubeconfig"
    dead.write_text(re.sub(r"https://127\.0\.0\.1:\d+", "https://127.0.0.1:9", cluster.kubeconfig.read_text()))
    with pytest.raises(SetupError, match="does not answer"), connected(dead):
        pass
