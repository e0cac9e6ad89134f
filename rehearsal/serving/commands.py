"""What to run for a graph: the frontend as it is rendered, and for each pool the mock engine told what the real one was told.

Pure: a graph in, command lines out. Flags of the mock engine: `dynamo/mocker/args.py` of the wheel ai-dynamo 1.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from recipe import catalogue
from recipe.catalogue import DType
from recipe.plan import Manifest, Plan
from rehearsal.errors import SetupError

SYSTEMS: Final = {"h100": "h100_sxm", "h200": "h200_sxm", "b200": "b200_sxm"}
"""GPU of the catalogue to the name NVIDIA's performance database has for it (`aisimulate_core/systems` of the wheel)."""
DATABASE: Final = "aisimulate 0.13.0.dev202610130000000070"
_ENDPOINTS: Final = {"prefill": "prefill", "decode": "backend", "worker": "backend"}
"""Component under which the mock engine registers workers of a role (its `--endpoint` default)."""


@dataclass(frozen=True)
class Facts:
    """What a graph does not say of itself."""

    gpu: str | None
    """Of the nodes, as the catalogue has it: h100. None: no GPU, no timing model."""
    configs: Mapping[str, Manifest] = field(default_factory=dict)
    """ConfigMaps of the graph by name, for an engine that is configured by a file."""

    @classmethod
    def of(cls, plan: Plan) -> Facts:
        """Of a plan."""
        gpu = catalogue.GPU_INSTANCES[plan.gpu_pool.instance_type].gpu if plan.gpu_pool else None
        return cls(gpu, {one["metadata"]["name"]: one for one in plan.objects.graph_config.values()})


@dataclass(frozen=True)
class Pool:
    """The workers of one component."""

    component: str
    role: str
    """worker, prefill or decode."""
    replicas: int
    endpoint: str
    """The component they register under."""
    args: tuple[str, ...]
    """For `python -m dynamo.mocker`, without model folder and timing."""
    timing: tuple[str, ...]
    """Arguments for the timing model; empty where there is none for it."""
    env: dict[str, str]


@dataclass(frozen=True)
class Commands:
    """A graph as processes."""

    model: str
    """The name clients ask for."""
    frontends: int
    frontend_args: tuple[str, ...]
    frontend_env: dict[str, str]
    pools: tuple[Pool, ...]

    @property
    def with_model(self) -> bool:
        """Whether every pool has a timing model."""
        return all(pool.timing for pool in self.pools)


def commands(graph: Manifest, facts: Facts) -> Commands:
    """Read the graph. SetupError names what in it has no counterpart here."""
    frontends = [one for one in graph["spec"]["components"] if one["type"] == "frontend"]
    workers = [one for one in graph["spec"]["components"] if one["type"] in _ENDPOINTS and one["replicas"] > 0]
    if len(frontends) != 1 or not workers:
        raise SetupError("the graph has no frontend or no workers", "serve a graph that has both")
    pools = [_pool(one, facts) for one in workers]
    models = {name for name, _ in pools}
    if len(models) != 1:
        raise SetupError(f"the graph's workers serve {sorted(models)}", "serve a graph of one model")
    main = _main(frontends[0])
    return Commands(
        model=models.pop(),
        frontends=frontends[0]["replicas"],
        frontend_args=tuple(main["args"]),
        frontend_env=_dynamo_env(main),
        pools=tuple(pool for _, pool in pools),
    )


def model_arg(folder: Path) -> tuple[str, ...]:
    """The model's files."""
    return "--model-path", str(folder)


def _main(component: Manifest) -> Manifest:
    containers = component["podTemplate"]["spec"]["containers"]
    return dict(next(one for one in containers if one["name"] == "main"))


def _dynamo_env(container: Manifest) -> dict[str, str]:
    """Dynamo's own variables; the others are for the engine, the GPU or the network."""
    return {one["name"]: one["value"] for one in container.get("env", ()) if one["name"].startswith("DYN_")}


