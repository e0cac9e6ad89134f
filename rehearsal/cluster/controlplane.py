"""A real Kubernetes control plane on this machine, with nodes that kwok pretends.

    with ControlPlane() as cluster:
        cluster.api.create(manifest)

Everything listens on loopback, in a folder and with certificates of its own, on ports that were free. However the owner ends,
nothing is left running (see `supervisor`), and two at once know nothing of each other.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final
from urllib.parse import urlsplit

import psutil

from rehearsal.cluster import certificates
from rehearsal.cluster.api import Api
from rehearsal.cluster.build import ensure_programs
from rehearsal.engine.progress import Reporter
from rehearsal.errors import SetupError
from rehearsal.supervising import Supervised, free_ports
from rehearsal.watch import held_signals

KUBECONFIG: Final = "DYNAMO_RECIPES_KUBECONFIG"
"""Names the kubeconfig of a cluster to use instead. The usual KUBECONFIG is never read."""
FAKE_NODE: Final = {"kwok.x-k8s.io/node": "fake"}
"""Annotation of the nodes that kwok pretends; it leaves all others alone."""
_PREFIX: Final = "dynamo-recipes-cluster-"
_LOCK: Final = "control-plane.lock"
_ATTEMPTS: Final = 3  # a port that was free a moment ago may be taken
_START_SECONDS: Final = 300
# These need a cloud, or routes between nodes. The others are all there (facts/rehearsal.md §7).
_WITHOUT: Final = (
    "node-ipam-controller",
    "node-route-controller",
    "service-lb-controller",
    "cloud-node-lifecycle-controller",
)


@dataclass(frozen=True)
class Cluster:
    """What tests and commands talk to, whoever runs it."""

    kubeconfig: Path
    api: Api
    start_seconds: float
    pids: dict[str, int]
    """By program; empty for a cluster that somebody else runs."""

    @property
    def version(self) -> str:
        """Such as v1.35.0."""
        return str(self.api.call("GET", "/version")["gitVersion"])

    def memory_mib(self) -> float:
        """Resident memory of all programs together."""
        return sum(psutil.Process(pid).memory_info().rss for pid in self.pids.values()) / 2**20


class ControlPlane:
    """Started on entering, gone after leaving. SetupError says why it cannot be built or started."""

    def __init__(self, folder: Path | None = None, *, progress: Reporter | None = None) -> None:
        """In `folder`, which stays, or in a temporary one, which does not."""
        self._wanted, self._progress = folder, progress
        self._supervisor: Supervised | None = None
        self._held: IO[str] | None = None
        self.folder = Path()

    def __enter__(self) -> Cluster:
        programs = {name: built.path for name, built in ensure_programs(self._progress).items()}
        if self._wanted is not None:
            self._held = _hold(self._wanted.resolve())
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    return self._start(programs)
                except SetupError as error:
                    if attempt == _ATTEMPTS or "address already in use" not in error.message:
                        raise
                    self._stop()
        except BaseException:
            self._end()
            raise
        raise AssertionError("the last attempt raises or returns")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._stop()
        if self._held is not None:
            self._held.close()

    def _start(self, programs: dict[str, Path]) -> Cluster:
        began = time.monotonic()
        if self._wanted is None:
            self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        else:
            self.folder = self._wanted.resolve()
            for left in ("certificates", "etcd"):
                shutil.rmtree(self.folder / left, ignore_errors=True)
        kubeconfig = _write_spec(self.folder, programs, remove=self._wanted is None)
        with held_signals():
            self._supervisor = Supervised("rehearsal.cluster.supervisor", self.folder / "spec.json")
        said = self._supervisor.first_line(_START_SECONDS)
        if "ready" not in said:
            raise SetupError(
                f"the control plane did not start: {said.get('error')}",
                "run this again; if it says the same, remove the folder `cluster` of the cache (see `python -m rehearsal.cluster --help`)",
            )
        return Cluster(kubeconfig, Api(kubeconfig), time.monotonic() - began, said["ready"])

    def _stop(self) -> None:
        if self._supervisor is not None:
            self._supervisor.stop()
        self._supervisor = None
        if self._wanted is None and self.folder.name.startswith(_PREFIX):
            shutil.rmtree(self.folder, ignore_errors=True)


def _hold(folder: Path) -> IO[str]:
    """`folder` for this process alone, for as long as what is returned is open. SetupError: something else is in it, or another holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # What is begun anew there is removed first, so it must be ours.
        if any(folder.iterdir()) and not (folder / _LOCK).is_file():
            raise SetupError(
                f"{folder} has something in it that no control plane put there",
                "name an empty folder, or one that does not exist yet",
            )
        held = (folder / _LOCK).open("a", encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{folder} cannot be used: {error.strerror}", "name another folder") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise SetupError(f"another control plane runs in {folder}", "end that one, or name another folder") from None
    return held


@contextmanager
def connected(kubeconfig: Path | None = None, *, progress: Reporter | None = None) -> Iterator[Cluster]:
    """The cluster of `kubeconfig` or of $DYNAMO_RECIPES_KUBECONFIG, else a control plane of our own for as long as it is needed.

    Somebody else's cluster must have pretended nodes only, so that nothing real is ever scheduled by us.
    """
    named = kubeconfig or (Path(os.environ[KUBECONFIG]) if os.environ.get(KUBECONFIG) else None)
    if named is None:
        with ControlPlane(progress=progress) as cluster:
            yield cluster
        return
    if not named.is_file():
        raise SetupError(f"there is no kubeconfig {named}", f"unset {KUBECONFIG}, or name a file that exists")
    try:
        api = Api(named)
    except Exception as error:  # whatever the client or the parser says of a file that is no kubeconfig
        raise SetupError(f"{named} is no kubeconfig: {error}", f"name one, or unset {KUBECONFIG}") from None
    try:
        nodes = api.list("v1", "Node")
    except Exception as error:
        raise SetupError(
            f"the cluster of {named} ({api.host}) does not answer: {error}", f"start it, or unset {KUBECONFIG}"
        ) from None
    if not nodes and urlsplit(api.host).hostname not in ("127.0.0.1", "localhost", "::1"):
        # A cluster scaled to nothing looks like one whose nodes are all pretended; in it our pods could make somebody buy GPUs.
        raise SetupError(
            f"the cluster of {named} ({api.host}) has no nodes and is not on this machine, so nobody can tell whose it is",
            f"name a cluster whose nodes kwok pretends, or unset {KUBECONFIG} to have one started",
        )
    real = [node["metadata"]["name"] for node in nodes if not is_fake(node)]
    if real:
        raise SetupError(
            f"the cluster of {named} has real nodes ({', '.join(real[:3])})",
            f"name a cluster whose nodes kwok pretends, or unset {KUBECONFIG} to have one started",
        )
    yield Cluster(named, api, 0.0, {})


def is_fake(node: dict[str, Any]) -> bool:
    """Whether kwok pretends this node."""
    return FAKE_NODE.items() <= (node["metadata"].get("annotations") or {}).items()


# ---- what the programs are told


def _write_spec(folder: Path, programs: dict[str, Path], *, remove: bool) -> Path:
    held = certificates.make(folder / "certificates")
    etcd_port, api_port, peer_port = free_ports(3)
    server = f"https://127.0.0.1:{api_port}"
    configs = {}
    for client in ("admin", "kube-controller-manager", "kube-scheduler", "kwok"):
        configs[client] = folder / f"{client}.kubeconfig"
        configs[client].write_text(certificates.kubeconfig(held, client, server), encoding="utf-8")
        configs[client].chmod(0o600)
    etcd = f"https://127.0.0.1:{etcd_port}"
    commands = {
        "etcd": _etcd(held, etcd, peer_port),
        "kube-apiserver": _api_server(held, etcd, api_port),
        "kube-controller-manager": _controller_manager(held, configs["kube-controller-manager"]),
        "kube-scheduler": _scheduler(configs["kube-scheduler"]),
        "kwok": _kwok(configs["kwok"]),
    }
    spec = {
        "folder": str(folder),
        "remove": remove,
        "watch": os.getpid(),
        "server": server,
        "authority": str(held.authority),
        "certificate": str(held.certificate("admin")),
        "key": str(held.key("admin")),
        "commands": {name: [str(programs[name]), *flags] for name, flags in commands.items()},
        "environment": {
            "HOME": str(folder),
            "PATH": os.defpath,
            "TMPDIR": str(folder),
            "KWOK_WORKDIR": str(folder),
            # A little more work for the collector, a third less memory.
            "GOGC": "60",
        },
    }
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    return configs["admin"]


def _etcd(held: certificates.Certificates, listen: str, peer_port: int) -> list[str]:
    return [
        "--name=rehearsal",
        "--data-dir=etcd",
        f"--listen-client-urls={listen}",
        f"--advertise-client-urls={listen}",
        f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-cluster=rehearsal=http://127.0.0.1:{peer_port}",
        f"--initial-cluster-token={secrets.token_hex(8)}",
        f"--cert-file={held.certificate(certificates.SERVER)}",
        f"--key-file={held.key(certificates.SERVER)}",
        f"--trusted-ca-file={held.authority}",
        "--client-cert-auth",
        "--unsafe-no-fsync",  # nothing here outlives the machine
        "--log-level=warn",
    ]


def _api_server(held: certificates.Certificates, etcd: str, port: int) -> list[str]:
    return [
        f"--etcd-servers={etcd}",
        f"--etcd-cafile={held.authority}",
        f"--etcd-certfile={held.certificate(certificates.SERVER)}",
        f"--etcd-keyfile={held.key(certificates.SERVER)}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",  # refuses a loopback address otherwise
        f"--secure-port={port}",
        f"--tls-cert-file={held.certificate(certificates.SERVER)}",
        f"--tls-private-key-file={held.key(certificates.SERVER)}",
        f"--client-ca-file={held.authority}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",  # as on EKS
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={held.accounts_key}",
        f"--service-account-signing-key-file={held.accounts_key}",
        "--service-cluster-ip-range=172.20.0.0/16",
        "--profiling=false",
    ]


def _controller_manager(held: certificates.Certificates, config: Path) -> list[str]:
    return [
        f"--kubeconfig={config}",
        "--secure-port=0",
        "--leader-elect=false",
        f"--controllers={','.join(['*', *(f'-{name}' for name in _WITHOUT)])}",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={held.accounts_key}",
        f"--root-ca-file={held.authority}",
        "--pvclaimbinder-sync-period=1s",  # else claims made together with their volumes wait up to 15 s
        "--profiling=false",
    ]


def _scheduler(config: Path) -> list[str]:
    return [f"--kubeconfig={config}", "--secure-port=0", "--leader-elect=false", "--profiling=false"]


def _kwok(config: Path) -> list[str]:
    (key, value), *_ = FAKE_NODE.items()
    return [
        f"--kubeconfig={config}",
        f"--config={Path(__file__).parent / 'stages.yaml'}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-annotation-selector={key}={value}",
        "--node-lease-duration-seconds=40",
    ]
