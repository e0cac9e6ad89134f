"""Recipe → Plan. Everything that can be wrong is found before anyone pays: here, and in checks.py what shows without a plan."""

from __future__ import annotations

from typing import Final, overload

from recipe import catalogue
from recipe.benchmark import make_benchmark, make_bucket
from recipe.catalogue import CpuInstance, GpuInstance
from recipe.checks import (
    Chosen,
    check_recipe,
    check_zone,
    choose,
    choose_ground,
    fill_in,
    fill_in_access,
    wants_placement_group,
)
from recipe.config import (
    Access,
    Base,
    BaseVersions,
    FromBase,
    Recipe,
    Role,
    Storage,
)
from recipe.constants import GPU_PRESENT_LABEL, POOL_LABEL, STACK_LABEL
from recipe.cost import cached_bytes, gpu_price, make_base_cost, make_cost, stands_in
from recipe.engines import ENGINES
from recipe.engines.mocker import kv_tokens
from recipe.errors import Problem, RecipeError, shorten
from recipe.foundation import (
    MODEL_MOUNT,
    cluster_plan,
    cpu_pool,
    device_charts,
    platform_chart,
    storage_plan,
    tags,
)
from recipe.kv_transfer import kv_transfer
from recipe.names import check_stack, make_names, on_base
from recipe.network import make_network
from recipe.objects import RenderContext, build_objects
from recipe.placement import (
    CLUSTER_PODS,
    check_gpu_memory,
    cpu_pods,
    gpu_memory,
    place_on_cpu,
    place_workers,
)
from recipe.plan import (
    BasePlan,
    BenchmarkPlan,
    BucketPlan,
    ChartPlan,
    Cost,
    GpuMemory,
    GpuPool,
    ModelPlan,
    NodePlacement,
    Objects,
    Placement,
    Plan,
    StoragePlan,
    WorkerPlan,
)
from recipe.policy import check_plan
from recipe.weights import snapshot_path

_RAID0_NODE_CONFIG: Final = """\
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="BOUNDARY"

--BOUNDARY
Content-Type: application/node.eks.aws

apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  instance:
    localStorage:
      strategy: RAID0

--BOUNDARY--
"""
"""nodeadm joins the instance-store disks and puts images, pods and logs there (facts/aws.md §5)."""
_PARALLEL_PULL: Final = """\
spec:
  featureGates:
    FastImagePull: true
"""
"""nodeadm then lets the SOCI snapshotter pull and unpack in parallel; the images need no index (awslabs/amazon-eks-ami, nodeadm/doc/examples.md)."""


@overload
def make_plan(stack: str, recipe: Recipe, *, placeholders: bool = False, base: Base | None = None) -> Plan: ...
@overload
def make_plan(stack: str, recipe: Base, *, placeholders: bool = False, base: Base | None = None) -> BasePlan: ...
def make_plan(
    stack: str, recipe: Recipe | Base, *, placeholders: bool = False, base: Base | None = None
) -> Plan | BasePlan:
    """The plan of `recipe` for `stack`. Raises RecipeError with every problem found.

    `placeholders`: what only the user knows may be unset; documentation values then stand in its place and the plan lists
    their paths. Without it, each unset value is a problem with the command that sets it.
    `base`: what the file of the base says that a recipe with `foundation.kind: base` names; of no use to any other.
    """
    problems = check_stack(stack)
    if isinstance(recipe, Base):
        return _make_base_plan(stack, recipe, problems, placeholders=placeholders)
    base_plan = None
    if isinstance(recipe.foundation, FromBase):
        recipe, base_plan, wrong = _take_base(stack, recipe, recipe.foundation, base, placeholders=placeholders)
        problems += wrong
    recipe, filled, missing = fill_in(stack, recipe)
    if not placeholders:
        problems += missing
    problems += check_recipe(recipe)
    chosen = choose(recipe, problems)
    if problems or chosen is None:
        raise RecipeError(problems, stack)
    plan = _Planner(stack, recipe, filled, chosen, base_plan).plan()
    if broken := check_plan(plan):
        raise RecipeError(broken, stack)
    return plan


