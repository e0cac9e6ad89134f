"""Recipe → Plan. Everything that can be wrong is found here, all at once, before anyone pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar, overload

from recipe import catalogue
from recipe.benchmark import check_benchmark, make_benchmark, make_bucket
from recipe.catalogue import FP8_BLOCK, CpuInstance, DynamoVersions, GpuInstance, KubernetesVersion, Model
from recipe.config import (
    ROLES,
    Access,
    Base,
    BaseVersions,
    Capacity,
    CapacityBlock,
    FromBase,
    FsxLustreModel,
    Hardware,
    Odcr,
    Recipe,
    Role,
    Spot,
    Storage,
)
from recipe.constants import GPU_PRESENT_LABEL, POOL_LABEL, STACK_LABEL
from recipe.cost import cached_bytes, gpu_price, make_base_cost, make_cost
from recipe.engines import ENGINES, Engine, engine_for
from recipe.engines.mocker import kv_tokens
from recipe.errors import Problem, RecipeError, shorten, suggest
from recipe.foundation import (
    MODEL_MOUNT,
    cluster_plan,
    cpu_pool,
    device_charts,
    lustre_plan,
    platform_chart,
    storage_plan,
    tags,
)
from recipe.kv_transfer import kv_transfer
from recipe.lustre import check_room
from recipe.names import check_stack, make_names, on_base
from recipe.network import make_network
from recipe.objects import RenderContext, build_objects
from recipe.placement import (
    CLUSTER_PODS,
    check_gpu_memory,
    context_tokens,
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
from recipe.weights import LEAST_WHOLE_MEMORY_GIB, snapshot_path

PLACEHOLDER_ACCOUNT: Final = "123456789012"
"""AWS' own example account (IAM user guide)."""
PLACEHOLDER_CIDR: Final = "203.0.113.0/24"
"""TEST-NET-3, reserved for documentation (RFC 5737)."""
PLACEHOLDER_RESERVATION: Final = "cr-0123456789abcdef0"

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

Entry = TypeVar("Entry")


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
    recipe, filled, missing = _fill_in(stack, recipe)
    if not placeholders:
        problems += missing
    problems += _check_recipe(recipe)
    chosen = _choose(recipe, problems)
    if problems or chosen is None:
        raise RecipeError(problems, stack)
    plan = _Planner(stack, recipe, filled, chosen, base_plan).plan()
    if broken := check_plan(plan):
        raise RecipeError(broken, stack)
    return plan


# ── a base ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _make_base_plan(stack: str, recipe: Base, problems: list[Problem], *, placeholders: bool) -> BasePlan:
    access, filled, missing = _fill_in_access(stack, recipe.access)
    recipe = recipe.model_copy(update={"access": access})
    if not placeholders:
        problems += missing
    problems += _check_zone(access)
    ground = _choose_ground(recipe, problems)
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


# ── what only the user knows ─────────────────────────────────────────────────────────────────────────────────────────


def _fill_in(stack: str, recipe: Recipe) -> tuple[Recipe, tuple[str, ...], list[Problem]]:
    """The recipe with documentation values where the user's are unset, their paths, and the problem each would be."""
    access, filled, missing = _fill_in_access(stack, recipe.access)
    capacity = recipe.hardware.capacity
    if isinstance(capacity, Odcr | CapacityBlock) and capacity.reservation_id is None:
        filled["hardware.capacity.reservation_id"] = (
            f"pulumi config set -s {stack} --path recipe.hardware.capacity.reservation_id cr-…"
        )
        capacity = capacity.model_copy(update={"reservation_id": PLACEHOLDER_RESERVATION})
        missing = _missing(filled)
    hardware = recipe.hardware.model_copy(update={"capacity": capacity})
    return recipe.model_copy(update={"access": access, "hardware": hardware}), tuple(filled), missing


