"""A graph as flat paths and values, whichever API version it is written in: what upstream's manifests and ours are compared by.

Normalised away, because it is only another way to write the same: v1alpha1 against v1beta1 (facts/dynamo.md §1.2), component
names (by role), `/bin/sh -c "…"` against an argument list, variables in it, a flag's obsolete alias, `0.90` against `0.9`, and for
TensorRT-LLM the flag or the key of the YAML a setting came by: the YAML wins, as Dynamo merges them.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Flat = dict[str, str]
"""Dotted path to value as text."""

_ALIASES = {"--model-path": "--model"}  # wheel ai-dynamo 1.6.1, dynamo/trtllm/backend_args.py: obsolete_flag
_ENGINE_KEYS = {
    "--tensor-parallel-size": "tensor_parallel_size",
    "--max-batch-size": "max_batch_size",
    "--max-num-tokens": "max_num_tokens",
    "--max-seq-len": "max_seq_len",
    "--free-gpu-memory-fraction": "kv_cache_config.free_gpu_memory_fraction",
}
"""Flags of dynamo.trtllm that are keys of its YAML as well (llm_worker.py, `arg_map`)."""


def upstream(path: Path) -> Flat:
    """A v1alpha1 manifest with its ConfigMaps."""
    documents = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]
    maps = {one["metadata"]["name"]: one["data"] for one in documents if one["kind"] == "ConfigMap"}
    (graph,) = (one for one in documents if one["kind"] == "DynamoGraphDeployment")
    services = graph["spec"]["services"]
    flat: Flat = {"name": graph["metadata"]["name"]}
    if "backendFramework" in graph["spec"]:
        flat["backendFramework"] = graph["spec"]["backendFramework"]
    disaggregated = any(one.get("subComponentType") == "prefill" for one in services.values())
    for service in services.values():
        sub = service.get("subComponentType")
        role = service["componentType"] if not disaggregated or not sub else sub
        component, shared = _beta(service, sub)
        flat |= {f"{role}.{path}": value for path, value in _component(component, shared, maps)}
    return flat


def ours(graph: dict[str, Any], maps: dict[str, dict[str, Any]]) -> Flat:
    """A v1beta1 graph of this project, with its ConfigMaps by role."""
    data = {one["metadata"]["name"]: one["data"] for one in maps.values()}
    flat: Flat = {"name": graph["metadata"]["name"], "backendFramework": graph["spec"]["backendFramework"]}
    for component in graph["spec"]["components"]:
        flat |= {f"{component['name']}.{path}": value for path, value in _component(component, {}, data)}
    return flat


def _beta(service: dict[str, Any], sub: str | None) -> tuple[dict[str, Any], Flat]:
    """A v1alpha1 service as a v1beta1 component, and what has no place in one."""
    spec = dict(service.get("extraPodSpec", {}))
    main = dict(spec.pop("mainContainer", {}))
    resources: dict[str, dict[str, str]] = {}
    for kind, asked in service.get("resources", {}).items():
        plain = {("nvidia.com/gpu" if key == "gpu" else key): value for key, value in asked.items() if key != "custom"}
        resources[kind] = plain | asked.get("custom", {})
    volumes, mounts = list(spec.get("volumes", [])), list(main.get("volumeMounts", []))
    extra: Flat = {}
    for mount in service.get("volumeMounts", []):
        volumes.append({"name": mount["name"], "persistentVolumeClaim": {"claimName": mount["name"]}})
        mounts.append({"name": mount["name"], "mountPath": mount["mountPoint"]})
        if mount.get("useAsCompilationCache"):
            extra["compilationCache"] = mount["name"]
    if "envFromSecret" in service:
        main["envFrom"] = [{"secretRef": {"name": service["envFromSecret"]}}]
    main |= {"env": [*service.get("envs", []), *main.get("env", [])], "resources": resources, "volumeMounts": mounts}
    component = {
        "type": sub or service["componentType"],
        "replicas": service.get("replicas", 1),
        "podTemplate": {
            "metadata": service.get("extraPodMetadata", {}),
            "spec": {**spec, "containers": [main], "volumes": volumes},
        },
    }
    if "sharedMemory" in service:
        component["sharedMemorySize"] = service["sharedMemory"]["size"]
    return component, extra


def _component(component: dict[str, Any], extra: Flat, maps: dict[str, dict[str, str]]) -> Iterator[tuple[str, str]]:
    template = component["podTemplate"]
    spec = template["spec"]
    main = spec["containers"][0]
    yield from extra.items()
    yield "type", component["type"]
    yield "replicas", _text(component["replicas"])
    if "sharedMemorySize" in component:
        yield "sharedMemorySize", component["sharedMemorySize"]
    yield "image", main["image"]
    env = {one["name"]: str(one["value"]) for one in main.get("env", [])}
    yield from ((f"env.{name}", value) for name, value in env.items())
    yield from ((f"envFrom.{one['secretRef']['name']}", "secret") for one in main.get("envFrom", []))
    if "workingDir" in main:
        yield "workingDir", main["workingDir"].rstrip("/")
    for kind, asked in main.get("resources", {}).items():
        yield from ((f"resources.{kind}.{name}", _text(amount)) for name, amount in asked.items())
    yield from _flatten("securityContext", main.get("securityContext", {}))
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in main:
            yield probe, json.dumps(main[probe], sort_keys=True)
    for kind in ("labels", "annotations"):
        yield from ((f"{kind}.{key}", str(value)) for key, value in template.get("metadata", {}).get(kind, {}).items())
    for key in ("nodeSelector", "terminationGracePeriodSeconds"):
        if key in spec:
            yield key, json.dumps(spec[key], sort_keys=True)
    for toleration in spec.get("tolerations") or []:
        yield f"tolerations.{toleration['key']}", json.dumps(toleration, sort_keys=True)
    for kind, rules in (spec.get("affinity") or {}).items():
        for when, terms in rules.items():
            yield f"affinity.{kind}.{when[: when.index('During')]}", json.dumps(terms, sort_keys=True)
    names: dict[str, str] = {}
    for volume in spec.get("volumes", []):
        # Of ConfigMaps there is one, whatever it is called.
        names[volume["name"]] = "configMap" if "configMap" in volume else volume["name"]
        claim, config = volume.get("persistentVolumeClaim"), volume.get("configMap")
        yield f"volumes.{names[volume['name']]}", claim["claimName"] if claim else config["name"]
    for mount in main.get("volumeMounts", []):
        access = " (read-only)" if mount.get("readOnly") else ""
        yield f"mounts.{names[mount['name']]}", f"{mount['mountPath']}{access}"
    config_maps = {one["configMap"]["name"] for one in spec.get("volumes", []) if "configMap" in one}
    yield from _process(main, env, [maps[name] for name in config_maps])


def _process(main: dict[str, Any], env: dict[str, str], maps: list[dict[str, str]]) -> Iterator[tuple[str, str]]:
    """Module, flags and engine configuration."""
    command, args = list(main.get("command", [])), list(main.get("args", []))
    if command[:2] == ["/bin/sh", "-c"]:
        line = re.sub(r"\$\{?(\w+)\}?", lambda found: env[found.group(1)], args[0])
        words = shlex.split(line.replace("\\\n", " "))
        start = next(index for index, word in enumerate(words) if word.startswith("python"))
        yield "shell", " ".join(["sh -c", *words[:start]])
        command, args = words[start : start + 3], words[start + 3 :]
    if command:
        yield "command", " ".join(["python3", *command[1:]])
    flags: Flat = {}
    for index, word in enumerate(args):
        if word.startswith("--"):
            follows = args[index + 1] if index + 1 < len(args) else "--"
            flags[_ALIASES.get(word, word)] = "" if follows.startswith("--") else _text(follows)
    engine: Flat = {}
    if "dynamo.trtllm" in command:
        (data,) = maps
        (text,) = data.values()
        engine = dict(_flatten("engine", yaml.safe_load(text)))
        path = flags.pop("--extra-engine-args")
        yield "args.--extra-engine-args", path
        for flag, key in _ENGINE_KEYS.items():
            if flag not in flags:
                continue
            given = flags.pop(flag)
            if engine.setdefault(f"engine.{key}", given) != given:
                yield f"args.{flag} (unheeded)", given
    yield from engine.items()
    for flag, value in flags.items():
        if value.startswith("{"):
            yield from _flatten(f"args.{flag}", json.loads(value))
        else:
            yield f"args.{flag}", value or "set"


def _flatten(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(f"{path}.{key}", inner)
    elif value != {}:
        yield path, _text(value)


def _text(value: Any) -> str:
    """Numbers and booleans in one spelling."""
    if isinstance(value, list | bool) or value is None:
        return json.dumps(value)
    try:
        return f"{float(value):g}"
    except ValueError:
        return str(value)