# ── a base ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _make_base_plan(stack: str, recipe: Base, problems: list[Problem], *, placeholders: bool) -> BasePlan:
    access, filled, missing = fill_in_access(stack, recipe.access)
    recipe = recipe.model_copy(update={"access": access})
    if not placeholders:
        problems += missing
    problems += check_zone(access)
    ground = choose_ground(recipe, problems)
    if problems or ground is None:
        raise RecipeError(problems, stack)
    placed, problems = place_on_cpu(recipe, ground.cpu, list(CLUSTER_PODS))
    cost = make_base_cost(recipe, ground.cpu)
    problems += _check_budget(recipe, cost)
    if problems:
        raise RecipeError(problems, stack)
    names = make_names(stack, recipe.deployment_id)
    platform, devices = platform_chart(ground.versions, recipe.versions), device_charts(recipe.versions)
    warnings = [f"{path} is a documentation placeholder" for path in filled]
    if access.region != catalogue.PRICE_REGION:
        warnings.append(f"prices are those of {catalogue.PRICE_REGION}, the stack is in {access.region}")
    return BasePlan(
        stack=stack,
        recipe=recipe,
        placeholders=tuple(filled),
        names=names,
        tags=tags(stack, recipe),
        versions={
            "dynamo": ground.versions.dynamo,
            "kubernetes": ground.kubernetes.version,
            "cpu_ami": f"{ground.kubernetes.cpu_ami.type} {ground.kubernetes.cpu_ami.release}",
        }
        | {chart.release: chart.version for chart in (platform, *devices)},
        network=make_network(access.vpc_cidr, _set(access.zone_id)),
        cluster=cluster_plan(names, access, ground.kubernetes.version),
        cpu_pool=cpu_pool(names, recipe.hardware.cpu, ground.kubernetes),
        storage=storage_plan(Storage()),
        platform=platform,
        devices=devices,
        placement=Placement(gpu_nodes=(), cpu_nodes=placed, gpu_memory=()),
        cost=cost,
        warnings=tuple(warnings),
        notes=(_cpu_quota(recipe, ground.cpu),),
    )


def _take_base(
    stack: str, recipe: Recipe, foundation: FromBase, base: Base | None, *, placeholders: bool
) -> tuple[Recipe, BasePlan | None, list[Problem]]:
    """The recipe with what the base decides for it, the base's plan, and what is wrong with either."""
    name = foundation.stack
    if name == stack:
        return recipe, None, [Problem("foundation.stack", name, "is this stack itself", "name a stack with kind: base")]
    if base is None:
        reason = "what its file says was not given to the plan"
        return (
            recipe,
            None,
            [Problem("foundation.stack", name, reason, f"make_plan(…, base=…) from Pulumi.{name}.yaml")],
        )
    problems = [
        Problem(
            f"{section}.{key}",
            value,
            f"stack {name}, its base, decides it, and says {shorten(theirs)}",
            f"leave it out here; `pulumi config set -s {name} --path recipe.{section}.{key}` changes it for every stack on it",
        )
        for section, decided in (("access", Access), ("versions", BaseVersions))
        for key in sorted(getattr(recipe, section).model_fields_set & set(decided.model_fields))
        if (value := getattr(getattr(recipe, section), key)) != (theirs := getattr(getattr(base, section), key))
    ]
    try:
        plan = make_plan(name, base, placeholders=placeholders)
    except RecipeError as error:
        wrong = [Problem(f"{name}:{one.path}", one.value, one.reason, one.fix) for one in error.problems]
        return recipe, None, problems + wrong
    versions = recipe.versions.model_copy(
        update={key: getattr(base.versions, key) for key in BaseVersions.model_fields}
    )
    return recipe.model_copy(update={"access": plan.recipe.access, "versions": versions}), plan, problems