def _fill_in_access(stack: str, access: Access) -> tuple[Access, dict[str, str], list[Problem]]:
    """The same for `access` alone; paths with the command that sets each."""
    filled: dict[str, str] = {}
    command = f"pulumi config set -s {stack} --path"
    if access.account_id is None:
        filled["access.account_id"] = (
            f'{command} recipe.access.account_id "$(aws sts get-caller-identity --query Account --output text)"'
        )
        access = access.model_copy(update={"account_id": PLACEHOLDER_ACCOUNT})
    if access.zone_id is None and access.region in catalogue.REGIONS:
        zone = next(zone.id for zone in catalogue.zones(access.region) if zone.eks)
        filled["access.zone_id"] = f"{command} recipe.access.zone_id {zone}    # the AZ id where your capacity is"
        access = access.model_copy(update={"zone_id": zone})
    if not access.endpoint_cidrs:
        filled["access.endpoint_cidrs"] = (
            f"{command} 'recipe.access.endpoint_cidrs[0]' \"$(curl -s https://checkip.amazonaws.com)/32\""
        )
        access = access.model_copy(update={"endpoint_cidrs": (PLACEHOLDER_CIDR,)})
    return access, filled, _missing(filled)


def _missing(filled: dict[str, str]) -> list[Problem]:
    return [Problem(path, None, "not set: only you know it", fix) for path, fix in filled.items()]


# ── what needs more than one key to judge ────────────────────────────────────────────────────────────────────────────


def _check_recipe(recipe: Recipe) -> list[Problem]:
    return [*_check_pools(recipe), *_check_zone(recipe.access), *_check_capacity(recipe)]


def _check_pools(recipe: Recipe) -> list[Problem]:
    problems: list[Problem] = []
    wanted = ROLES[recipe.mode]
    if set(recipe.workers) != set(wanted):
        reason = f"mode {recipe.mode} has the pool{'s' if len(wanted) > 1 else ''} {' and '.join(wanted)}"
        problems.append(Problem("workers", sorted(recipe.workers), reason, f"give exactly: {', '.join(wanted)}"))
    for role, pool in recipe.workers.items():
        if pool.gpus % pool.expert_parallel:
            reason = f"does not divide the worker's {pool.gpus} GPUs (tensor_parallel × data_parallel)"
            problems.append(
                Problem(
                    f"workers.{role}.expert_parallel",
                    pool.expert_parallel,
                    reason,
                    f"1, or a divisor of {pool.gpus}",
                )
            )
        if pool.tuning.block_size is not None:
            reason = "the router counts in the same blocks for all pools"
            problems.append(
                Problem(
                    f"workers.{role}.tuning.block_size", pool.tuning.block_size, reason, "set engine_tuning.block_size"
                )
            )
    dtypes = {role: recipe.tuning(role).kv_cache_dtype or "auto" for role in recipe.workers}
    if len(set(dtypes.values())) > 1:
        reason = "prefill and decode exchange KV blocks, so both need one type"
        problems.append(Problem("workers", dtypes, reason, "set engine_tuning.kv_cache_dtype and none per pool"))
    if recipe.router.mode != "kv":
        problems += [
            Problem(
                f"router.{key}", value, f"has no effect with mode {recipe.router.mode}", "remove it, or router.mode: kv"
            )
            for key, value in (
                ("overlap_credit", recipe.router.overlap_credit),
                ("temperature", recipe.router.temperature),
            )
            if value is not None
        ]
    return problems


def _check_zone(access: Access) -> list[Problem]:
    if access.region not in catalogue.REGIONS:
        return [
            Problem(
                "access.region",
                access.region,
                "not a region the catalogue has zones for",
                suggest(access.region, catalogue.REGIONS),
            )
        ]
    if access.zone_id is None:
        return []
    here = [zone.id for zone in catalogue.zones(access.region) if zone.eks]
    if access.zone_id in here:
        return []
    try:
        other = catalogue.region_of(access.zone_id)
    except catalogue.UnknownName:
        other = None
    if other == access.region:
        reason, other = "EKS does not take this zone", None
    elif other:
        reason = f"a zone of {other}, but access.region is {access.region}"
    else:
        reason = f"no known zone of {access.region}"
    return [
        Problem(
            "access.zone_id",
            access.zone_id,
            reason,
            f"one of {', '.join(here)}" + (f", or access.region: {other}" if other else ""),
        )
    ]


