"""KV transfer over EFA: everything that must change together, from one function. Half of it is worse than none.

Both engines move the cache with NIXL, and NIXL uses UCX unless told LIBFABRIC: vLLM by its connector's own configuration, TensorRT-LLM
by an environment variable. Over EFA, UCX falls back to TCP without an error and a first token takes about 100 s (facts/dynamo.md §5.2,
facts/aws.md §4).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from recipe.catalogue import GpuInstance
from recipe.config import EngineName, Frozen, Recipe, Role
from recipe.constants import EFA_RESOURCE, GRAPH_LABEL

NIXL_METRICS_PORT: Final = 19090
"""Prometheus port of NIXL's transfer counters (facts/dynamo.md §1.4): the proof that EFA carries the cache."""

_KV_ROLES: Final[dict[Role, str]] = {"prefill": "kv_producer", "decode": "kv_consumer"}
"""As Dynamo 1.6.1's own migration hint assigns them (wheel ai-dynamo 1.6.1, dynamo/vllm/args.py, `_reject_connector_flag`).
`kv_both` of older recipes is called deprecated; not run by us: docs/unverified.md."""

_ENV: Final[dict[str, str]] = {
    "FI_PROVIDER": "efa",
    "FI_EFA_USE_DEVICE_RDMA": "1",
    # On, the shared-memory path corrupts GPU memory without a word (facts/dynamo.md §5.2).
    "FI_EFA_ENABLE_SHM_TRANSFER": "0",
    "FI_EFA_ENABLE_SHM": "0",
    # The pods ask for no huge pages; libfabric must then not try them (facts/aws.md §4).
    "FI_EFA_USE_HUGE_PAGE": "0",
    "FI_LOG_LEVEL": "warn",
    "NIXL_TELEMETRY_ENABLE": "y",
    "NIXL_TELEMETRY_EXPORTER": "prometheus",
    "NIXL_TELEMETRY_PROMETHEUS_PORT": str(NIXL_METRICS_PORT),
}
"""LD_LIBRARY_PATH is missing on purpose: the -efa image puts /opt/amazon/efa/lib first itself (ai-dynamo/dynamo
container/templates/aws.Dockerfile@141939f), and a value here would drop the image's other directories. UCX_TLS must not be set."""


class KvTransferBundle(Frozen):
    """What the workers of one role need to send or receive KV cache over EFA."""

    image_suffix: str
    """Of the runtime image's tag: the variant with EFA's libfabric."""
    args: tuple[str, ...]
    """For vLLM."""
    engine_config: dict[str, Any]
    """Keys of the engine's own YAML, for TensorRT-LLM."""
    env: dict[str, str]
    efa: int
    """EFA devices per worker: the share of the node's devices that belongs to its GPUs."""
    security_context: dict[str, Any]
    """Of the container, wire form."""

    @property
    def resources(self) -> dict[str, str]:
        """Requests and limits alike."""
        return {EFA_RESOURCE: str(self.efa)}

    @staticmethod
    def pod_affinity(graph: str) -> dict[str, Any]:
        """Workers of `graph` in one zone, wire form: EFA does not cross zones.

        This stack's nodes share one zone, so the rule never excludes any of them; where nodes come from elsewhere, a worker in
        the wrong zone stays Pending with a reason instead of falling back to TCP. On the graph label only: workers of a
        disaggregated graph carry the component types prefill and decode, never `worker` (facts/dynamo.md §4.2 item 4).
        """
        term = {"labelSelector": {"matchLabels": {GRAPH_LABEL: graph}}, "topologyKey": "topology.kubernetes.io/zone"}
        return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}


def kv_transfer(recipe: Recipe, role: Role, instance: GpuInstance | None) -> KvTransferBundle | None:
    """The bundle of `role`'s workers on `instance`; None where nothing is transferred: one worker does both, or only pretends to."""
    if recipe.mode == "agg" or instance is None:
        return None
    args, engine_config, env = _SWITCHES[recipe.engine](recipe.serving.kv_transfer.backend.upper(), role)
    return KvTransferBundle(
        image_suffix="-efa",
        args=args,
        engine_config=engine_config,
        env=_ENV | env,
        efa=instance.efa_for(recipe.workers[role].gpus),
        security_context=_security_context(recipe.serving.kv_transfer.privileged),
    )


_Switch: TypeAlias = tuple[tuple[str, ...], dict[str, Any], dict[str, str]]
"""Arguments, keys of the engine's YAML, environment."""


def _vllm(backend: str, role: Role) -> _Switch:
    config = {
        "kv_connector": "NixlConnector",
        "kv_role": _KV_ROLES[role],
        # Only this moves NIXL off UCX; environment variables are ignored (vllm-project/vllm#41814).
        "kv_connector_extra_config": {"backends": [backend]},
    }
    return ("--kv-transfer-config", json.dumps(config, separators=(",", ":"))), {}, {}


def _trtllm(backend: str, _role: Role) -> _Switch:
    env = {
        # Read once, when the process starts; misspelt, it is UCX (TensorRT-LLM docs/source/features/disagg-serving-aws-efa.md@7cdfd67).
        "TRTLLM_NIXL_KVCACHE_BACKEND": backend,
        # The line that says which backend it became has level INFO.
        "TLLM_LOG_LEVEL": "INFO",
    }
    # Said, because DEFAULT is whatever one of four environment variables names (llm_args.py@0004396), and none is no transfer at all.
    return (), {"cache_transceiver_config": {"backend": "NIXL"}}, env


_SWITCHES: Final[dict[EngineName, Callable[[str, Role], _Switch]]] = {"vllm": _vllm, "trtllm": _trtllm}
"""What makes each engine send and receive with NIXL, and NIXL use a backend."""


def _security_context(privileged: bool) -> dict[str, Any]:
    """EFA pins memory. IPC_LOCK allows that; sources disagree whether it is enough (docs/unverified.md), hence the switch.

    With it also root: the image runs as user `dynamo` (aws.Dockerfile@141939f), whose processes do not receive added
    capabilities. Upstream's own p5 manifest sets the same three (qwen3-32b/vllm/cloud-providers/deploy-aws-p5.48xlarge).
    """
    if privileged:
        return {"privileged": True, "runAsUser": 0, "capabilities": {"add": ["IPC_LOCK", "SYS_PTRACE"]}}
    return {"capabilities": {"add": ["IPC_LOCK"]}}
