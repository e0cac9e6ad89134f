"""The first stage of a rehearsal with `--control-plane`: the stack's objects and pods on a real Kubernetes control plane.

Real: API server, CRD schema and CEL, scheduler, claim binder, Job controller. Pretended: nodes and kubelets, and the operator, whose
pods are derived as it was seen to make them.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import typer

from recipe.plan import Plan
from rehearsal.cluster import Cluster, connected, crd
from rehearsal.cluster.api import Refused
from rehearsal.cluster.controlplane import KUBECONFIG
from rehearsal.cluster.trial import PodState, Trial
from rehearsal.errors import SetupError


@dataclass(frozen=True)
class Proof:
    """What a real control plane made of a stack."""

    kubernetes: str
    """Version of the API server."""
    seconds: float
    objects: int
    """Accepted, with strict field validation."""
    refused: tuple[str, ...]
    """What was not, in the server's words; then nothing else was tried."""
    graph_checked: bool
    """Whether schema and CEL of the graph were asked: only where its CRD is at hand."""
    pods: tuple[PodState, ...]

    @property
    def waiting(self) -> tuple[PodState, ...]:
        """Pods that found no node."""
        return tuple(pod for pod in self.pods if pod.node is None)

    @property
    def ok(self) -> bool:
        return not self.refused and not self.waiting

    def as_data(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "waiting": [pod.name for pod in self.waiting], "ok": self.ok}


def prove(plan: Plan) -> Proof:
    """On a control plane of its own, or on that of $DYNAMO_RECIPES_KUBECONFIG.

    SetupError where there is none and none can be built.
    """
    with connected() as cluster:
        return prove_on(cluster, plan)


def prove_on(cluster: Cluster, plan: Plan) -> Proof:
    """Puts the stack on `cluster`, with the graph's CRD where it is at hand, and takes it away again."""
    began = time.monotonic()
    path = crd.find()
    if path is not None:
        crd.install(cluster.api, path)
    trial = Trial(cluster, plan)
    refused, pods = tuple[str, ...](), tuple[PodState, ...]()
    try:
        trial.wait_for_place()
        trial.add_nodes()
        trial.add_objects(graph=path is not None)
        trial.reconcile(trial.graph())
        pods = tuple(trial.settled(trial.expected_pods()))
    except Refused as error:
        refused = (error.message,)
    except TimeoutError as error:
        raise SetupError(
            f"{cluster.api.host} did not get on: {error}",
            f"look whether kwok and the scheduler run there, or unset {KUBECONFIG} to have a control plane started",
        ) from None
    finally:
        objects = trial.accepted
        trial.clear()
    return Proof(
        kubernetes=cluster.version,
        seconds=round(time.monotonic() - began, 1),
        objects=objects,
        refused=refused,
        graph_checked=path is not None,
        pods=pods,
    )


def show(proof: Proof) -> None:
    """A few lines for a person."""
    typer.echo(
        f"\ncontrol plane: Kubernetes {proof.kubernetes}, its own scheduler and controllers; nodes are pretended"
    )
    typer.echo(f"  {proof.objects} objects accepted with strict field validation, in {proof.seconds:.1f} s")
    if not proof.graph_checked:
        typer.echo(f"  the graph's own schema was not asked: {crd.HOW_TO_GET}")
    for message in proof.refused:
        typer.echo(f"  refused: {message}", err=True)
    by_node: dict[str, Counter[str]] = {}
    for pod in proof.pods:
        if pod.node is not None:
            by_node.setdefault(pod.node, Counter())[pod.component] += 1
    for node, components in sorted(by_node.items()):
        typer.echo(f"  {node}: {', '.join(f'{count} {name}' for name, count in sorted(components.items()))}")
    for pod in proof.waiting:
        typer.echo(f"  {pod.name} waits: {pod.why}", err=True)