# ── the plan ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Planner:
    """Puts the plan together from a recipe that is complete and whose names are known."""

    def __init__(
        self, stack: str, recipe: Recipe, filled: tuple[str, ...], chosen: Chosen, base: BasePlan | None
    ) -> None:
        self.stack, self.recipe, self.chosen, self.base = stack, recipe, chosen, base
        self.filled = (*(f"{base.stack}:{path}" for path in base.placeholders), *filled) if base else filled
        names = make_names(stack, recipe.deployment_id)
        self.names = on_base(names, base.names) if base else names
        self.revision = recipe.weights.revision or chosen.model.revision
        self.snapshot = snapshot_path(MODEL_MOUNT, chosen.model.id, self.revision)

    def plan(self) -> Plan:
        recipe, chosen = self.recipe, self.chosen
        problems: list[Problem] = []
        engine = ENGINES[recipe.engine]
        efa = {role: self._efa(role) for role in recipe.workers}
        memory: dict[Role, GpuMemory] = {}
        gpu_nodes: tuple[NodePlacement, ...] = ()
        if chosen.gpu:
            memory = {role: gpu_memory(recipe, engine, chosen.model, chosen.gpu, role) for role in recipe.workers}
            for one in memory.values():
                problems += check_gpu_memory(recipe, chosen.model, chosen.gpu, one)
            gpu_nodes, unplaced = place_workers(recipe, chosen.gpu, efa)
            problems += unplaced
        workers, storage = self._workers(memory, efa), storage_plan(recipe.storage)
        objects = self._objects(workers, storage)
        own, lustre = self.base is None, storage.lustre is not None
        cost = running = make_cost(recipe, chosen.model, chosen.gpu, len(gpu_nodes), chosen.cpu, own=own)
        bucket, benchmark = make_bucket(recipe, self.names), None
        if recipe.benchmark.run:
            context = self._context(workers, storage)
            benchmark, made = make_benchmark(context, objects, cost, chosen.cpu, bucket, self._versions())
            objects = objects.model_copy(update=made)
        head = (objects.head_job,) if objects.head_job else ()
        jobs = (objects.weights_job, *head, objects.admission_job, objects.readiness_job)
        measuring = (objects.benchmark_job,) if objects.benchmark_job else ()
        cpu_nodes, unplaced = place_on_cpu(
            recipe, chosen.cpu, cpu_pods((*jobs, *measuring), objects.graph, lustre=lustre)
        )
        problems += unplaced
        notes = (*self._quotas(chosen.gpu, len(gpu_nodes)), *self._block(), *self._measuring(cost, bucket, benchmark))
        if recipe.hardware.paused:
            # All of it was judged as if it ran, so that resuming holds no surprise; only then is the graph taken out.
            cost = make_cost(recipe, chosen.model, chosen.gpu, 0, chosen.cpu, own=own)
            objects, gpu_nodes = objects.model_copy(update={"serving": False}), ()
            cpu_nodes, _ = place_on_cpu(recipe, chosen.cpu, cpu_pods(jobs[:-1], lustre=lustre))
            notes = (self._pause(cost, running), *notes)
        problems += _check_budget(recipe, cost)
        if problems:
            raise RecipeError(problems, self.stack)
        network = make_network(recipe.access.vpc_cidr, _set(recipe.access.zone_id))
        return Plan(
            stack=self.stack,
            recipe=recipe,
            placeholders=self.filled,
            names=self.names,
            tags=tags(self.stack, recipe),
            versions=self._versions(),
            model=ModelPlan(
                id=chosen.model.id,
                revision=self.revision,
                weight_bytes=chosen.model.weight_bytes,
                cached_bytes=cached_bytes(chosen.model, chosen.gpu),
                snapshot_path=self.snapshot,
            ),
            base=self.base,
            network=network,
            cluster=self.base.cluster
            if self.base
            else cluster_plan(self.names, recipe.access, chosen.kubernetes.version),
            cpu_pool=cpu_pool(self.names, recipe.hardware.cpu, chosen.kubernetes),
            gpu_pool=self._gpu_pool(chosen.gpu, len(gpu_nodes)) if chosen.gpu and gpu_nodes else None,
            storage=storage,
            platform=platform_chart(chosen.versions, recipe.versions),
            devices=self._devices(),
            workers=workers,
            placement=Placement(gpu_nodes=gpu_nodes, cpu_nodes=cpu_nodes, gpu_memory=tuple(memory.values())),
            cost=cost,
            warnings=self._warnings(),
            notes=notes,
            objects=objects,
            images=_images(objects),
            bucket=bucket,
            benchmark=benchmark,
        )

    def _efa(self, role: Role) -> int:
        bundle = kv_transfer(self.recipe, role, self.chosen.gpu)
        return bundle.efa if bundle else 0

    def _workers(self, memory: dict[Role, GpuMemory], efa: dict[Role, int]) -> tuple[WorkerPlan, ...]:
        return tuple(
            WorkerPlan(
                role=role,
                component=role,
                replicas=pool.replicas,
                tensor_parallel=pool.tensor_parallel,
                data_parallel=pool.data_parallel,
                expert_parallel=pool.expert_parallel,
                gpus=pool.gpus if self.chosen.gpu else 0,
                efa=efa[role],
                image=self.chosen.versions.runtime_image(self.recipe.engine, efa=efa[role] > 0),
                kv_cache_tokens=memory[role].kv_tokens if self.chosen.gpu else kv_tokens(self.recipe),
            )
            for role, pool in self.recipe.workers.items()
        )

    def _context(self, workers: tuple[WorkerPlan, ...], storage: StoragePlan) -> RenderContext:
        return RenderContext(
            stack=self.stack,
            recipe=self.recipe,
            names=self.names,
            labels={STACK_LABEL: self.names.prefix},
            model=self.chosen.model,
            gpu=self.chosen.gpu,
            revision=self.revision,
            snapshot_path=self.snapshot,
            versions=self.chosen.versions,
            workers=workers,
            storage=storage,
        )

    def _objects(self, workers: tuple[WorkerPlan, ...], storage: StoragePlan) -> Objects:
        return build_objects(self._context(workers, storage))

    def _versions(self) -> dict[str, str]:
        chosen = self.chosen
        engine = chosen.versions.engines[self.recipe.engine]
        found = {
            "dynamo": chosen.versions.dynamo,
            self.recipe.engine: engine.version,
            "nixl": engine.nixl,
            "cuda": engine.cuda,
            "kubernetes": chosen.kubernetes.version,
            "gpu_ami": f"{chosen.kubernetes.gpu_ami.type} {self._gpu_release()}" if chosen.gpu else None,
            "cpu_ami": f"{chosen.kubernetes.cpu_ami.type} {chosen.kubernetes.cpu_ami.release}",
        } | {
            chart.release: chart.version
            for chart in (platform_chart(chosen.versions, self.recipe.versions), *self._devices())
        }
        return {name: version for name, version in found.items() if version is not None}

    def _gpu_release(self) -> str | None:
        return self.recipe.hardware.ami_release or self.chosen.kubernetes.gpu_ami.release

    def _parallel_pull(self) -> bool:
        asked = self.recipe.hardware.parallel_pull
        return catalogue.check_parallel_pull(self._gpu_release()) is None if asked is None else asked

    def _gpu_pool(self, gpu: GpuInstance, nodes: int) -> GpuPool:
        hardware = self.recipe.hardware
        block = hardware.capacity.kind == "capacity-block"
        return GpuPool(
            instance_type=gpu.name,
            count=nodes,
            ami_type=self.chosen.kubernetes.gpu_ami.type,
            ami_release=self._gpu_release(),
            disk_gib=hardware.root_disk_gib,
            # The NVIDIA plugin's chart selects on gpu.present; nodeadm sets it too, but the plan does not depend on that.
            labels={POOL_LABEL: self.names.prefix, GPU_PRESENT_LABEL: "true"},
            user_data=_RAID0_NODE_CONFIG.replace("spec:\n", _PARALLEL_PULL)
            if self._parallel_pull()
            else _RAID0_NODE_CONFIG,
            parallel_pull=self._parallel_pull(),
            create_timeout_minutes=hardware.create_timeout_minutes,
            nics=gpu.network_interfaces(hardware.nic_layout),
            capacity_type="CAPACITY_BLOCK" if block else "SPOT" if hardware.capacity.kind == "spot" else "ON_DEMAND",
            market_type="capacity-block" if block else None,
            reservation_id=getattr(hardware.capacity, "reservation_id", None),
            placement_group=wants_placement_group(hardware.capacity, hardware.placement_group),
        )

    def _devices(self) -> tuple[ChartPlan, ...]:
        """A base has them for whatever comes; a stack of its own without GPUs has no use for them."""
        return () if self.chosen.gpu is None and self.base is None else device_charts(self.recipe.versions)

    def _warnings(self) -> tuple[str, ...]:
        recipe, chosen = self.recipe, self.chosen
        warnings = [f"{path} is a documentation placeholder" for path in self.filled]
        if recipe.access.region != catalogue.PRICE_REGION:
            warnings.append(f"prices are those of {catalogue.PRICE_REGION}, the stack is in {recipe.access.region}")
        if recipe.hardware.capacity.kind == "capacity-block":
            what = "pausing" if recipe.hardware.paused else "destroying early"
            warnings.append(f"a Capacity Block is paid up front: {what} saves nothing of it")
        running = chosen.gpu and not recipe.hardware.paused
        return (*warnings, *(self._gpu_warnings(chosen.gpu) if chosen.gpu and running else ()))

    def _pause(self, cost: Cost, running: Cost) -> str:
        what = "CPU nodes, disks and the cache" if self.base else "cluster, CPU nodes, NAT, disks and the cache"
        return (
            f"paused: ${cost.usd_per_hour:.2f} an hour for {what} instead of ${running.usd_per_hour:.2f}. "
            f"Resume: `pulumi config set -s {self.stack} --path recipe.hardware.paused false`, then `pulumi up -s {self.stack}`"
        )

    def _measuring(self, cost: Cost, bucket: BucketPlan | None, benchmark: BenchmarkPlan | None) -> tuple[str, ...]:
        notes = []
        if benchmark:
            least = benchmark.least_minutes
            known = (
                f"at least {least:.0f} minutes, ${cost.usd_per_hour * least / 60:.2f}"
                if benchmark.kind == "trace"
                else "as long as it takes"
            )
            notes.append(
                f"benchmark {benchmark.profile}: {len(benchmark.points)} points, {known} (${cost.usd_per_hour:.2f} an hour)"
            )
        if bucket and bucket.created:
            command = f"pulumi config set -s {self.stack} --path recipe.benchmark.bucket {bucket.name}"
            notes.append(
                f"the bucket {bucket.name} is kept on purpose when the stack is destroyed. To go on with it in a new stack: `{command}`"
            )
        return tuple(notes)

    def _block(self) -> tuple[str, ...]:
        if self.recipe.hardware.capacity.kind != "capacity-block":
            return ()
        # facts/aws.md §3. Whether now is inside the block needs a clock, which planning has not.
        return (
            "a Capacity Block's nodes start when it has begun, and launches fail before; EKS takes them away 40 minutes before it ends",
        )

    def _quotas(self, gpu: GpuInstance | None, gpu_nodes: int) -> tuple[str, ...]:
        """Which EC2 quotas the nodes count against, and how much of each. A reservation has counted when it was made."""
        hardware = self.recipe.hardware
        wanted: list[tuple[str, str, int, str]] = []
        if gpu and hardware.capacity.kind == "on-demand":
            wanted.append((gpu.quota_name, gpu.quota_code, gpu_nodes * gpu.vcpus, f"{gpu_nodes} × {gpu.name}"))
        if gpu and hardware.capacity.kind == "spot" and gpu.spot_quota_code:
            wanted.append(
                (gpu.spot_quota_name, gpu.spot_quota_code, gpu_nodes * gpu.vcpus, f"{gpu_nodes} × {gpu.name}")
            )
        region = self.recipe.access.region
        return (*(_quota(*one, region) for one in wanted), _cpu_quota(self.recipe, self.chosen.cpu))

    def _gpu_warnings(self, gpu: GpuInstance) -> list[str]:
        recipe = self.recipe
        warnings: list[str] = []
        unknown = f"no price known for {gpu.name} ({recipe.hardware.capacity.kind})"
        if other := stands_in(recipe, gpu):
            warnings.append(f"{unknown}: that of {other.name}, ${other.usd or 0:.2f} an hour stands for it")
        elif gpu_price(recipe, gpu) is None:
            warnings.append(f"{unknown}: the totals leave the GPUs out, and no cap holds them")
        if recipe.hardware.capacity.kind == "spot":
            warnings.append("spot has no list price: the on-demand price stands for it")
        if recipe.hardware.parallel_pull and (reason := catalogue.check_parallel_pull(self._gpu_release())):
            warnings.append(f"hardware.parallel_pull is true, and {reason}")
        for role in recipe.workers:
            tuning = recipe.tuning(role)
            if unchecked := [*tuning.extra_args, *tuning.extra_engine_config]:
                warnings.append(
                    f"{role}: {' '.join(unchecked)}: nobody checks extra arguments, and the plan's arithmetic goes on without them"
                )
        if not recipe.weights.wait:
            warnings.append("weights.wait is false: GPU nodes may idle while the weights download")
        if self._gpu_release() is None:
            warnings.append(
                "no AMI release is pinned for the GPU nodes: set hardware.ami_release (docs/unverified.md has the command)"
            )
        used = sum(pool.replicas * pool.gpus for pool in recipe.workers.values())
        if recipe.mode == "disagg" and used <= gpu.gpus:
            warnings.append(
                "prefill and decode share one node: transfers inside a node have failed with EAGAIN (ai-dynamo/dynamo#7764); "
                "enough replicas to fill two nodes let the roles have nodes of their own"
            )
        if idle := -used % gpu.gpus:
            warnings.append(f"{idle} GPUs are paid for and not used: whole nodes have {gpu.gpus} each")
        return warnings


