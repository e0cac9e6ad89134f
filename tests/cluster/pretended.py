"""The same stack in the pretend cloud of the rehearsal, so that it can be held against a real control plane."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from recipe.plan import ChartPlan, Late, Manifest, Plan
from rehearsal.cloud import CloudError, Unfinished
from rehearsal.cloud import rules as r
from rehearsal.cloud.graphs import pods
from tests.rehearsal.world import World


class Pretended:
    """A cluster with the Plan's nodes, its file system, its charts; objects are put there as the provider does."""

    def __init__(self, folder: Path, plan: Plan, *, gpu_count: int | None = None, cpu_type: str | None = None) -> None:
        self.plan = plan
        self.world = World(folder).network().cluster()
        cpu, gpu = plan.cpu_pool, plan.gpu_pool
        self.world.pool("cpu", cpu_type or cpu.instance_type, cpu.count, labels=cpu.labels)
        self.world.file_system()
        self._late = {Late.FILE_SYSTEM: self.world.id("efs"), Late.HF_TOKEN: "not-a-token", Late.GPU_NODES: "0123abcd"}
        self._late[Late.CPU_NODES] = "4567cdef"
        for claim in plan.storage.claims:
            point = self.world.make(r.ACCESS_POINT, f"{claim.purpose}-point", fileSystemId=self.world.id("efs"))
            self._late[Late.access_point(claim.purpose)] = point["id"]
        self._release(plan.platform)
        count = gpu.count if gpu and gpu_count is None else gpu_count
        if gpu and count:
            efa = sum(nic.type != "interface" for nic in gpu.nics)
            self.world.pool("gpu", gpu.instance_type, count, gpu=True, labels=gpu.labels, efa=efa)
        for chart in plan.devices:
            self._release(chart)

    def _release(self, chart: ChartPlan) -> None:
        self.world.make(
            r.RELEASE,
            chart.release,
            name=chart.release,
            namespace=chart.namespace,
            chart=chart.chart,
            version=chart.version,
            repositoryOpts={"repo": chart.repository},
            values=chart.values,
            createNamespace=True,
        )

    def filled(self, manifest: Manifest) -> Manifest:
        """`manifest` with what this cloud made in place of `${…}`."""
        text = json.dumps(manifest)
        for name, value in self._late.items():
            text = text.replace(name, str(value))
        found: Manifest = json.loads(text)
        return found

    def create(self, manifest: Manifest) -> None:
        """Raises CloudError (refused) or Unfinished (exists, but did not become what it should)."""
        name = f"{manifest['kind']}-{manifest['metadata']['name']}"
        found = self.world.cloud.check(kind_token(manifest), self.world.urn(kind_token(manifest), name), None, manifest)
        if found.failures:
            raise CloudError("; ".join(why for _, why in found.failures))
        # A little more than the longest of our Jobs' own deadlines, so that the Job is the one to give up.
        self.world.make(kind_token(manifest), name, 7200, **manifest)

    def would_refuse(self, manifest: Manifest) -> str | None:
        """Why it is refused; None where it is not. What was accepted is taken away again."""
        typ = kind_token(manifest)
        before = set(self.world.cloud.store.records)
        why = refusal(lambda: self.create(manifest))
        for key in set(self.world.cloud.store.records) - before:
            self.world.cloud.store.remove(self.world.cloud.store.records[key])
        if why is None:
            assert self.world.made.pop(f"{manifest['kind']}-{manifest['metadata']['name']}")[0] == typ
        return why

    def update(self, manifest: Manifest) -> None:
        """Raises CloudError where it is refused, or where the provider would replace the object instead."""
        name = f"{manifest['kind']}-{manifest['metadata']['name']}"
        typ, made, old, outputs = self.world.made[name]
        diff = self.world.cloud.diff(typ, made, old, outputs, manifest)
        if diff.replaces:
            raise CloudError(f"replaces: {', '.join(diff.replaces)}")
        self.world.change(name, None, **manifest)

    def add_objects(self, *, graph: bool = True) -> None:
        """Every object of the Plan, in its order."""
        for manifest in self.plan.objects.all():
            if manifest["kind"] != "DynamoGraphDeployment" or graph:
                self.create(self.filled(manifest))

    def status(self, manifest: Manifest) -> str:
        """Phase of a claim, end of a Job."""
        shown = self.world.out(f"{manifest['kind']}-{manifest['metadata']['name']}")["status"]
        conditions = [one["type"] for one in shown.get("conditions", [])]
        return str(conditions[0] if conditions else shown.get("phase"))

    def pods_by_component(self) -> tuple[Counter[str], Counter[str]]:
        """Workers and frontends that have a node, and those that wait."""
        name = f"DynamoGraphDeployment-{self.plan.names.graph}"
        typ, made, *_ = self.world.made[name]
        record = next(one for one in self.world.cloud.store.of(typ) if one.id == made)
        placed, waiting = Counter[str](), Counter[str]()
        for pod, _ in pods(record.inputs):
            component = pod.labels["nvidia.com/dynamo-component"]
            (placed if pod.name in record.extra["placed"] else waiting)[component] += 1
        return placed, waiting


def kind_token(manifest: Manifest) -> str:
    """The provider's name of the kind."""
    version = str(manifest["apiVersion"])
    return f"kubernetes:{version if '/' in version else f'core/{version}'}:{manifest['kind']}"


def refusal(work: Callable[[], object]) -> str | None:
    """Why the pretend cloud refuses it; None where it does not. What exists but did not become ready was accepted."""
    try:
        work()
    except CloudError as refused:
        return str(refused)
    except Unfinished:
        return None
    return None
