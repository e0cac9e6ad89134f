"""A real Kubernetes control plane with pretended nodes: built once from pinned Go modules, started on loopback in seconds."""

from rehearsal.cluster.controlplane import Cluster, ControlPlane, connected

__all__ = ["Cluster", "ControlPlane", "connected"]
