"""The control plane's programs, from Kubernetes', etcd's and kwok's own Go modules (facts/rehearsal.md §7)."""

from pathlib import Path
from typing import Final

from rehearsal.engine.progress import Reporter
from rehearsal.gobuild import Built, GoCommand, ensure

_HERE: Final = Path(__file__).parent
_NEXT: Final = (
    "run `python -m rehearsal.cluster` again once the network is back, or name a cluster that runs kwok: "
    "DYNAMO_RECIPES_KUBECONFIG=/path/to/kubeconfig"
)
_VERSION: Final = "k8s.io/component-base/version.git"
# Modules 1.5 GB and build cache 2.5 GB for all five together, seen on Linux x86-64; the rest is room.
_ROOM_BYTES: Final = 6 * 1024**3


def _kubernetes(name: str) -> GoCommand:
    return GoCommand(
        title=name,
        name=name,
        group="cluster",
        module=_HERE / "kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        pinned="k8s.io/kubernetes",
        # `go build` knows no release: without these the API server calls itself v0.0.0-master.
        variables=(
            (f"{_VERSION}Version", "{version}"),
            (f"{_VERSION}Major", "{major}"),
            (f"{_VERSION}Minor", "{minor}"),
        ),
        room_bytes=_ROOM_BYTES,
        next_step=_NEXT,
    )


COMMANDS: Final = (
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    GoCommand(
        title="etcd",
        name="etcd",
        group="cluster",
        module=_HERE / "kubernetes",
        package="go.etcd.io/etcd/server/v3",
        pinned="go.etcd.io/etcd/server/v3",
        room_bytes=_ROOM_BYTES,
        next_step=_NEXT,
    ),
    # A module of its own: it wants other versions of Kubernetes' libraries than Kubernetes itself.
    GoCommand(
        title="kwok",
        name="kwok",
        group="cluster",
        module=_HERE / "kwok",
        package="sigs.k8s.io/kwok/cmd/kwok",
        pinned="sigs.k8s.io/kwok",
        room_bytes=_ROOM_BYTES,
        next_step=_NEXT,
    ),
)


def ensure_programs(progress: Reporter | None = None) -> dict[str, Built]:
    """Every program by name, from the cache or built now (up to 20 minutes on two cores). SetupError says why not."""
    return ensure(COMMANDS, progress)