def _check_capacity(recipe: Recipe) -> list[Problem]:
    hardware = recipe.hardware
    problems: list[Problem] = []
    if isinstance(hardware.capacity, Spot) and recipe.mode == "disagg" and not hardware.capacity.accept_interruption:
        reason = "an interruption takes away a pool the other one cannot do without"
        problems.append(
            Problem("hardware.capacity.kind", "spot", reason, "on-demand, or capacity.accept_interruption: true")
        )
    if isinstance(hardware.capacity, Odcr | CapacityBlock) and hardware.gpu and hardware.instance_type is None:
        types = [instance.name for instance in catalogue.gpu_instances(hardware.gpu)]
        if len(types) > 1:
            reason = f"a reservation is for one type, and {hardware.gpu} comes in {' and '.join(types)}"
            problems.append(Problem("hardware.instance_type", None, reason, "name the type that was reserved"))
    if hardware.placement_group and not _wants_placement_group(hardware.capacity, None):
        reason = f"with {hardware.capacity.kind} a placement group makes launches fail (InsufficientInstanceCapacity)"
        problems.append(Problem("hardware.placement_group", True, reason, "leave it unset"))
    return problems


_OF_GPUS: Final = (
    "gpu",
    "instance_type",
    "capacity",
    "placement_group",
    "nic_layout",
    "parallel_pull",
    "paused",
    "ami_release",
    "root_disk_gib",
    "create_timeout_minutes",
)
"""Keys of `hardware` that say something about GPU nodes."""
_LEAST_WORKER_MEMORY_GIB: Final = 32
"""Of a worker on GPUs; the process alone takes several."""


def _check_engine_hardware(recipe: Recipe, engine: Engine) -> list[Problem]:
    """An engine on GPUs needs to know which, and room for what it loads; one without has no use for any word about them."""
    hardware = recipe.hardware
    weights = _check_loading(recipe, engine)
    if not engine.on_gpus:
        unset = Hardware()
        reason = f"engine {recipe.engine} runs on CPU nodes only"
        return weights + [
            Problem(f"hardware.{key}", value.kind if key == "capacity" else value, reason, "leave it out")
            for key in _OF_GPUS
            if (value := getattr(hardware, key)) != getattr(unset, key)
        ]
    problems = weights
    if hardware.gpu is None:
        known = ", ".join(dict.fromkeys(instance.gpu for instance in catalogue.GPU_INSTANCES.values()))
        problems.append(
            Problem("hardware.gpu", None, f"not set, and engine {recipe.engine} needs GPUs", f"one of {known}")
        )
    for role, pool in recipe.workers.items():
        if pool.memory_gib < _LEAST_WORKER_MEMORY_GIB:
            reason = f"too little for a worker on GPUs (engine {recipe.engine})"
            fix = f"at least {_LEAST_WORKER_MEMORY_GIB}; with EFA 128 or more"
            problems.append(Problem(f"workers.{role}.memory_gib", pool.memory_gib, reason, fix))
    memory_gib = recipe.weights.memory_gib
    if memory_gib is not None and memory_gib < LEAST_WHOLE_MEMORY_GIB:
        reason = "the download of the weights buffers up to 8 GB"
        problems.append(Problem("weights.memory_gib", memory_gib, reason, f"at least {LEAST_WHOLE_MEMORY_GIB}"))
    return problems


def _check_loading(recipe: Recipe, engine: Engine) -> list[Problem]:
    """Words about how GPUs get their weights, where there are none or the engine has its own way."""
    found: list[Problem] = []
    if recipe.weights.loader is not None and engine.framework != "vllm":
        reason = f"engine {recipe.engine} has no choice of loaders"
        found.append(Problem("weights.loader", recipe.weights.loader, reason, "leave it out"))
    streams = engine.framework == "vllm" and recipe.weights.loader != "default"
    if "loader_concurrency" in recipe.weights.model_fields_set and not streams:
        reason = "nothing is streamed that could be read at once"
        found.append(Problem("weights.loader_concurrency", recipe.weights.loader_concurrency, reason, "leave it out"))
    if recipe.weights.wait == "overlap" and not engine.on_gpus:
        reason = f"engine {recipe.engine} has no GPU nodes that could start before its end"
        found.append(Problem("weights.wait", "overlap", reason, "leave it out"))
    return found