def _cheaper(cost: Cost) -> str:
    """What to do about a stack that costs more than its cap."""
    most = max(cost.lines, key=lambda line: line.usd_per_hour)
    return f"a cap of at least {cost.usd_per_hour:.2f}, or less of what costs most: {most.what}, {most.quantity:g} for ${most.usd_per_hour:.2f} an hour"


def _cpu_quota(recipe: Recipe | Base, cpu: CpuInstance) -> str:
    nodes = recipe.hardware.cpu.nodes
    return _quota(cpu.quota_name, cpu.quota_code, nodes * cpu.vcpus, f"{nodes} × {cpu.name}", recipe.access.region)


def _quota(name: str, code: str, vcpus: int, what: str, region: str) -> str:
    return f'{what} need {vcpus} vCPUs of the quota "{name}" ({code}) in {region}'


def _check_budget(recipe: Recipe | Base, cost: Cost) -> list[Problem]:
    if cost.usd_per_hour <= recipe.budget.usd_per_hour:
        return []
    reason = f"the stack costs ${cost.usd_per_hour:.2f} an hour"
    return [Problem("budget.usd_per_hour", recipe.budget.usd_per_hour, reason, _cheaper(cost))]


def _images(objects: Objects) -> dict[str, str]:
    """Image by what runs it: the graph's components and the Jobs."""
    images = {
        component["name"]: component["podTemplate"]["spec"]["containers"][0]["image"]
        for component in objects.graph["spec"]["components"]
    }
    job = objects.weights_job["spec"]["template"]["spec"]["containers"][0]["image"]
    return images | {"jobs": job}


def _set(value: str | None) -> str:
    assert value is not None, "filled in before planning"
    return value
