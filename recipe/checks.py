"""What is wrong with a recipe as it stands: what only the user knows and is unset, keys that contradict each other, names the catalogue
does not have. Everything the plan needs of the catalogue is chosen on the way.

Deliberately not here: what shows only when a plan is made, such as whether the workers fit their GPUs (planner.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from recipe import catalogue
from recipe.benchmark import check_benchmark
from recipe.catalogue import FP8_BLOCK, CpuInstance, DynamoVersions, GpuInstance, KubernetesVersion, Model
from recipe.config import (
    ROLES,
    Access,
    Base,
    Capacity,
    CapacityBlock,
    FromBase,
    FsxLustreModel,
    Hardware,
    Odcr,
    Recipe,
    Spot,
)
from recipe.engines import Engine, engine_for
from recipe.errors import Problem, suggest
from recipe.foundation import lustre_plan
from recipe.lustre import check_room
from recipe.placement import context_tokens
from recipe.weights import LEAST_WHOLE_MEMORY_GIB

PLACEHOLDER_ACCOUNT: Final = "123456789012"
"""AWS' own example account (IAM user guide)."""
PLACEHOLDER_CIDR: Final = "203.0.113.0/24"
"""TEST-NET-3, reserved for documentation (RFC 5737)."""
PLACEHOLDER_RESERVATION: Final = "cr-0123456789abcdef0"

Entry = TypeVar("Entry")


# ── what only the user knows ─────────────────────────────────────────────────────────────────────────────────────────


def fill_in(stack: str, recipe: Recipe) -> tuple[Recipe, tuple[str, ...], list[Problem]]:
    """The recipe with documentation values where the user's are unset, their paths, and the problem each would be."""
    access, filled, missing = fill_in_access(stack, recipe.access)
    capacity = recipe.hardware.capacity
    if isinstance(capacity, Odcr | CapacityBlock) and capacity.reservation_id is None:
        filled["hardware.capacity.reservation_id"] = (
            f"pulumi config set -s {stack} --path recipe.hardware.capacity.reservation_id cr-…"
        )
        capacity = capacity.model_copy(update={"reservation_id": PLACEHOLDER_RESERVATION})
        missing = _missing(filled)
    hardware = recipe.hardware.model_copy(update={"capacity": capacity})
    return recipe.model_copy(update={"access": access, "hardware": hardware}), tuple(filled), missing


def fill_in_access(stack: str, access: Access) -> tuple[Access, dict[str, str], list[Problem]]:
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


def check_recipe(recipe: Recipe) -> list[Problem]:
    """Keys that contradict each other, whatever the catalogue says of the model."""
    return [*_check_pools(recipe), *check_zone(recipe.access), *_check_capacity(recipe)]


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


def check_zone(access: Access) -> list[Problem]:
    """Whether the region is known, and the zone one of it that EKS takes. Nothing for a zone that is unset."""
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
    if hardware.placement_group and not wants_placement_group(hardware.capacity, None):
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


def wants_placement_group(capacity: Capacity, setting: bool | None) -> bool:
    """Whether GPU nodes of that capacity get one. `setting` is the user's word, None without any."""
    return capacity.kind == "on-demand" if setting is None else setting


# ── what the catalogue knows ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Ground:
    """What every stack and every base has of the catalogue."""

    cpu: CpuInstance
    versions: DynamoVersions
    kubernetes: KubernetesVersion


@dataclass(frozen=True)
class Chosen(Ground):
    """The same for a stack, with what belongs to its model."""

    model: Model
    gpu: GpuInstance | None
    """None: the engine does without."""


def choose_ground(recipe: Recipe | Base, problems: list[Problem]) -> Ground | None:
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
    return Ground(cpu, versions, kubernetes) if cpu and versions and kubernetes else None


def _of_the_model(recipe: Recipe | Base) -> dict[str, str | None]:
    """What of a recipe has to go with the versions and is not in a base."""
    if isinstance(recipe, Base):
        return {}
    return {
        "engine": recipe.engine,
        "engine_version": recipe.versions.engine,
        "gpu": recipe.hardware.gpu,
    }


def choose(recipe: Recipe, problems: list[Problem]) -> Chosen | None:
    """Catalogue entries the recipe names. Adds a problem for each unknown or unfitting one; None where one is missing."""
    hardware = recipe.hardware
    model = _look_up(problems, "model", catalogue.model, recipe.model)
    ground = choose_ground(recipe, problems)
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
    return Chosen(ground.cpu, ground.versions, ground.kubernetes, model, gpu if engine.on_gpus else None)


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


def check_token(stack: str, *, needed: bool, value: str | None, secret: bool) -> list[Problem]:
    """What is wrong with the config value `hfToken`. It is never part of what is said."""
    command = f"`pulumi config set -s {stack} --secret hfToken` (it asks for the value)"
    if value is not None and not secret:
        reason = "in clear in the stack file, and from there in previews, history and diffs"
        return [Problem("hfToken", "(not shown)", reason, f"revoke it at Hugging Face, and with another one {command}")]
    if needed and not (value or "").strip():
        return [Problem("hfToken", value, "weights.token is true and there is no token", command)]
    return []