def _check_storage(recipe: Recipe, engine: Engine, model: Model) -> list[Problem]:
    """Whether an FSx for Lustre, where one is asked for, can be made here and would be of use."""
    wanted = recipe.storage.model
    if not isinstance(wanted, FsxLustreModel):
        return []
    found: list[Problem] = []
    if isinstance(recipe.foundation, FromBase):
        reason = (
            f"the caches are those of the base {recipe.foundation.stack}, which are on EFS: one of this stack's own would be "
            "made, paid for and filled anew at every start, and take 10 of the minutes that the base saves"
        )
        found.append(
            Problem("storage.model.kind", wanted.kind, reason, "leave storage.model out, or foundation.kind: created")
        )
    if not engine.on_gpus:
        reason = f"engine {recipe.engine} loads no weights that would have to be read fast"
        found.append(Problem("storage.model.kind", wanted.kind, reason, "leave storage.model out"))
    return [*found, *check_room(lustre_plan(wanted), model.id, model.weight_bytes)]


def _wants_placement_group(capacity: Capacity, setting: bool | None) -> bool:
    return capacity.kind == "on-demand" if setting is None else setting


# ── what the catalogue knows ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Ground:
    """What every stack and every base has of the catalogue."""

    cpu: CpuInstance
    versions: DynamoVersions
    kubernetes: KubernetesVersion


@dataclass(frozen=True)
class _Chosen(_Ground):
    model: Model
    gpu: GpuInstance | None
    """None: the engine does without."""


def _choose_ground(recipe: Recipe | Base, problems: list[Problem]) -> _Ground | None:
    """CPU instance type and versions, and whether these go together. Adds a problem for each that does not; None where one is unknown."""
    wanted = recipe.versions
    cpu_name = recipe.hardware.cpu.instance_type
    cpu = _look_up(problems, "hardware.cpu.instance_type", catalogue.cpu_instance, cpu_name)
    dynamo = wanted.dynamo or catalogue.DYNAMO_DEFAULT
    kubernetes_name = wanted.kubernetes or catalogue.KUBERNETES_DEFAULT
    versions = _look_up(problems, "versions.dynamo", catalogue.versions, dynamo)
    kubernetes = _look_up(problems, "versions.kubernetes", catalogue.kubernetes, kubernetes_name)
    if versions and kubernetes:
        driver = recipe.versions.driver if isinstance(recipe, Recipe) else None
        problems += [
            Problem(
                "versions",
                f"{dynamo} on {kubernetes_name}",
                reason,
                "leave what is named here unset: the catalogue's versions belong together",
            )
            for reason in catalogue.check(
                dynamo,
                kubernetes_name,
                driver=driver or kubernetes.gpu_ami.driver,
                platform_chart=wanted.platform_chart,
                nvidia_device_plugin=wanted.nvidia_device_plugin,
                efa_device_plugin=wanted.efa_device_plugin,
                **_of_the_model(recipe),
            )
        ]
    ami_release = recipe.hardware.ami_release if isinstance(recipe, Recipe) else None
    if kubernetes and ami_release and (reason := catalogue.check_ami(ami_release, kubernetes)):
        fix = f"one that begins with {kubernetes.version}., or unset: {kubernetes.gpu_ami.release}"
        problems.append(Problem("hardware.ami_release", ami_release, reason, fix))
    return _Ground(cpu, versions, kubernetes) if cpu and versions and kubernetes else None


def _of_the_model(recipe: Recipe | Base) -> dict[str, str | None]:
    """What of a recipe has to go with the versions and is not in a base."""
    if isinstance(recipe, Base):
        return {}
    return {
        "engine": recipe.engine,
        "engine_version": recipe.versions.engine,
        "gpu": recipe.hardware.gpu,
    }


def _choose(recipe: Recipe, problems: list[Problem]) -> _Chosen | None:
    """Catalogue entries the recipe names. Adds a problem for each unknown or unfitting one; None where one is missing."""
    hardware = recipe.hardware
    model = _look_up(problems, "model", catalogue.model, recipe.model)
    ground = _choose_ground(recipe, problems)
    engine, unknown_engine = engine_for(recipe.engine)
    problems += unknown_engine if engine is None else [*engine.check(recipe), *_check_engine_hardware(recipe, engine)]
    fitting = catalogue.gpu_instances(gpu=hardware.gpu) if hardware.gpu else ()
    gpu: GpuInstance | None = fitting[0] if fitting else None
    if hardware.instance_type:
        gpu = _look_up(problems, "hardware.instance_type", catalogue.gpu_instance, hardware.instance_type)
        if gpu and hardware.gpu and gpu.gpu != hardware.gpu:
            known = ", ".join(instance.name for instance in fitting)
            problems.append(
                Problem(
                    "hardware.instance_type",
                    gpu.name,
                    f"has {gpu.gpu}, but hardware.gpu is {hardware.gpu}",
                    f"one of {known}",
                )
            )
    if model:
        problems += _check_model(recipe, model)
        if engine:
            problems += _check_storage(recipe, engine, model)
        context = min((context_tokens(recipe, model, role) for role in recipe.workers), default=0)
        problems += check_benchmark(recipe, context)
    if not (model and engine and ground) or (engine.on_gpus and gpu is None):
        return None
    return _Chosen(ground.cpu, ground.versions, ground.kubernetes, model, gpu if engine.on_gpus else None)