def _pool(component: Manifest, facts: Facts) -> tuple[str, Pool]:
    """The model's name and the pool."""
    main = _main(component)
    engine = main["command"][-1].removeprefix("dynamo.")
    given = Flags(main["args"])
    if engine == "mocker":
        name = given.value("--model-name") or ""
        args = given.without("--model-path")
        timing: tuple[str, ...] = ()
    elif engine not in _READERS:
        known = ", ".join(["mocker", *_READERS])
        raise SetupError(f"component {component['name']} runs {engine}", f"the mock engine stands in for: {known}")
    else:
        name = given.value("--served-model-name") or ""
        said = _READERS[engine](given, component, facts)
        args = (*_engine_args(engine, component["type"], said), "--model-name", name, *_kv_bytes(name, said))
        timing = _timing(engine, name, said, facts)
    return name, Pool(
        component=component["name"],
        role=component["type"],
        replicas=component["replicas"],
        endpoint=_ENDPOINTS[component["type"]],
        args=args,
        timing=timing,
        env=_dynamo_env(main),
    )


# ── what an engine was told ──────────────────────────────────────────────────────────────────────────────────────────


class Flags:
    """A command line, `--flag value` and `--flag=value` alike."""

    def __init__(self, args: Iterator[str] | list[str] | tuple[str, ...]) -> None:
        self._args: list[str] = []
        for argument in args:
            flag, equals, value = argument.partition("=")
            self._args += [flag, value] if equals and flag.startswith("--") else [argument]

    def has(self, flag: str) -> bool:
        return flag in self._args

    def value(self, flag: str) -> str | None:
        """The last one wins, as with argparse."""
        places = [place for place, argument in enumerate(self._args) if argument == flag]
        return self._args[places[-1] + 1] if places and places[-1] + 1 < len(self._args) else None

    def number(self, flag: str) -> int | None:
        value = self.value(flag)
        return None if value is None else int(value)

    def switch(self, name: str) -> bool | None:
        """`--name` or `--no-name`; None where neither stands."""
        return True if self.has(f"--{name}") else False if self.has(f"--no-{name}") else None

    def without(self, flag: str) -> tuple[str, ...]:
        """All but that flag and its value."""
        kept, skip = [], False
        for argument in self._args:
            if not skip and argument != flag:
                kept.append(argument)
            skip = argument == flag
        return tuple(kept)


@dataclass(frozen=True)
class Told:
    """The settings that the mock engine has a word for; None: the engine was not told."""

    block_size: int | None
    context_tokens: int | None
    max_requests: int | None
    max_step_tokens: int | None
    prefix_caching: bool | None
    chunked_prefill: bool | None
    memory_fraction: str | None
    fp8_cache: bool
    tensor_parallel: int
    data_parallel: int
    experts_split: int
    """Expert parallelism."""


def _vllm(given: Flags, component: Manifest, facts: Facts) -> Told:  # noqa: ARG001 - as its sibling
    tensor, data = given.number("--tensor-parallel-size") or 1, given.number("--data-parallel-size") or 1
    return Told(
        block_size=given.number("--block-size"),
        context_tokens=given.number("--max-model-len"),
        max_requests=given.number("--max-num-seqs"),
        max_step_tokens=given.number("--max-num-batched-tokens"),
        prefix_caching=given.switch("enable-prefix-caching"),
        chunked_prefill=given.switch("enable-chunked-prefill"),
        memory_fraction=given.value("--gpu-memory-utilization"),
        fp8_cache=(given.value("--kv-cache-dtype") or "").startswith("fp8"),
        tensor_parallel=tensor,
        data_parallel=data,
        experts_split=tensor * data if given.has("--enable-expert-parallel") else 1,
    )


def _trtllm(given: Flags, component: Manifest, facts: Facts) -> Told:
    config = _engine_config(given, component, facts)
    cache = config.get("kv_cache_config") or {}
    ranks = int(config.get("tensor_parallel_size", 1))
    # With attention DP every rank holds a copy of the attention: the timing model's tensor parallel size is then 1.
    copies = ranks if config.get("enable_attention_dp") else 1
    fraction = cache.get("free_gpu_memory_fraction")
    return Told(
        block_size=cache.get("tokens_per_block") or given.number("--kv-block-size"),
        context_tokens=config.get("max_seq_len"),
        max_requests=config.get("max_batch_size"),
        max_step_tokens=config.get("max_num_tokens"),
        prefix_caching=cache.get("enable_block_reuse"),
        chunked_prefill=config.get("enable_chunked_prefill"),
        memory_fraction=None if fraction is None else f"{fraction:g}",
        fp8_cache=cache.get("dtype") == "fp8",
        tensor_parallel=ranks // copies,
        data_parallel=copies,
        experts_split=int(config.get("moe_expert_parallel_size") or 1),
    )


