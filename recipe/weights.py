"""The download Job: puts one commit of the model on the cache, verified, before any GPU is paid for."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from recipe.catalogue import JOB_IMAGE
from recipe.context import RenderContext
from recipe.jobs import (
    CONTAINER_SECURITY,
    PACKAGES_MOUNT,
    PACKAGES_VOLUME,
    PACKAGES_VOLUME_MOUNT,
    REQUIREMENTS,
    USER,
    JobSpec,
    build_job,
    install,
)
from recipe.jobs import SCRIPTS as SCRIPTS_FOLDER
from recipe.plan import Late, Manifest
from recipe.timeline import lead_seconds

TOKEN_SECRET: Final = "hf-token-secret"  # noqa: S105 - the name of an object (upstream's)

WEIGHT_FILES: Final = "*.safetensors"
"""What an engine that only pretends does not need: everything else of a repository is tokenizer and configuration."""
WHOLE_MEMORY_GIB: Final = 64
"""Of the download Job with the weights, as upstream's (facts/dynamo.md §4.1)."""
PART_MEMORY_GIB: Final = 1
"""Of the download Job without them: 16 MB in all. An assumption of ours."""
LEAST_WHOLE_MEMORY_GIB: Final = 12
"""8 GB of buffers outside the fast mode, and the process around them."""

FAST_MODE_GIB: Final = 64
"""From this memory on, huggingface_hub's fast mode: it buffers up to 64 GB, else at most 8 GB
(https://huggingface.co/docs/hub/en/xet/using-xet-storage#download-buffers, in upstream's download Job)."""

ATTEMPTS: Final = 3
"""Pods. The script itself retries what passes; this is for a lost node or a killed process (upstream: backoffLimit 3)."""


def snapshot_path(mount: str, model_id: str, revision: str) -> str:
    """Directory of one commit in a Hugging Face cache whose HF_HOME is `mount`."""
    repository = "models--" + model_id.replace("/", "--")
    return str(PurePosixPath(mount) / "hub" / repository / "snapshots" / revision)


def token_secret(context: RenderContext) -> Manifest | None:
    """The Hugging Face token, only where the recipe asks for it. The value is put in by the component."""
    if not context.recipe.weights.token:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": TOKEN_SECRET, "namespace": context.names.namespace, "labels": context.labels},
        "type": "Opaque",
        "stringData": {"HF_TOKEN": Late.HF_TOKEN},
    }


def weights_job(context: RenderContext) -> tuple[Manifest, Manifest]:
    """ConfigMap and Job of the download."""
    weights, claim, whole = context.recipe.weights, context.claim("model"), context.gpu is not None
    memory_gib = weights.memory_gib or (WHOLE_MEMORY_GIB if whole else PART_MEMORY_GIB)
    cache: Manifest = {"name": claim.name, "mountPath": claim.mount}
    fast = memory_gib >= FAST_MODE_GIB
    packages = install(cpu="1" if whole else "500m", memory="512Mi")
    own: Manifest = {
        "name": "own",
        "image": JOB_IMAGE,
        # The root of a new Lustre belongs to root (EFS' access point gives it to the writer). Only the root: what is in it is ours.
        "command": ["chown", f"{USER}:{USER}", claim.mount],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "32Mi"}},
        "securityContext": {
            **CONTAINER_SECURITY,
            "runAsNonRoot": False,
            "runAsUser": 0,
            "runAsGroup": 0,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
        },
        "volumeMounts": [cache],
    }
    return build_job(
        context,
        JobSpec(
            purpose="weights",
            modules=("download",),
            files={REQUIREMENTS: (SCRIPTS_FOLDER / "download-requirements.txt").read_text(encoding="utf-8")},
            env={
                "MODEL_ID": context.model.id,
                "MODEL_REVISION": context.revision,
                "HF_HOME": claim.mount,
                "HF_XET_HIGH_PERFORMANCE": "1" if fast else "0",
                # Each chunk is read once: a cache of them would only be written to EFS, which bills for it.
                "HF_XET_CACHE": "/tmp/xet",
                "HF_XET_CHUNK_CACHE_SIZE_BYTES": "0",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "PYTHONPATH": PACKAGES_MOUNT,
                **({} if whole else {"MODEL_FILES_WITHOUT": WEIGHT_FILES}),
            },
            env_from=({"secretRef": {"name": TOKEN_SECRET}},) if weights.token else (),
            cpu="2" if whole else "500m",  # upstream's download Job: 2, at most 8
            cpu_limit="8",
            memory=f"{memory_gib}Gi",
            deadline_seconds=weights.timeout_minutes * 60,
            attempts=ATTEMPTS,
            final_exit_codes=(2, 3, 4),
            init_containers=(own, packages) if claim.on_lustre else (packages,),
            volumes=(
                PACKAGES_VOLUME,
                {"name": claim.name, "persistentVolumeClaim": {"claimName": claim.name}},
            ),
            volume_mounts=({**PACKAGES_VOLUME_MOUNT, "readOnly": True}, cache),
        ),
    )


def head_job(context: RenderContext) -> tuple[Manifest, Manifest] | None:
    """ConfigMap and Job that end when GPU nodes should be asked for (`weights.wait: overlap`); None where nobody asks for it."""
    weights, claim = context.recipe.weights, context.claim("model")
    if weights.wait != "overlap":
        return None
    return build_job(
        context,
        JobSpec(
            purpose="head",
            modules=("head",),
            env={
                "MODEL_ID": context.model.id,
                "MODEL_REVISION": context.revision,
                "HF_HOME": claim.mount,
                "LEAD_SECONDS": f"{lead_seconds():.0f}",
            },
            cpu="100m",
            memory="128Mi",
            deadline_seconds=weights.timeout_minutes * 60,
            attempts=ATTEMPTS,
            final_exit_codes=(2, 5, 6),
            volumes=({"name": claim.name, "persistentVolumeClaim": {"claimName": claim.name, "readOnly": True}},),
            volume_mounts=({"name": claim.name, "mountPath": claim.mount, "readOnly": True},),
        ),
    )