def _look_up(problems: list[Problem], path: str, table: Callable[[str], Entry], name: str) -> Entry | None:
    try:
        return table(name)
    except catalogue.UnknownName as unknown:
        problems.append(Problem(path, name, "not in the catalogue", suggest(name, unknown.known)))
        return None


def _check_model(recipe: Recipe, model: Model) -> list[Problem]:
    problems: list[Problem] = []
    for role, pool in recipe.workers.items():
        path = f"workers.{role}"
        if model.attention_heads % pool.tensor_parallel:
            reason = f"{model.id} has {model.attention_heads} attention heads, which it does not divide"
            problems.append(
                Problem(f"{path}.tensor_parallel", pool.tensor_parallel, reason, "1, 2, 4 or 8 where they divide")
            )
        if pool.expert_parallel > 1 and not model.is_moe:
            problems.append(
                Problem(
                    f"{path}.expert_parallel", pool.expert_parallel, f"{model.id} has no experts", "expert_parallel: 1"
                )
            )
        if pool.data_parallel > 1 and not model.is_moe:
            reason = f"{model.id} has no experts to share, so each copy would be a worker of its own"
            fix = f"data_parallel: 1 and replicas: {pool.replicas * pool.data_parallel}"
            problems.append(Problem(f"{path}.data_parallel", pool.data_parallel, reason, fix))
        cut = max(1, pool.gpus // pool.expert_parallel)
        if model.is_moe and model.weight_dtype == "fp8" and model.intermediate_size % (cut * FP8_BLOCK):
            reason = f"each expert is split over {cut} GPUs, {model.intermediate_size} / {cut} rows, which cuts blocks of {FP8_BLOCK} that share a scale"
            fix = f"{pool.gpus}: whole experts on each GPU"
            problems.append(Problem(f"{path}.expert_parallel", pool.expert_parallel, reason, fix))
        context = context_tokens(recipe, model, role)
        if context > model.yarn_context_tokens:
            reason = f"{model.id} goes to {model.yarn_context_tokens} tokens with YaRN"
            own = recipe.workers[role].tuning.context_length is not None
            where = f"{path}.tuning.context_length" if own else "engine_tuning.context_length"
            problems.append(Problem(where, context, reason, f"at most {model.yarn_context_tokens}"))
    if model.gated and not recipe.weights.token:
        problems.append(
            Problem(
                "weights.token",
                False,
                f"{model.id} is gated",
                "weights.token: true and `pulumi config set --secret hfToken`",
            )
        )
    return problems


# ── the plan ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Planner:
    """Puts the plan together from a recipe that is complete and whose names are known."""

    def __init__(
        self, stack: str, recipe: Recipe, filled: tuple[str, ...], chosen: _Chosen, base: BasePlan | None
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
            placement_group=_wants_placement_group(hardware.capacity, hardware.placement_group),
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
        price = gpu_price(recipe, gpu)
        if price is None or price.usd is None:
            warnings.append(
                f"no price known for {gpu.name} ({recipe.hardware.capacity.kind}): the totals leave the GPUs out"
            )
        if recipe.hardware.capacity.kind == "spot":
            warnings.append("spot has no list price: the on-demand price stands for it")
        if recipe.hardware.parallel_pull and (reason := catalogue.check_parallel_pull(self._gpu_release())):
            warnings.append(f"hardware.parallel_pull is true, and {reason}")
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
    return f"a cap of at least {cost.usd_per_hour:.2f}, or less of what costs most: {most.what}, {most.quantity:g} × ${most.unit_usd:.2f}"


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