def _engine_config(given: Flags, component: Manifest, facts: Facts) -> dict[str, Any]:
    """The file behind `--extra-engine-args`, found as the kubelet finds it: mount, volume, ConfigMap."""
    path = Path(given.value("--extra-engine-args") or "")
    spec = component["podTemplate"]["spec"]
    for mount in _main(component).get("volumeMounts", ()):
        if Path(mount["mountPath"]) != path.parent:
            continue
        volume = next(one for one in spec["volumes"] if one["name"] == mount["name"])
        config = facts.configs.get(volume.get("configMap", {}).get("name", ""))
        if config is not None and path.name in config["data"]:
            return dict(yaml.safe_load(config["data"][path.name]))
    raise SetupError(
        f"the engine configuration {path} of component {component['name']} is in no ConfigMap at hand",
        "hand the graph's ConfigMaps over as `Facts.configs`",
    )


_READERS: Final = {"vllm": _vllm, "trtllm": _trtllm}


# ── what the mock engine is told ─────────────────────────────────────────────────────────────────────────────────────


def _engine_args(engine: str, role: str, said: Told) -> tuple[str, ...]:
    # The mock decode worker books a whole prompt as one step of its own and waits for ever where the step is too small for it. The real one
    # gets prompts computed, so that what bounds its steps never meets one.
    prompts = role != "decode"

    def parts() -> Iterator[str]:
        yield from ("--engine-type", engine)
        if role != "worker":
            yield from ("--disaggregation-mode", role)
        for flag, value in (
            ("--block-size", said.block_size),
            ("--max-model-len", said.context_tokens),
            ("--max-num-seqs", said.max_requests),
            ("--max-num-batched-tokens", said.max_step_tokens if prompts else None),
            ("--data-parallel-size", said.data_parallel if said.data_parallel > 1 else None),
        ):
            if value is not None:
                yield from (flag, str(value))
        for name, on in (
            ("prefix-caching", said.prefix_caching),
            ("chunked-prefill", said.chunked_prefill if prompts else None),
        ):
            if on is not None:
                yield f"--enable-{name}" if on else f"--no-enable-{name}"

    return tuple(parts())


def _kv_bytes(model: str, said: Told) -> tuple[str, ...]:
    """Of a token: left to itself the mock engine takes a head for smaller than it is (recipe/engines/mocker.py)."""
    dtype: DType = "fp8" if said.fp8_cache else "bfloat16"
    known = catalogue.MODELS.get(model)
    return ("--kv-bytes-per-token", str(known.kv_bytes_per_token(dtype))) if known else ()


def _timing(engine: str, model: str, said: Told, facts: Facts) -> tuple[str, ...]:
    system = SYSTEMS.get(facts.gpu or "")
    if system is None:
        return ()
    args = ["--ais-perf-model", "--ais-system", system, "--ais-backend", engine]
    args += ["--ais-tp-size", str(said.tensor_parallel)]
    if said.data_parallel > 1:
        args += ["--ais-attention-dp-size", str(said.data_parallel)]
    known = catalogue.MODELS.get(model)
    if known is not None and known.is_moe:
        ranks = said.tensor_parallel * said.data_parallel
        args += ["--ais-moe-tp-size", str(ranks // said.experts_split), "--ais-moe-ep-size", str(said.experts_split)]
    if said.memory_fraction is not None:
        flag = "--gpu-memory-utilization" if engine == "vllm" else "--free-gpu-memory-fraction"
        args += [flag, said.memory_fraction]
    return tuple(args)


def database_version(log: str) -> str | None:
    """Which database a mock engine loaded, as its log says it: "vllm 0.24.0"."""
    found = re.search(r"Loading database for system='[^']*', backend='([^']*)', version='([^']*)'", log)
    return f"{found[1]} {found[2]}" if found else None
